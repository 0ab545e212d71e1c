/* A rank that follows rank 0: it computes the steps that are posted in the group's memory, until the group
 * ends. A step is checked before it is trusted (engine/tables.h, engine/batch.h); one that is not
 * right, and a step that fails here, break the group. The engine's thread. */
#ifndef VRAMD_ENGINE_FOLLOW_H
#define VRAMD_ENGINE_FOLLOW_H

#include "engine/group.h"
#include "engine/tables.h"

/* What reading steps takes, where the KV cache has so many groups. */
static inline uint64_t follow_bytes(const program *p, const engine_options *o,
                                    uint32_t n_groups) {
    const bool states = engine_states(p, o) > 0;
    const uint64_t seq = sizeof(batch_seq) + sizeof(sampling) +
                         (n_groups + states) * sizeof(block_copy) +
                         (uint64_t)o->max_model_len * sizeof(int32_t);
    const uint64_t checkpoints = states ? tables_most_checkpoints(o) : 0;
    return (o->max_seqs * seq + checkpoints * sizeof(batch_checkpoint) + 63) & ~63ull;
}

/* memory: follow_bytes, 64-byte aligned. l: what the rank holds, shown to rank 0. OK: the group has
 * ended. Errors: why it is broken. */
status follow(engine *, group *, const tables_model *, const engine_options *, void *memory,
              const ledger *l, err *);

#endif
