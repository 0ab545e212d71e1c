/* The calls of a checkpoint's format. Owns nothing; any thread. */
#include "model/checkpoint.h"

#include "base/check.h"

uint32_t tensor_n_dims(const tensor_info *t) {
    uint32_t n = 4;
    while (n > 1 && t->ne[n - 1] == 1) n--;
    return n;
}

uint64_t tensor_bytes(const tensor_info *t) {
    uint64_t bytes = 0;
    return dtype_bytes(t->type, t->ne[1] * t->ne[2] * t->ne[3], t->ne[0], &bytes) ? bytes : 0;
}

void checkpoint_close(checkpoint *c) {
    if (c) c->format->close(c);
}

const char *checkpoint_path(const checkpoint *c) {
    return c->format->path(c);
}

uint64_t checkpoint_header_bytes(const checkpoint *c) {
    return c->format->header_bytes(c);
}

size_t checkpoint_n_tensors(const checkpoint *c) {
    return c->format->n_tensors(c);
}

tensor_info checkpoint_tensor(const checkpoint *c, size_t i) {
    tensor_info t;
    CHECK(i < checkpoint_n_tensors(c));
    c->format->tensor(c, i, &t);
    return t;
}

int32_t checkpoint_find(const checkpoint *c, const char *name, tensor_info *out) {
    int32_t i = c->format->find(c, name);
    if (i >= 0 && out) *out = checkpoint_tensor(c, (size_t)i);
    return i;
}

status checkpoint_unchanged(const checkpoint *c, err *e) {
    return c->format->unchanged ? c->format->unchanged(c, e) : OK;
}

status checkpoint_read_rows(const checkpoint *c, size_t i, uint64_t row, uint64_t n, void *dst,
                            err *e) {
    tensor_info t = checkpoint_tensor(c, i);
    const uint64_t rows = t.ne[1] * t.ne[2] * t.ne[3];
    CHECK(row <= rows && n <= rows - row);
    return c->format->read_rows(c, i, row, n, dst, e);
}

status checkpoint_read_part(const checkpoint *c, size_t i, uint64_t row, uint64_t col,
                            uint64_t n, void *dst, err *e) {
    const tensor_info t = checkpoint_tensor(c, i);
    const uint32_t block = dtype_block_of(t.type).elems;
    CHECK(row < t.ne[1] * t.ne[2] * t.ne[3] && col <= t.ne[0] && n <= t.ne[0] - col);
    CHECK(col % block == 0 && n % block == 0);
    return c->format->read_part(c, i, row, col, n, dst, e);
}

bool checkpoint_has(const checkpoint *c, const char *key) {
    return c->format->has(c, key);
}

bool checkpoint_length(const checkpoint *c, const char *key, uint64_t *n) {
    return c->format->length(c, key, n);
}

status checkpoint_get_u32(const checkpoint *c, const char *key, uint32_t *out, err *e) {
    return c->format->get_u32(c, key, out, e);
}

status checkpoint_get_f32(const checkpoint *c, const char *key, float *out, err *e) {
    return c->format->get_f32(c, key, out, e);
}

status checkpoint_get_bool(const checkpoint *c, const char *key, bool *out, err *e) {
    return c->format->get_bool(c, key, out, e);
}

status checkpoint_get_str(const checkpoint *c, const char *key, str *out, err *e) {
    return c->format->get_str(c, key, out, e);
}

status checkpoint_get_array(const checkpoint *c, const char *key, fact_type type,
                            fact_array *out, err *e) {
    return c->format->get_array(c, key, type, out, e);
}
