/* What the layouts of all engines share: adding up sizes with overflow checks, values that
 * share bytes by liveness, and terms of weights by group. Pure arithmetic; any thread. */
#ifndef VRAMD_ENGINE_ARRANGE_H
#define VRAMD_ENGINE_ARRANGE_H

#include "engine/engine.h"
#include "engine/kv_block.h"

/* ERR_INVALID: an option of that name and value, and what was wanted. */
status engine_option_bad(err *, const char *option, uint32_t value, const char *wanted);
/* The ranges of the options that every engine has. */
status engine_options_check(const engine_options *, uint32_t max_model_len, err *);

/* Adds up sizes; any overflow sticks. */
typedef struct sizer {
    uint64_t n;
    bool failed;
} sizer;

uint64_t sizer_times(sizer *, uint64_t a, uint64_t b);
/* Sets aside bytes, rounded up to a multiple of align (a power of two); returns their offset.
 */
uint64_t sizer_place(sizer *, uint64_t bytes, uint64_t align);

/* Something that lives from one operation to another, and where it lies meanwhile. */
typedef struct life {
    uint32_t first_op, last_op; /* UINT32_MAX: never touched */
    uint64_t at, bytes;         /* at: UINT64_MAX until placed */
} life;

/* The lives of the program's values: [n_values]; nothing placed, no bytes. */
void lives_of_values(const program *, life *out);
/* First fit among those of all[n] that are placed and whose lives overlap. */
uint64_t life_first_fit(const life *all, uint32_t n, const life *me);

/* Adds the bytes of a weight to the term of its group, "blk.*.ffn_* Q4_1", among the terms from
 * first on; type as it is held. */
void weight_term_add(terms *, size_t first, const weight *, const char *type, uint64_t bytes);

/* The slots for recurrent states, where the program has any. */
void state_term_add(terms *, const program *, const engine_options *);

/* Whether the types of K and V in a cache are among the n that the engine of that name computes
 * with, and go with the size of blocks, the heads and the groups of layers. Errors: as
 * kv_types_check, kv_sizes_check, kv_latent_check; ERR_UNSUPPORTED: too many groups of layers for
 * tails. */
status kv_options_check(const program *, const engine_options *, const dtype *known, size_t n,
                        const char *engine, err *);
/* The groups of layers whose blocks are allocated together: those of the program; and where K or
 * V has 4 bits, behind them the tail of each (KV_TAIL_TOKENS), over the same layers. */
typedef struct kv_groups {
    kv_group group[PLAN_MAX_GROUPS];
    uint32_t n;
    uint32_t tail_at; /* the tail of group g is group g + tail_at; 0: there are none */
} kv_groups;

/* kv_options_check allowed the types. */
kv_groups kv_groups_of(const program *, const engine_options *);

/* The formats of the blocks of each group. out: [kv_groups.n] */
void kv_formats_init(kv_format *out, kv_order, const kv_groups *, const engine_options *);

/* What KV blocks cost, for the planner. depth: steps in flight; [kv_groups.n] formats. */
void kv_costs(kv_request *out, const kv_groups *, uint32_t depth, const kv_format *);

#endif
