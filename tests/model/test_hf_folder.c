/* A published model in a folder: its tensors have GGUF's names, order and numbers, its small files
 * become facts, and folders that are wrong are refused by name. */
#include "model/hf/hf_folder.h"

#include "base/buf.h"
#include "model/model.h"
#include "tests/check_main.h"
#include "tests/model/hf_build.h"

enum { EMBD = 8, HEAD = 4, HEADS = 2, FF = 8, VOCAB = 6 };

static hf_dir dir;
static checkpoint *c;
static err e;

/* Each tensor of n numbers gets its own range of them, in F32. */
typedef struct one {
    const char *name;
    uint32_t rows, cols; /* cols 0: a vector of rows */
} one;

static const one llama[] = {
    {"model.embed_tokens.weight", VOCAB, EMBD},
    {"model.norm.weight", EMBD, 0},
    {"model.layers.0.input_layernorm.weight", EMBD, 0},
    {"model.layers.0.post_attention_layernorm.weight", EMBD, 0},
    {"model.layers.0.self_attn.q_proj.weight", HEADS *HEAD, EMBD},
    {"model.layers.0.self_attn.k_proj.weight", HEADS *HEAD, EMBD},
    {"model.layers.0.self_attn.v_proj.weight", HEADS *HEAD, EMBD},
    {"model.layers.0.self_attn.o_proj.weight", EMBD, HEADS *HEAD},
    {"model.layers.0.self_attn.rotary_emb.inv_freq", 2, 0},
    {"model.layers.0.mlp.gate_proj.weight", FF, EMBD},
    {"model.layers.0.mlp.up_proj.weight", FF, EMBD},
    {"model.layers.0.mlp.down_proj.weight", EMBD, FF},
};
enum { N_LLAMA = sizeof llama / sizeof *llama };

static const char config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_"
    "heads\":2,"
    "\"intermediate_size\":8,\"vocab_size\":6,\"max_position_embeddings\":64,"
    "\"tie_word_embeddings\":true,\"eos_token_id\":1}";
static const char tokenizer[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true},"
    "{\"id\":1,\"content\":\"</s>\",\"special\":true,\"rstrip\":true}],\"normalizer\":null,"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\"}},"
    "{\"Sequence\":{\"id\":\"A\"}}]},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2,\"b\":3,\"ab\":4},\"merges\":[[\"a\",\"b\"]"
    "]}}";

static uint32_t numbers_of(const one *t) {
    return t->rows * (t->cols ? t->cols : 1);
}

/* Numbers count on from tensor to tensor. skip: a name to leave out; from, to: which of them. */
static void write_file(const char *name, uint32_t from, uint32_t to, const char *skip) {
    buf b, header;
    uint64_t at = 0;
    float v = 0;
    buf_init(&b, NULL);
    buf_init(&header, NULL);
    buf_addc(&header, '{');
    for (uint32_t i = 0; i < N_LLAMA; i++) {
        const uint32_t n = numbers_of(&llama[i]);
        if (i < from || i >= to || (skip && strcmp(llama[i].name, skip) == 0)) {
            v += (float)n;
            continue;
        }
        buf_addf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%u",
                 header.len > 1 ? "," : "", llama[i].name, llama[i].rows);
        if (llama[i].cols) buf_addf(&header, ",%u", llama[i].cols);
        buf_addf(&header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                 (unsigned long long)(at + 4ull * n));
        for (uint32_t k = 0; k < n; k++, v++) buf_add(&b, (str){(char *)&v, sizeof v});
        at += 4ull * n;
    }
    buf_addc(&header, '}');
    buf file;
    buf_init(&file, NULL);
    const uint64_t len = header.len;
    buf_add(&file, (str){(const char *)&len, 8});
    buf_add(&file, buf_str(&header));
    buf_add(&file, buf_str(&b));
    ck_assert(!file.failed);
    hf_write(&dir, name, file.ptr, file.len);
    buf_clear(&b);
    buf_clear(&header);
    buf_clear(&file);
}

static void setup(void) {
    hf_dir_make(&dir);
    c = NULL;
    e = (err){0};
    hf_text(&dir, "config.json", config);
    hf_text(&dir, "tokenizer.json", tokenizer);
}
static void teardown(void) {
    checkpoint_close(c);
    hf_dir_remove(&dir);
}

static float first_of(const char *hf) {
    float v = 0;
    for (uint32_t i = 0; i < N_LLAMA; v += (float)numbers_of(&llama[i++]))
        if (strcmp(llama[i].name, hf) == 0) return v;
    ck_abort_msg("%s", hf);
}

START_TEST(tensors_have_ggufs_names_and_rows) {
    float row[EMBD];
    tensor_info t;
    write_file("model.safetensors", 0, N_LLAMA, NULL);
    ck_assert(hf_folder_is(dir.path));
    ck_assert_int_eq(checkpoint_open(&c, dir.path, &e), OK);
    ck_assert_uint_eq(checkpoint_n_tensors(c), N_LLAMA - 1); /* inv_freq is derived */
    int32_t i = checkpoint_find(c, "blk.0.ffn_down.weight", &t);
    ck_assert_int_ge(i, 0);
    ck_assert_uint_eq(t.ne[0], FF);
    ck_assert_uint_eq(t.ne[1], EMBD);
    ck_assert_int_eq(checkpoint_read_part(c, (size_t)i, 3, 2, 2, row, &e), OK);
    ck_assert_float_eq(row[0], first_of("model.layers.0.mlp.down_proj.weight") + 3 * FF + 2);
    /* Row 1 of a head is the stored dimension HEAD / 2, its rotary pair. */
    i = checkpoint_find(c, "blk.0.attn_k.weight", NULL);
    static const uint32_t stored[] = {0, 2, 1, 3, 4, 6, 5, 7};
    for (uint32_t r = 0; r < HEADS * HEAD; r++) {
        ck_assert_int_eq(checkpoint_read_rows(c, (size_t)i, r, 1, row, &e), OK);
        ck_assert_float_eq(row[0], first_of("model.layers.0.self_attn.k_proj.weight") +
                                       (float)(stored[r] * EMBD));
    }
    float two[2 * EMBD];
    ck_assert_int_eq(checkpoint_read_rows(c, (size_t)i, 6, 2, two, &e), OK);
    ck_assert_float_eq(two[EMBD], row[0]);
    model *m;
    ck_assert_msg(model_open(&m, c, &e) == OK, "%s", e.text);
    ck_assert_int_eq(m->program.config.rope.pairing, ROPE_ADJACENT);
    model_close(m);
}
END_TEST

START_TEST(small_files_become_facts) {
    float x = 0;
    uint32_t u = 0;
    bool b = false;
    str s = {0};
    fact_array a = {0};
    write_file("model.safetensors", 0, N_LLAMA, NULL);
    hf_text(&dir, "generation_config.json",
            "{\"eos_token_id\":[1,4],\"temperature\":0.5,\"top_k\":20}");
    hf_text(&dir, "tokenizer_config.json",
            "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"</s>\",\"chat_template\":"
            "[{\"name\":\"default\",\"template\":\"D\"},{\"name\":\"tool_use\",\"template\":"
            "\"T\"}]}");
    ck_assert_msg(checkpoint_open(&c, dir.path, &e) == OK, "%s", e.text);
    ck_assert_int_eq(checkpoint_get_f32(c, "general.sampling.temp", &x, &e), OK);
    ck_assert_float_eq(x, 0.5F);
    ck_assert_int_eq(checkpoint_get_u32(c, "general.sampling.top_k", &u, &e), OK);
    ck_assert_uint_eq(u, 20);
    ck_assert_int_eq(checkpoint_get_u32(c, "tokenizer.ggml.bos_token_id", &u, &e), OK);
    ck_assert_uint_eq(u, 0);
    ck_assert_int_eq(checkpoint_get_bool(c, "tokenizer.ggml.add_bos_token", &b, &e), OK);
    ck_assert(b);
    ck_assert_int_eq(checkpoint_get_str(c, "tokenizer.chat_template", &s, &e), OK);
    ck_assert(str_eqz(s, "D"));
    ck_assert_int_eq(checkpoint_get_str(c, "tokenizer.chat_template.tool_use", &s, &e), OK);
    ck_assert(str_eqz(s, "T"));
    ck_assert_int_eq(checkpoint_get_str(c, "tokenizer.ggml.pre", &s, &e), OK);
    ck_assert(str_eqz(s, "gpt-2"));
    ck_assert_int_eq(checkpoint_get_array(c, "tokenizer.ggml.tokens", FACT_STR, &a, &e), OK);
    ck_assert_uint_eq(a.n, VOCAB);
    ck_assert(str_eqz(((const str *)a.v)[4], "ab"));
    ck_assert(str_eqz(((const str *)a.v)[5], "[PAD5]"));
    ck_assert_int_eq(checkpoint_get_array(c, "tokenizer.eog_token_ids", FACT_I32, &a, &e), OK);
    ck_assert_uint_eq(a.n, 2);
    ck_assert_int_eq(checkpoint_get_u32(c, "general.name", &u, &e), ERR_FORMAT);
}
END_TEST

static void map_of(uint32_t split, const char *second, const char *extra) {
    buf b;
    buf_init(&b, NULL);
    buf_addf(&b, "{\"weight_map\":{%s", extra);
    for (uint32_t i = 0; i < N_LLAMA; i++)
        buf_addf(&b, "%s\"%s\":\"%s\"", i || *extra ? "," : "", llama[i].name,
                 i < split ? "one.safetensors" : second);
    buf_add(&b, STR("}}"));
    hf_write(&dir, "model.safetensors.index.json", b.ptr, b.len);
    buf_clear(&b);
}

START_TEST(shards_are_one_model) {
    char path[128];
    write_file("one.safetensors", 0, 5, NULL);
    write_file("two.safetensors", 5, N_LLAMA, NULL);
    map_of(5, "two.safetensors", "");
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir.path);
    ck_assert_msg(checkpoint_open(&c, path, &e) == OK, "%s", e.text);
    ck_assert_uint_eq(checkpoint_n_tensors(c), N_LLAMA - 1);
}
END_TEST

static void refused(status want, const char *text) {
    status s = checkpoint_open(&c, dir.path, &e);
    ck_assert_msg(s == want, "%d: %s", s, e.text);
    ck_assert_msg(strstr(e.text, text), "%s", e.text);
    ck_assert_ptr_null(c);
}

START_TEST(maps_that_lie_are_refused) {
    write_file("one.safetensors", 0, 5, NULL);
    write_file("two.safetensors", 5, N_LLAMA, NULL);
    map_of(5, "../two.safetensors", "");
    refused(ERR_FORMAT, "no name of a file beside it");
    map_of(5, "/etc/two.safetensors", "");
    refused(ERR_FORMAT, "no name of a file beside it");
    map_of(5, ".two.safetensors", "");
    refused(ERR_FORMAT, "no name of a file beside it");
    map_of(5, "two.bin", "");
    refused(ERR_FORMAT, "no name of a file beside it");
    map_of(5, "three.safetensors", "");
    refused(ERR_NOT_FOUND, "three.safetensors");
    map_of(4, "two.safetensors", "");
    refused(ERR_FORMAT, "not in the file that it names");
    map_of(5, "two.safetensors", "\"x\":\"one.safetensors\"");
    refused(ERR_FORMAT, "tensor x is not in the file");
    map_of(5, "two.safetensors", "\"x\":7");
    refused(ERR_FORMAT, "names no file");
    map_of(5, "two.safetensors", "");
    write_file("one.safetensors", 0, 6, NULL); /* one tensor more, which is in two, too */
    refused(ERR_FORMAT, "is in two files");
    hf_text(&dir, "model.safetensors.index.json", "{}");
    refused(ERR_FORMAT, "no weight_map");
}
END_TEST

START_TEST(folders_without_what_it_takes_are_refused) {
    refused(ERR_NOT_FOUND, "no .safetensors file");
    hf_text(&dir, "pytorch_model.bin", "PK");
    refused(ERR_UNSUPPORTED, "pickle");
    write_file("a.safetensors", 0, 5, NULL);
    write_file("b.safetensors", 5, N_LLAMA, NULL);
    refused(ERR_INVALID, "2 .safetensors files");
    write_file("model.safetensors", 0, N_LLAMA, NULL);
    hf_text(&dir, "config.json", "{\"model_type\":\"mamba\"}");
    refused(ERR_UNSUPPORTED, "mamba");
    hf_text(&dir, "config.json",
            "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":1,"
            "\"num_attention_heads\":2,\"intermediate_size\":8,\"vocab_size\":6,"
            "\"max_position_embeddings\":64,\"tie_word_embeddings\":false}");
    refused(ERR_FORMAT, "lm_head.weight is missing");
    hf_text(&dir, "config.json", config);
    hf_text(&dir, "tokenizer.json",
            "{\"model\":{\"type\":\"Unigram\",\"vocab\":{},\"merges\":[]}}");
    refused(ERR_UNSUPPORTED, "Unigram");
    hf_text(&dir, "tokenizer.json", "{\"model\":{\"vocab\":{\"a\":6},\"merges\":[]}");
    refused(ERR_INVALID, "not valid JSON");
    hf_text(&dir, "tokenizer.json",
            "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{\"a\":6},"
            "\"merges\":[]}}");
    refused(ERR_FORMAT, "not below vocab_size");
    hf_text(&dir, "tokenizer.json",
            "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{\"a\":1,\"b\":1}"
            ",\"merges\":[]}}");
    refused(ERR_FORMAT, "two tokens have one id");
    hf_text(&dir, "tokenizer.json",
            "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
            "\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"[a-z&&[^b]]\"}},"
            "{\"type\":\"ByteLevel\",\"use_regex\":false}]},\"model\":{\"vocab\":{\"a\":1},"
            "\"merges\":[]}}");
    refused(ERR_UNSUPPORTED, "intersection of classes");
}
END_TEST

START_TEST(a_missing_tensor_is_named) {
    model *m = NULL;
    write_file("model.safetensors", 0, N_LLAMA, "model.layers.0.mlp.up_proj.weight");
    ck_assert_int_eq(checkpoint_open(&c, dir.path, &e), OK);
    ck_assert_int_eq(model_open(&m, c, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "blk.0.ffn_up.weight");
}
END_TEST

int main(void) {
    Suite *s = suite_create("hf_folder");
    TCase *t = check_case(s, "hf_folder");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, tensors_have_ggufs_names_and_rows);
    tcase_add_test(t, small_files_become_facts);
    tcase_add_test(t, shards_are_one_model);
    tcase_add_test(t, maps_that_lie_are_refused);
    tcase_add_test(t, folders_without_what_it_takes_are_refused);
    tcase_add_test(t, a_missing_tensor_is_named);
    return check_run(s);
}
