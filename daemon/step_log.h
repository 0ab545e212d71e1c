/* The step log of a server (option step_log): the calls of its scheduler as records (sim/record.h),
 * in a file that only the server's user may read. The engine thread adds them to a buffer, a
 * thread of the log writes the buffer out. What finds no place is dropped; then the log has a gap,
 * which it names.
 *
 * The calls below make the call on the scheduler, and the record of it, where there is a log.
 * Engine thread, but for open and close. */
#ifndef VRAMD_DAEMON_STEP_LOG_H
#define VRAMD_DAEMON_STEP_LOG_H

#include "memory/ledger.h"
#include "scheduler/resize.h"
#include "scheduler/sched.h"

typedef struct step_log step_log;

uint64_t step_log_bytes(const sched_config *); /* of its buffers, to be planned */
/* Whether step_log_open could make the file, or empty it; changes nothing. Errors: ERR_IO (field
 * step_log). */
status step_log_check(const char *path, err *);
/* Makes the file, or empties it, and starts the thread. Memory from the ledger. Errors: ERR_IO
 * (field step_log), ERR_NO_MEMORY. */
status step_log_open(step_log **, const char *path, const sched_config *, ledger *, err *);
/* Writes the rest, and logs what the file has. NULL is fine. */
void step_log_close(step_log *);

/* log NULL: only the call. The first record: */
void step_log_config(step_log *, const sched_config *);
sched_reject logged_submit(step_log *, sched *, const sched_spec *, uint64_t now_us,
                           sched_id *);
void logged_cancel(step_log *, sched *, sched_id, sched_finish);
void logged_pause(step_log *, sched *, sched_id, bool paused);
void logged_now(step_log *, sched *, uint64_t now_us);
uint32_t logged_draft(step_log *, sched *, sched_id, const int32_t *guess, uint32_t n,
                      bool by_model);
void logged_spend(step_log *, sched *, uint64_t us);
const sched_step *logged_plan(step_log *, sched *, uint64_t now_us);
void logged_observe(step_log *, sched *, const sched_step *, uint64_t us);
void logged_commit(step_log *, sched *, const sched_step *, const sched_step_tokens *);
bool logged_resize(step_log *, sched *, const uint32_t n_blocks[SCHED_MAX_GROUPS]);
bool logged_tier_add(step_log *, sched *, const uint64_t hash[2], const uint64_t parent[2],
                     uint64_t salt, uint32_t groups, uint64_t bytes);
void logged_tier_switch(step_log *, sched *, bool on);
bool logged_load_next(step_log *, sched *, sched_chunk *);
void logged_load_done(step_log *, sched *, const sched_chunk *, bool filled);
bool logged_store_next(step_log *, sched *, sched_chunk *);
bool logged_store_done(step_log *, sched *, const sched_chunk *, uint64_t bytes);
bool logged_tier_evict(step_log *, sched *, uint64_t bytes, uint64_t hash[2]);
bool logged_tier_forget(step_log *, sched *, const uint64_t *salt, uint32_t *at,
                        uint64_t hash[2], uint64_t *bytes);
sched_forgotten logged_forget(step_log *, sched *, const uint64_t *salt);

#endif
