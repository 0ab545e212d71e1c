/* The parameters of a completion request, read from its JSON (the table: api/param_table.h). */
#ifndef VRAMD_API_PARAMS_H
#define VRAMD_API_PARAMS_H

#include "api/constraint.h"
#include "api/tools.h"
#include "json/in.h"
#include "model/bans.h"
#include "model/sampling.h"
#include "text/stop.h"
#include "text/tokenizer/tokenizer.h"

enum {
    PARAMS_MAX_STOP_IDS = 16,
    PARAMS_MAX_STOPS = 256,
    PARAMS_MAX_STOP_BYTES = 16 * 1024, /* of all together */
    PARAMS_MAX_BIAS = 1024,
    PARAMS_MAX_CHOICES = 128,
    PARAMS_MAX_ALLOWED = 65536,
    PARAMS_MAX_BAD_WORDS = 256,
    PARAMS_MAX_BAD_WORD_BYTES = 256
};

typedef struct params {
    str model; /* "" when not given */
    /* end_tokens excepted; seed drawn unless given; n_logprobs: the most of n_top,
     * prompt_logprobs and what best_of needs */
    sampling sampling;
    /* Tokens that may be drawn, and sequences that the output must not contain (token_rules.c):
     * NULL, and none, where nothing forbids any. */
    const uint32_t *allowed; /* [sampling_mask_words(n_vocab)] */
    const banned_tokens *banned;
    uint32_t n_banned;
    constraint form;
    int64_t max_tokens;  /* -1: not given */
    uint32_t n, n_shown; /* choices generated; of them the best n_shown are returned */
    bool echo, ignore_eos, logprobs, return_memory, receipt, add_special_tokens;
    bool stream, include_usage, continuous_usage;
    bool include_stop, skip_special, tokens_as_ids, return_token_ids;
    bool add_generation_prompt, continue_final;
    int n_top;               /* logprobs beside each token's own */
    int prompt_logprobs;     /* -1: none */
    int64_t truncate_prompt; /* 0: no; -1: to what leaves space for max_tokens */
    bool truncate_end;       /* the first tokens are kept, not the last */
    str *stop;               /* [n_stop] */
    uint32_t n_stop;
    int32_t stop_ids[PARAMS_MAX_STOP_IDS];
    uint32_t n_stop_ids;
    tool_params tools;
    int32_t think_budget;                    /* tokens of reasoning; -1: no limit */
    bool speculative;                        /* its next tokens may be guessed */
    bool split_reasoning, include_reasoning; /* from the text; in the answer */
    bool has_priority;
    int32_t priority;
    str cache_salt;      /* "": none */
    uint64_t timeout_us; /* 0: none */
} params;

/* Reads and checks everything but prompt and messages. defaults: of what the body does not give
 * (NULL: sampling_defaults). Strings point into the JSON value; the rest is in the arena.
 * Errors, field the parameter: ERR_INVALID, ERR_UNSUPPORTED, ERR_NO_MEMORY. */
status params_read(params *out, const json_t *body, bool chat, const sampling *defaults,
                   const tokenizer *, arena *, err *);

#endif
