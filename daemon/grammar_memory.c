/* Memory of structured output. */
#include "daemon/grammar_memory.h"

enum { GRAMMARS_BYTES = 8 << 20 };

static uint32_t vocabulary(const machine *m) {
    return m->model->program.config.n_vocab;
}

/* An encoder has no output that a grammar could be for. */
static bool has_output(const machine *m) {
    return !m->model->program.config.bidirectional;
}

void grammar_memory_terms(const machine *m, terms *t) {
    const uint32_t n = vocabulary(m);
    if (!has_output(m)) return;
    if (!m->words)
        terms_add(t, MEM_GRAMMAR, TERM_EXACT, vocab_index_bytes(n), "index of %u tokens", n);
    terms_add(t, MEM_GRAMMAR, TERM_EXACT, mask_cache_bytes(n, m->opt.grammar_cache_bytes),
              "masks of allowed tokens");
    terms_add(t, MEM_GRAMMAR, TERM_EXACT, pool_bytes(GRAMMARS_BYTES), "compiled grammars");
}

status grammar_memory_open(grammar_memory *g, const machine *m, err *e) {
    const uint32_t n = vocabulary(m);
    *g = (grammar_memory){.ledger = m->ledger,
                          .words = m->words,
                          .n_vocab = n,
                          .mask_bytes = m->opt.grammar_cache_bytes};
    status s = OK;
    if (!has_output(m)) return OK;
    if (!m->words)
        s = ledger_alloc(m->ledger, &g->index_mem, MEM_GRAMMAR, vocab_index_bytes(n),
                         "index of the vocabulary", e);
    if (s == OK)
        s = ledger_alloc(m->ledger, &g->mask_mem, MEM_GRAMMAR,
                         mask_cache_bytes(n, g->mask_bytes), "masks", e);
    if (s == OK) s = pool_open(&g->grammars, m->ledger, MEM_GRAMMAR, GRAMMARS_BYTES, e);
    return s;
}

status grammar_memory_load(grammar_memory *g, const tokenizer *tok, err *e) {
    if (!g->mask_mem) return OK; /* an encoder's */
    g->masks = mask_cache_init(g->mask_mem, g->n_vocab, g->mask_bytes);
    if (!g->words) {
        g->index = vocab_index_init(g->index_mem, tok, g->n_vocab);
        return OK;
    }
    const status s = machine_words_index(g->words, g->n_vocab, e);
    g->index = g->words->index;
    return s;
}

void grammar_memory_close(grammar_memory *g) {
    pool_close(g->grammars);
    ledger_free(g->ledger, g->mask_mem);
    ledger_free(g->ledger, g->index_mem);
    *g = (grammar_memory){0};
}
