/* module: model */
/* Fuzzes the safetensors of a gpt-oss folder: what opens can be read to its last row, whole and in parts, and the
 * repacked blocks are the stored ones. One thread. */
#include <stdint.h>

#include "model/checkpoint.h"
#include "tests/model/hf_build.h"

static const char config[] =
    "{\"model_type\":\"gpt_oss\",\"hidden_size\":32,\"intermediate_size\":32,\"num_hidden_"
    "layers\":1,\"head_dim\":8,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"num_local_experts\":2,\"num_experts_"
    "per_tok\":1,"
    "\"vocab_size\":4,\"max_position_embeddings\":64,\"tie_word_embeddings\":true,"
    "\"quantization_config\":{\"quant_method\":\"mxfp4\"}}";

static void read_all(const checkpoint *c, size_t i) {
    const tensor_info t = checkpoint_tensor(c, i);
    const dtype_block block = dtype_block_of(t.type);
    const uint64_t rows = t.ne[1] * t.ne[2] * t.ne[3];
    uint64_t bytes, row;
    err e;
    CHECK(dtype_bytes(t.type, rows, t.ne[0], &bytes) && dtype_bytes(t.type, 1, t.ne[0], &row));
    if (bytes == 0 || bytes > 1 << 20) return;
    unsigned char *all = malloc(bytes), *part = malloc(bytes);
    CHECK(all && part);
    if (checkpoint_read_rows(c, i, 0, rows, all, &e) == OK) {
        const uint64_t last = t.ne[0] - block.elems;
        CHECK(checkpoint_read_rows(c, i, rows - 1, 1, part, &e) == OK);
        CHECK(memcmp(all + bytes - row, part, row) == 0);
        CHECK(checkpoint_read_part(c, i, rows - 1, last, block.elems, part, &e) == OK);
        CHECK(memcmp(all + bytes - block.bytes, part, block.bytes) == 0);
    }
    free(all);
    free(part);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static hf_dir dir;
    checkpoint *c;
    err e = {0};
    if (!dir.path[0]) {
        hf_dir_make(&dir);
        hf_text(&dir, "config.json", config);
    }
    hf_write(&dir, "model.safetensors", data, n);
    if (checkpoint_open(&c, dir.path, &e) != OK) {
        CHECK(e.text[0]);
        return 0;
    }
    for (size_t i = 0; i < checkpoint_n_tensors(c); i++) read_all(c, i);
    checkpoint_close(c);
    return 0;
}
