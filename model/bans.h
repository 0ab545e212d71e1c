/* Token sequences that an output must not contain: the last token of each is forbidden where
 * the output ends with the others. Pure; one thread at a time. */
#ifndef VRAMD_MODEL_BANS_H
#define VRAMD_MODEL_BANS_H

#include <stdint.h>

enum { BANS_MAX_TOKENS = 32 };

typedef struct banned_tokens {
    const int32_t *ids;
    uint32_t n; /* 1..BANS_MAX_TOKENS */
} banned_tokens;

typedef struct bans {            /* zeroed, then banned and n set: nothing was said yet */
    const banned_tokens *banned; /* [n], borrowed */
    uint32_t n;
    uint32_t n_last;                   /* tokens of output in last */
    int32_t last[BANS_MAX_TOKENS - 1]; /* the newest, oldest first */
} bans;

/* Clears the bits of tokens that would complete a banned sequence; ids are in the vocabulary.
 */
void bans_forbid(const bans *, uint32_t *mask);
/* The output has one token more. */
void bans_take(bans *, int32_t token);

#endif
