/* The tier below the KV cache: prefixes that it lacks come from files (kv_disk) or from host memory
 * (kv_host_bytes), and what sequences leave behind goes there (scheduler/tier_use.c says which,
 * kv_file.h what the files are; chunks in host memory are the same, kv_host.h).
 *
 * Two threads read and one writes, each chunk through a staging buffer; the engine thread moves
 * blocks between buffers and the cache, between steps: kv_tier_work. So no step waits for the disk,
 * and no thread but the engine's touches the cache or the scheduler. When the disk fails or is full,
 * the tier is off for a minute, and serving goes on. */
#ifndef VRAMD_DAEMON_KV_TIER_H
#define VRAMD_DAEMON_KV_TIER_H

#include "daemon/machine.h"

typedef struct kv_tier kv_tier;

/* ---- planning ---- */

/* With kv_disk or kv_host_bytes: what the scheduler must know. Errors: ERR_UNSUPPORTED (an engine or a model that
 * cannot have a tier), ERR_INVALID (options that exclude it). */
status kv_tier_configure(machine *, err *);
void kv_tier_terms(const machine *, terms *);
/* Threads that it starts: 0 without a tier. */
uint32_t kv_tier_threads(const machine *);

/* ---- serving ---- */

/* Opens the directory, takes its key for the scheduler's hashes: before sched_init. Reads the
 * model's file, which must be open still. Or allocates the host memory. NULL without a tier. Errors: those of kv_dir_open,
 * ERR_NO_MEMORY. */
status kv_tier_open(kv_tier **, machine *, err *);
/* Reads what the directory has, and starts. wake(arg) is called by any thread when there is work
 * for kv_tier_work. Engine thread, as are the next two. */
status kv_tier_start(kv_tier *, void (*wake)(void *), void *arg, err *);
/* Ends loads and stores that are done, and begins others. Takes the time of a few copies of blocks.
 * Events of the scheduler are to be delivered after it. True: loads have ended. */
bool kv_tier_work(kv_tier *);
/* Removes chunks of a salt, or all. Until kv_tier_forget_on says false, which is to be called between
 * steps, nothing is looked up or stored. Not while it forgets. */
void kv_tier_forget(kv_tier *, const uint64_t *salt);
/* Some more. Adds up files that have gone, their bytes, and files that could not be removed. False: none
 * is left. */
bool kv_tier_forget_on(kv_tier *, uint64_t *files, uint64_t *bytes, uint64_t *n_left);
/* Stores what waits for it, for at most so long, and ends the threads: wake is not called any more. */
void kv_tier_drain(kv_tier *, uint32_t at_most_ms);
/* Whether wake was called since kv_tier_work; any thread. NULL: false. */
bool kv_tier_waits(const kv_tier *);
/* Whether it is off because of an error; any thread. */
bool kv_tier_is_off(const kv_tier *);
void kv_tier_close(kv_tier *); /* NULL is fine */

#endif
