/* binary16 and bfloat16: every half, and floats against arithmetic in double. */
#include "tests/check_main.h"

#include <math.h>
#include <stdbool.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "base/half.h"
#include "base/hash.h"

/* The nearest half by search over all of them, ties to the even one: slow and obvious. */
static uint16_t slow_half(float f) {
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    double a = fabs((double)f);
    if (a >= 65520) return sign | 0x7c00;
    uint16_t low = 0, high = 0x7bff; /* finite halves grow with their bits */
    while (low < high) {
        uint16_t mid = (uint16_t)((low + high + 1) / 2);
        if ((double)half_to_float(mid) <= a)
            low = mid;
        else
            high = (uint16_t)(mid - 1);
    }
    if (low == 0x7bff) return sign | low;
    double below = a - (double)half_to_float(low);
    double above = (double)half_to_float((uint16_t)(low + 1)) - a;
    if (above < below || (above == below && (low & 1))) low++;
    return sign | low;
}

START_TEST(every_half_has_the_value_of_its_bits) {
    for (uint32_t h = 0; h < 65536; h++) {
        int e = h >> 10 & 31, m = h & 1023;
        double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        float f = half_to_float((uint16_t)h);
        SWEEP((signbit(f) != 0) == (h >> 15));
        if (e == 31 && m)
            SWEEP(isnan(f));
        else if (e == 31)
            SWEEP(isinf(f));
        else
            SWEEP(fabs((double)f) == v);
    }
}
END_TEST

START_TEST(every_half_survives_a_round_trip) {
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t want = (uint16_t)h;
        if ((h & 0x7c00) == 0x7c00 && (h & 0x3ff)) want |= 0x200; /* NaNs come back quiet */
        SWEEP(half_of_float(half_to_float((uint16_t)h)) == (want));
    }
}
END_TEST

START_TEST(floats_round_to_the_nearest_half_and_ties_to_even) {
    for (uint32_t i = 0; i < 2000000; i++) {
        uint32_t u = (uint32_t)hash_mix(i);
        /* Three of four where halves have values; else any float. */
        if (i & 3)
            u = (u & 0x80000000u) | (((u >> 23 & 255) % 34 + 101) << 23) | (u & 0x7fffff);
        if ((u & 0x7fffffff) > 0x7f800000u) continue;
        float f = float_of_bits(u);
        if (half_of_float(f) != slow_half(f)) ck_abort_msg("%a", (double)f);
    }
}
END_TEST

START_TEST(the_middles_between_halves_go_to_even_and_their_neighbours_do_not) {
    for (uint16_t h = 0; h < 0x7bff; h++) {
        float a = half_to_float(h), b = half_to_float((uint16_t)(h + 1)), mid = (a + b) / 2;
        SWEEP(half_of_float(mid) == (h + (h & 1)));
        SWEEP(half_of_float(nextafterf(mid, 0)) == h);
        SWEEP(half_of_float(nextafterf(mid, 1e9f)) == h + 1);
        SWEEP(half_of_float(-mid) == (0x8000 | (h + (h & 1))));
    }
    SWEEP(half_of_float(65519.996f) == (0x7bff));
    SWEEP(half_of_float(65520) == (0x7c00));
    SWEEP(half_of_float(-INFINITY) == (0xfc00));
}
END_TEST

START_TEST(nans_stay_nans_with_their_sign) {
    static const uint32_t nan[] = {0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800001, 0xffc12345};
    for (int i = 0; i < 5; i++) {
        uint16_t h = half_of_float(float_of_bits(nan[i])),
                 b = bf16_of_float(float_of_bits(nan[i]));
        SWEEP((h & 0x7c00) == 0x7c00 && (h & 0x200) && h >> 15 == nan[i] >> 31);
        SWEEP((b & 0x7f80) == 0x7f80 && (b & 0x40) && b >> 15 == (uint16_t)(nan[i] >> 31));
    }
}
END_TEST

#ifdef __x86_64__
__attribute__((target("f16c"))) static uint16_t machine_half(float f) {
    return (uint16_t)_cvtss_sh(f, 0);
}
__attribute__((target("f16c"))) static float machine_float(uint16_t h) {
    return _cvtsh_ss(h);
}
static bool machine_has_halves(void) {
    return __builtin_cpu_supports(
        "avx2"); /* and with it F16C: clang 14 knows no name for that */
}
#else
static uint16_t machine_half(float f) {
    return slow_half(f);
}
static float machine_float(uint16_t h) {
    return half_to_float(h);
}
static bool machine_has_halves(void) {
    return false;
}
#endif

START_TEST(the_instructions_of_the_machine_give_the_same_bits) {
    if (!machine_has_halves()) return;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = half_to_float((uint16_t)h), m = machine_float((uint16_t)h);
        SWEEP(bits_of_float(f) == bits_of_float(m) || (isnan(f) && isnan(m)));
    }
    for (uint32_t i = 0; i < 2000000; i++) {
        float f = float_of_bits((uint32_t)hash_mix(i + 77));
        SWEEP(half_of_float(f) == machine_half(f));
    }
}
END_TEST

START_TEST(bfloats_round_to_nearest_even) {
    for (uint32_t b = 0; b < 65536; b++) {
        float f = bf16_to_float((uint16_t)b);
        if (isnan(f)) continue;
        SWEEP(bf16_of_float(f) == (b));
        if ((b & 0x7f80) == 0x7f80) continue;
        uint32_t u = b << 16;
        SWEEP(bf16_of_float(float_of_bits(u | 0x7fff)) == (b));
        SWEEP(bf16_of_float(float_of_bits(u | 0x8000)) == (b + (b & 1)));
        SWEEP(bf16_of_float(float_of_bits(u | 0x8001)) == (b + 1));
    }
}
END_TEST

CHECK_MAIN("half", every_half_has_the_value_of_its_bits, every_half_survives_a_round_trip,
           floats_round_to_the_nearest_half_and_ties_to_even,
           the_middles_between_halves_go_to_even_and_their_neighbours_do_not,
           nans_stay_nans_with_their_sign, bfloats_round_to_nearest_even,
           the_instructions_of_the_machine_give_the_same_bits)
