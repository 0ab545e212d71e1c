/* The sifting behind heap.h. */
#include "scheduler/heap.h"

#include "base/check.h"

static bool before(const heap_node *a, const heap_node *b) {
    return a->key != b->key ? a->key < b->key : a->order < b->order;
}

static void put(heap *h, uint32_t i, heap_node node) {
    h->node[i] = node;
    h->at[node.item] = i;
}

static void sift_up(heap *h, uint32_t i, heap_node node) {
    for (; i > 0 && before(&node, &h->node[(i - 1) / 2]); i = (i - 1) / 2) {
        put(h, i, h->node[(i - 1) / 2]);
    }
    put(h, i, node);
}

static void sift_down(heap *h, uint32_t i, heap_node node) {
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= h->n) break;
        if (child + 1 < h->n && before(&h->node[child + 1], &h->node[child])) child++;
        if (!before(&h->node[child], &node)) break;
        put(h, i, h->node[child]);
        i = child;
    }
    put(h, i, node);
}

void heap_init(heap *h) {
    h->n = 0;
    for (uint32_t i = 0; i < h->n_items; i++) h->at[i] = HEAP_ABSENT;
}

void heap_add(heap *h, uint32_t item, uint64_t key, uint64_t order) {
    CHECK(item < h->n_items && !heap_has(h, item));
    sift_up(h, h->n++, (heap_node){.key = key, .order = order, .item = item});
}

bool heap_remove(heap *h, uint32_t item) {
    uint32_t i = h->at[item];
    if (i == HEAP_ABSENT) return false;
    heap_node last = h->node[--h->n];
    h->at[item] = HEAP_ABSENT;
    if (i == h->n) return true; /* it was the last itself */
    if (i > 0 && before(&last, &h->node[(i - 1) / 2])) {
        sift_up(h, i, last);
    } else {
        sift_down(h, i, last);
    }
    return true;
}

void heap_audit(const heap *h) {
    uint32_t present = 0;
    for (uint32_t i = 0; i < h->n_items; i++) present += heap_has(h, i);
    CHECK(present == h->n);
    for (uint32_t i = 0; i < h->n; i++) {
        CHECK(h->at[h->node[i].item] == i);
        if (i > 0) CHECK(before(&h->node[(i - 1) / 2], &h->node[i]));
    }
}
