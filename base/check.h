/* Broken invariants: say where, and abort, in release builds too. */
#ifndef VRAMD_BASE_CHECK_H
#define VRAMD_BASE_CHECK_H

#include <stdbool.h>
#include <stdint.h>

_Noreturn void check_failed(const char *file, int line, const char *what);

#define CHECK(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))

/* Sizes that come from outside: false when the result does not fit 64 bits. */
static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

/* a must be a power of two. */
static inline uint64_t align_up(uint64_t n, uint64_t a) {
    return (n + a - 1) & ~(a - 1);
}
static inline uint64_t ceil_div(uint64_t n, uint64_t d) {
    return n / d + (n % d != 0);
}

#endif
