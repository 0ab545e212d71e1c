/* What a checkpoint_format does, for a folder of safetensors. Immutable; any thread. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/half.h"
#include "model/hf/hf_folder_in.h"
#include "model/hf/hf_json.h"
#include "memory/term.h"

static const hf_folder *of(const checkpoint *c) {
    return (const hf_folder *)(const void *)c;
}

static const char *path(const checkpoint *c) {
    return of(c)->path;
}

static uint64_t header_bytes(const checkpoint *c) {
    return sizeof(hf_folder) + of(c)->mem.total;
}

static size_t n_tensors(const checkpoint *c) {
    return of(c)->n_tensors;
}

static void tensor(const checkpoint *c, size_t i, tensor_info *out) {
    *out = of(c)->tensor[i].info;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const hf_tensor *)a)->info.name, ((const hf_tensor *)b)->info.name);
}

static int32_t find(const checkpoint *c, const char *name) {
    const hf_folder *f = of(c);
    const hf_tensor key = {.info.name = name}, *t;
    t = f->n_tensors ? bsearch(&key, f->tensor, f->n_tensors, sizeof key, by_name) : NULL;
    return t ? (int32_t)(t - f->tensor) : -1;
}

/* ---- reading ---- */

static status read_permuted_rows(const hf_tensor *t, uint64_t row, uint64_t n, uint64_t before,
                                 uint64_t bytes, void *dst, err *e) {
    uint64_t row_bytes;
    status s = OK;
    CHECK(dtype_bytes(t->info.type, 1, t->info.ne[0], &row_bytes));
    for (uint64_t i = 0; i < n && s == OK; i++)
        s = safetensors_read(t->file, t->at,
                             hf_stored_place(t->head_dim, row + i) * row_bytes + before,
                             (char *)dst + i * bytes, bytes, e);
    return s;
}

/* Columns [col, col + n) of a vector that is not kept as stored: read whole. */
static status read_vector(const hf_tensor *t, uint64_t col, uint64_t n, void *dst, err *e) {
    const uint64_t size = t->at->bytes / t->info.ne[0];
    char *raw = malloc(t->at->bytes ? t->at->bytes : 1);
    if (!raw) return mem_exhausted(e, MEM_LOADING, "reading %s", t->info.name);
    status s = safetensors_read(t->file, t->at, 0, raw, t->at->bytes, e);
    for (uint64_t i = 0; i < n && s == OK; i++) {
        if (t->reading == HF_PERMUTED) {
            memcpy((char *)dst + i * size, raw + hf_stored_place(t->head_dim, col + i) * size,
                   size);
            continue;
        }
        uint16_t half;
        float v;
        if (size == sizeof v)
            memcpy(&v, raw + (col + i) * size, sizeof v);
        else {
            memcpy(&half, raw + (col + i) * size, sizeof half);
            v = t->at->type == DT_F16 ? half_to_float(half) : bf16_to_float(half);
        }
        v = t->reading == HF_MINUS_EXP ? (float)-exp((double)v) : v + 1;
        memcpy((char *)dst + i * sizeof v, &v, sizeof v);
    }
    free(raw);
    return s;
}

static status read_packed(const hf_folder *f, const hf_tensor *t, uint64_t row, uint64_t n,
                          void *dst, err *e) {
    return hf_packed_read(t->packed, f->slab, t->reading == HF_PERMUTED ? t->head_dim : 0, row,
                          n, dst, e);
}

/* Whole blocks of a row, of a matrix whose rows are put together. */
static status read_made_part(const hf_folder *f, const hf_tensor *t, uint64_t row, uint64_t col,
                             uint64_t n, void *dst, err *e) {
    uint64_t bytes, at, part;
    CHECK(dtype_bytes(t->info.type, 1, t->info.ne[0], &bytes));
    CHECK(dtype_bytes(t->info.type, 1, col, &at) && dtype_bytes(t->info.type, 1, n, &part));
    char *whole = malloc(bytes);
    if (!whole) return mem_exhausted(e, MEM_LOADING, "reading %s", t->info.name);
    status s = t->packed ? read_packed(f, t, row, 1, whole, e)
                         : hf_gpt_oss_read(t->oss, &t->info, row, 1, whole, e);
    if (s == OK) memcpy(dst, whole + at, part);
    free(whole);
    return s;
}

/* bytes of each of n rows, from the byte `before` of it on. */
static status read_bytes(const checkpoint *c, size_t i, uint64_t row, uint64_t n, uint64_t col,
                         uint64_t cols, void *dst, err *e) {
    const hf_tensor *t = &of(c)->tensor[i];
    const uint64_t size = dtype_get(t->info.type)->block_bytes; /* no type here has blocks */
    if (t->reading == HF_MADE) {
        memcpy(dst, (const char *)t->made + col * size, cols * size);
        return OK;
    }
    if (t->expert && cols == t->info.ne[0])
        return hf_expert_read(t->expert, &t->info, row, n, cols * size, dst, e);
    const bool vector = t->info.ne[1] == 1;
    if (vector && t->reading != HF_AS_STORED) return read_vector(t, col, cols, dst, e);
    if (t->reading == HF_PERMUTED)
        return read_permuted_rows(t, row, n, col * size, cols * size, dst, e);
    if (cols == t->info.ne[0])
        return safetensors_read(t->file, t->at, row * cols * size, dst, n * cols * size, e);
    return safetensors_read(t->file, t->at, (row * t->info.ne[0] + col) * size, dst,
                            cols * size, e);
}

static status read_rows(const checkpoint *c, size_t i, uint64_t row, uint64_t n, void *dst,
                        err *e) {
    if (of(c)->tensor[i].packed) return read_packed(of(c), &of(c)->tensor[i], row, n, dst, e);
    const hf_tensor *t = &of(c)->tensor[i];
    if (t->oss) return hf_gpt_oss_read(t->oss, &t->info, row, n, dst, e);
    return n ? read_bytes(c, i, row, n, 0, t->info.ne[0], dst, e) : OK;
}

static status read_part(const checkpoint *c, size_t i, uint64_t row, uint64_t col, uint64_t n,
                        void *dst, err *e) {
    if (of(c)->tensor[i].packed || of(c)->tensor[i].oss)
        return read_made_part(of(c), &of(c)->tensor[i], row, col, n, dst, e);
    return read_bytes(c, i, row, 1, col, n, dst, e);
}

static bool place(const checkpoint *c, size_t i, int *fd, uint64_t *at) {
    const hf_tensor *t = &of(c)->tensor[i];
    if (t->reading != HF_AS_STORED || !t->at) return false;
    *fd = t->file->fd;
    *at = t->at->offset;
    return true;
}

/* ---- facts ---- */

static bool has(const checkpoint *c, const char *key) {
    return facts_find(&of(c)->facts, key) != NULL;
}

static bool length(const checkpoint *c, const char *key, uint64_t *n) {
    return facts_length(&of(c)->facts, key, n);
}

static status get_u32(const checkpoint *c, const char *key, uint32_t *out, err *e) {
    return facts_get_u32(&of(c)->facts, key, out, e);
}

static status get_f32(const checkpoint *c, const char *key, float *out, err *e) {
    return facts_get_f32(&of(c)->facts, key, out, e);
}

static status get_bool(const checkpoint *c, const char *key, bool *out, err *e) {
    return facts_get_bool(&of(c)->facts, key, out, e);
}

static status get_str(const checkpoint *c, const char *key, str *out, err *e) {
    return facts_get_str(&of(c)->facts, key, out, e);
}

static status get_array(const checkpoint *c, const char *key, fact_type type, fact_array *out,
                        err *e) {
    return facts_get_array(&of(c)->facts, key, type, out, e);
}

static status config(const checkpoint *c, model_config *out, err *e) {
    (void)e;
    *out = of(c)->config;
    return OK;
}

static status unchanged(const checkpoint *c, err *e) {
    status s = OK;
    for (uint32_t i = 0; i < of(c)->n_files && s == OK; i++)
        s = safetensors_unchanged(&of(c)->file[i], e);
    return s;
}

static void close_folder(checkpoint *c) {
    hf_folder *f = (hf_folder *)(void *)c;
    for (uint32_t i = 0; i < f->n_files; i++) safetensors_close(&f->file[i]);
    hf_slab_clear(f->slab);
    arena_clear(&f->mem);
    free(f);
}

const facts *hf_folder_facts_of(const checkpoint *c) {
    return c->format == &hf_folder_format ? &of(c)->facts : NULL;
}

bool hf_folder_has_input_scales(const checkpoint *c) {
    return c->format == &hf_folder_format && of(c)->scheme.input_scales;
}

status hf_folder_json(const json_t **out, const checkpoint *c, const char *name, arena *mem,
                      err *e) {
    const int dir = open(of(c)->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *out = NULL;
    if (dir < 0) return err_set(e, ERR_IO, "%.250s: %s", of(c)->dir, strerror(errno));
    const status s = hf_read_json(out, dir, name, 8 << 20, mem, e);
    close(dir);
    return s;
}

const checkpoint_format hf_folder_format = {
    .name = "safetensors",
    .permutes_qk = true,
    .path = path,
    .header_bytes = header_bytes,
    .n_tensors = n_tensors,
    .tensor = tensor,
    .find = find,
    .read_rows = read_rows,
    .read_part = read_part,
    .place = place,
    .has = has,
    .length = length,
    .get_u32 = get_u32,
    .get_f32 = get_f32,
    .get_bool = get_bool,
    .get_str = get_str,
    .get_array = get_array,
    .config = config,
    .unchanged = unchanged,
    .close = close_folder,
};
