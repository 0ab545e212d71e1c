/* Published mixtures of experts: a tensor for each expert, or one of all, become GGUF's; what does
 * not fit together is refused by name. */
#include "base/buf.h"
#include "model/model.h"
#include "tests/check_main.h"
#include "tests/model/hf_build.h"
#include "tests/model/config_params.h"

enum { EMBD = 8, FF = 4, EXPERTS = 3, VOCAB = 6, MOST = 40 };

typedef struct one {
    char name[80];
    uint32_t dim[3]; /* 0: absent */
    float first;     /* its numbers count on from it */
} one;

static hf_dir dir;
static checkpoint *c;
static one list[MOST];
static uint32_t n;
static float next;
static err e;

static void setup(void) {
    hf_dir_make(&dir);
    hf_text(
        &dir, "tokenizer.json",
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],\"normalizer\":"
        "null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_"
        "regex\":true},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2,\"b\":3},\"merges\":[]}"
        "}");
    c = NULL, n = 0, next = 0, e = (err){0};
}
static void teardown(void) {
    checkpoint_close(c);
    hf_dir_remove(&dir);
}

static uint32_t numbers_of(const one *t) {
    return t->dim[0] * (t->dim[1] ? t->dim[1] : 1) * (t->dim[2] ? t->dim[2] : 1);
}

static void add(const char *name, uint32_t a, uint32_t b, uint32_t d) {
    ck_assert_uint_lt(n, MOST);
    one *t = &list[n++];
    *t = (one){.dim = {a, b, d}, .first = next};
    snprintf(t->name, sizeof t->name, "%s", name);
    next += (float)numbers_of(t);
}

static float first_of(const char *name) {
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0) return list[i].first;
    ck_abort_msg("%s", name);
}

static void add_attention(void) {
    static const char *const qkvo[] = {"q", "k", "v", "o"};
    char name[80];
    add("model.embed_tokens.weight", VOCAB, EMBD, 0);
    add("model.norm.weight", EMBD, 0, 0);
    add("model.layers.0.input_layernorm.weight", EMBD, 0, 0);
    add("model.layers.0.post_attention_layernorm.weight", EMBD, 0, 0);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "model.layers.0.self_attn.%s_proj.weight", qkvo[i]);
        add(name, EMBD, EMBD, 0);
    }
}

static void write_file(const char *skip) {
    buf file, header, data;
    uint64_t at = 0;
    buf_init(&file, NULL);
    buf_init(&header, NULL);
    buf_init(&data, NULL);
    for (uint32_t i = 0; i < n; i++) {
        const one *t = &list[i];
        const uint32_t numbers = numbers_of(t);
        if (skip && strcmp(skip, t->name) == 0) continue;
        buf_addf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%u", at ? "," : "{", t->name,
                 t->dim[0]);
        for (int k = 1; k < 3 && t->dim[k]; k++) buf_addf(&header, ",%u", t->dim[k]);
        buf_addf(&header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                 (unsigned long long)(at + 4ull * numbers));
        at += 4ull * numbers;
        for (uint32_t k = 0; k < numbers; k++) {
            const float v = t->first + (float)k;
            buf_add(&data, (str){(const char *)&v, sizeof v});
        }
    }
    buf_addc(&header, '}');
    const uint64_t len = header.len;
    buf_add(&file, (str){(const char *)&len, 8});
    buf_add(&file, buf_str(&header));
    buf_add(&file, buf_str(&data));
    ck_assert(!file.failed);
    hf_write(&dir, "model.safetensors", file.ptr, file.len);
    buf_clear(&file);
    buf_clear(&header);
    buf_clear(&data);
}

#define SHAPE                                                                                  \
    "\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"vocab_size\":6,"    \
    "\"max_position_embeddings\":64,\"tie_word_embeddings\":true,\"num_experts_per_tok\":2,"
static const char mixtral[] =
    "{\"model_type\":\"mixtral\"," SHAPE "\"intermediate_size\":4,\"num_local_experts\":3}";
static const char qwen2_moe[] = "{\"model_type\":\"qwen2_moe\"," SHAPE
                                "\"intermediate_size\":16,\"moe_intermediate_size\":4,"
                                "\"shared_expert_intermediate_size\":12,\"num_experts\":3}";

static void add_mixtral(void) {
    static const char *const w[] = {"w1", "w2", "w3"};
    char name[80];
    hf_text(&dir, "config.json", mixtral);
    add_attention();
    add("model.layers.0.block_sparse_moe.gate.weight", EXPERTS, EMBD, 0);
    for (uint32_t i = EXPERTS; i-- > 0;) /* in any order */
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "model.layers.0.block_sparse_moe.experts.%u.%s.weight",
                     i, w[k]);
            add(name, k == 1 ? EMBD : FF, k == 1 ? FF : EMBD, 0);
        }
}

static void add_qwen2_moe(void) {
    static const char *const qkv[] = {"q", "k", "v"};
    char name[80];
    hf_text(&dir, "config.json", qwen2_moe);
    add_attention();
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "model.layers.0.self_attn.%s_proj.bias", qkv[i]);
        add(name, EMBD, 0, 0);
    }
    add("model.layers.0.mlp.gate.weight", EXPERTS, EMBD, 0);
    add("model.layers.0.mlp.experts.gate_up_proj", EXPERTS, 2 * FF, EMBD);
    add("model.layers.0.mlp.experts.down_proj", EXPERTS, EMBD, FF);
    add("model.layers.0.mlp.shared_expert.gate_proj.weight", 12, EMBD, 0);
    add("model.layers.0.mlp.shared_expert.up_proj.weight", 12, EMBD, 0);
    add("model.layers.0.mlp.shared_expert.down_proj.weight", EMBD, 12, 0);
    add("model.layers.0.mlp.shared_expert_gate.weight", 1, EMBD, 0);
}

/* The first number of each row of an expert is where the stored tensor has it. */
static void check_rows(const char *gguf, uint32_t expert, float first, uint32_t rows,
                       uint32_t cols) {
    tensor_info t;
    float row[EXPERTS * EMBD * EMBD];
    const int32_t i = checkpoint_find(c, gguf, &t);
    ck_assert_int_ge(i, 0);
    ck_assert(t.ne[0] == cols && t.ne[1] == rows && t.ne[2] == EXPERTS && t.type == DT_F32);
    for (uint32_t r = 0; r < rows; r++) {
        ck_assert_int_eq(checkpoint_read_rows(c, (size_t)i, expert * rows + r, 1, row, &e), OK);
        ck_assert_float_eq(row[0], first + (float)(r * cols));
        ck_assert_float_eq(row[cols - 1], first + (float)(r * cols + cols - 1));
    }
    /* Across the borders of experts, too. */
    ck_assert_int_eq(checkpoint_read_rows(c, (size_t)i, 0, EXPERTS * rows, row, &e), OK);
    ck_assert_float_eq(row[expert * rows * cols], first);
}

static void opens(void) {
    model *m;
    ck_assert_msg(checkpoint_open(&c, dir.path, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&m, c, &e) == OK, "%s", e.text);
    ck_assert_uint_eq(m->program.config.n_ff, FF);
    ck_assert_uint_eq(program_weight_bytes(&m->program),
                      4 * model_config_params(&m->program.config));
    model_close(m);
}

START_TEST(a_tensor_for_each_expert_becomes_one_of_all) {
    char name[80];
    add_mixtral();
    write_file(NULL);
    opens();
    static const char *const gguf[] = {
        "blk.0.ffn_gate_exps.weight", "blk.0.ffn_down_exps.weight", "blk.0.ffn_up_exps.weight"};
    for (uint32_t i = 0; i < EXPERTS; i++)
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "model.layers.0.block_sparse_moe.experts.%u.w%d.weight",
                     i, k + 1);
            check_rows(gguf[k], i, first_of(name), k == 1 ? EMBD : FF, k == 1 ? FF : EMBD);
        }
}
END_TEST

START_TEST(gate_and_up_of_all_experts_in_one_tensor_become_two) {
    add_qwen2_moe();
    write_file(NULL);
    opens();
    const float both = first_of("model.layers.0.mlp.experts.gate_up_proj");
    const float down = first_of("model.layers.0.mlp.experts.down_proj");
    for (uint32_t i = 0; i < EXPERTS; i++) {
        const float at = both + (float)(i * 2 * FF * EMBD);
        check_rows("blk.0.ffn_gate_exps.weight", i, at, FF, EMBD);
        check_rows("blk.0.ffn_up_exps.weight", i, at + FF * EMBD, FF, EMBD);
        check_rows("blk.0.ffn_down_exps.weight", i, down + (float)(i * FF * EMBD), EMBD, FF);
    }
}
END_TEST

static void refused(const char *field, const char *text) {
    ck_assert_int_eq(checkpoint_open(&c, dir.path, &e), ERR_FORMAT);
    ck_assert_msg(strstr(e.text, text) != NULL, "\"%s\"", e.text);
    ck_assert_str_eq(e.field, field);
}

START_TEST(experts_that_do_not_fit_are_refused_by_name) {
    static const char other[] = "model.layers.0.block_sparse_moe.experts.1.w2.weight";
    char name[80];
    add_mixtral();
    write_file(other);
    refused("blk.0.ffn_down_exps.weight", "expert 1 of tensor blk.0.ffn_down_exps.weight");
    snprintf(name, sizeof name, "model.layers.0.block_sparse_moe.experts.%d.w2.weight",
             EXPERTS);
    add(name, EMBD, FF, 0);
    write_file(NULL);
    refused(name, "beyond");
    list[n - 1].dim[1] = FF + 1;
    write_file(NULL);
    refused(name, "another shape");
}
END_TEST

START_TEST(tensors_of_experts_in_a_dense_model_are_refused) {
    hf_text(&dir, "config.json", "{\"model_type\":\"llama\"," SHAPE "\"intermediate_size\":4}");
    add_attention();
    add("model.layers.0.mlp.experts.down_proj", EXPERTS, EMBD, FF);
    write_file(NULL);
    refused("model.layers.0.mlp.experts.down_proj", "config.json has none");
}
END_TEST

/* As a model is saved that is not in MXFP4: inputs first, gate and up by turns. */
START_TEST(experts_of_gpt_oss_have_their_inputs_first) {
    float row[EXPERTS * EMBD * EMBD];
    tensor_info t;
    hf_text(&dir, "config.json",
            "{\"model_type\":\"gpt_oss\"," SHAPE
            "\"intermediate_size\":4,\"num_local_experts\":3,\"head_dim\":4}");
    add_attention();
    add("model.layers.0.mlp.experts.gate_up_proj", EXPERTS, EMBD, 2 * FF);
    add("model.layers.0.mlp.experts.down_proj", EXPERTS, FF, EMBD);
    write_file(NULL);
    ck_assert_msg(checkpoint_open(&c, dir.path, &e) == OK, "%s", e.text);
    static const char *const name[] = {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight",
                                       "blk.0.ffn_down_exps.weight"};
    for (uint32_t i = 0; i < 3; i++) {
        const uint32_t rows = i < 2 ? FF : EMBD, cols = i < 2 ? EMBD : FF,
                       turns = i < 2 ? 2 : 1;
        const int32_t at = checkpoint_find(c, name[i], &t);
        ck_assert(at >= 0 && t.type == DT_F32);
        ck_assert(t.ne[0] == cols && t.ne[1] == rows && t.ne[2] == EXPERTS);
        const float first = first_of(i < 2 ? "model.layers.0.mlp.experts.gate_up_proj"
                                           : "model.layers.0.mlp.experts.down_proj");
        for (uint32_t from = 0; from < EXPERTS * rows; from++) {
            const uint32_t n = EXPERTS * rows - from;
            ck_assert_int_eq(checkpoint_read_rows(c, (size_t)at, from, n, row, &e), OK);
            for (uint32_t k = 0; k < n * cols; k++) {
                const uint32_t r = from + k / cols, expert = r / rows, input = k % cols;
                const uint32_t place =
                    ((expert * cols + input) * rows + r % rows) * turns + (i == 1);
                ck_assert_float_eq(row[k], first + (float)place);
            }
        }
    }
}
END_TEST

START_TEST(tensors_of_another_form_of_experts_are_refused) {
    hf_text(&dir, "config.json", mixtral);
    add_attention();
    add("model.layers.0.mlp.experts.down_proj_bias", EXPERTS, EMBD, 0);
    write_file(NULL);
    ck_assert_int_eq(checkpoint_open(&c, dir.path, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "model.layers.0.mlp.experts.down_proj_bias");
    hf_text(&dir, "config.json",
            "{\"model_type\":\"gpt_oss\"," SHAPE
            "\"intermediate_size\":4,\"num_local_experts\":3,\"head_dim\":4}");
    n--;
    add("model.layers.0.mlp.experts.1.down_proj.weight", EMBD, FF, 0);
    write_file(NULL);
    ck_assert_int_eq(checkpoint_open(&c, dir.path, &e), ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.text, "experts of gpt-oss"));
}
END_TEST

int main(void) {
    Suite *s = suite_create("hf_experts");
    TCase *t = check_case(s, "hf_experts");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_tensor_for_each_expert_becomes_one_of_all);
    tcase_add_test(t, gate_and_up_of_all_experts_in_one_tensor_become_two);
    tcase_add_test(t, experts_that_do_not_fit_are_refused_by_name);
    tcase_add_test(t, tensors_of_experts_in_a_dense_model_are_refused);
    tcase_add_test(t, experts_of_gpt_oss_have_their_inputs_first);
    tcase_add_test(t, tensors_of_another_form_of_experts_are_refused);
    return check_run(s);
}
