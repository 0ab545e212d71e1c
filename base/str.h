/* A borrowed run of bytes, not NUL-terminated. */
#ifndef VRAMD_BASE_STR_H
#define VRAMD_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct str {
    const char *ptr;
    size_t len;
} str;

#define STR(literal) ((str){(literal), sizeof(literal) - 1})
#define STR_FMT      "%.*s"
#define STR_ARG(s)   (int)(s).len, (s).ptr

static inline str str_of(const char *z) {
    return (str){z, strlen(z)};
}
static inline bool str_eq(str a, str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline bool str_eqz(str a, const char *z) {
    return str_eq(a, str_of(z));
}
static inline bool str_starts(str a, str prefix) {
    return a.len >= prefix.len &&
           (prefix.len == 0 || memcmp(a.ptr, prefix.ptr, prefix.len) == 0);
}
/* Index of the first occurrence of needle at or after from; SIZE_MAX when there is none. */
size_t str_find(str hay, str needle, size_t from);

/* "512", "64KiB", "6GiB", "1.5GB", "2G" (binary without the B, as systemd reads it) -> bytes,
 * rounded to the nearest. False when it is not such a word or does not fit 64 bits. */
bool str_parse_bytes(str s, uint64_t *out);
/* Writes bytes as a person reads them: "98,362,432" (grouped) or "93.8 MiB". Returns buf. */
char *bytes_grouped(uint64_t n, char buf[32]);
char *bytes_human(uint64_t n, char buf[32]);

#endif
