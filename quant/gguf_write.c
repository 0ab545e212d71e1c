/* A GGUF file's header. Stateless. */
#include "quant/gguf_write.h"

#include "base/check.h"

static void put(buf *b, const void *p, size_t n) {
    buf_add(b, (str){p, n});
}
static void put_u32(buf *b, uint32_t v) {
    put(b, &v, 4);
}
static void put_u64(buf *b, uint64_t v) {
    put(b, &v, 8);
}
static void put_str(buf *b, str s) {
    put_u64(b, s.len);
    put(b, s.ptr, s.len);
}

static void key(gguf_keys *k, str name, gguf_type t) {
    put_str(&k->b, name);
    put_u32(&k->b, t);
    k->n++;
}

static size_t number_bytes(gguf_type t) {
    switch (t) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL: return 1;
    case GGUF_U16:
    case GGUF_I16: return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32: return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64: return 8;
    default: return 0;
    }
}

void gguf_put_u32(gguf_keys *k, str name, uint32_t v) {
    key(k, name, GGUF_U32);
    put_u32(&k->b, v);
}
void gguf_put_f32(gguf_keys *k, str name, float v) {
    key(k, name, GGUF_F32);
    put(&k->b, &v, 4);
}
void gguf_put_bool(gguf_keys *k, str name, bool v) {
    key(k, name, GGUF_BOOL);
    buf_addc(&k->b, v ? 1 : 0);
}
void gguf_put_str(gguf_keys *k, str name, str v) {
    key(k, name, GGUF_STRING);
    put_str(&k->b, v);
}
void gguf_put_array(gguf_keys *k, str name, gguf_type t, uint64_t n, const void *elems) {
    key(k, name, GGUF_ARRAY);
    put_u32(&k->b, t);
    put_u64(&k->b, n);
    if (t == GGUF_STRING)
        for (uint64_t i = 0; i < n; i++) put_str(&k->b, ((const str *)elems)[i]);
    else
        put(&k->b, elems, (size_t)n * number_bytes(t));
}

void gguf_put(gguf_keys *k, const gguf_kv *kv) {
    const float f = (float)kv->f;
    switch (kv->type) {
    case GGUF_ARRAY: gguf_put_array(k, kv->key, kv->a.type, kv->a.n, kv->a.v); break;
    case GGUF_STRING: gguf_put_str(k, kv->key, kv->s); break;
    case GGUF_F32: gguf_put_f32(k, kv->key, f); break;
    default: /* integers and F64: the low bytes of 64 bits */
        key(k, kv->key, kv->type);
        put(&k->b, &kv->u, number_bytes(kv->type));
    }
}

void gguf_put_header(buf *b, const gguf_keys *k, const gguf_entry *v, uint64_t n,
                     uint64_t alignment) {
    enum { VERSION = 3 };
    buf_add(b, STR("GGUF"));
    put_u32(b, VERSION);
    put_u64(b, n);
    put_u64(b, k->n);
    put(b, k->b.ptr, k->b.len);
    if (k->b.failed) b->failed = true;
    for (uint64_t i = 0; i < n; i++) {
        CHECK(v[i].offset % alignment == 0);
        put_str(b, str_of(v[i].name));
        put_u32(b, v[i].n_dims);
        for (uint32_t d = 0; d < v[i].n_dims; d++) put_u64(b, v[i].ne[d]);
        put_u32(b, v[i].type);
        put_u64(b, v[i].offset);
    }
    while (!b->failed && b->len % alignment) buf_addc(b, 0);
}
