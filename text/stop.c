/* Stop strings by KMP automata. Owns nothing but tables in the request's arena. */
#include "text/stop.h"

bool stop_set_init(stop_set *set, arena *a, const str *s, uint32_t n) {
    *set = (stop_set){.n = n, .s = s};
    if (n && !(set->fail = arena_alloc(a, n * sizeof *set->fail))) return false;
    for (uint32_t i = 0; i < n; i++) {
        uint16_t *f = arena_alloc(a, s[i].len * sizeof *f);
        if (!f) return false;
        set->fail[i] = f;
        f[0] = 0;
        for (size_t at = 1, k = 0; at < s[i].len; at++) {
            while (k && s[i].ptr[at] != s[i].ptr[k]) k = f[k - 1];
            if (s[i].ptr[at] == s[i].ptr[k]) k++;
            f[at] = (uint16_t)k;
        }
    }
    return true;
}

bool stop_state_init(stop_state *st, arena *a, const stop_set *set) {
    *st = (stop_state){0};
    if (set->n) st->matched = arena_zalloc(a, set->n * sizeof *st->matched);
    return set->n == 0 || st->matched;
}

/* One byte for all automata; returns the string that completed, the longest of several. */
static int step(const stop_set *set, stop_state *st, char c) {
    int hit = -1;
    uint16_t held = 0;
    for (uint32_t i = 0; i < set->n; i++) {
        str s = set->s[i];
        uint16_t k = st->matched[i];
        while (k && s.ptr[k] != c) k = set->fail[i][k - 1];
        if (s.ptr[k] == c) k++;
        st->matched[i] = k;
        if (k > held) held = k;
        if (k == s.len && (hit < 0 || s.len > set->s[hit].len)) hit = (int)i;
    }
    st->held = held;
    return hit;
}

/* The held bytes are the beginning of the string with the longest match. */
static str held_bytes(const stop_set *set, const stop_state *st) {
    for (uint32_t i = 0; i < set->n; i++)
        if (st->matched[i] == st->held) return (str){set->s[i].ptr, st->held};
    return (str){NULL, 0};
}

int stop_push(const stop_set *set, stop_state *st, str text, buf *out) {
    if (set->n == 0) {
        buf_add(out, text);
        return -1;
    }
    /* old: held before this piece, not yet shown; shown: bytes of old + text already out. */
    str old = held_bytes(set, st);
    size_t shown = 0;
    int hit = -1;
    size_t at = 0;
    for (; at < text.len && hit < 0; at++) hit = step(set, st, text.ptr[at]);
    size_t keep = hit >= 0 ? set->s[hit].len : st->held;
    size_t upto = old.len + at - keep; /* a match never begins before the held bytes */
    if (upto > shown && old.len > shown) {
        size_t n = upto < old.len ? upto : old.len;
        buf_add(out, (str){old.ptr, n});
        shown = n;
    }
    if (upto > shown) buf_add(out, (str){text.ptr + shown - old.len, upto - shown});
    return hit;
}

void stop_flush(const stop_set *set, stop_state *st, buf *out) {
    if (set->n && st->held) buf_add(out, held_bytes(set, st));
    if (set->n) memset(st->matched, 0, set->n * sizeof *st->matched);
    st->held = 0;
}
