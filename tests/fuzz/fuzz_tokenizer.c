/* room: model */
/* Fuzzes encoding and decoding under every pre-tokenizer: the first byte chooses it and the
 * flags, the rest is the text. The vocabulary is small: all bytes, digits, spaces and some
 * letters merged across every boundary, and specials that begin alike. Checks that nothing is
 * lost, and that what detok streams is valid UTF-8. One thread. */
#include "base/utf8.h"
#include "model/tokenizer.h"
#include "tests/model/gguf_build.h"

static const char *const pres[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
static const char *const merges[] = {"\u0120 \u0120",
                                     "\u0120 a",
                                     "a b",
                                     "ab ab",
                                     "1 2",
                                     "12 3",
                                     "\u0120 1",
                                     "\u010a \u010a",
                                     "' s",
                                     "a '",
                                     "\u0120 '",
                                     "! !",
                                     "\u0120\u0120 \u0120\u0120",
                                     "! \u010a",
                                     "\u00e4 \u00b8",
                                     "\u00e4\u00b8 \u0143"};
static const char *const specials[] = {"<|", "<|a|>", "<|a|><|b|>", "|>", "  ", "<|a"};
enum {
    N_MERGES = sizeof merges / sizeof *merges,
    N_SPECIALS = sizeof specials / sizeof *specials
};

typedef struct vocab {
    char text[256 + N_MERGES][24];
    str token[256 + N_MERGES + N_SPECIALS], merge[N_MERGES];
    int32_t type[256 + N_MERGES + N_SPECIALS];
} vocab;

static void vocab_fill(vocab *v) {
    uint32_t extra = 256, id = 0;
    for (uint32_t c = 0; c < 256; c++, id++) {
        bool plain = (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c != 0xad);
        v->token[id] =
            (str){v->text[id], (size_t)utf8_encode(plain ? c : extra++, v->text[id])};
    }
    for (int i = 0; i < N_MERGES; i++, id++) {
        const char *space = strchr(merges[i], ' ');
        snprintf(v->text[id], sizeof v->text[id], "%.*s%s", (int)(space - merges[i]), merges[i],
                 space + 1);
        v->token[id] = str_of(v->text[id]);
        v->merge[i] = str_of(merges[i]);
    }
    for (int i = 0; i < N_SPECIALS; i++, id++) v->token[id] = str_of(specials[i]);
    for (uint32_t i = 0; i < id; i++) v->type[i] = i < 256 + N_MERGES ? 1 : i % 2 ? 3 : 4;
}

static tokenizer *open_with(const char *pre) {
    static vocab v; /* the strings of one at a time */
    gb b;
    char path[32];
    gguf *g;
    tokenizer *t;
    err e;
    vocab_fill(&v);
    gb_init(&b);
    gb_str(&b, "tokenizer.ggml.model", "gpt2");
    gb_str(&b, "tokenizer.ggml.pre", pre);
    gb_strs(&b, "tokenizer.ggml.tokens", v.token, sizeof v.token / sizeof *v.token);
    gb_ints(&b, "tokenizer.ggml.token_type", v.type, sizeof v.token / sizeof *v.token);
    gb_strs(&b, "tokenizer.ggml.merges", v.merge, N_MERGES);
    gb_open(&b, path);
    CHECK(gguf_open(&g, path, &e) == OK);
    CHECK(tokenizer_open(&t, g, chunks_heap(), &e) == OK);
    CHECK(tokenizer_bytes(t) == tokenizer_plan_bytes(g));
    gguf_close(g);
    gb_clear(&b);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static tokenizer *tok[4];
    if (n == 0) return 0;
    for (int i = 0; i < 4; i++)
        if (!tok[i]) tok[i] = open_with(pres[i]);
    const tokenizer *t = tok[data[0] & 3];
    str text = {(const char *)data + 1, n - 1};
    vec_i32 ids = {0};
    buf back = {0}, streamed = {0};
    err e;
    CHECK(tokenizer_encode(t, text, data[0] & 4 ? TOK_PARSE_SPECIAL : 0, &ids, &e) == OK);
    detok d;
    detok_init(&d, t, true);
    CHECK(buf_reserve(&streamed, 1));
    for (size_t i = 0; i < ids.n; i++) {
        size_t from = streamed.len;
        buf_add(&back, tokenizer_piece(t, ids.v[i], true));
        detok_push(&d, ids.v[i], &streamed);
        CHECK(utf8_valid((str){streamed.ptr + from, streamed.len - from}));
    }
    detok_finish(&d, &streamed);
    CHECK(str_eq(buf_str(&back), text));
    char *clean = malloc(text.len * 3 + 1);
    CHECK(clean);
    CHECK(str_eq(buf_str(&streamed), (str){clean, utf8_sanitise(text, clean)}));
    free(clean);
    buf_clear(&back);
    buf_clear(&streamed);
    vec_i32_clear(&ids);
    return 0;
}
