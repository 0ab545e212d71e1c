/* What tests of grammars share: a grammar with a position, vocabularies, masks against trying every
 * token, some rules. */
#ifndef VRAMD_TESTS_GRAMMAR_RIG_H
#define VRAMD_TESTS_GRAMMAR_RIG_H

#include "model/sampling.h"
#include "tests/text/tokenizer_rig.h"
#include "text/grammar/grammar_in.h"

typedef struct rig {
    arena mem;
    rules *r;
    grammar *g;
    grammar_state *s;
} rig;

static inline void rig_init(rig *x) {
    arena_init(&x->mem, chunks_heap(), 0);
    x->r = rules_new(&x->mem);
    x->g = NULL;
}

static inline status rig_try(rig *x, rule root, const vocab_index *v, err *e) {
    status st = grammar_compile(&x->g, x->r, root, v, chunks_heap(), e);
    if (st == OK) {
        x->s = arena_alloc(&x->mem, grammar_state_bytes(x->g));
        grammar_start(x->g, x->s);
    }
    return st;
}

static inline void rig_compile(rig *x, rule root, const vocab_index *v) {
    err e;
    ck_assert_msg(rig_try(x, root, v, &e) == OK, "%s", e.text);
}

static inline void rig_clear(rig *x) {
    grammar_free(x->g);
    arena_clear(&x->mem);
}

static inline bool takes(rig *x, const char *text) {
    grammar_start(x->g, x->s);
    return grammar_take_bytes(x->g, x->s, str_of(text)) && grammar_accepts_end(x->g, x->s);
}

/* ---- vocabularies ---- */

typedef struct words {
    tiny file;
    checkpoint *real;
    tokenizer *tok;
    void *mem, *cache_mem;
    vocab_index *v;
    mask_cache *cache;
    uint32_t *mask, *plain;
    int32_t special[2];
} words;

static inline void words_open(words *w, size_t budget) {
    w->mem = aligned_alloc(64, vocab_index_bytes(tokenizer_n_vocab(w->tok)));
    memset(w->mem, 0, vocab_index_bytes(tokenizer_n_vocab(w->tok)));
    w->v = vocab_index_init(w->mem, w->tok, tokenizer_n_vocab(w->tok));
    w->cache_mem = aligned_alloc(64, mask_cache_bytes(w->v->n_vocab, budget));
    memset(w->cache_mem, 0, mask_cache_bytes(w->v->n_vocab, budget));
    w->cache = mask_cache_init(w->cache_mem, w->v->n_vocab, budget);
    w->mask = calloc(sampling_mask_words(w->v->n_vocab), 4);
    w->plain = calloc(sampling_mask_words(w->v->n_vocab), 4);
}

/* The 256 bytes, some longer tokens, two special ones. */
static inline void words_tiny(words *w, size_t budget) {
    static const char *const more[] = {"ab",  "abc", "ba", "aa", "aaa", "a{", "}}",  "\",",
                                       "\":", "[[",  "]]", "],", "b}",  "ca", "cab", "{\""};
    memset(w, 0, sizeof *w);
    tiny_init(&w->file);
    tiny_merge(&w->file, "a b", "ab");
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) tiny_token(&w->file, more[i], 1);
    w->special[0] = tiny_token(&w->file, "<call>", 3);
    w->special[1] = tiny_token(&w->file, "<end>", 3);
    w->tok = tok_open(tiny_finish(&w->file, "gpt-2"));
    words_open(w, budget);
}

static inline void words_real(words *w, size_t budget) {
    memset(w, 0, sizeof *w);
    w->real = file_open(test_model());
    w->tok = tok_open(w->real);
    words_open(w, budget);
}

static inline void words_close(words *w) {
    free(w->mem);
    free(w->cache_mem);
    free(w->mask);
    free(w->plain);
    tokenizer_close(w->tok);
    if (w->real)
        checkpoint_close(w->real);
    else
        tiny_clear(&w->file);
}

static inline void check_mask(words *w, rig *x) {
    uint32_t n = sampling_mask_words(w->v->n_vocab);
    memset(w->mask, 0xff, n * sizeof *w->mask);
    grammar_mask(x->g, x->s, w->cache, w->mask);
    grammar_mask_plain(x->g, x->s, w->plain);
    for (uint32_t i = 0; i < n; i++)
        if (w->mask[i] != w->plain[i]) {
            int b = __builtin_ctz(w->mask[i] ^ w->plain[i]);
            str t = vocab_token(w->v, i * 32 + (uint32_t)b);
            ck_abort_msg("token %u \"%.*s\" is %s", i * 32 + (uint32_t)b, (int)t.len, t.ptr,
                         w->mask[i] >> b & 1 ? "allowed and must not be" : "missing");
        }
}

/* Draws one of the allowed tokens; -1: none. */
static inline int32_t draw(const words *w, unsigned *seed) {
    uint32_t n = sampling_mask_words(w->v->n_vocab), all = 0;
    for (uint32_t i = 0; i < n; i++) all += (uint32_t)__builtin_popcount(w->mask[i]);
    if (!all) return -1;
    uint32_t k = (uint32_t)rand_r(seed) % all;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t m = w->mask[i]; m; m &= m - 1)
            if (k-- == 0) return (int32_t)(i * 32 + (uint32_t)__builtin_ctz(m));
    return -1;
}

/* ---- grammars ---- */

static inline rule text_rule(rules *r, const char *s) {
    return rules_bytes(r, str_of(s));
}
#define SEQ(r, ...)                                                                            \
    rules_seq(r, (rule[]){__VA_ARGS__}, sizeof((rule[]){__VA_ARGS__}) / sizeof(rule))
#define ALT(r, ...)                                                                            \
    rules_alt(r, (rule[]){__VA_ARGS__}, sizeof((rule[]){__VA_ARGS__}) / sizeof(rule))

static inline rule any_string(rules *r) {
    static const rule_range plain[] = {{0x20, '!'}, {'#', '['}, {']', 0x10ffff}};
    static const rule_range escape[] = {{'"', '"'}, {'\\', '\\'}, {'/', '/'}, {'n', 'n'}};
    rule one =
        ALT(r, rules_class(r, plain, 3), SEQ(r, text_rule(r, "\\"), rules_class(r, escape, 4)));
    return SEQ(r, text_rule(r, "\""), rules_repeat(r, one, 0, RULE_UNBOUNDED),
               text_rule(r, "\""));
}

/* Any JSON value, without white space. */
static inline rule any_value(rules *r) {
    static const rule_range digit = {'0', '9'};
    rule v = rules_declare(r), comma = text_rule(r, ",");
    rule number = rules_repeat(r, rules_class(r, &digit, 1), 1, RULE_UNBOUNDED);
    rule more = rules_repeat(r, SEQ(r, comma, v), 0, RULE_UNBOUNDED);
    rule list =
        SEQ(r, text_rule(r, "["), rules_optional(r, SEQ(r, v, more)), text_rule(r, "]"));
    rule pair = SEQ(r, any_string(r), text_rule(r, ":"), v);
    rule pairs = SEQ(r, pair, rules_repeat(r, SEQ(r, comma, pair), 0, RULE_UNBOUNDED));
    rule object = SEQ(r, text_rule(r, "{"), rules_optional(r, pairs), text_rule(r, "}"));
    rules_define(r, v, ALT(r, number, list, object, any_string(r), text_rule(r, "true")));
    return v;
}

#endif
