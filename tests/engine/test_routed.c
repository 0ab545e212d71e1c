/* What mixture-of-experts models and ranks add to a program: weights of three dimensions,
 * slices of columns, values with a row for each expert that a row is routed to. They are read
 * and planned. */
#include "tests/engine/engine_rig.h"
#include "tests/model/gguf_build.h"

#include "engine/arrange.h"
#include "engine/cuda/backend_cuda.h"
#include "model/recorder.h"

enum { EXPERTS = 4, TOP_K = 2, WIDE = 64, FF = 96, ROWS = 3 };

static gb b;
static rig r;
static recorder rec;
static err e;

/* A recorder over the file that was built. */
static void record_on(void) {
    static bool claimed[8];
    char path[64];
    gb_open(&b, path);
    ck_assert_msg(checkpoint_open(&r.file, path, &e) == OK, "%s", e.text);
    r.model = calloc(1, sizeof *r.model);
    ck_assert_ptr_nonnull(r.model);
    r.model->file = r.file;
    r.model->program.config = gb_tiny("llama");
    rec = (recorder){.p = &r.model->program, .file = r.file, .claimed = claimed, .e = &e};
}

static void setup(void) {
    gb_init(&b);
    gb_model_keys(&b, &(model_config){.arch = "llama", .n_layers = 1});
    r = (rig){0};
}

static void teardown(void) {
    model_close(r.model);
    checkpoint_close(r.file);
    gb_clear(&b);
}

static void experts_tensor(const char *name, uint32_t rows, uint32_t cols) {
    void *p = gb_tensor(&b, name, DT_Q4_0, 3, (uint64_t[]){cols, rows, EXPERTS}, NULL);
    gb_fill(p, DT_Q4_0, (uint64_t)cols * rows * EXPERTS, 5, 1);
}

/* ---- slices and experts of a tensor ---- */

/* y[o] = sum of w[o][k] x[first_col + k], in double; weights by packed_row. */
static void product(weight_id id, const float *x, double *y) {
    const weight *w = &r.model->program.weights[id];
    const dtype_info *d = dtype_get(w->type);
    const uint64_t bytes = w->cols / d->block_elems * (uint64_t)d->block_bytes * w->rows;
    unsigned char *raw = malloc(bytes);
    void *tiles = aligned_alloc(64, align_up(packed_bytes(w->type, w->rows, w->cols), 64));
    float row[512];
    ck_assert(raw && tiles && w->cols <= 512);
    ck_assert_msg(model_read_rows(r.model, id, 0, w->rows, raw, &e) == OK, "%s", e.text);
    packed_store(tiles, w->type, w->rows, w->cols, 0, w->rows, raw);
    const packed p = {tiles, w->type, w->rows, w->cols, NULL};
    for (uint32_t o = 0; o < w->rows; o++) {
        packed_row(&p, o, row);
        for (uint32_t k = 0; k < w->cols; k++) y[o] += (double)row[k] * x[w->first_col + k];
    }
    free(tiles);
    free(raw);
}

START_TEST(slices_of_columns_add_up_to_the_matrix) {
    static const dtype types[] = {DT_F32, DT_F16, DT_Q4_1, DT_Q8_0, DT_Q4_K};
    const dtype type = types[_i];
    float x[512];
    double whole[16] = {0}, sum[16] = {0};
    gb_matrix(&b, "blk.0.w", type, 16, 512, 3, 1);
    record_on();
    for (uint32_t k = 0; k < 512; k++) x[k] = gb_random(9, k);
    const slice rows = {0, 16, 16};
    product(rec_weight_slice(&rec, 0, "w", rows, (slice){0, 512, 512}), x, whole);
    product(rec_weight_slice(&rec, 0, "w", rows, (slice){0, 256, 512}), x, sum);
    const weight_id right = rec_weight_slice(&rec, 0, "w", rows, (slice){256, 256, 512});
    ck_assert_uint_eq(r.model->program.weights[right].first_col, 256);
    ck_assert_uint_eq(2 * weight_bytes(&r.model->program.weights[right]),
                      weight_bytes(&r.model->program.weights[0]));
    product(right, x, sum);
    ck_assert_msg(rec.s == OK, "%s", e.text);
    for (int o = 0; o < 16; o++) ck_assert_double_eq_tol(sum[o], whole[o], 1e-9);
}
END_TEST

START_TEST(columns_are_cut_at_blocks_only) {
    gb_matrix(&b, "blk.0.w", DT_Q8_0, 16, 96, 3, 1);
    record_on();
    rec_weight_slice(&rec, 0, "w", (slice){0, 16, 16}, (slice){32, 64, 96});
    ck_assert_int_eq(rec.s, OK);
    rec_weight_slice(&rec, 0, "w", (slice){0, 16, 16}, (slice){48, 48, 96});
    ck_assert_int_eq(rec.s, ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "blk.0.w");
    ck_assert_ptr_nonnull(strstr(e.text, "columns 48 to 96"));
}
END_TEST

START_TEST(rows_of_experts_are_read_across_their_borders) {
    unsigned char want[EXPERTS * FF * 36], got[sizeof want]; /* 2 blocks of 18 bytes a row */
    experts_tensor("blk.0.w", FF, WIDE);
    record_on();
    const weight_id all = rec_weight_experts(&rec, 0, "w", EXPERTS, FF, WIDE);
    ck_assert_msg(rec.s == OK, "%s", e.text);
    const int32_t t = checkpoint_find(r.file, "blk.0.w", NULL);
    ck_assert_int_ge(t, 0);
    ck_assert(checkpoint_read_rows(r.file, (size_t)t, 0, EXPERTS * FF, want, &e) == OK);
    ck_assert(model_read_rows(r.model, all, FF - 1, FF + 2, got, &e) == OK);
    ck_assert_mem_eq(got, want + (FF - 1) * 36, (FF + 2) * 36);
    /* What one of two ranks holds: the lower half of every expert. */
    weight *w = &r.model->program.weights[all];
    w->first_row = w->rows = FF / 2;
    ck_assert(model_read_rows(r.model, all, 0, EXPERTS * FF / 2, got, &e) == OK);
    for (uint32_t i = 0; i < EXPERTS; i++)
        ck_assert_mem_eq(got + i * FF / 2 * 36, want + (i * FF + FF / 2) * 36, FF / 2 * 36);
    ck_assert_uint_eq(weight_bytes(w), sizeof want / 2);
}
END_TEST

START_TEST(a_tensor_of_other_dimensions_is_refused) {
    experts_tensor("blk.0.w", FF, WIDE);
    record_on();
    if (_i)
        rec_weight(&rec, WEIGHT_LINEAR, 0, "w", FF, WIDE);
    else
        rec_weight_experts(&rec, 0, "w", EXPERTS + 1, FF, WIDE);
    ck_assert_int_eq(rec.s, ERR_FORMAT);
    ck_assert_str_eq(e.field, "blk.0.w");
    ck_assert_ptr_nonnull(strstr(e.text, _i ? "wanted [64, 96]" : "wanted [64, 96, 5]"));
}
END_TEST

/* ---- a router and its experts ---- */

/* x -> the experts it is routed to -> y */
static void record_router(void) {
    gb_matrix(&b, "token_embd.weight", DT_F32, 128, WIDE, 1, 1);
    gb_matrix(&b, "blk.0.ffn_gate_inp.weight", DT_F32, EXPERTS, WIDE, 2, 1);
    experts_tensor("blk.0.ffn_gate_exps.weight", FF, WIDE);
    experts_tensor("blk.0.ffn_up_exps.weight", FF, WIDE);
    experts_tensor("blk.0.ffn_down_exps.weight", WIDE, FF);
    record_on();
    op *o = rec_op(&rec, OP_EMBED, -1, NO_VALUE, rec_value(&rec, "x", ROWS_STEP, WIDE));
    o->embed.scale = 1, o->n_weights = 1;
    o->w[0] = rec_weight(&rec, WEIGHT_EMBED, -1, "token_embd.weight", 128, WIDE);
    const value_id x = o->out, route = rec_value(&rec, "route", ROWS_STEP, 2 * TOP_K);
    o = rec_op(&rec, OP_ROUTE, 0, x, route);
    o->route.top_k = TOP_K, o->route.norm = true, o->route.scale = 1, o->n_weights = 1;
    o->w[0] = rec_weight(&rec, WEIGHT_LINEAR, 0, "ffn_gate_inp.weight", EXPERTS, WIDE);
    o = rec_op(&rec, OP_EXPERTS_GATE_UP, 0, x, rec_value_routed(&rec, "gated", TOP_K, FF));
    o->by = route, o->n_weights = 2;
    o->w[0] = rec_weight_experts(&rec, 0, "ffn_gate_exps.weight", EXPERTS, FF, WIDE);
    o->w[1] = rec_weight_experts(&rec, 0, "ffn_up_exps.weight", EXPERTS, FF, WIDE);
    const value_id gated = o->out;
    o = rec_op(&rec, OP_EXPERTS_DOWN, 0, gated, rec_value(&rec, "y", ROWS_STEP, WIDE));
    o->by = route, o->residual = x, o->n_weights = 1;
    o->w[0] = rec_weight_experts(&rec, 0, "ffn_down_exps.weight", EXPERTS, WIDE, FF);
    ck_assert_msg(rec.s == OK, "%s", e.text);
}

static void take_line(void *arg, const char *line) {
    char(*lines)[256] = arg;
    while (**lines) lines++;
    snprintf(*lines, sizeof *lines, "%s", line);
}

START_TEST(routed_values_are_planned_with_a_row_for_each_expert) {
    engine_options o = rig_options();
    terms t = {0};
    kv_request kv = {0};
    char lines[8][256] = {{0}};
    o.activations = ACTIVATION_F32;
    record_router();
    const program *p = &r.model->program;
    ck_assert_uint_eq(value_rows(&p->values[p->ops[2].out], ROWS, 1), ROWS * TOP_K);
    ck_assert_msg(backend_cpu.terms(p, &o, &t, &kv, &e) == OK, "%s", e.text);
    /* x, route and gated are alive together, and y with them where it does not take over. */
    uint64_t weights = 0, least = o.max_rows * 4ull * (WIDE + 2 * TOP_K + TOP_K * FF);
    for (size_t i = 0; i < t.n; i++) {
        if (t.v[i].cls == MEM_WEIGHTS) weights += t.v[i].bytes;
        if (t.v[i].cls == MEM_ACTIVATIONS) ck_assert_uint_ge(t.v[i].bytes, least);
        if (t.v[i].cls == MEM_ACTIVATIONS)
            ck_assert_uint_le(t.v[i].bytes, least + o.max_rows * 4ull * WIDE);
    }
    ck_assert_uint_eq(weights, 3ull * EXPERTS * FF * WIDE / 32 * 18 +
                                   4ull * WIDE * (128 + align_up(EXPERTS, 16)));
    life lives[8];
    lives_of_values(p, lives);
    ck_assert_uint_eq(lives[p->ops[1].out].last_op, 3); /* the choice lives until it is used */
    program_print(p, take_line, lines);
    ck_assert_ptr_nonnull(strstr(lines[1], "route"));
    ck_assert_ptr_nonnull(strstr(lines[1], "2 chosen"));
    ck_assert_ptr_nonnull(strstr(lines[2], "2:gated[2 x 96]"));
    ck_assert_ptr_nonnull(strstr(lines[2], "[96 x 64 x 4]"));
    ck_assert_ptr_nonnull(strstr(lines[3], "by 1:route[4]"));
    terms_clear(&t);
}
END_TEST

START_TEST(cuda_refuses_the_router_by_name) {
    engine_options o = rig_options();
    terms t = {0};
    kv_request kv = {0};
    record_router();
    o.activations = ACTIVATION_AUTO;
    ck_assert_int_eq(backend_cuda.terms(&r.model->program, &o, &t, &kv, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "route");
    terms_clear(&t);
}
END_TEST

int main(void) {
    Suite *s = suite_create("routed");
    TCase *t = check_case(s, "routed");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, slices_of_columns_add_up_to_the_matrix, 0, 5);
    tcase_add_test(t, columns_are_cut_at_blocks_only);
    tcase_add_test(t, rows_of_experts_are_read_across_their_borders);
    tcase_add_loop_test(t, a_tensor_of_other_dimensions_is_refused, 0, 2);
    tcase_add_test(t, routed_values_are_planned_with_a_row_for_each_expert);
    tcase_add_test(t, cuda_refuses_the_router_by_name);
    return check_run(s);
}
