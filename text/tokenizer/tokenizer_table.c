/* The two hash tables of the vocabulary: token by its bytes, merge by its pair. Filled while
 * opening; look-ups from any thread. */
#include "text/tokenizer/tokenizer_in.h"

#include "base/hash.h"

uint32_t tok_table_slots(uint32_t n) {
    return n + n / 2 + 1;
}

static uint32_t home_of(const tok_table *t, uint64_t hash) {
    return (uint32_t)((hash >> 32) * t->n_slots >> 32);
}

void tok_table_init(tok_table *t, uint32_t *slots, uint32_t n) {
    t->slot = slots;
    t->n_slots = tok_table_slots(n);
    t->index_bits = 1;
    while ((1u << t->index_bits) - 1 <= n) t->index_bits++;
    memset(slots, 0xff, (size_t)t->n_slots * sizeof *slots);
}

/* Where a probe for hash stands: the index in the slot if its tag fits, after skipping those
 * whose tag does not. False at an empty slot. */
static bool table_probe(const tok_table *t, uint64_t hash, uint32_t *at, uint32_t *index) {
    uint32_t tag = (uint32_t)hash << t->index_bits;
    for (;; *at = *at + 1 == t->n_slots ? 0 : *at + 1) {
        uint32_t v = t->slot[*at];
        if (v == SLOT_EMPTY) return false;
        if ((v ^ tag) >> t->index_bits) continue;
        *index = v ^ tag;
        return true;
    }
}

static uint64_t hash_of_piece(const tokenizer *t, str s) {
    return hash64(s.ptr, s.len, t->seed);
}

/* The slot of s: with *id its token, or empty (false). */
static bool find_piece(const tokenizer *t, str s, uint64_t hash, uint32_t *at, uint32_t *id) {
    for (*at = home_of(&t->by_piece, hash); table_probe(&t->by_piece, hash, at, id);
         *at = *at + 1 == t->by_piece.n_slots ? 0 : *at + 1)
        if (str_eq(tok_piece(t, *id), s)) return true;
    return false;
}

int32_t tok_find_piece(const tokenizer *t, str s) {
    uint32_t at, id;
    return find_piece(t, s, hash_of_piece(t, s), &at, &id) ? (int32_t)id : -1;
}

void tok_add_piece(tokenizer *t, uint32_t id) {
    uint32_t at, had;
    str piece = tok_piece(t, id);
    uint64_t hash = hash_of_piece(t, piece);
    if (find_piece(t, piece, hash, &at, &had) && t->type[id] == TOK_USER &&
        t->type[had] != TOK_USER)
        return;
    t->by_piece.slot[at] = (uint32_t)hash << t->by_piece.index_bits | id;
}

static uint64_t hash_of_pair(const tokenizer *t, uint32_t left, uint32_t right) {
    return hash_mix(((uint64_t)left << 32 | right) ^ t->seed);
}

static bool find_pair(const tokenizer *t, uint32_t left, uint32_t right, uint64_t hash,
                      uint32_t *at, uint32_t *rank) {
    for (*at = home_of(&t->by_pair, hash); table_probe(&t->by_pair, hash, at, rank);
         *at = *at + 1 == t->by_pair.n_slots ? 0 : *at + 1)
        if (t->merges[*rank].left == left && t->merges[*rank].right == right) return true;
    return false;
}

uint32_t tok_find_merge(const tokenizer *t, uint32_t left, uint32_t right) {
    uint32_t at, rank;
    return find_pair(t, left, right, hash_of_pair(t, left, right), &at, &rank) ? rank
                                                                               : UINT32_MAX;
}

void tok_add_merge(tokenizer *t, uint32_t rank) {
    uint32_t at, had, left = t->merges[rank].left, right = t->merges[rank].right;
    uint64_t hash = hash_of_pair(t, left, right);
    if (!find_pair(t, left, right, hash, &at, &had))
        t->by_pair.slot[at] = (uint32_t)hash << t->by_pair.index_bits | rank;
}
