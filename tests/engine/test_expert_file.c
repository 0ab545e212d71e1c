/* Experts that stay in the model's file: with any number of slots the same bits as with all in memory, in
 * any family, on any number of threads; what is held is what was planned; hits rise with slots; a file that
 * can no longer be read fails the steps that need it, and no other. */
#include <unistd.h>

#include "tests/engine/engine_rig.h"
#include "tests/model/gguf_build.h"
#include "tests/model/gguf_hybrid.h"
#include "tests/model/gguf_shaped.h"

enum { PROMPT = 37, DECODED = 5, LEN = PROMPT + DECODED, BLOCKS = (LEN + 15) / 16 };

/* on_disk: a file of a file system, which may be read directly; else of memory. */
static const struct {
    const char *arch;
    activation_dtype activations;
    bool on_disk;
} models[] = {
    {"qwen3moe", ACTIVATION_INT8, true},   {"qwen3moe", ACTIVATION_BF16, false},
    {"qwen3moe", ACTIVATION_F32, false},   {"gpt-oss", ACTIVATION_INT8, true},
    {"gemma4", ACTIVATION_INT8, false},    {"glm4moe", ACTIVATION_INT8, false},
    {"deepseek2", ACTIVATION_INT8, false}, {"qwen35moe", ACTIVATION_INT8, false},
    {"lfm2moe", ACTIVATION_INT8, false},   {"nemotron_h_moe", ACTIVATION_INT8, false},
    {"granitemoe", ACTIVATION_INT8, true},
};
enum { N_MODELS = sizeof models / sizeof *models };

static gb b;
static char path[64];

static void write_model(int which) {
    const char *arch = models[which].arch;
    gb_init(&b);
    if (gb_is_hybrid(arch)) {
        const model_config c = gb_hybrid_config(arch, 128);
        gb_hybrid_keys(&b, &c);
        gb_hybrid_tensors(&b, &c, DT_Q4_0, 7);
    } else if (family_find(arch)->shaped) {
        const model_config c = gb_shaped_config(arch, 128, 40);
        gb_shaped_keys(&b, &c);
        gb_shaped_tensors(&b, &c, DT_Q4_0, 7);
    } else {
        model_config c = gb_tiny(arch);
        c.n_layers = 4, c.n_embd = 256, c.n_experts = 16, c.n_experts_used = 3;
        gb_model_keys(&b, &c);
        gb_model_tensors(&b, &c, strcmp(arch, "gpt-oss") == 0 ? DT_MXFP4 : DT_Q4_K, 7);
    }
    snprintf(path, sizeof path, "/tmp/vramd-experts-%d.gguf", getpid());
    if (models[which].on_disk)
        gb_save(&b, path);
    else
        gb_open(&b, path);
}

static void remove_model(int which) {
    if (models[which].on_disk) unlink(path);
    gb_clear(&b);
}

static engine_options options(int which, uint32_t n_slots, uint32_t n_threads) {
    engine_options o = rig_options();
    o.activations = models[which].activations;
    o.expert_slots = n_slots;
    o.n_threads = n_threads;
    return o;
}

/* A prompt beside another one, then steps of one row; the logits of all. */
static float *answers(rig *r, size_t *n) {
    int32_t tokens[2][LEN], table[2][BLOCKS];
    const size_t row = r->n_vocab * sizeof(float);
    float *all = malloc((2 * PROMPT + 2 * DECODED) * row), *to = all;
    ck_assert_ptr_nonnull(all);
    for (uint32_t i = 0; i < 2; i++) {
        rig_tokens(r, tokens[i], LEN, 1 + i);
        rig_table(r, table[i], i, BLOCKS, 1);
    }
    for (uint32_t at = 0, rows; at < LEN; at += rows) {
        rows = at ? 1 : PROMPT;
        const part p[2] = {{tokens[0], table[0], at, rows, rows > 30 ? 30 : rows, NULL, 0},
                           {tokens[1], table[1], at, rows, rows > 30 ? 30 : rows, NULL, 0}};
        const step_result s = rig_run(r, p, 2);
        memcpy(to, s.logits, 2 * p[0].n_logits * row);
        to += 2 * p[0].n_logits * r->n_vocab;
    }
    *n = (size_t)(to - all) * sizeof *to;
    return all;
}

static expert_stats run(int which, uint32_t n_slots, uint32_t n_threads, const float *want,
                        size_t want_bytes) {
    const engine_options o = options(which, n_slots, n_threads);
    expert_stats st;
    size_t n;
    rig r;
    rig_open(&r, path, &o);
    float *got = answers(&r, &n);
    ck_assert_uint_eq(n, want_bytes);
    ck_assert_msg(memcmp(got, want, n) == 0, "%s: %u slots, %u threads: other bits",
                  models[which].arch, n_slots, n_threads);
    engine_expert_stats(r.engine, &st);
    ck_assert_uint_eq(st.n_slots, n_slots);
    ck_assert_uint_eq(st.read_errors, 0);
    free(got);
    rig_close(&r);
    return st;
}

START_TEST(any_number_of_slots_has_the_bits_of_all_in_memory) {
    write_model(_i);
    const engine_options o = options(_i, 0, 2);
    size_t n;
    rig r;
    rig_open(&r, path, &o);
    float *want = answers(&r, &n);
    const expert_shape shape = r.engine->backend->experts(&r.model->program);
    rig_close(&r);
    ck_assert_uint_ge(shape.n_all, 8);
    const uint32_t slots[] = {2, 3, shape.n_all / 4, shape.n_all / 2, shape.n_all};
    expert_stats few = {0}, all = {0};
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        for (uint32_t threads = 1; threads <= 3; threads++) {
            const expert_stats st = run(_i, slots[i], threads, want, n);
            ck_assert_uint_gt(st.misses, 0);
            if (slots[i] == 2) few = st;
            if (slots[i] == shape.n_all) all = st;
        }
    ck_assert(all.hits > few.hits && all.read_bytes < few.read_bytes);
    ck_assert_uint_le(all.misses, shape.n_all); /* each is read once */
    free(want);
    remove_model(_i);
}
END_TEST

START_TEST(the_ledger_holds_what_is_planned) {
    write_model(0);
    const engine_options o = options(0, 9, 2);
    rig r;
    terms t = {0};
    kv_request kv = {0};
    ledger_view v;
    err e;
    rig_open_bare(&r, &backend_cpu, path, &o);
    ck_assert_int_eq(backend_cpu.terms(&r.model->program, &o, &t, &kv, &e), OK);
    ledger_read(r.ledger, &v);
    for (int c = 0; c < MEM_N_CLASSES; c++)
        if (c != MEM_KV) ck_assert_uint_eq(v.cls[c].ledger_bytes, terms_sum(&t, (mem_class)c));
    ck_assert_uint_gt(v.cls[MEM_EXPERTS].ledger_bytes, 0);
    terms_clear(&t);
    rig_close(&r);
    remove_model(0);
}
END_TEST

/* One step of a few rows; its logits are the caller's to free. */
static status try(rig *r, uint64_t seed, float **out, err *e) {
    int32_t tokens[8], table[1];
    step_result s = {0};
    rig_tokens(r, tokens, 8, seed);
    rig_table(r, table, 0, 1, 1);
    const part p = {tokens, table, 0, 8, 8, NULL, 0};
    const status st = rig_try(r, &p, 1, &s, e);
    *out = NULL;
    if (st != OK) return st;
    *out = malloc(8 * r->n_vocab * sizeof(float));
    ck_assert_ptr_nonnull(*out);
    memcpy(*out, s.logits, 8 * r->n_vocab * sizeof(float));
    return st;
}

START_TEST(a_file_that_shrank_fails_steps_and_the_engine_goes_on) {
    const bool waves = _i;
    write_model(2);
    const engine_options o = options(2, waves ? 2 : 64, 2);
    expert_stats st;
    float *first, *again, *none;
    rig r;
    err e;
    rig_open(&r, path, &o);
    checkpoint_close(r.file); /* the daemon does */
    r.file = NULL;
    ck_assert_int_eq(try(&r, 1, &first, &e), OK);
    ck_assert_int_eq(ftruncate(b.fd, 4096), 0);
    ck_assert_int_eq(try(&r, 2, &none, &e), ERR_IO);
    ck_assert_ptr_nonnull(strstr(e.text, "since it was opened"));
    engine_expert_stats(r.engine, &st);
    ck_assert_uint_gt(st.read_errors, 0);
    /* What is in memory is served. */
    ck_assert_int_eq(try(&r, 1, &again, &e), waves ? ERR_IO : OK);
    if (again) ck_assert_mem_eq(first, again, 8 * r.n_vocab * sizeof(float));
    free(again);
    free(first);
    rig_close(&r);
    remove_model(2);
}
END_TEST

START_TEST(what_cannot_be_is_refused_and_named) {
    write_model(0);
    rig r;
    err e;
    engine_options o = options(0, 0, 1);
    rig_open_bare(&r, &backend_cpu, path, &o);
    engine *en;
    o.expert_slots = 1;
    ck_assert_int_eq(engine_open(&en, &backend_cpu, r.model, &o, r.ledger, r.device, &e),
                     ERR_INVALID);
    ck_assert_str_eq(e.field, "expert_memory");
    rig_close(&r);
    remove_model(0);
}
END_TEST

int main(void) {
    Suite *s = suite_create("expert_file");
    TCase *t = check_case(s, "expert_file");
    tcase_add_loop_test(t, any_number_of_slots_has_the_bits_of_all_in_memory, 0, N_MODELS);
    tcase_add_test(t, the_ledger_holds_what_is_planned);
    tcase_add_loop_test(t, a_file_that_shrank_fails_steps_and_the_engine_goes_on, 0, 2);
    tcase_add_test(t, what_cannot_be_is_refused_and_named);
    return check_run(s);
}
