/* The table of stored number types. Owns nothing; any thread. */
#include "model/dtype.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"

const dtype_info *dtype_get(uint32_t number) {
    static const dtype_info table[] = {
#define X(e, number, name, elems, bytes) [number] = {name, elems, bytes},
        DTYPE_LIST(X)
#undef X
    };
    if (number >= sizeof table / sizeof *table || !table[number].name) return NULL;
    return &table[number];
}

dtype dtype_grouped(dtype kind, dtype scale, uint32_t group) {
    const uint32_t i = scale == DT_F16 ? 0 : scale == DT_BF16 ? 1 : 2;
    CHECK(group && group % 32 == 0 && group <= 1u << 20 && (i < 2 || scale == DT_F32));
    return (dtype)((uint32_t)kind | i << 8 | group / 32 << 10);
}

dtype_block dtype_block_of(dtype t) {
    const uint32_t group = dtype_group(t), scale = dtype_scale(t) == DT_F32 ? 4 : 2;
    const dtype_info *info = dtype_get((uint32_t)t);
    switch (dtype_kind(t)) {
#define X(e, number, name, bits, zero)                                                         \
    case e: return (dtype_block){group, scale + (zero) + group / 8 * bits};
        DTYPE_GROUP_LIST(X)
#undef X
    default:
        return info ? (dtype_block){info->block_elems, info->block_bytes} : (dtype_block){0};
    }
}

const char *dtype_name(dtype t) {
#define X(e, number, name, ...)                                                                \
    if (dtype_kind(t) == e) return name;
    DTYPE_CACHE_LIST(X)
    DTYPE_GROUP_LIST(X)
#undef X
    const dtype_info *info = dtype_get(t);
    return info ? info->name : "none";
}

char *dtype_kv_name(dtype k, dtype v, char buf[32]) {
    if (k == v)
        snprintf(buf, 32, "%s", dtype_name(k));
    else
        snprintf(buf, 32, "K %s, V %s", dtype_name(k), dtype_name(v));
    return buf;
}

dtype dtype_by_name(str s) {
#define X(e, number, name, ...)                                                                \
    if (s.len == sizeof name - 1 && strncasecmp(s.ptr, name, s.len) == 0) return e;
    DTYPE_LIST(X)
    DTYPE_CACHE_LIST(X)
#undef X
    return DT_NONE;
}

bool dtype_bytes(dtype t, uint64_t rows, uint64_t cols, uint64_t *out) {
    const dtype_block block = dtype_block_of(t);
    uint64_t row;
    if (!block.elems || cols % block.elems != 0) return false;
    return mul_u64(cols / block.elems, block.bytes, &row) && mul_u64(row, rows, out);
}

enum { F16_EXPONENT = 0x7c00, BF16_EXPONENT = 0x7f80 };

static bool is_finite_16(const unsigned char *p, uint64_t n, size_t step, uint16_t exponent) {
    unsigned wrong = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint16_t x;
        memcpy(&x, p + i * step, sizeof x);
        wrong |= (x & exponent) == exponent;
    }
    return !wrong;
}

/* The same, one after the other. */
static bool are_finite_16(const unsigned char *p, uint64_t n, uint16_t exponent) {
    typedef uint16_t v8u __attribute__((vector_size(16)));
    const v8u e = {exponent, exponent, exponent, exponent,
                   exponent, exponent, exponent, exponent};
    v8u wrong = {0}, x, y;
    uint64_t i = 0, any[2];
    for (; i + 16 <= n; i += 16) {
        memcpy(&x, p + 2 * i, sizeof x);
        memcpy(&y, p + 2 * i + sizeof x, sizeof y);
        wrong |= (v8u)((x & e) == e) | (v8u)((y & e) == e);
    }
    memcpy(any, &wrong, sizeof any);
    return !(any[0] | any[1]) && is_finite_16(p + 2 * i, n - i, 2, exponent);
}

/* Looked at once for each row of logits, too. */
static bool is_finite_32(const unsigned char *p, uint64_t n) {
    typedef uint32_t v4u __attribute__((vector_size(16)));
    const v4u exponent = {0x7f800000, 0x7f800000, 0x7f800000, 0x7f800000};
    v4u wrong = {0}, x = {0};
    uint64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        memcpy(&x, p + 4 * i, sizeof x);
        wrong |= (v4u)((x & exponent) == exponent);
    }
    x = (v4u){0};
    memcpy(&x, p + 4 * i, 4 * (n - i));
    wrong |= (v4u)((x & exponent) == exponent);
    return !(wrong[0] | wrong[1] | wrong[2] | wrong[3]);
}

/* Whether no code of e4m3 is NaN. */
static bool is_finite_e4m3(const unsigned char *p, uint64_t n, uint32_t step, uint32_t head) {
    unsigned wrong = 0;
    for (uint64_t i = 0; i < n; i++)
        for (uint32_t k = head; k < step; k++) wrong |= (p[i * step + k] & 0x7f) == 0x7f;
    return !wrong;
}

/* The scales of groups, in front of their blocks. */
static bool is_finite_grouped(dtype t, const unsigned char *p, uint64_t n) {
    const uint32_t step = dtype_block_of(t).bytes;
    bool finite = true;
    if (dtype_kind(t) == DT_F8 && !is_finite_e4m3(p, n, step, dtype_scale(t) == DT_F32 ? 4 : 2))
        return false;
    switch (dtype_scale(t)) {
    case DT_F16: return is_finite_16(p, n, step, F16_EXPONENT);
    case DT_BF16: return is_finite_16(p, n, step, BF16_EXPONENT);
    default:
        for (uint64_t i = 0; i < n && finite; i++) finite = is_finite_32(p + i * step, 1);
        return finite;
    }
}

/* Whether the largest number of no block of MXFP4, 6 * 2^(e - 127), is beyond float32. */
static bool is_finite_mxfp4(const unsigned char *p, uint64_t n) {
    bool wrong = false;
    for (uint64_t i = 0; i < n; i++, p += 17) wrong |= *p > 252;
    return !wrong;
}

/* Its scale is in the upper quarters of the last four 16-bit numbers. */
static bool is_finite_iq1_m(const unsigned char *p, uint64_t n) {
    bool wrong = false;
    for (uint64_t i = 0; i < n; i++, p += 56)
        wrong |= ((p[55] >> 4) << 12 & 0x7000) == 0x7000 && (p[53] >> 4 & 12) == 12;
    return !wrong;
}

bool dtype_is_finite(dtype t, const void *blocks, uint64_t n_blocks) {
    const unsigned char *p = blocks;
    const dtype_info *info = dtype_get(t);
    size_t first, n_scales = 1;
    switch (dtype_kind(t)) {
    case DT_I4:
    case DT_I4Z:
    case DT_I8G:
    case DT_I8Z:
    case DT_F8: return is_finite_grouped(t, p, n_blocks);
    case DT_F32: return is_finite_32(p, n_blocks);
    case DT_F16: return are_finite_16(p, n_blocks, F16_EXPONENT);
    case DT_BF16: return are_finite_16(p, n_blocks, BF16_EXPONENT);
    case DT_Q4_0:
    case DT_Q5_0:
    case DT_Q8_0:
    case DT_IQ4_NL:
    case DT_IQ4_XS:
    case DT_IQ1_S:
    case DT_IQ2_XXS:
    case DT_IQ2_XS:
    case DT_IQ2_S:
    case DT_IQ3_XXS:
    case DT_IQ3_S:
    case DT_Q1_0:
    case DT_Q2_0: first = 0; break;
    case DT_Q4_1:
    case DT_Q5_1:
    case DT_Q4_K:
    case DT_Q5_K: first = 0, n_scales = 2; break;
    case DT_Q2_K: first = 80, n_scales = 2; break;
    case DT_Q3_K: first = 108; break;
    case DT_Q6_K: first = 208; break;
    case DT_TQ1_0: first = 52; break;
    case DT_TQ2_0: first = 64; break;
    case DT_MXFP4: return is_finite_mxfp4(p, n_blocks);
    case DT_IQ1_M: return is_finite_iq1_m(p, n_blocks);
    default: return true;
    }
    for (size_t i = 0; i < n_scales; i++)
        if (!is_finite_16(p + first + 2 * i, n_blocks, info->block_bytes, F16_EXPONENT))
            return false;
    return true;
}

static dtype fallback_of(dtype t) {
    switch (t) {
    case DT_Q4_K: return DT_Q5_0;
    case DT_Q5_K: return DT_Q5_1;
    case DT_Q6_K: return DT_Q8_0;
    case DT_TQ1_0:
    case DT_TQ2_0: return DT_Q4_0;
    default: return DT_IQ4_NL; /* Q2_K, Q3_K and every IQ type of 256 */
    }
}

dtype dtype_for_cols(dtype t, uint64_t cols) {
    const dtype_info *info = dtype_get(t);
    CHECK(info != NULL);
    if (cols % info->block_elems == 0) return t;
    if (info->block_elems == 256) t = fallback_of(t);
    return cols % dtype_get(t)->block_elems == 0 ? t : DT_F16;
}
