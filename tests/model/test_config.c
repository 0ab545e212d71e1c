/* Model configs: keys of GGUF files, ranges, and the counts of public models. The numbers of
 * weights are those that the models' authors publish (bf16 checkpoint bytes / 2). */
#include <stdlib.h>

#include "tests/check_main.h"
#include "tests/model/gguf_build.h"
#include "tests/model/kv_bytes.h"
#include "tests/model/config_params.h"

/* ---- counts ---- */

typedef struct known {
    const char *name;
    uint32_t layers, embd, heads, kv, hd, ff, vocab;
    bool tied, qkv_bias, qk_norm;
    uint32_t norms, experts;
    uint64_t params, kv_f16;
} known;

static const known models[] = {
    {"Llama-2-7B", 32, 4096, 32, 32, 128, 11008, 32000, 0, 0, 0, 2, 0, 6738415616, 524288},
    {"Llama-2-13B", 40, 5120, 40, 40, 128, 13824, 32000, 0, 0, 0, 2, 0, 13015864320, 819200},
    {"Llama-2-70B", 80, 8192, 64, 8, 128, 28672, 32000, 0, 0, 0, 2, 0, 68976648192, 327680},
    {"Llama-3-8B", 32, 4096, 32, 8, 128, 14336, 128256, 0, 0, 0, 2, 0, 8030261248, 131072},
    {"Llama-3-70B", 80, 8192, 64, 8, 128, 28672, 128256, 0, 0, 0, 2, 0, 70553706496, 327680},
    {"Mistral-7B", 32, 4096, 32, 8, 128, 14336, 32000, 0, 0, 0, 2, 0, 7241732096, 131072},
    {"Mixtral-8x7B", 32, 4096, 32, 8, 128, 14336, 32000, 0, 0, 0, 2, 8, 46702792704, 131072},
    {"Qwen2.5-0.5B", 24, 896, 14, 2, 64, 4864, 151936, 1, 1, 0, 2, 0, 494032768, 12288},
    {"Qwen2.5-1.5B", 28, 1536, 12, 2, 128, 8960, 151936, 1, 1, 0, 2, 0, 1543714304, 28672},
    {"Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064, 0, 1, 0, 2, 0, 7615616512, 57344},
    {"Qwen2.5-14B", 48, 5120, 40, 8, 128, 13824, 152064, 0, 1, 0, 2, 0, 14770033664, 196608},
    {"Qwen2.5-72B", 80, 8192, 64, 8, 128, 29568, 152064, 0, 1, 0, 2, 0, 72706203648, 327680},
    {"Gemma-2-9B", 42, 3584, 16, 8, 256, 14336, 256000, 1, 0, 0, 4, 0, 9241705984, 344064},
    {"Gemma-3-1B", 26, 1152, 4, 1, 256, 6912, 262144, 1, 0, 1, 4, 0, 999885952, 26624},
    {"Phi-3-mini", 32, 3072, 32, 32, 96, 8192, 32064, 0, 0, 0, 2, 0, 3821079552, 393216},
    {"SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152, 1, 0, 0, 2, 0, 134515008, 23040},
};
enum { N_MODELS = sizeof models / sizeof *models };

static model_config config_of(const known *k) {
    model_config c;
    model_config_init(&c);
    c.n_layers = k->layers, c.n_embd = k->embd, c.n_heads = k->heads, c.n_kv_heads = k->kv;
    c.head_dim = k->hd, c.n_ff = k->ff, c.n_vocab = k->vocab, c.n_ctx_train = 4096;
    c.tied_head = k->tied, c.qkv_bias = k->qkv_bias, c.qk_norm = k->qk_norm;
    c.norms_per_layer = k->norms, c.n_experts = k->experts;
    c.n_experts_used = k->experts ? 2 : 0;
    c.rope.n_dims = k->hd;
    return c;
}

START_TEST(public_models_have_the_published_number_of_weights) {
    const known *k = &models[_i];
    const model_config c = config_of(k);
    err e;
    ck_assert_msg(model_config_check(&c, &e) == OK, "%s: %s", k->name, e.text);
    ck_assert_msg(model_config_params(&c) == k->params, "%s: %llu, wanted %llu", k->name,
                  (unsigned long long)model_config_params(&c), (unsigned long long)k->params);
}
END_TEST

START_TEST(public_models_have_the_published_bytes_of_kv_per_token) {
    const known *k = &models[_i];
    const model_config c = config_of(k);
    ck_assert_uint_eq(kv_bytes_per_token(&c, DT_F16), k->kv_f16);
    ck_assert_uint_eq(kv_bytes_per_token(&c, DT_F32), 2 * k->kv_f16);
    ck_assert_uint_eq(kv_bytes_per_token(&c, DT_Q8_0), k->kv_f16 / 2 * 34 / 32);
    ck_assert_uint_eq(kv_bytes_per_token(&c, DT_Q4_0), k->kv_f16 / 2 * 18 / 32);
    /* A head of 64 or 96 is no multiple of 256. */
    ck_assert_uint_eq(kv_bytes_per_token(&c, DT_Q4_K) == 0, k->hd != 256);
}
END_TEST

START_TEST(windows_alternate_as_the_config_says) {
    model_config c = config_of(&models[15]);
    ck_assert_uint_eq(model_config_window(&c, 0), 0);
    c.window = 512;
    ck_assert_uint_eq(model_config_window(&c, 29), 512);
    c.window_every = 6; /* Gemma 3 */
    for (uint32_t l = 0; l < 30; l++)
        ck_assert_uint_eq(model_config_window(&c, l), l % 6 == 5 ? 0 : 512);
}
END_TEST

/* ---- from GGUF ---- */

static gb b;
static checkpoint *g;

static void setup(void) {
    gb_init(&b);
    g = NULL;
}
static void teardown(void) {
    checkpoint_close(g);
    g = NULL;
    gb_clear(&b);
}

static status read_config(model_config *c, err *e) {
    char path[64];
    gb_open(&b, path);
    checkpoint_close(g);
    ck_assert_msg(checkpoint_open(&g, path, e) == OK, "%s", e->text);
    return model_config_read(c, g, e);
}

static model_config good_config(void) {
    model_config c;
    err e;
    ck_assert_msg(read_config(&c, &e) == OK, "%s (%s)", e.text, e.field);
    return c;
}

static void bad_config(status code, const char *field) {
    model_config c;
    err e = {0};
    status s = read_config(&c, &e);
    ck_assert_msg(s == code, "status %d: %s (%s)", s, e.text, e.field);
    ck_assert_msg(strcmp(e.field, field) == 0, "field %s, wanted %s: %s", e.field, field,
                  e.text);
    teardown();
    setup();
}

START_TEST(what_a_llama_file_says_is_what_the_config_has) {
    model_config want = gb_tiny("llama");
    want.window = 77, want.norm_eps = 1e-6f, want.rope.theta = 5e5f;
    gb_model_keys(&b, &want);
    gb_model_tensors(&b, &want, DT_F32, 1);
    const model_config c = good_config();
    ck_assert_str_eq(c.arch, "llama");
    ck_assert_str_eq(c.name, "tiny llama");
    ck_assert_uint_eq(c.n_layers, 2);
    ck_assert_uint_eq(c.n_embd, 64);
    ck_assert_uint_eq(c.n_heads, 4);
    ck_assert_uint_eq(c.n_kv_heads, 2);
    ck_assert_uint_eq(c.head_dim, 32); /* not n_embd / n_heads */
    ck_assert_uint_eq(c.n_ff, 96);
    ck_assert_uint_eq(c.n_vocab, 128);
    ck_assert_uint_eq(c.n_ctx_train, 256);
    ck_assert_uint_eq(c.window, 77);
    ck_assert(c.norm_eps == 1e-6f && c.rope.theta == 5e5f);
    ck_assert_uint_eq(c.rope.n_dims, 32);
    ck_assert_int_eq(c.rope.pairing, ROPE_ADJACENT);
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_NONE);
    ck_assert(!c.tied_head && !c.qkv_bias && !c.o_bias && !c.ffn_bias && !c.qk_norm);
    ck_assert_uint_eq(c.n_experts, 0);
}
END_TEST

START_TEST(qwen2_rotates_halves_and_has_biases) {
    model_config want = gb_tiny("qwen2");
    want.tied_head = true;
    gb_model_keys(&b, &want);
    gb_model_tensors(&b, &want, DT_F16, 1);
    const model_config c = good_config();
    ck_assert_int_eq(c.rope.pairing, ROPE_HALVES);
    ck_assert(c.qkv_bias && c.tied_head && !c.o_bias);
}
END_TEST

START_TEST(what_is_not_said_follows_from_the_rest) {
    gb_str(&b, "general.architecture", "llama");
    gb_int(&b, "llama.block_count", 1);
    gb_int(&b, "llama.context_length", 2048);
    gb_int(&b, "llama.embedding_length", 128);
    gb_int(&b, "llama.feed_forward_length", 256);
    gb_int(&b, "llama.attention.head_count", 4);
    gb_strs(&b, "tokenizer.ggml.tokens", (str[]){STR("a"), STR("b"), STR("c")}, 3);
    const model_config c = good_config();
    ck_assert_uint_eq(c.n_kv_heads, 4);
    ck_assert_uint_eq(c.head_dim, 32);
    ck_assert_uint_eq(c.rope.n_dims, 32);
    ck_assert_uint_eq(c.n_vocab, 3);
    ck_assert(c.rope.theta == 10000 && c.norm_eps == 1e-5f);
    ck_assert_str_eq(c.name, "");
}
END_TEST

START_TEST(the_embedding_decides_how_large_the_vocabulary_is) {
    model_config want = gb_tiny("llama");
    want.n_vocab = 160;
    gb_model_tensors(&b, &want, DT_F32, 1);
    want.n_vocab = 128; /* the key says less than the matrix has */
    gb_model_keys(&b, &want);
    ck_assert_uint_eq(good_config().n_vocab, 160);
}
END_TEST

START_TEST(more_tokens_than_rows_are_refused) {
    model_config want = gb_tiny("llama");
    want.n_vocab = 2;
    gb_model_keys(&b, &want);
    gb_strs(&b, "tokenizer.ggml.tokens", (str[]){STR("a"), STR("b"), STR("c")}, 3);
    bad_config(ERR_FORMAT, "tokenizer.ggml.tokens");
}
END_TEST

START_TEST(scaling_of_every_kind_is_read) {
    model_config want = gb_tiny("llama");
    gb_model_keys(&b, &want);
    gb_str(&b, "llama.rope.scaling.type", "linear");
    gb_float(&b, "llama.rope.scaling.factor", 4);
    model_config c = good_config();
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_LINEAR);
    ck_assert(c.rope.factor == 4);
    teardown();

    gb_model_keys(&b, &want);
    gb_float(&b, "llama.rope.scale_linear", 2);
    c = good_config();
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_LINEAR);
    ck_assert(c.rope.factor == 2);
    teardown();

    gb_model_keys(&b, &want);
    gb_str(&b, "llama.rope.scaling.type", "yarn");
    gb_float(&b, "llama.rope.scaling.factor", 4);
    gb_int(&b, "llama.rope.scaling.original_context_length", 32768);
    c = good_config();
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_YARN);
    ck_assert_uint_eq(c.rope.original_len, 32768);
    ck_assert(c.rope.attn_factor == 0 && c.rope.beta_fast == 32 && c.rope.beta_slow == 1);
    teardown();

    gb_model_keys(&b, &want);
    gb_str(&b, "llama.rope.scaling.type", "yarn");
    gb_float(&b, "llama.rope.scaling.factor", 4);
    gb_float(&b, "llama.rope.scaling.attn_factor", 0.5f);
    gb_float(&b, "llama.rope.scaling.yarn_beta_fast", 16);
    gb_float(&b, "llama.rope.scaling.yarn_beta_slow", 2);
    c = good_config();
    ck_assert_uint_eq(c.rope.original_len, 256); /* the context, when not said */
    ck_assert_float_eq_tol(c.rope.attn_factor, 0.5 * (0.1 * log(4) + 1), 1e-6);
    ck_assert(c.rope.beta_fast == 16 && c.rope.beta_slow == 2);
    teardown();

    gb_model_keys(&b, &want); /* the factor of a model's config, whole */
    gb_str(&b, "llama.rope.scaling.type", "yarn");
    gb_float(&b, "llama.rope.scaling.factor", 4);
    gb_float(&b, "llama.rope.scaling.yarn_attn_factor", 1);
    c = good_config();
    ck_assert(c.rope.attn_factor == 1);
    teardown();

    gb_model_keys(&b, &want);
    gb_str(&b, "llama.rope.scaling.type", "none");
    gb_float(&b, "llama.rope.scaling.factor", 0); /* some converters write it */
    c = good_config();
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_NONE);
    ck_assert(c.rope.factor == 1);
    teardown();

    gb_model_keys(&b, &want);
    gb_str(&b, "llama.rope.scaling.type", "linear");
    gb_float(&b, "llama.rope.scaling.factor", 0);
    c = good_config();
    ck_assert(c.rope.factor == 1);
}
END_TEST

START_TEST(scaling_that_we_do_not_know_is_named) {
    const model_config want = gb_tiny("llama");
    gb_model_keys(&b, &want);
    gb_str(&b, "llama.rope.scaling.type", "longrope");
    bad_config(ERR_UNSUPPORTED, "llama.rope.scaling.type");
    gb_model_keys(&b, &want);
    gb_str(&b, "llama.rope.scaling.type", "yarn");
    gb_float(&b, "llama.rope.scaling.yarn_ext_factor", 0.5f);
    bad_config(ERR_UNSUPPORTED, "llama.rope.scaling.yarn_ext_factor");
    gb_model_keys(&b, &want);
    gb_str(&b, "llama.rope.scaling.type", "linear");
    gb_float(&b, "llama.rope.scaling.factor", NAN);
    bad_config(ERR_FORMAT, "llama.rope.scaling.factor");
}
END_TEST

START_TEST(another_architecture_is_named) {
    model_config c;
    err e;
    gb_str(&b, "general.architecture", "mamba");
    ck_assert_int_eq(read_config(&c, &e), ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.text, "mamba"));
    ck_assert_str_eq(e.field, "general.architecture");
    teardown();
    gb_int(&b, "general.quantization_version", 2);
    bad_config(ERR_FORMAT, "general.architecture");
    gb_int(&b, "general.architecture", 2);
    bad_config(ERR_FORMAT, "general.architecture");
    gb_str(&b, "general.architecture",
           "llamallamallamallamallamallamallamallamallamallamallamallamallamallamallama");
    bad_config(ERR_UNSUPPORTED, "general.architecture");
}
END_TEST

START_TEST(a_missing_key_is_named) {
    const char *keys[] = {"block_count", "context_length", "embedding_length",
                          "feed_forward_length", "attention.head_count"};
    for (int left_out = 0; left_out < 5; left_out++) {
        char key[64];
        gb_str(&b, "general.architecture", "llama");
        gb_int(&b, "llama.vocab_size", 32);
        for (int i = 0; i < 5; i++) {
            snprintf(key, sizeof key, "llama.%s", keys[i]);
            if (i != left_out) gb_int(&b, key, 64);
        }
        snprintf(key, sizeof key, "llama.%s", keys[left_out]);
        bad_config(ERR_FORMAT, key);
    }
    gb_str(&b, "general.architecture", "llama");
    for (int i = 0; i < 5; i++) {
        char key[64];
        snprintf(key, sizeof key, "llama.%s", keys[i]);
        gb_int(&b, key, i == 2 ? 64 : 4);
    }
    bad_config(ERR_FORMAT, "llama.vocab_size"); /* nor tokens, nor an embedding */
}
END_TEST

START_TEST(a_number_out_of_range_names_its_key) {
    const struct {
        size_t field;
        uint32_t bad;
        const char *key;
    } t[] = {
        {offsetof(model_config, n_layers), 0, "llama.block_count"},
        {offsetof(model_config, n_layers), 5000, "llama.block_count"},
        {offsetof(model_config, n_embd), 0, "llama.embedding_length"},
        {offsetof(model_config, n_embd), UINT32_MAX, "llama.embedding_length"},
        {offsetof(model_config, n_heads), 0, "llama.attention.head_count"},
        {offsetof(model_config, n_heads), 1u << 20, "llama.attention.head_count"},
        {offsetof(model_config, n_kv_heads), 0, "llama.attention.head_count_kv"},
        {offsetof(model_config, n_kv_heads), 3, "llama.attention.head_count_kv"},
        {offsetof(model_config, head_dim), 0, "llama.attention.key_length"},
        {offsetof(model_config, head_dim), 1u << 20, "llama.attention.key_length"},
        {offsetof(model_config, n_ff), 0, "llama.feed_forward_length"},
        {offsetof(model_config, n_vocab), 0, "llama.vocab_size"},
        {offsetof(model_config, n_vocab), UINT32_MAX, "llama.vocab_size"},
        {offsetof(model_config, n_ctx_train), 0, "llama.context_length"},
        {offsetof(model_config, rope) + offsetof(rope_config, n_dims), 31,
         "llama.rope.dimension_count"},
        {offsetof(model_config, rope) + offsetof(rope_config, n_dims), 34,
         "llama.rope.dimension_count"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        model_config c = gb_tiny("llama");
        memcpy((char *)&c + t[i].field, &t[i].bad, 4);
        gb_model_keys(&b, &c);
        bad_config(ERR_FORMAT, t[i].key);
    }
}
END_TEST

START_TEST(a_float_out_of_range_names_its_key) {
    const float bad[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        model_config c = gb_tiny("llama");
        c.norm_eps = bad[i];
        gb_model_keys(&b, &c);
        bad_config(ERR_FORMAT, "llama.attention.layer_norm_rms_epsilon");
        err e;
        ck_assert(model_config_check(&c, &e) == ERR_FORMAT);
        ck_assert_ptr_nonnull(strstr(e.text, "it must be above 0 and at most 0.1"));
        c = gb_tiny("llama");
        c.rope.theta = bad[i];
        gb_model_keys(&b, &c);
        bad_config(ERR_FORMAT, "llama.rope.freq_base");
    }
}
END_TEST

START_TEST(a_key_of_another_type_is_named) {
    gb_str(&b, "general.architecture", "llama");
    gb_str(&b, "llama.block_count", "two");
    bad_config(ERR_FORMAT, "llama.block_count");
    model_config c = gb_tiny("llama");
    gb_model_keys(&b, &c);
    gb_int(&b, "llama.rope.scaling.type", 1);
    bad_config(ERR_FORMAT, "llama.rope.scaling.type");
    /* Per-layer heads (a list) are a model that we do not know. */
    gb_str(&b, "general.architecture", "llama");
    for (int i = 0; i < 4; i++)
        gb_int(&b,
               (const char *[]){"llama.block_count", "llama.context_length",
                                "llama.embedding_length", "llama.feed_forward_length"}[i],
               64);
    gb_ints(&b, "llama.attention.head_count", (int32_t[]){4, 8}, 2);
    bad_config(ERR_FORMAT, "llama.attention.head_count");
}
END_TEST

START_TEST(keys_and_values_of_different_length_are_refused) {
    gb_str(&b, "general.architecture", "llama");
    for (int i = 0; i < 5; i++)
        gb_int(&b,
               (const char *[]){"llama.block_count", "llama.context_length",
                                "llama.embedding_length", "llama.feed_forward_length",
                                "llama.attention.head_count"}[i],
               4);
    gb_int(&b, "llama.attention.key_length", 64);
    gb_int(&b, "llama.attention.value_length", 32);
    bad_config(ERR_UNSUPPORTED, "llama.attention.value_length");
}
END_TEST

START_TEST(the_real_model_is_what_its_card_says) {
    const char *path = test_model();
    model_config c;
    err e;
    ck_assert_msg(checkpoint_open(&g, path, &e) == OK, "%s", e.text);
    str name = STR("");
    ck_assert_int_eq(checkpoint_get_str(g, "general.basename", &name, &e), OK);
    if (!str_eqz(name, "smollm2")) return; /* another file was asked for */
    ck_assert_msg(model_config_read(&c, g, &e) == OK, "%s", e.text);
    ck_assert_uint_eq(model_config_params(&c), 134515008);
    ck_assert_uint_eq(kv_bytes_per_token(&c, DT_F16), 23040);
    ck_assert(c.tied_head && c.rope.theta == 100000 && c.n_ctx_train == 8192);
}
END_TEST

/* Which bytes of a config model_config_visit has shown. */
typedef struct shown {
    const model_config *of;
    bool byte[sizeof(model_config)];
    uint32_t n;
    struct {
        size_t at, bytes;
    } member[128];
} shown;

static void show(void *arg, const void *value, size_t bytes) {
    shown *x = arg;
    const size_t at = (size_t)((const char *)value - (const char *)x->of);
    ck_assert(x->n < 128 && at + bytes <= sizeof *x->of);
    memset(x->byte + at, true, bytes);
    x->member[x->n].at = at;
    x->member[x->n++].bytes = bytes;
}

/* A key of a model that misses a member takes one model for another. */
START_TEST(every_member_but_the_names_is_compared_and_visited) {
    model_config a;
    memset(&a, 0, sizeof a);
    model_config_init(&a);
    shown x = {.of = &a};
    model_config_visit(&a, show, &x);
    for (size_t i = sizeof a.arch + sizeof a.name, hole = 0; i < sizeof a; i++) {
        hole = x.byte[i] ? 0 : hole + 1;
        ck_assert_msg(hole < sizeof(uint32_t), "the member at %zu is not visited", i);
    }
    for (uint32_t k = 0; k < x.n; k++) {
        model_config b = a;
        ((unsigned char *)&b)[x.member[k].at] ^= 1;
        ck_assert_msg(!model_config_same(&a, &b), "the member at %zu", x.member[k].at);
    }
    model_config b = a;
    ck_assert(model_config_same(&a, &b));
    strcpy(b.name, "another");
    ck_assert(model_config_same(&a, &b));
    strcpy(b.arch, "another");
    ck_assert(!model_config_same(&a, &b));
}
END_TEST

int main(void) {
    Suite *s = suite_create("config");
    TCase *t = check_case(s, "config");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, public_models_have_the_published_number_of_weights, 0, N_MODELS);
    tcase_add_loop_test(t, public_models_have_the_published_bytes_of_kv_per_token, 0, N_MODELS);
    tcase_add_test(t, windows_alternate_as_the_config_says);
    tcase_add_test(t, what_a_llama_file_says_is_what_the_config_has);
    tcase_add_test(t, qwen2_rotates_halves_and_has_biases);
    tcase_add_test(t, what_is_not_said_follows_from_the_rest);
    tcase_add_test(t, the_embedding_decides_how_large_the_vocabulary_is);
    tcase_add_test(t, more_tokens_than_rows_are_refused);
    tcase_add_test(t, scaling_of_every_kind_is_read);
    tcase_add_test(t, scaling_that_we_do_not_know_is_named);
    tcase_add_test(t, another_architecture_is_named);
    tcase_add_test(t, a_missing_key_is_named);
    tcase_add_test(t, a_number_out_of_range_names_its_key);
    tcase_add_test(t, a_float_out_of_range_names_its_key);
    tcase_add_test(t, a_key_of_another_type_is_named);
    tcase_add_test(t, keys_and_values_of_different_length_are_refused);
    tcase_add_test(t, the_real_model_is_what_its_card_says);
    tcase_add_test(t, every_member_but_the_names_is_compared_and_visited);
    return check_run(s);
}
