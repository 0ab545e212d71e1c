/* The engine against an independent implementation: tests/golden/make_logits.py ran
 * transformers in float32 on the dequantised weights of the same file, and llama.cpp on the
 * same positions. The integer family has to be as near to the reference as llama.cpp is; the
 * float family has to be the reference. The file format stands in make_logits.py. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "tests/check_main.h"

enum { CHUNK = 256, BLOCK = 16, MAX_BLOCKS = 64, MAX_TOKENS = 1024 };
enum { N_THREADS = 2, MAX_PROMPTS = 16, MAX_SETS = 2 };

/* The models: SmolLM2 is always there, Gemma 3 (253 MB) where the environment names it. */
enum { SMOLLM2, GEMMA3, N_MODELS };
static const struct {
    const char *env, *top, *all;
    uint32_t max_differing; /* greedy choices of int8, of 64 */
} models[N_MODELS] = {
    {"VRAMD_TEST_MODEL", "tests/golden/logits/smollm2-135m-q4_1.bin",
     "tests/golden/logits/smollm2-135m-q4_1-all.bin", 6},
    {"VRAMD_TEST_GEMMA", "tests/golden/logits/gemma-3-270m-q4_k_m.bin",
     "tests/golden/logits/gemma-3-270m-q4_k_m-all.bin", 6},
};
/* A greedy choice may differ from the reference's where its two best logits are nearer than the
 * rounding of the family: int8's mean KL of 0.0022 nats is a logit noise of about 0.066 (KL is
 * half the variance of the difference), so three sigma. */
static const float near_tie_int8 = 0.2f, near_tie_f32 = 0.001f;
static const double peer_slack = 1.1, f32_limit = 1e-5;

typedef struct golden_prompt {
    char name[17];
    uint32_t n_tokens, n_positions;
    double peer_kl;
    int32_t *tokens, *position; /* [n_tokens], [n_positions] ascending */
    float *log_rest;            /* [n_positions] */
    uint32_t *id;               /* [n_positions][n_top] */
    float *logprob;             /* [n_positions][n_top] */
} golden_prompt;

typedef struct golden_greedy {
    char name[17];
    uint32_t n_prompt, n_tokens;
    int32_t *tokens; /* [n_prompt + n_tokens]: prompt and the reference's completion */
    int32_t *second; /* [n_tokens] */
    float *margin;   /* [n_tokens] */
} golden_greedy;

typedef struct golden {
    char peer[129];
    uint32_t n_vocab, n_top, n_prompts, n_greedy, id_bytes;
    double peer_kl;
    golden_prompt prompt[MAX_PROMPTS];
    golden_greedy greedy[MAX_PROMPTS];
} golden;

static void take(FILE *f, void *dst, size_t n) {
    ck_assert_msg(fread(dst, 1, n, f) == n, "the golden file ends early");
}

static void *take_new(FILE *f, size_t n) {
    void *p = malloc(n);
    ck_assert_ptr_nonnull(p);
    take(f, p, n);
    return p;
}

static void read_prompt(FILE *f, const golden *g, golden_prompt *p) {
    uint32_t head[2];
    take(f, p->name, 16);
    take(f, head, sizeof head);
    take(f, &p->peer_kl, sizeof p->peer_kl);
    p->n_tokens = head[0];
    p->n_positions = head[1];
    ck_assert(p->n_tokens <= MAX_TOKENS && p->n_positions && p->n_positions <= p->n_tokens);
    size_t top = g->n_top, n = p->n_positions;
    p->tokens = take_new(f, p->n_tokens * sizeof *p->tokens);
    p->position = take_new(f, n * sizeof *p->position);
    p->log_rest = malloc(n * sizeof *p->log_rest);
    p->id = malloc(n * top * sizeof *p->id);
    p->logprob = malloc(n * top * sizeof *p->logprob);
    ck_assert(p->log_rest && p->id && p->logprob);
    for (size_t i = 0; i < n; i++) {
        take(f, &p->log_rest[i], sizeof *p->log_rest);
        for (size_t k = i * top; k < (i + 1) * top; k++) {
            p->id[k] = 0; /* little-endian */
            take(f, &p->id[k], g->id_bytes);
            ck_assert_uint_lt(p->id[k], g->n_vocab);
        }
        take(f, &p->logprob[i * top], top * sizeof *p->logprob);
    }
}

static void read_greedy(FILE *f, golden_greedy *g) {
    uint32_t head[2];
    take(f, g->name, 16);
    take(f, head, sizeof head);
    g->n_prompt = head[0];
    g->n_tokens = head[1];
    ck_assert(g->n_prompt + g->n_tokens <= MAX_TOKENS);
    g->tokens = malloc((g->n_prompt + g->n_tokens) * sizeof *g->tokens);
    g->second = malloc(g->n_tokens * sizeof *g->second);
    g->margin = malloc(g->n_tokens * sizeof *g->margin);
    ck_assert(g->tokens && g->second && g->margin);
    take(f, g->tokens, g->n_prompt * sizeof *g->tokens);
    for (uint32_t i = 0; i < g->n_tokens; i++) {
        take(f, &g->tokens[g->n_prompt + i], sizeof *g->tokens);
        take(f, &g->second[i], sizeof *g->second);
        take(f, &g->margin[i], sizeof *g->margin);
    }
}

static golden *golden_open(const char *path) {
    golden *g = calloc(1, sizeof *g);
    char magic[8], sum[64];
    uint32_t head[4];
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f && g, "%s: run the tests in the root of the tree", path);
    take(f, magic, sizeof magic);
    ck_assert_mem_eq(magic, "VRGOLD", 6);
    ck_assert(magic[6] == '2' || magic[6] == '3');
    g->id_bytes = magic[6] == '3' ? 4 : 2;
    take(f, sum, sizeof sum);
    take(f, g->peer, 128);
    take(f, head, sizeof head);
    take(f, &g->peer_kl, sizeof g->peer_kl);
    g->n_vocab = head[0];
    g->n_top = head[1];
    g->n_prompts = head[2];
    g->n_greedy = head[3];
    ck_assert(g->n_prompts <= MAX_PROMPTS && g->n_greedy <= MAX_PROMPTS);
    ck_assert(g->n_top < g->n_vocab);
    for (uint32_t i = 0; i < g->n_prompts; i++) read_prompt(f, g, &g->prompt[i]);
    for (uint32_t i = 0; i < g->n_greedy; i++) read_greedy(f, &g->greedy[i]);
    ck_assert_msg(fgetc(f) == EOF, "%s is longer than it says", path);
    fclose(f);
    return g;
}

static void golden_close(golden *g) {
    for (uint32_t i = 0; i < g->n_prompts; i++) {
        free(g->prompt[i].tokens);
        free(g->prompt[i].position);
        free(g->prompt[i].log_rest);
        free(g->prompt[i].id);
        free(g->prompt[i].logprob);
    }
    for (uint32_t i = 0; i < g->n_greedy; i++) {
        free(g->greedy[i].tokens);
        free(g->greedy[i].second);
        free(g->greedy[i].margin);
    }
    free(g);
}

/* An engine on the test model, and the file, model and ledger under it. */
typedef struct rig {
    checkpoint *file;
    model *model;
    ledger *ledger;
    engine *engine;
    uint32_t chunk; /* rows of a step */
    int32_t table[MAX_BLOCKS];
} rig;

static bool have(int which) {
    const char *path = which == SMOLLM2 ? test_model() : getenv(models[which].env);
    if (path && *path) return true;
    printf("skipped: %s names no file\n", models[which].env);
    return false;
}

static void rig_open(rig *r, int which, activation_dtype activations, dtype kv) {
    const char *path = getenv(models[which].env);
    r->chunk = which == SMOLLM2 ? CHUNK : 32; /* rows of a large vocabulary are large */
    engine_options o = {.max_rows = r->chunk,
                        .max_seqs = 4,
                        .max_logit_rows = r->chunk,
                        .max_model_len = MAX_TOKENS,
                        .block_tokens = BLOCK,
                        .n_blocks = {MAX_BLOCKS, MAX_BLOCKS},
                        .kv_k = kv,
                        .kv_v = kv,
                        .activations = activations,
                        .n_threads = N_THREADS,
                        .isa = ISA_AUTO,
                        .keep_logits = true};
    err e;
    ck_assert_msg(checkpoint_open(&r->file, path, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&r->model, r->file, &e) == OK, "%s", e.text);
    ck_assert_msg(ledger_open_unlimited(&r->ledger, &e) == OK, "%s", e.text);
    ck_assert_msg(engine_open(&r->engine, &backend_cpu, r->model, &o, r->ledger, NULL, &e) ==
                      OK,
                  "%s", e.text);
    /* Blocks in an order of no particular use: tables are followed, not assumed. */
    for (int i = 0; i < MAX_BLOCKS; i++) r->table[i] = (i * 29 + 7) % MAX_BLOCKS;
}

static void rig_close(rig *r) {
    engine_close(r->engine);
    ledger_close(r->ledger);
    model_close(r->model);
    checkpoint_close(r->file);
}

/* Runs rows [first, first + n) of a sequence; the last n_logits of them leave logits. With
 * params the last row draws a token too. */
static step_result run_rows(rig *r, const int32_t *tokens, uint32_t first, uint32_t n,
                            uint32_t n_logits, const sampling *params) {
    const uint32_t blocks = (first + n + BLOCK - 1) / BLOCK;
    batch_seq s = {.n_rows = n,
                   .first_pos = first,
                   .tokens = tokens,
                   .input_from = -1,
                   .blocks = {r->table, r->table},
                   .n_blocks = {blocks, blocks},
                   .n_logit_rows = n_logits,
                   .sample = params != NULL,
                   .n_score = -1,
                   .params = params,
                   .n_prompt = first + n};
    batch b = {.seq = &s, .n_seqs = 1, .n_rows = n, .n_logit_rows = n_logits};
    step_result result = {0};
    err e;
    ck_assert_msg(engine_submit(r->engine, &b, &e) == OK, "%s", e.text);
    ck_assert_msg(engine_collect(r->engine, &result, &e) == OK, "%s", e.text);
    return result;
}

/* KL(reference || logits) over the reference's best tokens and one bucket for the rest. */
static double divergence(const golden *g, const golden_prompt *p, uint32_t at,
                         const float *logits) {
    float best = logits[0];
    for (uint32_t i = 1; i < g->n_vocab; i++)
        if (logits[i] > best) best = logits[i];
    double all = 0, top = 0, kl = 0;
    for (uint32_t i = 0; i < g->n_vocab; i++) all += exp((double)logits[i] - best);
    double log_all = log(all);
    for (uint32_t i = 0; i < g->n_top; i++) {
        double q = (double)logits[p->id[at * g->n_top + i]] - best - log_all;
        double lp = p->logprob[at * g->n_top + i];
        kl += exp(lp) * (lp - q);
        top += exp(q);
    }
    double rest = p->log_rest[at];
    return kl + exp(rest) * (rest - log1p(-fmin(top, 1 - 1e-12)));
}

/* Mean over the prompt's positions in each of n goldens (of the same prompts), into kl. */
static void prompt_divergence(rig *r, golden *const *g, int n, uint32_t prompt, double *kl) {
    const golden_prompt *first_set = &g[0]->prompt[prompt];
    uint32_t at[MAX_SETS] = {0}, n_tokens = first_set->n_tokens;
    for (int s = 0; s < n; s++) kl[s] = 0;
    for (uint32_t first = 0; first < n_tokens; first += r->chunk) {
        uint32_t rows = n_tokens - first < r->chunk ? n_tokens - first : r->chunk, skip = rows;
        for (int s = 0; s < n; s++) { /* logits from the first wanted row on */
            const golden_prompt *p = &g[s]->prompt[prompt];
            uint32_t row = at[s] < p->n_positions ? (uint32_t)p->position[at[s]] - first : rows;
            if (row < skip) skip = row;
        }
        step_result result = run_rows(r, first_set->tokens, first, rows, rows - skip, NULL);
        for (int s = 0; s < n; s++) {
            const golden_prompt *p = &g[s]->prompt[prompt];
            for (; at[s] < p->n_positions; at[s]++) {
                uint32_t row = (uint32_t)p->position[at[s]] - first;
                if (row >= rows) break;
                const float *logits = result.logits + (size_t)(row - skip) * g[s]->n_vocab;
                kl[s] += divergence(g[s], p, at[s], logits);
            }
        }
    }
    for (int s = 0; s < n; s++) {
        ck_assert_uint_eq(at[s], g[s]->prompt[prompt].n_positions);
        kl[s] /= at[s];
    }
}

/* Means over all positions of each of n goldens, into kl; no prompt's may reach the limit. */
static void mean_divergence(rig *r, golden *const *g, int n, const char *family, double limit,
                            double *kl) {
    double sum[MAX_SETS] = {0}, n_positions[MAX_SETS] = {0}, one[MAX_SETS];
    for (uint32_t i = 0; i < g[0]->n_prompts; i++) {
        prompt_divergence(r, g, n, i, one);
        for (int s = 0; s < n; s++) {
            const golden_prompt *p = &g[s]->prompt[i];
            printf("%s %-8s %4u positions: mean KL %.3g, llama.cpp's %.3g\n", family, p->name,
                   p->n_positions, one[s], p->peer_kl);
            ck_assert_msg(isfinite(one[s]) && one[s] < limit, "%s, prompt %s: mean KL %g",
                          family, p->name, one[s]);
            sum[s] += one[s] * p->n_positions;
            n_positions[s] += p->n_positions;
        }
    }
    for (int s = 0; s < n; s++) {
        kl[s] = sum[s] / n_positions[s];
        printf("%s %.0f positions: mean KL %.4g = %.3f of llama.cpp's %.4g (%s)\n", family,
               n_positions[s], kl[s], kl[s] / g[s]->peer_kl, g[s]->peer_kl, g[s]->peer);
    }
}

/* Completes each greedy prompt token by token. After a choice that differs at a near-tie, the
 * reference's own token goes on, so that all 64 steps are compared. Returns how many differed.
 */
static uint32_t compare_greedy(rig *r, const golden_greedy *g, float near_tie) {
    uint32_t differing = 0;
    sampling greedy;
    sampling_defaults(&greedy);
    greedy.temperature = 0;
    for (uint32_t i = 0; i < g->n_tokens; i++) {
        uint32_t first = i ? g->n_prompt + i - 1 : 0;
        for (; g->n_prompt > first + r->chunk; first += r->chunk)
            run_rows(r, g->tokens, first, r->chunk, 0, NULL);
        uint32_t n = g->n_prompt + i - first;
        step_result result = run_rows(r, g->tokens, first, n, 1, &greedy);
        int32_t got = result.token[0].token, want = g->tokens[g->n_prompt + i];
        if (got == want) continue;
        differing++;
        printf("greedy %s, step %u: %d for %d, near-tie of %.4f\n", g->name, i, got, want,
               (double)g->margin[i]);
        ck_assert_msg(g->margin[i] < near_tie, "%s, step %u: %d instead of %d at margin %g",
                      g->name, i, got, want, (double)g->margin[i]);
        ck_assert_int_eq(got, g->second[i]);
    }
    return differing;
}

START_TEST(int8_activations_are_as_near_to_the_reference_as_llama_cpp) {
    if (!have(_i)) return;
    golden *g[2] = {golden_open(models[_i].top), golden_open(models[_i].all)};
    double kl[2];
    rig r;
    rig_open(&r, _i, ACTIVATION_INT8, DT_F16);
    mean_divergence(&r, g, 2, "int8", 10 * g[0]->peer_kl, kl);
    ck_assert_double_le(kl[0], peer_slack * g[0]->peer_kl);
    ck_assert_double_le(kl[1], peer_slack * g[1]->peer_kl);
    rig_close(&r);
    golden_close(g[0]);
    golden_close(g[1]);
}
END_TEST

START_TEST(float_activations_are_the_reference) {
    if (!have(_i)) return;
    golden *g = golden_open(models[_i].top);
    double kl;
    rig r;
    rig_open(&r, _i, ACTIVATION_F32, DT_F32);
    mean_divergence(&r, &g, 1, "f32", f32_limit, &kl);
    ck_assert_double_le(fabs(kl), f32_limit);
    rig_close(&r);
    golden_close(g);
}
END_TEST

START_TEST(greedy_completions_equal_the_reference_except_at_near_ties) {
    if (!have(_i)) return;
    golden *g = golden_open(models[_i].top);
    rig r;
    rig_open(&r, _i, ACTIVATION_INT8, DT_F16);
    for (uint32_t i = 0; i < g->n_greedy; i++)
        ck_assert_uint_le(compare_greedy(&r, &g->greedy[i], near_tie_int8),
                          models[_i].max_differing);
    rig_close(&r);
    golden_close(g);
}
END_TEST

START_TEST(greedy_completions_of_the_float_family_equal_the_reference) {
    if (!have(_i)) return;
    golden *g = golden_open(models[_i].top);
    rig r;
    rig_open(&r, _i, ACTIVATION_F32, DT_F32);
    for (uint32_t i = 0; i < g->n_greedy; i++)
        ck_assert_uint_eq(compare_greedy(&r, &g->greedy[i], near_tie_f32), 0);
    rig_close(&r);
    golden_close(g);
}
END_TEST

START_TEST(the_reference_diverges_from_a_flat_distribution) {
    /* The measure itself: equal logits have the KL that the goldens' entropy says. */
    golden *g = golden_open(models[_i].top);
    const golden_prompt *p = &g->prompt[0];
    float *flat = calloc(g->n_vocab, sizeof *flat);
    ck_assert_ptr_nonnull(flat);
    double want = 0, log_v = log(g->n_vocab), mass = exp((double)p->log_rest[0]);
    want += mass * ((double)p->log_rest[0] - log((g->n_vocab - g->n_top) / (double)g->n_vocab));
    for (uint32_t i = 0; i < g->n_top; i++) {
        want += exp((double)p->logprob[i]) * ((double)p->logprob[i] + log_v);
        mass += exp((double)p->logprob[i]);
    }
    ck_assert_double_eq_tol(mass, 1, 1e-5);
    ck_assert_double_eq_tol(divergence(g, p, 0, flat), want, 1e-9);
    ck_assert_double_gt(want, 1);
    free(flat);
    golden_close(g);
}
END_TEST

int main(void) {
    Suite *s = suite_create("golden");
    TCase *t = check_case(s, "golden");
    tcase_add_loop_test(t, the_reference_diverges_from_a_flat_distribution, 0, N_MODELS);
    tcase_add_loop_test(t, int8_activations_are_as_near_to_the_reference_as_llama_cpp, 0,
                        N_MODELS);
    tcase_add_loop_test(t, greedy_completions_equal_the_reference_except_at_near_ties, 0,
                        N_MODELS);
    tcase_add_loop_test(t, greedy_completions_of_the_float_family_equal_the_reference, 0,
                        N_MODELS);
    tcase_add_loop_test(t, float_activations_are_the_reference, 0, N_MODELS);
    return check_run(s);
}
