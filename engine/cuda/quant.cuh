/* Packed weights in the registers of a warp (packed.h), and single elements of any matrix. */
#ifndef VRAMD_ENGINE_CUDA_QUANT_CUH
#define VRAMD_ENGINE_CUDA_QUANT_CUH

#include "engine/cuda/cu.h"
#include "engine/cuda/packed.h"

/* ---- where things are ---- */

typedef struct quant_view {
    uint8_t *codes, *scales; /* of a 16-bit matrix: its rows, NULL */
    uint32_t n_chunks, n_strips, n_in;
} quant_view;

static inline quant_view quant_view_of(const cu_matrix *w) {
    uint8_t *p = (uint8_t *)w->data;
    if (!cu_matrix_is_packed(w->type)) return quant_view{p, NULL, 0, 0, w->n_in};
    return quant_view{p, p + packed_scales_at(w->type, w->n_out, w->n_in),
                      packed_chunks(w->n_in), packed_strips(w->n_out), w->n_in};
}

template <dtype TYPE> struct quant {
    static constexpr bool is_byte = TYPE == DT_Q8_0, has_min = TYPE == DT_Q4_1;
    static constexpr uint32_t code_bytes = is_byte ? 1024 : 512;
    static constexpr uint32_t scale_bytes = has_min ? 128 : 64;
    static constexpr int n_codes = is_byte ? 2 : 1;  /* uint4 of a lane in a tile */
    static constexpr int n_scales = has_min ? 2 : 1; /* uint2 */
};

/* A lane's part of a tile. */
template <dtype TYPE> struct quant_tile {
    uint4 codes[quant<TYPE>::n_codes];
    uint2 scales[quant<TYPE>::n_scales]; /* d, then m */
};

/* Reads it from global memory, past L1. codes, scales: quant_lane_...'s. */
template <dtype TYPE>
CU_DEVICE quant_tile<TYPE> quant_load(const uint8_t *codes, const uint8_t *scales) {
    quant_tile<TYPE> w;
#pragma unroll
    for (int i = 0; i < quant<TYPE>::n_codes; i++) w.codes[i] = cu_ld_stream(codes + 512 * i);
    if (quant<TYPE>::has_min) {
        const uint4 s = __ldg((const uint4 *)scales);
        w.scales[0] = make_uint2(s.x, s.y);
        w.scales[quant<TYPE>::n_scales - 1] = make_uint2(s.z, s.w);
    } else {
        w.scales[0] = __ldg((const uint2 *)scales);
    }
    return w;
}
/* Where a lane's codes and scales of a tile begin. */
template <dtype TYPE>
CU_DEVICE const uint8_t *quant_lane_codes(const quant_view &v, size_t tile, int lane) {
    return v.codes + tile * quant<TYPE>::code_bytes + 16 * lane;
}
template <dtype TYPE>
CU_DEVICE const uint8_t *quant_lane_scales(const quant_view &v, size_t tile, int lane) {
    return v.scales + tile * quant<TYPE>::scale_bytes +
           quant<TYPE>::scale_bytes / 8 * (lane / 4);
}

/* Reads it from shared memory, where it lies in the same way. */
template <dtype TYPE>
CU_DEVICE quant_tile<TYPE> quant_fetch(const uint8_t *codes, const uint8_t *scales, int lane) {
    quant_tile<TYPE> w;
#pragma unroll
    for (int i = 0; i < quant<TYPE>::n_codes; i++)
        w.codes[i] = *(const uint4 *)(codes + 512 * i + 16 * lane);
#pragma unroll
    for (int i = 0; i < quant<TYPE>::n_scales; i++)
        w.scales[i] = *(const uint2 *)(scales + 8 * quant<TYPE>::n_scales * (lane / 4) + 8 * i);
    return w;
}

/* The scale's (part 0) or minimum's (part 1) bits of block b and output g + 8 * hi: f16. */
template <dtype TYPE>
CU_DEVICE uint16_t quant_scale_bits(const quant_tile<TYPE> &w, int part, int b, int hi) {
    const uint2 s = w.scales[part < quant<TYPE>::n_scales ? part : 0];
    return (uint16_t)((hi ? s.y : s.x) >> 16 * b);
}
CU_DEVICE float quant_float(uint16_t half_bits) {
    __half_raw h;
    h.x = half_bits;
    return __half2float(__half(h));
}

/* ---- int8 fragments: a = 16 * code for Q4_0 (the nibble's sign is the byte's), else code */

template <dtype TYPE>
CU_DEVICE void quant_bytes(const quant_tile<TYPE> &w, int b, uint32_t a[4]) {
    if (quant<TYPE>::is_byte) {
        const uint4 c = w.codes[b < quant<TYPE>::n_codes ? b : 0];
        a[0] = c.x, a[1] = c.y, a[2] = c.z, a[3] = c.w;
        return;
    }
    const uint32_t lo = b ? w.codes[0].z : w.codes[0].x, hi = b ? w.codes[0].w : w.codes[0].y;
    if (TYPE == DT_Q4_0) {
        a[0] = lo << 4 & 0xf0f0f0f0u, a[1] = hi << 4 & 0xf0f0f0f0u;
        a[2] = lo & 0xf0f0f0f0u, a[3] = hi & 0xf0f0f0f0u;
    } else {
        a[0] = lo & 0x0f0f0f0fu, a[1] = hi & 0x0f0f0f0fu;
        a[2] = lo >> 4 & 0x0f0f0f0fu, a[3] = hi >> 4 & 0x0f0f0f0fu;
    }
}
/* What sums are multiplied with to make up for it. */
template <dtype TYPE> CU_DEVICE float quant_unit() {
    return TYPE == DT_Q4_0 ? 0.0625f : 1.0f;
}

/* ---- 16-bit fragments ---- */

CU_DEVICE __half2 quant_half2(uint32_t bits) {
    __half2_raw r;
    r.x = (uint16_t)bits;
    r.y = (uint16_t)(bits >> 16);
    return __half2(r);
}
CU_DEVICE uint32_t quant_bits(__half2 v) {
    const __half2_raw r = v;
    return r.x | (uint32_t)r.y << 16;
}
CU_DEVICE uint32_t quant_bits(__nv_bfloat162 v) {
    const __nv_bfloat162_raw r = v;
    return r.x | (uint32_t)r.y << 16;
}

/* Four pairs of neighbouring inputs of one output, (2t, 2t + 1), (2t + 8, 2t + 9), and the same
 * + 16, from its two words (nibbles: one), times d, plus m: each rounded once to T. */
template <dtype TYPE, class T> struct quant_pairs;

/* f16: a code or'ed into the bits of 1024 is 1024 + code. Everything before the last operation
 * is exact. */
template <dtype TYPE> struct quant_pairs<TYPE, __half> {
    CU_DEVICE uint32_t scaled(uint32_t x, uint32_t bias, uint32_t d, uint32_t m) {
        const __half2 code = __hsub2(quant_half2(x), quant_half2(bias));
        if (quant<TYPE>::has_min)
            return quant_bits(cu_fma2(code, quant_half2(d), quant_half2(m)));
        return quant_bits(__hmul2(code, quant_half2(d)));
    }
    CU_DEVICE void get(uint32_t w0, uint32_t w1, uint16_t d, uint16_t m, uint32_t out[4]) {
        const uint32_t dd = d * 0x10001u, mm = m * 0x10001u;
        uint32_t x[4], bias = 0x64006400u;
        if (quant<TYPE>::is_byte) { /* code + 128; 1024 + 128 */
            w0 ^= 0x80808080u, w1 ^= 0x80808080u, bias = 0x64806480u;
            x[0] = __byte_perm(w0, 0x64646464u, 0x4240);
            x[1] = __byte_perm(w0, 0x64646464u, 0x4341);
            x[2] = __byte_perm(w1, 0x64646464u, 0x4240);
            x[3] = __byte_perm(w1, 0x64646464u, 0x4341);
        } else { /* (word & mask) ^ 1024 (+ 8) */
            const uint32_t magic = TYPE == DT_Q4_0 ? 0x64086408u : 0x64006400u;
            if (TYPE == DT_Q4_0) bias = 0x64086408u;
#pragma unroll
            for (int i = 0; i < 4; i++) /* bytes 0, 2; 1, 3; then the high nibbles */
                x[i] = cu_lop3<0x6a>(w0 >> (8 * (i % 2) + 4 * (i / 2)), 0x000f000fu, magic);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) out[i] = scaled(x[i], bias, dd, mm);
    }
};

/* bf16, whose 8 bits would round scales, too: through float, where a code or'ed into the bits
 * of 2^23 is 2^23 + code. */
template <dtype TYPE> struct quant_pairs<TYPE, __nv_bfloat16> {
    CU_DEVICE void get(uint32_t w0, uint32_t w1, uint16_t d, uint16_t m, uint32_t out[4]) {
        const float df = quant_float(d), mf = quant<TYPE>::has_min ? quant_float(m) : 0.0f;
        float bias = 8388608.0f;
        if (quant<TYPE>::is_byte) {
            w0 ^= 0x80808080u, w1 ^= 0x80808080u, bias += 128.0f;
        } else {
            if (TYPE == DT_Q4_0) w0 ^= 0x88888888u, bias += 8.0f;
            w1 = w0 >> 4 & 0x0f0f0f0fu;
            w0 &= 0x0f0f0f0fu;
        }
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint32_t bits = __byte_perm(i < 4 ? w0 : w1, 0x4b000000u, 0x7440 + i % 4);
            const float code = __uint_as_float(bits) - bias;
            v[i] = quant<TYPE>::has_min ? __fmaf_rn(code, df, mf) : code * df;
        }
        out[0] = quant_bits(__floats2bfloat162_rn(v[0], v[2]));
        out[1] = quant_bits(__floats2bfloat162_rn(v[1], v[3]));
        out[2] = quant_bits(__floats2bfloat162_rn(v[4], v[6]));
        out[3] = quant_bits(__floats2bfloat162_rn(v[5], v[7]));
    }
};

/* ---- the codes alone, as 16-bit fragments: small integers, exact in either type ---- */

/* 2^10 and 2^7: a code or'ed into the bits of these is their sum. */
CU_DEVICE constexpr uint32_t quant_base(__half) {
    return 0x64006400u;
}
CU_DEVICE constexpr uint32_t quant_base(__nv_bfloat16) {
    return 0x43004300u;
}
CU_DEVICE uint32_t quant_minus(uint32_t a, uint32_t b, __half) {
    const __half2 r = __hsub2(*(const __half2 *)&a, *(const __half2 *)&b);
    return *(const uint32_t *)&r;
}
CU_DEVICE uint32_t quant_minus(uint32_t a, uint32_t b, __nv_bfloat16) {
    const __nv_bfloat162 r = __hsub2(*(const __nv_bfloat162 *)&a, *(const __nv_bfloat162 *)&b);
    return *(const uint32_t *)&r;
}

/* Four pairs of an output's codes in the order of quant_pairs. */
template <dtype TYPE, class T>
CU_DEVICE void quant_ints(uint32_t w0, uint32_t w1, uint32_t out[4]) {
    constexpr uint32_t base = quant_base(T());
    if (quant<TYPE>::is_byte) { /* seven bits less the eighth, which counts -128 */
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t x = __byte_perm(i < 2 ? w0 : w1, 0, i % 2 ? 0x4341 : 0x4240);
            const uint32_t low = cu_lop3<0xea>(x, 0x007f007fu, base);
            /* bf16 holds 2^7 with the eighth bit as 2^8, f16 2^10 + 2^7. */
            out[i] = quant_minus(low, cu_lop3<0xea>(x, 0x00800080u, base), T());
        }
    } else {
        const uint32_t magic = TYPE == DT_Q4_0 ? base | 0x00080008u : base;
#pragma unroll
        for (int i = 0; i < 4; i++) /* bytes 0, 2; 1, 3; then the high nibbles */
            out[i] = quant_minus(
                cu_lop3<0x6a>(w0 >> (8 * (i % 2) + 4 * (i / 2)), 0x000f000fu, magic), magic,
                T());
    }
}

/* A lane's words of block b and output g + 8 * hi; w1 is of no meaning for nibbles. */
template <dtype TYPE>
CU_DEVICE void quant_words(const quant_tile<TYPE> &w, int b, int hi, uint32_t *w0,
                           uint32_t *w1) {
    const uint4 c = w.codes[quant<TYPE>::is_byte ? b : 0];
    if (quant<TYPE>::is_byte)
        *w0 = hi ? c.y : c.x, *w1 = hi ? c.w : c.z;
    else
        *w0 = b ? (hi ? c.w : c.z) : (hi ? c.y : c.x), *w1 = 0;
}

/* Block b's two fragments of m16n8k16. Slots 2t, 2t + 1 | 2t + 8, 2t + 9 of the first are the
 * inputs of these names, of the second the same + 16: as ldmatrix gives the activations.
 * pairs(hi, w0, w1, out): the four pairs of output g + 8 * hi out of its words. */
template <dtype TYPE, class PAIRS>
CU_DEVICE void quant_fragments(const quant_tile<TYPE> &w, int b, uint32_t a[2][4],
                               PAIRS pairs) {
#pragma unroll
    for (int hi = 0; hi < 2; hi++) {
        uint32_t w0, w1, out[4];
        quant_words(w, b, hi, &w0, &w1);
        pairs(hi, w0, w1, out);
        a[0][hi] = out[0], a[0][2 + hi] = out[1];
        a[1][hi] = out[2], a[1][2 + hi] = out[3];
    }
}

/* Of the codes. */
template <dtype TYPE, class T>
CU_DEVICE void quant_codes(const quant_tile<TYPE> &w, int b, uint32_t a[2][4]) {
    quant_fragments(w, b, a, [](int, uint32_t w0, uint32_t w1, uint32_t out[4]) {
        quant_ints<TYPE, T>(w0, w1, out);
    });
}

/* Of the weights, each rounded once to T. */
template <dtype TYPE, class T>
CU_DEVICE void quant_halves(const quant_tile<TYPE> &w, int b, uint32_t a[2][4]) {
    quant_fragments(w, b, a, [&](int hi, uint32_t w0, uint32_t w1, uint32_t out[4]) {
        quant_pairs<TYPE, T>::get(w0, w1, quant_scale_bits(w, 0, b, hi),
                                  quant_scale_bits(w, 1, b, hi), out);
    });
}

/* ---- single elements ---- */

/* Byte offset within the strip's codes of output o's word holding input k, and which byte of
 * the word; nibbles: low for inputs 0..15 of the block. */
typedef struct quant_place {
    size_t word, scale; /* scale: of d; m lies 8 bytes after it */
    uint32_t byte;
    bool high; /* inputs 16..31 of the block */
} quant_place;

template <dtype TYPE>
CU_DEVICE quant_place quant_locate(const quant_view &v, uint32_t o, uint32_t k) {
    const size_t tile = (size_t)(o / PACKED_STRIP) * v.n_chunks + k / PACKED_CHUNK;
    const uint32_t b = k / PACKED_BLOCK % 2, e = k % 16, g = o % 8, hi = o % 16 / 8;
    const uint32_t t = e % 8 / 2;
    quant_place p;
    p.byte = e % 2 * 2 + e / 8;
    p.high = k % PACKED_BLOCK >= 16;
    p.word = tile * quant<TYPE>::code_bytes + 16 * (4 * g + t) + 4 * hi;
    p.word += quant<TYPE>::is_byte ? 512 * b + (p.high ? 8 : 0) : 8 * b;
    p.scale = tile * quant<TYPE>::scale_bytes + 8 * quant<TYPE>::n_scales * g + 4 * hi + 2 * b;
    return p;
}

/* Element k of row o of a matrix of any type on the device, in float32: exactly the file's
 * value where it is packed. */
template <dtype TYPE> CU_DEVICE float quant_at(const quant_view &v, uint32_t o, uint32_t k) {
    if (TYPE == DT_F16) return __half2float(((const __half *)v.codes)[(size_t)o * v.n_in + k]);
    if (TYPE == DT_BF16)
        return __bfloat162float(((const __nv_bfloat16 *)v.codes)[(size_t)o * v.n_in + k]);
    const quant_place p = quant_locate<TYPE>(v, o, k);
    const uint32_t byte = v.codes[p.word + p.byte];
    const float d = quant_float(*(const uint16_t *)(v.scales + p.scale));
    if (quant<TYPE>::is_byte) return d * (float)(int8_t)byte;
    const int code = p.high ? byte >> 4 : byte & 15;
    if (TYPE == DT_Q4_0) return d * (float)((code ^ 8) - 8);
    return __fmaf_rn((float)code, d, quant_float(*(const uint16_t *)(v.scales + p.scale + 8)));
}

#endif
