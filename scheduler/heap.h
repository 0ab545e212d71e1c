/* A binary min-heap of small integers that knows where each item is, so that any can be removed
 * in O(log n): the waiting queue (priority, then arrival) and the deadlines. Ties of key fall
 * to order, which callers keep unique, so that the order is total. Owns nothing. */
#ifndef VRAMD_SCHEDULER_HEAP_H
#define VRAMD_SCHEDULER_HEAP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct heap_node {
    uint64_t key, order;
    uint32_t item;
} heap_node;

typedef struct heap {
    uint32_t n, n_items;
    heap_node *node; /* [n_items] */
    uint32_t *at;    /* [n_items] index in node, or HEAP_ABSENT */
} heap;

#define HEAP_ABSENT UINT32_MAX

void heap_init(heap *);
void heap_add(heap *, uint32_t item, uint64_t key, uint64_t order); /* CHECKs it is absent */
bool heap_remove(heap *, uint32_t item);                            /* false: it was absent */
void heap_audit(const heap *);

static inline bool heap_has(const heap *h, uint32_t item) {
    return h->at[item] != HEAP_ABSENT;
}

#endif
