/* Quantised weights as Hugging Face's files store them. Sources: transformers,
 * the quantisation configs and integrations; AutoGPTQ and AutoAWQ, the buffers of their linear
 * layers; compressed-tensors, the compressors; gpt-oss, the model card. Owns nothing; main
 * thread of `vramd plan`. */
#include "model/hf/hf_quant.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "model/hf/hf_pattern.h"

enum { ALL = UINT32_MAX };

/* ---- names of matrices ---- */

enum { BIT_ROUTER = 8, BIT_EXPERTS = 9, N_MATRICES = 12 };

/* Bit by bit: the name in GGUF, and in a module path of transformers. */
static const struct {
    const char *gguf, *hf;
} matrices[N_MATRICES] = {
    {"attn_q.weight", "self_attn.q_proj"},
    {"attn_k.weight", "self_attn.k_proj"},
    {"attn_v.weight", "self_attn.v_proj"},
    {"attn_output.weight", "self_attn.o_proj"},
    {"attn_qkv.weight", "self_attn.qkv_proj"},
    {"ffn_gate.weight", "mlp.gate_proj"},
    {"ffn_up.weight", "mlp.up_proj"},
    {"ffn_down.weight", "mlp.down_proj"},
    {"ffn_gate_inp.weight", "mlp.gate"},
    {"ffn_gate_exps.weight", "mlp.experts.0.gate_proj"},
    {"ffn_up_exps.weight", "mlp.experts.0.up_proj"},
    {"ffn_down_exps.weight", "mlp.experts.0.down_proj"},
};

static const char *hf_name(const model_config *c, int bit) {
    static const char *const mixtral[] = {
        "block_sparse_moe.gate", "block_sparse_moe.experts.0.w1",
        "block_sparse_moe.experts.0.w3", "block_sparse_moe.experts.0.w2"};
    static const char *const gpt_oss[] = {"mlp.router", "mlp.experts.gate_up_proj",
                                          "mlp.experts.gate_up_proj", "mlp.experts.down_proj"};
    if (strcmp(c->arch, "phi3") == 0 && bit == 6) return "mlp.gate_up_proj";
    if (strcmp(c->arch, "gpt-oss") == 0 && bit >= BIT_ROUTER) return gpt_oss[bit - BIT_ROUTER];
    if (strcmp(c->arch, "llama") == 0 && bit >= BIT_ROUTER) return mixtral[bit - BIT_ROUTER];
    return matrices[bit].hf;
}

/* ---- what is kept ---- */

/* Sets the bit of each matrix that the pattern names. */
static status keep_pattern(quant_scheme *s, const model_config *c, const char *key,
                           const char *text, err *e) {
    char name[128];
    bool known, head = hf_pattern_matches(text, "lm_head", &known);
    s->keeps_head |= head;
    for (uint32_t l = 0; known && l < c->n_layers && l < MODEL_MAX_LAYERS; l++)
        for (int bit = 0; bit < N_MATRICES; bit++) {
            snprintf(name, sizeof name, "model.layers.%u.%s", l, hf_name(c, bit));
            if (hf_pattern_matches(text, name, &known)) s->kept[l] |= (uint16_t)(1u << bit);
            if (!known) break;
        }
    if (known) return OK;
    err_set(e, ERR_UNSUPPORTED, "config.json: quantization_config.%s: the pattern \"%.100s\"",
            key, text);
    return err_field(e, "quantization_config.%s", key);
}

/* The list of modules that stay as they are. */
static status keep_list(quant_scheme *s, const json_t *o, const model_config *c,
                        const char *key, err *e) {
    const json_t *list = json_object_get(o, key);
    if (!list || json_is_null(list)) return OK;
    if (!json_is_array(list) || json_array_size(list) > 4096)
        return json_in_wrong(e, key, "a list of modules", list);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_string(v)) return json_in_wrong(e, key, "a list of modules", v);
        status st = keep_pattern(s, c, key, json_string_value(v), e);
        if (st != OK) return st;
    }
    return OK;
}

/* ---- methods ---- */

typedef struct source {
    const json_t *o; /* quantization_config, or the object within it that is being read */
    const model_config *c;
    err *e;
} source;

static status refuse(const source *f, const char *key, const char *found) {
    err_set(f->e, ERR_UNSUPPORTED,
            "config.json: quantization_config.%s \"%.60s\": its bytes are not known to vramd",
            key, found);
    err_hint(f->e, "known: gptq, awq (gemm), fp8, fbgemm_fp8, compressed-tensors, mxfp4; or "
                   "--weights plans it in another type");
    return err_field(f->e, "quantization_config.%s", key);
}

static status refuse_bits(const source *f, const char *key, int64_t bits) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)bits);
    return refuse(f, key, text);
}

/* An absent key leaves *out. A group of -1 is the whole row. */
static status whole(const source *f, const char *key, int64_t *out) {
    return json_in_int(f->o, key, -1, 1 << 20, out, f->e);
}

static status word(const source *f, const char *key, char out[64]) {
    str v = {NULL, 0};
    status s = json_in_str(f->o, key, &v, f->e);
    if (s == OK && v.ptr) snprintf(out, 64, STR_FMT, (int)(v.len < 63 ? v.len : 63), v.ptr);
    return s;
}

static bool flag(const source *f, const char *key) {
    return json_is_true(json_object_get(f->o, key));
}

static void by_group(quant_scheme *q, const char *method, int64_t bits, int64_t group) {
    q->bits = (uint32_t)bits;
    q->scale_rows = 1;
    q->scale_cols = group > 0 ? (uint32_t)group : ALL;
    if (group > 0)
        snprintf(q->name, sizeof q->name, "%s, %u bits, groups of %u", method, q->bits,
                 q->scale_cols);
    else
        snprintf(q->name, sizeof q->name, "%s, %u bits", method, q->bits);
}

static void keep_routers(quant_scheme *q) {
    for (uint32_t l = 0; l < MODEL_MAX_LAYERS; l++) q->kept[l] |= 1u << BIT_ROUTER;
}

/* Codes, zero points, f16 scales, the group of each input (AutoGPTQ). */
static void make_gptq(quant_scheme *q, int64_t bits, int64_t group) {
    by_group(q, "GPTQ", bits, group);
    q->scale_bytes = 2;
    q->zero_bits = q->bits;
    q->order = true;
    q->keeps_head = true;
    keep_routers(q);
}

/* Whether a list of names, or of lists of names, has one of this matrix. */
static bool lists(const json_t *list, const char *name) {
    bool known, found = false;
    for (size_t i = 0; i < json_array_size(list) && !found; i++) {
        const json_t *v = json_array_get(list, i);
        found = json_is_string(v) ? hf_pattern_matches(json_string_value(v), name, &known)
                                  : json_is_array(v) && lists(v, name);
    }
    return found;
}

/* Only the modules of these lists are quantised. */
static void keep_others(quant_scheme *q, const source *f) {
    const json_t *list = json_object_get(f->o, "modules_in_block_to_quantize");
    for (int bit = 0; json_is_array(list) && bit < N_MATRICES; bit++) {
        if (lists(list, hf_name(f->c, bit))) continue;
        for (uint32_t l = 0; l < MODEL_MAX_LAYERS; l++) q->kept[l] |= (uint16_t)(1u << bit);
    }
}

/* AutoGPTQ stores a bias for every output; GPTQModel, its successor, those of the model. */
static void add_biases(quant_scheme *q, const source *f) {
    const json_t *by = json_object_get(json_object_get(f->o, "meta"), "quantizer");
    if (json_is_array(by)) by = json_array_get(by, 0);
    if (json_is_string(by) && strncasecmp(json_string_value(by), "gptqmodel", 9) == 0) return;
    const unsigned qkv = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 4, o = 1u << 3;
    q->biases = (uint16_t) ~((f->c->qkv_bias ? qkv : 0) | (f->c->o_bias ? o : 0));
}

static status read_gptq(quant_scheme *q, const source *f) {
    int64_t bits = 4, group = 128;
    char format[64] = "gptq";
    status s = whole(f, "bits", &bits);
    if (s == OK) s = whole(f, "group_size", &group);
    if (s == OK) s = word(f, "checkpoint_format", format);
    if (s != OK) return s;
    if (flag(f, "is_marlin_format") || strncmp(format, "gptq", 4) != 0)
        return refuse(f, "checkpoint_format", flag(f, "is_marlin_format") ? "marlin" : format);
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) return refuse_bits(f, "bits", bits);
    make_gptq(q, bits, group);
    add_biases(q, f);
    q->keeps_head = !flag(f, "lm_head");
    const char *key;
    json_t *v, *dynamic = json_object_get(f->o, "dynamic");
    json_object_foreach(dynamic, key, v) {
        if (strncmp(key, "-:", 2) != 0) return refuse(f, "dynamic", key);
        s = keep_pattern(q, f->c, "dynamic", key, f->e);
        if (s != OK) return s;
    }
    keep_others(q, f);
    return OK;
}

/* Codes, zero points, f16 scales (AutoAWQ's layer for gemm). */
static void make_awq(quant_scheme *q, int64_t bits, int64_t group) {
    by_group(q, "AWQ", bits, group);
    q->scale_bytes = 2;
    q->zero_bits = q->bits;
    q->keeps_head = true;
    keep_routers(q);
}

static status read_awq(quant_scheme *q, const source *f) {
    int64_t bits = 4, group = 128;
    char version[64] = "gemm";
    status s = whole(f, json_in_has(f->o, "bits") ? "bits" : "w_bit", &bits);
    if (s == OK)
        s = whole(f, json_in_has(f->o, "group_size") ? "group_size" : "q_group_size", &group);
    if (s == OK) s = word(f, "version", version);
    if (s != OK) return s;
    if (strcasecmp(version, "gemm") != 0) return refuse(f, "version", version);
    if (bits != 4) return refuse_bits(f, "bits", bits);
    make_awq(q, bits, group);
    return keep_list(q, f->o, f->c, "modules_to_not_convert", f->e);
}

/* [rows, columns] with a scale each. */
static status take_blocks(quant_scheme *q, const json_t *block, err *e) {
    const json_int_t rows = json_integer_value(json_array_get(block, 0));
    const json_int_t cols = json_integer_value(json_array_get(block, 1));
    if (rows < 1 || cols < 1 || rows > 1 << 16 || cols > 1 << 16)
        return json_in_wrong(e, "weight_block_size", "two sizes", block);
    q->scale_rows = (uint32_t)rows;
    q->scale_cols = (uint32_t)cols;
    snprintf(q->name, sizeof q->name, "FP8, blocks of %u x %u", q->scale_rows, q->scale_cols);
    return OK;
}

/* Blocks with a scale each, of 16 bits in Qwen's files and F32 in DeepSeek's, or AutoFP8's one
 * scale per matrix. */
static status read_fp8(quant_scheme *q, const source *f) {
    const json_t *block = json_object_get(f->o, "weight_block_size");
    char scheme[64] = "";
    status s = word(f, "activation_scheme", scheme);
    if (s != OK) return s;
    *q = (quant_scheme){.bits = 8,
                        .scale_rows = ALL,
                        .scale_cols = ALL,
                        .scale_bytes = 4,
                        .keeps_head = true,
                        .rest = q->rest,
                        .name = "FP8, a scale per matrix"};
    if (json_array_size(block) == 2) {
        s = take_blocks(q, block, f->e);
        if (strncmp(f->c->arch, "qwen", 4) == 0) q->scale_bytes = 2;
    }
    if (strcmp(scheme, "static") == 0) q->extra_bytes = 4;
    if (s == OK) s = keep_list(q, f->o, f->c, "ignored_layers", f->e);
    return s == OK ? keep_list(q, f->o, f->c, "modules_to_not_convert", f->e) : s;
}

/* Weights of 8 bits with a scale for each output. */
static void make_rows(quant_scheme *q, const char *name, uint32_t scale_bytes) {
    const dtype rest = q->rest;
    *q = (quant_scheme){.bits = 8,
                        .scale_rows = 1,
                        .scale_cols = ALL,
                        .scale_bytes = scale_bytes,
                        .rest = rest};
    snprintf(q->name, sizeof q->name, "%s, a scale per output", name);
}

static status read_fbgemm(quant_scheme *q, const source *f) {
    make_rows(q, "FP8", 4);
    q->extra_bytes = 4; /* a bound of the inputs' scale */
    q->keeps_head = true;
    return keep_list(q, f->o, f->c, "modules_to_not_convert", f->e);
}

static status read_mxfp4(quant_scheme *q, const source *f) {
    by_group(q, "MXFP4", 4, 32);
    q->scale_bytes = 1;
    q->only_experts = q->keeps_head = true;
    return keep_list(q, f->o, f->c, "modules_to_not_convert", f->e);
}

/* Packed integers, 16-bit scales, the shape, and where asymmetric packed zero points. */
static void make_packed(quant_scheme *q, int64_t bits, int64_t group, bool symmetric) {
    by_group(q, "packed integers", bits, group);
    q->scale_bytes = 2;
    q->extra_bytes = 16; /* the shape: two int64 */
    q->zero_bits = symmetric ? 0 : q->bits;
}

/* The weights of a group of compressed-tensors. */
static status read_strategy(quant_scheme *q, const source *w, const char *format,
                            bool static_inputs) {
    int64_t bits = 8, group = -1;
    char strategy[64] = "", order[64] = "";
    status s = whole(w, "num_bits", &bits);
    if (s == OK) s = whole(w, "group_size", &group);
    if (s == OK) s = word(w, "strategy", strategy);
    if (s == OK)
        s = json_is_string(json_object_get(w->o, "actorder")) ? word(w, "actorder", order) : OK;
    if (s != OK) return s;
    const json_t *symmetric = json_object_get(w->o, "symmetric");
    const bool tensor = strcmp(strategy, "tensor") == 0;
    const bool block = strcmp(strategy, "block") == 0 && strcmp(format, "float-quantized") == 0;
    if (!tensor && !block && strcmp(strategy, "channel") != 0 &&
        strcmp(strategy, "group") != 0 && strcmp(strategy, "tensor_group") != 0)
        return refuse(w, "config_groups.weights.strategy", strategy);
    if (strcmp(format, "pack-quantized") == 0) {
        if (bits != 4 && bits != 8)
            return refuse_bits(w, "config_groups.weights.num_bits", bits);
        make_packed(q, bits, group, !json_is_false(symmetric));
        q->order = strcmp(order, "group") == 0;
    } else if (strcmp(format, "nvfp4-pack-quantized") == 0) {
        by_group(q, "NVFP4", 4, group > 0 ? group : 16);
        q->scale_bytes = 1;
        q->extra_bytes = static_inputs ? 8 : 4; /* global scales, of inputs too */
    } else if (bits == 8) { /* int-quantized, float-quantized, naive-quantized */
        make_rows(q, strncmp(format, "int", 3) == 0 ? "INT8" : "FP8", 2);
        if (group > 0) q->scale_cols = (uint32_t)group;
        if (block) s = take_blocks(q, json_object_get(w->o, "block_structure"), w->e);
        q->extra_bytes = static_inputs ? 2 : 0;
    } else {
        return refuse_bits(w, "config_groups.weights.num_bits", bits);
    }
    if (tensor) q->scale_rows = q->scale_cols = ALL;
    return s;
}

static status read_compressed(quant_scheme *q, const source *f) {
    static const char *const formats[] = {"pack-quantized", "int-quantized", "float-quantized",
                                          "naive-quantized", "nvfp4-pack-quantized"};
    char format[64] = "pack-quantized";
    bool known = false;
    status s = word(f, "format", format);
    if (s != OK) return s;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        known |= strcmp(format, formats[i]) == 0;
    if (!known) return refuse(f, "format", format);
    json_t *groups = json_object_get(f->o, "config_groups");
    if (json_object_size(groups) != 1)
        return refuse(f, "config_groups", "other than one group");
    json_t *group = json_object_iter_value(json_object_iter(groups));
    const json_t *target = json_array_get(json_object_get(group, "targets"), 0);
    if (!json_is_string(target) || strcmp(json_string_value(target), "Linear") != 0)
        return refuse(f, "config_groups.targets",
                      json_is_string(target) ? json_string_value(target) : "none");
    const json_t *inputs = json_object_get(group, "input_activations");
    const bool static_inputs =
        json_is_object(inputs) && !json_is_true(json_object_get(inputs, "dynamic"));
    const source w = {json_object_get(group, "weights"), f->c, f->e};
    if (!json_is_object(w.o)) return refuse(f, "config_groups.weights", "none");
    s = read_strategy(q, &w, format, static_inputs);
    return s == OK ? keep_list(q, f->o, f->c, "ignore", f->e) : s;
}

status hf_quant_read(quant_scheme *q, const json_t *o, const model_config *c, err *e) {
    static const struct {
        const char *name;
        status (*read)(quant_scheme *, const source *);
    } methods[] = {{"gptq", read_gptq},   {"awq", read_awq},
                   {"fp8", read_fp8},     {"fbgemm_fp8", read_fbgemm},
                   {"mxfp4", read_mxfp4}, {"compressed-tensors", read_compressed}};
    const source f = {o, c, e};
    char method[64] = "";
    const dtype rest = q->rest;
    *q = (quant_scheme){.rest = rest};
    if (!json_is_object(o)) return json_in_wrong(e, "quantization_config", "an object", o);
    status s = word(&f, "quant_method", method);
    if (s != OK) return s;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(method, methods[i].name) == 0) return methods[i].read(q, &f);
    return refuse(&f, "quant_method", method);
}

bool hf_quant_by_name(quant_scheme *q, str name) {
    char text[32];
    if (name.len >= sizeof text) return false;
    snprintf(text, sizeof text, STR_FMT, STR_ARG(name));
    const dtype rest = q->rest;
    *q = (quant_scheme){.rest = rest};
    if (strcasecmp(text, "fp8") == 0)
        make_rows(q, "FP8", 2);
    else if (strcasecmp(text, "int8") == 0)
        make_rows(q, "INT8", 2);
    else if (strcasecmp(text, "int4") == 0)
        make_packed(q, 4, 128, true);
    else if (strcasecmp(text, "awq") == 0)
        make_awq(q, 4, 128);
    else if (strcasecmp(text, "gptq-int4") == 0 || strcasecmp(text, "gptq") == 0)
        make_gptq(q, 4, 128);
    else if (strcasecmp(text, "gptq-int8") == 0)
        make_gptq(q, 8, 128);
    else
        return false;
    q->keeps_head = true;
    keep_routers(q);
    return true;
}

/* ---- bytes ---- */

/* -1: of none of the layers. */
static int bit_of(const weight *w) {
    const char *name = w->layer < 0 ? NULL : strchr(w->name + sizeof "blk." - 1, '.');
    for (int bit = 0; name && bit < N_MATRICES; bit++)
        if (strcmp(name + 1, matrices[bit].gguf) == 0) return bit;
    return -1;
}

static bool is_quantised(const quant_scheme *q, const weight *w, int bit) {
    if (!q->bits || w->role != WEIGHT_LINEAR) return false;
    if (bit < 0) return w->layer < 0 && !q->keeps_head;
    return !(q->kept[w->layer] >> bit & 1) && (!q->only_experts || bit >= BIT_EXPERTS);
}

uint64_t hf_quant_bytes(const quant_scheme *q, const weight *w, bool *quantised) {
    const uint64_t rows = w->rows, cols = w->cols, n = w->n_experts ? w->n_experts : 1;
    const int bit = bit_of(w);
    uint64_t bytes = 0;
    *quantised = is_quantised(q, w, bit);
    if (!*quantised) {
        CHECK(dtype_bytes(q->rest, rows * n, cols, &bytes));
        return bytes;
    }
    const uint64_t down = q->scale_rows == ALL ? 1 : ceil_div(rows, q->scale_rows);
    const uint64_t across = q->scale_cols == ALL ? 1 : ceil_div(cols, q->scale_cols);
    bytes = ceil_div(rows * cols * q->bits, 8) + down * across * q->scale_bytes;
    bytes += across * ceil_div(rows * q->zero_bits, 32) * 4;
    if (q->order) bytes += 4 * cols;
    if (q->biases >> (bit < 0 ? 15 : bit) & 1) bytes += 2 * rows;
    return n * (bytes + q->extra_bytes);
}
