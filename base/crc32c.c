/* CRC-32C by instruction, or by bits: the tier of prefixes on disk is fast only with the first. */
#include "base/crc32c.h"

#include <string.h>

static uint32_t by_bits(uint32_t crc, const unsigned char *p, size_t n) {
    for (; n > 0; n--, p++) {
        crc ^= *p;
        for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
    }
    return crc;
}

#if defined(__x86_64__)
static uint64_t word_at(const unsigned char *p) {
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

__attribute__((target("sse4.2"))) static uint32_t by_words(uint64_t crc, const unsigned char *p,
                                                           size_t n) {
    for (; n >= 8; n -= 8, p += 8) crc = __builtin_ia32_crc32di(crc, word_at(p));
    for (; n > 0; n--, p++) crc = __builtin_ia32_crc32qi((uint32_t)crc, *p);
    return (uint32_t)crc;
}

/* The instruction takes 3 cycles and one starts each cycle: three chains keep it busy. */
__attribute__((target("sse4.2"))) static void thirds_by_words(const unsigned char *p, size_t n,
                                                              uint32_t out[3]) {
    const size_t m = n / 24;
    const unsigned char *q = p + 8 * m, *r = q + 8 * m;
    uint64_t a = UINT32_MAX, b = UINT32_MAX, c = UINT32_MAX;
    for (size_t i = 0; i < m; i++) {
        a = __builtin_ia32_crc32di(a, word_at(p + 8 * i));
        b = __builtin_ia32_crc32di(b, word_at(q + 8 * i));
        c = __builtin_ia32_crc32di(c, word_at(r + 8 * i));
    }
    out[0] = ~(uint32_t)a;
    out[1] = ~(uint32_t)b;
    out[2] = ~by_words(c, r + 8 * m, n - 24 * m);
}

static int has_instruction(void) {
    return __builtin_cpu_supports("sse4.2");
}
#else
static uint32_t by_words(uint64_t crc, const unsigned char *p, size_t n) {
    return by_bits((uint32_t)crc, p, n);
}
static void thirds_by_words(const unsigned char *p, size_t n, uint32_t out[3]) {
    (void)p, (void)n, (void)out;
}
static int has_instruction(void) {
    return 0;
}
#endif

uint32_t crc32c(const void *p, size_t n) {
    return ~(has_instruction() ? by_words(UINT32_MAX, p, n) : by_bits(UINT32_MAX, p, n));
}

void crc32c_thirds(const void *p, size_t n, uint32_t out[3]) {
    const size_t m = n / 24 * 8;
    if (has_instruction()) {
        thirds_by_words(p, n, out);
        return;
    }
    for (int i = 0; i < 3; i++) {
        const unsigned char *at = (const unsigned char *)p + (size_t)i * m;
        out[i] = ~by_bits(UINT32_MAX, at, i < 2 ? m : n - 2 * m);
    }
}
