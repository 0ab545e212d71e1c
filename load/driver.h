/* Runs the levels of a spec. Two threads: the network's (load_client_run) only sends bodies
 * that are ready and notes bytes and times; the caller's makes the bodies ahead, reads the
 * replies and shows progress. */
#ifndef VRAMD_LOAD_DRIVER_H
#define VRAMD_LOAD_DRIVER_H

#include "load/stats.h"

typedef struct load_run {
    const load_spec *spec;
    load_vocab vocab;
    load_level *levels; /* n of spec->n_levels are measured */
    size_t n;
    bool interrupted;
    bool quiet;          /* no progress, even on a terminal */
    uint64_t next_index; /* of a request: no level repeats another's prompts */
} load_run;

/* Warms up, then runs each level, filling in *run from spec and vocab on. SIGINT and SIGTERM
 * are blocked meanwhile; one of them ends the run early, with what was measured, and OK. */
status load_run_all(load_run *, load_client *, err *);
void load_run_clear(load_run *);

#endif
