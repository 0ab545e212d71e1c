/* A tiny llama in FP8 as it is published, written to a folder: GGUF files have no such type. */
#ifndef VRAMD_TESTS_CUDA_F8_FOLDER_H
#define VRAMD_TESTS_CUDA_F8_FOLDER_H

#include "base/buf.h"
#include "tests/model/gguf_build.h"
#include "tests/model/hf_build.h"

/* e4m3 with float32 scales: one for each output, or for blocks of 128 x 128. */
#define F8_ROWS   ((dtype)(DT_F8 | 2u << 8))
#define F8_BLOCKS ((dtype)(DT_F8 | 2u << 8 | 128u / 32 << 10))

typedef struct f8_file {
    buf header, data;
} f8_file;

static void f8_tensor(f8_file *f, const char *name, const char *type, uint32_t rows,
                      uint32_t cols, const void *p, size_t n) {
    buf_addf(&f->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%u",
             f->header.len > 1 ? "," : "", name, type, rows);
    if (cols) buf_addf(&f->header, ",%u", cols);
    buf_addf(&f->header, "],\"data_offsets\":[%zu,%zu]}", f->data.len, f->data.len + n);
    buf_add(&f->data, (str){p, n});
}

/* About offset - scale .. offset + scale. cols 0: a vector. */
static void f8_floats(f8_file *f, const char *name, uint32_t rows, uint32_t cols, float offset,
                      float scale) {
    const size_t n = (size_t)rows * (cols ? cols : 1);
    float *x = malloc(n * sizeof *x);
    CHECK(x);
    for (size_t i = 0; i < n; i++) x[i] = offset + scale * gb_random(f->data.len, i);
    f8_tensor(f, name, "F32", rows, cols, x, n * sizeof *x);
    free(x);
}

/* Codes up to 1.875, under scales that differ by up to three times. */
static void f8_matrix(f8_file *f, const char *base, dtype type, uint32_t rows, uint32_t cols) {
    const bool blocks = dtype_group(type) != 0;
    const uint32_t side = dtype_group(type);
    const uint32_t down = blocks ? (rows + side - 1) / side : rows,
                   across = blocks ? (cols + side - 1) / side : 1;
    char name[128];
    unsigned char *codes = malloc((size_t)rows * cols);
    float *scale = malloc(sizeof *scale * down * across);
    CHECK(codes && scale);
    const uint64_t seed = f->data.len;
    for (size_t i = 0; i < (size_t)rows * cols; i++)
        codes[i] = (unsigned char)(hash_mix(seed * 256 + i) >> 40 & 0xbf);
    for (size_t i = 0; i < (size_t)down * across; i++)
        scale[i] = (1 + 0.5f * gb_random(seed, i)) * 2 / sqrtf((float)cols);
    snprintf(name, sizeof name, "%s.weight", base);
    f8_tensor(f, name, "F8_E4M3", rows, cols, codes, (size_t)rows * cols);
    snprintf(name, sizeof name, "%s.weight_scale%s", base, blocks ? "_inv" : "");
    f8_tensor(f, name, "F32", down, across, scale, sizeof *scale * down * across);
    free(codes);
    free(scale);
}

static void f8_tensors(f8_file *f, const model_config *c, dtype type) {
    const uint32_t h = c->n_embd, q = c->n_heads * c->head_dim,
                   kv = c->n_kv_heads * c->head_dim;
    const struct {
        const char *name;
        uint32_t rows, cols; /* cols 0: a norm */
    } of_layer[] = {
        {"input_layernorm.weight", h, 0}, {"post_attention_layernorm.weight", h, 0},
        {"self_attn.q_proj", q, h},       {"self_attn.k_proj", kv, h},
        {"self_attn.v_proj", kv, h},      {"self_attn.o_proj", h, q},
        {"mlp.gate_proj", c->n_ff, h},    {"mlp.up_proj", c->n_ff, h},
        {"mlp.down_proj", h, c->n_ff},
    };
    f8_floats(f, "model.embed_tokens.weight", c->n_vocab, h, 0, 1);
    f8_floats(f, "model.norm.weight", h, 0, 1, 0.2f);
    f8_floats(f, "lm_head.weight", c->n_vocab, h, 0, 1.5f / sqrtf((float)h));
    for (uint32_t l = 0; l < c->n_layers; l++)
        for (size_t i = 0; i < sizeof of_layer / sizeof *of_layer; i++) {
            char name[80];
            snprintf(name, sizeof name, "model.layers.%u.%s", l, of_layer[i].name);
            if (of_layer[i].cols)
                f8_matrix(f, name, type, of_layer[i].rows, of_layer[i].cols);
            else
                f8_floats(f, name, of_layer[i].rows, 0, 1, 0.2f);
        }
}

static void f8_config(const hf_dir *d, const model_config *c, dtype type) {
    static const char *const quant[] = {
        "{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"ignore\":["
        "\"lm_head\"],\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{"
        "\"num_bits\":8,\"type\":\"float\",\"symmetric\":true,\"strategy\":\"channel\"}}}}",
        "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128],\"activation_scheme\":"
        "\"dynamic\"}"};
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model_type\":\"llama\",\"hidden_size\":%u,\"num_hidden_layers\":%u,"
             "\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"head_dim\":%u,"
             "\"intermediate_size\":%u,\"vocab_size\":%u,\"max_position_embeddings\":256,"
             "\"torch_dtype\":\"float32\",\"tie_word_embeddings\":false,\"eos_token_id\":1,"
             "\"quantization_config\":%s}",
             c->n_embd, c->n_layers, c->n_heads, c->n_kv_heads, c->head_dim, c->n_ff,
             c->n_vocab, quant[dtype_group(type) != 0]);
    hf_text(d, "config.json", text);
    hf_text(
        d, "tokenizer.json",
        "{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false,\"use_regex\":true},\"post_processor\":null,\"model\":{"
        "\"type\":\"BPE\",\"vocab\":{\"a\":2,\"b\":3,\"ab\":4},\"merges\":[[\"a\",\"b\"]]}}");
}

/* Folders of this process, which its end removes. */
static hf_dir f8_dirs[8];
static int n_f8_dirs;
static void f8_remove(void) {
    while (n_f8_dirs) hf_dir_remove(&f8_dirs[--n_f8_dirs]);
}

/* Writes the model with F8_ROWS or F8_BLOCKS for its layers' matrices; path: as checkpoint_open takes it. */
static HF_UNUSED void f8_open(const model_config *c, dtype type, char path[64]) {
    CHECK(n_f8_dirs < 8);
    if (n_f8_dirs == 0) CHECK(atexit(f8_remove) == 0);
    hf_dir *d = &f8_dirs[n_f8_dirs];
    hf_dir_make(d);
    n_f8_dirs++;
    f8_config(d, c, type);
    f8_file f;
    buf whole;
    buf_init(&f.header, NULL);
    buf_init(&f.data, NULL);
    buf_init(&whole, NULL);
    buf_addc(&f.header, '{');
    f8_tensors(&f, c, type);
    buf_addc(&f.header, '}');
    const uint64_t n = f.header.len;
    buf_add(&whole, (str){(const char *)&n, 8});
    buf_add(&whole, buf_str(&f.header));
    buf_add(&whole, buf_str(&f.data));
    CHECK(!f.header.failed && !f.data.failed && !whole.failed);
    hf_write(d, "model.safetensors", whole.ptr, whole.len);
    buf_clear(&f.header);
    buf_clear(&f.data);
    buf_clear(&whole);
    snprintf(path, 64, "%s", d->path);
}

#endif
