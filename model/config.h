/* The numbers that define a model: from the facts of a checkpoint, or from a Hugging Face
 * config.json (see model/hf/hf_config.h). Plain data. */
#ifndef VRAMD_MODEL_CONFIG_H
#define VRAMD_MODEL_CONFIG_H

#include "model/checkpoint.h"
#include "model/shape.h"

typedef enum rope_pairing {
    ROPE_ADJACENT, /* pairs (2i, 2i+1): where a format permutes the rows of q and k, as GGUF
                      does those of llama */
    ROPE_HALVES    /* pairs (i, i + n/2): others ("NeoX") */
} rope_pairing;

typedef enum rope_scaling {
    ROPE_SCALING_NONE,
    ROPE_SCALING_LINEAR,
    ROPE_SCALING_YARN,
    ROPE_SCALING_LLAMA3,
    ROPE_SCALING_LONGROPE /* factors by dimension, from tensors of the file: one set up to the
                             original context length, another beyond (Phi-3) */
} rope_scaling;

typedef struct rope_config {
    rope_pairing pairing;
    uint32_t n_dims; /* rotated dimensions of a head */
    uint32_t n_live; /* pairs that turn, the fastest; the others stand still; 0: all do */
    float theta;     /* base */
    rope_scaling scaling;
    float factor;          /* linear, yarn, llama3 */
    uint32_t original_len; /* context length before scaling */
    bool exact_range;  /* yarn: the range of the dimensions between is not rounded (gpt-oss) */
    float attn_factor; /* yarn, longrope: multiplies cos and sin; 0 for yarn: by the formula
                              0.1 ln(factor) + 1 (YaRN, section 3.4) */
    float beta_fast, beta_slow;
    float low_freq_factor, high_freq_factor; /* llama3, when given by config.json; a GGUF has
                                                the tensor rope_freqs.weight instead */
} rope_config;

/* Of which rows' hidden states a vector is made. POOL_RANK: of the first row, by the model's
 * classifier: the score of a pair of texts. */
typedef enum pooling_kind { POOL_OFF, POOL_LAST, POOL_MEAN, POOL_CLS, POOL_RANK } pooling_kind;

/* What a file says of it, in the numbers of GGUF's pooling_type. */
enum { GIVEN_NONE, GIVEN_MEAN, GIVEN_CLS, GIVEN_LAST, GIVEN_RANK };

typedef struct model_config {
    char arch[32]; /* "llama", "qwen2", ... as GGUF names it */
    char name[128];
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, n_ctx_train;
    uint32_t window;                    /* sliding window in tokens; 0: none */
    uint32_t n_experts, n_experts_used; /* 0: dense; else n_ff is the width of one */
    uint32_t n_ff_shared;               /* width of the expert that all rows have; 0: none */
    bool experts_sigmoid; /* the router's logits go through sigmoids; false: softmax */
    bool experts_norm;    /* weights of the chosen are divided by their sum */
    float experts_scale;  /* then multiplied by this */
    float experts_eps;    /* added to that sum */
    uint32_t expert_groups,
        expert_groups_used; /* the chosen are of so many groups; 0: of any */
    float norm_eps;
    bool tied_head; /* the output matrix is the token embedding */
    bool
        bidirectional; /* an encoder: every token sees the whole text; without KV cache or logits */
    bool qkv_bias, o_bias, ffn_bias;
    bool router_bias; /* of the experts */
    bool sinks;       /* a learned score beside those of the keys, for each query head */
    bool qk_norm;
    bool qk_norm_whole;       /* one norm for all heads of q together, and one for those of k */
    uint32_t norms_per_layer; /* 2, or 4 with post-norms */
    uint32_t window_every;    /* 0: window (if any) on all layers; n: all but each n-th layer */
    float window_theta;       /* RoPE's base, unscaled, on layers with a window; 0: rope's */
    uint32_t nope_every;      /* 0: all layers rotate q and k; n: each n-th layer does not */
    float attn_scale;         /* of the scores; 0: 1 / sqrt(head_dim) */
    /* Soft caps: x becomes cap * tanh(x / cap); 0: none. */
    float attn_cap, logit_cap; /* of scores, of logits */
    /* Queries at position pos are multiplied by 1 + temperature * ln(1 + floor(pos /
     * rope.original_len)). */
    float temperature;
    float embd_scale;      /* of embeddings */
    float residual_scale;  /* of what attention and feed-forward add to the residual stream */
    float logit_scale;     /* divides logits */
    float dt_min, dt_max;  /* MIXER_SSM: limits of its steps; dt_max 0: none */
    uint32_t pooling_type; /* GIVEN_; or another number, which is not known */
    rope_config rope;
    model_shape shape; /* where layers are of several kinds */
} model_config;

enum { MODEL_MAX_LAYERS = 4096 };

/* Everything 0 but what has a neutral value: norm_eps 1e-5, 2 norms a layer, theta 1e4, factor
 * 1, YaRN's betas 32 and 1, scale of the experts 1. */
void model_config_init(model_config *);
/* Errors: ERR_UNSUPPORTED (architecture, by name), ERR_FORMAT (field: the key at fault). */
status model_config_read(model_config *out, const checkpoint *, err *);
/* Calls member with each number but the names, in an order that does not change: what a key of the
 * model is made of. */
void model_config_visit(const model_config *,
                        void (*member)(void *arg, const void *value, size_t bytes), void *arg);
/* Whether all but the name is the same. */
bool model_config_same(const model_config *, const model_config *);
/* Ranges and divisibility of every field, wherever they came from. */
status model_config_check(const model_config *, err *);
/* YaRN's factor of cosines and sines, 0.1 m ln(factor) + 1 (DeepSeek-V2, section 3.1.4). */
float yarn_amplitude(float factor, float m);
/* Sets attn_scale as latent attention has it: by the width of a head before its key is absorbed, and
 * with YaRN times the square of the factor that its config gives for all dimensions, or 0. */
void model_config_scale_latent(model_config *, float mscale_all_dim);
/* Width of one expert. */
static inline uint32_t model_config_expert_width(const model_config *c) {
    return c->shape.n_ff_expert ? c->shape.n_ff_expert : c->n_ff;
}
/* Whether the feed-forward part of a layer is of experts. */
static inline bool model_config_routes(const model_config *c, uint32_t layer) {
    return c->n_experts && c->shape.ffn[layer % SHAPE_MAX_LAYERS] == FFN_USUAL;
}
/* The sliding window of one layer; 0: full attention. A query at position i sees the keys at
 * i - window + 1 .. i. */
uint32_t model_config_window(const model_config *, uint32_t layer);
/* The rotary embedding of one layer; n_dims 0: none. */
rope_config model_config_rope(const model_config *, uint32_t layer);

#endif
