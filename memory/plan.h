/* The plan: from terms and a budget to how much KV cache there will be, or to a refusal that
 * names the term that does not fit and the smallest budget that would. Pure arithmetic. */
#ifndef VRAMD_MEMORY_PLAN_H
#define VRAMD_MEMORY_PLAN_H

#include "memory/budget.h"
#include "memory/term.h"

/* KV cache of one group of layers with one window. Pools are per group; a block of a group
 * holds block_tokens tokens of each of its layers. */
typedef struct kv_group_cost {
    uint32_t n_layers;
    uint32_t window;          /* tokens; 0: full attention */
    uint64_t bytes_per_token; /* all layers of the group */
    bool tail;  /* the newest tokens of another group, in a larger type; has a window */
    bool draft; /* of the draft model, for the tokens of the groups without a window */
} kv_group_cost;

enum { PLAN_MAX_GROUPS = 4 };

/* The KV cache that the options and the model require. */
typedef struct kv_request {
    kv_group_cost group[PLAN_MAX_GROUPS];
    uint32_t n_groups;
    uint32_t block_tokens;
    uint64_t min_tokens;  /* less is refused: one sequence of the context length */
    uint64_t max_tokens;  /* more is useless: n_seqs * context length */
    uint64_t want_tokens; /* stop here though the budget holds more; 0: take all up to max */
    /* What bounds a group with a window: */
    uint32_t max_seqs;  /* that run at once; 0: unknown */
    uint32_t depth;     /* steps in flight: 1 or 2; 0: 2 */
    uint32_t max_rows;  /* of a step */
    bool in_proportion; /* it gets its least, though the budget holds more */
    /* Bytes of class scheduler beside n_blocks[g] blocks of each group g; grows with each of
     * them. NULL: none. */
    uint64_t (*beside)(void *arg, const uint32_t *n_blocks);
    void *arg;
    uint32_t most[PLAN_MAX_GROUPS]; /* blocks of a group, whatever the budget holds; 0: any */
    uint64_t granule; /* bytes of which each group has a multiple; 0: as many as its blocks */
} kv_request;

/* Bytes of a pool of n blocks. */
static inline uint64_t plan_pool_bytes(uint64_t granule, uint64_t n, uint64_t block_bytes) {
    const uint64_t bytes = n * block_bytes;
    return granule ? (bytes + granule - 1) / granule * granule : bytes;
}
/* Blocks that a sequence holds at most where each position sees window tokens, itself included,
 * and up to rows rows can be uncommitted. */
static inline uint64_t kv_window_blocks(uint32_t window, uint32_t block_tokens, uint64_t rows) {
    return (window - 1 + rows + block_tokens - 1) / block_tokens + 1;
}
/* The same where the rows of all sequences are counted together, for blocks that are large: what
 * each sequence holds at most, and what all hold beside that. Two steps in flight count as three:
 * while the second holds blocks of sequences that ended in it, the first has made place for
 * another. */
static inline uint64_t kv_window_share(uint32_t window, uint32_t block_tokens) {
    return ((uint64_t)window + block_tokens - 1) / block_tokens + 2;
}
static inline uint64_t kv_rows_blocks(uint32_t depth, uint32_t max_rows,
                                      uint32_t block_tokens) {
    const uint64_t steps = depth ? 2 * depth - 1 : 3;
    return (steps * max_rows + block_tokens - 1) / block_tokens;
}
/* First token that the row at pos sees: 0 without a window. */
static inline uint32_t kv_first_seen(uint32_t window, uint32_t pos) {
    return window && pos >= window ? pos + 1 - window : 0;
}

typedef struct plan {
    struct terms terms; /* all of them, KV cache included; owned */
    uint64_t budget_bytes;
    uint64_t total_bytes;     /* steady state */
    uint64_t load_peak_bytes; /* the highest moment of loading */
    uint64_t smallest_budget_bytes;
    bool fits;
    uint32_t block_tokens;
    uint64_t kv_bytes_per_token, kv_block_bytes; /* over all groups but tails */
    uint64_t tail_bytes_per_token;               /* over all tails; 0: there are none */
    uint32_t kv_blocks; /* of a group without a window: what kv_tokens need */
    uint64_t kv_tokens;
    uint32_t n_groups;
    uint32_t group_blocks[PLAN_MAX_GROUPS];
    uint64_t group_block_bytes[PLAN_MAX_GROUPS]; /* of one block */
    bool in_proportion; /* the budget held no more than the least of some group with a window */
    /* Blocks that a sequence of min_tokens needs; of a tail, beside the rows of a step. */
    uint32_t group_seq_blocks[PLAN_MAX_GROUPS];
    uint64_t kv_bytes, beside_bytes; /* all groups; kv_request's beside */
} plan;

/* Solves for the number of KV blocks (none where kv has no group: host memory beside a device
 * that holds the KV cache). A group with a window gets the blocks that this many tokens need
 * there in the worst case: never more than all sequences can hold. Under a budget that is too
 * small for that, the groups share it in proportion to what one sequence of min_tokens needs of
 * each. fixed: every term but the KV cache (borrowed). On
 * ERR_BUDGET *out is filled too (fits = false), so that it can be printed. Errors: ERR_BUDGET
 * (field "memory", names the term; hint: smallest budget), ERR_NO_MEMORY. */
status plan_solve(plan *out, const terms *fixed, const kv_request *, const budget *, err *);
/* How many sequences of min_tokens tokens the KV cache holds; 0 without one. */
double plan_sequences(const plan *);
/* The most that is held at any moment, loading included: the budget that it needs. */
uint64_t plan_peak_bytes(const plan *);
void plan_clear(plan *);

#endif
