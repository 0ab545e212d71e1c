/* engine_options.tap: what the matrices of a model multiply. */
#include "tests/engine/naive.h"
#include "tests/model/gguf_build.h"

enum { TOKENS = 40, CUT = 23 };

/* What was seen of each operation, rows of all steps one after the other. */
typedef struct seen {
    const program *p;
    float *x[64];
    uint32_t rows[64], calls[64];
} seen;

static void see(void *arg, const op *o, const float *x, uint32_t n_rows, uint32_t n_in,
                uint32_t thread, uint32_t n_threads) {
    seen *s = arg;
    const uint32_t i = (uint32_t)(o - s->p->ops);
    ck_assert(i < 64 && n_in == s->p->values[o->in].cols && thread < n_threads);
    if (thread != 0) return;
    if (!s->x[i]) s->x[i] = calloc((size_t)TOKENS * n_in, sizeof(float));
    ck_assert_uint_le(s->rows[i] + n_rows, TOKENS);
    memcpy(s->x[i] + (size_t)s->rows[i] * n_in, x, (size_t)n_rows * n_in * sizeof(float));
    s->rows[i] += n_rows;
    s->calls[i]++;
}

static void tiny(gb *b, char path[64], dtype type) {
    model_config c = gb_tiny("llama");
    c.n_heads = 4, c.n_kv_heads = 2, c.head_dim = 32, c.rope.n_dims = 32;
    gb_init(b);
    gb_model_keys(b, &c);
    gb_model_tensors(b, &c, type, 7);
    gb_open(b, path);
}

/* Logits of a text in two steps, and what was seen. */
static void run(const char *path, bool tapped, float *logits, seen *s, rig *r) {
    int32_t tokens[TOKENS], table[8];
    engine_options o = rig_options();
    const engine_tap tap = {see, s};
    o.activations = ACTIVATION_F32;
    o.max_model_len = TOKENS;
    o.tap = tapped ? &tap : NULL;
    rig_open(r, path, &o);
    s->p = &r->model->program;
    rig_tokens(r, tokens, TOKENS, 1);
    rig_table(r, table, 0, 8, 1);
    for (uint32_t at = 0; at < TOKENS; at += CUT) {
        const uint32_t n = TOKENS - at < CUT ? TOKENS - at : CUT;
        const part p = {tokens, table, at, n, n, NULL, 0};
        const step_result out = rig_run(r, &p, 1);
        memcpy(logits + (size_t)at * r->n_vocab, out.logits,
               (size_t)n * r->n_vocab * sizeof(float));
    }
}

START_TEST(it_sees_each_input_once_and_changes_no_bit) {
    static const dtype types[] = {DT_F32, DT_BF16, DT_Q4_0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        gb b;
        char path[64];
        rig r;
        seen s = {0}, none = {0};
        tiny(&b, path, types[t]);
        static float with[TOKENS * 4096], without[TOKENS * 4096];
        run(path, false, without, &none, &r);
        ck_assert_uint_le(r.n_vocab, 4096);
        rig_close(&r);
        run(path, true, with, &s, &r);
        ck_assert_int_eq(memcmp(with, without, TOKENS * r.n_vocab * sizeof(float)), 0);
        for (uint32_t i = 0; i < s.p->n_ops; i++) {
            const op_kind k = s.p->ops[i].kind;
            const bool matrix = k == OP_LINEAR || k == OP_GATE_UP;
            ck_assert_uint_eq(s.rows[i], matrix ? TOKENS : 0);
            ck_assert_uint_eq(s.calls[i], matrix ? 2 : 0);
            free(s.x[i]);
        }
        rig_close(&r);
        gb_clear(&b);
    }
}
END_TEST

/* y = silu(gate x) * (up x), by the weights of the file. */
static double gated(const double *gate, const double *up, const float *x, uint32_t n_in,
                    uint32_t out) {
    double g = 0, u = 0;
    for (uint32_t i = 0; i < n_in; i++) {
        g += gate[(size_t)out * n_in + i] * (double)x[i];
        u += up[(size_t)out * n_in + i] * (double)x[i];
    }
    return g / (1 + exp(-g)) * u;
}

START_TEST(the_input_of_down_is_what_gate_and_up_make_of_theirs) {
    gb b;
    char path[64];
    rig r;
    seen s = {0};
    static float logits[TOKENS * 4096];
    tiny(&b, path, DT_F32);
    run(path, true, logits, &s, &r);
    const naive f = {.m = r.model, .c = &r.model->program.config};
    uint32_t checked = 0;
    for (uint32_t i = 0; i + 1 < s.p->n_ops; i++) {
        const op *o = &s.p->ops[i];
        if (o->kind != OP_GATE_UP) continue;
        ck_assert(s.p->ops[i + 1].kind == OP_LINEAR && s.p->ops[i + 1].in == o->out);
        const uint32_t n_in = s.p->values[o->in].cols, n_ff = s.p->values[o->out].cols;
        double *gate = naive_weights(&f, "ffn_gate.weight", o->layer);
        double *up = naive_weights(&f, "ffn_up.weight", o->layer);
        for (uint32_t row = 0; row < TOKENS; row += 13)
            for (uint32_t c = 0; c < n_ff; c += 5) {
                const double want = gated(gate, up, s.x[i] + row * n_in, n_in, c);
                SWEEP(fabs((double)s.x[i + 1][row * n_ff + c] - want) <
                      1e-4 * (1 + fabs(want)));
                checked++;
            }
        free(gate);
        free(up);
    }
    ck_assert_uint_gt(checked, 100);
    for (uint32_t i = 0; i < s.p->n_ops; i++) free(s.x[i]);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

CHECK_MAIN("tap", it_sees_each_input_once_and_changes_no_bit,
           the_input_of_down_is_what_gate_and_up_make_of_theirs)
