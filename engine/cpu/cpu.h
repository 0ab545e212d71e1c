/* Inside of the CPU engine: what open, load and the steps share. */
#ifndef VRAMD_ENGINE_CPU_CPU_H
#define VRAMD_ENGINE_CPU_CPU_H

#include <stdatomic.h>

#include "engine/cpu/layout.h"
#include "model/model.h"
#include "engine/cpu/route.h"
#include "engine/cpu/team.h"

/* Bytes of a block of a group of the layout. */
static inline uint64_t cpu_block_bytes(const cpu_layout *l, uint32_t group) {
    return kv_block_bytes(&l->kv[group], l->groups.group[group].n_layers);
}

/* An operation with its weights found. Matrices that lie one after the other, of one type, are
 * one. */
typedef struct cpu_op {
    const op *op;
    uint32_t n_parts;
    packed part[3];        /* of experts: the first's, the others follow */
    uint32_t first_col[3]; /* of the output */
    const float *bias[3];
    const float *vec[3]; /* of w, where it is a vector: OP_NORM, OP_LAYER_NORM, OP_ROUTE, ... */
    const uint32_t *order; /* OP_PERMUTE */
    uint32_t rope;         /* what appends, and the OP_ATTENTION after it: which angles */
    uint64_t state;        /* of recurrent layers: where its floats begin in a slot of states */
    struct cpu_experts *experts; /* whose slots have its experts; NULL: they follow part */
    uint32_t expert_layer;
    uint64_t slot_at[3]; /* of part, in a slot */
} cpu_op;

/* The step in work: tables in the workspace, filled by the engine thread, read by all. */
typedef struct cpu_step {
    const batch *batch;
    step_row *rows;
    attn_task *tasks;
    uint32_t n_tasks;
    uint32_t n_threads; /* that take part */
    uint32_t from, to;  /* operations of the program */
    uint32_t number;    /* of those that the group's rank 0 has posted */
    bool prefill;       /* some sequence has several rows: keys are appended before attention */
    route_sorted routed; /* of the last OP_ROUTE, in the workspace */
    atomic_bool failed;  /* a row of the table could not be read; the first error: */
    err error;
    bool logits; /* some row draws, or scores: not all of them are for their hidden state */
} cpu_step;

/* A step that is submitted and not collected. */
typedef struct cpu_flight {
    batch batch;
    uint32_t number; /* cpu_step.number */
} cpu_flight;

typedef struct cpu_engine {
    engine head;
    const model *model;
    const program *program;
    ledger *ledger;
    engine_options opt;
    cpu_layout layout;
    const linear_kernels *linear;
    const linear_kernels *exact; /* of family f32: for routers, whose choices are no rounding */
    const op_kernels *ops;
    team *team;
    cpu_op *op; /* [program->n_ops] */
    unsigned char *weights, *activations, *workspace;
    unsigned char *shared; /* values of the group; NULL: the program is the whole model's */
    unsigned char *kv[PLAN_MAX_GROUPS]; /* of each of layout.groups */
    float *states; /* [layout.n_states][layout.state_floats]; NULL: the program has none */
    float *logits, *kept;   /* kept: behind them, NULL unless opt.keep_logits */
    float *arena_of_logits; /* in a group: what has kept alone */
    double rope_scale[PROGRAM_MAX_ROPES];
    checkpoint_rows table;       /* of layout.table; fd -1 */
    struct cpu_experts *experts; /* NULL: all are in weights */
    /* Of a part of another engine's model (part.h): [n_ops], and its memory; else NULL. */
    const struct cpu_crossing *crossing;
    unsigned char *crossing_memory;
    cpu_step step;
    cpu_flight flight[GROUP_MAX_DEPTH]; /* submitted steps, the oldest first */
    uint32_t n_flights;
    uint32_t n_front; /* operations before those that wait for the logits of another stage */
    uint32_t alone_left, alone_next; /* steps to run without the team (step.c) */
    bool *drew;                      /* [max_seqs]: what of the step before drew a token */
    uint32_t n_drew;
    sampled *token, *scored; /* results: [max_seqs][1 + max_draft], [max_logit_rows] */
    uint32_t *n_tokens;      /* [max_seqs]: drawn, up to the first that was not guessed */
    int32_t *previous;       /* [max_seqs]: tokens of the step before, for input_from */
    batch_seq *posted;       /* [max_seqs]: rank 0's, a step as the others get it; else NULL */
} cpu_engine;

/* An error of any thread ends the step; the first is kept. */
static inline void cpu_step_fail(cpu_engine *e, const err *er) {
    if (!atomic_exchange(&e->step.failed, true)) e->step.error = *er;
}

/* load.c. Reads, packs and resolves all weights. Errors: ERR_IO, ERR_BUDGET, ERR_NO_MEMORY. */
status cpu_load(cpu_engine *, err *);

/* plan_step.c. Checks a batch and fills the tables of the step. Errors: ERR_INVALID. */
status cpu_step_init(cpu_engine *, const batch *, err *);
/* Rows and logits again, of one that was checked. */
void cpu_step_rows(cpu_engine *, const batch *);

/* kv_resize.c. engine_kv_resize. */
status cpu_kv_resize(engine *, const uint32_t n_blocks[PLAN_MAX_GROUPS], err *);

/* step.c. Runs operations [from, to) of the step on the team. */
void cpu_step_run(cpu_engine *, uint32_t from, uint32_t to);
/* To the next stage, what this one sends of the step. */
void cpu_step_put_sent(cpu_engine *);
/* kv_move.c. Of struct backend. */
status cpu_kv_export(engine *, uint32_t group, int32_t block, void *out, err *);
status cpu_kv_import(engine *, uint32_t group, int32_t block, const void *in, err *);
/* Grows when the same tokens may get other bits of keys and values: then tests/engine/test_kv_move.c fails. */
enum { CPU_NUMERICS = 1 };

/* Tokens that a sequence may draw in a step. */
static inline uint32_t max_run(const cpu_engine *e) {
    return 1 + e->opt.max_draft;
}

static inline void *thread_at(const cpu_engine *e, uint32_t thread, uint64_t at) {
    return e->workspace + thread * e->layout.thread.bytes + at;
}

/* [rope_dims / 2] of one kind of rotary embedding */
static inline double *cpu_freqs(const cpu_engine *e, uint32_t table) {
    return (double *)(e->workspace + e->layout.freqs) + (size_t)table * e->layout.rope_dims / 2;
}

/* What a recurrent operation keeps in a slot of states: [op.state_floats] */
static inline float *cpu_state(const cpu_engine *e, const cpu_op *c, uint32_t slot) {
    return e->states + slot * e->layout.state_floats + c->state;
}

/* Cosines and sines of a row of the step: [rope_dims] */
static inline float *cpu_angles(const cpu_engine *e, uint32_t table, uint32_t row) {
    return (float *)(e->workspace + e->layout.rope) +
           ((size_t)table * e->opt.max_rows + row) * e->layout.rope_dims;
}

#endif
