/* Hash table and chained hashes behind prefix.h. Expected O(1) each, at most half full. */
#include "scheduler/prefix.h"

#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "scheduler/blocks.h"

prefix_hash prefix_extend(const uint64_t key[2], const prefix_hash *parent,
                          const int32_t *tokens, uint32_t n_tokens) {
    const uint64_t n_bytes = sizeof *parent + n_tokens * sizeof *tokens; /* mod 256 counts */
    prefix_hash out;
    siphash s;
    siphash_init(&s, key);
    siphash_word(&s, parent->h[0], SIPHASH_1_3);
    siphash_word(&s, parent->h[1], SIPHASH_1_3);
    uint64_t two, rest = 0;
    for (; n_tokens >= 2; n_tokens -= 2, tokens += 2) {
        memcpy(&two, tokens, sizeof two);
        siphash_word(&s, two, SIPHASH_1_3);
    }
    if (n_tokens > 0) memcpy(&rest, tokens, sizeof *tokens);
    siphash_end(&s, rest | n_bytes << 56, SIPHASH_1_3, out.h);
    return out;
}

static uint32_t *bucket_of(const prefix *p, const prefix_hash *h) {
    return &p->bucket[h->h[0] & (p->n_buckets - 1)];
}

int32_t prefix_find(const prefix *p, const prefix_hash *h, uint64_t confirm,
                    const int32_t *tokens) {
    for (uint32_t i = *bucket_of(p, h); i > 0; i = p->next[i - 1]) {
        uint32_t b = i - 1;
        if (p->hash[b].h[0] != h->h[0] || p->hash[b].h[1] != h->h[1]) continue;
        if (p->confirm[b] != confirm) continue;
        if (p->tokens && memcmp(p->tokens + (size_t)b * p->block_tokens, tokens,
                                p->block_tokens * sizeof *tokens) != 0)
            continue;
        return (int32_t)b;
    }
    return -1;
}

void prefix_insert(prefix *p, int32_t block, const prefix_hash *h, uint64_t confirm,
                   uint64_t serial, uint64_t salt, const int32_t *tokens) {
    uint32_t *bucket = bucket_of(p, h);
    p->hash[block] = *h;
    p->confirm[block] = confirm;
    if (p->tokens) {
        p->serial[block] = serial;
        p->salt[block] = salt;
        memcpy(p->tokens + (size_t)block * p->block_tokens, tokens,
               p->block_tokens * sizeof *tokens);
    }
    p->next[block] = *bucket;
    *bucket = (uint32_t)block + 1;
}

void prefix_forget(prefix *p, int32_t block) {
    uint32_t *at = bucket_of(p, &p->hash[block]);
    while (*at != (uint32_t)block + 1) {
        CHECK(*at > 0);
        at = &p->next[*at - 1];
    }
    *at = p->next[block];
}

void prefix_move(prefix *p, int32_t from, int32_t to) {
    prefix_forget(p, from);
    const int32_t *tokens = p->tokens ? p->tokens + (size_t)from * p->block_tokens : NULL;
    prefix_insert(p, to, &p->hash[from], p->confirm[from], p->serial ? p->serial[from] : 0,
                  p->salt ? p->salt[from] : 0, tokens);
}

void prefix_audit(const prefix *p, const uint8_t *flags) {
    uint32_t n = 0, n_flags = 0;
    for (uint32_t k = 0; k < p->n_buckets; k++) {
        for (uint32_t i = p->bucket[k]; i > 0; i = p->next[i - 1]) {
            CHECK(i <= p->n_blocks && (flags[i - 1] & BLOCK_CACHED));
            CHECK((p->hash[i - 1].h[0] & (p->n_buckets - 1)) == k);
            CHECK(++n <= p->n_blocks);
        }
    }
    for (uint32_t i = 0; i < p->n_blocks; i++) n_flags += flags[i] & BLOCK_CACHED;
    CHECK(n == n_flags);
}
