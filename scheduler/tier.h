/* The index of a tier below memory: which chunks of texts it has, in what order they go.
 *
 * A chunk is found by the chained hash of its last block (prefix.h) and hangs on the chunk before
 * it, so the index is a forest, a tree for each beginning. What is used makes all before it
 * used, too, and later; so the least recently used chunk is a leaf, and leaves go first. A chunk
 * that is lost while others hang on it stays as a gap, which nothing goes past, until they have
 * gone or it is stored again.
 *
 * Owns nothing: arrays come from the scheduler's region. Pure. Engine thread. */
#ifndef VRAMD_SCHEDULER_TIER_H
#define VRAMD_SCHEDULER_TIER_H

#include "scheduler/prefix.h"

typedef struct tier_chunk {
    prefix_hash hash;
    uint64_t bytes;  /* 0: a gap */
    uint64_t salt;   /* of its text */
    uint32_t parent; /* NO_CHUNK: none, it begins a text */
    uint32_t n_children;
    uint32_t next;         /* in its bucket, or among the free ones */
    uint32_t newer, older; /* in the order of use; chunks and gaps */
    uint32_t groups;       /* bit g: group g's blocks are there */
} tier_chunk;

#define NO_CHUNK UINT32_MAX

typedef struct tier {
    uint32_t n_chunks, n_buckets; /* n_buckets: a power of two */
    uint32_t n, n_gaps;           /* in use; of those, gaps */
    uint32_t free, newest, oldest;
    uint64_t bytes;
    tier_chunk *chunk; /* [n_chunks] */
    uint32_t *bucket;  /* [n_buckets] chunk + 1; 0: empty */
} tier;

/* n_chunks, n_buckets and the arrays are set. */
void tier_init(tier *);
/* A chunk that is there, or NO_CHUNK. */
uint32_t tier_find(const tier *, const prefix_hash *);
/* Adds a chunk as the most recently used, behind its parent (NULL: it begins a text); fills a gap,
 * or gives a chunk that is there other groups. False: the parent is not there, or no entry is
 * free. bytes > 0. */
bool tier_add(tier *, const prefix_hash *, const prefix_hash *parent, uint64_t salt,
              uint32_t groups, uint64_t bytes);
/* It and all before it become the most recently used. */
void tier_use(tier *, uint32_t chunk);
/* It is not there any more. */
void tier_lose(tier *, uint32_t chunk);
/* The least recently used chunk that nothing hangs on, but for keep; or NO_CHUNK. */
uint32_t tier_coldest(const tier *, uint32_t keep);
/* CHECKs trees, order, buckets and counts. */
void tier_audit(const tier *);

#endif
