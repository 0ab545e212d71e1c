/* A wire between threads of one process (engine/wire.h): a message stays in its sender's memory until it is
 * received, so that slots run out as they do where a rank is late. */
#ifndef VRAMD_TESTS_ENGINE_THREAD_WIRE_H
#define VRAMD_TESTS_ENGINE_THREAD_WIRE_H

#include <check.h>
#include <pthread.h>
#include <string.h>

#include "base/check.h"
#include "engine/group.h"
#include "engine/wire.h"

enum { THREAD_WIRE_RANKS = 8, THREAD_WIRE_MESSAGES = 64 };

typedef struct thread_message {
    const void *data;
    uint32_t bytes, from, slot;
} thread_message;

typedef struct thread_wires {
    wire wire[THREAD_WIRE_RANKS];
    pthread_mutex_t lock;
    thread_message queue[THREAD_WIRE_RANKS][THREAD_WIRE_MESSAGES * THREAD_WIRE_RANKS];
    uint32_t n[THREAD_WIRE_RANKS];
    uint32_t on_way[THREAD_WIRE_RANKS][WIRE_SLOTS];
    bool closed[THREAD_WIRE_RANKS];
} thread_wires;

static const char *thread_wire_send(wire *w, uint32_t slot, uint32_t to, const void *data,
                                    uint32_t bytes) {
    thread_wires *all = w->self;
    pthread_mutex_lock(&all->lock);
    if (!all->closed[to]) {
        CHECK(all->n[to] < THREAD_WIRE_MESSAGES * THREAD_WIRE_RANKS);
        all->queue[to][all->n[to]++] = (thread_message){data, bytes, w->rank, slot};
        all->on_way[w->rank][slot]++;
    }
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

static const char *thread_wire_receive(wire *w, void *to, uint32_t cap, uint32_t *from,
                                       uint32_t *bytes) {
    thread_wires *all = w->self;
    *bytes = 0;
    pthread_mutex_lock(&all->lock);
    thread_message *q = all->queue[w->rank];
    if (all->n[w->rank]) {
        const thread_message m = q[0];
        CHECK(m.bytes <= cap);
        memcpy(to, m.data, m.bytes);
        *from = m.from;
        *bytes = m.bytes;
        all->on_way[m.from][m.slot]--;
        memmove(q, q + 1, --all->n[w->rank] * sizeof *q);
    }
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

static bool thread_wire_sent(wire *w, uint32_t slot) {
    thread_wires *all = w->self;
    pthread_mutex_lock(&all->lock);
    const bool sent = all->on_way[w->rank][slot] == 0;
    pthread_mutex_unlock(&all->lock);
    return sent;
}

/* What was sent to or by it is gone: its memory is. */
static void thread_wire_close(wire *w, bool together) {
    thread_wires *all = w->self;
    (void)together;
    pthread_mutex_lock(&all->lock);
    all->closed[w->rank] = true;
    for (uint32_t i = 0; i < w->n_ranks; i++) {
        thread_message *q = all->queue[i];
        uint32_t n = 0;
        for (uint32_t k = 0; k < all->n[i]; k++) {
            if (i != w->rank && q[k].from != w->rank)
                q[n++] = q[k];
            else
                all->on_way[q[k].from][q[k].slot]--;
        }
        all->n[i] = n;
    }
    pthread_mutex_unlock(&all->lock);
}

static inline void thread_wires_init(thread_wires *all, uint32_t n) {
    memset(all, 0, sizeof *all);
    pthread_mutex_init(&all->lock, NULL);
    for (uint32_t i = 0; i < n; i++)
        all->wire[i] = (wire){.rank = i,
                              .n_ranks = n,
                              .n_here = n,
                              .n_beside = n,
                              .self = all,
                              .send = thread_wire_send,
                              .receive = thread_wire_receive,
                              .sent = thread_wire_sent,
                              .close = thread_wire_close};
}

static inline void thread_wires_clear(thread_wires *all) {
    pthread_mutex_destroy(&all->lock);
}

#endif
