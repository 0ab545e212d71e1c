/* Mixtures of experts: the choice and the sort by themselves, and SmolLM2 as a mixture made of its
 * own bytes, whose answers are known: experts that are copies of its feed-forward part, or slices
 * of it. test_engine.c has tiny mixtures against float64, test_same_bits.c their bits. */
#include "tests/engine/engine_rig.h"

#include <math.h>
#include <stdio.h>

#include "engine/cpu/route.h"

/* ---- the choice ---- */

enum { N = 5, K = 2 };

static op router(route_gate gate, bool norm, float scale) {
    return (op){.kind = OP_ROUTE,
                .route = {.top_k = K, .gate = gate, .norm = norm, .scale = scale}};
}

static void choose_by(const op *o, const route_vectors *v, const float *logits,
                      route_word out[2 * K]) {
    float scratch[2 * N];
    route_choose(o, v, logits, N, op_kernels_get(ISA_PLAIN)->exp2, scratch, out);
}

static void choose(const op *o, const float *logits, route_word out[2 * K]) {
    choose_by(o, &(route_vectors){NULL, NULL}, logits, out);
}

START_TEST(the_largest_are_chosen_and_the_lowest_index_on_a_tie) {
    const float logits[N] = {1, 3, -2, 3, 3}, flat[N] = {0};
    const op o = router(ROUTE_SOFTMAX, true, 1);
    route_word out[2 * K];
    choose(&o, logits, out);
    ck_assert(out[0].expert == 1 && out[1].expert == 3);
    choose(&o, flat, out);
    ck_assert(out[0].expert == 0 && out[1].expert == 1);
    ck_assert(out[K].weight == 0.5f && out[K + 1].weight == 0.5f); /* exactly */
}
END_TEST

START_TEST(weights_are_those_of_the_formula) {
    const float logits[N] = {0.5f, -1, 2, 0.25f, 1.5f};
    double all = 0, two = exp(2) + exp(1.5), sigmoids[2];
    for (int i = 0; i < N; i++) all += exp((double)logits[i]);
    for (int i = 0; i < 2; i++) sigmoids[i] = 1 / (1 + exp(i ? -1.5 : -2));
    const struct {
        route_gate gate;
        bool norm;
        float scale;
        double want[2];
    } cases[] = {
        {ROUTE_SOFTMAX, false, 1, {exp(2) / all, exp(1.5) / all}},
        {ROUTE_SOFTMAX, true, 1, {exp(2) / two, exp(1.5) / two}},
        {ROUTE_SIGMOID, false, 2.5f, {2.5 * sigmoids[0], 2.5 * sigmoids[1]}},
        {ROUTE_SIGMOID,
         true,
         1,
         {sigmoids[0] / (sigmoids[0] + sigmoids[1]),
          sigmoids[1] / (sigmoids[0] + sigmoids[1])}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const op o = router(cases[i].gate, cases[i].norm, cases[i].scale);
        route_word out[2 * K];
        choose(&o, logits, out);
        ck_assert(out[0].expert == 2 && out[1].expert == 4);
        for (int k = 0; k < K; k++)
            ck_assert_double_eq_tol(out[K + k].weight, cases[i].want[k], 1e-6);
    }
}
END_TEST

START_TEST(a_bias_chooses_and_weighs_nothing) {
    const float logits[N] = {0.5f, -1, 2, 0.25f, 1.5f}, bias[N] = {0, 3, 0, 0, -3};
    const route_vectors v = {bias, NULL};
    op o = router(ROUTE_SIGMOID, false, 1);
    route_word out[2 * K];
    choose_by(&o, &v, logits, out);
    ck_assert(out[0].expert == 1 && out[1].expert == 2);
    ck_assert_double_eq_tol(out[K].weight, 1 / (1 + exp(1)), 1e-7);
    ck_assert_double_eq_tol(out[K + 1].weight, 1 / (1 + exp(-2)), 1e-7);
    /* Of softmax the probabilities count, of which none is above 1. */
    o.route.gate = ROUTE_SOFTMAX;
    choose_by(&o, &(route_vectors){(float[N]){0.7f}, NULL}, logits, out);
    ck_assert(out[0].expert == 0 && out[1].expert == 2);
}
END_TEST

START_TEST(experts_have_factors_and_sums_an_epsilon) {
    const float logits[N] = {0, 0, 0, 0, 0}, scale[N] = {3, 0.5f, 1, 1, 1};
    op o = router(ROUTE_SIGMOID, true, 2);
    route_word out[2 * K];
    o.route.eps = 1;
    choose_by(&o, &(route_vectors){NULL, scale}, logits, out);
    ck_assert(out[0].expert == 0 && out[1].expert == 1);
    ck_assert_double_eq_tol(out[K].weight, 1.5, 1e-6); /* 2 * 0.5 / (1 + 1) * 3 */
    ck_assert_double_eq_tol(out[K + 1].weight, 0.25, 1e-6);
}
END_TEST

START_TEST(groups_limit_the_choice) {
    enum { MOST = 6 };
    const float logits[MOST] = {3, -3, 1, 2, -1, 0};
    float scratch[2 * MOST];
    route_word out[2 * K];
    op o = router(ROUTE_SOFTMAX, true, 1);
    o.route.n_groups = 3, o.route.groups_used = 1, o.route.group_best = 1;
    const route_vectors none = {NULL, NULL};
    void (*exp2)(const float *, uint32_t, float *) = op_kernels_get(ISA_PLAIN)->exp2;
    route_choose(&o, &none, logits, MOST, exp2, scratch, out);
    ck_assert(out[0].expert == 0 && out[1].expert == 1); /* of the best of all */
    o.route.gate = ROUTE_SIGMOID, o.route.group_best = 2;
    route_choose(&o, &none, logits, MOST, exp2, scratch, out);
    ck_assert(out[0].expert == 3 && out[1].expert == 2); /* of the best two together */
    o.route.groups_used = 2;
    route_choose(&o, &none, logits, MOST, exp2, scratch, out);
    ck_assert(out[0].expert == 0 && out[1].expert == 3);
}
END_TEST

START_TEST(logits_that_are_no_numbers_choose_the_first_and_weigh_nan) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const op o = router(_i % 2 ? ROUTE_SIGMOID : ROUTE_SOFTMAX, true, 1);
    float logits[N] = {1, 2, 3, 4, 5};
    route_word out[2 * K];
    logits[_i % N] = bad[_i / 2 % 3];
    choose(&o, logits, out);
    ck_assert(out[0].expert == 0 && out[1].expert == 1);
    ck_assert(isnan(out[K].weight) && isnan(out[K + 1].weight));
}
END_TEST

START_TEST(sigmoids_that_are_all_zero_give_numbers) {
    const float logits[N] = {-500, -400, -300, -600, -700};
    const op o = router(ROUTE_SIGMOID, true, 1);
    route_word out[2 * K];
    choose(&o, logits, out);
    ck_assert(out[0].expert == 2 && isfinite(out[K].weight));
}
END_TEST

START_TEST(rows_are_sorted_by_expert_and_keep_their_order) {
    enum { ROWS = 300 };
    uint32_t first[N + 1], used[N], row[ROWS * K], seen = 0;
    float weight[ROWS * K];
    route_word chosen[ROWS * 2 * K];
    route_sorted s = {.first = first, .used = used, .row = row, .weight = weight};
    for (uint32_t r = 0; r < ROWS; r++) { /* no row chooses expert 3 */
        const uint32_t a = (uint32_t)hash_mix(r) % 3;
        chosen[r * 2 * K].expert = a == 2 ? 4 : a;
        chosen[r * 2 * K + 1].expert = (a + 1) % 3;
        for (uint32_t k = 0; k < K; k++)
            chosen[r * 2 * K + K + k].weight = (float)(r * 8 + chosen[r * 2 * K + k].expert);
    }
    route_sort(&s, chosen, ROWS, K, N);
    ck_assert_uint_eq(first[0], 0);
    ck_assert_uint_eq(first[N], ROWS * K);
    ck_assert_uint_eq(s.n_used, 4);
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t k = first[i]; k < first[i + 1]; k++, seen++) {
            ck_assert(k == first[i] || row[k] > row[k - 1]);
            ck_assert_float_eq(weight[k], (float)(row[k] * 8 + i));
            ck_assert_uint_le(first[i + 1] - first[i], s.n_most);
        }
    ck_assert_uint_eq(seen, ROWS * K);
}
END_TEST

/* ---- SmolLM2 as a mixture ---- */

enum { EXPERTS = 4, LAYERS = 30, WIDE = 576, TOKENS = 12 };
enum { COPIES, SLICES };

/* The real file, whose feed-forward tensors are presented as those of four experts: each the whole
 * of it, or a quarter of its inner width. Routers are 0, or random. */
typedef struct smol {
    checkpoint base;
    checkpoint *real;
    int kind;
    bool random;
    size_t n_real;
    char (*names)[72]; /* of all tensors; routers last */
} smol;

static const smol *smol_of(const checkpoint *c) {
    return (const smol *)(const void *)c;
}

static bool name_has(const smol *s, size_t i, const char *what) {
    return strstr(s->names[i], what) != NULL;
}

static bool of_experts(const smol *s, size_t i) {
    return name_has(s, i, "_exps.weight");
}

static void smol_tensor(const checkpoint *c, size_t i, tensor_info *out) {
    const smol *s = smol_of(c);
    *out = i < s->n_real ? checkpoint_tensor(s->real, i)
                         : (tensor_info){.type = DT_F32, .ne = {WIDE, EXPERTS, 1, 1}};
    out->name = s->names[i];
    if (!of_experts(s, i)) return;
    out->ne[2] = EXPERTS;
    if (s->kind == SLICES) out->ne[name_has(s, i, "ffn_down") ? 0 : 1] /= EXPERTS;
}

static size_t smol_n_tensors(const checkpoint *c) {
    return smol_of(c)->n_real + LAYERS;
}

static int32_t smol_find(const checkpoint *c, const char *name) {
    for (size_t i = 0; i < smol_n_tensors(c); i++)
        if (strcmp(smol_of(c)->names[i], name) == 0) return (int32_t)i;
    return -1;
}

static status smol_row(const smol *s, size_t i, uint64_t row, const tensor_info *t, void *dst,
                       err *e) {
    if (i >= s->n_real) {
        float w[WIDE];
        for (uint32_t k = 0; k < WIDE; k++)
            w[k] = (float)(hash_mix(i << 32 | row << 16 | k) % 4001) * 1e-4f - 0.2f;
        memcpy(dst, w, sizeof w);
        if (!s->random) memset(dst, 0, sizeof w);
        return OK;
    }
    if (s->kind == SLICES && name_has(s, i, "ffn_down"))
        return checkpoint_read_part(s->real, i, row % t->ne[1], row / t->ne[1] * t->ne[0],
                                    t->ne[0], dst, e);
    const uint64_t at = s->kind == COPIES && of_experts(s, i) ? row % t->ne[1] : row;
    return checkpoint_read_rows(s->real, i, at, 1, dst, e);
}

static status smol_read_rows(const checkpoint *c, size_t i, uint64_t row, uint64_t n, void *dst,
                             err *e) {
    tensor_info t;
    uint64_t bytes;
    status st = OK;
    smol_tensor(c, i, &t);
    CHECK(dtype_bytes(t.type, 1, t.ne[0], &bytes));
    for (uint64_t k = 0; k < n && st == OK; k++)
        st = smol_row(smol_of(c), i, row + k, &t, (char *)dst + k * bytes, e);
    return st;
}

static const char *smol_path(const checkpoint *c) {
    return checkpoint_path(smol_of(c)->real);
}
static bool smol_has(const checkpoint *c, const char *key) {
    return checkpoint_has(smol_of(c)->real, key);
}
static bool smol_length(const checkpoint *c, const char *key, uint64_t *n) {
    return checkpoint_length(smol_of(c)->real, key, n);
}
static status smol_u32(const checkpoint *c, const char *key, uint32_t *out, err *e) {
    const smol *s = smol_of(c);
    const uint32_t used = s->kind == COPIES ? 2 : EXPERTS;
    status st = checkpoint_get_u32(s->real, key, out, e);
    if (strcmp(key, "llama.expert_count") == 0) *out = EXPERTS;
    if (strcmp(key, "llama.expert_used_count") == 0) *out = used;
    if (strcmp(key, "llama.expert_feed_forward_length") == 0 && s->kind == SLICES)
        *out /= EXPERTS;
    return st;
}
static status smol_f32(const checkpoint *c, const char *key, float *out, err *e) {
    /* Slices add up: their weights, a quarter each, become 1. */
    if (strcmp(key, "llama.expert_weights_scale") == 0 && smol_of(c)->kind == SLICES)
        *out = EXPERTS;
    return checkpoint_get_f32(smol_of(c)->real, key, out, e);
}
static status smol_bool(const checkpoint *c, const char *key, bool *out, err *e) {
    return checkpoint_get_bool(smol_of(c)->real, key, out, e);
}
static status smol_str(const checkpoint *c, const char *key, str *out, err *e) {
    return checkpoint_get_str(smol_of(c)->real, key, out, e);
}
static status smol_array(const checkpoint *c, const char *key, fact_type type, fact_array *out,
                         err *e) {
    return checkpoint_get_array(smol_of(c)->real, key, type, out, e);
}
static void smol_close(checkpoint *c) {
    smol *s = (smol *)(void *)c;
    checkpoint_close(s->real);
    free(s->names);
    free(s);
}

static const checkpoint_format smol_format = {.name = "a mixture",
                                              .permutes_qk = true,
                                              .path = smol_path,
                                              .n_tensors = smol_n_tensors,
                                              .tensor = smol_tensor,
                                              .find = smol_find,
                                              .read_rows = smol_read_rows,
                                              .has = smol_has,
                                              .length = smol_length,
                                              .get_u32 = smol_u32,
                                              .get_f32 = smol_f32,
                                              .get_bool = smol_bool,
                                              .get_str = smol_str,
                                              .get_array = smol_array,
                                              .close = smol_close};

static checkpoint *smol_open(int kind, bool random) {
    smol *s = calloc(1, sizeof *s);
    err e;
    ck_assert_ptr_nonnull(s);
    ck_assert_msg(checkpoint_open(&s->real, test_model(), &e) == OK, "%s", e.text);
    s->base.format = &smol_format;
    s->kind = kind;
    s->random = random;
    s->n_real = checkpoint_n_tensors(s->real);
    s->names = calloc(s->n_real + LAYERS, sizeof *s->names);
    ck_assert_ptr_nonnull(s->names);
    for (size_t i = 0; i < s->n_real; i++) {
        const char *name = checkpoint_tensor(s->real, i).name;
        const char *tail = strstr(name, ".ffn_"), *dot = tail ? strchr(tail + 1, '.') : NULL;
        if (dot && !strstr(name, "ffn_norm"))
            snprintf(s->names[i], sizeof *s->names, "%.*s_exps%s", (int)(dot - name), name,
                     dot);
        else
            snprintf(s->names[i], sizeof *s->names, "%s", name);
    }
    for (size_t i = 0; i < LAYERS; i++)
        snprintf(s->names[s->n_real + i], sizeof *s->names, "blk.%zu.ffn_gate_inp.weight", i);
    return &s->base;
}

/* Logits of all rows of one sequence, in chunks; kept by the caller. file: NULL: the real model. */
static float *logits_of(checkpoint *file, const engine_options *o, uint32_t chunk,
                        uint32_t *n_vocab) {
    rig r = {.opt = *o, .file = file};
    int32_t tokens[TOKENS], table[1] = {2};
    err e;
    if (file) {
        r.opt.keep_logits = true;
        ck_assert_msg(model_open(&r.model, file, &e) == OK, "%s", e.text);
        ck_assert_msg(ledger_open_unlimited(&r.ledger, &e) == OK, "%s", e.text);
        ck_assert_msg(ledger_open_unlimited(&r.device, &e) == OK, "%s", e.text);
        ck_assert_msg(
            engine_open(&r.engine, &backend_cpu, r.model, &r.opt, r.ledger, r.device, &e) == OK,
            "%s", e.text);
        r.n_vocab = r.model->program.config.n_vocab;
    } else {
        rig_open(&r, test_model(), o);
    }
    *n_vocab = r.n_vocab;
    float *out = malloc(sizeof(float) * TOKENS * r.n_vocab);
    ck_assert_ptr_nonnull(out);
    rig_tokens(&r, tokens, TOKENS, 4);
    rig_poison(&r);
    for (uint32_t at = 0, n; at < TOKENS; at += n) {
        n = TOKENS - at < chunk ? TOKENS - at : chunk;
        part p = {tokens, table, at, n, n, NULL, 0};
        memcpy(out + (size_t)at * r.n_vocab, rig_run(&r, &p, 1).logits,
               sizeof(float) * n * r.n_vocab);
    }
    rig_close(&r);
    return out;
}

static double distance(const float *a, const float *b, uint64_t n) {
    double diff = 0, all = 0;
    for (uint64_t i = 0; i < n; i++) {
        const double x = (double)a[i] - (double)b[i];
        diff += x * x, all += (double)b[i] * (double)b[i];
    }
    return sqrt(diff / all);
}

START_TEST(two_copies_of_weight_one_half_have_the_bits_of_the_dense_model) {
    engine_options o = rig_options();
    uint32_t n_vocab;
    for (int f32 = 0; f32 < 2; f32++) {
        o.activations = f32 ? ACTIVATION_F32 : ACTIVATION_INT8;
        float *dense = logits_of(NULL, &o, TOKENS, &n_vocab);
        for (uint32_t chunk = 1; chunk <= TOKENS; chunk += TOKENS - 1) {
            float *mixture = logits_of(smol_open(COPIES, false), &o, chunk, &n_vocab);
            ck_assert_mem_eq(dense, mixture, sizeof(float) * TOKENS * n_vocab);
            free(mixture);
        }
        free(dense);
    }
}
END_TEST

START_TEST(copies_by_any_weights_and_slices_are_the_dense_model_but_for_rounding) {
    engine_options o = rig_options();
    uint32_t n_vocab;
    o.activations = ACTIVATION_F32;
    o.kv_k = o.kv_v = DT_F32;
    float *dense = logits_of(NULL, &o, TOKENS, &n_vocab);
    for (int kind = COPIES; kind <= SLICES; kind++) {
        float *mixture = logits_of(smol_open(kind, kind == COPIES), &o, 5, &n_vocab);
        const double d = distance(mixture, dense, (uint64_t)TOKENS * n_vocab);
        printf("%s: distance %.3g\n", kind == COPIES ? "copies" : "slices", d);
        ck_assert_msg(d > 0 && d < 1e-5, "distance %g", d);
        free(mixture);
    }
    free(dense);
}
END_TEST

int main(void) {
    Suite *s = suite_create("experts");
    TCase *t = check_case(s, "experts");
    tcase_add_test(t, the_largest_are_chosen_and_the_lowest_index_on_a_tie);
    tcase_add_test(t, weights_are_those_of_the_formula);
    tcase_add_test(t, a_bias_chooses_and_weighs_nothing);
    tcase_add_test(t, experts_have_factors_and_sums_an_epsilon);
    tcase_add_test(t, groups_limit_the_choice);
    tcase_add_loop_test(t, logits_that_are_no_numbers_choose_the_first_and_weigh_nan, 0, 6);
    tcase_add_test(t, sigmoids_that_are_all_zero_give_numbers);
    tcase_add_test(t, rows_are_sorted_by_expert_and_keep_their_order);
    tcase_add_test(t, two_copies_of_weight_one_half_have_the_bits_of_the_dense_model);
    tcase_add_test(t, copies_by_any_weights_and_slices_are_the_dense_model_but_for_rounding);
    return check_run(s);
}
