/* The tokenizer against independent ones: llama.cpp's vectors where the shared data is there,
 * Hugging Face's tokenizers and SentencePiece (make_tokenizer_golden.py) and transformers
 * (make_transformers_golden.py) by the goldens. */
#include "tests/text/tokenizer_rig.h"

static void check_vectors(const char *name) {
    char path[200];
    buf in = {0}, want = {0};
    snprintf(path, sizeof path, VECTORS "%s.gguf.inp", name);
    if (!file_read(path, &in)) return; /* shared data is not here */
    snprintf(path, sizeof path, VECTORS "%s.gguf.out", name);
    ck_assert(file_read(path, &want));
    snprintf(path, sizeof path, VECTORS "%s.gguf", name);
    checkpoint *g = file_open(path);
    tokenizer *t = tok_open(g);
    checkpoint_close(g);
    vec_i32 ids = {0};
    const str mark = STR("\n__ggml_vocab_test__\n");
    char *line = (char *)buf_cstr(&want);
    size_t n = 0;
    for (size_t at = 0, end; at <= in.len; at = end + mark.len, n++) {
        end = str_find(buf_str(&in), mark, at);
        bool last = end == SIZE_MAX;
        if (last) end = in.len;
        encode_into(t, (str){in.ptr + at, end - at}, 0, &ids);
        char *eol = strchr(line, '\n');
        ck_assert(eol || last);
        if (eol) *eol = '\0';
        for (size_t i = 0; i < ids.n; i++) {
            char *next;
            ck_assert_msg(ids.v[i] == strtol(line, &next, 10) && next != line,
                          "text %zu, token %zu: %d", n, i, ids.v[i]);
            line = next;
        }
        ck_assert_uint_eq(strspn(line, " "), strlen(line));
        if (last) break;
        line = eol + 1;
    }
    ck_assert_uint_gt(n, 40);
    vec_i32_clear(&ids);
    tokenizer_close(t);
    buf_clear(&in);
    buf_clear(&want);
}

START_TEST(the_vectors_of_llama_cpp_come_out_exactly) {
    check_vectors("gpt-2");
    check_vectors("llama-spm");
    check_vectors("phi-3");
}
END_TEST

typedef struct golden {
    texts texts;
    uint64_t seed;
    size_t n_texts, n_sets, n_samples;
    tokenizer *tok; /* of the set at hand; NULL: its vocabulary is not here */
    bool specials, spm;
    /* [n_texts] the reference did not get them; NULL: the rule of golden_skips */
    bool *skipped;
    char name[64];
} golden;

/* A file of the shared data, or of the cache beside the small real model. */
static checkpoint *file_if_there(const char *path) {
    return access(path, R_OK) == 0 ? file_open(path) : NULL;
}

static checkpoint *gemma3_if_there(void) {
    char path[400];
    const char *model = test_model(), *slash = strrchr(model, '/');
    snprintf(path, sizeof path, "%.*s/gemma-3-270m.Q4_K_M.gguf",
             slash ? (int)(slash - model) : 1, slash ? model : ".");
    return file_if_there(path);
}

static checkpoint *golden_file(const char *name) {
    if (strncmp(name, "smollm/", 7) == 0) return file_open(test_model());
    if (strncmp(name, "mixed+", 6) == 0) return with_pre(GOLDEN_DIR "mixed.gguf", name + 6);
    if (strcmp(name, "spm") == 0) return file_open(GOLDEN_DIR "spm.gguf");
    if (strcmp(name, "spm+plain") == 0)
        return with_spaces(GOLDEN_DIR "spm.gguf", "tokenizer.ggml.add_space_prefix", false);
    if (strcmp(name, "spm+single") == 0)
        return with_spaces(GOLDEN_DIR "spm.gguf", "tokenizer.ggml.remove_extra_whitespaces",
                           true);
    if (strcmp(name, "llama-spm") == 0) return file_if_there(VECTORS "llama-spm.gguf");
    if (strcmp(name, "phi-3") == 0) return file_if_there(VECTORS "phi-3.gguf");
    if (strcmp(name, "gemma3") == 0) return gemma3_if_there();
    if (strncmp(name, "gpt2+", 5) == 0 && access(VECTORS "gpt-2.gguf", R_OK) == 0)
        return with_pre(VECTORS "gpt-2.gguf", name + 5);
    return NULL;
}

static bool golden_is_spm(const char *name) {
    return strncmp(name, "spm", 3) == 0 || strcmp(name, "llama-spm") == 0 ||
           strcmp(name, "phi-3") == 0 || strcmp(name, "gemma3") == 0;
}

/* "VOCABULARY[+PRE]", by transformers with the class behind it and "specials" if so. */
static void golden_set(golden *s, const char *set) {
    char name[64];
    tokenizer_close(s->tok);
    s->tok = NULL;
    free(s->skipped);
    s->skipped = NULL;
    snprintf(s->name, sizeof s->name, "%s", set);
    snprintf(name, sizeof name, "%.*s", (int)strcspn(set, " "), set);
    s->specials = strstr(set, "specials") != NULL;
    s->spm = golden_is_spm(name);
    checkpoint *g = golden_file(name);
    if (!g) return;
    s->tok = tok_open(g);
    s->n_sets++;
    checkpoint_close(g);
}

/* The numbers of texts, each after a space. */
static void golden_skip(golden *s, const char *list) {
    s->skipped = calloc(s->n_texts, sizeof *s->skipped);
    ck_assert_ptr_nonnull(s->skipped);
    size_t n = 0;
    for (char *end; *list; list = end, n++) {
        size_t i = strtoul(list, &end, 10);
        ck_assert_msg(end != list && i < s->n_texts, "%s: skip%s", s->name, list);
        s->skipped[i] = true;
    }
    ck_assert_uint_lt(n, s->n_texts / 20); /* a comparison, not an excuse */
}

/* Texts that the set's reference did not get. */
static bool golden_skips(const golden *s, size_t i, str text) {
    if (s->skipped) return s->skipped[i] || !utf8_valid(text);
    if ((s->specials || s->spm) && !utf8_valid(text)) return true;
    return s->spm && (str_find(text, STR("\u2581"), 0) != SIZE_MAX ||
                      str_find(text, STR("</s>"), 0) != SIZE_MAX);
}

static void golden_hash(golden *s, size_t from, uint64_t want) {
    if (!s->tok) return;
    uint64_t h = FNV_START;
    buf text = {0};
    vec_i32 ids = {0};
    for (size_t i = from; i < from + 500 && i < s->n_texts; i++) {
        str x = text_of(&s->texts, s->seed, i, &text);
        if (golden_skips(s, i, x)) continue;
        encode_into(s->tok, x, s->specials ? TOK_PARSE_SPECIAL : 0, &ids);
        h = fnv1a(h, ids.v, ids.n * sizeof *ids.v);
        h = fnv1a(h, "\xff\xff\xff\xff", 4);
    }
    ck_assert_msg(h == want, "%s: other ids for one of the texts %zu to %zu", s->name, from,
                  from + 499);
    buf_clear(&text);
    vec_i32_clear(&ids);
}

static void golden_sample(golden *s, size_t i, const char *want) {
    if (!s->tok) return;
    buf text = {0}, got = {0};
    vec_i32 ids = {0};
    str x = text_of(&s->texts, s->seed, i, &text);
    encode_into(s->tok, x, s->specials ? TOK_PARSE_SPECIAL : 0, &ids);
    for (size_t k = 0; k < ids.n; k++) buf_addf(&got, k ? " %d" : "%d", ids.v[k]);
    ck_assert_msg(strcmp(buf_cstr(&got), want) == 0, "%s, text %zu:\n%.*s\nwanted %s\ngot %s",
                  s->name, i, STR_ARG(x), want, buf_cstr(&got));
    s->n_samples++;
    buf_clear(&text);
    buf_clear(&got);
    vec_i32_clear(&ids);
}

static void golden_texts(golden *s, uint64_t want) {
    buf text = {0};
    uint64_t h = FNV_START;
    for (size_t i = 0; i < s->n_texts; i++) {
        str x = text_of(&s->texts, s->seed, i, &text);
        h = fnv1a(fnv1a(h, x.ptr, x.len), "", 1);
    }
    ck_assert_msg(h == want, "the generator makes other texts than the script");
    buf_clear(&text);
}

static void golden_line(golden *s, char *line) {
    unsigned long long h, seed;
    size_t i;
    int skip;
    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "texts %zu %llu %llx", &s->n_texts, &seed, &h) == 3)
        s->seed = seed, golden_texts(s, h);
    else if (strncmp(line, "set ", 4) == 0)
        golden_set(s, line + 4);
    else if (strncmp(line, "skip", 4) == 0)
        golden_skip(s, line + 4);
    else if (sscanf(line, "text %zu %n", &i, &skip) == 1)
        golden_sample(s, i, line + skip);
    else if (sscanf(line, "hash %zu %llx", &i, &h) == 2)
        golden_hash(s, i, h);
    else
        ck_abort_msg("%s", line);
}

static void golden_check(const char *path, size_t sets, size_t samples) {
    golden s = {0};
    texts_open(&s.texts);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f, "%s: run the tests in the root of the tree", path);
    char *line = NULL;
    size_t cap = 0;
    while (getline(&line, &cap, f) > 0) golden_line(&s, line);
    ck_assert_uint_ge(s.n_texts, 10000);
    ck_assert_uint_ge(s.n_sets, sets); /* those whose vocabulary is in the repository */
    ck_assert_uint_ge(s.n_samples, samples);
    free(line);
    fclose(f);
    free(s.skipped);
    tokenizer_close(s.tok);
    texts_close(&s.texts);
}

START_TEST(ten_thousand_texts_come_out_as_an_independent_tokenizer_has_them) {
    golden_check(GOLDEN_DIR "golden.txt", 30, 250);
}
END_TEST

/* Or more of them: make_transformers_golden.py. */
START_TEST(ten_thousand_texts_come_out_as_transformers_has_them) {
    const char *longer = getenv("VRAMD_TOKENIZER_GOLDEN");
    golden_check(longer ? longer : GOLDEN_DIR "transformers.txt", 6, 25);
}
END_TEST

START_TEST(every_name_of_every_row_opens_and_no_part_of_one_does) {
    static const char *const bad[] = {"gpt", "gpt-2 phi-2", "llama", "superbpe", "gpt-2x"};
    static const char *const good[] = {
        "mpt",   "gpt-neox", "starcoder", "refact",   "command-r", "tekken", "exaone4",
        "phi-2", "llama3",   "megrez",    "minicpm5", "viking",    "falcon", "deepseek-coder"};
    err e;
    tokenizer *t;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        checkpoint *g = with_pre(GOLDEN_DIR "mixed.gguf", bad[i]);
        ck_assert_int_eq(tokenizer_open(&t, g, chunks_heap(), &e), ERR_UNSUPPORTED);
        checkpoint_close(g);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        checkpoint *g = with_pre(GOLDEN_DIR "mixed.gguf", good[i]);
        tokenizer_close(tok_open(g));
        checkpoint_close(g);
    }
}
END_TEST

START_TEST(a_name_that_is_given_goes_before_that_of_the_file) {
    checkpoint *wrong = with_pre(GOLDEN_DIR "mixed.gguf", "superbpe");
    checkpoint *right = with_pre(GOLDEN_DIR "mixed.gguf", "llama3");
    const str text = STR("12345678 it's");
    vec_i32 a, b;
    err e;
    tokenizer *t;
    vec_i32_init(&a, NULL);
    vec_i32_init(&b, NULL);
    ck_assert_int_eq(tokenizer_open_pre(&t, wrong, STR("llama3"), chunks_heap(), &e), OK);
    ck_assert_uint_eq(tokenizer_bytes(t), tokenizer_plan_bytes_pre(wrong, STR("llama3")));
    ck_assert_int_eq(tokenizer_encode(t, text, 0, &a, &e), OK);
    tokenizer_close(t);
    t = tok_open(right);
    ck_assert_int_eq(tokenizer_encode(t, text, 0, &b, &e), OK);
    tokenizer_close(t);
    ck_assert_uint_eq(a.n, b.n);
    ck_assert_mem_eq(a.v, b.v, a.n * sizeof *a.v);
    ck_assert_int_eq(tokenizer_open_pre(&t, right, STR("superbpe"), chunks_heap(), &e),
                     ERR_INVALID);
    ck_assert_str_eq(e.field, "pre_tokenizer");
    ck_assert_ptr_nonnull(strstr(e.text, "llama-bpe"));
    vec_i32_clear(&a);
    vec_i32_clear(&b);
    checkpoint_close(wrong);
    checkpoint_close(right);
}
END_TEST

CHECK_MAIN("tokenizer_golden", the_vectors_of_llama_cpp_come_out_exactly,
           ten_thousand_texts_come_out_as_an_independent_tokenizer_has_them,
           ten_thousand_texts_come_out_as_transformers_has_them,
           every_name_of_every_row_opens_and_no_part_of_one_does,
           a_name_that_is_given_goes_before_that_of_the_file)
