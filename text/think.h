/* A limit on reasoning: after so many of its tokens those that end it are forced. Plain data; one
 * thread at a time. */
#ifndef VRAMD_TEXT_THINK_H
#define VRAMD_TEXT_THINK_H

#include "text/tokenizer/tokenizer.h"

enum { THINK_MAX_MARK = 64 };

typedef struct think_limit { /* immutable; its pointers live as long */
    str begin, end;          /* texts of the marks, up to THINK_MAX_MARK bytes */
    bool open;               /* the output begins within reasoning */
    uint32_t most;           /* tokens */
    const int32_t *forced;   /* [n_forced >= 1] then */
    uint32_t n_forced;
} think_limit;

typedef struct think_state {
    uint8_t phase, n_tail;
    char tail[2 * THINK_MAX_MARK]; /* the last bytes of the output */
    uint32_t n_tokens, n_forced;
} think_state;

void think_start(const think_limit *, think_state *);
/* One more token of the output. */
void think_take(const think_limit *, think_state *, const tokenizer *, int32_t token);
/* The token that must be drawn next; -1: any. */
int32_t think_must(const think_limit *, const think_state *);

#endif
