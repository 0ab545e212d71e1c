/* Growable runs of bytes and of ints, on the heap or in an arena. */
#ifndef VRAMD_BASE_BUF_H
#define VRAMD_BASE_BUF_H

#include <stdbool.h>

#include "base/arena.h"

/* Bytes. Once an append fails because memory ran out, failed stays set and later appends do
 * nothing: check it once, at the end. With an arena, buf_clear gives nothing back. */
typedef struct buf {
    char *ptr;
    size_t len, cap;
    arena *in; /* NULL: the heap */
    bool failed;
} buf;

void buf_init(buf *, arena *in);
void buf_clear(buf *);
bool buf_reserve(buf *, size_t more);
bool buf_add(buf *, str);
bool buf_addc(buf *, char);
bool buf_addf(buf *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *buf_cstr(buf *); /* NUL-terminated; "" when failed */
static inline str buf_str(const buf *b) {
    return (str){b->ptr, b->len};
}

/* Token ids and the like. Same rules. */
typedef struct vec_i32 {
    int32_t *v;
    size_t n, cap;
    arena *in;
    bool failed;
} vec_i32;

void vec_i32_init(vec_i32 *, arena *in);
void vec_i32_clear(vec_i32 *);
bool vec_i32_reserve(vec_i32 *, size_t more);
bool vec_i32_push(vec_i32 *, int32_t);

#endif
