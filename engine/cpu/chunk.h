/* What recurrent operations by chunks share (step_delta.c, step_ssm.c). Positions are in chunks of
 * STATE_CHUNK from 0 on. A head's matrix S stands behind the last full chunk; each row of the chunk
 * adds k v^T to it, decayed by the rows after it. k, v and the sum of the decays' logarithms g are kept
 * beside S, so that rows can be undone; behind the last row of a chunk they are added to S, which is
 * then written once for all of them. A row's numbers depend on its position and the rows before it
 * alone, however they are cut into steps.
 *
 * No state of its own; any thread of the step. */
#ifndef VRAMD_ENGINE_CPU_CHUNK_H
#define VRAMD_ENGINE_CPU_CHUNK_H

#include <string.h>

#include "engine/cpu/step.h"

/* What a key head and one of its value heads have in a slot of states. */
typedef struct head_state {
    float *s; /* [key_dim][value_dim] */
    float *k; /* [STATE_CHUNK][key_dim] */
    float *n; /* [STATE_CHUNK][value_dim]: v */
    float *g; /* [STATE_CHUNK]: sums of g since the chunk began */
} head_state;

head_state head_state_of(const cpu_engine *, const cpu_op *, uint32_t slot, uint32_t key_head,
                         uint32_t value_head);

/* The i-th value head that goes by a key head. */
static inline uint32_t value_head_of(const delta_shape *d, uint32_t key_head, uint32_t i) {
    return d->tiled ? key_head + i * d->key_heads
                    : key_head * (d->value_heads / d->key_heads) + i;
}

/* Rows of a sequence of the step that are in one chunk. All 0 before the first. */
typedef struct chunk_rows {
    uint32_t row, n_rows; /* of the step */
    uint32_t at;          /* place of the first one in its chunk */
    const uint32_t
        *checkpoint;     /* slot for the state behind them, which end a chunk; NULL: none */
    uint32_t done, next; /* rows of the sequence before the next chunk; checkpoints */
} chunk_rows;

/* The next ones; false: no more. */
bool chunk_next(chunk_rows *, const batch_seq *);

/* log(1 + e^x) without overflow. */
double chunk_softplus(double x);

/* e^(now - g[j]) for the chunk's rows j < n, then e^now: [n + 1]. */
void chunk_powers(const cpu_engine *, const float *g, float now, uint32_t n, float *power);

/* Some value heads of a key head, of a sequence of the step; the first member of what an operation has
 * beside it. */
typedef struct chunk_task {
    cpu_engine *e;
    const cpu_op *op;
    const delta_shape *d;
    const batch_seq *seq;
    uint32_t key_head, first, n_heads; /* those that go by it: the first-th to .. */
    uint32_t n_x; /* rows that S is multiplied by, for each row of the step */
    chunk_rows rows;
    const float *k[STATE_CHUNK]; /* of the chunk */
    /* Scratch: [n_x][rows] to be multiplied by S; what S gives of each; k times e^(G - G');
     * exponentials. */
    float *x, *sx, *scaled, *power;
} chunk_task;

/* What an operation does with the rows of a piece: x and k of all heads, then row r of a head. */
typedef struct chunk_ops {
    void (*take_keys)(chunk_task *);
    void (*run_row)(const chunk_task *, const head_state *, uint32_t head, uint32_t r);
} chunk_ops;

/* A task of a thread; its scratch begins at thread.delta, and what is left of it is at power +
 * STATE_CHUNK + 1. */
chunk_task chunk_task_of(cpu_engine *, const cpu_op *, uint32_t thread, uint32_t n_x);
/* All rows of the task's sequence, chunk by chunk. */
void chunk_run(chunk_task *, const chunk_ops *);

#endif
