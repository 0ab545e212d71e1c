/* Linear layers: what no instruction set changes. Packing of weights, sizes, the choice of
 * kernels, the shares of threads. Pure; any thread. */
#include "engine/cpu/linear.h"

#include <cpuid.h>

#include "base/check.h"
#include "base/half.h"
#include "engine/cpu/linear_tiles.h"

bool linear_supports(dtype t, uint32_t n_in) {
    if (n_in == 0 || n_in > 1u << 20) return false;
    switch (t) {
    case DT_F32:
    case DT_F16:
    case DT_BF16: return true;
    case DT_Q8_0:
    case DT_Q4_0:
    case DT_Q4_1: return n_in % 32 == 0;
    default: return false;
    }
}

bool linear_wants_int8(dtype t) {
    return tile_bytes(t) != 0;
}

uint64_t packed_bytes(dtype t, uint32_t n_out, uint32_t n_in) {
    CHECK(linear_supports(t, n_in));
    return ceil_div(n_out, STRIP) * strip_bytes(t, n_in);
}

/* 16 blocks of the file, n of them real, to one tile. Inlined with a constant type. */
static inline __attribute__((always_inline)) void
pack_tile(uint8_t *tile, dtype t, const uint8_t *src, uint64_t stride, uint32_t n) {
    const uint32_t head = t == DT_Q4_1 ? 4 : 2, words = t == DT_Q8_0 ? 8 : 4;
    for (uint32_t o = 0; o < n; o++, src += stride) {
        memcpy(tile + 2 * o, src, 2);
        if (t == DT_Q4_1) memcpy(tile + 2 * STRIP + 2 * o, src + 2, 2);
        for (uint32_t l = 0; l < words; l++) {
            uint32_t v;
            memcpy(&v, src + head + 4 * l, 4);
            if (t == DT_Q8_0) v ^= 0x80808080u;
            memcpy(tile + head * STRIP + 64 * l + 4 * o, &v, 4);
        }
    }
}

static inline __attribute__((always_inline)) void
pack_strip_quant(uint8_t *dst, dtype t, uint32_t n_in, const uint8_t *src, uint32_t n) {
    const uint32_t block = t == DT_Q8_0 ? 34 : t == DT_Q4_1 ? 20 : 18;
    uint64_t stride = (uint64_t)n_in / 32 * block;
    for (uint32_t k = 0; k < n_in; k += 32, dst += tile_bytes(t), src += block) {
        if (n == STRIP) {
            pack_tile(dst, t, src, stride, STRIP);
        } else {
            memset(dst, 0, tile_bytes(t));
            pack_tile(dst, t, src, stride, n);
        }
    }
}

/* bytes: 2 or 4 an element. In squares of 32 inputs, so that writes stay in the first cache. */
static inline __attribute__((always_inline)) void
pack_strip_float(uint8_t *dst, uint32_t bytes, uint32_t n_in, const uint8_t *src, uint32_t n) {
    if (n < STRIP) memset(dst, 0, (uint64_t)n_in * STRIP * bytes);
    for (uint32_t k0 = 0; k0 < n_in; k0 += 32) {
        uint32_t k1 = n_in - k0 < 32 ? n_in : k0 + 32;
        for (uint32_t o = 0; o < n; o++)
            for (uint32_t k = k0; k < k1; k++)
                memcpy(dst + ((uint64_t)k * STRIP + o) * bytes,
                       src + ((uint64_t)o * n_in + k) * bytes, bytes);
    }
}

void packed_store(void *tiles, dtype t, uint32_t n_out, uint32_t n_in, uint32_t row, uint32_t n,
                  const void *rows) {
    CHECK(linear_supports(t, n_in) && row % STRIP == 0 && row <= n_out && n <= n_out - row);
    CHECK(n % STRIP == 0 || row + n == n_out);
    const dtype_info *info = dtype_get(t);
    uint64_t row_bytes = (uint64_t)n_in / info->block_elems * info->block_bytes;
    uint8_t *dst = (uint8_t *)tiles + row / STRIP * strip_bytes(t, n_in);
    const uint8_t *src = rows;
    for (uint32_t o = 0; o < n; o += STRIP) {
        uint32_t m = n - o < STRIP ? n - o : STRIP;
        switch (t) {
        case DT_Q8_0: pack_strip_quant(dst, DT_Q8_0, n_in, src, m); break;
        case DT_Q4_0: pack_strip_quant(dst, DT_Q4_0, n_in, src, m); break;
        case DT_Q4_1: pack_strip_quant(dst, DT_Q4_1, n_in, src, m); break;
        case DT_F32: pack_strip_float(dst, 4, n_in, src, m); break;
        default: pack_strip_float(dst, 2, n_in, src, m); break;
        }
        dst += strip_bytes(t, n_in);
        src += row_bytes * STRIP;
    }
}

static float half_at(const uint8_t *p, uint32_t i) {
    uint16_t h;
    memcpy(&h, p + 2 * i, 2);
    return half_to_float(h);
}

/* Products of an 11-bit scale and an 8-bit code are exact in float32: the only rounding is the
 * addition of a minimum, the same as everywhere else. */
static void quant_row(const uint8_t *tile, dtype t, uint32_t n_in, uint32_t o, float *out) {
    for (uint32_t k0 = 0; k0 < n_in; k0 += 32, tile += tile_bytes(t)) {
        float d = half_at(tile, o), m = t == DT_Q4_1 ? half_at(tile + 2 * STRIP, o) : 0;
        const uint8_t *codes = tile + (t == DT_Q4_1 ? 4 : 2) * STRIP + 4 * o;
        for (uint32_t k = 0; k < 32; k++) {
            if (t == DT_Q8_0) {
                out[k0 + k] = d * (float)(codes[64 * (k / 4) + k % 4] - 128);
                continue;
            }
            uint8_t pair = codes[64 * (k % 16 / 4) + k % 4];
            int code = k < 16 ? pair & 15 : pair >> 4;
            out[k0 + k] = t == DT_Q4_0 ? d * (float)(code - 8) : d * (float)code + m;
        }
    }
}

void packed_row(const packed *w, uint32_t row, float *out) {
    CHECK(row < w->n_out);
    const uint8_t *strip = strip_at(w, row);
    uint32_t o = row % STRIP;
    if (tile_bytes(w->type)) {
        quant_row(strip, w->type, w->n_in, o, out);
        return;
    }
    for (uint32_t k = 0; k < w->n_in; k++) {
        uint64_t at = (uint64_t)k * STRIP + o;
        if (w->type == DT_F32) {
            memcpy(out + k, strip + 4 * at, 4);
            continue;
        }
        uint16_t h;
        memcpy(&h, strip + 2 * at, 2);
        out[k] = w->type == DT_F16 ? half_to_float(h) : bf16_to_float(h);
    }
}

uint64_t act_bytes(uint32_t n_in, uint32_t n_rows) {
    return ceil_div(n_rows, ACT_GROUP) * (n_in / 32) * sizeof(act_block);
}

void act_get(const act *a, uint32_t row, int8_t *q, float *d, float *s) {
    CHECK(row < a->n_rows);
    const act_block *b = act_group(a, row);
    uint32_t r = row % ACT_GROUP;
    for (uint32_t k = 0; k < a->n_in / 32; k++) {
        memcpy(q + 32 * k, b[k].q[r], 32);
        d[k] = b[k].d[r];
        s[k] = b[k].s[r];
    }
}

static bool cpu_has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool cpu_has(cpu_isa isa) {
    __builtin_cpu_init();
    bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();
    switch (isa) {
    case ISA_PLAIN: return true;
    case ISA_AVX2: return avx2;
    case ISA_AVX512:
        return avx2 && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    default: return false;
    }
}

const linear_kernels *linear_kernels_get(cpu_isa isa) {
    if (isa == ISA_AUTO)
        isa = cpu_has(ISA_AVX512) ? ISA_AVX512 : cpu_has(ISA_AVX2) ? ISA_AVX2 : ISA_PLAIN;
    if (!cpu_has(isa)) return NULL;
    return isa == ISA_AVX512 ? &linear_avx512 : isa == ISA_AVX2 ? &linear_avx2 : &linear_plain;
}

static void split(uint32_t n, uint32_t unit, uint32_t n_threads, uint32_t id, uint32_t *from,
                  uint32_t *to) {
    uint64_t units = ceil_div(n, unit);
    uint64_t a = units * id / n_threads * unit, b = units * (id + 1) / n_threads * unit;
    *from = a < n ? (uint32_t)a : n;
    *to = b < n ? (uint32_t)b : n;
}

void linear_share(uint32_t n_rows, uint32_t n_out, uint32_t n_threads, uint32_t id,
                  uint32_t *row0, uint32_t *row1, uint32_t *out0, uint32_t *out1) {
    CHECK(n_threads > 0 && id < n_threads);
    *row0 = *out0 = 0;
    *row1 = n_rows;
    *out1 = n_out;
    /* Whole groups of rows, and enough of them that one group more or less is under 7%. */
    if (n_rows / n_threads >= 16 * ACT_GROUP)
        split(n_rows, ACT_GROUP, n_threads, id, row0, row1);
    else
        split(n_out, STRIP, n_threads, id, out0, out1);
}
