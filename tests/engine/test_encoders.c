/* Tiny encoders against plain formulas in float64 (tests/golden/make_encoders.py, where the format of
 * the files stands), and the same bits in any batch, on any number of threads and instruction set. */
#include "tests/engine/engine_rig.h"

#include <math.h>
#include <stdio.h>

enum { MOST_TOKENS = 640, MOST_TEXTS = 8, MOST_COLS = 32, MOST_VECTORS = 3 };

static const struct {
    const char *name;
    uint32_t n_vectors;
    pooling_kind of[MOST_VECTORS];
} models[] = {{"bert", 3, {POOL_MEAN, POOL_CLS, POOL_LAST}},
              {"nomic-bert", 3, {POOL_MEAN, POOL_CLS, POOL_LAST}},
              {"bert-rank", 1, {POOL_RANK}}};
enum { N_MODELS = sizeof models / sizeof *models };

typedef struct text {
    uint32_t n, n_first;
    int32_t tokens[MOST_TOKENS];
    float want[MOST_VECTORS][MOST_COLS];
} text;

typedef struct golden {
    uint32_t n, cols, n_vectors;
    text text[MOST_TEXTS];
} golden;

static void take(FILE *f, void *dst, size_t n) {
    ck_assert_msg(fread(dst, 1, n, f) == n, "the golden file ends early");
}

static golden *read_golden(const char *name) {
    char path[96];
    golden *g = calloc(1, sizeof *g);
    snprintf(path, sizeof path, "tests/golden/families/%s.bin", name);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f && g, "%s: run the tests in the root of the tree", path);
    take(f, g, 3 * sizeof(uint32_t));
    ck_assert(g->n <= MOST_TEXTS && g->cols <= MOST_COLS && g->n_vectors <= MOST_VECTORS);
    for (uint32_t i = 0; i < g->n; i++) {
        text *t = &g->text[i];
        take(f, t, 2 * sizeof(uint32_t));
        ck_assert_uint_le(t->n, MOST_TOKENS);
        take(f, t->tokens, t->n * sizeof *t->tokens);
        for (uint32_t k = 0; k < g->n_vectors; k++)
            take(f, t->want[k], g->cols * sizeof(float));
    }
    ck_assert_msg(fgetc(f) == EOF, "%s is longer than it says", path);
    fclose(f);
    return g;
}

static engine_options options(pooling_kind p, activation_dtype activations) {
    engine_options o = rig_options();
    o.max_rows = 2 * MOST_TOKENS;
    o.max_model_len = MOST_TOKENS;
    o.pooling = p;
    o.hidden = true;
    o.activations = activations;
    return o;
}

/* One step over texts order[0], order[1], ...: the vectors into out. */
static void run(rig *r, const golden *g, const uint32_t *order, uint32_t n,
                float out[][MOST_COLS]) {
    batch_seq seq[MOST_TEXTS];
    batch b = {.seq = seq, .n_seqs = n, .n_logit_rows = n};
    step_result res;
    err e;
    for (uint32_t i = 0; i < n; i++) {
        const text *t = &g->text[order[i]];
        seq[i] = (batch_seq){.first_row = b.n_rows,
                             .n_rows = t->n,
                             .tokens = t->tokens,
                             .input_from = -1,
                             .n_logit_rows = 1,
                             .n_score = -1,
                             .n_prompt = t->n,
                             .n_first = t->n_first};
        b.n_rows += t->n;
    }
    ck_assert_msg(engine_submit(r->engine, &b, &e) == OK, "%s", e.text);
    ck_assert_msg(engine_collect(r->engine, &res, &e) == OK, "%s", e.text);
    ck_assert_uint_eq(res.n_embd, g->cols);
    for (uint32_t i = 0; i < n; i++)
        memcpy(out[i], res.hidden + (size_t)i * g->cols, g->cols * sizeof(float));
}

static double distance(const golden *g, uint32_t vector, float got[][MOST_COLS]) {
    double diff = 0, all = 0;
    for (uint32_t i = 0; i < g->n; i++)
        for (uint32_t k = 0; k < g->cols; k++) {
            const double w = g->text[i].want[vector][k];
            diff += (got[i][k] - w) * (got[i][k] - w);
            all += w * w;
        }
    return sqrt(diff / all);
}

static const uint32_t forwards[] = {0, 1, 2, 3, 4}, backwards[] = {4, 3, 2, 1, 0};

static void check_file(const char *path, const golden *g, uint32_t vector, pooling_kind p,
                       bool int8) {
    static const double limit[] = {1e-5, 0.03};
    float got[MOST_TEXTS][MOST_COLS];
    engine_options o = options(p, int8 ? ACTIVATION_INT8 : ACTIVATION_F32);
    rig r;
    rig_open_bare(&r, &backend_cpu, path, &o);
    run(&r, g, forwards, g->n, got);
    const double d = distance(g, vector, got);
    printf("%s, vector %u, %s: distance %.3g\n", path, vector, int8 ? "int8" : "f32", d);
    ck_assert_msg(d < limit[int8], "%s, vector %u: distance %g", path, vector, d);
    rig_close(&r);
}

START_TEST(vectors_are_those_of_the_formulas) {
    char path[96];
    golden *g = read_golden(models[_i].name);
    ck_assert_uint_eq(g->n_vectors, models[_i].n_vectors);
    ck_assert_uint_eq(g->n, 5);
    for (uint32_t k = 0; k < g->n_vectors; k++) {
        snprintf(path, sizeof path, "tests/golden/families/%s.gguf", models[_i].name);
        check_file(path, g, k, models[_i].of[k], false);
        check_file(path, g, k, models[_i].of[k], true);
        path[strlen(path) - strlen(".gguf")] = '\0';
        check_file(path, g, k, models[_i].of[k], false);
    }
    free(g);
}
END_TEST

static void assert_same(const golden *g, uint32_t i, const float *a, const float *b,
                        const char *what) {
    for (uint32_t k = 0; k < g->cols; k++)
        ck_assert_msg(bits_of_float(a[k]) == bits_of_float(b[k]), "%s: text %u, %u: %a and %a",
                      what, i, k, (double)a[k], (double)b[k]);
}

/* Against what one thread gives for each text alone. */
static void compare(const golden *g, const char *path, engine_options o,
                    float base[][MOST_COLS]) {
    static const cpu_isa isas[] = {ISA_PLAIN, ISA_AVX2, ISA_AVXVNNI, ISA_AVX512};
    float got[MOST_TEXTS][MOST_COLS];
    for (size_t a = 0; a < sizeof isas / sizeof *isas; a++)
        for (uint32_t threads = 1; threads <= 3; threads += 2) {
            rig r;
            o.isa = isas[a];
            o.n_threads = threads;
            if (!linear_kernels_get(o.isa)) continue;
            rig_open_bare(&r, &backend_cpu, path, &o);
            run(&r, g, backwards, g->n, got);
            for (uint32_t i = 0; i < g->n; i++)
                assert_same(g, backwards[i], base[backwards[i]], got[i], "all in one step");
            rig_close(&r);
        }
}

START_TEST(no_batch_thread_or_instruction_set_changes_a_bit) {
    const activation_dtype types[] = {ACTIVATION_F32, ACTIVATION_INT8, ACTIVATION_BF16};
    char path[96];
    float base[MOST_TEXTS][MOST_COLS];
    golden *g = read_golden(models[_i].name);
    snprintf(path, sizeof path, "tests/golden/families/%s.gguf", models[_i].name);
    for (size_t a = 0; a < sizeof types / sizeof *types; a++) {
        engine_options o = options(models[_i].of[0], types[a]);
        rig r;
        o.n_threads = 1;
        rig_open_bare(&r, &backend_cpu, path, &o);
        for (uint32_t i = 0; i < g->n; i++) run(&r, g, &i, 1, &base[i]);
        rig_close(&r);
        compare(g, path, o, base);
    }
    free(g);
}
END_TEST

START_TEST(a_part_of_a_text_is_refused) {
    const engine_options o = options(POOL_MEAN, ACTIVATION_F32);
    const int32_t tokens[8] = {0};
    step_result res;
    err e;
    rig r;
    rig_open_bare(&r, &backend_cpu, "tests/golden/families/bert.gguf", &o);
    const part from_the_middle = {tokens, NULL, 4, 4, 1, NULL, 0};
    const part without_its_vector = {tokens, NULL, 0, 8, 0, NULL, 0};
    ck_assert_int_eq(rig_try(&r, &from_the_middle, 1, &res, &e), ERR_INVALID);
    ck_assert_int_eq(rig_try(&r, &without_its_vector, 1, &res, &e), ERR_INVALID);
    rig_close(&r);
}
END_TEST

START_TEST(without_fusion_it_is_refused) {
    engine_options o = options(POOL_MEAN, ACTIVATION_F32);
    checkpoint *file;
    model *m;
    terms t = {0};
    kv_request kv = {0};
    err e;
    o.unfused = true;
    ck_assert_int_eq(checkpoint_open(&file, "tests/golden/families/bert.gguf", &e), OK);
    ck_assert_int_eq(model_open(&m, file, &e), OK);
    ck_assert_int_eq(backend_cpu.terms(&m->program, &o, &t, &kv, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "attention");
    o.unfused = false;
    ck_assert_int_eq(backend_cpu.terms(&m->program, &o, &t, &kv, &e), OK);
    ck_assert_uint_eq(kv.n_groups, 0);
    ck_assert_uint_eq(terms_sum(&t, MEM_KV), 0);
    ck_assert_uint_eq(terms_sum(&t, MEM_LOGITS), 0);
    terms_clear(&t);
    model_close(m);
    checkpoint_close(file);
}
END_TEST

int main(void) {
    Suite *s = suite_create("encoders");
    TCase *t = check_case(s, "encoders");
    tcase_add_loop_test(t, vectors_are_those_of_the_formulas, 0, N_MODELS);
    tcase_add_loop_test(t, no_batch_thread_or_instruction_set_changes_a_bit, 0, N_MODELS);
    tcase_add_test(t, a_part_of_a_text_is_refused);
    tcase_add_test(t, without_fusion_it_is_refused);
    return check_run(s);
}
