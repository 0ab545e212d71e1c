/* Packed weights in the registers of a warp (packed.h), and single elements of any matrix. */
#ifndef VRAMD_ENGINE_CUDA_QUANT_CUH
#define VRAMD_ENGINE_CUDA_QUANT_CUH

#include "engine/cuda/cu.h"
#include "engine/cuda/packed.h"

/* ---- where things are ---- */

typedef struct quant_view {
    uint8_t *codes, *scales; /* of a 16-bit matrix: its rows, NULL */
    uint32_t n_chunks, n_strips, n_in;
    uint32_t f8_shift, f8_groups; /* of F8 (matrix.h, packed.h) */
} quant_view;

static inline quant_view quant_view_of(const cu_matrix *w) {
    uint8_t *p = (uint8_t *)w->data;
    if (!cu_matrix_is_packed(w->type)) return quant_view{p, NULL, 0, 0, w->n_in, 0, 0};
    quant_view v = {p,
                    p + packed_scales_at(w->type, w->n_out, w->n_in),
                    packed_chunks(w->n_in),
                    packed_strips(w->n_out),
                    w->n_in,
                    0,
                    0};
    if (!cu_matrix_is_float(w->type)) return v;
    v.f8_shift = cu_f8_shift(w->type, w->n_in);
    v.f8_groups = packed_f8_groups(w->type, w->n_in);
    return v;
}
/* F8: a strip's scales of the group that block `block` of 32 inputs is in. */
CU_DEVICE const uint8_t *quant_f8_scales(const quant_view &v, uint32_t strip, uint32_t block) {
    const size_t at = (size_t)strip * v.f8_groups + (block >> v.f8_shift);
    return v.scales + at * PACKED_F8_SCALES;
}

/* A row of CU_PACKED_LIST. */
template <dtype TYPE> struct quant {
    static constexpr int bits = 0;
    static constexpr bool is_byte = false, has_min = false;
};
#define X(name, type, n_bits, inputs, min, is_signed)                                          \
    template <> struct quant<type> {                                                           \
        static constexpr int bits = n_bits;                                                    \
        static constexpr bool is_byte = bits == 8, has_min = min, by_16 = inputs == 16;        \
        /* planes of 4, 2 and 1 bits */                                                        \
        static constexpr bool has_4 = bits & 4, has_2 = bits & 2, has_1 = bits & 1;            \
        static constexpr uint32_t at_2 = has_4 ? 512 : 0, at_1 = at_2 + (has_2 ? 256 : 0);     \
        static constexpr uint32_t code_bytes = PACKED_CODE_BYTES(bits);                        \
        static constexpr bool is_float = type == CU_F8;                                        \
        /* F8: as gathered from its groups, float32 of block 0, then of block 1 */             \
        static constexpr uint32_t scale_bytes =                                                \
            is_float ? 2 * PACKED_F8_SCALES : PACKED_SCALE_BYTES(inputs, min);                 \
        static constexpr int n_codes = is_byte ? 2 : has_4;    /* uint4 of a lane in a tile */ \
        static constexpr int n_scales = (int)scale_bytes / 64; /* uint2 */                     \
        /* Loads under way that a tile counts as: by its registers */                          \
        static constexpr int loads = bits > 5 || (min && bits != 4) ? 2 : 1;                   \
        /* the sign of a code is the sign of its byte: how far codes are shifted up */         \
        static constexpr int up = is_signed ? 8 - bits : 0;                                    \
        static constexpr bool is_book = type == DT_IQ4_NL || type == DT_MXFP4;                 \
        /* nibbles that become numbers by one operation more */                                \
        static constexpr bool is_nibble = bits == 4 && !is_book;                               \
    };
CU_PACKED_LIST(X)
#undef X

/* Calls f with a quant_type of t. */
template <dtype TYPE> struct quant_type { static constexpr dtype value = TYPE; };
template <class F> static inline cudaError_t quant_by_type(dtype t, F f) {
    switch ((uint32_t)cu_packed_kind(t)) {
#define X(name, type, ...)                                                                     \
    case type: return f(quant_type<type>());
        CU_PACKED_LIST(X)
#undef X
    default: return cudaErrorInvalidValue;
    }
}

/* A lane's part of a tile: of planes that the type lacks nothing is read. */
template <dtype TYPE> struct quant_tile {
    uint4 codes[quant<TYPE>::n_codes ? quant<TYPE>::n_codes : 1];
    uint2 twos;
    uint32_t ones;
    uint2 scales
        [quant<TYPE>::n_scales]; /* d, then m; F8: of blocks 0 and 1, outputs g and g + 8 */
};

/* Where a lane's parts of a tile lie in global memory: of each plane, and its scales (not of F8). */
template <dtype TYPE> struct quant_lane { const uint8_t *codes, *twos, *ones, *scales; };
template <dtype TYPE>
CU_DEVICE quant_lane<TYPE> quant_lane_of(const quant_view &v, size_t tile, int lane) {
    typedef quant<TYPE> q;
    const uint8_t *codes = v.codes + tile * q::code_bytes;
    return quant_lane<TYPE>{codes + 16 * lane, codes + q::at_2 + 8 * lane,
                            codes + q::at_1 + 4 * lane,
                            v.scales + tile * q::scale_bytes + q::scale_bytes / 8 * (lane / 4)};
}
/* The same of a tile so many further on. */
template <dtype TYPE> CU_DEVICE quant_lane<TYPE> quant_after(const quant_lane<TYPE> &p, int n) {
    const int codes = n * (int)quant<TYPE>::code_bytes;
    return quant_lane<TYPE>{p.codes + codes, p.twos + codes, p.ones + codes,
                            p.scales + n * (int)quant<TYPE>::scale_bytes};
}

/* Reads it, past L1. */
template <dtype TYPE> CU_DEVICE quant_tile<TYPE> quant_load(const quant_lane<TYPE> &p) {
    typedef quant<TYPE> q;
    quant_tile<TYPE> w;
#pragma unroll
    for (int i = 0; i < q::n_codes; i++) w.codes[i] = cu_ld_stream(p.codes + 512 * i);
    if (q::has_2) w.twos = __ldg((const uint2 *)p.twos);
    if (q::has_1) w.ones = __ldg((const uint32_t *)p.ones);
    if (q::n_scales == 1) w.scales[0] = __ldg((const uint2 *)p.scales);
#pragma unroll
    for (int i = 0; i < q::n_scales / 2; i++) {
        const uint4 s = __ldg((const uint4 *)p.scales + i);
        w.scales[2 * i] = make_uint2(s.x, s.y);
        w.scales[2 * i + 1] = make_uint2(s.z, s.w);
    }
    return w;
}

/* Reads a tile of any type. */
template <dtype TYPE>
CU_DEVICE quant_tile<TYPE> quant_read(const quant_view &v, uint32_t strip, uint32_t chunk,
                                      int lane) {
    const quant_lane<TYPE> at =
        quant_lane_of<TYPE>(v, (size_t)strip * v.n_chunks + chunk, lane);
    if constexpr (!quant<TYPE>::is_float)
        return quant_load(at);
    else {
        quant_tile<TYPE> w;
#pragma unroll
        for (int b = 0; b < 2; b++) {
            const uint32_t *d =
                (const uint32_t *)quant_f8_scales(v, strip, 2 * chunk + b) + lane / 4;
            w.codes[b] = cu_ld_stream(at.codes + 512 * b);
            w.scales[b] = make_uint2(__ldg(d), __ldg(d + 8));
        }
        return w;
    }
}

/* Reads it from shared memory, where it lies in the same way. */
template <dtype TYPE>
CU_DEVICE quant_tile<TYPE> quant_fetch(const uint8_t *codes, const uint8_t *scales, int lane) {
    typedef quant<TYPE> q;
    quant_tile<TYPE> w;
#pragma unroll
    for (int i = 0; i < q::n_codes; i++)
        w.codes[i] = *(const uint4 *)(codes + 512 * i + 16 * lane);
    if (q::has_2) w.twos = *(const uint2 *)(codes + q::at_2 + 8 * lane);
    if (q::has_1) w.ones = *(const uint32_t *)(codes + q::at_1 + 4 * lane);
#pragma unroll
    for (int i = 0; i < q::n_scales; i++) {
        const uint32_t *d = (const uint32_t *)(scales + PACKED_F8_SCALES * i) + lane / 4;
        w.scales[i] = q::is_float
                          ? make_uint2(d[0], d[8])
                          : *(const uint2 *)(scales + 8 * q::n_scales * (lane / 4) + 8 * i);
    }
    return w;
}

/* The scale's (part 0) or minimum's (part 1) bits of block b and output g + 8 * hi, and of
 * word `half` of it where there is one for 16 inputs. */
template <dtype TYPE>
CU_DEVICE uint16_t quant_scale_bits(const quant_tile<TYPE> &w, int part, int b, int hi,
                                    int half) {
    typedef quant<TYPE> q;
    const int of = q::has_min ? part : 0;
    if (q::by_16) {
        const uint2 s = w.scales[(2 * of + hi) % q::n_scales];
        return (uint16_t)((b ? s.y : s.x) >> 16 * half);
    }
    const uint2 s = w.scales[of];
    return (uint16_t)((hi ? s.y : s.x) >> 16 * b);
}
template <dtype TYPE> CU_DEVICE float quant_float(uint16_t bits) {
    if (TYPE == DT_MXFP4) return __uint_as_float((uint32_t)bits << 16);
    __half_raw h;
    h.x = bits;
    return __half2float(__half(h));
}
template <dtype TYPE>
CU_DEVICE float quant_scale(const quant_tile<TYPE> &w, int part, int b, int hi, int half) {
    if (quant<TYPE>::is_float)
        return __uint_as_float(hi ? w.scales[b % quant<TYPE>::n_scales].y
                                  : w.scales[b % quant<TYPE>::n_scales].x);
    return quant_float<TYPE>(quant_scale_bits(w, part, b, hi, half));
}

/* ---- bytes: int8 fragments ---- */

/* x >> by, or << -by. */
CU_DEVICE uint32_t quant_shift(uint32_t x, int by) {
    return by < 0 ? x << -by : x >> by;
}

/* Sixteen numbers, four of them a word. */
template <dtype TYPE> CU_DEVICE uint32_t quant_book(int i) {
    if (TYPE == DT_MXFP4) { /* twice E2M1's: 0 1 2 3 4 6 8 12, then their negatives */
        return i == 0 ? 0x03020100u : i == 1 ? 0x0c080604u : i == 2 ? 0xfdfeff00u : 0xf4f8fafcu;
    }
    /* -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113 */
    return i == 0 ? 0xbfad9881u : i == 1 ? 0xf6eaddcfu : i == 2 ? 0x26190d01u : 0x71594535u;
}
/* The numbers of four indices, the nibbles of the lower half of x. */
template <dtype TYPE> CU_DEVICE uint32_t quant_look_up(uint32_t x) {
    const uint32_t low = __byte_perm(quant_book<TYPE>(0), quant_book<TYPE>(1), x & 0x7777u),
                   high = __byte_perm(quant_book<TYPE>(2), quant_book<TYPE>(3), x & 0x7777u);
    return __byte_perm(low, high, 0x3210u | (x & 0x8888u) >> 1);
}

/* Word `half` of block b and output g + 8 * hi as bytes, 2^up times the codes. */
template <dtype TYPE>
CU_DEVICE uint32_t quant_word(const quant_tile<TYPE> &w, int b, int half, int hi) {
    typedef quant<TYPE> q;
    const uint4 c = w.codes[q::is_byte ? b : 0];
    if (q::is_byte) return half ? (hi ? c.w : c.z) : (hi ? c.y : c.x);
    const uint32_t nibbles = b ? (hi ? c.w : c.z) : (hi ? c.y : c.x);
    if (q::is_book)
        return __byte_perm(quant_look_up<TYPE>(nibbles), quant_look_up<TYPE>(nibbles >> 16),
                           half ? 0x7531 : 0x6420);
    uint32_t r = 0;
    if (q::has_4) r = quant_shift(nibbles, 4 * half - q::up) & 0x0f0f0f0fu << q::up;
    if (q::has_2) {
        constexpr int to = q::up + (q::has_4 ? 4 : 0);
        r |= quant_shift(hi ? w.twos.y : w.twos.x, 4 * b + 2 * half - to) & 0x03030303u << to;
    }
    if (q::has_1) {
        constexpr int to = q::up + q::bits - 1;
        r |= quant_shift(w.ones, 4 * hi + 2 * b + half - to) & 0x01010101u << to;
    }
    return r;
}
/* What makes up for the shift. */
template <dtype TYPE> CU_DEVICE constexpr float quant_unit() {
    return 1.0f / (float)(1 << quant<TYPE>::up);
}

/* Operand A of block b for cu_mma_s8. */
template <dtype TYPE>
CU_DEVICE void quant_bytes(const quant_tile<TYPE> &w, int b, uint32_t a[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = quant_word(w, b, i / 2, i % 2);
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

/* Two of T out of float32, each rounded once. */
CU_DEVICE uint32_t quant_two(float a, float b, __half) {
    return quant_bits(cu_halves(a, b));
}
CU_DEVICE uint32_t quant_two(float a, float b, __nv_bfloat16) {
    return quant_bits(__floats2bfloat162_rn(a, b));
}

/* A byte as a number: a signed integer, or e4m3, whose bits are those of f16, 1 / 256 of it. */
template <dtype TYPE> CU_DEVICE float quant_number(uint32_t word, int byte) {
    if (quant<TYPE>::is_float) {
        const uint32_t x = word >> 8 * byte & 255;
        return quant_float<TYPE>((uint16_t)((x & 0x80) << 8 | (x & 0x7f) << 7)) * 256.0f;
    }
    const uint32_t bits = __byte_perm(word ^ 0x80808080u, 0x4b000000u, 0x7440 + byte);
    return __uint_as_float(bits) - 8388736.0f; /* 2^23 + 128 */
}

/* Two pairs of neighbouring inputs of one output, (2t, 2t + 1) and (2t + 8, 2t + 9), of a word of
 * bytes, times d, plus m: each rounded once to T, since the product is exact in float32. */
template <dtype TYPE, class T>
CU_DEVICE void quant_pairs(uint32_t word, float d, float m, uint32_t out[2]) {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float code = quant_number<TYPE>(word, i);
        v[i] = quant<TYPE>::has_min ? __fmaf_rn(code, d, m) : code * d;
    }
    out[0] = quant_two(v[0], v[2], T());
    out[1] = quant_two(v[1], v[3], T());
}

/* The same of f16 and nibbles, with half of the operations. A code or'ed into the bits of 1024 is 1024 +
 * code; everything before the last operation is exact. word: nibbles, of which half says which. */
template <dtype TYPE>
CU_DEVICE void quant_nibble_pairs(uint32_t word, int half, uint16_t d, uint16_t m,
                                  uint32_t out[2]) {
    /* (word & mask) ^ 1024 (+ 8) */
    const uint32_t magic = TYPE == DT_Q4_0 ? 0x64086408u : 0x64006400u;
#pragma unroll
    for (int i = 0; i < 2; i++) { /* bytes 0, 2; 1, 3 */
        const uint32_t x = cu_lop3<0x6a>(word >> (8 * i + 4 * half), 0x000f000fu, magic);
        const __half2 code = __hsub2(quant_half2(x), quant_half2(magic)),
                      dd = quant_half2(d * 0x10001u), mm = quant_half2(m * 0x10001u);
        out[i] = quant_bits(quant<TYPE>::has_min ? cu_fma2(code, dd, mm) : __hmul2(code, dd));
    }
}

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

/* e4m3 to T, divided by 256: its bits in the upper halves of two numbers. */
CU_DEVICE uint32_t quant_e4m3(uint32_t x, __half) {
    return (x & 0x80008000u) | (x & 0x7f007f00u) >> 1;
}
CU_DEVICE uint32_t quant_e4m3(uint32_t x,
                              __nv_bfloat16) { /* 2^-120 of the number, times 2^112 */
    const uint32_t small = (x & 0x80008000u) | (x & 0x7f007f00u) >> 4, by = 0x77807780u;
    return quant_bits(__hmul2(*(const __nv_bfloat162 *)&small, *(const __nv_bfloat162 *)&by));
}

/* Two pairs of an output's codes in the order of quant_pairs, out of a word of bytes. */
template <dtype TYPE, class T> CU_DEVICE void quant_ints(uint32_t word, uint32_t out[2]) {
    constexpr uint32_t base = quant_base(T());
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if constexpr (quant<TYPE>::is_float) {
            out[i] = quant_e4m3(__byte_perm(word, 0, i ? 0x3414 : 0x2404), T());
        } else {
            /* Seven bits less the eighth, which counts -128. bf16 holds 2^7 with the eighth bit as 2^8,
             * f16 2^10 + 2^7. */
            const uint32_t x = __byte_perm(word, 0, i ? 0x4341 : 0x4240);
            const uint32_t low = cu_lop3<0xea>(x, 0x007f007fu, base);
            out[i] = quant_minus(low, cu_lop3<0xea>(x, 0x00800080u, base), T());
        }
    }
}
/* Of nibbles. */
template <dtype TYPE, class T>
CU_DEVICE void quant_nibble_ints(uint32_t word, int half, uint32_t out[2]) {
    constexpr uint32_t base = quant_base(T());
    const uint32_t magic = TYPE == DT_Q4_0 ? base | 0x00080008u : base;
#pragma unroll
    for (int i = 0; i < 2; i++) /* bytes 0, 2; 1, 3 */
        out[i] = quant_minus(cu_lop3<0x6a>(word >> (8 * i + 4 * half), 0x000f000fu, magic),
                             magic, T());
}
/* What a product of the codes of quant_codes is multiplied by. */
template <dtype TYPE> CU_DEVICE constexpr float quant_codes_unit() {
    return quant<TYPE>::is_float ? 256.0f : quant<TYPE>::is_nibble ? 1.0f : quant_unit<TYPE>();
}

/* A lane's nibbles of block b and output g + 8 * hi. */
template <dtype TYPE>
CU_DEVICE uint32_t quant_nibbles(const quant_tile<TYPE> &w, int b, int hi) {
    const uint4 c = w.codes[0];
    return b ? (hi ? c.w : c.z) : (hi ? c.y : c.x);
}

/* Block b's two fragments of m16n8k16, of 16 inputs each, of the codes. Slots 2t, 2t + 1 | 2t + 8, 2t + 9 of
 * the first are the inputs of these names, of the second the same + 16: as ldmatrix gives the
 * activations. */
template <dtype TYPE, class T>
CU_DEVICE void quant_codes(const quant_tile<TYPE> &w, int b, uint32_t a[2][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int half = i / 2, hi = i % 2;
        uint32_t out[2];
        if (quant<TYPE>::is_nibble)
            quant_nibble_ints<TYPE, T>(quant_nibbles(w, b, hi), half, out);
        else
            quant_ints<TYPE, T>(quant_word(w, b, half, hi), out);
        a[half][hi] = out[0], a[half][2 + hi] = out[1];
    }
}

/* Of the weights, each rounded once to T. */
template <dtype TYPE, class T>
CU_DEVICE void quant_halves(const quant_tile<TYPE> &w, int b, uint32_t a[2][4]) {
    constexpr bool nibbles = quant<TYPE>::is_nibble && quant_base(T()) == quant_base(__half());
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int half = i / 2, hi = i % 2;
        uint32_t out[2];
        if (nibbles)
            quant_nibble_pairs<TYPE>(quant_nibbles(w, b, hi), half,
                                     quant_scale_bits(w, 0, b, hi, half),
                                     quant_scale_bits(w, 1, b, hi, half), out);
        else
            quant_pairs<TYPE, T>(
                quant_word(w, b, half, hi), quant_scale(w, 0, b, hi, half) * quant_unit<TYPE>(),
                quant<TYPE>::has_min ? quant_scale(w, 1, b, hi, half) : 0.0f, out);
        a[half][hi] = out[0], a[half][2 + hi] = out[1];
    }
}

/* ---- single elements ---- */

/* Where input k of output o lies. */
typedef struct quant_place {
    size_t codes, scale; /* of its tile; of d: where m lies says quant_min_after */
    uint32_t lane, byte, b, half, hi;
} quant_place;

template <dtype TYPE>
CU_DEVICE quant_place quant_locate(const quant_view &v, uint32_t o, uint32_t k) {
    typedef quant<TYPE> q;
    const size_t tile = (size_t)(o / PACKED_STRIP) * v.n_chunks + k / PACKED_CHUNK;
    const uint32_t e = k % 16, g = o % 8, block = k / PACKED_BLOCK;
    quant_place p;
    p.b = k / PACKED_BLOCK % 2, p.half = k % PACKED_BLOCK / 16, p.hi = o % 16 / 8;
    p.lane = 4 * g + e % 8 / 2;
    p.byte = e % 2 * 2 + e / 8;
    p.codes = tile * q::code_bytes;
    p.scale = tile * q::scale_bytes + q::scale_bytes / 8 * g;
    p.scale += q::by_16 ? 8 * p.hi + 4 * p.b + 2 * p.half : 4 * p.hi + 2 * p.b;
    if (q::is_float)
        p.scale =
            quant_f8_scales(v, o / PACKED_STRIP, block) - v.scales + 4 * (o % PACKED_STRIP);
    return p;
}
/* Bytes from a scale to its minimum. */
template <dtype TYPE> CU_DEVICE constexpr size_t quant_min_after() {
    return quant<TYPE>::scale_bytes / 16;
}
/* Where its words of each plane begin, in the codes of its tile. */
CU_DEVICE uint32_t quant_at_8(const quant_place &p) {
    return 512 * p.b + 16 * p.lane + 8 * p.half + 4 * p.hi;
}
CU_DEVICE uint32_t quant_at_4(const quant_place &p) {
    return 16 * p.lane + 8 * p.b + 4 * p.hi;
}
template <dtype TYPE> CU_DEVICE uint32_t quant_at_2(const quant_place &p) {
    return quant<TYPE>::at_2 + 8 * p.lane + 4 * p.hi;
}
template <dtype TYPE> CU_DEVICE uint32_t quant_at_1(const quant_place &p) {
    return quant<TYPE>::at_1 + 4 * p.lane;
}

/* What stands in the planes, or the byte. */
template <dtype TYPE>
CU_DEVICE uint32_t quant_stored(const quant_view &v, const quant_place &p) {
    typedef quant<TYPE> q;
    const uint8_t *at = v.codes + p.codes + p.byte;
    if (q::is_byte) return at[quant_at_8(p)];
    uint32_t r = 0;
    if (q::has_4) r = at[quant_at_4(p)] >> 4 * p.half & 15;
    if (q::has_2)
        r |= (at[quant_at_2<TYPE>(p)] >> (4 * p.b + 2 * p.half) & 3) << (q::has_4 ? 4 : 0);
    if (q::has_1)
        r |= (at[quant_at_1<TYPE>(p)] >> (4 * p.hi + 2 * p.b + p.half) & 1) << (q::bits - 1);
    return r;
}

/* The number that a stored code stands for. */
template <dtype TYPE> CU_DEVICE float quant_value(uint32_t code) {
    typedef quant<TYPE> q;
    if (q::is_float) return quant_number<TYPE>(code, 0);
    if (q::is_book) return (float)(int8_t)(quant_book<TYPE>((int)code / 4) >> 8 * (code % 4));
    return q::up || q::is_byte ? (float)((int8_t)(code << q::up) >> q::up) : (float)code;
}

/* Element k of row o of a matrix of any type on the device, in float32: exactly what is stored. */
template <dtype TYPE> CU_DEVICE float quant_at(const quant_view &v, uint32_t o, uint32_t k) {
    if constexpr (TYPE == DT_F16)
        return __half2float(((const __half *)v.codes)[(size_t)o * v.n_in + k]);
    else if constexpr (TYPE == DT_BF16)
        return __bfloat162float(((const __nv_bfloat16 *)v.codes)[(size_t)o * v.n_in + k]);
    else {
        const quant_place p = quant_locate<TYPE>(v, o, k);
        const uint8_t *scale = v.scales + p.scale;
        const float code = quant_value<TYPE>(quant_stored<TYPE>(v, p)),
                    d = quant<TYPE>::is_float ? *(const float *)scale
                                              : quant_float<TYPE>(*(const uint16_t *)scale);
        if (!quant<TYPE>::has_min) return d * code;
        return __fmaf_rn(
            code, d, quant_float<TYPE>(*(const uint16_t *)(scale + quant_min_after<TYPE>())));
    }
}

#endif
