/* module: text */
/* Fuzzes what clients write grammars in: the first byte chooses a pattern, a GBNF text, a JSON
 * Schema, a structural tag, or free text with a mark (the first line) behind which a GBNF text holds. Checks that
 * each is translated and compiled, or refused with a reason, within bounds of memory and of time
 * (libFuzzer's), that masks are those of trying every token, and that texts along them end: no
 * position without a way on. One thread. */
#include "base/check.h"
#include "base/utf8.h"
#include "model/sampling.h"
#include "tests/model/gguf_build.h"
#include "text/grammar/gbnf.h"
#include "text/grammar/grammar.h"
#include "text/grammar/regex.h"
#include "text/grammar/schema.h"
#include "text/grammar/tags.h"

enum { SPECIAL = 257, N_VOCAB = 258, CACHE = 4096 };

static vocab_index *bytes_as_tokens(void) {
    static vocab_index *v;
    static gb b;
    static char text[256][3];
    static str token[N_VOCAB];
    int32_t type[N_VOCAB], n = 256;
    char path[32];
    static checkpoint *file;
    static tokenizer *tok; /* kept reachable */
    err e;
    if (v) return v;
    gb_init(&b);
    for (uint32_t c = 0, extra = 256; c < 256; c++) {
        bool plain = (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c != 0xad);
        token[c] = (str){text[c], (size_t)utf8_encode(plain ? c : extra++, text[c])};
        type[c] = 1;
    }
    token[n] = STR("ab");
    type[n++] = 1;
    token[n] = STR("<special>");
    type[n++] = 3;
    gb_str(&b, "tokenizer.ggml.model", "gpt2");
    gb_str(&b, "tokenizer.ggml.pre", "gpt-2");
    gb_strs(&b, "tokenizer.ggml.tokens", token, (size_t)n);
    gb_ints(&b, "tokenizer.ggml.token_type", type, (size_t)n);
    gb_strs(&b, "tokenizer.ggml.merges", (str[]){STR("a b")}, 1);
    gb_open(&b, path);
    CHECK(checkpoint_open(&file, path, &e) == OK);
    CHECK(tokenizer_open(&tok, file, chunks_heap(), &e) == OK);
    size_t size = (vocab_index_bytes((uint32_t)n) + 63) / 64 * 64;
    void *mem = aligned_alloc(64, size);
    CHECK(mem);
    memset(mem, 0, size);
    return v = vocab_index_init(mem, tok, (uint32_t)n);
}

/* A mark up to the first line's end; byte 0x01 in it is the vocabulary's special token. */
static status translate_trigger(rules *r, str text, rule *out, err *e) {
    uint32_t mark[16];
    rule_trigger on = {.mark = mark};
    for (; on.n_mark < 16 && on.n_mark < text.len && text.ptr[on.n_mark] != '\n'; on.n_mark++) {
        uint8_t c = (uint8_t)text.ptr[on.n_mark];
        mark[on.n_mark] = c == 1 ? RULE_MARK_TOKEN + SPECIAL : c;
    }
    if (!on.n_mark || on.n_mark + 1 >= text.len)
        return err_set(e, ERR_INVALID, "no mark, or nothing behind it");
    str rest = {text.ptr + on.n_mark + 1, text.len - on.n_mark - 1};
    status st = rules_gbnf(r, rest, &on.then, e);
    if (st == OK) *out = rules_triggered(r, &on, 1, (uint8_t)rest.ptr[rest.len - 1] % 4);
    return st;
}

static status translate(rules *r, uint8_t kind, str text, rule *out, err *e) {
    static const schema_options plain;
    const json_t *schema;
    status st;
    if (kind == 4) {
        const tags_options o = {.tok = bytes_as_tokens()->tok};
        st = json_in_parse(&schema, rules_arena(r), text, e);
        return st == OK ? rules_tags(r, schema, &o, out, e) : st;
    }
    if (kind == 3) return translate_trigger(r, text, out, e);
    if (kind % 3 == 0) return rules_regex(r, text, out, e);
    if (kind % 3 == 1) return rules_gbnf(r, text, out, e);
    st = json_in_parse(&schema, rules_arena(r), text, e);
    return st == OK ? rules_json_schema(r, schema, &plain, out, e) : st;
}

static mask_cache *masks(void) {
    static mask_cache *m;
    if (m) return m;
    size_t size = align_up(mask_cache_bytes(N_VOCAB, CACHE), 64);
    void *mem = aligned_alloc(64, size);
    CHECK(mem);
    memset(mem, 0, size);
    return m = mask_cache_init(mem, N_VOCAB, CACHE);
}

/* Follows the masks, by the numbers of the input. */
static void walk(const grammar *g, const uint8_t *data, size_t n) {
    grammar_state *s = malloc(grammar_state_bytes(g));
    uint32_t mask[16], fast[16];
    CHECK(s);
    grammar_start(g, s);
    for (size_t i = 0; i < 60; i++) {
        uint32_t all = 0, k = data[i % n] + (uint32_t)i;
        memset(mask, 0xff, sizeof mask);
        memset(fast, 0xff, sizeof fast);
        grammar_mask_plain(g, s, mask);
        grammar_mask(g, s, masks(), fast);
        CHECK(memcmp(mask, fast, sampling_mask_words(N_VOCAB) * sizeof *mask) == 0);
        for (uint32_t w = 0; w < 9; w++) all += (uint32_t)__builtin_popcount(mask[w]);
        if (!all) {
            CHECK(grammar_accepts_end(g, s));
            break;
        }
        k %= all;
        uint32_t id = 0;
        for (; !(mask[id / 32] >> (id % 32) & 1) || k-- > 0;) id++;
        CHECK(grammar_take(g, s, (int32_t)id));
    }
    free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) return 0;
    arena mem;
    grammar *g = NULL;
    rule root = RULE_NEVER;
    err e = {0};
    arena_init(&mem, chunks_heap(), 64 << 20);
    rules *r = rules_new(&mem);
    CHECK(r);
    status st = translate(r, data[0], (str){(const char *)data + 1, n - 1}, &root, &e);
    if (st == OK) st = grammar_compile(&g, r, root, bytes_as_tokens(), chunks_heap(), &e);
    if (st == OK)
        walk(g, data, n);
    else
        CHECK(e.text[0] && (st == ERR_INVALID || st == ERR_UNSUPPORTED || st == ERR_NO_MEMORY));
    grammar_free(g);
    arena_clear(&mem);
    return 0;
}
