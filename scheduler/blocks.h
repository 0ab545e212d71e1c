/* KV blocks as integers: who holds how many references, which are free, and which are fenced
 * (freed while an uncommitted step may still touch them). Owns nothing: arrays come from the
 * scheduler's region. Engine thread. */
#ifndef VRAMD_SCHEDULER_BLOCKS_H
#define VRAMD_SCHEDULER_BLOCKS_H

#include <stdint.h>

/* Circular doubly linked lists over prev/next, with three sentinels behind the real blocks:
 * [n] free, least recently freed last; [n + 1], [n + 2] fenced by odd and even steps. A block
 * in use is in none and links to itself. Doubly linked because the prefix cache will take free
 * blocks out of the middle. */
typedef struct blocks {
    uint32_t n, n_free, n_fenced[2];
    uint32_t *ref;  /* [n] */
    uint32_t *prev; /* [n + 3] */
    uint32_t *next; /* [n + 3] */
} blocks;

enum { BLOCKS_SENTINELS = 3, BLOCKS_NO_FENCE = -1 };

/* n and the arrays are set. All blocks become free; block 0 is taken first. */
void blocks_init(blocks *);
/* A free block with one reference. CHECKs that there is one. */
int32_t blocks_take(blocks *);
/* One more holder (forks and cached prefixes). */
void blocks_share(blocks *, int32_t block);
/* One holder less. The last one frees it, behind the fence of steps of this parity or, with
 * BLOCKS_NO_FENCE, at once. Who shares a block must drop the reference that later steps touch
 * last. */
void blocks_drop(blocks *, int32_t block, int fence_parity);
/* Every step of this parity is committed: what its fence held is free. */
void blocks_unfence(blocks *, unsigned parity);
/* CHECKs lists, references and counts. table_entries: references that sequences hold. */
void blocks_audit(const blocks *, uint64_t table_entries);

static inline uint32_t blocks_fenced(const blocks *b) {
    return b->n_fenced[0] + b->n_fenced[1];
}

#endif
