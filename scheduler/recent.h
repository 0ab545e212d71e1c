/* The texts of sequences that ended of late: prompts with what was said to them, the newest ones that
 * fit, each as far as its share. A ring of tokens, where a new text overwrites the oldest; none is
 * split, so what does not fit at the end of the ring begins at its start.
 *
 * Owns nothing: arrays come from the scheduler's region. Pure. Engine thread. */
#ifndef VRAMD_SCHEDULER_RECENT_H
#define VRAMD_SCHEDULER_RECENT_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/stats.h"

enum { RECENT_TEXTS = 64 };

typedef struct recent_text {
    uint64_t salt;
    uint64_t at;    /* its first token, counted from the first that was ever written */
    uint32_t n;     /* tokens that are here; 0: forgotten ... */
    uint32_t n_all; /* ... of so many */
    char request[SCHED_REQUEST_BYTES];
} recent_text;

typedef struct recent {
    uint32_t cap;     /* tokens; 0: nothing is remembered */
    uint64_t written; /* where the next one goes, as at */
    uint64_t n_texts; /* ever; text number i is text[i % RECENT_TEXTS] */
    int32_t *token;   /* [cap] */
    recent_text *text;
} recent;

/* As much of a name as there is space for, or ""; NULL is "". */
static inline void recent_name(char out[SCHED_REQUEST_BYTES], const char *name) {
    uint32_t i = 0;
    for (; name && name[i] && i + 1 < SCHED_REQUEST_BYTES; i++) out[i] = name[i];
    out[i] = '\0';
}
/* A text may take a quarter of the ring: an end that is longer is left out. */
void recent_add(recent *, uint64_t salt, const int32_t *tokens, uint32_t n,
                const char *request);
/* Text number i, of [n_texts - RECENT_TEXTS, n_texts); *tokens: [n]. NULL: it is not here. */
const recent_text *recent_get(const recent *, uint64_t i, const int32_t **tokens);
/* Texts with this salt, or all. Nothing of them is left. */
void recent_forget(recent *, const uint64_t *salt);

#endif
