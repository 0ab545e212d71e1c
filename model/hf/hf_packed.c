/* Codes and scales to blocks. The slab of a folder has a mutex; all else is immutable. */
#include "model/hf/hf_packed.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "memory/term.h"
#include "model/hf/hf_unpack.h"

enum { BLOCK = 32, SLAB_COLUMNS = 512, NAME = 400 };

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

static status read_gptq(hf_scheme *s, const json_t *o, err *e) {
    const json_t *bits = json_object_get(o, "bits");
    s->bits = json_is_integer(bits) ? (uint32_t)json_integer_value(bits) : 0;
    s->symmetric = !is_false(o, "sym");
    if (s->bits != 2 && s->bits != 3 && s->bits != 4 && s->bits != 8)
        return unsupported(e, "bits", "GPTQ is loaded with 2, 3, 4 and 8 bits");
    if (s->bits == 8 && !s->symmetric)
        return unsupported(e, "sym", "GPTQ of 8 bits is loaded with symmetric codes only");
    const bool v2 = text_is(o, "checkpoint_format", "gptq_v2");
    if (given(o, "checkpoint_format") && !v2 && !text_is(o, "checkpoint_format", "gptq"))
        return unsupported(e, "checkpoint_format",
                           "GPTQ is loaded in the formats gptq and gptq_v2");
    s->packing = HF_PACKED_GPTQ;
    s->zero_bias = !v2;
    return OK;
}

static status read_awq(hf_scheme *s, const json_t *o, err *e) {
    if (!number_is(o, "bits", 4) && !number_is(o, "w_bit", 4))
        return unsupported(e, "bits", "AWQ is loaded with 4 bits");
    if (given(o, "version") && !text_is(o, "version", "gemm") && !text_is(o, "version", "GEMM"))
        return unsupported(e, "version", "AWQ is loaded in the version gemm");
    s->packing = HF_PACKED_AWQ;
    s->bits = 4;
    return OK;
}

/* Scales of activations, where a file has some, are not used: inputs are quantised as they come. */
static status read_fp8(hf_scheme *s, const json_t *o, err *e) {
    const json_t *block = json_object_get(o, "weight_block_size");
    s->packing = HF_PACKED_FP8;
    s->bits = 8;
    s->symmetric = true;
    if (!block || json_is_null(block)) return OK;
    const json_int_t rows = json_integer_value(json_array_get(block, 0));
    const json_int_t cols = json_integer_value(json_array_get(block, 1));
    if (rows < 1 || rows > 1 << 16 || cols < BLOCK || cols > 1 << 16 || cols % BLOCK)
        return unsupported(e, "weight_block_size",
                           "blocks of FP8 have a multiple of 32 columns");
    s->block_rows = (uint32_t)rows;
    s->block_cols = (uint32_t)cols;
    return OK;
}

/* Of the weights of a config group. */
static status read_group(hf_scheme *s, const json_t *w, err *e) {
    const bool four = number_is(w, "num_bits", 4), eight = number_is(w, "num_bits", 8);
    const bool symmetric = !is_false(w, "symmetric");
    const bool fp8 = text_is(w, "type", "float") && eight && given(w, "strategy") &&
                     !text_is(w, "strategy", "block");
    if ((!text_is(w, "type", "int") || (!four && !eight)) && !fp8)
        return unsupported(e, "config_groups",
                           "integers of 4 and 8 bits are loaded, and FP8 without blocks");
    if (eight && !symmetric)
        return unsupported(e, "config_groups", "8 bits are loaded with symmetric codes only");
    if (s->bits && (s->bits != (four ? 4 : 8) || s->symmetric != symmetric ||
                    (s->packing == HF_PACKED_FP8) != fp8))
        return unsupported(e, "config_groups", "groups of several kinds together");
    s->bits = four ? 4 : 8;
    s->symmetric = symmetric;
    if (fp8) s->packing = HF_PACKED_FP8;
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
        read_group(s, json_object_get(group, "weights"), e);
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
    else
        st = unsupported(e, "quant_method",
                         "weights are loaded from GPTQ, AWQ, FP8 and compressed-tensors");
    return st;
}

/* ---- the parts of a matrix ---- */

static size_t before(const char *name, const char *tail) {
    const size_t n = strlen(name), k = strlen(tail);
    return n > k && strcmp(name + n - k, tail) == 0 ? n - k : 0;
}

static bool transposed(const hf_scheme *s) {
    return s->packing == HF_PACKED_GPTQ || s->packing == HF_PACKED_AWQ;
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
        *beside |= before(t->name, transposed(s) ? columns[i] : rows[i]) > 0;
    if (transposed(s)) return before(t->name, ".qweight");
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

/* Groups of whole blocks, one behind the other. */
static bool good_groups(hf_packed *p, uint64_t n) {
    if (n == 0 || p->cols == 0 || p->cols % n != 0) return false;
    p->group = p->cols / n;
    return p->group % BLOCK == 0 && p->group <= 1u << 20;
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
    const uint64_t n = p->cols / p->group;
    for (uint64_t g = 0; g < n; g++) next[g] = g * p->group;
    for (uint64_t i = 0; i < p->cols; i++) {
        const uint64_t g = (uint64_t)group[i];
        if (group[i] < 0 || g >= n || next[g] == (g + 1) * p->group) return false;
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
    uint64_t *next = malloc(p->cols / p->group * sizeof *next);
    status s = group && next ? safetensors_read(in, t, 0, group, t->bytes, f->e)
                             : mem_exhausted(f->e, MEM_LOADING, "reading %.200s", t->name);
    if (s == OK && !is_in_order(group, p->cols, p->group)) {
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
        !good_groups(p, p->scales->dim[0]) || !shape_is(p->scales, p->cols / p->group, p->rows))
        return bad_part(f, ".scales", "has no groups of a multiple of 32 inputs");
    if (p->zeros->type != DT_I32 ||
        !shape_is(p->zeros, p->cols / p->group, p->rows / 32 * bits))
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
        for (p->group = s->block_cols; p->cols % p->group || s->block_cols % p->group;)
            if ((p->group -= BLOCK) == 0) return false;
        return down == ceil_div(p->rows, p->scale_rows) &&
               across == ceil_div(p->cols, p->scale_cols);
    }
    if (!good_groups(p, across) || (down != p->rows && (down != 1 || across != 1)))
        return false;
    p->scale_rows = down == 1 ? p->rows : 1;
    p->scale_cols = p->group;
    return true;
}

static status find_rows(finder *f, hf_packed *p) {
    const bool four = p->scheme->packing == HF_PACKED_WORDS;
    const bool fp8 = p->scheme->packing == HF_PACKED_FP8;
    const char *part = p->scheme->block_rows ? ".weight_scale_inv" : ".weight_scale";
    const safetensor *c = p->codes;
    if (c->n_dims != 2 || (!fp8 && c->type != (four ? DT_I32 : DT_I8)))
        return bad_part(f, four ? ".weight_packed" : ".weight", "has another type or shape");
    p->rows = c->dim[0];
    p->cols = four ? c->dim[1] * 8 : c->dim[1];
    p->scales = look_up(f, part, &p->scales_in);
    p->zeros = look_up(f, ".weight_zero_point", &p->zeros_in);
    if (!p->scales) return bad_part(f, part, "is missing");
    if (!scale_blocks(p)) return bad_part(f, part, "has no groups of a multiple of 32 inputs");
    if ((p->zeros != NULL) == p->scheme->symmetric)
        return bad_part(f, ".weight_zero_point", "does not go with the config's symmetric");
    if (p->zeros && (!four || p->zeros->type != DT_I32 || p->rows % 8 ||
                     !shape_is(p->zeros, p->rows / 8, p->cols / p->group)))
        return bad_part(f, ".weight_zero_point", "has another type or shape");
    return OK;
}

/* The type that holds its codes, zero points and scales; GGUF's where one is that. */
static dtype type_of(const hf_packed *p) {
    const hf_scheme *s = p->scheme;
    const dtype kind = s->packing == HF_PACKED_FP8   ? DT_F8
                       : s->bits == 8                ? DT_I8G
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
    const status st = transposed(s) ? find_columns(&f, p) : find_rows(&f, p);
    if (st == OK) p->type = type_of(p);
    if (st != OK || s->packing == HF_PACKED_AWQ) return st;
    return read_order(&f, p, transposed(s) ? ".g_idx" : ".weight_g_idx", mem);
}

/* ---- reading ---- */

/* Outputs [first, first + n) of a matrix that is stored input by input: SLAB_COLUMNS of each stored
 * row of codes, scales and zero points, one behind the other. */
struct hf_slab {
    pthread_mutex_t lock;
    const hf_packed *of; /* NULL: nothing is in it */
    uint64_t first, n;
};

static uint64_t scale_bytes(const hf_packed *p) {
    return p->scales->type == DT_F32 ? 4 : 2;
}

/* Bytes of n outputs in a stored row of codes, and of zero points. */
static uint64_t code_part(const hf_packed *p, uint64_t n) {
    return p->scheme->packing == HF_PACKED_AWQ ? n / 2 : n * 4;
}
static uint64_t zero_part(const hf_packed *p, uint64_t n) {
    return n / 8 * p->scheme->bits;
}

uint64_t hf_slab_bytes(const hf_packed *p) {
    if (!transposed(p->scheme)) return 0;
    return align_up(sizeof(hf_slab), 16) + p->codes->dim[0] * code_part(p, SLAB_COLUMNS) +
           p->cols / p->group * (SLAB_COLUMNS * scale_bytes(p) + zero_part(p, SLAB_COLUMNS));
}

hf_slab *hf_slab_init(void *mem) {
    hf_slab *s = mem;
    *s = (hf_slab){0};
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    return s;
}

void hf_slab_clear(hf_slab *s) {
    if (s) pthread_mutex_destroy(&s->lock);
}

static char *slab_codes(hf_slab *s) {
    return (char *)s + align_up(sizeof *s, 16);
}
static char *slab_scales(hf_slab *s, const hf_packed *p) {
    return slab_codes(s) + p->codes->dim[0] * code_part(p, SLAB_COLUMNS);
}
static char *slab_zeros(hf_slab *s, const hf_packed *p) {
    return slab_scales(s, p) + p->cols / p->group * SLAB_COLUMNS * scale_bytes(p);
}

/* n bytes from `at` of each row of a stored matrix, one behind the other `step` bytes apart. */
static status read_columns(const safetensors *in, const safetensor *t, uint64_t row_bytes,
                           uint64_t at, uint64_t n, char *dst, uint64_t step, err *e) {
    status s = OK;
    for (uint64_t r = 0; r < t->dim[0] && s == OK; r++)
        s = safetensors_read(in, t, r * row_bytes + at, dst + r * step, n, e);
    return s;
}

static status fill_slab(hf_slab *s, const hf_packed *p, uint64_t row, err *e) {
    const uint64_t size = scale_bytes(p);
    s->of = NULL;
    s->first = row / SLAB_COLUMNS * SLAB_COLUMNS;
    s->n = p->rows - s->first < SLAB_COLUMNS ? p->rows - s->first : SLAB_COLUMNS;
    const uint64_t at = s->first, n = s->n, all = SLAB_COLUMNS;
    status st = read_columns(p->codes_in, p->codes, code_part(p, p->rows), code_part(p, at),
                             code_part(p, n), slab_codes(s), code_part(p, all), e);
    if (st == OK)
        st = read_columns(p->scales_in, p->scales, p->rows * size, at * size, n * size,
                          slab_scales(s, p), all * size, e);
    if (st == OK)
        st = read_columns(p->zeros_in, p->zeros, zero_part(p, p->rows), zero_part(p, at),
                          zero_part(p, n), slab_zeros(s, p), zero_part(p, all), e);
    if (st == OK) s->of = p;
    return st;
}

/* Codes of 32 inputs of an output, and their zero point. */
typedef struct block_parts {
    int32_t code[BLOCK], zero;
} block_parts;

/* A group of an output, from its scale on; out: the next byte of the row. */
typedef struct row_writer {
    dtype kind;
    uint32_t scale_bytes;
    unsigned char *out;
    bool wrong; /* a number that the type does not hold */
} row_writer;

static row_writer write_row(const hf_packed *p, unsigned char *out) {
    const dtype kind = p->type == DT_Q4_0   ? DT_I4
                       : p->type == DT_Q8_0 ? DT_I8G
                                            : dtype_kind(p->type);
    return (row_writer){kind, (uint32_t)scale_bytes(p), out, false};
}

static void put_head(row_writer *w, const char *scale, int32_t zero) {
    memcpy(w->out, scale, w->scale_bytes);
    w->out += w->scale_bytes;
    if (w->kind == DT_I4Z) *w->out++ = (unsigned char)zero;
}

static void put_codes(row_writer *w, const block_parts *b) {
    const bool eight = w->kind == DT_I8G || w->kind == DT_F8;
    const int32_t less = w->kind == DT_I4 ? b->zero - 8 : eight ? b->zero : 0;
    const int32_t least = eight ? -128 : 0, most = eight ? 127 : 15;
    int32_t v[BLOCK], wrong = 0;
    for (uint32_t i = 0; i < BLOCK; i++) {
        v[i] = b->code[i] - less;
        wrong |= v[i] < least || v[i] > most;
    }
    for (uint32_t i = 0; i < BLOCK && eight; i++) w->out[i] = (unsigned char)v[i];
    for (uint32_t i = 0; i < BLOCK / 2 && !eight; i++)
        w->out[i] = (unsigned char)((v[i] & 15) | (v[i + 16] & 15) << 4);
    w->wrong |= wrong;
    w->out += eight ? BLOCK : BLOCK / 2;
}

static status does_not_fit(const hf_packed *p, err *e) {
    const char *name = p->zeros ? p->zeros->name : p->codes->name;
    err_set(e, ERR_UNSUPPORTED, "%.200s: a zero point with which a number does not fit", name);
    return err_field(e, "%.90s", name);
}

/* Value i of a row of values of so many bits, densely packed from the lowest bit on; step: bytes from
 * word to word. */
static uint32_t dense_at(const char *words, uint64_t i, uint32_t bits, uint64_t step) {
    uint32_t low, next = 0;
    const uint64_t at = i * bits, shift = at % 32;
    memcpy(&low, words + at / 32 * step, 4);
    if (shift + bits > 32) memcpy(&next, words + (at / 32 + 1) * step, 4);
    return (uint32_t)(((uint64_t)next << 32 | low) >> shift) & ((1u << bits) - 1);
}

/* Output n of a row of AWQ's words. */
static uint32_t awq_at(const char *row, uint64_t n) {
    static const uint32_t place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    uint32_t word;
    memcpy(&word, row + n / 8 * 4, 4);
    return word >> 4 * place[n % 8] & 15;
}

static status unpack_columns(hf_slab *s, const hf_packed *p, uint64_t row, unsigned char *dst,
                             err *e) {
    const uint64_t c = row - s->first, size = scale_bytes(p), step = code_part(p, SLAB_COLUMNS);
    const uint32_t bits = p->scheme->bits;
    const bool awq = p->scheme->packing == HF_PACKED_AWQ;
    row_writer w = write_row(p, dst);
    block_parts b;
    for (uint64_t k = 0; k < p->cols; k += BLOCK) {
        const uint64_t g = k / p->group;
        const char *zeros = slab_zeros(s, p) + g * zero_part(p, SLAB_COLUMNS);
        if (k % p->group == 0) {
            b.zero = (int32_t)(awq ? awq_at(zeros, c)
                                   : dense_at(zeros, c, bits, 4) + p->scheme->zero_bias);
            put_head(&w, slab_scales(s, p) + (g * SLAB_COLUMNS + c) * size, b.zero);
        }
        if (awq)
            hf_unpack32_awq(b.code, slab_codes(s) + k * step, c, step);
        else if (!p->order)
            hf_unpack32(b.code, slab_codes(s) + 4 * c, k, bits, step);
        for (uint64_t i = 0; i < BLOCK && p->order; i++)
            b.code[i] =
                (int32_t)dense_at(slab_codes(s) + 4 * c, (uint64_t)p->order[k + i], bits, step);
        put_codes(&w, &b);
    }
    return w.wrong ? does_not_fit(p, e) : OK;
}

static status read_column(const hf_packed *p, hf_slab *s, uint64_t row, void *dst, err *e) {
    CHECK(s);
    pthread_mutex_lock(&s->lock);
    status st = OK;
    if (s->of != p || row < s->first || row - s->first >= s->n) st = fill_slab(s, p, row, e);
    if (st == OK) st = unpack_columns(s, p, row, dst, e);
    pthread_mutex_unlock(&s->lock);
    return st;
}

/* The parts of a row that is stored as one. */
typedef struct stored_row {
    char *codes, *scales, *zeros; /* zeros: of 8 rows, a word for each group */
    uint64_t code_bytes, n_scales;
} stored_row;

static status fetch_row(const hf_packed *p, uint64_t row, stored_row *r, err *e) {
    const uint64_t size = scale_bytes(p);
    r->code_bytes = p->scheme->packing == HF_PACKED_WORDS ? p->cols / 2 : p->cols;
    r->n_scales = ceil_div(p->cols, p->scale_cols);
    r->codes = malloc(r->code_bytes + r->n_scales * (size + 4));
    if (!r->codes) return mem_exhausted(e, MEM_LOADING, "reading %.200s", p->codes->name);
    r->scales = r->codes + r->code_bytes;
    r->zeros = r->scales + r->n_scales * size;
    status s = safetensors_read(p->codes_in, p->codes, row * r->code_bytes, r->codes,
                                r->code_bytes, e);
    if (s == OK)
        s = safetensors_read(p->scales_in, p->scales, row / p->scale_rows * r->n_scales * size,
                             r->scales, r->n_scales * size, e);
    if (s == OK && p->zeros)
        s = safetensors_read(p->zeros_in, p->zeros, row / 8 * r->n_scales * 4, r->zeros,
                             r->n_scales * 4, e);
    return s;
}

static status read_row(const hf_packed *p, uint64_t row, unsigned char *dst, err *e) {
    const bool words = p->scheme->packing == HF_PACKED_WORDS;
    row_writer w = write_row(p, dst);
    stored_row r = {0};
    block_parts b = {.zero = words ? 8 : 0};
    status s = fetch_row(p, row, &r, e);
    for (uint64_t k = 0; k < p->cols && s == OK; k += BLOCK) {
        const uint64_t g = k / p->group;
        if (p->zeros) b.zero = (int32_t)dense_at(r.zeros + 4 * g, row % 8, 4, 4);
        if (k % p->group == 0)
            put_head(&w, r.scales + k / p->scale_cols * scale_bytes(p), b.zero);
        if (words && !p->order) hf_unpack32(b.code, r.codes, k, 4, 4);
        for (uint64_t i = 0; i < BLOCK && (!words || p->order); i++) {
            const uint64_t at = p->order ? (uint64_t)p->order[k + i] : k + i;
            b.code[i] = words ? (int32_t)dense_at(r.codes, at, 4, 4) : (int8_t)r.codes[at];
        }
        put_codes(&w, &b);
    }
    free(r.codes);
    return s == OK && w.wrong ? does_not_fit(p, e) : s;
}

status hf_packed_read(const hf_packed *p, hf_slab *s, uint64_t row, void *dst, err *e) {
    CHECK(row < p->rows);
    return transposed(p->scheme) ? read_column(p, s, row, dst, e) : read_row(p, row, dst, e);
}
