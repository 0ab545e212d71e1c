/* Pages that change their addresses. Owns the mappings of its pieces. */
#include "memory/pages.h"

#include <sys/mman.h>

#include "base/check.h"

static const uint64_t HUGE = 2 << 20, GRANULES = 1024;

void pages_init(pages *k, uint64_t budget_bytes) {
    const uint64_t part = align_up(budget_bytes / GRANULES, HUGE);
    k->granule = part > HUGE ? part : HUGE;
    k->bytes = k->n = 0;
}

static void add(pages *k, char *p, uint64_t bytes) {
    k->piece[k->n++] = (pages_piece){p, bytes};
    k->bytes += bytes;
}

uint64_t pages_keep(pages *k, char *p, uint64_t bytes, uint64_t mapped) {
    uint64_t kept = bytes / k->granule * k->granule;
    if (k->n == PAGES_MAX) kept = 0;
    if (kept) add(k, p, kept);
    if (mapped > kept) munmap(p + kept, mapped - kept);
    return kept;
}

/* The smallest piece that has all of it, or else the largest: few are cut. */
static uint32_t choose(const pages *k, uint64_t bytes) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < k->n; i++) {
        const uint64_t a = k->piece[i].bytes, b = k->piece[best].bytes;
        if (b >= bytes ? a >= bytes && a < b : a > b) best = i;
    }
    return best;
}

/* The first bytes of a piece. */
static char *cut(pages *k, uint32_t i, uint64_t bytes) {
    pages_piece *x = &k->piece[i];
    char *p = x->p;
    x->p += bytes;
    x->bytes -= bytes;
    k->bytes -= bytes;
    if (x->bytes == 0) *x = k->piece[--k->n];
    return p;
}

void pages_take(pages *k, uint64_t bytes, pages *out) {
    while (k->n && bytes >= k->granule && out->n < PAGES_MAX) {
        const uint32_t i = choose(k, bytes);
        uint64_t part = bytes / k->granule * k->granule;
        if (part > k->piece[i].bytes) part = k->piece[i].bytes;
        add(out, cut(k, i, part), part);
        bytes -= part;
    }
}

uint64_t pages_drop(pages *k, uint64_t most) {
    uint64_t gone = 0;
    while (k->bytes > most) {
        uint64_t part = align_up(k->bytes - most, k->granule);
        const uint32_t i = k->n - 1;
        if (part > k->piece[i].bytes) part = k->piece[i].bytes;
        munmap(cut(k, i, part), part);
        gone += part;
    }
    return gone;
}

/* One by one: a piece may consist of several mappings of the kernel's, and it moves no two at once. Those
 * that were one become one again. */
uint64_t pages_place(pages *k, char *to) {
    uint64_t at = 0, placed = 0;
    for (uint32_t i = 0; i < k->n; i++)
        for (uint64_t x = 0; x < k->piece[i].bytes; x += k->granule, at += k->granule) {
            char *from = k->piece[i].p + x;
            if (mremap(from, k->granule, k->granule, MREMAP_MAYMOVE | MREMAP_FIXED, to + at) !=
                MAP_FAILED)
                placed += k->granule;
            else
                munmap(from, k->granule);
        }
    const bool all = placed == at;
    k->bytes = k->n = 0;
    return all ? placed : 0;
}
