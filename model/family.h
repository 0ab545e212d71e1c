/* Inside of model/: the families of models, one row each, and the pieces that their forward
 * passes have in common. A family's file (llama.c, gemma.c, phi3.c) records one pass out of
 * them; the first error sticks in the recorder. */
#ifndef VRAMD_MODEL_FAMILY_H
#define VRAMD_MODEL_FAMILY_H

#include "model/recorder.h"

typedef struct family {
    const char *arch;   /* as GGUF names it */
    const char *refuse; /* why it cannot be run; NULL: it can */
    rope_pairing pairing;
    bool qkv_bias, qk_norm;
    uint32_t norms_per_layer;
    uint32_t window_every; /* model_config's, where the file has a window and says nothing */
    float window_theta;    /* likewise */
    void (*record)(recorder *);
} family;

/* NULL: not known. */
const family *family_find(const char *arch);
/* For hints: the architectures that can be run. */
#define FAMILIES_KNOWN "llama (also Mistral, SmolLM2, ...), qwen2, qwen3, phi3, gemma3"

void llama_record(recorder *); /* llama.c: llama, qwen2, qwen3 */
void phi3_record(recorder *);  /* phi3.c */
void gemma_record(recorder *); /* gemma.c: gemma3 */

/* ---- pieces (parts.c) ---- */

/* What divides RoPE's frequencies, for all layers: program.h's rope.factors, long_factors. */
typedef struct rope_factors {
    weight_id usual, far;
} rope_factors;

/* x = scale * embedding of the token; the matrix into *embd. */
value_id part_embed(recorder *, float scale, weight_id *embd);
/* norm(x) * w */
value_id part_norm(recorder *, int layer, const char *name, value_id x, row_set);
/* x + norm(y) * w */
value_id part_add_norm(recorder *, int layer, const char *name, value_id y, value_id x);
/* W in (+ bias) (+ x), n_embd wide; bias NULL and x NO_VALUE where there is none. */
value_id part_linear(recorder *, int layer, const char *name, const char *bias, uint32_t n_in,
                     value_id in, value_id x);
/* The heads' outputs for x, normed: projections to q | k | v (biases and QK norm as the config
 * says; fused: one matrix attn_qkv), rotation, cache, attention. */
value_id part_attention(recorder *, int layer, value_id x, rope_factors, bool fused);
/* act(W_gate x) * (W_up x); fused: both in the matrix ffn_up, gate first. */
value_id part_gate_up(recorder *, int layer, value_id x, activation, bool fused);
/* Last norm, logits (of embd where the config ties them), sampling. */
void part_head(recorder *, value_id x, weight_id embd);

#endif
