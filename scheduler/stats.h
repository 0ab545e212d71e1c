/* What the scheduler counts, said once: a line here is a counter in the scheduler, in the
 * figures that the bridge hands over, and in /metrics as vramd_NAME_total. Plain data; includes
 * nothing of the scheduler, so api/ may include it. */
#ifndef VRAMD_SCHEDULER_STATS_H
#define VRAMD_SCHEDULER_STATS_H

#include <stdint.h>

/* X(name, help) */
#define SCHED_COUNTERS(X)                                                                      \
    X(steps, "Steps of the engine.")                                                           \
    X(preemptions, "Preemptions of sequences.")                                                \
    X(prompt_tokens, "Prompt tokens processed.")                                               \
    X(generated_tokens, "Tokens generated.")                                                   \
    X(recomputed_tokens, "Tokens computed again after a preemption.")                          \
    X(logits_not_finite, "Rows of logits that were not finite; each ended its request.")       \
    X(moved_blocks, "KV blocks moved because a pool became smaller.")                          \
    X(prefix_cache_queries, "Prompt tokens looked up in the prefix cache.")                    \
    X(prefix_cache_hits, "Prompt tokens found in the prefix cache.")                           \
    X(prefix_cache_evictions, "Cached KV blocks that were taken for other content.")

#define SCHED_COUNTER_FIELD(name, help) uint64_t name;
typedef struct sched_counters {
    SCHED_COUNTERS(SCHED_COUNTER_FIELD)
} sched_counters;
#undef SCHED_COUNTER_FIELD

#endif
