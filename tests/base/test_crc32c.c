/* CRC-32C against the vectors of RFC 3720, appendix B.4, and a bit at a time. */
#include "base/crc32c.h"

#include <string.h>

#include "tests/check_main.h"

static uint32_t slow(const unsigned char *p, size_t n) {
    uint32_t crc = UINT32_MAX;
    for (; n > 0; n--, p++) {
        crc ^= *p;
        for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
    }
    return ~crc;
}

START_TEST(the_vectors_of_the_standard_hold) {
    unsigned char b[32] = {0};
    ck_assert_uint_eq(crc32c(b, 32), 0x8a9136aaU);
    memset(b, 0xff, sizeof b);
    ck_assert_uint_eq(crc32c(b, 32), 0x62a8ab43U);
    for (int i = 0; i < 32; i++) b[i] = (unsigned char)i;
    ck_assert_uint_eq(crc32c(b, 32), 0x46dd794eU);
    ck_assert_uint_eq(crc32c("123456789", 9), 0xe3069283U);
}
END_TEST

START_TEST(thirds_are_those_of_three_runs_of_bytes) {
    unsigned char b[1000];
    uint32_t t[3];
    for (size_t i = 0; i < sizeof b; i++) b[i] = (unsigned char)(i * i * 31 + i);
    for (size_t n = 0; n <= sizeof b; n += n < 60 ? 1 : 47) {
        const size_t m = n / 24 * 8;
        crc32c_thirds(b, n, t);
        ck_assert_uint_eq(t[0], slow(b, m));
        ck_assert_uint_eq(t[1], slow(b + m, m));
        ck_assert_uint_eq(t[2], slow(b + 2 * m, n - 2 * m));
    }
}
END_TEST

CHECK_MAIN("crc32c", the_vectors_of_the_standard_hold, thirds_are_those_of_three_runs_of_bytes)
