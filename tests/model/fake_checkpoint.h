/* A checkpoint in memory: tensors and facts as a test lists them. It keeps pointers to what it
 * is given, and has a rule of its own: one tensor can be made of two stored ones (rows of the
 * first, then of the second), as formats with several parts to a weight do.
 *
 *     fake_checkpoint f;
 *     fake_init(&f);
 *     fake_u32(&f, "llama.block_count", 1);
 *     fake_tensor(&f, "output_norm.weight", DT_F32, 64, 1, data);
 *     model_open(&m, &f.base, &e);
 */
#ifndef VRAMD_TESTS_MODEL_FAKE_CHECKPOINT_H
#define VRAMD_TESTS_MODEL_FAKE_CHECKPOINT_H

#include <string.h>

#include "base/check.h"
#include "model/checkpoint.h"

#define FAKE_UNUSED __attribute__((unused))

enum { FAKE_U32 = FACT_BOOL + 1, FAKE_ONE = 16 }; /* FAKE_ONE | type: no array */

typedef struct fake_fact {
    const char *key;
    int type; /* FAKE_ONE | FAKE_U32 or fact_type, or the fact_type of an array */
    uint32_t u;
    float f;
    str s;
    fact_array a;
} fake_fact;

typedef struct fake_stored {
    tensor_info info;
    const unsigned char *data, *rest; /* rest: from row `split` on; or NULL */
    uint64_t split;
} fake_stored;

typedef struct fake_checkpoint {
    checkpoint base;
    fake_stored tensor[32];
    fake_fact fact[48];
    size_t n_tensors, n_facts;
    bool closed;
} fake_checkpoint;

static const fake_checkpoint *fake_of(const checkpoint *c) {
    return (const fake_checkpoint *)(const void *)c;
}

static const char *fake_path(const checkpoint *c) {
    (void)c;
    return "in memory";
}

static uint64_t fake_header_bytes(const checkpoint *c) {
    return sizeof *fake_of(c);
}

static size_t fake_n_tensors(const checkpoint *c) {
    return fake_of(c)->n_tensors;
}

static void fake_tensor_at(const checkpoint *c, size_t i, tensor_info *out) {
    *out = fake_of(c)->tensor[i].info;
}

static int32_t fake_find(const checkpoint *c, const char *name) {
    for (size_t i = 0; i < fake_of(c)->n_tensors; i++)
        if (strcmp(fake_of(c)->tensor[i].info.name, name) == 0) return (int32_t)i;
    return -1;
}

static status fake_read_part(const checkpoint *c, size_t i, uint64_t row, uint64_t col,
                             uint64_t n, void *dst, err *e) {
    const fake_stored *t = &fake_of(c)->tensor[i];
    uint64_t whole, before, bytes;
    (void)e;
    CHECK(dtype_bytes(t->info.type, 1, t->info.ne[0], &whole));
    CHECK(dtype_bytes(t->info.type, 1, col, &before) &&
          dtype_bytes(t->info.type, 1, n, &bytes));
    const unsigned char *from =
        row < t->split ? t->data + row * whole : t->rest + (row - t->split) * whole;
    memcpy(dst, from + before, bytes);
    return OK;
}

static status fake_read_rows(const checkpoint *c, size_t i, uint64_t row, uint64_t n, void *dst,
                             err *e) {
    const tensor_info *t = &fake_of(c)->tensor[i].info;
    uint64_t bytes;
    CHECK(dtype_bytes(t->type, 1, t->ne[0], &bytes));
    for (uint64_t k = 0; k < n; k++)
        fake_read_part(c, i, row + k, 0, t->ne[0], (unsigned char *)dst + k * bytes, e);
    return OK;
}

static const fake_fact *fake_fact_of(const checkpoint *c, const char *key) {
    for (size_t i = 0; i < fake_of(c)->n_facts; i++)
        if (strcmp(fake_of(c)->fact[i].key, key) == 0) return &fake_of(c)->fact[i];
    return NULL;
}

static bool fake_has(const checkpoint *c, const char *key) {
    return fake_fact_of(c, key) != NULL;
}

static bool fake_length(const checkpoint *c, const char *key, uint64_t *n) {
    const fake_fact *f = fake_fact_of(c, key);
    if (!f || f->type & FAKE_ONE) return false;
    *n = f->a.n;
    return true;
}

/* The fact of that type; NULL with *s OK where it is absent, ERR_FORMAT where it is another. */
static const fake_fact *fake_typed(const checkpoint *c, const char *key, int type, status *s,
                                   err *e) {
    const fake_fact *f = fake_fact_of(c, key);
    *s = OK;
    if (!f || f->type == type) return f;
    err_set(e, ERR_FORMAT, "in memory: %s has another type", key);
    *s = err_field(e, "%s", key);
    return NULL;
}

static status fake_get_u32(const checkpoint *c, const char *key, uint32_t *out, err *e) {
    status s;
    const fake_fact *f = fake_typed(c, key, FAKE_ONE | FAKE_U32, &s, e);
    if (f) *out = f->u;
    return s;
}

static status fake_get_f32(const checkpoint *c, const char *key, float *out, err *e) {
    status s;
    const fake_fact *f = fake_typed(c, key, FAKE_ONE | FACT_F32, &s, e);
    if (f) *out = f->f;
    return s;
}

static status fake_get_bool(const checkpoint *c, const char *key, bool *out, err *e) {
    status s;
    const fake_fact *f = fake_typed(c, key, FAKE_ONE | FACT_BOOL, &s, e);
    if (f) *out = f->u != 0;
    return s;
}

static status fake_get_str(const checkpoint *c, const char *key, str *out, err *e) {
    status s;
    const fake_fact *f = fake_typed(c, key, FAKE_ONE | FACT_STR, &s, e);
    if (f) *out = f->s;
    return s;
}

static status fake_get_array(const checkpoint *c, const char *key, fact_type type,
                             fact_array *out, err *e) {
    status s;
    const fake_fact *f = fake_typed(c, key, (int)type, &s, e);
    if (f) *out = f->a;
    return s;
}

static void fake_close(checkpoint *c) {
    ((fake_checkpoint *)(void *)c)->closed = true;
}

static const checkpoint_format fake_format = {.name = "in memory",
                                              .path = fake_path,
                                              .header_bytes = fake_header_bytes,
                                              .n_tensors = fake_n_tensors,
                                              .tensor = fake_tensor_at,
                                              .find = fake_find,
                                              .read_rows = fake_read_rows,
                                              .read_part = fake_read_part,
                                              .has = fake_has,
                                              .length = fake_length,
                                              .get_u32 = fake_get_u32,
                                              .get_f32 = fake_get_f32,
                                              .get_bool = fake_get_bool,
                                              .get_str = fake_get_str,
                                              .get_array = fake_get_array,
                                              .close = fake_close};

static FAKE_UNUSED void fake_init(fake_checkpoint *f) {
    memset(f, 0, sizeof *f);
    f->base.format = &fake_format;
}

static FAKE_UNUSED void fake_add(fake_checkpoint *f, fake_fact fact) {
    CHECK(f->n_facts < sizeof f->fact / sizeof *f->fact);
    f->fact[f->n_facts++] = fact;
}
static FAKE_UNUSED void fake_u32(fake_checkpoint *f, const char *key, uint32_t v) {
    fake_add(f, (fake_fact){.key = key, .type = FAKE_ONE | FAKE_U32, .u = v});
}
static FAKE_UNUSED void fake_str(fake_checkpoint *f, const char *key, const char *v) {
    fake_add(f, (fake_fact){.key = key, .type = FAKE_ONE | FACT_STR, .s = str_of(v)});
}
static FAKE_UNUSED void fake_array(fake_checkpoint *f, const char *key, fact_type type,
                                   uint64_t n, const void *v) {
    fake_add(f, (fake_fact){.key = key, .type = (int)type, .a = {n, v}});
}

/* rows x cols; data as stored. */
static FAKE_UNUSED void fake_tensor(fake_checkpoint *f, const char *name, dtype type,
                                    uint64_t cols, uint64_t rows, const void *data) {
    CHECK(f->n_tensors < sizeof f->tensor / sizeof *f->tensor);
    f->tensor[f->n_tensors++] = (fake_stored){
        .info = {name, type, {cols, rows, 1, 1}}, .data = data, .split = UINT64_MAX};
}
/* The same, made of two stored tensors: split rows of the first, the others of the second. */
static FAKE_UNUSED void fake_joined(fake_checkpoint *f, const char *name, dtype type,
                                    uint64_t cols, uint64_t rows, const void *first,
                                    uint64_t split, const void *second) {
    fake_tensor(f, name, type, cols, rows, first);
    f->tensor[f->n_tensors - 1].rest = second;
    f->tensor[f->n_tensors - 1].split = split;
}

#endif
