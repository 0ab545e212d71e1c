/* Searches a text backwards for its own end. */
#include "daemon/bridge/lookup.h"

#include <stdbool.h>

enum { STRIDE = 32 };

/* Vectors of them are compared at once. */
static bool has(const int32_t *tokens, int32_t token) {
    int32_t found = 0;
    for (uint32_t i = 0; i < STRIDE; i++) found |= tokens[i] == token;
    return found;
}

/* Tokens up to position last, LOOKUP_MOST at most, that are those at the end of the text. */
static uint32_t length_at(const int32_t *tokens, uint32_t n, uint32_t last) {
    uint32_t k = 0;
    while (k < LOOKUP_MOST && k <= last && tokens[last - k] == tokens[n - 1 - k]) k++;
    return k;
}

/* A longer one that ends in [from, to). */
static void look_at(const int32_t *tokens, uint32_t n, uint32_t from, uint32_t to,
                    lookup_match *best) {
    for (uint32_t last = to; last-- > from && best->length < LOOKUP_MOST;) {
        const uint32_t length = length_at(tokens, n, last);
        if (length >= LOOKUP_LEAST && length > best->length)
            *best = (lookup_match){length, last + 1};
    }
}

lookup_match lookup_find(const int32_t *tokens, uint32_t n) {
    lookup_match best = {0, 0};
    if (n <= LOOKUP_LEAST) return best;
    uint32_t to = n - 1;
    for (; to >= STRIDE && best.length < LOOKUP_MOST; to -= STRIDE)
        if (has(tokens + to - STRIDE, tokens[n - 1]))
            look_at(tokens, n, to - STRIDE, to, &best);
    if (to < STRIDE) look_at(tokens, n, 0, to, &best);
    return best;
}

void lookup_guess(const int32_t *tokens, uint32_t n, const lookup_match *m, int32_t *guess,
                  uint32_t n_guess) {
    for (uint32_t i = 0; i < n_guess; i++)
        guess[i] = m->next + i < n ? tokens[m->next + i] : guess[m->next + i - n];
}
