/* The parts of quantised matrices, found and checked. */
#include "model/hf/hf_packed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "memory/term.h"

enum { BLOCK = 32, NAME = 400 };

/* ---- the scheme ---- */

static status unsupported(err *e, const char *field, const char *what) {
    err_set(e, ERR_UNSUPPORTED, "quantization_config: %s", what);
    err_field(e, "quantization_config.%s", field);
    return err_hint(e, "serve a GGUF file of the model; vramd plan takes the folder as it is");
}

static bool text_is(const json_t *o, const char *key, const char *want) {
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) && str_eqz(json_in_text(v), want);
}

static bool number_is(const json_t *o, const char *key, json_int_t want) {
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) && json_integer_value(v) == want;
}

static bool given(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v);
}

static bool is_false(const json_t *o, const char *key) {
    return json_is_false(json_object_get(o, key));
}

/* Inputs of a group; 0, too, where the config says all. */
static uint32_t group_size(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    const json_int_t n = json_is_integer(v) ? json_integer_value(v) : 0;
    return n > 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
}

static status read_gptq(hf_scheme *s, const json_t *o, err *e) {
    const json_t *bits = json_object_get(o, "bits");
    s->bits = json_is_integer(bits) ? (uint32_t)json_integer_value(bits) : 0;
    s->symmetric = !is_false(o, "sym");
    if (s->bits != 2 && s->bits != 3 && s->bits != 4 && s->bits != 8)
        return unsupported(e, "bits", "GPTQ is loaded with 2, 3, 4 and 8 bits");
    const bool v2 = text_is(o, "checkpoint_format", "gptq_v2");
    if (given(o, "checkpoint_format") && !v2 && !text_is(o, "checkpoint_format", "gptq"))
        return unsupported(e, "checkpoint_format",
                           "GPTQ is loaded in the formats gptq and gptq_v2");
    s->packing = HF_PACKED_GPTQ;
    s->group = group_size(o, "group_size");
    s->zero_bias = !v2;
    return OK;
}

static status read_awq(hf_scheme *s, const json_t *o, err *e) {
    if (!number_is(o, "bits", 4) && !number_is(o, "w_bit", 4))
        return unsupported(e, "bits", "AWQ is loaded with 4 bits");
    if (given(o, "version") && !text_is(o, "version", "gemm") && !text_is(o, "version", "GEMM"))
        return unsupported(e, "version", "AWQ is loaded in the version gemm");
    s->packing = HF_PACKED_AWQ;
    s->group = group_size(o, given(o, "group_size") ? "group_size" : "q_group_size");
    s->bits = 4;
    return OK;
}

/* [rows, columns] that share a scale. */
static status read_block(hf_scheme *s, const json_t *block, const char *field, err *e) {
    const json_int_t rows = json_integer_value(json_array_get(block, 0));
    const json_int_t cols = json_integer_value(json_array_get(block, 1));
    if (rows < 1 || rows > 1 << 16 || cols < BLOCK || cols > 1 << 16 || cols % BLOCK)
        return unsupported(e, field, "blocks of FP8 have a multiple of 32 columns");
    s->block_rows = (uint32_t)rows;
    s->block_cols = (uint32_t)cols;
    return OK;
}

/* Scales of activations, where a file has some, are not used: inputs are quantised as they come. */
static status read_fp8(hf_scheme *s, const json_t *o, err *e) {
    const json_t *block = json_object_get(o, "weight_block_size");
    s->packing = HF_PACKED_FP8;
    s->bits = 8;
    s->symmetric = s->inverse = true;
    s->input_scales = text_is(o, "activation_scheme", "static");
    return block && !json_is_null(block) ? read_block(s, block, "weight_block_size", e) : OK;
}

static bool same_scheme(const hf_scheme *a, const hf_scheme *b) {
    return a->packing == b->packing && a->bits == b->bits && a->symmetric == b->symmetric &&
           a->group == b->group && a->block_rows == b->block_rows &&
           a->block_cols == b->block_cols;
}

/* Of the weights of a config group; *out: the others had this kind. */
static status read_group(hf_scheme *out, const json_t *group, err *e) {
    const json_t *w = json_object_get(group, "weights");
    const json_t *inputs = json_object_get(group, "input_activations");
    const bool four = number_is(w, "num_bits", 4), eight = number_is(w, "num_bits", 8);
    const bool fp8 = text_is(w, "type", "float") && eight && given(w, "strategy");
    hf_scheme s = {.bits = four ? 4 : 8,
                   .symmetric = !is_false(w, "symmetric"),
                   .packing = fp8 ? HF_PACKED_FP8 : HF_PACKED_NONE,
                   .group = group_size(w, "group_size"),
                   .input_scales = json_is_object(inputs) && is_false(inputs, "dynamic")};
    if ((!text_is(w, "type", "int") || (!four && !eight)) && !fp8)
        return unsupported(e, "config_groups",
                           "integers of 4 and 8 bits are loaded, and FP8 with a strategy");
    if (eight && !s.symmetric)
        return unsupported(e, "config_groups", "8 bits are loaded with symmetric codes only");
    if (text_is(w, "strategy", "block")) {
        s.group = 0;
        const status st =
            fp8 ? read_block(&s, json_object_get(w, "block_structure"), "config_groups", e)
                : unsupported(e, "config_groups", "blocks are loaded of FP8 only");
        if (st != OK) return st;
    }
    if (out->bits && !same_scheme(out, &s))
        return unsupported(e, "config_groups", "groups of several kinds together");
    s.input_scales |= out->input_scales;
    *out = s;
    return OK;
}

static status read_compressed(hf_scheme *s, const json_t *o, err *e) {
    const char *name;
    json_t *group;
    status st = OK;
    const bool packed = text_is(o, "format", "pack-quantized"),
               bytes = text_is(o, "format", "int-quantized") ||
                       text_is(o, "format", "float-quantized") ||
                       text_is(o, "format", "naive-quantized");
    if (!packed && !bytes)
        return unsupported(e, "format",
                           "compressed-tensors is loaded as pack-quantized, "
                           "int-quantized, float-quantized and naive-quantized");
    json_object_foreach(json_object_get(o, "config_groups"), name, group) if (st == OK) st =
        read_group(s, group, e);
    if (st != OK) return st;
    if (packed || s->packing != HF_PACKED_FP8)
        s->packing = packed ? HF_PACKED_WORDS : HF_PACKED_BYTES;
    if (s->bits == (packed ? 4 : 8)) return OK;
    return unsupported(e, "format",
                       "compressed-tensors is loaded with 4 bits packed, or 8 bits");
}

status hf_scheme_read(hf_scheme *s, const json_t *o, err *e) {
    *s = (hf_scheme){0};
    status st = OK;
    if (!o || json_is_null(o)) return OK;
    if (text_is(o, "quant_method", "gptq"))
        st = read_gptq(s, o, e);
    else if (text_is(o, "quant_method", "awq"))
        st = read_awq(s, o, e);
    else if (text_is(o, "quant_method", "fp8"))
        st = read_fp8(s, o, e);
    else if (text_is(o, "quant_method", "compressed-tensors"))
        st = read_compressed(s, o, e);
    else if (!text_is(o, "quant_method", "mxfp4")) /* experts, by their names: hf_gpt_oss.h */
        st =
            unsupported(e, "quant_method",
                        "weights are loaded from GPTQ, AWQ, FP8, compressed-tensors and MXFP4");
    return st;
}

/* ---- the parts of a matrix ---- */

static size_t before(const char *name, const char *tail) {
    const size_t n = strlen(name), k = strlen(tail);
    return n > k && strcmp(name + n - k, tail) == 0 ? n - k : 0;
}

size_t hf_packed_base(const hf_scheme *s, const safetensor *t, bool *beside) {
    static const char *const columns[] = {".qzeros", ".scales", ".g_idx"};
    static const char *const rows[] = {
        ".weight_scale",     ".weight_shape", ".weight_zero_point", ".weight_g_idx",
        ".weight_scale_inv", ".input_scale",  ".activation_scale",  ".input_zero_point"};
    *beside = false;
    const size_t n = s->packing == HF_PACKED_NONE   ? 0
                     : s->packing == HF_PACKED_GPTQ ? 3
                     : s->packing == HF_PACKED_AWQ  ? 2
                                                    : 8;
    for (size_t i = 0; i < n; i++)
        *beside |= before(t->name, hf_is_transposed(s) ? columns[i] : rows[i]) > 0;
    if (hf_is_transposed(s)) return before(t->name, ".qweight");
    if (s->packing == HF_PACKED_WORDS) return before(t->name, ".weight_packed");
    if (s->packing == HF_PACKED_FP8)
        return strcmp(t->stored, "F8_E4M3") == 0 ? before(t->name, ".weight") : 0;
    return s->packing == HF_PACKED_BYTES && t->type == DT_I8 ? before(t->name, ".weight") : 0;
}

typedef struct finder {
    const safetensors *files;
    uint32_t n_files;
    const char *name; /* of the codes */
    size_t base;
    err *e;
} finder;

static status bad_part(const finder *f, const char *part, const char *what) {
    err_set(f->e, ERR_FORMAT, "tensor %.*s%s %s", (int)(f->base < 200 ? f->base : 200), f->name,
            part, what);
    return err_field(f->e, "%.*s%s", (int)(f->base < 70 ? f->base : 70), f->name, part);
}

static const safetensor *look_up(const finder *f, const char *part, const safetensors **in) {
    char name[NAME];
    if (snprintf(name, sizeof name, "%.*s%s", (int)f->base, f->name, part) >= NAME) return NULL;
    for (uint32_t i = 0; i < f->n_files; i++) {
        const safetensor *t = safetensors_find(&f->files[i], name);
        if (t) return *in = &f->files[i], t;
    }
    return NULL;
}

static bool shape_is(const safetensor *t, uint64_t rows, uint64_t cols) {
    return t->n_dims == 2 && t->dim[0] == rows && t->dim[1] == cols;
}

static bool is_real(const safetensor *t) {
    return t->type == DT_F16 || t->type == DT_BF16 || t->type == DT_F32;
}

/* Groups of whole blocks such that no group has two scales. */
static bool whole_groups(hf_packed *p) {
    if (p->scale_cols % BLOCK != 0 || p->scale_cols > 1u << 20) return false;
    for (p->group = p->scale_cols; p->cols % p->group || p->scale_cols % p->group;)
        p->group -= BLOCK;
    return p->group > 0;
}

/* n stored scales of an output, each for as many inputs as the config says, the last one perhaps for fewer; a
 * config that says nothing: each for as many as the others. */
static bool good_groups(hf_packed *p, uint64_t n) {
    const uint64_t each = p->scheme->group;
    if (n == 0 || p->cols == 0 || p->cols % BLOCK != 0) return false;
    p->scale_cols = each && each < p->cols ? each : p->cols / n;
    return ceil_div(p->cols, p->scale_cols) == n && (each || p->cols % n == 0) &&
           whole_groups(p);
}

/* ---- the order of inputs ---- */

/* Whether n inputs are in groups of `each` as they come. False, too, for what is no group at all. */
static bool is_in_order(const int32_t *group, uint64_t n, uint64_t each) {
    bool order = true;
    for (uint64_t i = 0; i < n; i++) order &= group[i] == (int32_t)(i / each);
    return order;
}

/* Sorts the inputs by their groups, in each as they come. False: a group that does not exist, or one
 * without its number of inputs. next: [groups]. */
static bool sort_inputs(const int32_t *group, const hf_packed *p, uint64_t *next,
                        int32_t *order) {
    const uint64_t n = ceil_div(p->cols, p->scale_cols);
    for (uint64_t g = 0; g < n; g++) next[g] = g * p->scale_cols;
    for (uint64_t i = 0; i < p->cols; i++) {
        const uint64_t g = (uint64_t)group[i];
        if (group[i] < 0 || g >= n || next[g] == (g + 1) * p->scale_cols || next[g] == p->cols)
            return false;
        order[next[g]++] = (int32_t)i;
    }
    return true;
}

/* Reads which group each input is in, whatever the config says of it (desc_act, actorder): files have
 * it in order where the config says otherwise. */
static status read_order(const finder *f, hf_packed *p, const char *part, arena *mem) {
    const safetensors *in;
    const safetensor *t = look_up(f, part, &in);
    if (!t) return OK;
    if (t->type != DT_I32 || t->n_dims != 1 || t->dim[0] != p->cols)
        return bad_part(f, part, "has another type or shape");
    int32_t *group = malloc(t->bytes), *order = NULL;
    uint64_t *next = malloc(ceil_div(p->cols, p->scale_cols) * sizeof *next);
    status s = group && next ? safetensors_read(in, t, 0, group, t->bytes, f->e)
                             : mem_exhausted(f->e, MEM_LOADING, "reading %.200s", t->name);
    if (s == OK && !is_in_order(group, p->cols, p->scale_cols)) {
        order = arena_alloc(mem, t->bytes);
        if (!order)
            s = mem_exhausted(f->e, MEM_LOADING, "the headers of the model");
        else if (!sort_inputs(group, p, next, order))
            s = bad_part(f, part, "does not give each group of inputs its number of them");
    }
    free(group);
    free(next);
    p->order = order;
    return s;
}

static const char no_groups[] =
    "has no groups of a multiple of 32 inputs, or others than the config says";

/* Codes stored input by input. */
static status find_columns(finder *f, hf_packed *p) {
    const safetensor *c = p->codes;
    const bool awq = p->scheme->packing == HF_PACKED_AWQ;
    const uint32_t bits = p->scheme->bits;
    if (c->type != DT_I32 || c->n_dims != 2)
        return bad_part(f, ".qweight", "is no matrix of I32");
    p->rows = awq ? c->dim[1] * 8 : c->dim[1];
    p->cols = awq ? c->dim[0] : c->dim[0] * 32 / bits;
    p->scales = look_up(f, ".scales", &p->scales_in);
    p->zeros = look_up(f, ".qzeros", &p->zeros_in);
    if (!p->scales || !p->zeros)
        return bad_part(f, p->scales ? ".qzeros" : ".scales", "is missing");
    if (p->rows % 8 || p->rows * bits % 32 || p->scales->n_dims != 2 || !is_real(p->scales) ||
        !good_groups(p, p->scales->dim[0]) || p->scales->dim[1] != p->rows)
        return bad_part(f, ".scales", no_groups);
    p->scale_rows = 1;
    if (p->zeros->type != DT_I32 || !shape_is(p->zeros, p->scales->dim[0], p->rows / 32 * bits))
        return bad_part(f, ".qzeros", "has another type or shape");
    return OK;
}

/* How many inputs and outputs share a scale: by blocks, of which those at the ends may be short, or
 * by the shape: one for all, one for each output, or for groups of its inputs. */
static bool scale_blocks(hf_packed *p) {
    const safetensor *t = p->scales;
    const hf_scheme *s = p->scheme;
    const uint64_t down = t->n_dims ? t->dim[0] : 1, across = t->n_dims == 2 ? t->dim[1] : 1;
    if (!is_real(t) || t->n_dims > 2) return false;
    if (s->block_rows) {
        p->scale_rows = s->block_rows, p->scale_cols = s->block_cols;
        return p->cols % BLOCK == 0 && whole_groups(p) &&
               down == ceil_div(p->rows, p->scale_rows) &&
               across == ceil_div(p->cols, p->scale_cols);
    }
    if (!good_groups(p, across) || (down != p->rows && (down != 1 || across != 1)))
        return false;
    p->scale_rows = down == 1 ? p->rows : 1;
    return true;
}

static status find_rows(finder *f, hf_packed *p) {
    const bool four = p->scheme->packing == HF_PACKED_WORDS;
    const bool fp8 = p->scheme->packing == HF_PACKED_FP8;
    const char *part =
        p->scheme->inverse && p->scheme->block_rows ? ".weight_scale_inv" : ".weight_scale";
    const safetensor *c = p->codes;
    if (c->n_dims != 2 || (!fp8 && c->type != (four ? DT_I32 : DT_I8)))
        return bad_part(f, four ? ".weight_packed" : ".weight", "has another type or shape");
    p->rows = c->dim[0];
    p->cols = four ? c->dim[1] * 8 : c->dim[1];
    p->scales = look_up(f, part, &p->scales_in);
    p->zeros = look_up(f, ".weight_zero_point", &p->zeros_in);
    if (!p->scales) return bad_part(f, part, "is missing");
    if (!scale_blocks(p)) return bad_part(f, part, no_groups);
    if ((p->zeros != NULL) == p->scheme->symmetric)
        return bad_part(f, ".weight_zero_point", "does not go with the config's symmetric");
    if (p->zeros && (!four || p->zeros->type != DT_I32 || p->rows % 8 ||
                     !shape_is(p->zeros, p->rows / 8, ceil_div(p->cols, p->scale_cols))))
        return bad_part(f, ".weight_zero_point", "has another type or shape");
    return OK;
}

/* The type that holds its codes, zero points and scales; GGUF's where one is that. */
static dtype type_of(const hf_packed *p) {
    const hf_scheme *s = p->scheme;
    const dtype kind = s->packing == HF_PACKED_FP8   ? DT_F8
                       : s->bits == 8                ? s->symmetric ? DT_I8G : DT_I8Z
                       : s->bits < 4 || s->symmetric ? DT_I4
                                                     : DT_I4Z;
    const dtype t = dtype_grouped(kind, p->scales->type, (uint32_t)p->group);
    if (t == dtype_grouped(DT_I4, DT_F16, BLOCK)) return DT_Q4_0;
    return t == dtype_grouped(DT_I8G, DT_F16, BLOCK) ? DT_Q8_0 : t;
}

status hf_packed_find(hf_packed *p, const hf_scheme *s, const safetensors *files,
                      uint32_t n_files, const safetensor *codes, size_t base, arena *mem,
                      err *e) {
    finder f = {files, n_files, codes->name, base, e};
    *p = (hf_packed){.scheme = s, .codes = codes};
    for (uint32_t i = 0; i < n_files && !p->codes_in; i++)
        if (safetensors_find(&files[i], codes->name) == codes) p->codes_in = &files[i];
    CHECK(p->codes_in);
    for (uint32_t d = 0; d < codes->n_dims; d++)
        if (codes->dim[d] == 0 || codes->dim[d] > UINT32_MAX)
            return bad_part(&f, codes->name + base, "is empty, or too large");
    const status st = hf_is_transposed(s) ? find_columns(&f, p) : find_rows(&f, p);
    if (st == OK) p->type = type_of(p);
    if (st != OK || s->packing == HF_PACKED_AWQ) return st;
    return read_order(&f, p, hf_is_transposed(s) ? ".g_idx" : ".weight_g_idx", mem);
}
