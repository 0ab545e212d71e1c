/* Engines take shapes from the operations, not from the model's config: a program whose layers
 * have other head counts, head sizes, rotated dimensions and widths each runs right, and its
 * config says nothing of them. */
#include "tests/engine/naive.h"
#include "tests/model/gguf_build.h"

#include "model/family.h"

enum { LAYERS = 3, TOKENS = 40 };

/* Of each layer: layer 1 has more heads and another width, layer 2 other heads of K and V. */
static void layers_of(model_config c[LAYERS]) {
    for (uint32_t l = 0; l < LAYERS; l++) {
        c[l] = gb_tiny("llama");
        c[l].n_layers = LAYERS;
    }
    c[1].n_heads = 6, c[1].n_ff = 160;
    c[2].n_heads = 3, c[2].n_kv_heads = 1, c[2].head_dim = 48, c[2].rope.n_dims = 24;
}

static uint64_t layer_tensors(gb *b, const model_config *c, uint32_t l, uint64_t seed) {
    static const char *const name[] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                       "ffn_gate", "ffn_up", "ffn_down"};
    const uint32_t h = c->n_embd, q = c->n_heads * c->head_dim,
                   kv = c->n_kv_heads * c->head_dim;
    const uint32_t rows[] = {q, kv, kv, h, c->n_ff, c->n_ff, h},
                   cols[] = {h, h, h, q, h, h, c->n_ff};
    char full[72];
    for (int i = 0; i < 7; i++) {
        snprintf(full, sizeof full, "blk.%u.%s.weight", l, name[i]);
        gb_matrix(b, full, DT_F32, rows[i], cols[i], seed++, 1.5f / sqrtf((float)cols[i]));
    }
    for (int i = 0; i < 2; i++) {
        snprintf(full, sizeof full, "blk.%u.%s_norm.weight", l, i ? "ffn" : "attn");
        gb_vector(b, full, h, seed++, 1, 0.2f);
    }
    return seed;
}

static void build(gb *b, char path[64], const model_config c[LAYERS]) {
    uint64_t seed = 1;
    gb_init(b);
    gb_model_keys(b, &c[0]);
    gb_matrix(b, "token_embd.weight", DT_F32, c->n_vocab, c->n_embd, seed++, 1);
    for (uint32_t l = 0; l < LAYERS; l++) seed = layer_tensors(b, &c[l], l, seed);
    gb_vector(b, "output_norm.weight", c->n_embd, seed++, 1, 0.2f);
    gb_matrix(b, "output.weight", DT_F32, c->n_vocab, c->n_embd, seed, 0.2f);
    gb_open(b, path);
}

/* The llama family's pass with a config of its own for each layer. */
static void record(recorder *r, const model_config c[LAYERS]) {
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    weight_id embd;
    r->p->config = c[0];
    value_id x = part_embed(r, 1, &embd);
    for (int l = 0; l < LAYERS; l++) {
        r->p->config = c[l];
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        h = part_attention(r, l, h, none, false);
        x = part_linear(r, l, "attn_output.weight", NULL, c[l].n_heads * c[l].head_dim, h, x);
        h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
        h = part_gate_up(r, l, h, ACT_SILU, r->p->config.n_ff, false);
        x = part_linear(r, l, "ffn_down.weight", NULL, c[l].n_ff, h, x);
    }
    part_head(r, x, embd);
    rec_kv_groups(r);
}

/* What an engine that reads the config would take for the shape. */
static void spoil(model_config *c) {
    c->n_heads = 1000, c->n_kv_heads = 7, c->head_dim = 24, c->n_ff = 1, c->rope.n_dims = 2;
    c->rope.pairing = ROPE_HALVES;
}

static void open_shapes(rig *r, const char *path, const model_config c[LAYERS],
                        const engine_options *o) {
    err e;
    *r = (rig){.opt = *o, .n_vocab = c->n_vocab};
    ck_assert_msg(checkpoint_open(&r->file, path, &e) == OK, "%s", e.text);
    r->model = calloc(1, sizeof *r->model);
    bool *claimed = calloc(checkpoint_n_tensors(r->file), sizeof *claimed);
    ck_assert(r->model && claimed);
    r->model->file = r->file;
    recorder rec = {.p = &r->model->program, .file = r->file, .claimed = claimed, .e = &e};
    record(&rec, c);
    ck_assert_msg(rec.s == OK, "%s", e.text);
    free(claimed);
    spoil(&r->model->program.config);
    ck_assert(ledger_open_unlimited(&r->ledger, &e) == OK);
    ck_assert(ledger_open_unlimited(&r->device, &e) == OK);
    ck_assert_msg(
        engine_open(&r->engine, &backend_cpu, r->model, o, r->ledger, r->device, &e) == OK,
        "%s", e.text);
}

/* Logits of all rows: a chunk of 17, then row by row. */
static double distance(rig *r, const int32_t *tokens, const double *want) {
    int32_t table[TOKENS / 16 + 1];
    double diff = 0, all = 0;
    rig_table(r, table, 0, TOKENS / 16 + 1, 3);
    rig_poison(r);
    for (uint32_t at = 0, n; at < TOKENS; at += n) {
        n = at ? 1 : 17;
        part p = {tokens, table, at, n, n, NULL, 0};
        const float *got = rig_run(r, &p, 1).logits;
        for (uint32_t i = 0; i < n * r->n_vocab; i++) {
            double w = want[(size_t)at * r->n_vocab + i];
            diff += (got[i] - w) * (got[i] - w);
            all += w * w;
        }
    }
    return sqrt(diff / all);
}

START_TEST(layers_of_other_shapes_than_the_config_are_computed) {
    model_config c[LAYERS];
    gb b;
    char path[64];
    int32_t tokens[TOKENS];
    layers_of(c);
    build(&b, path, c);
    for (uint32_t threads = 1; threads <= 3; threads += 2) {
        rig r;
        engine_options o = rig_options();
        o.keep_logits = true;
        o.activations = ACTIVATION_F32;
        o.kv_k = o.kv_v = DT_F32;
        o.n_threads = threads;
        open_shapes(&r, path, c, &o);
        ck_assert_uint_eq(r.model->program.n_groups, 2);
        ck_assert_uint_eq(r.model->program.group[0].n_layers, 2);
        ck_assert_uint_eq(r.model->program.n_ropes, 2);
        rig_tokens(&r, tokens, TOKENS, 1);
        double *want = naive_forward_of(r.model, c, o.max_model_len, tokens, TOKENS);
        const double d = distance(&r, tokens, want);
        ck_assert_msg(d < 1e-5, "%u threads: distance %g", threads, d);
        free(want);
        rig_close(&r);
    }
    gb_clear(&b);
}
END_TEST

START_TEST(a_fifth_kind_of_cache_is_refused) {
    model_config c = gb_tiny("llama");
    program p = {.config = c};
    err e;
    recorder r = {.p = &p, .planned = {.base = DT_F32}, .e = &e};
    p.config.n_layers = 5;
    for (int l = 0; l < 5; l++) {
        op *o = rec_op(&r, OP_ATTENTION, l, NO_VALUE, NO_VALUE);
        o->heads = (head_shape){4, 2, 8 * (uint32_t)(l + 1)};
    }
    rec_kv_groups(&r);
    ck_assert_int_eq(r.s, ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.text, "4 kinds of KV cache"));
    free(p.ops);
    free(p.layer_group);
    free(p.layer_index);
}
END_TEST

int main(void) {
    Suite *s = suite_create("shapes");
    TCase *t = check_case(s, "shapes");
    tcase_add_test(t, layers_of_other_shapes_than_the_config_are_computed);
    tcase_add_test(t, a_fifth_kind_of_cache_is_refused);
    return check_run(s);
}
