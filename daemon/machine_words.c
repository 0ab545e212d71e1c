/* Vocabulary and templates of a model that may be unloaded. Owns them and their ledger. */
#include "daemon/machine_words.h"

#include "base/hash.h"

status machine_words_plan(machine_words *w, const machine *m, err *e) {
    const uint32_t n = m->model->program.config.n_vocab;
    const kv_request none = {.block_tokens = m->opt.block_size};
    const budget all = budget_unlimited();
    terms t = {0};
    terms_add(&t, MEM_TOKENIZER, TERM_EXACT, m->tokenizer_bytes, "vocabulary");
    terms_add(&t, MEM_TOKENIZER, TERM_EXACT, m->chat_bytes, "chat templates");
    if (!m->model->program.config.bidirectional) /* grammar_memory.c */
        terms_add(&t, MEM_GRAMMAR, TERM_EXACT, vocab_index_bytes(n), "index of %u tokens", n);
    const status s = plan_solve(&w->plan, &t, &none, &all, e);
    terms_clear(&t);
    return s;
}

static void *take(void *self, size_t bytes, size_t *got) {
    err e;
    void *p;
    *got = bytes;
    return ledger_alloc(self, &p, MEM_TOKENIZER, bytes, "tokenizer", &e) == OK ? p : NULL;
}
static void give(void *self, void *p, size_t got) {
    (void)got;
    ledger_free(self, p);
}

static void forget(machine_words *w) {
    if (!w->ledger) return;
    ledger_free(w->ledger, w->index_mem);
    w->index_mem = w->index = NULL;
    chat_templates_close(&w->chat);
    w->chat = (chat_templates){0};
    tokenizer_close(w->tok);
    w->tok = NULL;
    w->whole = w->has_family = false;
}

static bool is_same(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static uint64_t add(str s, uint64_t hash) {
    return hash64(s.ptr, s.len, hash);
}

static uint64_t hash_of(const machine *m) {
    const template_sources *t = &m->chat_sources;
    return add(t->chat, add(t->tool_use, add(t->kwargs, add(str_of(m->opt.pre_tokenizer), 0))));
}

status machine_words_open(machine_words *w, const machine *m, ledger *shared, err *e) {
    struct stat now = {0};
    const uint64_t hash = hash_of(m);
    status s = OK;
    if (!w->ledger) s = ledger_open_under(&w->ledger, &w->plan, shared, e);
    if (s != OK) return s;
    w->src = (chunks){w->ledger, take, give};
    /* A folder has several files. */
    const bool file = stat(m->opt.model, &now) == 0 && S_ISREG(now.st_mode);
    if (!w->whole || !file || !is_same(&now, &w->file) || hash != w->hash) forget(w);
    w->file = now;
    w->hash = hash;
    return OK;
}

status machine_words_index(machine_words *w, uint32_t n_vocab, err *e) {
    if (w->index) return OK;
    const status s = ledger_alloc(w->ledger, &w->index_mem, MEM_GRAMMAR,
                                  vocab_index_bytes(n_vocab), "index of the vocabulary", e);
    if (s == OK) w->index = vocab_index_init(w->index_mem, w->tok, n_vocab);
    return s;
}

void machine_words_free(machine_words *w) {
    forget(w);
    ledger_close(w->ledger);
    plan_clear(&w->plan);
    *w = (machine_words){0};
}
