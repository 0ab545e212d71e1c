/* Tiny models of the families that have no small real one, against transformers in float64
 * (tests/golden/make_families.py, where the format of the files stands), or plain formulas in
 * float64 (make_variants.py, make_gemma4.py, make_mixtures.py, make_gpt_oss.py, make_hybrids.py,
 * make_latent.py, make_mamba2.py). */
#include "tests/engine/engine_rig.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { MAX_TOKENS = 64 };

static const char *const families[] = {
    "qwen3",          "phi3",          "gemma3",         "gemma2",
    "smollm3",        "ministral3",    "olmo2",          "olmo3",
    "glm4",           "granite",       "gemma4",         "mixtral",
    "qwen2moe",       "qwen3moe",      "granitemoe",     "granitemoeshared",
    "gemma4moe",      "glm4moe",       "gpt-oss",        "lfm2",
    "lfm2moe",        "qwen35",        "qwen35moe",      "deepseek2",
    "deepseek2v2",    "deepseek3",     "glm4lite",       "deepseek2q8",
    "deepseek2old",   "granitehybrid", "granite4-dense", "nemotron_h",
    "nemotron_h_moe", "llama-bias"};
enum { N_FAMILIES = sizeof families / sizeof *families };

static void take(FILE *f, void *dst, size_t n) {
    ck_assert_msg(fread(dst, 1, n, f) == n, "the golden file ends early");
}

/* Logits of all rows, in two chunks, into logits; their distance from the file's. */
static double distance(rig *r, const int32_t *tokens, uint32_t n, const float *want,
                       float *logits) {
    int32_t table[MAX_TOKENS / 16];
    double diff = 0, all = 0;
    rig_table(r, table, 0, MAX_TOKENS / 16, 3);
    rig_poison(r);
    for (uint32_t at = 0, rows; at < n; at += rows) {
        rows = at ? n - at : n / 3;
        part p = {tokens, table, at, rows, rows, NULL, 0};
        const float *got = rig_run(r, &p, 1).logits;
        memcpy(logits + (size_t)at * r->n_vocab, got, sizeof *got * rows * r->n_vocab);
        for (uint32_t i = 0; i < rows * r->n_vocab; i++) {
            double w = want[(size_t)at * r->n_vocab + i];
            diff += (got[i] - w) * (got[i] - w);
            all += w * w;
        }
    }
    return sqrt(diff / all);
}

/* What a model of the file or folder at path gives, in float32 or as served, into logits. */
static void check_model(const char *path, bool int8, uint32_t max_model_len,
                        const int32_t *tokens, uint32_t n, uint32_t n_vocab, const float *want,
                        float *logits) {
    static const double limit[] = {1e-5, 0.03};
    rig r;
    engine_options o = rig_options();
    o.max_model_len = max_model_len;
    o.activations = int8 ? ACTIVATION_INT8 : ACTIVATION_F32;
    o.kv_k = o.kv_v = int8 ? DT_F16 : DT_F32;
    rig_open(&r, path, &o);
    ck_assert_uint_eq(r.n_vocab, n_vocab);
    const double d = distance(&r, tokens, n, want, logits);
    printf("%s, %u tokens, %s: distance %.3g\n", path, n, int8 ? "int8" : "f32", d);
    ck_assert_msg(d < limit[int8], "%s, %u tokens: distance %g", path, n, d);
    rig_close(&r);
}

/* name.gguf, and the folder name where there is one: the same weights, so the same bits. */
static void check_family(const char *name, FILE *f, uint32_t n_vocab) {
    uint32_t head[2];
    int32_t tokens[MAX_TOKENS];
    char path[96];
    take(f, head, sizeof head);
    const uint32_t n = head[1];
    ck_assert(n <= MAX_TOKENS && n <= head[0]);
    take(f, tokens, n * sizeof *tokens);
    const size_t bytes = sizeof(float) * n * n_vocab;
    float *want = malloc(bytes), *logits = malloc(bytes), *of_folder = malloc(bytes);
    ck_assert(want && logits && of_folder);
    take(f, want, bytes);
    snprintf(path, sizeof path, "tests/golden/families/%s.gguf", name);
    for (int int8 = 1; int8 >= 0; int8--)
        check_model(path, int8, head[0], tokens, n, n_vocab, want, logits);
    path[strlen(path) - strlen(".gguf")] = '\0';
    if (access(path, F_OK) == 0) {
        check_model(path, false, head[0], tokens, n, n_vocab, want, of_folder);
        /* OLMo 3's GGUF has YaRN's factor as a number, which is rounded; Qwen3.5's has value heads
         * in another order, so that a sum over their columns has. */
        const bool other = strcmp(name, "olmo3") == 0 || strncmp(name, "qwen35", 6) == 0;
        ck_assert_msg(other || memcmp(logits, of_folder, bytes) == 0, "%s has other bits",
                      path);
    }
    free(want);
    free(logits);
    free(of_folder);
}

START_TEST(tiny_models_give_the_logits_of_transformers) {
    char path[96];
    uint32_t head[2];
    snprintf(path, sizeof path, "tests/golden/families/%s.bin", families[_i]);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f, "%s: run the tests in the root of the tree", path);
    take(f, head, sizeof head);
    ck_assert_uint_ge(head[0], 1);
    for (uint32_t i = 0; i < head[0]; i++) check_family(families[_i], f, head[1]);
    ck_assert_msg(fgetc(f) == EOF, "%s is longer than it says", path);
    fclose(f);
}
END_TEST

int main(void) {
    Suite *s = suite_create("families");
    TCase *t = check_case(s, "families");
    tcase_add_loop_test(t, tiny_models_give_the_logits_of_transformers, 0, N_FAMILIES);
    return check_run(s);
}
