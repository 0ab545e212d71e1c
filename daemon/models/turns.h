/* Turns of the engine threads of several models: one of them computes at a time, since each has a
 * worker on every core. Of those that wait, the one that has computed for the least time is next; one that
 * comes back after a pause is counted as if it had kept up. Any thread. */
#ifndef VRAMD_DAEMON_TURNS_H
#define VRAMD_DAEMON_TURNS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { TURNS_MAX = 16 };

typedef struct turns {
    pthread_mutex_t lock;
    pthread_cond_t free;
    bool taken;
    uint32_t n;
    uint64_t began_us;
    uint64_t latest_us; /* what who took the latest turn had used before */
    bool waits[TURNS_MAX];
    uint64_t used_us[TURNS_MAX];
} turns;

void turns_init(turns *, uint32_t n);
void turns_destroy(turns *);
/* Waits until it is the turn of who, below n. */
void turns_take(turns *, uint32_t who);
void turns_give(turns *, uint32_t who);

#endif
