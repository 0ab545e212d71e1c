/* Config, program and rows from a checkpoint that is no GGUF file, and from one that is. */
#include "model/model.h"
#include "tests/check_main.h"
#include "tests/model/fake_checkpoint.h"
#include "tests/model/gguf_build.h"

enum { EMBD = 32, FF = 64, HEADS = 2, HEAD_DIM = 16, VOCAB = 40 };

static fake_checkpoint f;
static float numbers[VOCAB * EMBD + FF * EMBD]; /* more than the largest tensor has */
static model *m;

static void setup(void) {
    fake_init(&f);
    m = NULL;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) numbers[i] = (float)i;
}
static void teardown(void) {
    model_close(m);
}

static void add_facts(const char *arch) {
    static const struct {
        const char *suffix;
        uint32_t v;
    } t[] = {{"block_count", 1},          {"context_length", 128},
             {"embedding_length", EMBD},  {"feed_forward_length", FF},
             {"attention.head_count", 2}, {"attention.key_length", HEAD_DIM}};
    static char key[sizeof t / sizeof *t][64];
    fake_str(&f, "general.architecture", arch);
    fake_str(&f, "general.name", "in memory");
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        snprintf(key[i], sizeof key[i], "%s.%s", arch, t[i].suffix);
        fake_u32(&f, key[i], t[i].v);
    }
}

/* All but blk.0.ffn_up.weight. */
static void add_tensors(void) {
    const uint32_t q = HEADS * HEAD_DIM;
    fake_tensor(&f, "token_embd.weight", DT_F32, EMBD, VOCAB, numbers);
    fake_tensor(&f, "blk.0.attn_norm.weight", DT_F32, EMBD, 1, numbers + 3);
    fake_tensor(&f, "blk.0.attn_q.weight", DT_F32, EMBD, q, numbers);
    fake_tensor(&f, "blk.0.attn_k.weight", DT_F32, EMBD, q, numbers);
    fake_tensor(&f, "blk.0.attn_v.weight", DT_F32, EMBD, q, numbers);
    fake_tensor(&f, "blk.0.attn_output.weight", DT_F32, q, EMBD, numbers);
    fake_tensor(&f, "blk.0.ffn_norm.weight", DT_F32, EMBD, 1, numbers);
    fake_tensor(&f, "blk.0.ffn_gate.weight", DT_F32, EMBD, FF, numbers);
    fake_tensor(&f, "blk.0.ffn_down.weight", DT_F32, FF, EMBD, numbers);
    fake_tensor(&f, "output_norm.weight", DT_F32, EMBD, 1, numbers);
}

static weight_id named(const char *name) {
    for (uint32_t i = 0; i < m->program.n_weights; i++)
        if (strcmp(m->program.weights[i].name, name) == 0) return i;
    ck_abort_msg("no weight %s", name);
}

START_TEST(a_model_opens_from_a_checkpoint_in_memory) {
    err e;
    add_facts("llama");
    add_tensors();
    fake_tensor(&f, "blk.0.ffn_up.weight", DT_F32, EMBD, FF, numbers);
    ck_assert_msg(model_open(&m, &f.base, &e) == OK, "%s", e.text);
    const model_config *c = &m->program.config;
    ck_assert_str_eq(c->arch, "llama");
    ck_assert_str_eq(c->name, "in memory");
    ck_assert(c->n_layers == 1 && c->n_embd == EMBD && c->n_heads == 2 && c->n_ff == FF);
    ck_assert_uint_eq(c->n_vocab, VOCAB); /* by the matrix */
    ck_assert(c->tied_head && !c->qkv_bias);
    ck_assert_int_eq(c->rope.pairing, ROPE_HALVES); /* this format does not permute q and k */
    ck_assert_uint_eq(m->program.n_weights, f.n_tensors);
    float norm[EMBD], rows[2 * EMBD];
    ck_assert_int_eq(model_read_vector(m, named("blk.0.attn_norm.weight"), norm, &e), OK);
    ck_assert_mem_eq(norm, numbers + 3, sizeof norm);
    ck_assert_int_eq(model_read_rows(m, named("token_embd.weight"), 7, 2, rows, &e), OK);
    ck_assert_mem_eq(rows, numbers + 7 * EMBD, sizeof rows);
    checkpoint_close(&f.base);
    ck_assert(f.closed);
}
END_TEST

START_TEST(a_weight_may_be_made_of_several_stored_tensors) {
    err e;
    add_facts("llama");
    add_tensors();
    fake_joined(&f, "blk.0.ffn_up.weight", DT_F32, EMBD, FF, numbers, 60, numbers + 9);
    ck_assert_msg(model_open(&m, &f.base, &e) == OK, "%s", e.text);
    float rows[4 * EMBD];
    ck_assert_int_eq(model_read_rows(m, named("blk.0.ffn_up.weight"), 58, 4, rows, &e), OK);
    ck_assert_mem_eq(rows, numbers + 58 * EMBD, sizeof rows / 2);
    ck_assert_mem_eq(rows + 2 * EMBD, numbers + 9, sizeof rows / 2);
}
END_TEST

START_TEST(what_is_missing_or_has_no_place_is_named) {
    err e;
    add_facts("llama");
    add_tensors();
    ck_assert_int_eq(model_open(&m, &f.base, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "blk.0.ffn_up.weight");
    fake_tensor(&f, "blk.0.ffn_up.weight", DT_F32, EMBD, FF, numbers);
    fake_tensor(&f, "model.layers.0.mlp.up_proj.qzeros", DT_F32, 4, 1, numbers);
    ck_assert_int_eq(model_open(&m, &f.base, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "model.layers.0.mlp.up_proj.qzeros");
    f.n_tensors--;
    f.fact[2].type = FACT_I32; /* llama.block_count becomes an array */
    ck_assert_int_eq(model_open(&m, &f.base, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "llama.block_count");
    f.n_facts = 2;
    ck_assert_int_eq(model_open(&m, &f.base, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "llama.block_count");
    ck_assert_ptr_null(strstr(e.text, "GGUF"));
    ck_assert_msg(strncmp(e.text, "in memory: ", 11) == 0, "%s", e.text);
}
END_TEST

START_TEST(a_gguf_file_answers_as_a_checkpoint) {
    gb b;
    char path[64];
    err e;
    checkpoint *c;
    gb_init(&b);
    gb_str(&b, "general.name", "x");
    gb_bool(&b, "on", true);
    gb_ints(&b, "three", (int32_t[]){4, 5, 6}, 3);
    gb_ints(&b, "same", (int32_t[]){7, 7, 7}, 3);
    gb_ints(&b, "below", (int32_t[]){-7, -7}, 2);
    gb_array(&b, "types", GGUF_U32, 2, (uint32_t[]){1, 3}, 8);
    gb_tensor(&b, "m", DT_F32, 3, (uint64_t[]){4, 3, 2}, numbers);
    gb_tensor(&b, "v", DT_F32, 1, (uint64_t[]){5}, numbers);
    gb_open(&b, path);
    ck_assert_int_eq(checkpoint_open(&c, path, &e), OK);
    ck_assert_str_eq(checkpoint_path(c), path);
    ck_assert_uint_gt(checkpoint_header_bytes(c), 0);
    ck_assert_uint_eq(checkpoint_n_tensors(c), 2);
    tensor_info t;
    ck_assert_int_eq(checkpoint_find(c, "absent", &t), -1);
    ck_assert_int_eq(checkpoint_find(c, "v", &t), 1);
    ck_assert(strcmp(t.name, "v") == 0 && t.type == DT_F32 && t.ne[0] == 5 && t.ne[1] == 1);
    float rows[3 * 4];
    ck_assert_int_eq(checkpoint_read_rows(c, 0, 2, 3, rows, &e), OK); /* into the next plane */
    ck_assert_mem_eq(rows, numbers + 2 * 4, sizeof rows);
    ck_assert_int_eq(checkpoint_read_part(c, 0, 4, 1, 2, rows, &e), OK);
    ck_assert_mem_eq(rows, numbers + 4 * 4 + 1, 2 * sizeof *rows);
    uint64_t n = 0;
    ck_assert(checkpoint_has(c, "on") && !checkpoint_has(c, "off"));
    ck_assert(checkpoint_length(c, "three", &n) && n == 3 && !checkpoint_length(c, "on", &n));
    bool on = false;
    str name;
    fact_array a = {0};
    ck_assert(checkpoint_get_bool(c, "on", &on, &e) == OK && on);
    ck_assert(checkpoint_get_str(c, "general.name", &name, &e) == OK && str_eqz(name, "x"));
    ck_assert_int_eq(checkpoint_get_array(c, "three", FACT_F32, &a, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "three");
    ck_assert_int_eq(checkpoint_get_array(c, "three", FACT_I32, &a, &e), OK);
    ck_assert(a.n == 3 && ((const int32_t *)a.v)[2] == 6);
    ck_assert_int_eq(checkpoint_get_array(c, "types", FACT_I32, &a, &e), OK);
    ck_assert(a.n == 2 && ((const int32_t *)a.v)[1] == 3);
    uint32_t one = 0; /* layer by layer, and the same for all */
    ck_assert(checkpoint_get_u32(c, "same", &one, &e) == OK && one == 7);
    ck_assert_int_eq(checkpoint_get_u32(c, "three", &one, &e), ERR_FORMAT);
    ck_assert_int_eq(checkpoint_get_u32(c, "below", &one, &e), ERR_FORMAT);
    checkpoint_close(c);
    gb_clear(&b);
}
END_TEST

int main(void) {
    Suite *s = suite_create("checkpoint");
    TCase *t = check_case(s, "checkpoint");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_model_opens_from_a_checkpoint_in_memory);
    tcase_add_test(t, a_weight_may_be_made_of_several_stored_tensors);
    tcase_add_test(t, what_is_missing_or_has_no_place_is_named);
    tcase_add_test(t, a_gguf_file_answers_as_a_checkpoint);
    return check_run(s);
}
