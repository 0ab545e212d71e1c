/* Reports on a GGUF file. Stateless. */
#include "api/inspect.h"

#include <math.h>
#include <stdio.h>

#include "base/check.h"
#include "base/utf8.h"
#include "json/out.h"

static const uint64_t ALL = UINT64_MAX;

static void real_json(buf *b, const char *fmt, double v) {
    char t[40];
    snprintf(t, sizeof t, fmt, v);
    /* JSON has no infinity. */
    buf_add(b, isfinite(v) ? str_of(t) : STR("null"));
}

/* C1 controls begin escape sequences, too; the others turn around what stands beside them
 * (Unicode 15, section 23.2, and Unicode Technical Report 36, section 2.9). */
static bool is_obeyed(uint32_t cp) {
    return (cp >= 0x80 && cp <= 0x9f) || cp == 0x61c || cp == 0x200e || cp == 0x200f ||
           (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069);
}

/* Escapes in JSON text what json_esc lets pass. The text is UTF-8. */
static void escape_obeyed(buf *b, str s) {
    size_t from = 0;
    for (size_t i = 0; i < s.len;) {
        uint32_t cp;
        int n = utf8_decode(s.ptr + i, s.len - i, &cp);
        CHECK(n > 0);
        if (is_obeyed(cp)) {
            buf_add(b, (str){s.ptr + from, i - from});
            buf_addf(b, "\\u%04x", cp);
            from = i + (size_t)n;
        }
        i += (size_t)n;
    }
    buf_add(b, (str){s.ptr + from, s.len - from});
}

void inspect_text(buf *b, str s) {
    size_t ascii = 0;
    while (ascii < s.len && (unsigned char)s.ptr[ascii] < 0x80) ascii++;
    if (ascii == s.len) {
        json_str(b, s);
        return;
    }
    buf clean;
    buf_init(&clean, NULL);
    json_str_lossy(&clean, s);
    if (clean.failed)
        b->failed = true;
    else
        escape_obeyed(b, buf_str(&clean));
    buf_clear(&clean);
}

/* The beginning, and how long the whole is. */
static void some_text(buf *b, str s, uint64_t max) {
    bool longer = s.len > max;
    inspect_text(b, longer ? (str){s.ptr, utf8_complete((str){s.ptr, max})} : s);
    if (longer) buf_addf(b, " ... %zu bytes", s.len);
}

static void element(buf *b, const gguf_array *a, uint64_t i, uint64_t text_bytes) {
    switch (a->type) {
    case GGUF_U8: json_u64(b, ((const uint8_t *)a->v)[i]); break;
    case GGUF_I8: json_i64(b, ((const int8_t *)a->v)[i]); break;
    case GGUF_U16: json_u64(b, ((const uint16_t *)a->v)[i]); break;
    case GGUF_I16: json_i64(b, ((const int16_t *)a->v)[i]); break;
    case GGUF_U32: json_u64(b, ((const uint32_t *)a->v)[i]); break;
    case GGUF_I32: json_i64(b, ((const int32_t *)a->v)[i]); break;
    case GGUF_U64: json_u64(b, ((const uint64_t *)a->v)[i]); break;
    case GGUF_I64: json_i64(b, ((const int64_t *)a->v)[i]); break;
    case GGUF_F32: real_json(b, "%.9g", (double)((const float *)a->v)[i]); break;
    case GGUF_F64: real_json(b, "%.17g", ((const double *)a->v)[i]); break;
    case GGUF_BOOL: buf_add(b, ((const uint8_t *)a->v)[i] ? STR("true") : STR("false")); break;
    case GGUF_STRING: some_text(b, ((const str *)a->v)[i], text_bytes); break;
    case GGUF_ARRAY: break; /* never an element */
    }
}

void inspect_value(buf *b, const gguf_kv *kv, uint64_t max, uint64_t text_bytes) {
    switch (kv->type) {
    case GGUF_STRING: some_text(b, kv->s, text_bytes); return;
    case GGUF_BOOL: buf_add(b, kv->u ? STR("true") : STR("false")); return;
    case GGUF_F32: real_json(b, "%.9g", kv->f); return;
    case GGUF_F64: real_json(b, "%.17g", kv->f); return;
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
    for (uint64_t i = 0; i < kv->a.n && i < max; i++) {
        if (i) buf_add(b, max < ALL ? STR(", ") : STR(","));
        element(b, &kv->a, i, text_bytes);
    }
    if (kv->a.n > max) buf_addf(b, ", ... %llu elements", (unsigned long long)kv->a.n);
    buf_addc(b, ']');
}

void inspect_json(buf *b, const gguf *g) {
    buf_add(b, STR("{\"path\":"));
    inspect_text(b, str_of(gguf_path(g)));
    buf_addf(b, ",\"version\":%u,\"file_bytes\":%llu,\"metadata\":{", gguf_version(g),
             (unsigned long long)gguf_file_bytes(g));
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        if (i) buf_addc(b, ',');
        inspect_text(b, kv->key);
        buf_addc(b, ':');
        inspect_value(b, kv, ALL, ALL);
    }
    buf_add(b, STR("},\"tensors\":["));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        buf_add(b, i ? STR(",{\"name\":") : STR("{\"name\":"));
        inspect_text(b, str_of(t->name));
        buf_addf(b, ",\"type\":\"%s\",\"shape\":[", dtype_get(t->type)->name);
        for (uint32_t d = 0; d < t->n_dims; d++)
            buf_addf(b, "%s%llu", d ? "," : "", (unsigned long long)t->ne[d]);
        buf_addf(b, "],\"bytes\":%llu,\"offset\":%llu,\"part\":%u}",
                 (unsigned long long)t->bytes, (unsigned long long)t->offset, t->part);
    }
    buf_add(b, STR("]}"));
}

void inspect_checkpoint_json(buf *b, const checkpoint *c, str metadata) {
    const size_t n = checkpoint_n_tensors(c);
    buf_add(b, STR("{\"path\":"));
    inspect_text(b, str_of(checkpoint_path(c)));
    buf_addf(b, ",\"format\":\"%s\",\"metadata\":", c->format->name);
    buf_add(b, metadata);
    buf_add(b, STR(",\"tensors\":["));
    for (size_t i = 0; i < n; i++) {
        const tensor_info t = checkpoint_tensor(c, i);
        buf_add(b, i ? STR(",{\"name\":") : STR("{\"name\":"));
        inspect_text(b, str_of(t.name));
        buf_addf(b, ",\"type\":\"%s\",\"shape\":[", dtype_name(t.type));
        for (uint32_t d = 0; d < tensor_n_dims(&t); d++)
            buf_addf(b, "%s%llu", d ? "," : "", (unsigned long long)t.ne[d]);
        buf_addf(b, "],\"bytes\":%llu}", (unsigned long long)tensor_bytes(&t));
    }
    buf_add(b, STR("]}"));
}
