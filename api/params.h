/* The parameters of a completion request, one table: name, type, range. */
#ifndef VRAMD_API_PARAMS_H
#define VRAMD_API_PARAMS_H

#include "json/in.h"
#include "model/bans.h"
#include "model/sampling.h"
#include "text/stop.h"
#include "text/tokenizer.h"

enum {
    PARAMS_MAX_STOP_IDS = 16,
    PARAMS_MAX_BIAS = 1024,
    PARAMS_MAX_CHOICES = 128,
    PARAMS_MAX_ALLOWED = 65536,
    PARAMS_MAX_BAD_WORDS = 256,
    PARAMS_MAX_BAD_WORD_BYTES = 256
};

typedef struct params {
    str model;         /* "" when not given */
    sampling sampling; /* end_tokens excepted; seed drawn unless given */
    /* Tokens that may be drawn, and sequences that the output must not contain (token_rules.c):
     * NULL, and none, where nothing forbids any. */
    const uint32_t *allowed; /* [sampling_mask_words(n_vocab)] */
    const banned_tokens *banned;
    uint32_t n_banned;
    int64_t max_tokens; /* -1: not given */
    uint32_t n;
    bool echo, ignore_eos, logprobs, return_memory, add_special_tokens;
    bool stream, include_usage, continuous_usage;
    str stop[STOP_MAX];
    uint32_t n_stop;
    int32_t stop_ids[PARAMS_MAX_STOP_IDS];
    uint32_t n_stop_ids;
    bool has_priority;
    int32_t priority;
    str cache_salt;      /* "": none */
    uint64_t timeout_us; /* 0: none */
} params;

/* Reads and checks everything but prompt and messages. Strings point into the JSON value; the
 * rest is in the arena. Errors: ERR_INVALID (field: the parameter), ERR_UNSUPPORTED (likewise),
 * ERR_NO_MEMORY. */
status params_read(params *out, const json_t *body, bool chat, const tokenizer *, arena *,
                   err *);

#endif
