/* The arithmetic behind release.h. */
#include "memory/release.h"

static const uint64_t SECOND = 1000000;

static uint64_t min_u64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

void release_set(release *r, uint64_t full) {
    *r = (release){.full = full, .level = full, .calm_us = RELEASE_CALM_S * SECOND};
}

static void wait_for_calm(release *r, uint64_t now_us) {
    const bool relapse = r->grown_us && now_us - r->grown_us < RELEASE_RELAPSE_S * SECOND;
    /* Further events of the same pressure do not count again. */
    if (relapse)
        r->calm_us = min_u64(2 * r->calm_us, RELEASE_CALM_MOST_S * SECOND);
    else if (r->level == r->full)
        r->calm_us = RELEASE_CALM_S * SECOND;
    r->grown_us = 0;
    r->grow_us = now_us + r->calm_us;
}

void release_on_pressure(release *r, uint64_t now_us, uint64_t held, uint64_t need) {
    const uint64_t now = min_u64(min_u64(held, r->full), release_wanted(r));
    wait_for_calm(r, now_us);
    if (now <= need) {
        /* It may not grow either. */
        r->level = min_u64(r->level, now);
        return;
    }
    uint64_t part = (now - need) / 2;
    if (part < RELEASE_PIECE) part = min_u64(RELEASE_PIECE, now - need);
    r->level = now - part;
}

uint64_t release_next_us(const release *r) {
    return r->grow_us ? r->grow_us : UINT64_MAX;
}

bool release_grow(release *r, uint64_t now_us) {
    if (!r->grow_us || now_us < r->grow_us) return false;
    uint64_t part = (r->full - r->level) / 4;
    if (part < RELEASE_PIECE) part = min_u64(RELEASE_PIECE, r->full - r->level);
    r->level += part;
    r->grown_us = now_us;
    r->grow_us = r->level < r->full ? now_us + RELEASE_GROW_S * SECOND : 0;
    return true;
}

void release_on_refusal(release *r, uint64_t now_us, uint64_t have) {
    wait_for_calm(r, now_us);
    r->level = min_u64(have, r->full);
}

void release_on_idle(release *r, uint64_t least) {
    r->idle = least;
}

void release_on_request(release *r) {
    r->idle = 0;
}

uint64_t release_wanted(const release *r) {
    return r->idle ? min_u64(r->idle, r->level) : r->level;
}
