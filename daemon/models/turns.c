/* Turns of engine threads. Owns its mutex and its condition. Any thread. */
#include "daemon/models/turns.h"

#include "base/check.h"
#include "base/clock.h"

void turns_init(turns *t, uint32_t n) {
    CHECK(n <= TURNS_MAX);
    *t = (turns){.n = n};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->free, NULL);
}

void turns_destroy(turns *t) {
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->free);
}

/* Under the lock. */
static bool is_next(const turns *t, uint32_t who) {
    if (t->taken) return false;
    for (uint32_t i = 0; i < t->n; i++)
        if (t->waits[i] && t->used_us[i] < t->used_us[who]) return false;
    return true;
}

/* Time in which it had nothing to compute is no credit: it begins where the latest turn began. Those
 * that keep up are not below that, since the least is always next. */
static void catch_up(turns *t, uint32_t who) {
    if (t->used_us[who] < t->latest_us) t->used_us[who] = t->latest_us;
}

void turns_take(turns *t, uint32_t who) {
    pthread_mutex_lock(&t->lock);
    catch_up(t, who);
    t->waits[who] = true;
    while (!is_next(t, who)) pthread_cond_wait(&t->free, &t->lock);
    t->waits[who] = false;
    t->taken = true;
    t->latest_us = t->used_us[who];
    t->began_us = clock_us();
    pthread_mutex_unlock(&t->lock);
}

void turns_give(turns *t, uint32_t who) {
    pthread_mutex_lock(&t->lock);
    CHECK(t->taken);
    t->used_us[who] += clock_us() - t->began_us;
    t->taken = false;
    pthread_cond_broadcast(&t->free);
    pthread_mutex_unlock(&t->lock);
}
