/* A pool for what requests need: bodies, parsed JSON, prompts, queued output. One region of
 * the ledger, cut by the buddy system (Knuth, TAOCP 1, section 2.5), so that it is planned,
 * never fragments beyond its powers of two, and is refused rather than exceeded. Any thread. */
#ifndef VRAMD_MEMORY_POOL_H
#define VRAMD_MEMORY_POOL_H

#include "base/chunks.h"
#include "memory/ledger.h"

typedef struct pool pool;

enum { POOL_MIN_CHUNK = 1024 };

/* Bytes that pool_open will take from the ledger for a pool of at least want bytes. */
uint64_t pool_bytes(uint64_t want);
status pool_open(pool **out, ledger *, mem_class, uint64_t want, err *);
void pool_close(pool *); /* CHECKs that every chunk is back */

const chunks *pool_chunks(pool *); /* take returns NULL when the pool has no such chunk */
uint64_t pool_used(const pool *);  /* bytes in chunks that are out */
uint64_t pool_peak(const pool *);
uint64_t pool_size(const pool *);

#endif
