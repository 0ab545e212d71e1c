/* Inside of model/: the families of models, one row each, and the pieces that their forward
 * passes have in common. A family's file (llama.c, gemma.c, phi3.c) records one pass out of
 * them; the first error sticks in the recorder. */
#ifndef VRAMD_MODEL_FAMILY_H
#define VRAMD_MODEL_FAMILY_H

#include "model/recorder.h"

/* One of the models of a family in Hugging Face's config.json. */
typedef struct hf_model {
    /* "model_type", and the class in "architectures" (NULL: that of another model's row) */
    const char *type, *class;
    bool bias_option;     /* attention_bias and mlp_bias mean something */
    bool qkv_bias_option; /* attention_bias is of q, k and v alone */
    /* The members that have the number of experts and the width of one; NULL: it is dense. */
    const char *experts, *expert_width;
    const char *shared_width; /* of the expert that all rows have; or NULL */
    bool norm_option;         /* norm_topk_prob means something; absent: false */
} hf_model;

enum { FAMILY_HF_MODELS = 4 };

typedef struct family {
    const char *arch;   /* as GGUF names it */
    const char *others; /* models of other names that are of it, for people; or NULL */
    /* llama.cpp's converter stores the rows of q and k so that rotated pairs are neighbours;
     * it holds for the formats that permute (checkpoint_format.permutes_qk). */
    bool permuted;
    bool adjacent; /* rotated pairs are neighbours in every format */
    bool qkv_bias, qk_norm, qk_norm_whole;
    bool norms_plus_one; /* norms multiply by 1 + w; GGUF files hold the sum */
    bool encoder;        /* model_config's bidirectional */
    bool scales;         /* embedding_scale, residual_scale and logit_scale mean something */
    bool
        whole_attn_factor; /* GGUF: rope.scaling.attn_factor is not multiplied by YaRN's formula */
    bool
        shaped; /* layers of several kinds: config.shape is read (config_shape.c, hf_shape.c) */
    uint32_t norms_per_layer;
    struct {
        bool possible, required; /* among its models are mixtures; all are */
        bool norm, sigmoid;      /* model_config's experts_norm and experts_sigmoid, where the
                                    file says nothing */
        float eps;               /* model_config's experts_eps */
        bool shared_gate;        /* all rows have an expert beside them, gated by a sigmoid */
        bool divided;            /* GGUF: n_ff of files of 2024 is that of all experts used */
    } experts;
    uint32_t nope_every;   /* model_config's: no file says it */
    uint32_t window;       /* model_config's, where the file does not say */
    uint32_t window_every; /* model_config's, where the file has a window and says nothing */
    float window_theta;    /* likewise */
    bool yarn_exact;       /* YaRN's range is not rounded; GGUF files do not say so */
    bool window_unscaled;  /* layers with a window have rope's base, without its scaling */
    /* Models of so many layers scale scores by sqrt(n_heads / n_embd); their files do not say. */
    uint32_t wide_layers;
    float attn_cap, logit_cap;  /* model_config's, where the file does not say */
    void (*record)(recorder *); /* which operations an engine lacks, it says itself */
    struct {
        hf_model model[FAMILY_HF_MODELS]; /* type NULL: no more */
        bool tied;                        /* where config.json does not say */
        bool window_switch; /* use_sliding_window and max_window_layers mean something */
        const char *act;    /* hidden_act; NULL: not looked at */
        float rotary;       /* partial_rotary_factor, where config.json does not say; 0: 1 */
    } hf;
} family;

/* The i-th row of the table; NULL: no more. */
const family *family_at(size_t i);
/* NULL: not known. */
const family *family_find(const char *arch);
/* The family of a config.json by its model_type, or where that is absent (ptr NULL) by its
 * class, and which of its models it is. NULL: not known. */
const family *family_of_hf(str type, str class, const hf_model **model);
/* How dimensions of q and k are paired where the format does, or does not, permute. */
static inline rope_pairing family_pairing(const family *f, bool format_permutes) {
    return f->adjacent || (f->permuted && format_permutes) ? ROPE_ADJACENT : ROPE_HALVES;
}
/* For hints: "known: " and the architectures. */
void family_hint(err *);

/* config_shape.c: config.shape of a shaped family, once the rest is read. Errors: ERR_FORMAT,
 * ERR_UNSUPPORTED (field: the key). */
status config_shape_read(model_config *, const checkpoint *, err *);

void llama_record(
    recorder *); /* llama.c: llama, qwen2, qwen3, smollm3, mistral3, granite, their mixtures */
void phi3_record(recorder *);      /* phi3.c */
void gemma_record(recorder *);     /* gemma.c: gemma2, gemma3 */
void gemma4_record(recorder *);    /* gemma4.c */
void gpt_oss_record(recorder *);   /* gpt_oss.c */
void glm4_record(recorder *);      /* glm4.c */
void glm4moe_record(recorder *);   /* glm4.c */
void olmo2_record(recorder *);     /* olmo2.c: olmo2, olmo3 */
void qwen35_record(recorder *);    /* qwen35.c: qwen35, qwen35moe */
void lfm2_record(recorder *);      /* lfm2.c: lfm2, lfm2moe */
void deepseek2_record(recorder *); /* mla.c */
void bert_record(recorder *);      /* bert.c: bert, nomic-bert */
/* mamba2.c: granitehybrid; nemotron_h, nemotron_h_moe */
void granite_hybrid_record(recorder *);
void nemotron_h_record(recorder *);

/* ---- pieces (parts.c) ---- */

/* What divides RoPE's frequencies, for all layers: program.h's rope.factors, long_factors. */
typedef struct rope_factors {
    weight_id usual, far;
} rope_factors;

/* The residual stream is kept divided by the config's residual_scale: parts then add to it as they
 * are, and only embeddings and the eps of norms of it change. */

/* x = scale * embedding of the token; the matrix into *embd. */
value_id part_embed(recorder *, float scale, weight_id *embd);
/* norm(x) * w, x the residual stream */
value_id part_norm(recorder *, int layer, const char *name, value_id x, row_set);
/* x + norm(y) * w */
value_id part_add_norm(recorder *, int layer, const char *name, value_id y, value_id x);
/* W in (+ bias) (+ x), n_embd wide; bias NULL and x NO_VALUE where there is none. */
value_id part_linear(recorder *, int layer, const char *name, const char *bias, uint32_t n_in,
                     value_id in, value_id x);
/* The heads' outputs for x, normed: projections to q | k | v (biases and QK norm as the config
 * says; fused: one matrix attn_qkv), rotation, cache, attention. */
value_id part_attention(recorder *, int layer, value_id x, rope_factors, bool fused);
/* The same of q | k | v. */
value_id part_attend(recorder *, int layer, value_id qkv, rope_factors);
/* The matrix of that name, n_out rows, times in: a value called what. */
value_id part_project(recorder *, int layer, const char *name, uint32_t n_out, value_id in,
                      const char *what);
/* act(W_gate x) * (W_up x), n columns; fused: both in the matrix ffn_up, gate first; else with biases where
 * the config says so. Of an ungated model act(W_up x). */
value_id part_gate_up(recorder *, int layer, value_id x, activation, uint32_t n, bool fused);
/* What a dense feed-forward part makes of h (+ x; NO_VALUE: nothing is added), with the config's biases. */
value_id part_dense(recorder *, int layer, value_id h, activation, bool fused, value_id x);
/* part_gate_up of the expert that all rows have. */
value_id part_shared_gate_up(recorder *, int layer, value_id x, activation, uint32_t n);
/* llama.c's layer: norms before attention and before the feed-forward part (the tensor second), which is of
 * experts where the config says so. o_bias: of attention's output, or NULL. */
value_id part_layer_of_two_norms(recorder *, int layer, value_id x, rope_factors,
                                 const char *o_bias, const char *second, activation);
/* A layer with norms before and after attention and feed-forward: the residual stream behind it. fused:
 * as part_gate_up has it. */
value_id part_layer_of_four_norms(recorder *, int layer, value_id x, activation, bool fused);
/* Last norm, logits (of embd where the config ties them; scaled and capped as it says), sampling.
 * last: the tensor of the last norm, where it is not output_norm.weight. */
void part_head(recorder *, value_id x, weight_id embd);
void part_head_of(recorder *, const char *last, value_id x, weight_id embd);

/* ---- mixtures (moe.c) ---- */

/* Which experts in goes to, and with which weights. logit_scale, scales: program.h's OP_ROUTE,
 * scales (w2) a vector or NO_WEIGHT. */
value_id part_route(recorder *, int layer, value_id in, float logit_scale, weight_id scales);
/* What the experts of chosen make of h (+ x), as wide as h; x NO_VALUE where there is none. */
value_id part_routed(recorder *, int layer, value_id h, value_id chosen, activation,
                     value_id x);
/* x + what the feed-forward part of a layer makes of h, x normed: dense, or the experts and the shared
 * expert of the config. */
value_id part_feed_forward(recorder *, int layer, value_id h, activation, value_id x);

#endif
