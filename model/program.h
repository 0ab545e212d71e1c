/* The model as a program: the forward pass of one ragged batch, recorded once as a list of
 * operations over named values. The planner derives bytes from it, the loader arenas, the
 * engines execution. A value has columns; its rows are the rows of the step (one token each) or
 * the gathered rows (those whose logits are wanted). */
#ifndef VRAMD_MODEL_PROGRAM_H
#define VRAMD_MODEL_PROGRAM_H

#include "model/config.h"

typedef uint16_t value_id;
typedef uint32_t weight_id;
enum { NO_VALUE = 0xffff };
#define NO_WEIGHT 0xffffffffu

typedef enum op_kind {
    OP_EMBED,       /* out = w0[token] (* scale) */
    OP_NORM,        /* out = rms_norm(in, eps) * w0 (+ residual) */
    OP_LINEAR,      /* out = in * (w0 | w1 | w2)^T (+ bias0 | bias1 | bias2) (+ residual); the
                       weights' outputs stand side by side */
    OP_HEAD_NORM,   /* in = q | k | v: rms_norm of each head of q, times w0, and of each head of
                       k, times w1; in place: out is in */
    OP_ROPE_APPEND, /* in = q | k | v: rotate q and k, append k and v to the layer's KV cache;
                       in place: out is in */
    OP_ATTENTION,   /* out = softmax(q k^T * scale, causal, window) v; in = q | k | v, only q is
                       read */
    OP_GATE_UP,     /* out = act(in * w0^T) * (in * w1^T) */
    OP_GATHER_ROWS, /* out = the rows of in whose logits are wanted */
    OP_LOGITS,      /* out = in * w0^T, float32 */
    OP_SAMPLE,      /* in = logits; what it gives goes to the host: out is NO_VALUE */
    OP_ALL_REDUCE,
    OP_SEND,
    OP_RECV,
    OP_PREFETCH_LAYER /* reserved: several devices, offload */
} op_kind;
const char *op_kind_name(op_kind);

typedef enum row_set { ROWS_STEP, ROWS_GATHERED } row_set;
typedef enum activation { ACT_SILU, ACT_GELU_TANH } activation;

typedef struct value {
    const char *name;
    row_set rows;
    uint32_t cols;
    dtype type; /* as the model defines it: DT_F32 = the engine's activation type */
} value;

typedef enum weight_role { WEIGHT_EMBED, WEIGHT_LINEAR, WEIGHT_VECTOR } weight_role;

typedef struct weight {
    char name[72];
    weight_role role; /* WEIGHT_EMBED: rows are looked up, and may serve OP_LOGITS too (tied) */
    dtype type; /* as stored; vectors (norms, biases, rope factors) are served as float32 */
    uint32_t rows, cols; /* outputs x inputs; a vector is 1 x n */
    int32_t layer;       /* -1: none */
    int32_t tensor;      /* index in the GGUF file; -1: planned without a file */
    uint32_t first_row;  /* where its rows begin in that tensor (fused tensors) */
} weight;

/* Every value has one writer, but for OP_HEAD_NORM and OP_ROPE_APPEND, which rewrite their
 * input. */
typedef struct op {
    op_kind kind;
    int16_t layer;   /* -1 outside the layers */
    uint16_t device; /* 0 for now */
    value_id in, out, residual;
    uint8_t n_weights;
    weight_id w[3], bias[3]; /* NO_WEIGHT where absent */
    union {
        struct {
            float eps;
        } norm; /* OP_HEAD_NORM, too */
        struct {
            float scale;
        } embed; /* 1 unless the model scales */
        struct {
            activation act;
        } gate_up;
        struct {
            weight_id factors;      /* divide the frequencies; or NO_WEIGHT */
            weight_id long_factors; /* instead, where sequences may be longer than the original
                                       context; or NO_WEIGHT */
            uint32_t table;         /* index in the program's rope */
        } rope;
        struct {
            float scale;
            uint32_t window;
        } attention; /* window 0: full */
    };
} op;

typedef struct kv_group { /* layers whose blocks are allocated together */
    uint32_t window, n_layers;
} kv_group;

enum { PROGRAM_MAX_GROUPS = 4, PROGRAM_MAX_ROPES = 2 };

typedef struct program {
    model_config config;
    value *values;
    uint32_t n_values;
    weight *weights;
    uint32_t n_weights;
    op *ops;
    uint32_t n_ops;
    kv_group group[PROGRAM_MAX_GROUPS];
    uint32_t n_groups;
    rope_config rope[PROGRAM_MAX_ROPES]; /* each kind of rotary embedding among the layers */
    uint32_t n_ropes;
    uint16_t *layer_group; /* [n_layers]: group of a layer */
    uint16_t *layer_index; /* [n_layers]: index of a layer within its group */
} program;

/* What divides the frequencies of an OP_ROPE_APPEND in sequences of up to max_model_len tokens;
 * or NO_WEIGHT. */
weight_id program_rope_factors(const program *, const op *, uint32_t max_model_len);
/* Bytes of all weights as the file stores them, each once. */
uint64_t program_weight_bytes(const program *);
/* Bytes of one weight as the file stores it. */
uint64_t weight_bytes(const weight *);
/* Prints the program as text, one operation a line (for inspect and for tests):
 *   NUMBER layer LAYER  OP  IN -> OUT  WEIGHT TYPE [ROWS x COLS] ... + BIAS ... + RESIDUAL  ...
 * A value is printed as NUMBER:NAME[COLS]. */
void program_print(const program *, void (*line)(void *, const char *), void *arg);

#endif
