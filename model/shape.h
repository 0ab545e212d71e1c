/* What models have whose layers are of several kinds, beside the numbers of model/config.h. Plain
 * data; all 0: every layer has attention and the same kind of feed-forward part. Only integers
 * without padding between them, so that shapes can be compared as bytes. */
#ifndef VRAMD_MODEL_SHAPE_H
#define VRAMD_MODEL_SHAPE_H

#include <stdint.h>

typedef enum mixer_kind {
    MIXER_ATTENTION,
    MIXER_CONV,  /* a short convolution with gates (LFM2) */
    MIXER_DELTA, /* a gated delta net (Qwen3.5) */
    MIXER_SSM,   /* Mamba-2 (Granite 4, Nemotron-H) */
    MIXER_NONE   /* the layer is a feed-forward part alone (Nemotron-H) */
} mixer_kind;

/* FFN_USUAL: experts where the model has them. */
typedef enum ffn_kind { FFN_USUAL, FFN_DENSE, FFN_NONE } ffn_kind;

enum { SHAPE_MAX_LAYERS = 512 };

typedef struct model_shape {
    uint8_t mixer[SHAPE_MAX_LAYERS],
        ffn[SHAPE_MAX_LAYERS];        /* mixer_kind, ffn_kind of a layer */
    uint8_t slides[SHAPE_MAX_LAYERS]; /* 1: the layer has the window */
    uint32_t listed;                  /* 1: slides says it, not model_config.window_every */

    /* Mixtures of experts. */
    uint32_t n_ff_expert; /* width of an expert; 0: n_ff */
    uint32_t
        shared_gate; /* 1: the output of the expert that all rows have is times sigmoid(w x) */
    uint32_t choice_bias; /* 1: a bias that chooses experts and is not in their weights */
    uint32_t latent;      /* experts compute in that many columns; 0: n_embd */
    uint32_t ungated;     /* 1: feed-forward parts are up and down alone */

    /* Latent attention (MLA): ranks of q (0: a whole matrix) and of the latent row, rotated part
     * of a head, width of a head's value. kv_rank 0: there is none. */
    uint32_t q_rank, kv_rank, rope_dim, v_dim;

    /* MIXER_CONV: conv alone. MIXER_DELTA: state = width of a key, groups = key heads, heads = value heads,
     * inner = value heads x width of a value. MIXER_SSM: as Mamba-2 names them. */
    struct {
        uint32_t conv, state, groups, heads, inner;
    } ssm;
    uint32_t
        heads_grouped; /* 1: value heads of MIXER_DELTA that share a key head are neighbours, as in
                               Hugging Face's files; 0: head i has key head i % groups, as in GGUF */

    /* Gemma 4: layers without a window have heads of their own; the last shared_kv layers read the
     * K and V of the last layer of their kind before them. */
    uint32_t full_head_dim, full_kv_heads;
    uint32_t v_is_k; /* 1: layers without a window make V of K's projection */
    uint32_t shared_kv;
    uint32_t double_ff; /* 1: shared layers have twice the feed-forward width */
    uint32_t per_layer, per_layer_vocab; /* width and rows of embeddings that each layer adds */

    uint32_t
        token_types; /* BERT: rows of that table; positions are a table of n_ctx_train rows */
    uint32_t positions;  /* 1: there is that table */
    uint32_t n_labels;   /* scores of a classifier behind it; 0: there is none */
    uint32_t raw_scores; /* 1: they are used as they are; 0: through a sigmoid */
    uint32_t mtp;        /* blocks behind the layers that predict further tokens: not loaded */
} model_shape;

#endif
