/* Another rank than the first: it plans and loads its part of the model as rank 0's note says, and computes the
 * steps that rank 0 posts. One that rank 0 has started (daemon/cmd_rank.c) maps the group's memory; one that
 * a launcher has started (ranks/launch.h) has a copy of it. One thread. */
#ifndef VRAMD_DAEMON_MEMBER_H
#define VRAMD_DAEMON_MEMBER_H

#include "daemon/machine.h"
#include "daemon/ranks/launch.h"
#include "daemon/ranks/rank_note.h"

typedef struct member {
    group *group; /* joined; borrowed */
    rank_note *note;
    machine m;
    model *own;
    engine *engine;
    void *steps; /* memory of follow */
} member;

/* Until the group ends. m->group is there, with rank 0's note in its memory. launch: NULL where rank 0 has started
 * this one. Errors: of loading, which rank 0 gets, too; why the group is broken. member_clear in any case. */
status member_run(member *, const options *, launch *, err *);
void member_clear(member *);

/* All that a process does which a launcher has started, but rank 0's: launch_open has been. own: its options,
 * of which threads and memory count; the others are rank 0's. Closes the launch. */
status member_follow(launch *, const options *own, err *);

#endif
