/* Asked by tests/text/schema_suite.py: a line {"schema", "closed", "texts", "samples"} on standard
 * input is answered by {"refused": why}, or by {"takes": [whether the grammar of the schema takes each text],
 * "samples": [texts that the masks of the grammar allow]}. The grammar is compared with the matcher
 * of rules_match.h: {"differs": text}. */
#include <stdio.h>

#include "model/sampling.h"
#include "tests/text/rules_match.h"
#include "tests/text/tokenizer_rig.h"
#include "text/grammar/grammar.h"
#include "text/grammar/schema.h"

enum { MASK_BYTES = 1 << 20, MAX_SAMPLE = 600 };

typedef struct probe {
    vocab_index *v;
    mask_cache *masks;
    grammar *g;
    grammar_state *s;
    const rules *r;
    rule root;
} probe;

/* Of the allowed bytes one: often one that ends something, seldom one that is not ASCII. */
static int draw(const uint32_t *mask, unsigned *seed) {
    unsigned weight[256], all = 0;
    for (unsigned c = 0; c < 256; c++) {
        weight[c] = !(mask[c / 32] >> (c % 32) & 1) ? 0 : c >= 128 ? 1 : 8;
        if (weight[c] && strchr("\"}]", (int)c) && c) weight[c] = 120;
        all += weight[c];
    }
    if (!all) return -1;
    unsigned k = (unsigned)rand_r(seed) % all;
    for (int c = 0;; c++) {
        if (k < weight[c]) return c;
        k -= weight[c];
    }
}

/* A text by random allowed bytes to an end; false: it grew too long. */
static bool sample(const probe *p, unsigned *seed, char *out, size_t *len) {
    uint32_t mask[16];
    grammar_start(p->g, p->s);
    for (*len = 0; *len < MAX_SAMPLE;) {
        memset(mask, 0xff, sizeof mask);
        grammar_mask(p->g, p->s, p->masks, mask);
        int c = draw(mask, seed);
        bool may_end = grammar_accepts_end(p->g, p->s);
        if (may_end && (c < 0 || rand_r(seed) % 4 == 0)) return true;
        CHECK(c >= 0); /* a position without a way out */
        CHECK(grammar_take(p->g, p->s, c));
        out[(*len)++] = (char)c;
    }
    return false;
}

static bool takes(const probe *p, str text, bool *differs) {
    grammar_start(p->g, p->s);
    bool yes = grammar_take_bytes(p->g, p->s, text) && grammar_accepts_end(p->g, p->s);
    *differs = rules_match(p->r, p->root, text) != yes;
    return yes;
}

static json_t *try_texts(const probe *p, const json_t *line) {
    json_t *answer = json_object(), *list = json_array(), *made = json_array(), *v;
    size_t i, n;
    char text[MAX_SAMPLE + 1];
    unsigned seed = 1;
    json_array_foreach(json_object_get(line, "texts"), i, v) {
        bool differs;
        json_array_append_new(list, json_boolean(takes(p, json_in_text(v), &differs)));
        if (differs) json_object_set(answer, "differs", v);
    }
    for (i = (size_t)json_integer_value(json_object_get(line, "samples")); i > 0; i--) {
        if (!sample(p, &seed, text, &n)) continue;
        bool differs;
        v = json_stringn(text, n);
        CHECK(v);
        json_array_append_new(made, v);
        if (!takes(p, (str){text, n}, &differs) || differs)
            json_object_set(answer, "differs", v);
    }
    json_object_set_new(answer, "takes", list);
    json_object_set_new(answer, "samples", made);
    return answer;
}

static json_t *refusal(const err *e) {
    return json_pack("{s:s}", "refused", e->text);
}

static json_t *answer_line(probe *p, const json_t *line) {
    arena mem;
    err e;
    arena_init(&mem, chunks_heap(), 256 << 20);
    rules *r = rules_new(&mem);
    json_t *out;
    CHECK(r);
    p->r = r;
    p->g = NULL;
    const schema_options opt = {.closed = json_is_true(json_object_get(line, "closed"))};
    status st = rules_json_schema(r, json_object_get(line, "schema"), &opt, &p->root, &e);
    if (st == OK) st = grammar_compile(&p->g, r, p->root, p->v, chunks_heap(), &e);
    if (st == OK) {
        p->s = malloc(grammar_state_bytes(p->g));
        CHECK(p->s);
        out = try_texts(p, line);
        free(p->s);
    } else {
        out = refusal(&e);
    }
    grammar_free(p->g);
    arena_clear(&mem);
    return out;
}

/* The 256 bytes as a vocabulary. Not by the rig's functions, which assert within tests alone. */
static tokenizer *open_bytes(tiny *file) {
    char path[32];
    tokenizer *tok;
    err e;
    tiny_init(file);
    tiny_merge(file, "a b", "ab");
    gb_str(&file->b, "tokenizer.ggml.pre", "gpt-2");
    gb_strs(&file->b, "tokenizer.ggml.tokens", file->token, file->n_tokens);
    gb_ints(&file->b, "tokenizer.ggml.token_type", file->type, file->n_tokens);
    gb_strs(&file->b, "tokenizer.ggml.merges", file->merge, file->n_merges);
    gb_open(&file->b, path);
    CHECK(checkpoint_open(&file->file, path, &e) == OK);
    CHECK(tokenizer_open(&tok, file->file, chunks_heap(), &e) == OK);
    return tok;
}

int main(void) {
    tiny file;
    tokenizer *tok = open_bytes(&file);
    uint32_t n = tokenizer_n_vocab(tok);
    void *index = aligned_alloc(64, (vocab_index_bytes(n) + 63) / 64 * 64);
    void *masks = aligned_alloc(64, (mask_cache_bytes(n, MASK_BYTES) + 63) / 64 * 64);
    memset(index, 0, vocab_index_bytes(n));
    memset(masks, 0, mask_cache_bytes(n, MASK_BYTES));
    probe p = {.v = vocab_index_init(index, tok, n)};
    p.masks = mask_cache_init(masks, n, MASK_BYTES);
    char *text = NULL;
    size_t cap = 0;
    for (ssize_t len; (len = getline(&text, &cap, stdin)) > 0;) {
        arena mem;
        const json_t *line;
        err e;
        arena_init(&mem, chunks_heap(), 0);
        CHECK(json_in_parse(&line, &mem, (str){text, (size_t)len}, &e) == OK);
        json_t *answer = answer_line(&p, line);
        CHECK(json_dumpf(answer, stdout, JSON_COMPACT) == 0);
        puts("");
        fflush(stdout);
        json_decref(answer);
        arena_clear(&mem);
    }
    free(text);
    free(index);
    free(masks);
    tokenizer_close(tok);
    tiny_clear(&file);
    return 0;
}
