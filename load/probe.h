/* What the server reports about itself before, between and after levels: its model, its
 * tokenizer, its memory. */
#ifndef VRAMD_LOAD_PROBE_H
#define VRAMD_LOAD_PROBE_H

#include "load/client.h"

/* GET /v1/models: *model (the caller's to free) is the first one's name; with want, only checks
 * whether the server is there and takes the key. ERR_UNAVAILABLE, ERR_INVALID (key),
 * ERR_NOT_FOUND (no model is named). */
status load_probe_model(load_client *, const char *want, char **model, err *);

/* POST /tokenize, as vLLM, llama.cpp's server and vramd understand it: ids for prompts in
 * completions, else how many tokens a word has. Without the endpoint a word counts as one
 * token, and PROMPTS_IDS is ERR_UNSUPPORTED. vec_i32_clear v->ids. */
status load_probe_vocab(load_client *, const load_spec *, load_vocab *v, err *);

/* GET /v1/memory of vramd. */
typedef struct load_memory {
    bool there; /* the server has it */
    uint64_t budget_bytes, ledger_bytes, peak_bytes, anonymous_bytes, kv_bytes;
    int64_t unaccounted_bytes;
} load_memory;
void load_probe_memory(load_client *, load_memory *);

#endif
