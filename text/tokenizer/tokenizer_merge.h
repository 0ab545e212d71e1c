/* Merging a word's symbols: of all neighbours join those whose pair has the lowest rank, the
 * leftmost of equals, until no pair has one. What ranks a pair is the caller's (byte-level
 * BPE: the place in the list of merges; SentencePiece: the score of what results), and so is
 * what `what` says of a symbol; the rules are inlined. Short words scan for the minimum; long
 * ones keep a heap, so that a megabyte without a space takes O(n log n). Any thread. */
#ifndef VRAMD_TEXT_TOKENIZER_MERGE_H
#define VRAMD_TEXT_TOKENIZER_MERGE_H

#include "text/tokenizer/tokenizer_in.h"

enum { MERGE_SHORT = 48 };
#define NO_RANK UINT32_MAX

typedef struct merge_rules {
    /* Rank of the pair of symbols a and b, after which comes c (of the last: the sentinel). */
    uint32_t (*rank)(const void *ctx, uint32_t a, uint32_t b, uint32_t c);
    /* What the pair of that rank that began with a becomes. */
    uint32_t (*join)(const void *ctx, uint32_t rank, uint32_t a);
} merge_rules;

/* what: [n + 1] symbols and the sentinel, n <= MERGE_SHORT. Returns how many are left; the
 * sentinel moves with them. */
static inline __attribute__((always_inline)) size_t
merge_short(const merge_rules *r, const void *ctx, uint32_t *what, size_t n) {
    uint32_t rank[MERGE_SHORT];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = r->rank(ctx, what[i], what[i + 1], what[i + 2]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        what[best] = r->join(ctx, rank[best], what[best]);
        memmove(what + best + 1, what + best + 2, (n - best - 1) * sizeof *what);
        n--;
        if (best + 1 < n) {
            memmove(rank + best + 1, rank + best + 2, (n - best - 2) * sizeof *rank);
            rank[best] = r->rank(ctx, what[best], what[best + 1], what[best + 2]);
        }
        if (best > 0) rank[best - 1] = r->rank(ctx, what[best - 1], what[best], what[best + 1]);
    }
    return n;
}

/* ---- long words ---- */

/* A min-heap of rank << 32 | position. An entry is stale when the pair at that position has
 * another rank by now. Every merge adds at most two entries and takes one out. */
typedef struct merge_heap {
    uint64_t *v;
    size_t n;
} merge_heap;

static inline void heap_push(merge_heap *h, uint32_t rank, size_t pos) {
    if (rank == NO_RANK) return;
    uint64_t x = (uint64_t)rank << 32 | (uint32_t)pos;
    size_t i = h->n++;
    for (; i > 0 && h->v[(i - 1) / 2] > x; i = (i - 1) / 2) h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = x;
}

static inline uint64_t heap_pop(merge_heap *h) {
    uint64_t top = h->v[0], x = h->v[--h->n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < h->n; i = c) {
        if (c + 1 < h->n && h->v[c + 1] < h->v[c]) c++;
        if (h->v[c] >= x) break;
        h->v[i] = h->v[c];
    }
    h->v[i] = x;
    return top;
}

typedef struct merge_chain { /* the symbols of a word as a list through arrays */
    uint32_t *what;          /* [n + 1], filled by the caller with the sentinel */
    uint32_t *rank, *next, *prev;
    merge_heap heap;
    uint32_t n;
} merge_chain;

/* Takes the arrays for up to n symbols: 16 bytes each, and 16 of heap: n - 1 entries at first,
 * and each of at most n - 1 merges adds one on balance. */
static inline bool merge_chain_init(merge_chain *c, arena *own, size_t n) {
    size_t bytes;
    if (n >= UINT32_MAX || __builtin_mul_overflow(n + 1, (size_t)32, &bytes)) return false;
    uint64_t *all = arena_alloc(own, bytes);
    if (!all) return false;
    uint32_t *part = (uint32_t *)(all + 2 * (n + 1));
    *c = (merge_chain){.what = part,
                       .rank = part + (n + 1),
                       .next = part + 2 * (n + 1),
                       .prev = part + 3 * (n + 1),
                       .heap = {.v = all}};
    return true;
}

static inline __attribute__((always_inline)) void
merge_rank(const merge_rules *r, const void *ctx, merge_chain *c, uint32_t left) {
    uint32_t right = c->next[left];
    c->rank[left] = right < c->n
                        ? r->rank(ctx, c->what[left], c->what[right], c->what[c->next[right]])
                        : NO_RANK;
    heap_push(&c->heap, c->rank[left], left);
}

/* c->n symbols in c->what; afterwards those that are left are found from 0 by c->next, up to
 * c->n. */
static inline __attribute__((always_inline)) void merge_long(const merge_rules *r,
                                                             const void *ctx, merge_chain *c) {
    for (uint32_t i = 0; i < c->n; i++) {
        c->next[i] = i + 1;
        c->prev[i] = i - 1; /* of the first: UINT32_MAX */
    }
    for (uint32_t i = 0; i < c->n; i++) merge_rank(r, ctx, c, i);
    while (c->heap.n) {
        uint64_t top = heap_pop(&c->heap);
        uint32_t rank = (uint32_t)(top >> 32), left = (uint32_t)top;
        if (c->rank[left] != rank) continue;
        uint32_t right = c->next[left], after = c->next[right];
        c->what[left] = r->join(ctx, rank, c->what[left]);
        c->rank[right] = NO_RANK;
        c->next[left] = after;
        if (after < c->n) c->prev[after] = left;
        merge_rank(r, ctx, c, left);
        if (c->prev[left] != UINT32_MAX) merge_rank(r, ctx, c, c->prev[left]);
    }
}

#endif
