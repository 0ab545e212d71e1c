/* Banned token sequences against the end of an output. */
#include "model/bans.h"

#include <string.h>

void bans_forbid(const bans *b, uint32_t *mask) {
    for (uint32_t i = 0; i < b->n; i++) {
        const banned_tokens *x = &b->banned[i];
        const uint32_t before = x->n - 1;
        if (before > b->n_last ||
            memcmp(x->ids, b->last + b->n_last - before, before * sizeof *x->ids) != 0)
            continue;
        const uint32_t token = (uint32_t)x->ids[before];
        mask[token / 32] &= ~(1u << token % 32);
    }
}

void bans_take(bans *b, int32_t token) {
    if (b->n_last == BANS_MAX_TOKENS - 1)
        memmove(b->last, b->last + 1, --b->n_last * sizeof *b->last);
    b->last[b->n_last++] = token;
}
