/* Reports on a GGUF file. Stateless. */
#include "api/inspect.h"

#include <math.h>

#include "api/json_out.h"

static void real_json(buf *b, double v) {
    if (isfinite(v))
        buf_addf(b, "%.9g", v);
    else
        buf_add(b, STR("null")); /* JSON has no infinity */
}

static void element(buf *b, const gguf_array *a, uint64_t i) {
    switch (a->type) {
    case GGUF_U8: json_u64(b, ((const uint8_t *)a->v)[i]); break;
    case GGUF_I8: json_i64(b, ((const int8_t *)a->v)[i]); break;
    case GGUF_U16: json_u64(b, ((const uint16_t *)a->v)[i]); break;
    case GGUF_I16: json_i64(b, ((const int16_t *)a->v)[i]); break;
    case GGUF_U32: json_u64(b, ((const uint32_t *)a->v)[i]); break;
    case GGUF_I32: json_i64(b, ((const int32_t *)a->v)[i]); break;
    case GGUF_U64: json_u64(b, ((const uint64_t *)a->v)[i]); break;
    case GGUF_I64: json_i64(b, ((const int64_t *)a->v)[i]); break;
    case GGUF_F32: real_json(b, (double)((const float *)a->v)[i]); break;
    case GGUF_F64: real_json(b, ((const double *)a->v)[i]); break;
    case GGUF_BOOL: buf_add(b, ((const uint8_t *)a->v)[i] ? STR("true") : STR("false")); break;
    case GGUF_STRING: json_str_lossy(b, ((const str *)a->v)[i]); break;
    case GGUF_ARRAY: break; /* never an element */
    }
}

void inspect_value(buf *b, const gguf_kv *kv, uint64_t max) {
    switch (kv->type) {
    case GGUF_STRING: json_str_lossy(b, kv->s); return;
    case GGUF_BOOL: buf_add(b, kv->u ? STR("true") : STR("false")); return;
    case GGUF_F32:
    case GGUF_F64: real_json(b, kv->f); return;
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64: json_u64(b, kv->u); return;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64: json_i64(b, kv->i); return;
    case GGUF_ARRAY: break;
    }
    buf_addc(b, '[');
    for (uint64_t i = 0; i < kv->a.n && (!max || i < max); i++) {
        if (i) buf_add(b, max ? STR(", ") : STR(","));
        element(b, &kv->a, i);
    }
    if (max && kv->a.n > max) buf_addf(b, ", ... %llu elements", (unsigned long long)kv->a.n);
    buf_addc(b, ']');
}

void inspect_json(buf *b, const gguf *g) {
    buf_add(b, STR("{\"path\":"));
    json_str_lossy(b, str_of(gguf_path(g)));
    buf_addf(b, ",\"version\":%u,\"file_bytes\":%llu,\"metadata\":{", gguf_version(g),
             (unsigned long long)gguf_file_bytes(g));
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        if (i) buf_addc(b, ',');
        json_str_lossy(b, kv->key);
        buf_addc(b, ':');
        inspect_value(b, kv, 0);
    }
    buf_add(b, STR("},\"tensors\":["));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        buf_add(b, i ? STR(",{\"name\":") : STR("{\"name\":"));
        json_str_lossy(b, str_of(t->name));
        buf_addf(b, ",\"type\":\"%s\",\"shape\":[", dtype_get(t->type)->name);
        for (uint32_t d = 0; d < t->n_dims; d++)
            buf_addf(b, "%s%llu", d ? "," : "", (unsigned long long)t->ne[d]);
        buf_addf(b, "],\"bytes\":%llu,\"offset\":%llu,\"part\":%u}",
                 (unsigned long long)t->bytes, (unsigned long long)t->offset, t->part);
    }
    buf_add(b, STR("]}"));
}
