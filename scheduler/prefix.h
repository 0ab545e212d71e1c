/* The index of cached blocks of one group: full blocks whose content is known, found by the
 * hash of all tokens up to their end, and confirmed, so that a collision is a miss.
 *
 * Hashes are chained (a block's hash covers its parent's) and keyed (SipHash-1-3, 128 bits), so
 * that no client can make them collide at will; a hash only leads to a block, it proves
 * nothing. A published block is a node with a serial number that is never used again. One
 * group, the chain group, keeps what confirms a node: its tokens and the serial of its parent;
 * by induction from the first block, whose parent is the tenant's salt, all tokens are
 * confirmed. Blocks of other groups name the node they belong to.
 *
 * Owns nothing: arrays come from the scheduler's region. Engine thread. */
#ifndef VRAMD_SCHEDULER_PREFIX_H
#define VRAMD_SCHEDULER_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

typedef struct prefix_hash {
    uint64_t h[2];
} prefix_hash;

typedef struct prefix {
    uint32_t n_blocks, n_buckets, block_tokens; /* n_buckets: a power of two */
    uint32_t *bucket;                           /* [n_buckets] block + 1; 0: empty */
    uint32_t *next;                             /* [n_blocks] block + 1 */
    prefix_hash *hash;                          /* [n_blocks] */
    uint64_t *confirm; /* [n_blocks] the chain group: the parent's serial; else: the node's */
    uint64_t *serial;  /* [n_blocks] the chain group: its own; else NULL */
    uint64_t *salt;    /* [n_blocks] the chain group: of its text; else NULL */
    int32_t *tokens;   /* [n_blocks][block_tokens] the chain group; else NULL */
} prefix;

/* So many that a bucket with two blocks is rare: a quarter full at most. */
static inline uint32_t prefix_buckets(uint32_t n_blocks) {
    uint32_t n = 1;
    while (n < (uint64_t)4 * n_blocks && n < (uint32_t)1 << 31) n *= 2;
    return n;
}
/* What the first block has for a parent. Serials are smaller. */
static inline uint64_t prefix_root(uint64_t salt) {
    return salt | (uint64_t)1 << 63;
}

/* parent: of the block before; of the first, the salt twice. */
prefix_hash prefix_extend(const uint64_t key[2], const prefix_hash *parent,
                          const int32_t *tokens, uint32_t n_tokens);
/* The block with this hash that confirm and tokens (chain group) agree with, or -1. */
int32_t prefix_find(const prefix *, const prefix_hash *, uint64_t confirm,
                    const int32_t *tokens);
/* serial, salt and tokens: ignored but in the chain group. */
void prefix_insert(prefix *, int32_t block, const prefix_hash *, uint64_t confirm,
                   uint64_t serial, uint64_t salt, const int32_t *tokens);
void prefix_forget(prefix *, int32_t block); /* CHECKs that it is there */
/* What was at from is at to, which is not in the index. */
void prefix_move(prefix *, int32_t from, int32_t to);
/* CHECKs that exactly the blocks that flags call cached are in the index, each in its bucket.
 */
void prefix_audit(const prefix *, const uint8_t *flags);

#endif
