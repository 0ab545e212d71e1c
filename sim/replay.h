/* Feeds a step log (record.h) to a scheduler of its own, and compares what it plans. One thread. */
#ifndef VRAMD_SIM_REPLAY_H
#define VRAMD_SIM_REPLAY_H

#include "sim/record.h"

typedef struct replay_result {
    uint64_t n_records, n_steps;
    uint64_t n_requests; /* that the scheduler accepted */
    uint64_t different;  /* the first record that had another result than in the log; 0: none */
    char what[96];       /* of that record, for people */
    uint64_t n_lost; /* records that the log lacks at the end of the replay; 0: it is whole */
} replay_result;

/* text: a whole log. Stops at the first difference, and before a gap. most_bytes: of the scheduler.
 * audit: after each record. Errors: ERR_FORMAT (what no daemon writes, too), ERR_TOO_LONG (a
 * scheduler of more bytes), ERR_NO_MEMORY. A last record that is cut off, as a crash leaves it, is
 * ERR_FORMAT, with all before it counted in the result. */
status replay_run(str text, size_t most_bytes, bool audit, replay_result *, err *);

/* The steps that were timed, in order: each a call. Goes on behind gaps and ends at what is no
 * whole record. Errors: ERR_FORMAT (no step log), ERR_NO_MEMORY. */
typedef void replay_timed(void *arg, const record_step *, uint64_t us);
status replay_steps(str text, replay_timed *, void *arg, err *);
/* Mean time from a commit to the next plan where that had a step, which is the host's, in
 * microseconds. 0: no such step. Errors as replay_steps. */
status replay_host_us(str text, double *out, err *);
/* The scheduler's configuration of a log; end_tokens are left out. Errors as replay_steps. */
status replay_config(str text, sched_config *, err *);

#endif
