/* Where attention's tiles come from. Of a cache of f16 or bf16 cp.async brings the tiles
 * themselves. Of a cache of codes it brings codes and words as they lie in the blocks, half as
 * many bytes or fewer, and the threads expand them to f16 when the tile is needed. Tiles of a
 * tail come straight to where others are expanded: they are few. */
#ifndef VRAMD_ENGINE_CUDA_ATTN_CODES_CUH
#define VRAMD_ENGINE_CUDA_ATTN_CODES_CUH

#include "engine/cuda/attn.cuh"
#include "engine/cuda/kv_codes.cuh"

/* Bytes of K and V of ROWS tokens: STAGE as cp.async brings them, EXPANDED beside all stages. */
template <class E, int HD, int ROWS, attn_form FORM> struct attn_tiles {
    static constexpr int TILE = ROWS * attn_row<HD>::STRIDE; /* elements of K, and of V */
    static constexpr int STAGE = 2 * TILE * 2, EXPANDED = 0;

    template <int THREADS, class F>
    CU_DEVICE void load(const attn_pages &p, unsigned char *stage, int first, int lo, int hi,
                        int i, F block_of) {
        E *k = (E *)stage;
        attn_load<E, HD, ROWS, THREADS>(p, k, k + TILE, first, lo, hi, i, block_of);
    }
};

/* A stage: K codes [ROWS][HD], K words [SEGMENTS][ROWS], then those of V. */
template <class E, int HD, int ROWS> struct attn_tiles<E, HD, ROWS, ATTN_BYTES> {
    static constexpr int TILE = ROWS * attn_row<HD>::STRIDE;
    static constexpr int CODES = ROWS * HD, WORDS = cu_attn_most_segments(HD) * ROWS * 2;
    static constexpr int STAGE = 2 * (CODES + WORDS), EXPANDED = 2 * TILE * 2;
    static_assert(HD % 16 == 0 && ROWS % 8 == 0, "whole granules of codes and of words");

    /* As attn_load. Words are 8 to a granule: a granule is read where any of its tokens is
     * seen. */
    template <int THREADS, class F>
    CU_DEVICE void load(const attn_pages &p, unsigned char *stage, int first, int lo, int hi,
                        int i, F block_of) {
        constexpr int G = HD / 16;
        const int mask = (1 << p.block_shift) - 1;
        for (int n = i; n < ROWS * G; n += THREADS) {
            const int row = n / G, c = n % G, token = first + row;
            const bool seen = token >= lo && token <= hi && c < (int)p.granules / 2;
            const unsigned char *src = p.k;
            if (seen)
                src += (uint64_t)(uint32_t)block_of(row, token) * p.block_stride +
                       (token & mask) * p.row_bytes + c * 16;
            unsigned char *to = stage + row * HD + c * 16;
            cu_cp_async16_zfill(to, src, seen ? 16 : 0);
            cu_cp_async16_zfill(to + CODES + WORDS, seen ? src + p.v_offset : src,
                                seen ? 16 : 0);
        }
        for (int n = i; n < WORDS / 16; n += THREADS) {
            const int segment = n / (ROWS / 8), row = n % (ROWS / 8) * 8, token = first + row;
            const bool seen = token + 7 >= lo && token <= hi && segment < (int)p.segments;
            const unsigned char *src = p.k;
            if (seen)
                src += (uint64_t)(uint32_t)block_of(row, max(token, lo)) * p.block_stride +
                       p.words_at + (((segment << p.block_shift) + (token & mask)) * 2);
            unsigned char *to = stage + CODES + segment * ROWS * 2 + row * 2;
            cu_cp_async16_zfill(to, src, seen ? 16 : 0);
            cu_cp_async16_zfill(to + CODES + WORDS, seen ? src + p.v_words : src,
                                seen ? 16 : 0);
        }
    }

    /* The stage's K and V as tiles at k and k + TILE, by THREADS threads of which this is number
     * i; tokens outside [lo, hi] become zeros, whatever their slots hold. */
    template <int THREADS>
    CU_DEVICE void expand(const attn_pages &p, const unsigned char *stage, E *k, int first,
                          int lo, int hi, int i) {
        constexpr int G = HD / 16;
        for (int n = i; n < 2 * ROWS * G; n += THREADS) {
            const int of_v = n / (ROWS * G), row = n / G % ROWS, c = n % G, token = first + row;
            const unsigned char *from = stage + of_v * (CODES + WORDS);
            E *tile = k + of_v * TILE;
            uint32_t out[8] = {};
            if (token >= lo && token <= hi && c < (int)p.granules / 2) {
                const int segment = c * 16 >> p.segment_shift;
                const __half word =
                    *(const __half *)(from + CODES + (segment * ROWS + row) * 2);
                const __half2 d = __float2half2_rn(__half2float(word) * p.code_scale);
                const uint4 codes = *(const uint4 *)(from + row * HD + c * 16);
                const uint32_t *w = (const uint32_t *)&codes;
#pragma unroll
                for (int j = 0; j < 4; j++) kv_codes_to_f16(w[j], p.fp8, d, out + 2 * j);
            }
            *(uint4 *)(tile + attn_row<HD>::at(row, 2 * c)) =
                make_uint4(out[0], out[1], out[2], out[3]);
            *(uint4 *)(tile + attn_row<HD>::at(row, 2 * c + 1)) =
                make_uint4(out[4], out[5], out[6], out[7]);
        }
    }
};

/* Sixteen codes to f16. */
CU_DEVICE void attn_expand16(dtype type, const unsigned char *codes, uint16_t word,
                             uint32_t out[8]) {
    if (type == DT_INT4) {
        const uint2 w = *(const uint2 *)codes;
        kv_int4_to_f16(w.x, word, out);
        kv_int4_to_f16(w.y, word, out + 4);
        return;
    }
    const bool fp8 = type == DT_FP8;
    const float scale = __half2float(__ushort_as_half(word)) * (fp8 ? 256.0f : 1.0f);
    const __half2 d = __float2half2_rn(scale);
    const uint4 w = *(const uint4 *)codes;
    kv_codes_to_f16(w.x, fp8, d, out), kv_codes_to_f16(w.y, fp8, d, out + 2);
    kv_codes_to_f16(w.z, fp8, d, out + 4), kv_codes_to_f16(w.w, fp8, d, out + 6);
}

/* A stage: K codes [ROWS][bytes of a token], in a place for 8 bits each, K words
 * [SEGMENTS][ROWS], then those of V. */
template <class E, int HD, int ROWS> struct attn_tiles<E, HD, ROWS, ATTN_CODES> {
    static constexpr int TILE = ROWS * attn_row<HD>::STRIDE;
    static constexpr int CODES = ROWS * HD, WORDS = cu_attn_most_segments(HD) * ROWS * 2;
    static constexpr int STAGE = 2 * (CODES + WORDS), EXPANDED = 2 * TILE * 2;
    static_assert(HD % 16 == 0 && ROWS % 8 == 0, "whole granules of codes and of words");

    /* Of K or V of eight tokens, which lie in one block and there one after the other: whole
     * granules, whatever the bytes of a token. */
    CU_DEVICE void load_eight(const attn_coded &x, const unsigned char *part, int row,
                              int token, unsigned char *to, int lane) {
        for (int g = lane; g < (int)x.row_bytes / 2; g += 32)
            cu_cp_async16_zfill(to + row * (int)x.row_bytes + g * 16,
                                part + x.codes_at + token * (int)x.row_bytes + g * 16, 16);
    }

    /* As attn_load. Codes and words of eight tokens are read where any of them is seen. */
    template <int THREADS, class F>
    CU_DEVICE void load(const attn_pages &p, unsigned char *stage, int first, int lo, int hi,
                        int i, F block_of) {
        const int mask = (1 << p.block_shift) - 1;
#pragma unroll 1
        for (int run = i / 32; run < ROWS / 8; run += THREADS / 32) {
            const int row = run * 8, token = first + row;
            if (token + 7 < lo || token > hi) continue;
            const unsigned char *part =
                p.k + (uint64_t)(uint32_t)block_of(row, max(token, lo)) * p.block_stride;
            unsigned char *to = stage;
#pragma unroll
            for (int s = 0; s < 2; s++, to += CODES + WORDS)
                load_eight(p.side[s], part, row, token & mask, to, i % 32);
        }
#pragma unroll
        for (int s = 0; s < 2; s++) {
            const attn_coded &x = p.side[s];
            for (int n = i; n < (int)x.segments * (ROWS / 8); n += THREADS) {
                const int segment = n / (ROWS / 8), row = n % (ROWS / 8) * 8;
                const int token = first + row;
                if (token + 7 < lo || token > hi) continue;
                const unsigned char *part =
                    p.k + (uint64_t)(uint32_t)block_of(row, max(token, lo)) * p.block_stride;
                cu_cp_async16_zfill(
                    stage + s * (CODES + WORDS) + CODES + (segment * ROWS + row) * 2,
                    part + x.words_at + ((segment << p.block_shift) + (token & mask)) * 2, 16);
            }
        }
    }

    /* As that of ATTN_BYTES. */
    template <int THREADS>
    CU_DEVICE void expand(const attn_pages &p, const unsigned char *stage, E *k, int first,
                          int lo, int hi, int i) {
        constexpr int G = HD / 16;
#pragma unroll
        for (int s = 0; s < 2; s++) {
            const attn_coded &x = p.side[s];
            const unsigned char *from = stage + s * (CODES + WORDS);
            const int chunk = (int)x.row_bytes * 16 / ((int)p.granules * 8);
            for (int n = i; n < ROWS * G; n += THREADS) {
                const int row = n / G, c = n % G, token = first + row;
                uint32_t out[8] = {};
                if (token >= lo && token <= hi && c < (int)p.granules / 2) {
                    const int segment = c * 16 >> x.segment_shift;
                    const uint16_t word =
                        *(const uint16_t *)(from + CODES + (segment * ROWS + row) * 2);
                    attn_expand16(x.type, from + row * (int)x.row_bytes + c * chunk, word, out);
                }
                E *tile = k + s * TILE;
                *(uint4 *)(tile + attn_row<HD>::at(row, 2 * c)) =
                    make_uint4(out[0], out[1], out[2], out[3]);
                *(uint4 *)(tile + attn_row<HD>::at(row, 2 * c + 1)) =
                    make_uint4(out[4], out[5], out[6], out[7]);
            }
        }
    }
};

/* What the row at a position sees of a cache: the newest skip tokens are not there, and of the
 * others those of a window (0: all). */
struct attn_reach {
    int skip;
    uint32_t window;
};
/* kv_first_seen (memory/plan.h) on the device. */
CU_DEVICE int attn_first_seen(const attn_reach &r, int pos) {
    return r.window && (uint32_t)pos >= r.window ? pos - (int)r.window + 1 : 0;
}
CU_DEVICE int attn_last_seen(const attn_reach &r, int pos) {
    return pos - r.skip;
}
/* For attn_mask, whose positions are then skip lower. */
CU_DEVICE int attn_span(const attn_reach &r) {
    return r.window ? (int)r.window - r.skip : 1 << 30;
}
/* Of the cache itself, and of the tail beside it. */
CU_DEVICE attn_reach attn_reach_of(const attn_args &a) {
    return attn_reach{a.tail ? (int)KV_TAIL_TOKENS : 0, a.window};
}
CU_DEVICE attn_reach attn_tail_reach_of(const attn_args &a) {
    const bool narrow = a.window && a.window < (uint32_t)KV_TAIL_TOKENS;
    return attn_reach{0, narrow ? a.window : (uint32_t)KV_TAIL_TOKENS};
}

#endif
