/* module: text */
/* Fuzzes encoding and decoding under every pre-tokenizer and SentencePiece: the first byte
 * chooses it and the flags, the rest is the text. The vocabularies are small: all bytes,
 * digits, spaces and some letters merged across every boundary, and specials that begin alike.
 * Checks that nothing is lost, and that what detok streams is valid UTF-8. One thread. */
#include "base/utf8.h"
#include "text/tokenizer/tokenizer.h"
#include "tests/model/gguf_build.h"

static const char *const pres[] = {
    "gpt-2",          "smollm",      "llama-bpe", "qwen2",      "qwen35",  "deepseek-llm",
    "deepseek-coder", "deepseek-v3", "spark2_5",  "falcon",     "tekken",  "gpt-4o",
    "youtu",          "bloom",       "viking",    "chameleon",  "jais-2",  "bailingmoe",
    "seed-coder",     "ufakzeka",    "laguna",    "exaone-moe", "minicpm5"};
/* SentencePiece: with and without the space before a text, and with single spaces. */
static const char *const spms[] = {"prefix", "plain", "single"};
static const char *const words[] = {
    "\u2581",  "a",       "b",  "c",   "\u2581a",      "ab",  "\u2581ab", "aa",
    "aaaa",    "a\u2581", "bc", "abc", "\u2581\u2581", "1",   "\u4e2d",   "\u4e2da",
    "a\u00e9", "\u00e9",  "<",  "|",   "<s",           "<s>", "\n",       "\n\n"};
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
    N_PRES = sizeof pres / sizeof *pres,
    N_SPMS = sizeof spms / sizeof *spms,
    N_WORDS = sizeof words / sizeof *words,
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

static tokenizer *opened(gb *b) {
    char path[32];
    checkpoint *g;
    tokenizer *t;
    err e;
    gb_open(b, path);
    CHECK(checkpoint_open(&g, path, &e) == OK);
    CHECK(tokenizer_open(&t, g, chunks_heap(), &e) == OK);
    CHECK(tokenizer_bytes(t) == tokenizer_plan_bytes(g));
    checkpoint_close(g);
    gb_clear(b);
    return t;
}

static tokenizer *open_with(const char *pre) {
    static vocab v; /* the strings of one at a time */
    gb b;
    vocab_fill(&v);
    gb_init(&b);
    gb_str(&b, "tokenizer.ggml.model", "gpt2");
    gb_str(&b, "tokenizer.ggml.pre", pre);
    gb_strs(&b, "tokenizer.ggml.tokens", v.token, sizeof v.token / sizeof *v.token);
    gb_ints(&b, "tokenizer.ggml.token_type", v.type, sizeof v.token / sizeof *v.token);
    gb_strs(&b, "tokenizer.ggml.merges", v.merge, N_MERGES);
    return opened(&b);
}

/* Unknown, BOS, EOS, the bytes, the words (every third score is the same), the specials. */
static tokenizer *open_spm(const char *how) {
    enum { N = 3 + 256 + N_WORDS + N_SPECIALS };
    static char byte_text[256][8];
    static str token[N];
    static int32_t type[N];
    static float score[N];
    gb b;
    uint32_t n = 0;
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    for (int i = 0; i < 3; i++, n++) token[n] = str_of(first[i]), type[n] = i ? 3 : 2;
    for (int i = 0; i < 256; i++, n++) {
        snprintf(byte_text[i], sizeof byte_text[i], "<0x%02X>", (unsigned)i);
        token[n] = str_of(byte_text[i]);
        type[n] = 6;
    }
    for (int i = 0; i < N_WORDS; i++, n++)
        token[n] = str_of(words[i]), type[n] = 1, score[n] = (float)-(i % 3 ? i : 4);
    for (int i = 0; i < N_SPECIALS; i++, n++)
        token[n] = str_of(specials[i]), type[n] = i % 2 ? 3 : 4;
    gb_init(&b);
    gb_str(&b, "tokenizer.ggml.model", "llama");
    gb_strs(&b, "tokenizer.ggml.tokens", token, N);
    gb_ints(&b, "tokenizer.ggml.token_type", type, N);
    gb_floats(&b, "tokenizer.ggml.scores", score, N);
    gb_bool(&b, "tokenizer.ggml.add_space_prefix", strcmp(how, "plain") != 0);
    gb_bool(&b, "tokenizer.ggml.remove_extra_whitespaces", strcmp(how, "single") == 0);
    return opened(&b);
}

/* What decoding must give back: to SentencePiece U+2581 is a space. */
static void expected(str text, bool spm, buf *out) {
    CHECK(buf_reserve(out, 1));
    for (size_t i = 0; i < text.len;) {
        bool mark = spm && text.len - i >= 3 && memcmp(text.ptr + i, "\u2581", 3) == 0;
        buf_addc(out, mark ? ' ' : text.ptr[i]);
        i += mark ? 3 : 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static tokenizer *tok[N_PRES + N_SPMS];
    if (n == 0) return 0;
    for (int i = 0; i < N_PRES + N_SPMS; i++)
        if (!tok[i]) tok[i] = i < N_PRES ? open_with(pres[i]) : open_spm(spms[i - N_PRES]);
    uint32_t which = (data[0] >> 1) % (N_PRES + N_SPMS);
    const tokenizer *t = tok[which];
    str text = {(const char *)data + 1, n - 1};
    vec_i32 ids = {0};
    buf back = {0}, streamed = {0}, want = {0};
    err e;
    CHECK(tokenizer_encode(t, text, data[0] & 1 ? TOK_PARSE_SPECIAL : 0, &ids, &e) == OK);
    detok d, whole;
    detok_init_text(&d, t, true);
    detok_init_text(&whole, t, true);
    CHECK(buf_reserve(&streamed, 1) && buf_reserve(&back, 1));
    for (size_t i = 0; i < ids.n; i++) {
        size_t from = streamed.len;
        buf_add(&back, detok_bytes(&whole, ids.v[i]));
        detok_push(&d, ids.v[i], &streamed);
        CHECK(utf8_valid((str){streamed.ptr + from, streamed.len - from}));
    }
    detok_finish(&d, &streamed);
    expected(text, which >= N_PRES, &want);
    if (which != N_PRES + N_SPMS - 1) CHECK(str_eq(buf_str(&back), buf_str(&want)));
    char *clean = malloc(back.len * 3 + 1);
    CHECK(clean);
    CHECK(str_eq(buf_str(&streamed), (str){clean, utf8_sanitise(buf_str(&back), clean)}));
    free(clean);
    buf_clear(&want);
    buf_clear(&back);
    buf_clear(&streamed);
    vec_i32_clear(&ids);
    return 0;
}
