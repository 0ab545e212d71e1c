/* Guesses of a draft model: a small model with the vocabulary of the one that is served (the target) writes on, greedily,
 * and a step of the target verifies what it wrote.
 *
 * Its keys and values lie in a pool of its own, at the places of the target's blocks: block b of the target's group
 * without a window has the same positions of the same text as block n_aside + b here. So nothing is allocated,
 * shared or preempted for it. What the target computes here is not there yet: of each block is known how many positions
 * from its start the draft model has computed (valid), which becomes 0 where rows of the target enter the block or a copy
 * goes there. Before a sequence is guessed, what it lacks is computed, in chunks of a step's rows; until then
 * it has no guesses. Blocks that a later text finds in the prefix cache have what was computed.
 *
 * Positions of guesses behind the blocks that a sequence holds lie in blocks set aside for its slot, and are computed again
 * where they were right.
 *
 * Whether the next guess is worth a pass of the draft model and a row of the target goes by what its guesses
 * were worth before, by how sure it was of them, and by the times of passes and steps. What is guessed changes
 * no token of any text. Engine thread. */
#ifndef VRAMD_DAEMON_DRAFT_RUN_H
#define VRAMD_DAEMON_DRAFT_RUN_H

#include "daemon/bridge/drafter.h"
#include "engine/engine.h"

typedef struct draft_run draft_run;

typedef struct draft_run_config {
    engine *engine;
    uint32_t n_groups; /* of KV blocks that it has, each with the same places */
    uint32_t max_seqs, max_rows, max_draft, max_model_len, block_tokens;
    double share; /* of the time of a target's step that a pass takes, before times are known */
} draft_run_config;

/* Blocks that are set aside, before those of the target. */
uint32_t draft_run_aside(uint32_t max_seqs, uint32_t block_tokens);
size_t draft_run_bytes(uint32_t max_seqs, uint32_t max_model_len, uint32_t block_tokens);
/* Of valid, for so many blocks of the target. */
uint64_t draft_run_valid_bytes(uint64_t n_blocks);
/* mem: draft_run_bytes, valid: draft_run_valid_bytes, zeroed, 64-byte aligned. */
draft_run *draft_run_init(void *mem, uint16_t *valid, const draft_run_config *);

/* Once before each step: forgets the guesses of the step before. */
void draft_run_begin(draft_run *);
/* A sequence that decodes, with the tokens that it knows, the blocks that it holds, and how many guesses the scheduler takes. */
void draft_run_add(draft_run *, sched_id, uint32_t slot, const int32_t *text, uint32_t n_text,
                   const int32_t *blocks, uint32_t n_blocks, uint32_t n_most);
/* Runs the draft model, for a step with so many sequences that decode, which attend to kv tokens. most_us: of the passes and
 * the step together, as predicted; 0: any. */
void draft_run_guess(draft_run *, const cost_model *, uint32_t n_decode, double kv,
                     double most_us);
uint32_t draft_run_drafts(draft_run *, draft **out); /* in the order of add; n may be 0 */
/* The step verified the first n guesses of a slot, of which so many were right. */
void draft_run_learn(draft_run *, uint32_t slot, uint32_t n, uint32_t n_right);
/* The target is to compute rows of a sequence with these blocks; or a block is to be copied to. */
void draft_run_enter(draft_run *, const int32_t *blocks, uint32_t first_pos, uint32_t n_rows);
void draft_run_copied(draft_run *, int32_t block);

#endif
