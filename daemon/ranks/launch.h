/* Ranks that a launcher started (mpirun, srun --mpi=pmix; option distributed_executor_backend), on one machine
 * or several: each is `vramd serve` with the same options. They have no memory in common and exchange messages by
 * MPI (engine/mpi/load.h). Rank 0 serves; the others follow it (ranks/member.h).
 *
 * Rank 0's side is ranks/ranks.h, as where it has started them itself. */
#ifndef VRAMD_DAEMON_LAUNCH_H
#define VRAMD_DAEMON_LAUNCH_H

#include "conf/options.h"
#include "engine/link.h"
#include "memory/term.h"

typedef struct launch {
    wire wire;
    group_link *link; /* NULL: this process is not one of several that a launcher started */
    err why;        /* code OK: nothing has failed; what the others learn as this one closes */
    group group;    /* of launch_attach: this rank's copy of the group's memory */
    uint64_t bytes; /* of it; 0: not attached */
} launch;

/* Whether the options, and of auto the environment, name a launcher; and whether this process can then
 * be one of its ranks: the plugin is there. Errors: those of mpi_wire_check. */
bool launch_is(const options *);
status launch_check(const options *, err *);
/* Joins the others. l->link is NULL then where there is no launcher. Errors: those of mpi_wire_open;
 * ERR_INVALID: not as many processes as the options say. launch_close in any case. */
status launch_open(launch *, const options *, err *);
/* Makes this rank's copy of the group's memory, which its messages go to from then on, and l->group, whose
 * `alive` is false once a rank is lost. */
status launch_attach(launch *, const group_shape *, err *);
/* What MPI takes of a rank's process. */
void launch_terms(terms *);
/* ended: the group has ended as it should, which the others know, and all close. Not while anything uses the
 * group. */
void launch_close(launch *, bool ended);

#endif
