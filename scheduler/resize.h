/* How many blocks each pool gives out, changed while sequences run.
 *
 * A pool that is to shrink gives back its last blocks. Those that are free leave the free list at
 * once, and the prefix cache forgets what they held. Those that are held are moved: a step copies
 * them to free blocks below before its rows run, and tables and prefix index name the new place
 * from then on. No uncommitted step may read a table that changes, so a step that moves blocks is
 * planned when no other is uncommitted. Where fewer blocks than are held would remain, paused
 * sequences lose theirs first, then the most junior running ones, which are computed again later,
 * as in any preemption. The most senior sequence always fits.
 *
 * A pool grows by blocks from its end, up to sched_group.max_blocks.
 *
 * Engine thread; pure, as sched.h. */
#ifndef VRAMD_SCHEDULER_RESIZE_H
#define VRAMD_SCHEDULER_RESIZE_H

#include "scheduler/sched.h"

/* Sets the number of blocks of each group; what that takes happens in the calls of sched_plan and
 * sched_commit that follow. The memory of blocks that come with it must exist; the memory of
 * those that go may be given back once sched_resized. False, and nothing changes: some n_blocks
 * is 0 or more than max_blocks, less than a live sequence may come to need, or the config has no
 * max_moves. May be called again before the last change is through. */
bool sched_resize(sched *, const uint32_t n_blocks[SCHED_MAX_GROUPS]);
/* No block beyond the numbers set last is in use, or touched by an uncommitted step. */
bool sched_resized(const sched *);
/* Blocks of each group that the most demanding live sequence may come to need. */
void sched_least_blocks(const sched *, uint32_t out[SCHED_MAX_GROUPS]);

#endif
