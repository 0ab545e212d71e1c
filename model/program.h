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
    OP_EMBED,     /* out = w0[token] (* scale) (+ a row of each further table: embed) */
    OP_NORM,      /* out = rms_norm(in, eps) * w0 (+ residual); with norm.groups each of so many
                       equal parts of a row by itself */
    OP_LINEAR,    /* out = in * (w0 | w1 | w2)^T (+ bias0 | bias1 | bias2) (+ residual); the
                       weights' outputs stand side by side */
    OP_HEAD_NORM, /* in = q | k | v: rms_norm of each head of q, times w0, and of each head of
                       k, times w1; or of all heads of q together, and of k; in place: out is
                       in */
    OP_ROPE_APPEND, /* in = q | k | v: rotate q and k (by a table of 0 dimensions: not), append k and v to the layer's KV cache;
                       in place: out is in */
    OP_ATTENTION,   /* out = softmax(q k^T * scale, causal, window) v; in = q | k | v, only q is
                       read; w0, if any: a sink for each query head, one more score, which has
                       no value; attention.latent: in = q, whose last columns are rotated */
    OP_GATE_UP,     /* out = act(in * w0^T (+ bias0)) * (in * w1^T (+ bias1)); without w1:
                       act(in * w0^T (+ bias0)) */
    OP_GATHER_ROWS, /* out = the rows of in whose logits are wanted */
    OP_LOGITS,      /* out = in * w0^T * scale, float32, then capped */
    OP_SAMPLE,      /* in = logits; what it gives goes to the host: out is NO_VALUE */
    OP_ROUTE, /* out = the top_k experts with the largest logits l = (in * w0^T (+ bias0)) *
                       route.logit_scale, the lowest index on a tie, and their weights: top_k
                       indices, then top_k weights a row. Weights: p = softmax(l) or sigmoid(l), of
                       the chosen divided by their sum + route.eps where route.norm, times route.scale, times
                       w2[expert] where there is w2. With w1 the largest of p + w1[expert] are
                       chosen. With groups, consecutive experts of one number: those of the
                       groups_used groups with the largest sums of their group_best largest */
    OP_EXPERTS_GATE_UP, /* out = OP_GATE_UP of each row by each expert that by names */
    OP_EXPERTS_DOWN,    /* out = the sum over the experts that by names, ascending, of weight *
                           (in * w0^T (+ bias0)); then + residual */
    OP_PERMUTE,     /* column i of out = column w0[i] of in: the order in which a matrix that
                   reads out has its inputs */
    OP_MUL_SIGMOID, /* out = in * sigmoid(by) (+ residual); by has as many columns, or one */
    OP_EMBED_ADD,   /* out = (in + embedding of the token by w0 * scale) / sqrt(2) */
    OP_MUL_ACT,     /* out = mul.act(in) * as many columns of by, from mul.first_col on */
    OP_SCALE,       /* out = in * w0[0] */
    OP_CONV,  /* out = a causal convolution of in along the tokens, each channel by itself, with
                       w0 [channels][width], the newest token last (+ bias0); conv.gated: in = b | c
                       | x, out = c * the convolution of b * x; conv.silu: out = silu of it */
    OP_DELTA, /* out = the gated delta rule of in = q | k | v, by a state for each head of v
                       (delta_shape); by = b | a, columns for each head of v: beta = sigmoid(b), the
                       state's decay e^g, g = w0 * softplus(a + w1) */
    OP_SSM, /* out = Mamba-2's selective scan of in = v | k | q (x, B and C of the paper), by a
                       state S for each head of v (delta_shape); by = a column for each: dt = softplus(
                       by + w1) within limits, S = e^(w0 dt) S + dt k v^T, out = S^T q + w2 v */
    OP_LAYER_NORM, /* out = (in - mean) / sqrt(variance + eps) * w0 + bias0 */
    OP_POOL,       /* out = one row for each text of the step, made of its rows of in as the
                       engine's option pooling says: gathered rows */
    OP_LINEAR_BY_HEAD, /* in and out are heads side by side, as many as w0 has matrices: a head's first
                       columns times its matrix, and behind that the columns which are left, as they are */
    OP_LATENT_APPEND, /* in = latent | key: rms_norm(latent, rope.eps) * w0 | key rotated, a row of the
                       layer's KV cache; it has no out */
    /* Of a program that is one rank's (shard.h), or what one engine computes for another: */
    OP_ALL_GATHER, /* out = in with what every rank has computed of it: of its columns, or, of OP_EMBED's,
                       of its rows */
    OP_SEND, /* in goes to the next stage, or to that engine; logits go from the last stage to the first */
    OP_RECV, /* out = what another stage, or that engine, sends */
    OP_N_KINDS
} op_kind;
const char *op_kind_name(op_kind);

/* What sets operations apart from others of their kind, so that an engine may lack it: X(name in
 * lower case, name, where it is). */
#define OP_TRAIT_LIST(X)                                                                       \
    X(SOFT_CAP, "soft_cap")                /* OP_ATTENTION: attention.cap */                   \
    X(SINKS, "sinks")                      /* OP_ATTENTION: w0 */                              \
    X(TEMPERATURE, "temperature")          /* OP_ATTENTION: attention.temperature */           \
    X(LATENT_KV, "latent_kv")              /* OP_ATTENTION: attention.latent */                \
    X(SHARED_KV, "shared_kv")              /* OP_ATTENTION: attention.kv_from */               \
    X(BIDIRECTIONAL, "bidirectional")      /* OP_ATTENTION: attention.bidirectional */         \
    X(EMBED_TABLES, "embed_tables")        /* OP_EMBED: embed.positions, embed.texts */        \
    X(WIDE_HEADS, "wide_heads")            /* OP_ATTENTION: heads of more than 256 */          \
    X(NORM_ADD, "norm_add")                /* OP_NORM: residual */                             \
    X(NORM_GROUPS, "norm_groups")          /* OP_NORM: norm.groups */                          \
    X(CONV_BIAS, "conv_bias")              /* OP_CONV: bias */                                 \
    X(WHOLE_NORM, "whole_norm")            /* OP_HEAD_NORM: norm.whole */                      \
    X(VALUE_NORM, "value_norm")            /* OP_HEAD_NORM: norm.values */                     \
    X(UNROTATED, "unrotated")              /* OP_ROPE_APPEND: a table of no dimensions */      \
    X(PROPORTIONAL, "proportional_rotary") /* OP_ROPE_APPEND: rope_config.n_live */            \
    X(LOGIT_SCALE, "logit_scale")          /* OP_LOGITS: logits.scale */                       \
    X(LOGIT_CAP, "logit_cap")              /* OP_LOGITS: logits.cap */                         \
    X(GATE_UP_BIAS, "gate_up_bias")        /* OP_GATE_UP, OP_EXPERTS_GATE_UP: bias */          \
    X(UNGATED, "ungated")                  /* OP_GATE_UP, OP_EXPERTS_GATE_UP: one weight */    \
    X(CHOICE_BIAS, "choice_bias")          /* OP_ROUTE: w1 */                                  \
    X(EXPERT_SCALES, "expert_scales")      /* OP_ROUTE: w2 */                                  \
    X(EXPERT_GROUPS, "expert_groups")      /* OP_ROUTE: route.n_groups */

typedef enum op_trait {
#define X(trait, name) TRAIT_##trait,
    OP_TRAIT_LIST(X)
#undef X
        OP_N_TRAITS
} op_trait;

/* Kinds of operations and traits: bit k of kinds is kind k. What a program consists of, what an
 * engine runs, what it lacks. */
typedef struct op_set {
    uint64_t kinds, traits;
} op_set;

static inline op_set op_set_without(op_set a, op_set b) {
    return (op_set){a.kinds & ~b.kinds, a.traits & ~b.traits};
}
static inline bool op_set_empty(op_set a) {
    return !a.kinds && !a.traits;
}
enum { OP_SET_MAX = 128 };
/* The names of its members; returns how many. */
uint32_t op_set_names(op_set, const char *out[OP_SET_MAX]);
/* The same as one text, with commas between them; cut where it does not fit. */
void op_set_text(op_set, char *out, size_t cap);

typedef enum row_set {
    ROWS_STEP,
    ROWS_GATHERED,
    ROWS_ROUTED /* top_k for each row of the step: one for each expert it is routed to */
} row_set;
typedef enum activation {
    ACT_SILU,
    ACT_GELU_TANH,
    ACT_SWIGLU_OAI, /* gpt-oss: g sigmoid(1.702 g) (u + 1) with g = min(gate, 7), u = up within +-7 */
    ACT_GELU_ERF, /* x Phi(x), Phi the distribution function of the normal distribution */
    ACT_TANH,
    ACT_RELU2 /* max(x, 0)^2 */
} activation;
/* What makes weights of a router's logits. */
typedef enum route_gate { ROUTE_SOFTMAX, ROUTE_SIGMOID } route_gate;

typedef struct value {
    const char *name;
    row_set rows;
    uint32_t cols;
    uint32_t top_k; /* ROWS_ROUTED; else 1 */
} value;

/* Rows of a value in a step of n_rows rows, n_gathered of them with logits. */
static inline uint64_t value_rows(const value *v, uint32_t n_rows, uint32_t n_gathered) {
    return (uint64_t)(v->rows == ROWS_GATHERED ? n_gathered : n_rows) * v->top_k;
}

typedef enum weight_role {
    WEIGHT_EMBED,
    WEIGHT_LINEAR,
    WEIGHT_VECTOR,
    WEIGHT_ORDER
} weight_role;

typedef struct weight {
    char name[72];
    weight_role role; /* WEIGHT_EMBED: rows are looked up, and may serve OP_LOGITS too (tied) */
    dtype
        type; /* as stored; vectors (norms, biases, rope factors) are served as float32, orders
                   (of OP_PERMUTE) as uint32_t */
    /* Outputs x inputs, of one expert; an order is 1 x n, a vector too, or of each expert a row. */
    uint32_t rows, cols;
    uint32_t n_experts; /* matrices of that shape, one after the other; 0: one matrix */
    int32_t layer;      /* -1: none */
    int32_t tensor;     /* index in the checkpoint; -1: planned without one */
    /* Of NVFP4: the vector with the number that each expert's (or the matrix's) weights are to be
     * multiplied by; else NO_WEIGHT. */
    weight_id scale;
    /* Where its rows and columns begin in that tensor, or in each expert of it: parts of fused
     * tensors and slices of ranks. Columns begin and end at blocks of the type. */
    uint32_t first_row, first_col;
    /* Its rows (of all experts, one after the other) are runs of so many rows of the tensor, whose
     * beginnings are run_step apart; 0: they follow one another. */
    uint32_t run, run_step;
    /* Each matrix is stored the other way round: its columns are rows of the tensor, of type stored.
     * It is turned while it is loaded, and then of type: 16 bits stay, others become F32. */
    bool turned;
    dtype stored;
} weight;

/* Neither vector nor order: what linear kernels read. */
static inline bool weight_is_matrix(const weight *w) {
    return w->role <= WEIGHT_LINEAR;
}
/* Rows of all experts. */
static inline uint32_t weight_rows(const weight *w) {
    return w->rows * (w->n_experts ? w->n_experts : 1); /* checked when it was recorded */
}

/* Heads side by side in a row: n_heads of q, then n_kv_heads of k and as many of v. */
typedef struct head_shape {
    uint32_t n_heads, n_kv_heads, head_dim;
} head_shape;

/* Query heads that share one head of K and V. */
static inline uint32_t heads_group(const head_shape *h) {
    return h->n_heads / h->n_kv_heads;
}
/* Columns of q | k | v. */
static inline uint32_t heads_cols(const head_shape *h) {
    return (h->n_heads + 2 * h->n_kv_heads) * h->head_dim;
}

typedef struct attention_shape {
    float scale;     /* of the scores */
    uint32_t window; /* 0: full */
    float cap;       /* of the scores: cap * tanh(score / cap); 0: none */
    /* Queries at position pos are multiplied by 1 + temperature * ln(1 + floor(pos /
     * temperature_len)); temperature 0: by 1. */
    float temperature;
    uint32_t temperature_len;
    uint32_t latent;  /* V is so many columns of K's row, the first, and is not stored; 0: it is
                           stored */
    uint32_t kv_from; /* 0: K and V are the layer's own; else of layer kv_from - 1 */
    bool
        bidirectional; /* every row of a text sees all of them: all are in one step, and K and V
                           are kept no longer than the operation */
} attention_shape;

/* Heads of a gated delta rule, and of a selective scan, whose groups are the key heads: q and k have
 * key_heads of key_dim, v and the output value_heads of value_dim. Of the rule q and k are divided by
 * sqrt(their sum of squares + eps), q by sqrt(key_dim), too. */
typedef struct delta_shape {
    uint32_t key_heads, value_heads, key_dim, value_dim;
    bool tiled;           /* value head i has key head i % key_heads; else they are in groups */
    float eps;            /* OP_DELTA */
    float dt_min, dt_max; /* OP_SSM: limits of dt; dt_max 0: none */
} delta_shape;

/* Positions whose rows are kept beside a recurrent state: a state stands behind a multiple of so many
 * tokens, and rows behind that can be undone. */
enum { STATE_CHUNK = 16 };

/* Rows of its input that a convolution's state has: those that the first row of a chunk sees, and the
 * chunk's; that at position pos is row pos % so many. */
static inline uint32_t conv_state_rows(uint32_t width) {
    return width - 1 + STATE_CHUNK;
}

/* Floats of the state of such heads: for each value head a matrix [key_dim][value_dim]; of the
 * chunk's rows k for each key head and what was added along it for each value head, [heads][STATE_CHUNK]
 * [dim] each; and the sum of g since the chunk began, [value_heads][STATE_CHUNK]. */
static inline uint64_t delta_state_floats(const delta_shape *d) {
    const uint64_t matrices = (uint64_t)d->value_heads * d->key_dim * d->value_dim;
    const uint64_t row =
        (uint64_t)d->key_heads * d->key_dim + (uint64_t)d->value_heads * (d->value_dim + 1);
    return matrices + STATE_CHUNK * row;
}

/* Every value has one writer, but for OP_HEAD_NORM and OP_ROPE_APPEND, which rewrite their
 * input. */
typedef struct op {
    op_kind kind;
    int16_t layer; /* -1 outside the layers */
    bool idle;     /* of one rank's program: it computes nothing of out */
    value_id in, out, residual;
    uint32_t
        first_col; /* where what is computed of out begins: of one rank's program, else 0 */
    value_id by; /* OP_EXPERTS_*: what OP_ROUTE gave; OP_MUL_SIGMOID: the gate; else NO_VALUE */
    uint8_t n_weights;
    weight_id w[3], bias[3]; /* NO_WEIGHT where absent */
    uint64_t state_floats;   /* OP_CONV, OP_DELTA, OP_SSM: what it keeps of each sequence */
    head_shape heads;        /* OP_HEAD_NORM, OP_ROPE_APPEND, OP_LATENT_APPEND, OP_ATTENTION */
    union {
        struct {
            float eps;
            bool whole;      /* OP_HEAD_NORM: of all heads together */
            bool values;     /* OP_HEAD_NORM: each head of v is normed, too, without a weight */
            uint32_t groups; /* OP_NORM: parts of a row; 0: a row is one */
        } norm;              /* OP_HEAD_NORM, too */
        struct {
            float scale;
            float cap; /* cap * tanh(x / cap); 0: none */
        } logits;
        struct {
            float scale; /* 1 unless the model scales */
            /* Further tables, in this order: of positions, and of the first and the second text
             * of a pair. */
            bool positions, texts;
        } embed; /* OP_EMBED_ADD, too */
        struct {
            uint32_t first_col;
            activation act;
        } mul;
        struct {
            uint32_t width; /* positions that an output sees, its own included */
            bool gated, silu;
        } conv;
        struct {
            activation act;
        } gate_up; /* OP_EXPERTS_GATE_UP, too */
        struct {
            uint32_t top_k;
            route_gate gate;
            bool norm; /* with softmax: the softmax over the chosen */
            float scale, logit_scale, eps;
            uint32_t n_groups, groups_used, group_best; /* n_groups 0: none */
        } route;                                        /* n_experts: the rows of w0 */
        struct {
            weight_id factors;      /* divide the frequencies; or NO_WEIGHT */
            weight_id long_factors; /* instead, where sequences may be longer than the original
                                       context; or NO_WEIGHT */
            uint32_t table;         /* index in the program's rope */
            bool proportional;      /* only some of its pairs turn: rope_config.n_live */
            float eps;              /* OP_LATENT_APPEND */
        } rope;                     /* OP_LATENT_APPEND, too */
        struct {
            uint32_t
                n_cols; /* the rank has made so many columns from first_col on; of OP_EMBED's
                                output rows */
            bool rows;
        } gather; /* OP_ALL_GATHER */
        struct {
            bool rotated; /* OP_SEND: who gets it rotates what it has of queries and keys */
        } sent;
        attention_shape attention;
        delta_shape delta;
    };
} op;

typedef struct kv_group { /* layers whose blocks are allocated together: of one size */
    uint32_t window, n_kv_heads, head_dim, n_layers;
    uint32_t latent; /* V is so many columns of K's row, the first; 0: it is stored */
} kv_group;

enum { PROGRAM_MAX_GROUPS = 4, PROGRAM_MAX_ROPES = 2 };

/* The part of a model that one process computes: a rank of those which divide each matrix among them,
 * and a stage of those which have some layers each. All numbers 0: the whole. */
typedef struct shard {
    uint32_t rank, n_ranks;
    uint32_t stage, n_stages;
} shard;

typedef struct program {
    model_config config; /* of the whole model */
    shard part;          /* what of it the program computes */
    bool has_states;     /* of a part: the model has recurrent layers, which may be others' */
    uint64_t not_loaded_bytes; /* of the file: vision, audio, further tokens' blocks */
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
    uint16_t *layer_group; /* [n_layers]: group of a layer that has attention */
    uint16_t *layer_index; /* [n_layers]: index of a layer within its group */
} program;

/* The kinds and traits of all its operations. */
op_set program_ops(const program *);
/* Whether it puts rows into the KV cache, rotated: op.rope is set. */
static inline bool op_appends(const op *o) {
    return o->kind == OP_ROPE_APPEND || o->kind == OP_LATENT_APPEND;
}
/* What divides the frequencies of an operation that appends in sequences of up to max_model_len
 * tokens; or NO_WEIGHT. */
weight_id program_rope_factors(const program *, const op *, uint32_t max_model_len);
/* The table that OP_EMBED_ADD looks up, which nothing else reads; or NO_WEIGHT. */
weight_id program_table(const program *);
/* The largest number of rotated dimensions of any rotary embedding; 0 without one. */
uint32_t program_rope_dims(const program *);
/* Parameters of the model: elements of all weights but tables that are computed. */
uint64_t program_params(const program *);
/* What recurrent layers keep of each sequence, float32. */
uint64_t program_state_bytes(const program *);
/* Bytes of one expert of one layer as the file stores it; 0: there are no experts. */
uint64_t program_expert_bytes(const program *);
/* Bytes of all weights as the file stores them, each once. */
uint64_t program_weight_bytes(const program *);
/* Bytes of one weight as the file stores it. */
uint64_t weight_bytes(const weight *);
/* Whether it is of the experts that a router chooses among: a row reads some of its matrices. */
bool weight_is_routed(const weight *);
/* Prints the program as text, one operation a line (for inspect and for tests):
 *   NUMBER layer LAYER  OP  IN -> OUT  WEIGHT TYPE [ROWS x COLS] ... + BIAS ... + RESIDUAL  ...
 * A value is printed as NUMBER:NAME[COLS], or NUMBER:NAME[TOP_K x COLS], a weight of several
 * experts as [ROWS x COLS x EXPERTS]. */
void program_print(const program *, void (*line)(void *, const char *), void *arg);

#endif
