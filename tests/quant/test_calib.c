/* quant/calib.h through its header. */
#include "quant/calib.h"

#include <math.h>
#include <string.h>

#include "model/model.h"
#include "tests/check_main.h"
#include "tests/model/gguf_build.h"

static model *tiny(void) {
    err e;
    model *m;
    const model_config c = gb_tiny("llama");
    ck_assert_msg(model_from_config(&m, &c, DT_F32, &e) == OK, "%s", e.text);
    return m;
}

START_TEST(matrices_with_the_same_inputs_share_their_sums) {
    err e;
    calib c;
    model *m = tiny();
    ck_assert_int_eq(calib_init(&c, &m->program, &e), OK);
    ck_assert_uint_eq(c.n_inputs, 4 * m->program.config.n_layers);
    const calib_input *q = calib_find(&c, "blk.1.attn_q.weight");
    ck_assert(q && q == calib_find(&c, "blk.1.attn_v.weight"));
    ck_assert(calib_find(&c, "blk.1.ffn_up.weight") == calib_find(&c, "blk.1.ffn_gate.weight"));
    ck_assert(calib_find(&c, "blk.0.attn_q.weight") != q);
    ck_assert_uint_eq(calib_find(&c, "blk.0.ffn_down.weight")->n, m->program.config.n_ff);
    ck_assert_ptr_null(calib_find(&c, "token_embd.weight"));
    ck_assert_ptr_null(calib_find(&c, "blk.0.attn_norm.weight"));
    ck_assert_ptr_null(calib_find(&c, "blk.99.attn_q.weight"));
    calib_clear(&c);
    model_close(m);
}
END_TEST

START_TEST(sums_are_those_of_the_rows_by_any_number_of_threads) {
    enum { ROWS = 70 };
    err e;
    calib c[2];
    model *m = tiny();
    float *x = NULL;
    for (uint32_t k = 0; k < 2; k++) {
        ck_assert_int_eq(calib_init(&c[k], &m->program, &e), OK);
        calib_input *in = calib_find(&c[k], "blk.0.ffn_down.weight");
        const op *o = &m->program.ops[in->op];
        in->h = calloc(1, hessian_bytes(in->n));
        if (!x) x = malloc(sizeof *x * ROWS * in->n);
        for (uint32_t i = 0; i < ROWS * in->n; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
        for (uint32_t step = 0; step < 2; step++)
            for (uint32_t t = 0; t <= 2 * k; t++)
                calib_add(&c[k], o, x + step * in->n, ROWS - 1, t, 1 + 2 * k);
        in->counts = false;
        calib_add(&c[k], o, x, ROWS, 0, 1);
    }
    const calib_input *a = calib_find(&c[0], "blk.0.ffn_down.weight");
    const calib_input *b = calib_find(&c[1], "blk.0.ffn_down.weight");
    ck_assert_uint_eq(a->n_rows, 2 * (ROWS - 1));
    ck_assert_uint_eq(b->n_rows, a->n_rows);
    ck_assert(memcmp(a->h, b->h, hessian_bytes(a->n)) == 0);
    float *imp = malloc(sizeof *imp * a->n);
    calib_importance(a, imp);
    for (uint32_t i = 0; i < a->n; i++) {
        double sq = 0, abs = 0;
        float most = 0;
        for (uint32_t r = 0; r < ROWS; r++)
            for (uint32_t step = 0; step < 2; step++) {
                if (r >= ROWS - 1 && !step) continue; /* rows 0..ROWS-2, then 1..ROWS-1 */
                if (r == 0 && step) continue;
                const float v = fabsf(x[r * a->n + i]);
                sq += (double)v * (double)v;
                abs += (double)v;
                most = fmaxf(most, v);
            }
        SWEEP(a->sum_sq[i] == b->sum_sq[i] && a->sum_abs[i] == b->sum_abs[i]);
        SWEEP(fabs(a->sum_sq[i] - sq) < 1e-9 && fabs(a->sum_abs[i] - abs) < 1e-9);
        SWEEP(a->max_abs[i] == most && b->max_abs[i] == most);
        SWEEP(fabs((double)imp[i] - sq / (2 * (ROWS - 1))) < 1e-6);
        SWEEP(fabs(a->h[hessian_at(i, i)] - sq) < 1e-4);
    }
    for (uint32_t k = 0; k < 2; k++) {
        free(calib_find(&c[k], "blk.0.ffn_down.weight")->h);
        calib_clear(&c[k]);
    }
    free(imp);
    free(x);
    model_close(m);
}
END_TEST

CHECK_MAIN("calib", matrices_with_the_same_inputs_share_their_sums,
           sums_are_those_of_the_rows_by_any_number_of_threads)
