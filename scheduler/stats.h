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
    X(speculative_drafts, "Steps of sequences that verified guesses of their next tokens.")    \
    X(speculative_draft_tokens, "Guesses that were verified.")                                 \
    X(speculative_accepted_tokens, "Guesses that were what the sampler drew.")                 \
    X(speculative_model_drafts,                                                                \
      "Of vramd_speculative_drafts_total, those of the draft model.")                          \
    X(speculative_model_draft_tokens,                                                          \
      "Of vramd_speculative_draft_tokens_total, those of the draft model.")                    \
    X(speculative_model_accepted_tokens,                                                       \
      "Of vramd_speculative_accepted_tokens_total, those of the draft model.")                 \
    X(logits_not_finite, "Rows of logits that were not finite; each ended its request.")       \
    X(moved_blocks, "KV blocks moved because a pool became smaller.")                          \
    X(prefix_cache_queries, "Prompt tokens looked up in the prefix cache.")                    \
    X(prefix_cache_hits, "Prompt tokens found in the prefix cache.")                           \
    X(prefix_cache_state_misses, "Prompt tokens whose KV blocks the prefix cache had, and no " \
                                 "recurrent state behind them.")                               \
    X(state_checkpoints_written, "Checkpoints of recurrent states written.")                   \
    X(state_checkpoints_evicted, "Checkpoints of recurrent states whose slot was taken.")      \
    X(length_predictions,                                                                      \
      "Finished sequences whose length scheduler_policy = shortest had predicted.")            \
    X(length_predictions_exceeded,                                                             \
      "Of those, longer than predicted: half of them are where it is calibrated.")             \
    X(length_prediction_error_tokens, "Tokens that predictions of lengths were off, in all.")  \
    X(prefix_cache_evictions, "Cached KV blocks that were taken for other content.")

/* Of the tier below the KV cache: vramd_NAME_total{tier="disk"} or {tier="host"}, where there is one. */
#define SCHED_TIER_COUNTERS(X)                                                                 \
    X(kv_tier_queries, "Prompt tokens looked up below memory: not found in it.")               \
    X(kv_tier_hits, "Prompt tokens loaded from the tier.")                                     \
    X(kv_tier_loads, "Chunks of KV blocks loaded from the tier.")                              \
    X(kv_tier_loaded_bytes, "Bytes of KV blocks loaded from the tier.")                        \
    X(kv_tier_load_errors, "Chunks of KV blocks that could not be loaded.")                    \
    X(kv_tier_stores, "Chunks of KV blocks stored in the tier.")                               \
    X(kv_tier_store_errors, "Chunks of KV blocks that could not be stored.")                   \
    X(kv_tier_dropped, "Chunks of KV blocks that left memory before they were stored.")        \
    X(kv_tier_evictions, "Chunks of KV blocks removed from the tier for others.")

#define SCHED_COUNTER_FIELD(name, help) uint64_t name;
typedef struct sched_counters {
    SCHED_COUNTERS(SCHED_COUNTER_FIELD)
    SCHED_TIER_COUNTERS(SCHED_COUNTER_FIELD)
} sched_counters;
#undef SCHED_COUNTER_FIELD

/* What a sequence has taken, beside what its events say. Blocks that it shares count for it
 * whole. */
typedef struct sched_cost {
    uint32_t n_steps;      /* committed steps that had rows of it */
    uint32_t n_recomputed; /* positions computed again after preemptions */
    uint32_t n_guessed,
        n_accepted;        /* guesses that steps verified; of them, tokens of its text */
    uint64_t loaded_bytes; /* chunks read from the tier, and ... */
    uint64_t load_us;      /* ... the time that it waited for them */
    double byte_seconds;   /* bytes of the blocks that it held, times how long, by sched_now */
} sched_cost;

/* Why the prefix cache had less of a prompt than it might have. X(NAME, word) */
#define SCHED_WHYS(X)                                                                          \
    X(NONE, NULL)                       /* it had all full blocks but the last token's */      \
    X(OFF, "cache_off")                 /* there is none */                                    \
    X(SCORED_PROMPT, "scored_prompt")   /* each row was computed for its logits */             \
    X(LOAD_FAILED, "load_failed")       /* a chunk could not be read from the tier */          \
    X(NOT_COMPUTED, "not_computed_yet") /* a running sequence begins so, and is not as far */  \
    X(WINDOW_GAP, "window_gap")         /* known, but not to each group with a window */       \
    X(NO_CHECKPOINT, "no_checkpoint")   /* known, but no recurrent state behind it */          \
    X(EVICTED, "evicted")               /* an earlier text began so, its blocks have gone */   \
    X(SALT_DIFFERS, "salt_differs") /* a text began so, of the tenant, without cache_salt */   \
    X(TOKENS_DIFFER, "tokens_differ")                                                          \
    X(FIRST_SEEN, "first_seen")

#define SCHED_WHY_VALUE(name, word) WHY_##name,
typedef enum sched_why { SCHED_WHYS(SCHED_WHY_VALUE) } sched_why;
#undef SCHED_WHY_VALUE

/* What a place of a pool is for. X(NAME, word) */
#define SCHED_CELL_LIST(X)                                                                     \
    X(FREE, "free")                                                                            \
    X(CACHED, "cached") /* free, and found again; of states: a checkpoint */                   \
    X(FENCED, "fenced") /* free once a step in flight is committed */                          \
    X(OUT, "out")       /* not given out: the pool has become smaller */                       \
    X(USED, "used")     /* by a step alone */                                                  \
    X(SHARED, "shared") /* held several times */

#define SCHED_CELL_VALUE(name, word) CELL_##name,
/* CELL_SEQUENCE: and what comes behind it: held by one. */
typedef enum sched_cell { SCHED_CELL_LIST(SCHED_CELL_VALUE) CELL_SEQUENCE } sched_cell;
#undef SCHED_CELL_VALUE

enum { SCHED_MISS_TOKENS = 12, SCHED_REQUEST_BYTES = 40 };

typedef struct sched_miss {
    sched_why why;
    /* The first token that was not as in any earlier text; or, where it was, that was not there. */
    uint32_t at_token;
    uint32_t n_old;                 /* TOKENS_DIFFER: from there on in the nearest text ... */
    int32_t old[SCHED_MISS_TOKENS]; /* ... these */
    char nearest[SCHED_REQUEST_BYTES]; /* the request of that text; "": none, or unnamed */
} sched_miss;

#endif
