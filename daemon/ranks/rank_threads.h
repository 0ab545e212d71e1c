/* Threads by the option threads: ranks that one process starts divide them; of a launcher's each has as many. Pure but for
 * the cores that this process may use. */
#ifndef VRAMD_DAEMON_RANK_THREADS_H
#define VRAMD_DAEMON_RANK_THREADS_H

#include "daemon/machine.h"

/* Where the option says none: the cores of this process, divided among the ranks that a launcher has bound to
 * them. */
uint32_t rank_threads_default(const machine *);
/* Of each rank, of all together; the option is resolved. */
uint32_t rank_threads(const options *);
uint32_t rank_threads_of_all(const options *);

#endif
