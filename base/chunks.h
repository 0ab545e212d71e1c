/* Where arenas and buffers take their memory from: an interface of three words, so that base/
 * need not know the ledger. memory/pool.h and chunks_heap() implement it. */
#ifndef VRAMD_BASE_CHUNKS_H
#define VRAMD_BASE_CHUNKS_H

#include <stddef.h>

typedef struct chunks {
    void *self;
    /* At least bytes, 16-byte aligned; NULL when there is none. *got is the usable size. */
    void *(*take)(void *self, size_t bytes, size_t *got);
    void (*give)(void *self, void *p, size_t got);
} chunks;

/* malloc and free: for tools and tests, and before READY. */
const chunks *chunks_heap(void);

#endif
