/* libuv's memory and threads, taken while the daemon starts. */
#ifndef VRAMD_DAEMON_LOOP_MEMORY_H
#define VRAMD_DAEMON_LOOP_MEMORY_H

#include <uv.h>

/* Before any other call of libuv. From now on, where the system has no memory for libuv (class
 * runtime), the process says so and exits: libuv itself would abort without a word. It asks for
 * memory while the daemon starts, and not afterwards. */
void loop_memory_init(void);
/* Starts libuv's threads, which it would otherwise do for its first job: where it cannot, it
 * aborts, and that must not happen while the daemon serves. */
void loop_memory_threads(uv_loop_t *);

#endif
