/* Where everything of the CPU engine lies: computed once from the program and the options, used
 * by the plan (terms) and by the loader (allocations), so that the two cannot differ. Pure
 * arithmetic; one thread. */
#ifndef VRAMD_ENGINE_CPU_LAYOUT_H
#define VRAMD_ENGINE_CPU_LAYOUT_H

#include <stdatomic.h>

#include "base/check.h"
#include "engine/arrange.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/ops.h"
#include "engine/expert_slots.h"
#include "engine/group.h"

enum {
    CONV_MAX_WIDTH = 8,  /* positions that a convolution sees */
    DELTA_MAX_DIM = 512, /* of a head of a delta rule or a selective scan */
    GATE_FLOATS = 16384, /* a thread's buffer for one chunk of gate, and of up */
    GATE_ROWS = 128,     /* rows of such a chunk at most */
    GATHER_ROWS = 32,    /* rows of a chunk of one expert's at most */
    TABLE_ROWS = 16,     /* rows of the table in the file that are read at once */
    TURNED_ROWS = 16,    /* rows of a matrix that is turned which are read at once */
    SPLIT_SEQS = 8       /* sequences whose attention is split over threads, at most */
};

/* A value is kept as float32, as quantised activations, or both, as its readers want.
 * FORM_REST: what quantising lost is quantised too, a second plane of codes; for the inputs of
 * q, k and v, whose errors attention multiplies (docs/numerics.md). */
enum { FORM_F = 1, FORM_Q = 2, FORM_REST = 4 };

typedef struct value_place {
    uint8_t forms;
    bool is_logits; /* lies in the arena of logits */
    bool is_shared; /* f is an offset in the values of the group (layout_shared.c) */
    uint64_t received,
        sent; /* of OP_RECV and OP_SEND: offsets in what one stage sends to the next */
    uint64_t f, q, rest; /* offsets in the arena of activations */
    bool feeds_rope;     /* made to queries, keys and values */
    uint32_t first_op, last_op;
} value_place;

typedef struct weight_place {
    uint64_t at, bytes; /* in the arena of weights; bytes padded to 64 */
    bool in_slots;      /* in each slot for experts, in place of the arena */
} weight_place;

/* What a reader of experts reads at once, or 32 rows: of 128 KiB to 1 MiB this was the fastest on a virtual
 * disk (bench/bench_experts.py), since the last pieces of a layer keep fewer readers busy. */
enum { EXPERT_PIECE_BYTES = 256 << 10 };

/* What readers have left to do for a slot: pieces of gate and up, and of down. */
typedef struct expert_state {
    atomic_uint left[2];
    atomic_bool failed;
} expert_state;

/* What readers do next for a slot: pieces [next, n) of one of the two. */
typedef struct expert_job {
    uint32_t slot, down, next, n;
} expert_job;

/* What slots need beside them: offsets. */
typedef struct expert_tables {
    uint64_t slots, state, job, order, used, bytes;
} expert_tables;
expert_tables layout_expert_tables(const expert_shape *, uint32_t n_slots);
/* Of one reader. */
uint64_t layout_expert_buffer(const expert_shape *);

/* The matrices of the experts that OP_EXPERTS_GATE_UP `up` has, and OP_EXPERTS_DOWN behind it, and where they
 * begin in a slot: gate and up, or up alone, then down. */
typedef struct expert_parts {
    uint32_t n, n_experts;
    weight_id w[3];
    uint64_t at[3], bytes; /* bytes: of all of them */
} expert_parts;
/* n 0: the engine has no kernel for the type of some. */
expert_parts layout_expert_parts(const program *, const op *up);
/* Rows of a matrix of experts that are read at once: multiples of 32, or all. */
uint32_t layout_expert_rows(const weight *);
/* n_layers 0: there are none, or no kernels for them. */
expert_shape layout_experts(const program *);

/* A thread's own part of the workspace: offsets from its beginning. */
typedef struct thread_place {
    uint64_t attn;             /* attn_scratch_bytes */
    uint64_t q, acc, max, out; /* of one attn_part; max is followed by sum */
    uint64_t row;              /* one row of the widest value */
    uint64_t gate, up;         /* GATE_FLOATS each */
    uint64_t sampler;
    uint64_t delta; /* delta_floats */
    /* GATHER_ROWS rows that go to one expert or are of one head, rest: what their codes lost; 0 bytes
     * without such operations */
    uint64_t gather_f, gather_q, gather_rest;
    uint64_t scores; /* of route_choose */
    uint64_t bytes;
} thread_place;

/* A thread's scratch for one head of a delta rule (step_delta.c): for rows of a chunk k and q, what the
 * state gives of them, and k once more, scaled; and the exponentials of a row. Of a selective scan
 * (step_ssm.c) the same without k and what the state gives of it, and products of the rows. */
static inline uint64_t delta_scratch_floats(uint32_t key_dim, uint32_t value_dim) {
    return (uint64_t)STATE_CHUNK * (3ull * key_dim + 2ull * value_dim) + 2 * STATE_CHUNK;
}
static inline uint64_t ssm_scratch_floats(uint32_t key_dim, uint32_t value_dim) {
    return (uint64_t)STATE_CHUNK * (2ull * key_dim + value_dim + STATE_CHUNK) + 2 * STATE_CHUNK;
}

/* Of the routing of a step, in the workspace: router's logits and route_sorted. */
typedef struct route_place {
    uint64_t logits, first, used, row, weight;
} route_place;

/* Of one query head's partial result of attention: maximum, sum, accumulators. */
static inline uint32_t partial_floats(uint32_t dim_pad) {
    return dim_pad + 2;
}
/* Columns of a head's output. */
static inline uint32_t attn_value_dim(const op *o) {
    return o->attention.latent ? o->attention.latent : o->heads.head_dim;
}
/* The heads of an operation of attention as its tasks have them: where all share one row, in runs of one
 * size, as if each run had a KV head of its own. */
static inline head_shape attn_heads(const op *o) {
    head_shape h = o->heads;
    if (!o->attention.latent) return h;
    h.n_kv_heads = (uint32_t)ceil_div(h.n_heads, ATTN_MAX_QUERIES);
    while (h.n_heads % h.n_kv_heads) h.n_kv_heads++;
    return h;
}
/* Whether the query heads of each KV head begin at a block of 32 codes: then the thread that
 * has them quantises them. */
static inline bool heads_fill_blocks(const op *o) {
    const head_shape h = attn_heads(o);
    return heads_group(&h) * attn_value_dim(o) % 32 == 0;
}

/* Where a thread has what it needs to turn a matrix of a weight, in its buffer for reading: rows as they
 * are stored, the same packed, one of them, and the matrix turned. */
typedef struct turned_place {
    uint64_t raw, tiles, row, out, bytes;
} turned_place;
turned_place layout_turned(const weight *);

/* Of a row and query head without fusion: scores of a whole context, a factor for each tile,
 * maximum and sum of each split. */
static inline uint64_t unfused_row_floats(uint32_t max_model_len) {
    const uint64_t context = align_up(max_model_len, ATTN_SPLIT);
    return context + align_up(context / ATTN_TILE + 2 * (context / ATTN_SPLIT), 16);
}

typedef struct cpu_layout {
    activation_dtype family;
    value_id hidden;      /* what step_result.hidden is; NO_VALUE: nothing */
    uint32_t n_splits;    /* partial results of attention that one sequence can have */
    uint32_t n_slots;     /* of a partial result of every head each */
    uint32_t slot_floats; /* of a slot: partial_at (step_attention.c) */
    uint32_t n_tasks, max_cols;
    uint32_t rope_dims; /* the most that any rotary embedding turns */
    /* The largest of each among the operations of attention. */
    uint32_t max_heads, max_kv_heads, max_group, max_head_dim;
    uint64_t
        delta_floats; /* scratch of the largest delta rule or selective scan; 0: there is none */
    /* program_table: it stays in the file, and a thread has room for some rows, as stored and packed. */
    weight_id table;
    uint64_t table_packed_bytes, table_thread_bytes;
    uint32_t max_experts, max_top_k; /* among the routers; 0: there are none */
    expert_shape experts;            /* where they are in slots; else n_layers is 0 */
    value_place *values;             /* [n_values] */
    weight_place *weights;           /* [n_weights] */
    uint64_t weights_bytes, activations_bytes, logits_bytes;
    uint64_t kept_at; /* in the arena of logits: their copy; its end where none is kept */
    /* Of one rank's program: what the ranks share; then all logits lie there, and the arena of logits has
     * the copy alone. n_ranks 0: no group. */
    group_shape shared;
    uint64_t received_bytes; /* that the stage before sends in a step */
    thread_place thread;
    /* Offsets in the workspace: threads first, then what they share. */
    uint64_t partials, partials_done, freqs, rope, rows, tasks, results, scores, routing, keys,
        key_blocks, table_rows, workspace_bytes;
    route_place route;
    uint32_t n_states;     /* slots for recurrent states; 0: there are none */
    uint64_t state_floats; /* of a slot */
    kv_groups groups;
    kv_format kv[PLAN_MAX_GROUPS]; /* of each */
    /* Where attention is bidirectional, keys and values of the rows of a step lie in the workspace, in
     * blocks like those of a cache, of one layer: those of a text from layout_key_block on. */
    kv_format own_kv;
    uint32_t n_key_blocks; /* 0: there is none */
    uint64_t bounce_bytes; /* of one thread, while loading */
} cpu_layout;

/* A row of the step, and a piece of attention (plan_step.c fills them). */
typedef struct step_row {
    uint32_t seq, pos;
    int32_t token;
    uint32_t gathered; /* for gathered rows, by their own index: the row it is of */
} step_row;

typedef struct attn_task {
    uint32_t seq, first_row, n_rows;
    uint32_t from, to;
    int32_t slot;      /* -1: whole; else where its partial result goes */
    uint32_t n_splits; /* slots of its sequence, from slot - from / ATTN_SPLIT on */
    uint32_t done;     /* index of its counters */
} attn_task;

/* Blocks begin at a text: each of the sequences before may leave part of one empty. */
static inline uint32_t layout_key_block(const cpu_layout *l, uint32_t first_row, uint32_t seq) {
    return first_row / l->own_kv.block_tokens + seq;
}

/* Whether a matrix of that type reads codes of the activations, or else their float32. */
static inline bool layout_reads_codes(const cpu_layout *l, dtype weights) {
    return l->family == ACTIVATION_BF16 ||
           (l->family == ACTIVATION_INT8 && linear_wants_int8(weights));
}

/* Whether a program is of one of several ranks. */
static inline bool layout_is_shared(const program *p) {
    return p->part.n_ranks > 1 || p->part.n_stages > 1;
}
/* Of all ranks of such a program: ranks of the stages before come first. */
static inline uint32_t layout_rank(const program *p) {
    return p->part.stage * (p->part.n_ranks ? p->part.n_ranks : 1) + p->part.rank;
}
/* layout_shared.c. Marks and places the values that ranks share, once the forms are known; the sizes of
 * the group that the program says. */
status layout_shared(cpu_layout *, const program *, const engine_options *, sizer *, err *);

/* Errors: ERR_UNSUPPORTED (field: tensor or option), ERR_INVALID (field: option),
 * ERR_NO_MEMORY. */
status cpu_layout_init(cpu_layout *, const program *, const engine_options *, err *);
void cpu_layout_clear(cpu_layout *);
/* The layout as terms, the KV cache excluded. */
void cpu_layout_terms(const cpu_layout *, const program *, const engine_options *, terms *);

#endif
