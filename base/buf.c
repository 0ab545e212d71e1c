/* Growable buffers. Owned by the caller; no locks. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Makes space for n + more items of the given size; returns the new array or NULL. */
static void *grown(arena *in, void *p, size_t n, size_t more, size_t *cap, size_t item) {
    if (more <= *cap - n && p) return p;
    size_t need, want, bytes;
    if (__builtin_add_overflow(n, more, &need)) return NULL;
    want = *cap * 2 > need ? *cap * 2 : need;
    if (want < 64 / item) want = 64 / item;
    if (__builtin_mul_overflow(want, item, &bytes)) return NULL;
    void *q = in ? arena_grow(in, p, *cap * item, bytes) : realloc(p, bytes);
    if (q) *cap = want;
    return q;
}

void buf_init(buf *b, arena *in) {
    *b = (buf){.in = in};
}

void buf_clear(buf *b) {
    if (!b->in) free(b->ptr);
    buf_init(b, b->in);
}

bool buf_reserve(buf *b, size_t more) {
    if (b->failed) return false;
    void *p = grown(b->in, b->ptr, b->len, more, &b->cap, 1);
    if (!p) return b->failed = true, false;
    b->ptr = p;
    return true;
}

bool buf_add(buf *b, str s) {
    /* Most have their memory already. */
    if ((b->failed || s.len >= b->cap - b->len) && !buf_reserve(b, s.len + 1)) return false;
    if (s.len) memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += s.len;
    return true;
}

bool buf_addc(buf *b, char c) {
    return buf_add(b, (str){&c, 1});
}

bool buf_addf(buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    /* Where it fits already, it is formatted once. */
    const size_t space = b->failed ? 0 : b->cap - b->len;
    int n = vsnprintf(space ? b->ptr + b->len : NULL, space, fmt, ap);
    va_end(ap);
    bool ok = n >= 0 && buf_reserve(b, (size_t)n + 1);
    if (ok && (size_t)n >= space) vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, again);
    if (ok) b->len += (size_t)n;
    va_end(again);
    return ok;
}

const char *buf_cstr(buf *b) {
    if (!buf_reserve(b, 1)) return "";
    b->ptr[b->len] = '\0';
    return b->ptr;
}

void vec_i32_init(vec_i32 *v, arena *in) {
    *v = (vec_i32){.in = in};
}

void vec_i32_clear(vec_i32 *v) {
    if (!v->in) free(v->v);
    vec_i32_init(v, v->in);
}

bool vec_i32_reserve(vec_i32 *v, size_t more) {
    if (v->failed) return false;
    void *p = grown(v->in, v->v, v->n, more, &v->cap, sizeof *v->v);
    if (!p) return v->failed = true, false;
    v->v = p;
    return true;
}

bool vec_i32_push(vec_i32 *v, int32_t x) {
    if (!vec_i32_reserve(v, 1)) return false;
    v->v[v->n++] = x;
    return true;
}
