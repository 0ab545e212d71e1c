/* The ranks of a model (options tensor_parallel_size, pipeline_parallel_size): rank 0 is the process that serves. On one machine it starts
 * the others, `vramd rank`, with the memory that all share (engine/group.h); those of a launcher are there
 * before it (ranks/launch.h).
 *
 * A group is one failure domain: when a rank ends or does not answer, every wait returns, what runs ends with an
 * error, and the process ends with one. The others end with rank 0, however that ends. Calls of a device's driver and of NCCL may
 * wait for the lost rank for ever: a process that has not ended FORCE_MS later is ended. */
#ifndef VRAMD_DAEMON_RANKS_H
#define VRAMD_DAEMON_RANKS_H

#include "daemon/machine.h"
#include "engine/group.h"

typedef struct ranks ranks;

/* Whether such a model can be loaded. Errors: ERR_UNSUPPORTED (several models, a budget that moves). */
status ranks_check(const machine *m, err *e);
/* Makes the group's memory, which m->ledger counts, starts the other ranks if no launcher has, and opens m->engine with
 * rank 0's part of the model. The engine thread. Errors: of any rank. ranks_close in any case. */
status ranks_open(machine *m, err *e);
/* Ends the others, those of a launcher but for launch_close. After the engine is closed. */
void ranks_close(machine *m);

/* Calls lost once, on a thread of its own, when the group is broken or a rank has ended; until
 * ranks_unwatch, or ranks_close. */
void ranks_watch(machine *m, void (*lost)(void *arg, const err *why), void *arg);
void ranks_unwatch(machine *m);

/* What each rank holds, as port_ops.ranks has it; any thread. How many there are; 0: one process is all. */
uint32_t ranks_read(const machine *m, ledger_view *out, uint32_t max, int32_t *first_device);

#endif
