/* The plan of a model that several ranks share (options tensor_parallel_size, pipeline_parallel_size): of each
 * rank its own, to the byte. On the CPU ranks are processes of one machine, and the option memory is the budget
 * of all of them together; a device has a budget for its rank alone.
 *
 * Block tables are the same everywhere, so all ranks have the same number of KV blocks: on devices, what
 * the one with the least space holds. Main thread. */
#ifndef VRAMD_DAEMON_RANK_PLAN_H
#define VRAMD_DAEMON_RANK_PLAN_H

#include "base/buf.h"
#include "daemon/machine.h"
#include "model/shard.h"

typedef struct rank_plan {
    shard part;
    struct terms fixed; /* all but the KV cache; on a device: of what is in its memory */
    kv_request kv;
    plan plan;
    /* On a device: of what the rank's process has in the host's memory. */
    struct terms host_fixed;
    struct plan host_plan;
    uint32_t first_layer, n_layers;
    head_shape heads; /* of its first attention, n_heads 0: none */
} rank_plan;

/* Ranks of all stages; 1: the machine's plan is all there is. */
uint32_t rank_plan_count(const options *);
/* Whether they have no memory in common; distributed_executor_backend is resolved. */
bool rank_plan_by_messages(const options *);
/* Whether m->backend runs the part of each rank. Errors: those of model_shard, ERR_UNSUPPORTED. */
status rank_plan_runs(const machine *m, err *e);
/* Solves m->plan (of all ranks on the CPU, on devices of the one that needs most, by messages of rank 0; m->host_plan: of
 * all) and m->ranks. A part that a device's engine does not run is estimated, and m->not_served says why. own: what the
 * process of rank 0 holds beside its engine, others: each of the others; kv: all but what a token costs. Errors: as machine_solve, and
 * those of model_shard. */
status rank_plan_solve(machine *m, const terms *own, const terms *others, kv_request *kv,
                       err *e);
/* The plan of a rank for so many blocks and tokens of KV cache, which another process has found. */
status rank_plan_fix(machine *m, uint32_t rank, const uint32_t *n_blocks, uint64_t kv_tokens,
                     err *e);
void rank_plan_clear(machine *m);

/* Bytes of all ranks; how much more than the least the largest has of weights, in per cent. */
uint64_t rank_plan_total(const machine *m);
uint32_t rank_plan_imbalance(const machine *m);
/* A column for each rank, the largest first. */
void rank_plan_print(const machine *m);
/* As a member of the plan's JSON object, with a comma in front. */
void rank_plan_json(buf *, const machine *m);

#endif
