/* KV blocks of one group as integers: who holds how many references, which are free, which of
 * those still have content that the prefix cache can give out again, and which are fenced
 * (freed while an uncommitted step may still touch them). Only blocks below a limit, which can
 * change, are given out: those above it are out, or leaving while a sequence holds them. Owns
 * nothing: arrays come from the scheduler's region. Engine thread. */
#ifndef VRAMD_SCHEDULER_BLOCKS_H
#define VRAMD_SCHEDULER_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

/* Circular doubly linked lists over prev/next, with three sentinels behind the real blocks:
 * [n] free, [n + 1], [n + 2] fenced by even and odd steps. A block in use, or out, is in none
 * and links to itself. Blocks are taken at the head of the free list: first those without content, the
 * one freed last first; then cached ones, the least recently freed first. Doubly linked
 * because a hit takes a cached block out of the middle. */
typedef struct blocks {
    uint32_t n, n_free, n_fenced[2];
    uint32_t n_cached;  /* of the free ones */
    uint32_t limit;     /* blocks from here on are not given out; <= n */
    uint32_t peak;      /* most that were not free at once, since init */
    uint32_t n_leaving; /* from limit on: held by a sequence ... */
    uint32_t n_out;     /* ... and by none */
    uint32_t *ref;      /* [n] */
    uint32_t *prev;     /* [n + 3] */
    uint32_t *next;     /* [n + 3] */
    uint64_t *busy; /* [n] newest step that may touch it for a sequence that has dropped it */
    uint8_t *flags; /* [n] BLOCK_ */
} blocks;

enum { BLOCKS_SENTINELS = 3, BLOCK_CACHED = 1, BLOCK_FENCED = 2 };

/* n, limit and the arrays are set. All blocks below limit become free; block 0 is taken first. */
void blocks_init(blocks *);
/* A free block with one reference. CHECKs that there is one. *evicted: it was cached, and the
 * index must forget it. */
int32_t blocks_take(blocks *, bool *evicted);
/* One more holder of a block in use, or of one that is cached and free. */
void blocks_hold(blocks *, int32_t block);
/* A block in use gets content that may be given out again. */
void blocks_cache(blocks *, int32_t block);
/* One holder less. touched_by: the newest step that may touch the block for this holder, 0 for
 * none. The last one frees it: behind a fence while a step that may touch it is uncommitted,
 * else at once. True: it was leaving and is out, and the index must forget it. */
bool blocks_drop(blocks *, int32_t block, uint64_t touched_by, uint64_t n_committed);
/* Every step of this parity is committed: what its fence held is free. O(1) for each block
 * that was dropped. */
void blocks_unfence(blocks *, unsigned parity);
/* One block less: the one below the limit. True: it was cached, and the index must forget it. */
bool blocks_lower(blocks *);
/* One block more. No uncommitted step may touch it. */
void blocks_raise(blocks *);
/* One reference of a block that is leaving goes to another; whether it was the last. */
bool blocks_pass(blocks *, int32_t from, int32_t to);
/* A cached block, free or not, is not to be given out any more. */
void blocks_uncache(blocks *, int32_t block);
/* CHECKs lists, references and counts. holders: references that tables and pins hold. */
void blocks_audit(const blocks *, uint64_t holders);

static inline uint32_t blocks_fenced(const blocks *b) {
    return b->n_fenced[0] + b->n_fenced[1];
}
/* Blocks that a sequence holds. */
static inline uint32_t blocks_used(const blocks *b) {
    return b->n - b->n_out - b->n_free - blocks_fenced(b);
}
/* Whether a cached block's content can be had. */
static inline bool blocks_hittable(const blocks *b, int32_t block) {
    return (b->flags[block] & (BLOCK_CACHED | BLOCK_FENCED)) == BLOCK_CACHED;
}

#endif
