/* The recorded program: its operations, its weights, its bytes, and the files it refuses. */
#include <stdlib.h>

#include "model/model.h"
#include "tests/check_main.h"
#include "tests/model/gguf_build.h"
#include "tests/model/config_params.h"

static gb b;
static checkpoint *g;
static model *m;

static void setup(void) {
    gb_init(&b);
    g = NULL;
    m = NULL;
}
static void teardown(void) {
    model_close(m);
    checkpoint_close(g);
    gb_clear(&b);
    setup();
}

static status try_open(err *e) {
    char path[64];
    gb_open(&b, path);
    ck_assert_msg(checkpoint_open(&g, path, e) == OK, "%s", e->text);
    return model_open(&m, g, e);
}

/* A whole tensor as it is stored. */
static void read_all(const char *name, void *dst, uint64_t n_rows) {
    err e;
    const int32_t i = checkpoint_find(g, name, NULL);
    ck_assert_int_ge(i, 0);
    ck_assert_int_eq(checkpoint_read_rows(g, (size_t)i, 0, n_rows, dst, &e), OK);
}

/* Of all tensors, by the bytes that their types and shapes take. */
static uint64_t stored_bytes(void) {
    uint64_t sum = 0, bytes;
    for (size_t i = 0; i < checkpoint_n_tensors(g); i++) {
        const tensor_info t = checkpoint_tensor(g, i);
        ck_assert(dtype_bytes(t.type, t.ne[1] * t.ne[2] * t.ne[3], t.ne[0], &bytes));
        sum += bytes;
    }
    return sum;
}

static const program *open_built(void) {
    err e;
    ck_assert_msg(try_open(&e) == OK, "%s (%s)", e.text, e.field);
    return &m->program;
}

static const program *open_tiny(const model_config *c, dtype type) {
    gb_model_keys(&b, c);
    gb_model_tensors(&b, c, type, 1);
    return open_built();
}

/* ---- the list of operations ---- */

/* Every value has one writer before its first reader; ids are in range. */
static void check_values(const program *p) {
    bool written[4096] = {false};
    ck_assert_uint_lt(p->n_values, 4096);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if (o->in != NO_VALUE) ck_assert(o->in < p->n_values && written[o->in]);
        if (o->residual != NO_VALUE) {
            ck_assert(o->residual < p->n_values && written[o->residual]);
            ck_assert_uint_eq(p->values[o->residual].cols, p->values[o->out].cols);
        }
        if (o->out == NO_VALUE) continue;
        ck_assert(o->out < p->n_values);
        ck_assert_int_eq(written[o->out], o->kind == OP_ROPE_APPEND || o->kind == OP_HEAD_NORM);
        written[o->out] = true;
    }
    for (uint32_t i = 0; i < p->n_values; i++) ck_assert(written[i]);
}

/* Outputs of the weights side by side are the columns of the value; inputs its rows. */
static void check_weights(const program *p) {
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        uint32_t rows = 0;
        for (int k = 0; k < o->n_weights; k++) {
            ck_assert_uint_lt(o->w[k], p->n_weights);
            const weight *w = &p->weights[o->w[k]];
            rows += w->rows;
            if (o->kind == OP_LINEAR || o->kind == OP_GATE_UP || o->kind == OP_LOGITS)
                ck_assert_uint_eq(w->cols, p->values[o->in].cols);
            if (o->bias[k] == NO_WEIGHT) continue;
            ck_assert_uint_eq(p->weights[o->bias[k]].cols, w->rows);
            ck_assert_int_eq(p->weights[o->bias[k]].role, WEIGHT_VECTOR);
        }
        if (o->kind == OP_LINEAR || o->kind == OP_LOGITS)
            ck_assert_uint_eq(rows, p->values[o->out].cols);
        if (o->kind == OP_GATE_UP) ck_assert_uint_eq(rows, 2 * p->values[o->out].cols);
    }
}

START_TEST(the_llama_pass_is_eight_operations_a_layer) {
    static const op_kind layer[] = {OP_NORM,   OP_LINEAR, OP_ROPE_APPEND, OP_ATTENTION,
                                    OP_LINEAR, OP_NORM,   OP_GATE_UP,     OP_LINEAR};
    static const op_kind tail[] = {OP_GATHER_ROWS, OP_NORM, OP_LOGITS, OP_SAMPLE};
    const model_config c = gb_tiny("llama");
    const program *p = open_tiny(&c, DT_Q8_0);
    ck_assert_uint_eq(p->n_ops, 1 + 8 * 2 + 4);
    ck_assert_int_eq(p->ops[0].kind, OP_EMBED);
    ck_assert_int_eq(p->ops[0].layer, -1);
    for (int l = 0; l < 2; l++)
        for (int i = 0; i < 8; i++) {
            ck_assert_int_eq(p->ops[1 + 8 * l + i].kind, layer[i]);
            ck_assert_int_eq(p->ops[1 + 8 * l + i].layer, l);
        }
    for (int i = 0; i < 4; i++) ck_assert_int_eq(p->ops[17 + i].kind, tail[i]);
    check_values(p);
    check_weights(p);
    ck_assert_uint_eq(p->values[p->ops[2].out].cols, 4 * 32 + 2 * 2 * 32);
    ck_assert_int_eq(p->values[p->ops[19].out].rows, ROWS_GATHERED);
    ck_assert_uint_eq(p->values[p->ops[19].out].cols, 128);
    ck_assert_float_eq_tol(p->ops[4].attention.scale, 1 / sqrt(32), 1e-7);
    ck_assert_uint_eq(p->ops[5].residual, p->ops[0].out);
    ck_assert_uint_eq(p->ops[8].residual, p->ops[5].out);
    ck_assert_uint_eq(p->ops[4].attention.window, 0);
}
END_TEST

START_TEST(a_tied_head_reads_the_embedding_once) {
    model_config c = gb_tiny("llama");
    c.tied_head = true;
    const program *p = open_tiny(&c, DT_Q4_0);
    const op *logits = &p->ops[p->n_ops - 2];
    ck_assert_int_eq(logits->kind, OP_LOGITS);
    ck_assert_uint_eq(logits->w[0], p->ops[0].w[0]);
    ck_assert_int_eq(p->weights[logits->w[0]].role, WEIGHT_EMBED);
    uint32_t n_embed = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) n_embed += p->weights[i].role == WEIGHT_EMBED;
    ck_assert_uint_eq(n_embed, 1);
    teardown();
    c.tied_head = false;
    p = open_tiny(&c, DT_Q4_0);
    ck_assert_str_eq(p->weights[p->ops[p->n_ops - 2].w[0]].name, "output.weight");
}
END_TEST

START_TEST(qwen2_has_biases_on_q_k_and_v) {
    const model_config c = gb_tiny("qwen2");
    const program *p = open_tiny(&c, DT_F16);
    check_weights(p);
    for (int k = 0; k < 3; k++) ck_assert_uint_ne(p->ops[2].bias[k], NO_WEIGHT);
    ck_assert_str_eq(p->weights[p->ops[2].bias[1]].name, "blk.0.attn_k.bias");
    ck_assert_uint_eq(p->ops[5].bias[0], NO_WEIGHT);
}
END_TEST

START_TEST(a_llama_file_with_biases_of_attention_uses_them) {
    model_config c = gb_tiny("llama");
    c.qkv_bias = c.o_bias = true;
    const program *p = open_tiny(&c, DT_F16);
    ck_assert(p->config.qkv_bias && p->config.o_bias);
    ck_assert_str_eq(p->weights[p->ops[5].bias[0]].name, "blk.0.attn_output.bias");
}
END_TEST

static const op *first_op(const program *p, op_kind kind) {
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == kind) return &p->ops[i];
    ck_abort_msg("no operation %s", op_kind_name(kind));
}

START_TEST(qwen3_norms_the_heads_of_q_and_k) {
    const model_config c = gb_tiny("qwen3");
    const program *p = open_tiny(&c, DT_F16);
    check_values(p);
    check_weights(p);
    const op *o = first_op(p, OP_HEAD_NORM);
    ck_assert_int_eq(o[-1].kind, OP_LINEAR);
    ck_assert_int_eq(o[1].kind, OP_ROPE_APPEND);
    ck_assert_uint_eq(o->in, o->out);
    ck_assert_uint_eq(o->in, o[1].in);
    ck_assert_str_eq(p->weights[o->w[0]].name, "blk.0.attn_q_norm.weight");
    ck_assert_str_eq(p->weights[o->w[1]].name, "blk.0.attn_k_norm.weight");
    ck_assert_uint_eq(p->weights[o->w[1]].cols, 32);
    ck_assert_int_eq(p->config.rope.pairing, ROPE_HALVES);
    ck_assert_uint_eq(o[-1].bias[0], NO_WEIGHT);
}
END_TEST

START_TEST(phi3_reads_parts_of_fused_matrices) {
    const model_config c = gb_tiny("phi3");
    const program *p = open_tiny(&c, DT_Q8_0);
    err e;
    check_values(p);
    check_weights(p);
    const op *qkv = first_op(p, OP_LINEAR), *o = first_op(p, OP_GATE_UP);
    ck_assert_uint_eq(qkv->n_weights, 1);
    ck_assert_uint_eq(p->weights[qkv->w[0]].rows, 4 * 32 + 2 * 2 * 32);
    const weight *gate = &p->weights[o->w[0]], *up = &p->weights[o->w[1]];
    ck_assert_str_eq(gate->name, "blk.0.ffn_up.weight");
    ck_assert_int_eq(gate->tensor, up->tensor);
    ck_assert(gate->first_row == 0 && up->first_row == 96 && up->rows == 96);
    unsigned char rows[2 * 2 * 34], all[2 * 96 * 2 * 34];
    read_all(gate->name, all, 2 * 96);
    ck_assert_int_eq(model_read_rows(m, o->w[1], 7, 2, rows, &e), OK);
    ck_assert_mem_eq(rows, all + (96 + 7) * 2 * 34, sizeof rows);
    ck_assert_uint_eq(program_weight_bytes(p), stored_bytes());
}
END_TEST

START_TEST(longrope_divides_by_other_factors_in_long_contexts) {
    const model_config c = gb_tiny("phi3");
    gb_int(&b, "phi3.rope.scaling.original_context_length", 100);
    gb_float(&b, "phi3.rope.scaling.attn_factor", 1.25f);
    gb_vector(&b, "rope_factors_short.weight", 16, 3, 1, 0);
    gb_vector(&b, "rope_factors_long.weight", 16, 4, 2, 0);
    const program *p = open_tiny(&c, DT_F16);
    const op *o = first_op(p, OP_ROPE_APPEND);
    ck_assert_int_eq(p->config.rope.scaling, ROPE_SCALING_LONGROPE);
    ck_assert(p->config.rope.attn_factor == 1.25f);
    ck_assert_str_eq(p->weights[program_rope_factors(p, o, 100)].name,
                     "rope_factors_short.weight");
    ck_assert_str_eq(p->weights[program_rope_factors(p, o, 101)].name,
                     "rope_factors_long.weight");
}
END_TEST

START_TEST(gemma3_has_four_norms_and_windows_with_a_base_of_their_own) {
    model_config c = gb_tiny("gemma3");
    c.n_layers = 7;
    const program *p = open_tiny(&c, DT_F16);
    check_values(p);
    check_weights(p);
    static const op_kind layer[] = {OP_NORM,      OP_LINEAR, OP_HEAD_NORM, OP_ROPE_APPEND,
                                    OP_ATTENTION, OP_LINEAR, OP_NORM,      OP_NORM,
                                    OP_GATE_UP,   OP_LINEAR, OP_NORM};
    for (uint32_t i = 0; i < 11; i++) ck_assert_int_eq(p->ops[1 + i].kind, layer[i]);
    ck_assert(p->ops[0].embed.scale == 8.0f); /* the root of 64 */
    ck_assert_uint_eq(p->ops[6].residual, NO_VALUE);
    ck_assert_uint_eq(p->ops[7].residual, p->ops[0].out);
    ck_assert_uint_eq(p->ops[11].residual, p->ops[7].out);
    ck_assert_int_eq(p->ops[9].gate_up.act, ACT_GELU_TANH);
    ck_assert_uint_eq(p->n_groups, 2);
    ck_assert_uint_eq(p->group[0].window, 24);
    ck_assert_uint_eq(p->group[0].n_layers, 5); /* all but the 3rd and 6th */
    ck_assert_uint_eq(p->n_ropes, 2);
    ck_assert(p->rope[0].theta == 500 && p->rope[1].theta == 10000);
    for (uint32_t l = 0; l < 7; l++) {
        ck_assert_uint_eq(p->ops[1 + 11 * l + 4].attention.window, l % 3 == 2 ? 0 : 24);
        ck_assert_uint_eq(p->ops[1 + 11 * l + 3].rope.table, l % 3 == 2);
    }
}
END_TEST

START_TEST(a_pattern_of_windows_may_be_listed_layer_by_layer) {
    const unsigned char good[7] = {1, 1, 0, 1, 1, 0, 1}, bad[7] = {1, 1, 0, 1, 0, 1, 1};
    const char *key = "gemma3.attention.sliding_window_pattern";
    for (int i = 0; i < 2; i++) {
        model_config c = gb_tiny("gemma3");
        err e;
        c.n_layers = 7, c.window_every = 0;
        gb_array(&b, key, GGUF_BOOL, 7, i ? bad : good, 7);
        gb_model_keys(&b, &c);
        gb_model_tensors(&b, &c, DT_F16, 1);
        ck_assert_int_eq(try_open(&e), i ? ERR_UNSUPPORTED : OK);
        if (i) ck_assert_str_eq(e.field, key);
        if (!i) ck_assert_uint_eq(m->program.config.window_every, 3);
        teardown();
    }
}
END_TEST

START_TEST(rope_factors_of_the_file_serve_every_layer) {
    const model_config c = gb_tiny("llama");
    gb_vector(&b, "rope_freqs.weight", 16, 3, 4, 1);
    const program *p = open_tiny(&c, DT_F16);
    ck_assert_uint_ne(p->ops[3].rope.factors, NO_WEIGHT);
    ck_assert_uint_eq(p->ops[3].rope.factors, p->ops[11].rope.factors);
    ck_assert_uint_eq(p->weights[p->ops[3].rope.factors].cols, 16);
    teardown();
    p = open_tiny(&c, DT_F16);
    ck_assert_uint_eq(p->ops[3].rope.factors, NO_WEIGHT);
}
END_TEST

START_TEST(layers_of_one_window_share_a_group_of_blocks) {
    model_config c = gb_tiny("llama");
    c.window = 40;
    const program *p = open_tiny(&c, DT_F32);
    ck_assert_uint_eq(p->n_groups, 1);
    ck_assert_uint_eq(p->group[0].window, 40);
    ck_assert_uint_eq(p->group[0].n_layers, 2);
    ck_assert_uint_eq(p->layer_group[1], 0);
    ck_assert_uint_eq(p->layer_index[1], 1);
    ck_assert_uint_eq(p->ops[4].attention.window, 40);
    teardown();
    c.n_layers = 7, c.window_every = 3;
    err e;
    ck_assert_int_eq(model_from_config(&m, &c, DT_F16, &e), OK);
    ck_assert_uint_eq(m->program.n_groups, 2);
    ck_assert_uint_eq(m->program.group[0].n_layers, 5);
    ck_assert_uint_eq(m->program.group[1].n_layers, 2);
    ck_assert_uint_eq(m->program.group[1].window, 0);
    ck_assert_uint_eq(m->program.layer_group[5], 1);
    ck_assert_uint_eq(m->program.layer_index[5], 1);
    ck_assert_uint_eq(m->program.layer_index[6], 4);
}
END_TEST

static void keep_line(void *arg, const char *line) {
    char *text = arg;
    strncat(text, line, 8191 - strlen(text));
    strncat(text, "\n", 8191 - strlen(text));
}

START_TEST(the_program_prints_one_operation_a_line) {
    model_config c = gb_tiny("qwen2");
    c.n_layers = 1, c.tied_head = true;
    char *text = calloc(1, 8192);
    program_print(open_tiny(&c, DT_Q4_1), keep_line, text);
    ck_assert_str_eq(
        text,
        "   0           embed       - -> 0:x[64]  token_embd.weight Q4_1 [128 x 64]\n"
        "   1 layer 0   norm        0:x[64] -> 1:norm[64]  blk.0.attn_norm.weight F32 [1 x 64]"
        "  eps 1e-05\n"
        "   2 layer 0   linear      1:norm[64] -> 2:qkv[256]  blk.0.attn_q.weight Q4_1 [128 x "
        "64] | blk.0.attn_k.weight Q4_1 [64 x 64] | blk.0.attn_v.weight Q4_1 [64 x 64]  + "
        "blk.0.attn_q.bias F32 [1 x 128] | blk.0.attn_k.bias F32 [1 x 64] | blk.0.attn_v.bias "
        "F32 [1 x 64]\n"
        "   3 layer 0   rope_append 2:qkv[256] -> 2:qkv[256]  theta 10000, 32 dimensions, "
        "halves\n"
        "   4 layer 0   attention   2:qkv[256] -> 3:heads[128]  4 heads, 2 KV heads of 32, "
        "scale 0.176777\n"
        "   5 layer 0   linear      3:heads[128] -> 4:x[64]  blk.0.attn_output.weight Q4_1 [64 "
        "x 128]  + 0:x[64]\n"
        "   6 layer 0   norm        4:x[64] -> 5:norm[64]  blk.0.ffn_norm.weight F32 [1 x 64]  "
        "eps 1e-05\n"
        "   7 layer 0   gate_up     5:norm[64] -> 6:gated[96]  blk.0.ffn_gate.weight Q4_1 [96 "
        "x 64] | blk.0.ffn_up.weight Q4_1 [96 x 64]  silu\n"
        "   8 layer 0   linear      6:gated[96] -> 7:x[64]  blk.0.ffn_down.weight Q4_1 [64 x "
        "96]  + 4:x[64]\n"
        "   9           gather_rows 7:x[64] -> 8:last[64]\n"
        "  10           norm        8:last[64] -> 9:norm[64]  output_norm.weight F32 [1 x 64]  "
        "eps 1e-05\n"
        "  11           logits      9:norm[64] -> 10:logits[128]  token_embd.weight Q4_1 [128 "
        "x 64]\n"
        "  12           sample      10:logits[128] -> -\n");
    free(text);
}
END_TEST

/* ---- reading weights ---- */

static weight_id weight_named(const program *p, const char *name) {
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (strcmp(p->weights[i].name, name) == 0) return i;
    ck_abort_msg("no weight %s", name);
}

START_TEST(rows_are_read_as_stored) {
    const model_config c = gb_tiny("llama");
    err e;
    const program *p = open_tiny(&c, DT_Q8_0);
    const weight_id id = weight_named(p, "blk.1.ffn_down.weight");
    unsigned char rows[3 * 3 * 34], all[64 * 3 * 34];
    ck_assert_int_eq(model_read_rows(m, id, 7, 3, rows, &e), OK);
    read_all("blk.1.ffn_down.weight", all, 64);
    ck_assert(memcmp(rows, all + 7 * 3 * 34, sizeof rows) == 0);
}
END_TEST

START_TEST(vectors_are_served_as_float32) {
    const model_config c = gb_tiny("llama");
    const dtype type[] = {DT_F32, DT_F16, DT_BF16};
    for (int i = 0; i < 3; i++) {
        float want[16], got[17];
        err e;
        void *v = gb_tensor(&b, "rope_freqs.weight", type[i], 1, (uint64_t[]){16}, NULL);
        for (int k = 0; k < 16; k++) {
            want[k] = (float)(k - 3) * 0.25f; /* exact in all three */
            uint16_t h = i == 1 ? half_of_float(want[k]) : bf16_of_float(want[k]);
            if (i == 0)
                memcpy((char *)v + 4 * k, &want[k], 4);
            else
                memcpy((char *)v + 2 * k, &h, 2);
        }
        const program *p = open_tiny(&c, DT_F16);
        got[16] = -1;
        ck_assert_int_eq(model_read_vector(m, weight_named(p, "rope_freqs.weight"), got, &e),
                         OK);
        ck_assert(memcmp(want, got, sizeof want) == 0);
        ck_assert(got[16] == -1);
        teardown();
    }
}
END_TEST

/* ---- refusals ---- */

static void open_refused(status code, const char *field, const char *text) {
    err e = {0};
    status s = try_open(&e);
    ck_assert_msg(s == code, "status %d: %s (%s)", s, e.text, e.field);
    ck_assert_ptr_null(m);
    ck_assert_str_eq(e.field, field);
    ck_assert_msg(strstr(e.text, text) != NULL, "\"%s\" is not in \"%s\"", text, e.text);
    teardown();
}

/* The tiny model with one tensor named otherwise, so that a test can put its own there. */
static void build_without(const char *name) {
    const model_config c = gb_tiny("llama");
    gb_model_keys(&b, &c);
    gb_model_tensors(&b, &c, DT_F16, 1);
    for (size_t i = 0; i + strlen(name) <= b.info.n; i++)
        if (memcmp(b.info.p + i, name, strlen(name)) == 0) {
            memcpy(b.info.p + i, "output_norm.none", strlen("output_norm"));
            b.info.p[i + strlen(name) - 1] = '~';
        }
}

START_TEST(a_missing_tensor_is_named) {
    build_without("blk.1.ffn_down.weight");
    open_refused(ERR_FORMAT, "blk.1.ffn_down.weight", "missing");
    build_without("output_norm.weight");
    open_refused(ERR_FORMAT, "output_norm.weight", "architecture llama");
    const model_config c = gb_tiny("llama");
    gb_model_keys(&b, &c); /* a vocabulary-only file */
    open_refused(ERR_FORMAT, "token_embd.weight", "missing");
}
END_TEST

START_TEST(matrices_of_nvfp4_have_a_scale_beside_them) {
    err e = {0};
    const model_config c = gb_tiny("llama");
    gb_model_keys(&b, &c);
    gb_model_tensors(&b, &c, DT_NVFP4, 1);
    gb_vector(&b, "blk.0.attn_k.input_scale", 1, 1, 1, 0); /* of activations: ignored */
    ck_assert_msg(try_open(&e) == OK, "%s", e.text);
    const weight *w = m->program.weights;
    for (uint32_t i = 0; i < m->program.n_weights; i++)
        ck_assert((w[i].scale != NO_WEIGHT) == (w[i].type == DT_NVFP4));
    w += w[weight_named(&m->program, "blk.0.attn_k.weight")].scale;
    ck_assert_str_eq(w->name, "blk.0.attn_k.scale");
    ck_assert(w->role == WEIGHT_VECTOR && w->cols == 1);
    teardown();
    build_without("blk.0.attn_k.weight");
    gb_tensor(&b, "blk.0.attn_k.weight", DT_NVFP4, 2, (uint64_t[]){64, 64}, NULL);
    open_refused(ERR_FORMAT, "blk.0.attn_k.scale", "missing");
}
END_TEST

START_TEST(a_wrong_shape_is_named_with_what_was_wanted) {
    build_without("blk.0.attn_k.weight");
    gb_matrix(&b, "blk.0.attn_k.weight", DT_F16, 32, 64, 1, 1);
    open_refused(ERR_FORMAT, "blk.0.attn_k.weight", "[64, 32, 1, 1], wanted [64, 64]");
    build_without("blk.0.attn_k.weight");
    gb_tensor(&b, "blk.0.attn_k.weight", DT_F16, 3, (uint64_t[]){64, 64, 2}, NULL);
    open_refused(ERR_FORMAT, "blk.0.attn_k.weight", "[64, 64, 2, 1]");
    build_without("blk.1.ffn_norm.weight");
    gb_vector(&b, "blk.1.ffn_norm.weight", 63, 1, 1, 0);
    open_refused(ERR_FORMAT, "blk.1.ffn_norm.weight", "wanted [64, 1]");
    gb_vector(&b, "rope_freqs.weight", 32, 1, 1, 0);
    build_without("none of them");
    open_refused(ERR_FORMAT, "rope_freqs.weight", "wanted [16, 1]");
    build_without("token_embd.weight"); /* a column too few; the rows are the vocabulary */
    gb_matrix(&b, "token_embd.weight", DT_F16, 128, 63, 1, 1);
    open_refused(ERR_FORMAT, "token_embd.weight", "[63, 128, 1, 1], wanted [64, 128]");
}
END_TEST

START_TEST(a_type_that_is_no_weight_is_named_with_its_architecture) {
    build_without("blk.0.attn_k.weight");
    gb_tensor(&b, "blk.0.attn_k.weight", DT_I32, 2, (uint64_t[]){64, 64}, NULL);
    open_refused(ERR_UNSUPPORTED, "blk.0.attn_k.weight", "architecture llama");
    build_without("blk.0.attn_norm.weight");
    gb_tensor(&b, "blk.0.attn_norm.weight", DT_Q8_0, 1, (uint64_t[]){64}, NULL);
    open_refused(ERR_UNSUPPORTED, "blk.0.attn_norm.weight", "type Q8_0");
}
END_TEST

START_TEST(a_tensor_without_a_place_is_another_model) {
    build_without("none of them");
    gb_vector(&b, "blk.0.attn_q_norm.weight", 32, 1, 1, 0);
    open_refused(ERR_UNSUPPORTED, "blk.0.attn_q_norm.weight", "no place");
    build_without("none of them");
    gb_int(&b, "llama.expert_count", 8);
    gb_int(&b, "llama.expert_used_count", 2);
    open_refused(ERR_FORMAT, "blk.0.ffn_gate_inp.weight", "missing");
    build_without("none of them");
    gb_int(&b, "llama.expert_count", 8);
    gb_int(&b, "llama.expert_used_count", 9);
    open_refused(ERR_FORMAT, "llama.expert_used_count", "9 experts used of 8");
    build_without("none of them");
    gb_int(&b, "llama.expert_count", 2);
    gb_int(&b, "llama.expert_used_count", 2);
    gb_int(&b, "llama.expert_gating_func", 4);
    open_refused(ERR_UNSUPPORTED, "llama.expert_gating_func", "router");
    build_without("none of them");
    gb_int(&b, "llama.expert_count", 2);
    gb_int(&b, "llama.expert_used_count", 2);
    gb_matrix(&b, "blk.0.ffn_gate.0.weight", DT_F16, 64, 64, 1, 1);
    open_refused(ERR_UNSUPPORTED, "blk.0.ffn_gate.0.weight", "a file of 2023");
    build_without("none of them");
    gb_vector(&b, "blk.0.attn_rot_embd", 16, 1, 1, 0); /* derived: ignored, as elsewhere */
    open_built();
}
END_TEST

/* ---- planned from a config ---- */

static model_config shape(uint32_t layers, uint32_t embd, uint32_t heads, uint32_t kv,
                          uint32_t hd, uint32_t ff, uint32_t vocab) {
    model_config c = gb_tiny("llama");
    c.n_layers = layers, c.n_embd = embd, c.n_heads = heads, c.n_kv_heads = kv;
    c.head_dim = c.rope.n_dims = hd, c.n_ff = ff, c.n_vocab = vocab;
    return c;
}

static uint64_t planned_bytes(const model_config *c, dtype type, dtype head) {
    err e;
    ck_assert_msg(model_from_config(&m, c, type, &e) == OK, "%s", e.text);
    if (head != DT_NONE)
        m->program.weights[weight_named(&m->program, "output.weight")].type = head;
    uint64_t n = program_weight_bytes(&m->program);
    teardown();
    return n;
}

START_TEST(tensor_bytes_of_public_files_are_exact) {
    /* llama.cpp's quantizer keeps norms and biases in F32 and, with Q4_0, the output matrix in
     * Q6_K. */
    model_config c = shape(32, 4096, 32, 32, 128, 11008, 32000);
    ck_assert_uint_eq(planned_bytes(&c, DT_Q4_0, DT_Q6_K), 3825065984);
    c = shape(40, 5120, 40, 40, 128, 13824, 32000);
    ck_assert_uint_eq(planned_bytes(&c, DT_Q4_0, DT_Q6_K), 7365089280);
    c = shape(32, 4096, 32, 8, 128, 14336, 128256);
    ck_assert_uint_eq(planned_bytes(&c, DT_Q8_0, DT_NONE), 8532934656);
    c = shape(28, 3584, 28, 4, 128, 18944, 152064);
    c.qkv_bias = true, strcpy(c.arch, "qwen2");
    ck_assert_uint_eq(planned_bytes(&c, DT_Q8_0, DT_NONE), 8092571648);
    ck_assert_uint_eq(planned_bytes(&c, DT_F16, DT_NONE), 15231899648);
    c = shape(30, 576, 9, 3, 64, 1536, 49152);
    c.tied_head = true;
    ck_assert_uint_eq(planned_bytes(&c, DT_Q8_0, DT_NONE), 143025408);
    ck_assert_uint_eq(planned_bytes(&c, DT_F16, DT_NONE), 269100288);
}
END_TEST

static model_config family_shape(const char *arch, model_config c) {
    model_config like = gb_tiny(arch);
    memcpy(c.arch, like.arch, sizeof c.arch);
    c.qkv_bias = like.qkv_bias, c.qk_norm = like.qk_norm;
    c.norms_per_layer = like.norms_per_layer, c.tied_head = like.tied_head;
    c.rope.pairing = like.rope.pairing;
    c.n_ctx_train = 32768;
    return c;
}

/* Public configs: weights and bytes of K and V in float16 of one token, over all layers. */
START_TEST(reference_models_record_as_many_weights_and_kv_bytes_as_published) {
    model_config qwen3 = family_shape("qwen3", shape(28, 1024, 16, 8, 128, 3072, 151936));
    model_config gemma = family_shape("gemma3", shape(26, 1152, 4, 1, 256, 6912, 262144));
    qwen3.tied_head = true;
    gemma.window = 512, gemma.window_every = 6, gemma.window_theta = 10000;
    const struct {
        model_config c;
        uint64_t params, kv;
        uint32_t windowed; /* layers */
    } want[] = {
        {shape(32, 4096, 32, 32, 128, 11008, 32000), 6738415616, 524288, 0},
        {shape(32, 4096, 32, 8, 128, 14336, 128256), 8030261248, 131072, 0},
        {family_shape("qwen2", shape(28, 3584, 28, 4, 128, 18944, 152064)), 7615616512, 57344,
         0},
        {qwen3, 596049920, 114688, 0},
        {gemma, 999885952, 26624, 22},
        {family_shape("phi3", shape(32, 3072, 32, 32, 96, 8192, 32064)), 3821079552, 393216, 0},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const model_config *c = &want[i].c;
        err e;
        ck_assert_msg(model_from_config(&m, c, DT_BF16, &e) == OK, "%s", e.text);
        const program *p = &m->program;
        uint64_t params = 0, layers = 0, kv = 0;
        for (uint32_t k = 0; k < p->n_weights; k++)
            params += (uint64_t)p->weights[k].rows * p->weights[k].cols;
        ck_assert_uint_eq(params, want[i].params);
        ck_assert_uint_eq(model_config_params(c), want[i].params);
        for (uint32_t k = 0; k < p->n_groups; k++) {
            layers += p->group[k].n_layers;
            kv += p->group[k].n_layers * 4ull * c->n_kv_heads * c->head_dim;
        }
        ck_assert_uint_eq(layers, c->n_layers);
        ck_assert_uint_eq(kv, want[i].kv);
        ck_assert_uint_eq(p->group[0].window ? p->group[0].n_layers : 0, want[i].windowed);
        teardown();
    }
}
END_TEST

START_TEST(a_planned_model_has_as_many_weights_as_its_config_says) {
    const model_config c[] = {
        shape(32, 4096, 32, 32, 128, 11008, 32000),
        shape(80, 8192, 64, 8, 128, 28672, 128256),
        shape(2, 64, 4, 2, 32, 96, 128),
    };
    for (int i = 0; i < 6; i++) {
        model_config k = c[i % 3];
        k.tied_head = i < 3;
        k.qkv_bias = k.o_bias = i >= 3;
        ck_assert_uint_eq(planned_bytes(&k, DT_F32, DT_NONE), 4 * model_config_params(&k));
    }
}
END_TEST

START_TEST(matrices_fall_back_as_quantizers_do) {
    model_config c = shape(30, 576, 9, 3, 64, 1536, 49152);
    err e;
    ck_assert_int_eq(model_from_config(&m, &c, DT_Q4_K, &e), OK);
    const program *p = &m->program;
    check_values(p);
    check_weights(p);
    ck_assert_int_eq(p->weights[weight_named(p, "blk.3.attn_q.weight")].type, DT_Q5_0);
    ck_assert_int_eq(p->weights[weight_named(p, "blk.3.ffn_down.weight")].type, DT_Q4_K);
    ck_assert_int_eq(p->weights[weight_named(p, "blk.3.ffn_norm.weight")].type, DT_F32);
    ck_assert_int_eq(p->weights[0].tensor, -1);
    ck_assert_ptr_null(m->file);
}
END_TEST

START_TEST(a_config_that_we_cannot_run_is_refused_by_name) {
    model_config c = shape(2, 64, 4, 2, 32, 96, 128);
    err e;
    strcpy(c.arch, "mamba");
    ck_assert_int_eq(model_from_config(&m, &c, DT_F16, &e), ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.text, "mamba"));
    c = shape(2, 64, 4, 2, 32, 96, 128);
    ck_assert_int_eq(model_from_config(&m, &c, DT_NONE, &e), ERR_INVALID);
    ck_assert_str_eq(e.field, "weights");
    ck_assert_int_eq(model_from_config(&m, &c, DT_I32, &e), ERR_INVALID);
    c.n_experts = 8, c.n_experts_used = 2;
    strcpy(c.arch, "qwen2");
    ck_assert_int_eq(model_from_config(&m, &c, DT_F16, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "n_experts");
    strcpy(c.arch, "qwen3moe");
    c.n_experts = c.n_experts_used = 0;
    ck_assert_int_eq(model_from_config(&m, &c, DT_F16, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "n_experts");
    strcpy(c.arch, "llama");
    c.n_heads = 0;
    ck_assert_int_eq(model_from_config(&m, &c, DT_F16, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "n_heads");
    ck_assert_ptr_null(m);
}
END_TEST

START_TEST(a_program_says_of_what_it_consists) {
    model_config c = shape(2, 64, 4, 2, 32, 96, 128);
    const char *names[OP_SET_MAX];
    err e;
    c.sinks = true;
    c.n_experts = 8, c.n_experts_used = 2;
    c.ffn_bias = true;
    strcpy(c.arch, "llama");
    ck_assert_int_eq(model_from_config(&m, &c, DT_F16, &e), OK);
    const op_set all = program_ops(&m->program);
    const op_set without = op_set_without(all, (op_set){~0ull, 0});
    ck_assert(all.kinds >> OP_ATTENTION & 1 && all.kinds >> OP_ROUTE & 1);
    ck_assert_uint_eq(op_set_names(without, names), 2);
    ck_assert_str_eq(names[0], "sinks");
    ck_assert_str_eq(names[1], "gate_up_bias");
    ck_assert(op_set_empty(op_set_without(all, all)));
}
END_TEST

START_TEST(the_real_model_uses_every_tensor_of_its_file) {
    const char *path = test_model();
    err e;
    ck_assert_msg(checkpoint_open(&g, path, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&m, g, &e) == OK, "%s", e.text);
    check_values(&m->program);
    check_weights(&m->program);
    ck_assert_uint_eq(program_weight_bytes(&m->program), stored_bytes());
    ck_assert_uint_eq(m->program.n_weights, checkpoint_n_tensors(g));
}
END_TEST

int main(void) {
    Suite *s = suite_create("program");
    TCase *t = check_case(s, "program");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, the_llama_pass_is_eight_operations_a_layer);
    tcase_add_test(t, a_tied_head_reads_the_embedding_once);
    tcase_add_test(t, qwen2_has_biases_on_q_k_and_v);
    tcase_add_test(t, a_llama_file_with_biases_of_attention_uses_them);
    tcase_add_test(t, qwen3_norms_the_heads_of_q_and_k);
    tcase_add_test(t, phi3_reads_parts_of_fused_matrices);
    tcase_add_test(t, longrope_divides_by_other_factors_in_long_contexts);
    tcase_add_test(t, gemma3_has_four_norms_and_windows_with_a_base_of_their_own);
    tcase_add_test(t, a_pattern_of_windows_may_be_listed_layer_by_layer);
    tcase_add_test(t, rope_factors_of_the_file_serve_every_layer);
    tcase_add_test(t, layers_of_one_window_share_a_group_of_blocks);
    tcase_add_test(t, the_program_prints_one_operation_a_line);
    tcase_add_test(t, rows_are_read_as_stored);
    tcase_add_test(t, vectors_are_served_as_float32);
    tcase_add_test(t, a_missing_tensor_is_named);
    tcase_add_test(t, matrices_of_nvfp4_have_a_scale_beside_them);
    tcase_add_test(t, a_wrong_shape_is_named_with_what_was_wanted);
    tcase_add_test(t, a_type_that_is_no_weight_is_named_with_its_architecture);
    tcase_add_test(t, a_tensor_without_a_place_is_another_model);
    tcase_add_test(t, tensor_bytes_of_public_files_are_exact);
    tcase_add_test(t, reference_models_record_as_many_weights_and_kv_bytes_as_published);
    tcase_add_test(t, a_planned_model_has_as_many_weights_as_its_config_says);
    tcase_add_test(t, matrices_fall_back_as_quantizers_do);
    tcase_add_test(t, a_config_that_we_cannot_run_is_refused_by_name);
    tcase_add_test(t, a_program_says_of_what_it_consists);
    tcase_add_test(t, the_real_model_uses_every_tensor_of_its_file);
    return check_run(s);
}
