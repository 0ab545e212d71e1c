/* Where everything of the CUDA engine lies in its one device allocation (the arena) and in the
 * pinned memory of the host: computed once from the program and the options, used by the plan
 * (terms), by the base for what the host gives, and by the plugin. Pure C and part of the base
 * binary too: the plan needs no CUDA.
 *
 * The arena: weights | slots of staged layers | values of a step | logits | workspace | recurrent states | KV cache. While loading, what
 * lies between weights and KV cache serves as buffers for the file's bytes. */
#ifndef VRAMD_ENGINE_CUDA_LAYOUT_H
#define VRAMD_ENGINE_CUDA_LAYOUT_H

#include "engine/cuda/matrix.h"
#include "engine/cuda/scratch.h"
#include "engine/tables.h"
#include "engine/engine.h"
#include "engine/kv_block.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_DEPTH = 2,               /* steps in flight */
    CUDA_INVARIANT_ROWS = 128,    /* rows of every GEMM under batch_invariant, at most */
    CUDA_LISTED = 2 * 1024 + 128, /* words of a sequence's biases and end tokens; its history
                                     and its mask come on top */
    CUDA_GEMM_WORKSPACE = 32 << 20,
    CUDA_SHORT = 256, /* tokens: shorter sequences have graphs of their own */
    CUDA_BOUNCES = 2, /* buffers between file and device while loading */
    CUDA_STAGES = 2   /* slots of the device for layers that come from the host */
};
#define CUDA_RESIDENT UINT32_MAX
#define CUDA_ABSENT   (UINT32_MAX - 1)
/* The ledger gives whole pages from 64 KiB on; pinned memory must not share one. */
#define CUDA_PINNED_LEAST (64ull << 10)

/* Weights that lie and compute together: a matrix, or several of one operation (q | k | v, gate
 * | up) one below the other; a vector, or several end to end. */
typedef struct cuda_place {
    uint64_t at, bytes; /* in the arena; bytes a multiple of 256 */
    bool is_vector;     /* float32 */
    dtype type;         /* of a matrix as it lies on the device */
    uint32_t n_out, n_in;
    uint32_t n_experts; /* matrices of that shape, one after the other; 1: one matrix */
    weight_id first;    /* its first weight: names it in the plan */
    uint32_t staged;    /* index of what it comes from the host with; CUDA_RESIDENT: it stays;
                           CUDA_ABSENT: the CPU alone reads it, and it has no bytes */
} cuda_place;

/* Matrices of a layer that lie in the host's pinned memory, as the device has them, and come to a slot of
 * the arena for each step: in one copy, whose first operation waits for it. The next layer of that
 * slot is copied once the last operation is done. */
typedef struct cuda_staged {
    uint64_t host_at, bytes;    /* in the host's memory */
    uint64_t at;                /* of the slot, in the arena */
    uint32_t first_op, last_op; /* of the operations that read it */
    int32_t layer;
} cuda_staged;

typedef struct cuda_weight {
    uint32_t place;     /* index */
    uint32_t row;       /* where its rows (a vector: its elements) begin there */
    uint64_t row_bytes; /* of a row as it is copied to the device (upload.h) */
    bool narrow;        /* of few outputs: float32 on the device, unless it is packed */
    bool absent;        /* the CPU's operations alone read it */
} cuda_weight;

typedef enum cuda_form {
    CUDA_VALUE_T,      /* the activations' type */
    CUDA_VALUE_F32,    /* the residual stream */
    CUDA_VALUE_ROUTED, /* what cu_route leaves */
    CUDA_VALUE_LOGITS
} cuda_form;

typedef struct cuda_value {
    cuda_form form;
    uint32_t
        cols; /* that this rank computes, one behind the other; all, where there is one rank */
    uint64_t at; /* in the arena */
} cuda_value;

/* What one operation has of its own, in the arena; 0: it has not. */
typedef struct cuda_aside {
    uint64_t in; /* its input, a residual stream, rounded to the activations' type */
    /* OP_GATE_UP: gate | up. OP_ROUTE: the logits. OP_EXPERTS_DOWN: what each expert makes of each of
     * its rows, float32 */
    uint64_t own;
    uint64_t state; /* where its floats begin in a slot of recurrent states */
    /* OP_ALL_GATHER: [n_ranks + 1], the first column of each rank's, then all; NULL: rows are joined */
    const uint32_t *cuts;
    bool on_host; /* the CPU computes it */
} cuda_aside;

/* A value on its way between the device and the CPU, by the host's pinned memory. */
typedef struct cuda_crossing {
    value_id value;
    bool up;            /* to the device */
    uint64_t at;        /* in the pinned memory, from crossing_at on */
    uint32_t n_experts; /* CUDA_VALUE_ROUTED: experts and weights alone cross; else 0 */
} cuda_crossing;

/* Operations, one behind the other, that the CPU computes between two of the device's (hosting.h). */
typedef struct cuda_host_run {
    uint32_t first_op, last_op;
    uint32_t first, n; /* of the crossings: down, then up */
    uint32_t from, to; /* operations of the CPU's program, crossings too */
} cuda_host_run;

typedef struct cuda_layout {
    cu_type t, kv_type; /* of activations; of K and V */
    bool batch_invariant;
    uint32_t rows_unit, logits_unit; /* batch_invariant: rows of every GEMM; else 1 */
    uint32_t n_places;
    uint32_t n_groups, tail_at; /* of KV blocks: as in kv_groups (engine/arrange.h) */
    cuda_place *places;
    cuda_staged *staged; /* [n_staged], by their operations; their slots go round */
    uint32_t n_staged;
    uint64_t staged_bytes;    /* of all of them: what a step copies */
    uint64_t host_bytes;      /* of the host's memory for them; whole pages */
    cuda_host_run *host_runs; /* [n_host_runs], by their operations */
    uint32_t n_host_runs;
    cuda_crossing *crossings;
    uint32_t n_crossings;
    uint64_t crossing_at, crossing_bytes; /* in the pinned memory: as the run with most wants */
    program *host_program;                /* the CPU's; NULL: there is none */
    struct cpu_crossing *host_io;         /* [host_program->n_ops] */
    cuda_weight *weights;                 /* [n_weights] */
    cuda_value *values;                   /* [n_values] */
    cuda_aside *aside;                    /* [n_ops] */
    uint32_t n_ranks;                     /* that share the model; 1: no value is joined */
    uint32_t *cuts;                       /* of all values that are */
    bool mostly_packed;                   /* of the weights' bytes more than half are packed */
    bool needs_gemm;                      /* some matrix has 16 bits: not without cuBLASLt */
    bool wants_gemm;     /* or packed ones have slices: cuBLASLt is used if it is there */
    bool wants_codes;    /* activation_dtype = fp8 */
    uint32_t codes_rows; /* of activations as codes (w8a8.h), at most; 0: none are */
    uint32_t n_slices;   /* of packed weights that meet many rows, in all operations */
    bool is_split;       /* sequences may be longer than CUDA_SHORT */
    uint32_t max_stride, max_tiles, max_copies, max_checkpoints;
    uint32_t rope_pairs; /* frequencies of the largest rotary embedding; from table to table */
    /* Sections of the arena. */
    uint64_t weights_bytes, staged_slots_bytes /* of all slots, behind the weights */;
    uint64_t values_at, values_bytes, logits_at, logits_bytes, workspace_at, workspace_bytes;
    uint64_t kept_at; /* within the logits: their copy; their end where none is kept */
    /* Offsets in the arena, within the workspace. */
    /* quantized: what packed weights multiply, as norms leave it; beside_quantized: as attention and gate | up do. */
    uint64_t joined; /* columns of a value on their way, rank by rank */
    uint64_t gemm, gemm_bytes, slice, slice_bytes, codes, codes_bytes, quantized,
        beside_quantized, split, split_bytes, arrived, arrived_bytes, partials, sampler, tables,
        tables_bytes, results, previous, freqs;
    uint64_t results_bytes;
    /* Recurrent states: slots of so many floats; 0: the program has none. */
    uint32_t n_states;
    uint64_t state_floats, states_at, states_bytes;
    uint64_t fixed_bytes; /* all but the KV cache, which begins there */
    kv_format kv[PLAN_MAX_GROUPS];
    uint32_t kv_layers[PLAN_MAX_GROUPS];
    /* The host's pinned memory: CUDA_DEPTH slots of tables, results, and logits where they are
     * kept, then what crosses; bounces to load. */
    uint64_t slot_bytes, slot_results, slot_logits, staging_bytes;
    uint64_t bounce_bytes; /* of one of CUDA_BOUNCES: */
    uint64_t bounce_rows;  /* rows as the device takes them; beyond: a row of the file */
} cuda_layout;

/* Operations whose matrices meet all rows in a GEMM, or in what serves for it. */
static inline bool cuda_multiplies(op_kind k) {
    return k == OP_LINEAR || k == OP_GATE_UP || k == OP_LOGITS || k == OP_ROUTE;
}

/* Errors: ERR_UNSUPPORTED (field: tensor, operation or option), ERR_INVALID (field: option),
 * ERR_NO_MEMORY. */
status cuda_layout_init(cuda_layout *, const program *, const engine_options *, err *);
void cuda_layout_clear(cuda_layout *);
/* The memory that ranks on devices share: steps alone. Errors: as cuda_layout_init. */
struct group_shape;
struct group_shape cuda_shape_of(const cuda_layout *);
status cuda_group_shape(struct group_shape *, const program *, const engine_options *, err *);
/* The layout as terms, the KV cache excluded: the arena's (exact, on the device), the host's
 * (exact), and what driver, libraries and graphs take on the device (assumed). */
void cuda_layout_terms(const cuda_layout *, const program *, const engine_options *, terms *);
/* The terms of the driver's context alone; n_sms 0: an H100's. */
void cuda_context_terms(uint32_t n_sms, terms *);
/* Entries of the graph that serves a batch of n: 1, 2, 4, then multiples of 8 up to 128, of 16
 * up to 256, of 32 up to 512, ...: at most an eighth of them is padding, and graphs stay few.
 */
static inline uint32_t cuda_bucket(uint32_t n, uint32_t max_seqs) {
    uint32_t unit = n <= 2 ? 1 : n <= 4 ? 4 : 8;
    while (16 * unit < n) unit *= 2;
    const uint32_t b = (n + unit - 1) / unit * unit;
    return b < max_seqs ? b : max_seqs;
}
/* The next of these after bucket b. */
static inline uint32_t cuda_bucket_after(uint32_t b, uint32_t max_seqs) {
    return cuda_bucket(b + 1, max_seqs);
}
static inline uint32_t cuda_rows_up(uint32_t n, uint32_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* Graphs of a bucket: one for sequences of up to CUDA_SHORT tokens (small block tables, few
 * splits or none), and one for all others. */
static inline uint32_t cuda_graph_kinds(const cuda_layout *l) {
    return l->is_split ? 2 : 1;
}
/* Not where copies of the next step begin during this one, nor where the CPU computes a part, for rows that
 * must be real. */
static inline bool cuda_wants_graphs(const cuda_layout *l) {
    return !l->n_staged && !l->n_host_runs;
}
static inline uint32_t cuda_graph_count(const cuda_layout *l, uint32_t max_seqs) {
    uint32_t n = 1;
    if (!cuda_wants_graphs(l)) return 0;
    for (uint32_t b = 1; b < max_seqs; b = cuda_bucket_after(b, max_seqs)) n++;
    return n * cuda_graph_kinds(l);
}

/* Pools of KV blocks come and go in granules of so many bytes: the driver's, of every device so
 * far. What they round up is a term of the plan. */
#define CUDA_GRANULE (2ull << 20)

/* Bytes of a group's pool of n blocks; plan_pool_bytes is the same. */
static inline uint64_t cuda_pool_bytes(const cuda_layout *l, uint32_t group, uint32_t n) {
    return plan_pool_bytes(CUDA_GRANULE, n, kv_block_bytes(&l->kv[group], l->kv_layers[group]));
}

#ifdef __cplusplus
}
#endif
#endif
