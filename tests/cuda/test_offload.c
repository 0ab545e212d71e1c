/* Layers and experts in the host's memory, on the shim. Copied: the same bits as on the device, whatever the order of
 * copies and kernels. Computed by the CPU: what the CPU's engine says, and the same bits in any company. Plan and
 * ledger of both memories; what is counted, and what fails cleanly. */
#include "tests/cuda/engine_models.h"

#include "base/log.h"
#include "engine/cuda/layout.h"

enum { LAYERS = 6, SEQS = 5, PROMPT = 6, STEPS = 5, LINE = PROMPT + STEPS + 1 };
#include "tests/cuda/crowd.h"

/* A kind of model, of enough layers that some can be on the host; those of a family with layers of several kinds
 * have their own number. */
static const kind deep[] = {
    {"llama", DT_F16, 4, 2, 32, 32, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, LAYERS, false, 0},
    {"qwen2", DT_Q4_0, 8, 2, 16, 16, 8, true, ACTIVATION_BF16, DT_F16, 5e-2, LAYERS, false, 0},
    {"gemma3", DT_F16, 4, 1, 32, 32, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, LAYERS, false, 0},
    {"gpt-oss", DT_MXFP4, 4, 2, 32, 32, 16, false, ACTIVATION_F16, DT_F16, 5e-2, LAYERS, true,
     0},
    {"gemma4", DT_F16, 0, 0, 0, 0, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, 0, false, 6},
    {"qwen35moe", DT_Q8_0, 0, 0, 0, 0, 16, true, ACTIVATION_F16, DT_F16, 4e-2, 0, false, 0},
};
enum { N_DEEP = sizeof deep / sizeof *deep, FIRST_MOE = 3 };

/* What lies on the host: every second layer, all, and of mixtures the experts of four layers
 * beside two layers. */
typedef struct placing {
    uint32_t layers, experts;
    bool moe; /* of mixtures alone */
} placing;
static const placing places[] = {{3, 0, false}, {LAYERS, 0, false}, {2, 4, true}};
enum { N_PLACES = sizeof places / sizeof *places };

static bool is_for(const placing *p, int k) {
    return !p->moe || k >= FIRST_MOE;
}

static uint32_t staged_of(const rig *r) {
    cuda_layout l;
    err e;
    ck_assert(cuda_layout_init(&l, &r->model->program, &r->opt, &e) == OK);
    const uint32_t n = l.n_staged;
    cuda_layout_clear(&l);
    return n;
}

static device_memory memory_of(const rig *r) {
    device_memory d;
    ck_assert(backend_cuda.device_memory(r->engine, &d));
    return d;
}

static void put_layers(engine_options *o, const placing *p) {
    o->host_layers = p->layers, o->host_experts = p->experts;
}

/* As logits_of, by steps without graphs, which copy from and to pinned memory alone. */
static void eager_logits(rig *r, const int32_t *tokens, float *out) {
    const long before = cushim_count().graph_launches, wild = cushim_count().pageable_copies;
    logits_of(r, tokens, out);
    ck_assert_int_eq(cushim_count().graph_launches, before);
    ck_assert_int_eq(cushim_count().pageable_copies, wild);
}

START_TEST(layers_of_the_host_give_the_bits_of_those_on_the_device) {
    const kind *k = &deep[_i];
    gb b;
    char path[64];
    int32_t tokens[N_TOKENS];
    rig r;
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.eager = true;
    cuda_open(&r, path, &o);
    rig_tokens(&r, tokens, N_TOKENS, 1);
    const size_t n = (size_t)N_TOKENS * r.n_vocab;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    ck_assert(want && got);
    logits_of(&r, tokens, want);
    ck_assert_uint_eq(memory_of(&r).staged_bytes, 0);
    rig_close(&r);
    for (uint32_t i = 0; i < N_PLACES; i++) {
        if (!is_for(&places[i], _i)) continue;
        put_layers(&o, &places[i]);
        o.eager = i % 2;
        cuda_open(&r, path, &o);
        ck_assert_uint_gt(staged_of(&r), CUDA_STAGES);
        eager_logits(&r, tokens, got);
        ck_assert_msg(memcmp(got, want, n * sizeof *want) == 0, "kind %d, placing %u", _i, i);
        const device_memory d = memory_of(&r);
        ck_assert(d.step_bytes > 0 && d.staged_bytes > d.step_bytes);
        ck_assert_uint_eq(d.staged_bytes % d.step_bytes, 0);
        ck_assert_uint_gt(d.link_bytes_per_s, 0);
        rig_close(&r);
    }
    ck_assert(cushim_error() == NULL);
    free(want);
    free(got);
    gb_clear(&b);
}
END_TEST

static void take_step(rig *r, crowd *c, uint32_t step) {
    step_result out;
    err e;
    ck_assert_msg(engine_collect(r->engine, &out, &e) == OK, "%s", e.text);
    crowd_take(c, &out, SEQS, PROMPT + step);
}

/* Prompts, then a row of each, with `ahead` two steps in flight: what the second reads the first draws on the
 * device, and its first layers come while the first computes. */
static void generate(rig *r, crowd *c, bool ahead) {
    static batch_seq s[2][SEQS];
    err e;
    crowd_init(c, r, SEQS);
    for (uint32_t i = 0; i < SEQS; i++) {
        c->params[i].temperature = i % 2 ? 0.8f : 0;
        c->params[i].seed = 40 + i;
    }
    for (uint32_t step = 0; step <= STEPS + 1; step++) {
        const uint32_t rows = step ? 1 : PROMPT, first = step ? PROMPT + step - 1 : 0;
        for (uint32_t i = 0; i < SEQS && step <= STEPS; i++) {
            crowd_part(c, &s[step % 2][i], i, first, rows);
            if (step) s[step % 2][i].input_from = (int32_t)i;
        }
        if (step <= STEPS) {
            const batch b = crowd_batch(s[step % 2], SEQS, rows);
            ck_assert_msg(engine_submit(r->engine, &b, &e) == OK, "%s", e.text);
        }
        if (!ahead && step <= STEPS) take_step(r, c, step);
        if (ahead && step) take_step(r, c, step - 1);
    }
}

static void assert_same_tokens(const crowd *got, const crowd *want) {
    for (uint32_t s = 0; s < SEQS; s++)
        ck_assert_mem_eq(got->tokens[s], want->tokens[s], sizeof want->tokens[s]);
}

START_TEST(two_steps_in_flight_draw_what_they_draw_on_the_device) {
    const kind *k = &deep[_i];
    static crowd want, got;
    gb b;
    char path[64];
    rig r;
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.eager = true;
    cuda_open(&r, path, &o);
    generate(&r, &want, true);
    rig_close(&r);
    for (uint32_t i = 0; i < N_PLACES; i++) {
        if (!is_for(&places[i], _i)) continue;
        put_layers(&o, &places[i]);
        cuda_open(&r, path, &o);
        generate(&r, &got, true);
        assert_same_tokens(&got, &want);
        const device_memory d = memory_of(&r);
        ck_assert_uint_eq(d.staged_bytes, (STEPS + 1) * d.step_bytes);
        rig_close(&r);
    }
    gb_clear(&b);
}
END_TEST

/* ---- computed by the CPU ---- */

static uint32_t runs_of(const rig *r, uint32_t *n_absent) {
    cuda_layout l;
    err e;
    ck_assert(cuda_layout_init(&l, &r->model->program, &r->opt, &e) == OK);
    const uint32_t n = l.n_host_runs;
    *n_absent = 0;
    for (uint32_t i = 0; i < l.n_places; i++) *n_absent += l.places[i].staged == CUDA_ABSENT;
    cuda_layout_clear(&l);
    return n;
}

START_TEST(what_the_cpu_computes_is_what_the_device_would) {
    const kind *k = &deep[_i];
    gb b;
    char path[64];
    int32_t tokens[N_TOKENS];
    rig r;
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    cpu_open(&r, path, &o);
    rig_tokens(&r, tokens, N_TOKENS, 1);
    const size_t n = (size_t)N_TOKENS * r.n_vocab;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    ck_assert(want && got);
    logits_of(&r, tokens, want);
    rig_close(&r);
    /* And what the CPU's own activations lose, by which a router may choose others. */
    engine_options own = o;
    own.activations = k->activations == ACTIVATION_F16 ? ACTIVATION_AUTO : k->activations;
    rig_open(&r, path, &own);
    logits_of(&r, tokens, got);
    const double limit = k->limit + 2 * distance(got, want, n);
    rig_close(&r);
    o.host_computes = true;
    for (uint32_t i = 0; i < N_PLACES; i++) {
        uint32_t absent;
        if (!is_for(&places[i], _i)) continue;
        put_layers(&o, &places[i]);
        o.n_threads = 1 + i % 2;
        cuda_open(&r, path, &o);
        ck_assert_uint_eq(staged_of(&r), 0);
        ck_assert_uint_ge(runs_of(&r, &absent), places[i].layers + places[i].experts);
        ck_assert_uint_ge(absent, 4 * places[i].layers + 2 * places[i].experts);
        eager_logits(&r, tokens, got);
        const double d = distance(got, want, n);
        ck_assert_msg(d < limit, "kind %d, placing %u: %g, at most %g", _i, i, d, limit);
        const device_memory m = memory_of(&r);
        ck_assert(m.computed_bytes > 0 && m.step_bytes == 0 && m.staged_bytes == 0);
        rig_close(&r);
    }
    ck_assert(cushim_error() == NULL);
    free(want);
    free(got);
    gb_clear(&b);
}
END_TEST

/* Two steps in flight, whose parts of the CPU are called one after the other: whatever the order of copies. */
START_TEST(two_steps_in_flight_draw_what_one_at_a_time_draws) {
    const kind *k = &deep[_i];
    static crowd want, got;
    gb b;
    char path[64];
    rig r;
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.host_computes = true;
    for (uint32_t i = 0; i < N_PLACES; i++) {
        if (!is_for(&places[i], _i)) continue;
        put_layers(&o, &places[i]);
        cuda_open(&r, path, &o);
        generate(&r, &want, false);
        generate(&r, &got, true);
        assert_same_tokens(&got, &want);
        rig_close(&r);
    }
    gb_clear(&b);
}
END_TEST

/* With batch_invariant on the device: chunks beside another sequence, or a whole prompt alone; one thread or two. */
START_TEST(what_the_cpu_computes_has_the_same_bits_in_every_company) {
    const kind *k = &deep[_i];
    gb b;
    char path[64];
    int32_t tokens[N_TOKENS], table[32];
    rig r;
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.host_computes = o.batch_invariant = true;
    o.host_layers = 3, o.host_experts = 4;
    cuda_open(&r, path, &o);
    rig_tokens(&r, tokens, N_TOKENS, 1);
    const size_t n = (size_t)N_TOKENS * r.n_vocab;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    ck_assert(want && got);
    logits_of(&r, tokens, want);
    rig_close(&r);
    o.n_threads = 2;
    cuda_open(&r, path, &o);
    rig_table(&r, table, 0, blocks_of(&r), 1);
    const part whole = {.tokens = tokens, .table = table, .n = N_TOKENS, .n_logits = N_TOKENS};
    step_result s = rig_run(&r, &whole, 1);
    ck_assert_mem_eq(s.logits, want, n * sizeof *want);
    logits_of(&r, tokens, got);
    ck_assert_mem_eq(got, want, n * sizeof *want);
    rig_close(&r);
    free(want);
    free(got);
    gb_clear(&b);
}
END_TEST

/* _i / 2: copied or computed; _i % 2: a dense model or a mixture. */
START_TEST(the_plan_of_both_memories_is_what_opening_allocates) {
    const int at = _i % 2 ? FIRST_MOE : 0;
    static const placing of[] = {{0, 0, false}, {1, 0, false}, {2, 0, false}, {3, 0, false},
                                 {5, 0, false}, {6, 0, false}, {0, 2, true},  {0, 6, true},
                                 {1, 2, true},  {3, 6, true}};
    gb b;
    char path[64];
    err e;
    tiny_open(&b, path, &deep[at]);
    engine_options o = tiny_options(&deep[at]);
    o.max_rows = o.max_seqs = o.max_logit_rows = 8;
    o.host_computes = _i / 2;
    for (uint32_t i = 0; i < sizeof of / sizeof *of; i++) {
        put_layers(&o, &of[i]);
        if (is_for(&of[i], at))
            ck_assert_msg(open_planned(path, &o, true, &e), "placing %u: %s", i, e.text);
    }
    gb_clear(&b);
}
END_TEST

START_TEST(any_allocation_may_fail_and_leaves_nothing_behind) {
    gb b;
    char path[64];
    err e;
    long n = 0;
    tiny_open(&b, path, &deep[0]);
    engine_options o = tiny_options(&deep[0]);
    o.max_rows = o.max_seqs = o.max_logit_rows = 2;
    o.host_layers = 4;
    o.host_computes = _i;
    for (bool ok = false; !ok;) {
        cushim_fail_alloc(++n);
        ok = open_planned(path, &o, false, &e);
        cushim_fail_alloc(0);
        ck_assert_int_eq(cushim_count().allocations, 0);
        ck_assert_uint_eq(cushim_count().bytes, 0);
        ck_assert(ok || e.code == ERR_NO_MEMORY || e.code == ERR_DEVICE);
        ck_assert_int_lt(n, 200);
    }
    ck_assert_int_ge(n, 3);
    gb_clear(&b);
}
END_TEST

int main(void) {
    Suite *s = suite_create("offload");
    TCase *t = check_case(s, "offload");
    log_init(LOG_ERROR);
    cuda_backend_use(vramd_cuda_plugin);
    tcase_add_loop_test(t, layers_of_the_host_give_the_bits_of_those_on_the_device, 0, N_DEEP);
    tcase_add_loop_test(t, two_steps_in_flight_draw_what_they_draw_on_the_device, 0, N_DEEP);
    tcase_add_loop_test(t, the_plan_of_both_memories_is_what_opening_allocates, 0, 4);
    tcase_add_loop_test(t, any_allocation_may_fail_and_leaves_nothing_behind, 0, 2);
    t = check_case(s, "computed");
    tcase_add_loop_test(t, what_the_cpu_computes_is_what_the_device_would, 0, N_DEEP);
    tcase_add_loop_test(t, two_steps_in_flight_draw_what_one_at_a_time_draws, 0, N_DEEP);
    tcase_add_loop_test(t, what_the_cpu_computes_has_the_same_bits_in_every_company, 0, N_DEEP);
    return check_run(s);
}
