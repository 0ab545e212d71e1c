/* Log-probabilities of one choice, written as JSON as tokens come, in the shape of completions
 * (four parallel lists) or of chat (one list of objects). A token is shown once its text is:
 * what waits for a stop string to be ruled out waits here too, and dies with it. */
#ifndef VRAMD_API_LOGPROBS_H
#define VRAMD_API_LOGPROBS_H

#include "base/buf.h"
#include "model/sampling.h"
#include "text/tokenizer/tokenizer.h"

typedef struct logprobs_waiting logprobs_waiting;

typedef struct logprobs {
    bool on, chat;
    bool ids;     /* tokens are named token_id:N */
    bool with_id; /* chat: each has its "id", too */
    int n_top;
    const tokenizer *tok;
    /* completions: tokens, token_logprobs, top_logprobs, text_offset; chat: the first alone */
    buf part[4];
    uint32_t n; /* entries since the last logprobs_reset */
    logprobs_waiting *waiting;
    uint32_t n_waiting, cap_waiting;
    arena *mem;
    bool failed;
} logprobs;

/* The caller sets ids and with_id. */
void logprobs_init(logprobs *, bool on, bool chat, int n_top, const tokenizer *, arena *);
/* A token whose text begins at byte start (counted over the whole output) and at character
 * offset. s is NULL for the first prompt token, which nothing predicts: then id says which. */
void logprobs_push(logprobs *, const sampled *s, int32_t id, uint64_t start, uint64_t offset);
/* Text up to byte shown is out; all: nothing is held back. */
void logprobs_release(logprobs *, uint64_t shown, bool all);
void logprobs_drop(logprobs *); /* what still waits will not be shown */
/* Appends the JSON value of the entries so far, null when off; reset starts anew. */
void logprobs_write(const logprobs *, buf *out);
void logprobs_reset(logprobs *);

#endif
