/* Each wrapper of engine/cuda/hopper.cuh against plain arithmetic: on the shim this tests what stands in for
 * the instructions, on a device of compute capability 9.0 what the hardware does. Others skip it. */
#include "engine/cuda/hopper.cuh"
#include "tests/cuda/rig.h"

static bool is_hopper() {
    int major = 0, minor = 0;
    CUDA_OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    CUDA_OK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    return major == 9 && minor == 0;
}

static rng dice = {1};

/* ---- products */

enum { K = 64, M = 64 };

/* Element k of row r in a tile. */
CU_DEVICE uint32_t place(uint32_t r, uint32_t k) {
    return r * 64 + ((k / 8) ^ (r & 7)) * 8 + k % 8;
}

/* By one warpgroup: d = a * b^T, or c + that, in four products. a: [M][K], b: [N][K]. */
template <int N, class T, bool A_SHARED>
__global__ void __launch_bounds__(128)
    k_product(float *out, const uint16_t *a, const uint16_t *b, const float *c) {
    CU_DYN_SHARED(uint8_t, memory);
    uint16_t *tile = (uint16_t *)(memory + (-cu_shared_address(memory) & (CU_TILE_ALIGN - 1))),
             *a_tile = tile + N * K;
    for (uint32_t i = threadIdx.x; i < N * K; i += 128) tile[place(i / K, i % K)] = b[i];
    for (uint32_t i = threadIdx.x; i < M * K; i += 128) a_tile[place(i / K, i % K)] = a[i];
    cu_fence_async();
    __syncthreads();
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
    uint32_t fragment[4][4];
    for (uint32_t s = 0; s < 4; s++)
        for (uint32_t r = 0; r < 4; r++) {
            const uint16_t *p =
                a + (16 * warp + g + r % 2 * 8) * K + 16 * s + 2 * t + r / 2 * 8;
            fragment[s][r] = p[0] | (uint32_t)p[1] << 16;
        }
    float d[N / 2];
    for (uint32_t i = 0; i < N / 2; i++)
        d[i] = c ? c[(16 * warp + g + i / 2 % 2 * 8) * N + i / 4 * 8 + 2 * t + i % 2] : 0;
    const uint64_t in_a = cu_wgmma_desc(cu_shared_address(a_tile)),
                   in_b = cu_wgmma_desc(cu_shared_address(tile));
    cu_wgmma_hold(d);
    cu_wgmma_fence();
#pragma unroll
    for (int s = 0; s < 4; s++) {
        if (A_SHARED)
            cu_wgmma(d, in_a + s * CU_WGMMA_STEP, in_b + s * CU_WGMMA_STEP, c || s, T());
        else
            cu_wgmma(d, fragment[s], in_b + s * CU_WGMMA_STEP, c || s, T());
    }
    cu_wgmma_commit();
    cu_wgmma_wait<0>();
    cu_wgmma_hold(d);
    for (uint32_t i = 0; i < N / 2; i++)
        out[(16 * warp + g + i / 2 % 2 * 8) * N + i / 4 * 8 + 2 * t + i % 2] = d[i];
}

/* The bound is that of mma (test_prim.cpp), of each of four products. */
template <int N, class T, bool A_SHARED> static void check_product(cu_type t, bool add) {
    std::vector<uint16_t> a(M * K), b(N * K);
    std::vector<float> c(M * N);
    for (uint16_t &v : a) v = to_16(t, dice.normal());
    for (uint16_t &v : b) v = to_16(t, dice.normal());
    for (float &v : c) v = dice.normal();
    device<uint16_t> da(a), db(b);
    device<float> dc(c), d(M * N);
    CU_LAUNCH((k_product<N, T, A_SHARED>), 1, 128, (N + M) * K * 2 + CU_TILE_ALIGN, nullptr,
              d.p, da.p, db.p, add ? dc.p : nullptr);
    CUDA_OK(cudaGetLastError());
    const std::vector<float> out = d.get();
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double want = add ? c[i * N + j] : 0, size = fabs(want);
            for (int k = 0; k < K; k++) {
                const double p = (double)from_16(t, a[i * K + k]) * from_16(t, b[j * K + k]);
                want += p;
                size += fabs(p);
            }
            SWEEP(fabs(out[i * N + j] - want) <= 4 * 17 * 0x1p-23 * size);
        }
}

template <bool A_SHARED> static void check_products() {
    for (bool add : {false, true}) {
        check_product<64, __half, A_SHARED>(CU_F16, add);
        check_product<128, __half, A_SHARED>(CU_F16, add);
        check_product<64, __nv_bfloat16, A_SHARED>(CU_BF16, add);
        check_product<128, __nv_bfloat16, A_SHARED>(CU_BF16, add);
    }
}

START_TEST(wgmma_multiplies_registers_by_a_tile) {
    if (is_hopper()) check_products<false>();
}
END_TEST

START_TEST(wgmma_multiplies_two_tiles) {
    if (is_hopper()) check_products<true>();
}
END_TEST

/* A column of the result is the same whatever the others are, and however many there are. */
START_TEST(a_column_of_wgmma_depends_on_its_row_of_b_alone) {
    if (!is_hopper()) return;
    std::vector<uint16_t> a(M * K), b(128 * K);
    for (uint16_t &v : a) v = to_16(CU_F16, dice.normal());
    for (uint16_t &v : b) v = to_16(CU_F16, dice.normal());
    std::vector<uint16_t> few(b.begin(), b.begin() + 64 * K);
    for (int k = 0; k < K; k++) few[7 * K + k] = to_16(CU_F16, NAN);
    device<uint16_t> da(a), db(b), df(few);
    device<float> all(M * 128), some(M * 64);
    CU_LAUNCH((k_product<128, __half, false>), 1, 128, (128 + M) * K * 2 + CU_TILE_ALIGN,
              nullptr, all.p, da.p, db.p, nullptr);
    CU_LAUNCH((k_product<64, __half, false>), 1, 128, (64 + M) * K * 2 + CU_TILE_ALIGN, nullptr,
              some.p, da.p, df.p, nullptr);
    const std::vector<float> x = all.get(), y = some.get();
    for (int i = 0; i < M; i++)
        for (int j = 0; j < 64; j++)
            SWEEP(j == 7 ? isnan(y[i * 64 + j]) : y[i * 64 + j] == x[i * 128 + j]);
}
END_TEST

/* ---- a ring of two stages: a warp copies in bulk, a warpgroup sums up */

enum { STAGES = 2, WORDS = 256 };

__global__ void __launch_bounds__(160) k_ring(uint32_t *out, const uint32_t *in, uint32_t n) {
    CU_SHARED(uint64_t, full, STAGES);
    CU_SHARED(uint64_t, empty, STAGES);
    CU_DYN_SHARED(uint32_t, ring);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++)
            cu_mbar_init(full + i, 1), cu_mbar_init(empty + i, 128);
        cu_mbar_ready();
    }
    __syncthreads();
    if (threadIdx.x >= 128) {
        for (uint32_t i = 0; i < n && threadIdx.x == 128; i++) {
            const uint32_t s = i % STAGES;
            if (i >= STAGES) cu_mbar_wait(empty + s, (i / STAGES - 1) % 2);
            cu_mbar_expect(full + s, WORDS * 4);
            for (uint32_t part = 0; part < WORDS; part += WORDS / 4)
                cu_bulk_copy(ring + s * WORDS + part, in + i * WORDS + part, WORDS, full + s);
        }
    } else {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t s = i % STAGES;
            cu_mbar_wait(full + s, i / STAGES % 2);
            for (uint32_t w = threadIdx.x; w < WORDS; w += 128)
                sum = sum * 31 + ring[s * WORDS + w];
            cu_mbar_arrive(empty + s);
        }
        out[threadIdx.x] = sum;
    }
}

START_TEST(bulk_copies_go_through_a_ring_in_order) {
    if (!is_hopper()) return;
    for (uint32_t n : {1u, 2u, 3u, 11u}) {
        std::vector<uint32_t> in(n * WORDS);
        for (uint32_t &v : in) v = (uint32_t)dice.u64();
        device<uint32_t> d(in), out(128);
        CU_LAUNCH(k_ring, 1, 160, STAGES * WORDS * 4, nullptr, out.p, d.p, n);
        CUDA_OK(cudaGetLastError());
        const std::vector<uint32_t> got = out.get();
        for (uint32_t t = 0; t < 128; t++) {
            uint32_t sum = 0;
            for (uint32_t i = 0; i < n; i++)
                for (uint32_t w = t; w < WORDS; w += 128) sum = sum * 31 + in[i * WORDS + w];
            ck_assert_uint_eq(got[t], sum);
        }
    }
}
END_TEST

/* ---- barriers of some of the threads, and registers that move between warpgroups */

/* Bounds as for three warpgroups: 168 registers of a thread when it begins. */
__global__ void __launch_bounds__(384, 1) k_halves(uint32_t *out) {
    CU_SHARED(uint32_t, s, 256);
    const uint32_t group = threadIdx.x / 128, i = threadIdx.x % 128;
    if (group == 0)
        cu_registers_fewer<40>();
    else
        cu_registers_more<208>();
    for (uint32_t round = 0; round < 3; round++) {
        s[threadIdx.x] = threadIdx.x + round;
        cu_named_barrier((int)group + 1, 128);
        const uint32_t got = s[128 * group + 127 - i];
        cu_named_barrier((int)group + 1, 128);
        if (round == 2) out[threadIdx.x] = got;
    }
}

START_TEST(named_barriers_join_their_threads) {
    if (!is_hopper()) return;
    device<uint32_t> out(256);
    CU_LAUNCH(k_halves, 1, 256, 0, nullptr, out.p);
    CUDA_OK(cudaGetLastError());
    const std::vector<uint32_t> got = out.get();
    for (uint32_t t = 0; t < 256; t++)
        ck_assert_uint_eq(got[t], t / 128 * 128 + 127 - t % 128 + 2);
}
END_TEST

CHECK_MAIN("hopper", wgmma_multiplies_registers_by_a_tile, wgmma_multiplies_two_tiles,
           a_column_of_wgmma_depends_on_its_row_of_b_alone,
           bulk_copies_go_through_a_ring_in_order, named_barriers_join_their_threads)
