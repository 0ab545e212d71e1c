/* Where attention's tiles come from. Of a cache of f16 or bf16 cp.async brings the tiles
 * themselves. Of a cache of codes it brings codes and words as they lie in the blocks, half as
 * many bytes, and the threads expand them to f16 when the tile is needed. */
#ifndef VRAMD_ENGINE_CUDA_ATTN_CODES_CUH
#define VRAMD_ENGINE_CUDA_ATTN_CODES_CUH

#include "engine/cuda/attn.cuh"
#include "engine/cuda/kv_codes.cuh"

/* Bytes of K and V of ROWS tokens: STAGE as cp.async brings them, EXPANDED beside all stages. */
template <class E, int HD, int ROWS, bool CODES> struct attn_tiles {
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
template <class E, int HD, int ROWS> struct attn_tiles<E, HD, ROWS, true> {
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

#endif
