/* The buddy system over one region of the ledger.
 *
 * Units of POOL_MIN_CHUNK bytes; a chunk of order k is 2^k units, aligned to its size within
 * the region, which need not be a power of two: it begins as the few largest aligned chunks
 * that cover it. state[unit] of a chunk's first unit is its order, with FREE set while it is on
 * a free list; the links of the list lie in the free chunk itself. */
#include "memory/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/check.h"

enum { MAX_ORDER = 31, FREE = 0x80, INSIDE = 0x7f };

typedef struct link {
    struct link *next, *prev;
} link;

struct pool {
    pthread_mutex_t lock;
    ledger *ledger;
    chunks chunks;
    char *base;
    uint64_t n_units;
    link free[MAX_ORDER + 1];
    atomic_ullong used, peak;
    uint8_t state[];
};

static uint64_t header_bytes(uint64_t n_units) {
    return align_up(sizeof(pool) + n_units, POOL_MIN_CHUNK);
}

static uint64_t units_for(uint64_t want) {
    return align_up(want ? want : 1, 64 * POOL_MIN_CHUNK) / POOL_MIN_CHUNK;
}

uint64_t pool_bytes(uint64_t want) {
    return header_bytes(units_for(want)) + units_for(want) * POOL_MIN_CHUNK;
}

static link *at(pool *p, uint64_t unit) {
    return (link *)(p->base + unit * POOL_MIN_CHUNK);
}
static uint64_t unit_of(const pool *p, const void *c) {
    return (uint64_t)((const char *)c - p->base) / POOL_MIN_CHUNK;
}

static void put(pool *p, uint64_t unit, unsigned order) {
    link *c = at(p, unit), *head = &p->free[order];
    p->state[unit] = (uint8_t)(FREE | order);
    c->next = head->next, c->prev = head;
    head->next->prev = c;
    head->next = c;
}

static void unput(pool *p, uint64_t unit) {
    link *c = at(p, unit);
    c->prev->next = c->next;
    c->next->prev = c->prev;
    p->state[unit] = INSIDE;
}

static void *take(void *self, size_t bytes, size_t *got) {
    pool *p = self;
    unsigned order = 0, k;
    while (order <= MAX_ORDER && ((uint64_t)POOL_MIN_CHUNK << order) < bytes) order++;
    pthread_mutex_lock(&p->lock);
    for (k = order; k <= MAX_ORDER && p->free[k].next == &p->free[k]; k++) {
    }
    if (k > MAX_ORDER) {
        pthread_mutex_unlock(&p->lock);
        return NULL;
    }
    uint64_t unit = unit_of(p, p->free[k].next);
    unput(p, unit);
    while (k > order) {
        k--;
        put(p, unit + (1u << k), k);
    }
    p->state[unit] = (uint8_t)order;
    *got = (size_t)POOL_MIN_CHUNK << order;
    unsigned long long now = atomic_fetch_add(&p->used, *got) + *got;
    if (now > atomic_load(&p->peak)) atomic_store(&p->peak, now); /* under the lock */
    pthread_mutex_unlock(&p->lock);
    return at(p, unit);
}

static void give(void *self, void *c, size_t got) {
    pool *p = self;
    uint64_t unit = unit_of(p, c);
    pthread_mutex_lock(&p->lock);
    unsigned order = p->state[unit];
    CHECK(unit < p->n_units && order <= MAX_ORDER && (size_t)POOL_MIN_CHUNK << order == got);
    atomic_fetch_sub(&p->used, got);
    for (; order < MAX_ORDER; order++) {
        uint64_t buddy = unit ^ (1ull << order);
        if (buddy + (1ull << order) > p->n_units || p->state[buddy] != (FREE | order)) break;
        unput(p, buddy);
        p->state[unit] = INSIDE;
        if (buddy < unit) unit = buddy;
    }
    put(p, unit, order);
    pthread_mutex_unlock(&p->lock);
}

status pool_open(pool **out, ledger *l, mem_class cls, uint64_t want, err *e) {
    uint64_t n = units_for(want);
    void *mem;
    status s = ledger_alloc(l, &mem, cls, pool_bytes(want), "pool of requests", e);
    if (s != OK) return s;
    pool *p = mem;
    p->ledger = l;
    p->chunks = (chunks){p, take, give};
    p->base = (char *)mem + header_bytes(n);
    p->n_units = n;
    pthread_mutex_init(&p->lock, NULL);
    for (unsigned k = 0; k <= MAX_ORDER; k++) p->free[k].next = p->free[k].prev = &p->free[k];
    memset(p->state, INSIDE, n);
    for (uint64_t unit = 0; unit < n;) {
        unsigned k = 0;
        while (k < MAX_ORDER && unit % (2ull << k) == 0 && unit + (2ull << k) <= n) k++;
        put(p, unit, k);
        unit += 1ull << k;
    }
    *out = p;
    return OK;
}

void pool_close(pool *p) {
    if (!p) return;
    CHECK(atomic_load(&p->used) == 0);
    pthread_mutex_destroy(&p->lock);
    ledger_free(p->ledger, p);
}

const chunks *pool_chunks(pool *p) {
    return &p->chunks;
}
uint64_t pool_used(const pool *p) {
    return atomic_load(&p->used);
}
uint64_t pool_peak(const pool *p) {
    return atomic_load(&p->peak);
}
uint64_t pool_size(const pool *p) {
    return p->n_units * POOL_MIN_CHUNK;
}
