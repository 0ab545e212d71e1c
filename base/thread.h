/* Threads beside the main one. */
#ifndef VRAMD_BASE_THREAD_H
#define VRAMD_BASE_THREAD_H

#include <pthread.h>
#include <signal.h>

/* pthread_create, with all signals blocked: they are the main thread's. Returns 0, or the error number. */
static inline int thread_start(pthread_t *out, void *(*run)(void *), void *arg) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int code = pthread_create(out, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return code;
}

/* In a loop that spins: gives the core's other thread, and its power, a rest. */
static inline void thread_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

#endif
