/* Byte-pair encoding of one word (Sennrich et al. 2016, section 3.2; over bytes as in GPT-2):
 * begin with a token for each byte, and join neighbours by the list of merges
 * (text/tokenizer/tokenizer_merge.h; a symbol is its id). Any thread. */
#include "text/tokenizer/tokenizer_merge.h"

static status no_memory(tok_words *w) {
    w->scratch.failed = true;
    return err_set(w->err, ERR_NO_MEMORY, "no memory to encode the text");
}

static uint32_t rank_of(const void *tok, uint32_t a, uint32_t b, uint32_t after) {
    (void)after;
    return tok_find_merge(tok, a, b);
}

static uint32_t join(const void *tok, uint32_t rank, uint32_t a) {
    (void)a;
    return ((const tokenizer *)tok)->merges[rank].result;
}

static const merge_rules rules = {rank_of, join};

/* The tokens of the bytes; a byte that the vocabulary does not have is left out, as the
 * tokenizers do whose vocabularies lack some (SmolLM2's: 21 of 256). Returns their number. */
static size_t first_ids(const tokenizer *t, str word, uint32_t *id) {
    size_t n = 0;
    for (size_t i = 0; i < word.len; i++) {
        int32_t b = t->byte_id[(unsigned char)word.ptr[i]];
        if (b >= 0) id[n++] = (uint32_t)b;
    }
    id[n] = 0;
    return n;
}

static status long_word(const tokenizer *t, tok_words *w, str word) {
    arena own; /* its own, so that one long word after another reuses it */
    arena_init(&own, w->scratch.src, 0);
    merge_chain c;
    if (!merge_chain_init(&c, &own, word.len)) return no_memory(w);
    c.n = (uint32_t)first_ids(t, word, c.what);
    merge_long(&rules, t, &c);
    status s = OK;
    for (uint32_t i = 0; i < c.n && s == OK; i = c.next[i])
        if (!vec_i32_push(w->out, (int32_t)c.what[i])) s = no_memory(w);
    arena_clear(&own);
    return s;
}

status tok_bpe_word(const tokenizer *t, tok_words *w, str word) {
    /* Most words are one token. That a token's bytes merge to it is remembered when seen. */
    int32_t whole = tok_find_piece(t, word);
    if (whole >= 0 && (t->pre->ignore_merges || tok_is_whole(t, whole)))
        return vec_i32_push(w->out, whole) ? OK : no_memory(w);
    if (word.len > MERGE_SHORT) return long_word(t, w, word);
    uint32_t id[MERGE_SHORT + 1];
    size_t n = merge_short(&rules, t, id, first_ids(t, word, id));
    if (n == 1 && (int32_t)id[0] == whole) tok_set_whole(t, whole);
    if (!vec_i32_reserve(w->out, n)) return no_memory(w);
    for (size_t i = 0; i < n; i++) w->out->v[w->out->n++] = (int32_t)id[i];
    return OK;
}
