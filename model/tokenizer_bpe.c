/* Byte-pair encoding of one word (Sennrich et al. 2016, section 3.2; over bytes as in GPT-2):
 * begin with a token for each byte, and join the neighbours whose merge has the lowest rank,
 * the leftmost of equals, until no pair has one. Short words scan for the minimum; long ones
 * keep a heap, so that a megabyte without a space takes O(n log n). Any thread. */
#include "model/tokenizer_in.h"

enum { SHORT_WORD = 48 };

static status no_memory(tok_words *w) {
    return err_set(w->err, ERR_NO_MEMORY, "no memory to encode the text");
}

/* Both at most TOK_MAX_IDS: the rank in the high half orders first, then the position. */
static uint32_t rank_of(const tokenizer *t, const uint32_t *id, size_t left, size_t right) {
    return tok_find_merge(t, id[left], id[right]);
}

/* The tokens of the bytes; a byte that the vocabulary does not have is left out, as the
 * tokenizers do whose vocabularies lack some (SmolLM2's: 21 of 256). Returns their number. */
static size_t first_ids(const tokenizer *t, str word, uint32_t *id) {
    size_t n = 0;
    for (size_t i = 0; i < word.len; i++) {
        int32_t b = t->byte_id[(unsigned char)word.ptr[i]];
        if (b >= 0) id[n++] = (uint32_t)b;
    }
    return n;
}

static size_t merge_short(const tokenizer *t, uint32_t *id, size_t n) {
    uint32_t rank[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(t, id, i, i + 1);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        id[best] = t->merges[rank[best]].result;
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        if (best + 1 < n)
            memmove(rank + best + 1, rank + best + 2, (n - best - 2) * sizeof *rank);
        if (best + 1 < n) rank[best] = rank_of(t, id, best, best + 1);
        if (best > 0) rank[best - 1] = rank_of(t, id, best - 1, best);
    }
    return n;
}

/* ---- long words ---- */

/* A min-heap of rank << 32 | position. An entry is stale when the pair at that position has
 * another rank by now. Every merge adds at most two entries and takes one out. */
typedef struct heap {
    uint64_t *v;
    size_t n;
} heap;

static void heap_push(heap *h, uint32_t rank, size_t pos) {
    if (rank == UINT32_MAX) return;
    uint64_t x = (uint64_t)rank << 32 | (uint32_t)pos;
    size_t i = h->n++;
    for (; i > 0 && h->v[(i - 1) / 2] > x; i = (i - 1) / 2) h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = x;
}

static uint64_t heap_pop(heap *h) {
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

typedef struct chain { /* the tokens of a word as a list through arrays */
    uint32_t *id, *rank, *next, *prev;
    heap heap;
    uint32_t n;
} chain;

static void set_rank(const tokenizer *t, chain *c, uint32_t left) {
    uint32_t right = c->next[left];
    c->rank[left] = right < c->n ? rank_of(t, c->id, left, right) : UINT32_MAX;
    heap_push(&c->heap, c->rank[left], left);
}

static void merge_chain(const tokenizer *t, chain *c) {
    for (uint32_t i = 0; i < c->n; i++) {
        c->next[i] = i + 1;
        c->prev[i] = i - 1; /* of the first: UINT32_MAX */
        c->rank[i] = UINT32_MAX;
        if (i > 0) set_rank(t, c, i - 1);
    }
    while (c->heap.n) {
        uint64_t top = heap_pop(&c->heap);
        uint32_t rank = (uint32_t)(top >> 32), left = (uint32_t)top;
        if (c->rank[left] != rank) continue;
        uint32_t right = c->next[left], after = c->next[right];
        c->id[left] = t->merges[rank].result;
        c->rank[right] = UINT32_MAX;
        c->next[left] = after;
        if (after < c->n) c->prev[after] = left;
        set_rank(t, c, left);
        if (c->prev[left] != UINT32_MAX) set_rank(t, c, c->prev[left]);
    }
}

static status long_word(const tokenizer *t, tok_words *w, str word) {
    /* 16 bytes of arrays and 16 of heap a byte of the word: n - 1 entries at first, and each
     * of at most n - 1 merges adds one on balance. */
    size_t bytes;
    if (word.len >= UINT32_MAX || __builtin_mul_overflow(word.len, (size_t)32, &bytes))
        return no_memory(w);
    arena room; /* its own, so that one long word after another reuses it */
    arena_init(&room, w->scratch.src, 0);
    uint64_t *all = arena_alloc(&room, bytes);
    if (!all) return no_memory(w);
    uint32_t *part = (uint32_t *)(all + 2 * word.len);
    chain c = {.id = part,
               .rank = part + word.len,
               .next = part + 2 * word.len,
               .prev = part + 3 * word.len,
               .heap = {.v = all}};
    c.n = (uint32_t)first_ids(t, word, c.id);
    merge_chain(t, &c);
    status s = OK;
    for (uint32_t i = 0; i < c.n && s == OK; i = c.next[i])
        if (!vec_i32_push(w->out, (int32_t)c.id[i])) s = no_memory(w);
    arena_clear(&room);
    return s;
}

status tok_bpe_word(const tokenizer *t, tok_words *w, str word) {
    /* Most words are one token. That a token's bytes merge to it is remembered when seen. */
    int32_t whole = tok_find_piece(t, word);
    uint32_t bit = whole < 0 ? 0 : 1u << (whole & 31);
    if (whole >= 0 && (t->pre->ignore_merges ||
                       atomic_load_explicit(&t->whole[whole >> 5], memory_order_relaxed) & bit))
        return vec_i32_push(w->out, whole) ? OK : no_memory(w);
    if (word.len > SHORT_WORD) return long_word(t, w, word);
    uint32_t id[SHORT_WORD];
    size_t n = merge_short(t, id, first_ids(t, word, id));
    if (n == 1 && (int32_t)id[0] == whole)
        atomic_fetch_or_explicit(&t->whole[whole >> 5], bit, memory_order_relaxed);
    if (!vec_i32_reserve(w->out, n)) return no_memory(w);
    for (size_t i = 0; i < n; i++) w->out->v[w->out->n++] = (int32_t)id[i];
    return OK;
}
