/* Prompt lookup: what a text says next, guessed from where it said the same before. Pure; any thread.
 *
 * No index is kept: a search reads 4 bytes of each token, where the attention of the row that is to be
 * verified reads the token's keys and values, thousands of times as many bytes. */
#ifndef VRAMD_DAEMON_LOOKUP_H
#define VRAMD_DAEMON_LOOKUP_H

#include <stdint.h>

enum { LOOKUP_LEAST = 2, LOOKUP_MOST = 16 };

typedef struct lookup_match {
    uint32_t
        length;    /* tokens at the end of the text that stood before, too; 0: there are none */
    uint32_t next; /* the position behind them there */
} lookup_match;

/* The longest match of LOOKUP_LEAST to LOOKUP_MOST tokens, and the newest of several. */
lookup_match lookup_find(const int32_t *tokens, uint32_t n);
/* The n_guess tokens that followed the match. Where it reaches the end of the text, which then repeats
 * itself, it is taken to go on doing so. */
void lookup_guess(const int32_t *tokens, uint32_t n, const lookup_match *, int32_t *guess,
                  uint32_t n_guess);

#endif
