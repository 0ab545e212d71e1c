/* Inside of a step: the function of each operation, and what they share. They run on all
 * threads of the team at once; each takes its part of the rows, outputs or tasks. */
#ifndef VRAMD_ENGINE_CPU_STEP_H
#define VRAMD_ENGINE_CPU_STEP_H

#include "engine/cpu/cpu.h"
#include "engine/cpu/linear_tiles.h"
#include "engine/cpu/op_list.h"

/* Of a convolution's kernel [channels][width]: what OP_CONV reads, for its pieces of channels one after the
 * other [width][channels of it]; in place. */
void conv_arrange(float *w, uint32_t channels, uint32_t width);

/* Computes thread's part of an operation; a barrier follows. In step_rows.c, step_linear.c,
 * step_attention.c, step_experts.c, step_conv.c, step_delta.c, step_ssm.c. */
typedef void op_run(cpu_engine *, const cpu_op *, uint32_t thread);
#define X(kind, run, ...) op_run run;
CPU_OPS(X)
#undef X

/* ---- step_values.c ---- */

/* Thread's part of n things: one contiguous run, whole groups of 8 when there are many. */
span step_share(uint32_t n, uint32_t threads, uint32_t thread);
/* A value in float32; NULL where nothing reads it so. */
float *value_f(const cpu_engine *, value_id);
/* A value as the linear kernels read it; f or q is NULL where nothing reads it so. */
act value_act(const cpu_engine *, value_id);
/* The second plane of codes; q is NULL where there is none. */
act value_rest(const cpu_engine *, value_id);
/* Quantises inputs [k0, k0 + n) of a row. */
void quantise_part(const cpu_engine *, const act *, uint32_t row, uint32_t k0, uint32_t n,
                   const float *x);
/* Quantises row r of a value whose codes are in a, and what that lost into rest. */
void quantise_row(const cpu_engine *, const act *a, const act *rest, uint32_t r, const float *x,
                  uint32_t thread);
/* Quantises a value that an operation has written in float32 by parts of its rows, where a reader wants
 * codes. By all threads. */
void quantise_written(cpu_engine *, value_id, uint32_t thread);

/* Row `from` of in as row `to` of out, in the forms that out has. */
void row_copy(const act *in, uint32_t from, const act *out, uint32_t to);

/* ---- step_experts.c ---- */

/* Matrix i of an expert, from output `from` on, n of them. */
packed expert_part(const cpu_op *, uint32_t i, uint32_t expert, uint32_t from, uint32_t n);

/* ---- step_part.c: OP_RECV and OP_SEND where cpu_engine.crossing is set ---- */

op_run part_recv, part_send;

/* ---- attention without fusion ---- */

/* Of some query heads: the largest score, the sum of the weights, the weighted sum of V. */
typedef struct partial {
    float *max, *sum; /* [queries] */
    float *acc;       /* [queries][dim_pad] */
} partial;

/* The cap of attn_part. */
static inline float attn_cap(const op *o) {
    return o->attention.cap * LOG2_E;
}

/* What it shares with the fused one; given by step_attention.c, so that the two files do not call each
 * other. */
typedef struct attn_parts {
    /* The K and V that head h of a task reads. */
    kv_head (*head)(const cpu_engine *, const cpu_op *, const attn_task *, uint32_t h);
    /* The same once the queries are rotated into q, as attn_part has them, and the new entry of a
     * lone row is in the cache. */
    kv_head (*open)(cpu_engine *, const cpu_op *, const attn_task *, uint32_t h,
                    uint32_t thread, float *q);
    /* From the joined result of all splits to what the next layer reads. */
    void (*close)(cpu_engine *, const cpu_op *, const act *out, const attn_task *, uint32_t h,
                  uint32_t thread, const partial *);
} attn_parts;

/* All tasks of a layer, by all threads (attention_unfused.h). */
typedef void attention_all(cpu_engine *, const cpu_op *, const attn_parts *, const act *out,
                           uint32_t thread);
attention_all attention_unfused_plain, attention_unfused_avx2;

#endif
