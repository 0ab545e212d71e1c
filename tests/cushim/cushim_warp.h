/* Warp collectives, and the twins of the PTX wrappers of engine/cuda/cu.h: the last lane of the
 * mask to arrive computes for all, through pointers into the stacks of the others. */
#ifndef VRAMD_TESTS_CUSHIM_WARP_H
#define VRAMD_TESTS_CUSHIM_WARP_H

/* Computes a collective: in[l] and out[l] of every lane l in lanes. */
typedef void (*cushim_collective_fn)(uint32_t lanes, const void *const in[32],
                                     void *const out[32]);

/* Waits until all lanes of mask that have not exited are here with the same fn and mask;
 * anything else is a fault. whole_warp: all 32 lanes must take part (mma, ldmatrix). */
void cushim_collective(uint32_t mask, cushim_collective_fn fn, const void *in, void *out,
                       bool whole_warp);

#define CUSHIM_LANES(l, lanes)                                                                 \
    for (uint32_t l = 0; l < 32; l++)                                                          \
        if ((lanes) >> l & 1)

static inline void __syncwarp(uint32_t mask = 0xffffffffu) {
    cushim_collective(
        mask, [](uint32_t, const void *const[32], void *const[32]) {}, nullptr, nullptr, false);
}

/* ---- Shuffles. Reading a lane outside the mask gives all ones (NaN). */

enum cushim_shuffle { CUSHIM_XOR, CUSHIM_INDEX, CUSHIM_DOWN, CUSHIM_UP };

template <cushim_shuffle MODE> static inline int cushim_source(int lane, int arg, int width) {
    int base = lane & ~(width - 1), offset = lane - base, src = offset;
    if (MODE == CUSHIM_XOR) src = offset ^ arg;
    if (MODE == CUSHIM_INDEX) src = arg & (width - 1);
    if (MODE == CUSHIM_DOWN) src = offset + arg;
    if (MODE == CUSHIM_UP) src = offset - arg;
    return src < 0 || src >= width ? lane : base + src;
}

template <class T, cushim_shuffle MODE>
static inline T cushim_shfl(uint32_t mask, T v, int arg, int width) {
    struct input {
        T v;
        int arg, width;
    } in = {v, arg, width};
    static_assert(sizeof(T) <= 8, "shuffles take 4 or 8 bytes");
    T result;
    cushim_collective(
        mask,
        [](uint32_t lanes, const void *const in[32], void *const out[32]) {
            CUSHIM_LANES(l, lanes) {
                const input *i = (const input *)in[l];
                int src = cushim_source<MODE>((int)l, i->arg, i->width);
                if (lanes >> src & 1)
                    memcpy(out[l], &((const input *)in[src])->v, sizeof(T));
                else
                    memset(out[l], 0xff, sizeof(T));
            }
        },
        &in, &result, false);
    return result;
}

template <class T> static inline T __shfl_sync(uint32_t m, T v, int lane, int width = 32) {
    return cushim_shfl<T, CUSHIM_INDEX>(m, v, lane, width);
}
template <class T> static inline T __shfl_xor_sync(uint32_t m, T v, int x, int width = 32) {
    return cushim_shfl<T, CUSHIM_XOR>(m, v, x, width);
}
template <class T>
static inline T __shfl_down_sync(uint32_t m, T v, unsigned delta, int width = 32) {
    return cushim_shfl<T, CUSHIM_DOWN>(m, v, (int)delta, width);
}
template <class T>
static inline T __shfl_up_sync(uint32_t m, T v, unsigned delta, int width = 32) {
    return cushim_shfl<T, CUSHIM_UP>(m, v, (int)delta, width);
}

/* ---- Votes */

static inline uint32_t __ballot_sync(uint32_t mask, int predicate) {
    uint32_t result;
    cushim_collective(
        mask,
        [](uint32_t lanes, const void *const in[32], void *const out[32]) {
            uint32_t bits = 0;
            CUSHIM_LANES(l, lanes) bits |= (uint32_t)(*(const int *)in[l] != 0) << l;
            CUSHIM_LANES(l, lanes) * (uint32_t *)out[l] = bits;
        },
        &predicate, &result, false);
    return result;
}
static inline int __any_sync(uint32_t mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(uint32_t mask, int predicate) {
    return __ballot_sync(mask, !predicate) == 0;
}

template <class T> static inline uint32_t __match_any_sync(uint32_t mask, T v) {
    uint32_t result;
    cushim_collective(
        mask,
        [](uint32_t lanes, const void *const in[32], void *const out[32]) {
            CUSHIM_LANES(l, lanes) {
                uint32_t bits = 0;
                CUSHIM_LANES(m, lanes) bits |= (uint32_t)!memcmp(in[l], in[m], sizeof(T)) << m;
                *(uint32_t *)out[l] = bits;
            }
        },
        &v, &result, false);
    return result;
}

uint32_t cushim_active_mask();
#define __activemask() cushim_active_mask()

/* ---- Reductions: integers in any order, floats as a butterfly (16, 8, 4, 2, 1) */

template <class T, class OP> static inline T cushim_reduce(uint32_t mask, T v, OP) {
    T result;
    cushim_collective(
        mask,
        [](uint32_t lanes, const void *const in[32], void *const out[32]) {
            T r = *(const T *)in[__builtin_ctz(lanes)];
            CUSHIM_LANES(l, lanes & (lanes - 1)) r = OP::of(r, *(const T *)in[l]);
            CUSHIM_LANES(l, lanes) * (T *)out[l] = r;
        },
        &v, &result, false);
    return result;
}
#define CUSHIM_REDUCE(name, T, expression)                                                     \
    static inline T name(uint32_t mask, T v) {                                                 \
        struct op {                                                                            \
            static T of(T a, T b) { return expression; }                                       \
        };                                                                                     \
        return cushim_reduce(mask, v, op());                                                   \
    }
CUSHIM_REDUCE(__reduce_add_sync, unsigned, a + b)
CUSHIM_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
CUSHIM_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
CUSHIM_REDUCE(__reduce_add_sync, int, (int)((unsigned)a + (unsigned)b))
CUSHIM_REDUCE(__reduce_min_sync, int, a < b ? a : b)
CUSHIM_REDUCE(__reduce_max_sync, int, a > b ? a : b)
CUSHIM_REDUCE(__reduce_and_sync, unsigned, a &b)
CUSHIM_REDUCE(__reduce_or_sync, unsigned, a | b)
CUSHIM_REDUCE(__reduce_xor_sync, unsigned, a ^ b)

void cushim_sum_f32(uint32_t lanes, const void *const in[32], void *const out[32]);
void cushim_max_f32(uint32_t lanes, const void *const in[32], void *const out[32]);

static inline float cu_warp_sum(float v) {
    float result;
    cushim_collective(0xffffffffu, cushim_sum_f32, &v, &result, true);
    return result;
}
static inline float cu_warp_max(float v) {
    float result;
    cushim_collective(0xffffffffu, cushim_max_f32, &v, &result, true);
    return result;
}

/* ---- Tensor cores and ldmatrix (contract: engine/cuda/cu.h) */

struct cushim_fragments {
    const uint32_t *a, *b;
};
void cushim_mma_f16(uint32_t lanes, const void *const in[32], void *const out[32]);
void cushim_mma_bf16(uint32_t lanes, const void *const in[32], void *const out[32]);
void cushim_mma_s8(uint32_t lanes, const void *const in[32], void *const out[32]);
void cushim_ldmatrix_x4(uint32_t lanes, const void *const in[32], void *const out[32]);
void cushim_ldmatrix_x4_trans(uint32_t lanes, const void *const in[32], void *const out[32]);
void cushim_ldmatrix_x2(uint32_t lanes, const void *const in[32], void *const out[32]);
void cushim_ldmatrix_x2_trans(uint32_t lanes, const void *const in[32], void *const out[32]);

static inline void cu_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    cushim_fragments in = {a, b};
    cushim_collective(0xffffffffu, cushim_mma_f16, &in, d, true);
}
static inline void cu_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    cushim_fragments in = {a, b};
    cushim_collective(0xffffffffu, cushim_mma_bf16, &in, d, true);
}
static inline void cu_mul_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    d[0] = d[1] = d[2] = d[3] = 0;
    cu_mma_f16(d, a, b);
}
static inline void cu_mul_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    d[0] = d[1] = d[2] = d[3] = 0;
    cu_mma_bf16(d, a, b);
}
static inline void cu_mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2]) {
    cushim_fragments in = {a, b};
    cushim_collective(0xffffffffu, cushim_mma_s8, &in, d, true);
}
static inline void cu_mma_s8_16(int32_t d[4], const uint32_t a[2], uint32_t b) {
    const uint32_t a32[4] = {a[0], a[1], 0, 0}, b32[2] = {b, 0};
    cu_mma_s8(d, a32, b32);
}
static inline void cu_ldmatrix_x4(uint32_t r[4], const void *row) {
    cushim_collective(0xffffffffu, cushim_ldmatrix_x4, row, r, true);
}
static inline void cu_ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    cushim_collective(0xffffffffu, cushim_ldmatrix_x4_trans, row, r, true);
}
static inline void cu_ldmatrix_x2(uint32_t r[2], const void *row) {
    cushim_collective(0xffffffffu, cushim_ldmatrix_x2, row, r, true);
}
static inline void cu_ldmatrix_x2_trans(uint32_t r[2], const void *row) {
    cushim_collective(0xffffffffu, cushim_ldmatrix_x2_trans, row, r, true);
}

/* ---- cp.async: the destination is NaN from the copy on until its group is waited for */

void cu_cp_async16_zfill(void *shared, const void *global, int src_bytes);
void cu_cp_async_commit();
void cushim_cp_async_wait(uint32_t n);

static inline void cu_cp_async16(void *shared, const void *global) {
    cu_cp_async16_zfill(shared, global, 16);
}
template <int N> static inline void cu_cp_async_wait() {
    static_assert(N >= 0, "groups under way");
    cushim_cp_async_wait(N);
}

/* ---- Order of grids */

static inline void cu_grid_trigger() {}
void cushim_grid_wait(); /* until all threads of the block are here, in an order that hides */
static inline void cu_grid_wait() {
    if (!cushim_cur->waited) cushim_grid_wait();
    cushim_cur->waited = true;
}

/* ---- Bits and numbers */

template <int LUT> static inline uint32_t cu_lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r = 0;
    for (int i = 0; i < 8; i++)
        if (LUT >> i & 1) r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return r;
}

static inline __half2 cu_fma2(__half2 a, __half2 b, __half2 c) {
    const float2 x = __half22float2(a), y = __half22float2(b), z = __half22float2(c);
    return __halves2half2(__double2half((double)x.x * y.x + z.x),
                          __double2half((double)x.y * y.y + z.y));
}

static inline __half2 cu_halves(float lo, float hi) {
    const float most = 65504.0f; /* a comparison with NaN is false: NaN passes */
    lo = lo > most ? most : lo < -most ? -most : lo;
    hi = hi > most ? most : hi < -most ? -most : hi;
    return __floats2half2_rn(lo, hi);
}

static inline float cu_ex2(float x) {
    float r = exp2f(x);
    return r < 1.17549435e-38f ? 0.0f : r; /* ftz */
}

static inline uint4 cu_ld_stream(const void *global) {
    if ((uintptr_t)global & 15) cushim_fault("cu_ld_stream: %p is not 16-byte aligned", global);
    return *(const uint4 *)global;
}

#endif
