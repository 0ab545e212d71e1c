/* The rate of sums of 8-bit products that the CPU's instructions can give at most, with all numbers
 * in registers: what bounds a prefill with int8 activations. 0: none is known for the set. */
#ifndef VRAMD_BENCH_INT8_PEAK_H
#define VRAMD_BENCH_INT8_PEAK_H

#include "engine/cpu/team.h"
#include "engine/engine.h"

#if defined(__x86_64__)
#include <immintrin.h>

enum {
    PEAK_SUMS = 16,
    PEAK_ROUNDS = 1 << 22
}; /* sums: independent, so that latency is hidden */

/* A product and its addition count as two operations. */
__attribute__((target("avx512vnni,avx512bw"))) static uint64_t peak_avx512(void) {
    __m512i sum[PEAK_SUMS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
    for (int k = 0; k < PEAK_SUMS; k++) sum[k] = a;
    for (int i = 0; i < PEAK_ROUNDS; i++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 16 /* or sums lie in memory */
        for (int k = 0; k < PEAK_SUMS; k++) sum[k] = _mm512_dpbusd_epi32(sum[k], a, b);
    }
    for (int k = 1; k < PEAK_SUMS; k++) sum[0] = _mm512_add_epi32(sum[0], sum[k]);
    __asm__ volatile("" ::"v"(sum[0]));
    return 128ULL * PEAK_SUMS * PEAK_ROUNDS;
}

/* Products to 16 bits and their sum there: what AVX2 has in place of one instruction, as far as the sums of small codes
 * fit 16 bits. */
__attribute__((target("avx2"))) static uint64_t peak_avx2(void) {
    enum { SUMS = 6 }; /* these and their products are in registers */
    __m256i sum[SUMS], a = _mm256_set1_epi8(1), b = a;
    for (int k = 0; k < SUMS; k++) sum[k] = a;
    for (int i = 0; i < PEAK_ROUNDS; i++) {
#pragma GCC unroll 6
        for (int k = 0; k < SUMS; k++) {
            __asm__ volatile("" : "+x"(a)); /* a product for each sum, not one for all */
            sum[k] = _mm256_add_epi16(sum[k], _mm256_maddubs_epi16(a, b));
        }
    }
    for (int k = 1; k < SUMS; k++) sum[0] = _mm256_add_epi16(sum[0], sum[k]);
    __asm__ volatile("" ::"x"(sum[0]));
    return 64ULL * SUMS * PEAK_ROUNDS;
}
__attribute__((target("avx2,avxvnni"))) static uint64_t peak_avxvnni(void) {
    enum { SUMS = 12 };
    __m256i sum[SUMS], a = _mm256_set1_epi8(1), b = a;
    for (int k = 0; k < SUMS; k++) sum[k] = a;
    for (int i = 0; i < PEAK_ROUNDS; i++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 12 /* or sums lie in memory */
        for (int k = 0; k < SUMS; k++) sum[k] = _mm256_dpbusd_avx_epi32(sum[k], a, b);
    }
    for (int k = 1; k < SUMS; k++) sum[0] = _mm256_add_epi32(sum[0], sum[k]);
    __asm__ volatile("" ::"x"(sum[0]));
    return 64ULL * SUMS * PEAK_ROUNDS;
}
#else
static uint64_t peak_avxvnni(void) {
    return 0;
}
static uint64_t peak_avx512(void) {
    return 0;
}
static uint64_t peak_avx2(void) {
    return 0;
}
#endif

static uint64_t int8_peak_operations(cpu_isa isa) {
    return isa >= ISA_AVX512    ? peak_avx512()
           : isa == ISA_AVXVNNI ? peak_avxvnni()
           : isa == ISA_AVX2    ? peak_avx2()
                                : 0;
}

#endif
