/* A team of threads that run one function together: the caller and n - 1 workers that live as
 * long as the team. Inside the function they share work by team_next and meet at team_barrier.
 *
 * Waiting spins for some microseconds, then sleeps in a futex, so that a team neither pays a
 * system call between two phases of a step nor keeps a core from the daemon's loop thread while
 * there is nothing to do. */
#ifndef VRAMD_ENGINE_CPU_TEAM_H
#define VRAMD_ENGINE_CPU_TEAM_H

#include <stdint.h>

#include "base/err.h"

typedef struct team team;

/* n: 1..256 threads, the caller of team_run among them. Errors: ERR_NO_MEMORY (no thread). */
status team_open(team **out, uint32_t n, err *);
void team_close(team *); /* NULL is ignored */
uint32_t team_size(const team *);

/* Runs f(arg, 0) here and f(arg, 1..n-1) on the workers; returns when all have. One caller at
 * a time. */
typedef void (*team_fn)(void *arg, uint32_t thread);
void team_run(team *, team_fn f, void *arg);

/* The same by the caller alone: the workers are not woken, barriers let pass. */
void team_run_alone(team *, team_fn f, void *arg);
/* How long the caller waited for workers in the last team_run, in nanoseconds. */
uint64_t team_waited_ns(const team *);

/* Within f: waits for all. Everything written before it is seen after it. Resets team_next. */
void team_barrier(team *, uint32_t thread);
/* Within f: the first of n items not yet given out since the last barrier, and takes n. Every
 * thread may ask until the answer is past its work; items are numbered from 0. */
uint32_t team_next(team *, uint32_t n);

#endif
