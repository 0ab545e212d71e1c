/* Rows of a packed matrix as 16-bit numbers, each rounded once, and of F8 as its codes, for the
 * GEMMs of the library. Bound by memory: a lane reads 16 bytes of codes at a time, and four lanes
 * transpose their pairs of inputs into units of eight neighbours, which they store at once. */
#include "engine/cuda/quant.cuh"

#include "engine/cuda/gemm.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

enum { WARPS = 4 }; /* of a block */

/* Lane t of four: x[u] of lane i becomes x[i] of lane u. */
CU_DEVICE void transpose_four(uint32_t x[4], int t) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(0xffffffffu, t & 1 ? x[i] : x[i + 1], 1);
        if (t & 1)
            x[i] = got;
        else
            x[i + 1] = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t got = __shfl_xor_sync(0xffffffffu, t & 2 ? x[i] : x[i + 2], 2);
        if (t & 2)
            x[i] = got;
        else
            x[i + 2] = got;
    }
}

/* row: of the tile's first output. All lanes of the warp. */
template <dtype TYPE, class T>
CU_DEVICE void put_tile(const quant_tile<TYPE> &w, uint32_t row, uint32_t n_rows, uint32_t k,
                        uint32_t n_in, int lane, T *out) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int b = 0; b < 2; b++) {
        uint32_t a[2][4];
        quant_halves<TYPE, T>(w, b, a);
#pragma unroll
        for (int hi = 0; hi < 2; hi++) {
            uint32_t x[4] = {a[0][hi], a[0][2 + hi], a[1][hi], a[1][2 + hi]};
            transpose_four(x, t);
            const uint32_t r = row + g + 8 * hi, col = k + PACKED_BLOCK * b + 8 * t;
            if (r < n_rows && col < n_in)
                *(uint4 *)(out + (size_t)r * n_in + col) = make_uint4(x[0], x[1], x[2], x[3]);
        }
    }
}

/* out: [n_rows][n_in], from strip first_strip on. A warp takes one tile: several times as many
 * bytes are written as read, so a warp's own reads need not overlap. */
template <dtype TYPE, class T>
static __global__ void __launch_bounds__(32 * WARPS)
    k_unpack(quant_view v, uint32_t first_strip, uint32_t n_rows, T *out) {
    cu_grid_trigger();
    const int lane = (int)(threadIdx.x % 32);
    const uint32_t tile = blockIdx.x * WARPS + threadIdx.x / 32, strip = tile / v.n_chunks;
    const bool inside = strip * PACKED_STRIP < n_rows; /* the same for all lanes */
    const quant_tile<TYPE> w =
        quant_read<TYPE>(v, first_strip + (inside ? strip : 0), tile % v.n_chunks, lane);
    cu_grid_wait();
    if (inside)
        put_tile<TYPE, T>(w, strip * PACKED_STRIP, n_rows, tile % v.n_chunks * PACKED_CHUNK,
                          v.n_in, lane, out);
}

/* The same of F8's codes: pairs of two rows make a word, which four lanes transpose at once. */
CU_DEVICE void put_codes(const quant_tile<CU_F8> &w, uint32_t row, uint32_t n_rows, uint32_t k,
                         uint32_t n_in, int lane, uint8_t *out) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int b = 0; b < 2; b++) {
        const uint4 c = w.codes[b];
        uint32_t x[4] = {__byte_perm(c.x, c.y, 0x6420), __byte_perm(c.x, c.y, 0x7531),
                         __byte_perm(c.z, c.w, 0x6420), __byte_perm(c.z, c.w, 0x7531)};
        transpose_four(x, t);
#pragma unroll
        for (int hi = 0; hi < 2; hi++) {
            const uint32_t r = row + g + 8 * hi, col = k + PACKED_BLOCK * b + 8 * t;
            const uint32_t half = hi ? 0x7632 : 0x5410;
            if (r < n_rows && col < n_in)
                *(uint2 *)(out + (size_t)r * n_in + col) =
                    make_uint2(__byte_perm(x[0], x[1], half), __byte_perm(x[2], x[3], half));
        }
    }
}

static __global__ void __launch_bounds__(32 * WARPS)
    k_unpack_codes(quant_view v, uint32_t first_strip, uint32_t n_rows, uint8_t *out) {
    cu_grid_trigger();
    const int lane = (int)(threadIdx.x % 32);
    const uint32_t tile = blockIdx.x * WARPS + threadIdx.x / 32, strip = tile / v.n_chunks;
    const bool inside = strip * PACKED_STRIP < n_rows;
    const uint32_t chunk = tile % v.n_chunks;
    const quant_tile<CU_F8> w =
        quant_read<CU_F8>(v, first_strip + (inside ? strip : 0), chunk, lane);
    cu_grid_wait();
    if (inside)
        put_codes(w, strip * PACKED_STRIP, n_rows, chunk * PACKED_CHUNK, v.n_in, lane, out);
}

cudaError_t cu_unpack_codes(cudaStream_t s, const cu_matrix *w, uint32_t row, uint32_t n,
                            void *out) {
    if (n == 0) return cudaSuccess;
    if (!cu_matrix_is_float(w->type) || row % PACKED_STRIP || row > w->n_out ||
        n > w->n_out - row)
        return cudaErrorInvalidValue;
    const quant_view v = quant_view_of(w);
    const uint32_t tiles = packed_strips(n) * v.n_chunks;
    CU_LAUNCH_EARLY(k_unpack_codes, cu_ceil_div(tiles, WARPS), 32 * WARPS, 0, s, v,
                    row / PACKED_STRIP, n, (uint8_t *)out);
    return cudaGetLastError();
}

template <dtype TYPE, class T>
static cudaError_t launch_unpack(cudaStream_t s, const cu_matrix *w, uint32_t row, uint32_t n,
                                 T *out) {
    const quant_view v = quant_view_of(w);
    const uint32_t tiles = packed_strips(n) * v.n_chunks;
    CU_LAUNCH_EARLY((k_unpack<TYPE, T>), cu_ceil_div(tiles, WARPS), 32 * WARPS, 0, s, v,
                    row / PACKED_STRIP, n, out);
    return cudaGetLastError();
}

cudaError_t cu_unpack(cudaStream_t s, const cu_matrix *w, cu_type t, uint32_t row, uint32_t n,
                      void *out) {
    if (n == 0) return cudaSuccess;
    if (row % PACKED_STRIP || row > w->n_out || n > w->n_out - row)
        return cudaErrorInvalidValue;
    return cu_by_type(t, [&](auto type) {
        using T = decltype(type);
        return quant_by_type(w->type, [&](auto packed) {
            return launch_unpack<decltype(packed)::value, T>(s, w, row, n, (T *)out);
        });
    });
}
