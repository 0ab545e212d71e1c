/* Codes and scales to blocks. The slab of a folder has a mutex; all else is immutable. */
#include "model/hf_packed.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"

enum { BLOCK = 32, SLAB_COLUMNS = 512, MIDDLE4 = 8, NAME = 400 };

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

static status read_gptq(hf_scheme *s, const json_t *o, err *e) {
    if (!number_is(o, "bits", 4))
        return unsupported(e, "bits", "GPTQ is loaded with 4 bits only");
    if (json_is_false(json_object_get(o, "sym")))
        return unsupported(e, "sym", "GPTQ is loaded with symmetric codes only");
    const bool v2 = text_is(o, "checkpoint_format", "gptq_v2");
    if (given(o, "checkpoint_format") && !v2 && !text_is(o, "checkpoint_format", "gptq"))
        return unsupported(e, "checkpoint_format",
                           "GPTQ is loaded in the formats gptq and gptq_v2");
    s->packing = HF_PACKED_GPTQ4;
    s->zero = v2 ? MIDDLE4 : MIDDLE4 - 1;
    s->act_order = json_is_true(json_object_get(o, "desc_act"));
    return OK;
}

/* Of the weights of a config group. */
static status read_group(hf_scheme *s, const json_t *w, err *e) {
    const bool four = number_is(w, "num_bits", 4), eight = number_is(w, "num_bits", 8);
    if (!text_is(w, "type", "int") || (!four && !eight))
        return unsupported(e, "config_groups", "integers of 4 and 8 bits are loaded only");
    if (json_is_false(json_object_get(w, "symmetric")))
        return unsupported(e, "config_groups", "symmetric codes are loaded only");
    if (text_is(w, "actorder", "group") || text_is(w, "actorder", "dynamic"))
        return unsupported(e, "config_groups", "inputs in another order are not supported");
    const hf_packing p = four ? HF_PACKED_ROWS4 : HF_PACKED_ROWS8;
    if (s->packing != HF_PACKED_NONE && s->packing != p)
        return unsupported(e, "config_groups", "groups of 4 and of 8 bits together");
    s->packing = p;
    return OK;
}

static status read_compressed(hf_scheme *s, const json_t *o, err *e) {
    const char *name;
    json_t *group;
    status st = OK;
    const bool packed = text_is(o, "format", "pack-quantized"),
               bytes = text_is(o, "format", "int-quantized") ||
                       text_is(o, "format", "naive-quantized");
    if (!packed && !bytes)
        return unsupported(e, "format",
                           "compressed-tensors is loaded as pack-quantized, "
                           "int-quantized and naive-quantized");
    json_object_foreach(json_object_get(o, "config_groups"), name, group) if (st == OK) st =
        read_group(s, json_object_get(group, "weights"), e);
    if (st != OK) return st;
    if ((s->packing == HF_PACKED_ROWS4 && packed) || (s->packing == HF_PACKED_ROWS8 && bytes))
        return OK;
    return unsupported(e, "format",
                       "compressed-tensors is loaded with 4 bits packed, or 8 bits");
}

status hf_scheme_read(hf_scheme *s, const json_t *o, err *e) {
    *s = (hf_scheme){0};
    if (!o || json_is_null(o)) return OK;
    if (text_is(o, "quant_method", "gptq")) return read_gptq(s, o, e);
    if (text_is(o, "quant_method", "compressed-tensors")) return read_compressed(s, o, e);
    return unsupported(e, "quant_method",
                       "weights are loaded from GPTQ and compressed-tensors");
}

/* ---- the parts of a matrix ---- */

static size_t before(const char *name, const char *tail) {
    const size_t n = strlen(name), k = strlen(tail);
    return n > k && strcmp(name + n - k, tail) == 0 ? n - k : 0;
}

size_t hf_packed_base(const hf_scheme *s, const safetensor *t, bool *beside) {
    static const char *const gptq[] = {".qzeros", ".scales", ".g_idx"};
    static const char *const rows[] = {".weight_scale", ".weight_shape"};
    const char *const *parts = s->packing == HF_PACKED_GPTQ4 ? gptq : rows;
    const size_t n = s->packing == HF_PACKED_GPTQ4 ? 3 : s->packing == HF_PACKED_NONE ? 0 : 2;
    *beside = false;
    for (size_t i = 0; i < n; i++) *beside |= before(t->name, parts[i]) > 0;
    if (s->packing == HF_PACKED_GPTQ4) return before(t->name, ".qweight");
    if (s->packing == HF_PACKED_ROWS4) return before(t->name, ".weight_packed");
    return s->packing == HF_PACKED_ROWS8 && t->type == DT_I8 ? before(t->name, ".weight") : 0;
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
    return p->group % BLOCK == 0;
}

/* Whether input i is in group i / g: what files without act order say, too. */
static status check_order(const finder *f, const hf_packed *p) {
    const safetensors *in;
    const safetensor *t = look_up(f, ".g_idx", &in);
    if (!t) return OK;
    if (t->type != DT_I32 || t->n_dims != 1 || t->dim[0] != p->cols)
        return bad_part(f, ".g_idx", "has another type or shape");
    int32_t *g = malloc(t->bytes);
    if (!g) return err_set(f->e, ERR_NO_MEMORY, "no memory to read %.200s", t->name);
    status s = safetensors_read(in, t, 0, g, t->bytes, f->e);
    bool order = true;
    for (uint64_t i = 0; i < p->cols && s == OK; i++) order &= g[i] == (int32_t)(i / p->group);
    free(g);
    if (s != OK || order) return s;
    err_set(f->e, ERR_UNSUPPORTED,
            "%.200s: inputs in another order (desc_act) are not supported", t->name);
    err_field(f->e, "quantization_config.desc_act");
    return err_hint(f->e, "serve a GGUF file of the model");
}

static status find_gptq(finder *f, hf_packed *p) {
    const safetensor *c = p->codes;
    if (c->type != DT_I32 || c->n_dims != 2)
        return bad_part(f, ".qweight", "is no matrix of I32");
    p->rows = c->dim[1];
    p->cols = c->dim[0] * 8;
    p->scales = look_up(f, ".scales", &p->scales_in);
    p->zeros = look_up(f, ".qzeros", &p->zeros_in);
    if (!p->scales || !p->zeros)
        return bad_part(f, p->scales ? ".qzeros" : ".scales", "is missing");
    if (p->rows % 8 || p->scales->n_dims != 2 || !is_real(p->scales) ||
        !good_groups(p, p->scales->dim[0]) || !shape_is(p->scales, p->cols / p->group, p->rows))
        return bad_part(f, ".scales", "has no groups of a multiple of 32 inputs");
    if (p->zeros->type != DT_I32 || !shape_is(p->zeros, p->cols / p->group, p->rows / 8))
        return bad_part(f, ".qzeros", "has another type or shape");
    return p->scheme->act_order ? check_order(f, p) : OK;
}

static status find_rows(finder *f, hf_packed *p) {
    const bool four = p->scheme->packing == HF_PACKED_ROWS4;
    const safetensor *c = p->codes;
    const safetensors *in;
    if (c->type != (four ? DT_I32 : DT_I8) || c->n_dims != 2)
        return bad_part(f, four ? ".weight_packed" : ".weight", "has another type or shape");
    p->rows = c->dim[0];
    p->cols = four ? c->dim[1] * 8 : c->dim[1];
    if (look_up(f, ".weight_zero_point", &in) || look_up(f, ".weight_g_idx", &in))
        return bad_part(f, ".weight",
                        "has zero points or an order of inputs, which is not supported");
    p->scales = look_up(f, ".weight_scale", &p->scales_in);
    if (!p->scales) return bad_part(f, ".weight_scale", "is missing");
    const uint64_t n = p->scales->n_dims == 2 ? p->scales->dim[1] : p->scales->n_dims == 1;
    if (!is_real(p->scales) || p->scales->n_dims == 0 || p->scales->dim[0] != p->rows ||
        !good_groups(p, n))
        return bad_part(f, ".weight_scale", "has no groups of a multiple of 32 inputs");
    return OK;
}

status hf_packed_find(hf_packed *p, const hf_scheme *s, const safetensors *files,
                      uint32_t n_files, const safetensor *codes, size_t base, err *e) {
    finder f = {files, n_files, codes->name, base, e};
    *p = (hf_packed){.scheme = s, .codes = codes};
    for (uint32_t i = 0; i < n_files && !p->codes_in; i++)
        if (safetensors_find(&files[i], codes->name) == codes) p->codes_in = &files[i];
    CHECK(p->codes_in);
    for (uint32_t d = 0; d < codes->n_dims; d++)
        if (codes->dim[d] == 0 || codes->dim[d] > UINT32_MAX)
            return bad_part(&f, codes->name + base, "is empty, or too large");
    return s->packing == HF_PACKED_GPTQ4 ? find_gptq(&f, p) : find_rows(&f, p);
}

/* ---- reading ---- */

/* Columns [first, first + n) of a transposed matrix: codes [cols / 8][SLAB_COLUMNS], scales and zeros
 * [cols / group][SLAB_COLUMNS], [cols / group][SLAB_COLUMNS / 8]. */
struct hf_slab {
    pthread_mutex_t lock;
    const hf_packed *of; /* NULL: nothing is in it */
    uint64_t first, n;
};

static uint64_t scale_bytes(const hf_packed *p) {
    return p->scales->type == DT_F32 ? 4 : 2;
}

uint64_t hf_slab_bytes(const hf_packed *p) {
    if (p->scheme->packing != HF_PACKED_GPTQ4) return 0;
    const uint64_t groups = p->cols / p->group;
    return align_up(sizeof(hf_slab), 16) +
           SLAB_COLUMNS * (p->cols / 8 * 4 + groups * scale_bytes(p)) +
           groups * SLAB_COLUMNS / 2;
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
    return slab_codes(s) + SLAB_COLUMNS * (p->cols / 8 * 4);
}
static char *slab_zeros(hf_slab *s, const hf_packed *p) {
    return slab_scales(s, p) + SLAB_COLUMNS * (p->cols / p->group * scale_bytes(p));
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
    status st = read_columns(p->codes_in, p->codes, p->rows * 4, s->first * 4, s->n * 4,
                             slab_codes(s), SLAB_COLUMNS * 4, e);
    if (st == OK)
        st = read_columns(p->scales_in, p->scales, p->rows * size, s->first * size, s->n * size,
                          slab_scales(s, p), SLAB_COLUMNS * size, e);
    if (st == OK)
        st = read_columns(p->zeros_in, p->zeros, p->rows / 2, s->first / 2, s->n / 2,
                          slab_zeros(s, p), SLAB_COLUMNS / 2, e);
    if (st == OK) s->of = p;
    return st;
}

/* The 16 bits of a scale; *good: they are the same number. */
static uint16_t half_of(dtype type, const char *at, bool *good) {
    uint16_t h;
    uint32_t u;
    float v;
    if (type == DT_F32) {
        memcpy(&v, at, sizeof v);
    } else {
        memcpy(&h, at, sizeof h);
        if (type == DT_F16) return h;
        u = (uint32_t)h << 16;
        memcpy(&v, &u, sizeof v);
    }
    h = half_of_float(v);
    *good &= half_to_float(h) == v;
    return h;
}

static status inexact(const hf_packed *p, err *e) {
    err_set(e, ERR_UNSUPPORTED, "%.200s: a scale that 16 bits do not hold without rounding",
            p->scales->name);
    return err_field(e, "%.90s", p->scales->name);
}

/* 32 codes of 4 bits, four 32-bit words, the first in the lowest bits. */
static void block4(uint16_t d, const uint32_t word[4], unsigned char *out) {
    memcpy(out, &d, 2);
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t low = word[i / 8] >> (4 * (i % 8)) & 15;
        const uint32_t high = word[2 + i / 8] >> (4 * (i % 8)) & 15;
        out[2 + i] = (unsigned char)(low | high << 4);
    }
}

enum { BLOCK4 = 18, BLOCK8 = 34 };

static status unpack_gptq(hf_slab *s, const hf_packed *p, uint64_t row, unsigned char *dst,
                          err *e) {
    const uint64_t c = row - s->first, size = scale_bytes(p);
    bool good = true, middle = true;
    for (uint64_t b = 0; b < p->cols / BLOCK; b++) {
        const uint64_t g = b * BLOCK / p->group;
        uint32_t word[4], zero;
        for (uint64_t i = 0; i < 4; i++)
            memcpy(&word[i], slab_codes(s) + ((b * 4 + i) * SLAB_COLUMNS + c) * 4, 4);
        memcpy(&zero, slab_zeros(s, p) + g * (SLAB_COLUMNS / 2) + c / 8 * 4, 4);
        middle &= (zero >> (4 * (c % 8)) & 15) == p->scheme->zero;
        const char *scale = slab_scales(s, p) + (g * SLAB_COLUMNS + c) * size;
        block4(half_of(p->scales->type, scale, &good), word, dst + b * BLOCK4);
    }
    if (!middle) {
        err_set(e, ERR_UNSUPPORTED, "%.200s: a zero point that is not the middle of the codes",
                p->zeros->name);
        return err_field(e, "%.90s", p->zeros->name);
    }
    return good ? OK : inexact(p, e);
}

static status read_gptq_row(const hf_packed *p, hf_slab *s, uint64_t row, void *dst, err *e) {
    CHECK(s);
    pthread_mutex_lock(&s->lock);
    status st = OK;
    if (s->of != p || row < s->first || row - s->first >= s->n) st = fill_slab(s, p, row, e);
    if (st == OK) st = unpack_gptq(s, p, row, dst, e);
    pthread_mutex_unlock(&s->lock);
    return st;
}

static status read_row(const hf_packed *p, uint64_t row, unsigned char *dst, err *e) {
    const bool four = p->scheme->packing == HF_PACKED_ROWS4;
    const uint64_t code_bytes = four ? p->cols / 2 : p->cols, size = scale_bytes(p);
    const uint64_t n_scales = p->cols / p->group;
    char *codes = malloc(code_bytes + n_scales * size), *scales = codes + code_bytes;
    bool good = true;
    if (!codes) return err_set(e, ERR_NO_MEMORY, "no memory to read %.200s", p->codes->name);
    status s = safetensors_read(p->codes_in, p->codes, row * code_bytes, codes, code_bytes, e);
    if (s == OK)
        s = safetensors_read(p->scales_in, p->scales, row * n_scales * size, scales,
                             n_scales * size, e);
    for (uint64_t b = 0; b < p->cols / BLOCK && s == OK; b++) {
        const uint16_t d =
            half_of(p->scales->type, scales + b * BLOCK / p->group * size, &good);
        if (four) {
            uint32_t word[4];
            memcpy(word, codes + b * 16, sizeof word);
            block4(d, word, dst + b * BLOCK4);
        } else {
            memcpy(dst + b * BLOCK8, &d, 2);
            memcpy(dst + b * BLOCK8 + 2, codes + b * BLOCK, BLOCK);
        }
    }
    free(codes);
    if (s == OK && !good) s = inexact(p, e);
    return s;
}

status hf_packed_read(const hf_packed *p, hf_slab *s, uint64_t row, void *dst, err *e) {
    CHECK(row < p->rows);
    if (p->scheme->packing == HF_PACKED_GPTQ4) return read_gptq_row(p, s, row, dst, e);
    return read_row(p, row, dst, e);
}
