/* Which waiting sequences may be admitted beside those that run: continuous batching, and the two
 * ways that came before it, which are there to be compared with.
 *
 *   continuous  at every step, whoever fits (Orca: iteration-level scheduling; Yu et al. 2022)
 *   static      a batch is formed of those that wait when nothing runs, as far as slots and blocks
 *               reach; the next one is formed when all of its sequences have ended
 *   dynamic     the same, but formed only once a batch could be full, or something has waited for
 *               a window of time
 *
 * A batch may take several steps to form, since a step has a budget of rows. Members of a fork go
 * with their leader's batch. Paused sequences hold no batch up. No row is padded: what an
 * ended sequence would have cost in a rectangular batch is not computed.
 *
 * Progress: while nothing runs and nothing is preempted, a batch opens at once (dynamic: after the
 * window at the latest), so plan.c's proof holds for whoever is in it, and it ends. */
#ifndef VRAMD_SCHEDULER_BATCHING_H
#define VRAMD_SCHEDULER_BATCHING_H

#include "scheduler/state.h"

/* Before a step is planned: the batch closes or the next one opens. */
void batching_plan(sched *, uint64_t now_us);
/* Whether the waiting record may join those that run. */
bool batching_admits(const sched *, uint32_t record);
/* No slot is left, or one that may join does not fit: the batch is formed. */
void batching_full(sched *);

#endif
