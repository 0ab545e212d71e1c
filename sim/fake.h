/* An engine that computes nothing but remembers everything: for each cell of each physical
 * block, at which position and after which tokens it was written. A row reads its past from the
 * cells like attention would, as far back as the window of each group, and the next token is a
 * function of the tokens alone. So a cell that is stale, foreign or missing shows as a failed
 * CHECK, and a text does not depend on batches, chunks, preemptions, hits or forks.
 *
 * A recurrent state is a hash of all tokens, too, in the slot that the step names, with those behind each
 * row since the last full chunk, as far as rows may be undone: a wrong copy, a stale checkpoint or a slot
 * that another has written is a hash of other tokens.
 *
 * Steps read their tokens when they are submitted, as early as an engine can, and run when they
 * are collected, as late as one can; with two in flight, a fence that opens too early is seen.
 * Tests, fuzzer and simulator; one thread. */
#ifndef VRAMD_SIM_FAKE_H
#define VRAMD_SIM_FAKE_H

#include "scheduler/sched.h"

typedef struct fake_engine fake_engine;

/* cfg as of the scheduler; n_vocab: tokens are 0 .. n_vocab - 1. Errors: ERR_NO_MEMORY. */
status fake_open(fake_engine **out, const sched_config *cfg, uint32_t n_vocab, err *);
void fake_close(fake_engine *);
/* At most two steps in flight. Every sequence has its own user number. CHECKs that no block
 * that the step writes, and no slot of it, is of use to another sequence in an uncommitted
 * step.
 */
void fake_submit(fake_engine *, const sched *, const sched_step *);
/* Runs the oldest step, which must not be committed yet. tokens: of it, borrowed until the next
 * collect; drafts are accepted up to the first wrong one. CHECKs that every row finds what its
 * own tokens give, position by position. */
const sched_step *fake_collect(fake_engine *, const sched *, sched_step_tokens *tokens);
uint32_t fake_in_flight(const fake_engine *);

/* The cells of a block, fake_block_bytes of them, out and in; in NULL: what no sequence may read. */
size_t fake_block_bytes(const fake_engine *);
void fake_export(const fake_engine *, uint32_t group, int32_t block, void *out);
void fake_import(fake_engine *, uint32_t group, int32_t block, const void *in);

/* The text a sequence must get, followed from outside: start with its prompt, then compare each
 * token with fake_next and extend by it. */
uint64_t fake_start(const int32_t *prompt, uint32_t n_prompt);
uint64_t fake_extend(uint64_t past, int32_t token);
int32_t fake_next(uint64_t past, uint32_t n_vocab);

#endif
