/* Intrinsics of the device language that the engine uses, where <math.h> and NVIDIA's headers
 * have none for the host. Fast-math ones are exact here: a test's tolerance must allow for the
 * device's (CUDA C++ Programming Guide, "Mathematical Functions"). */
#ifndef VRAMD_TESTS_CUSHIM_MATH_H
#define VRAMD_TESTS_CUSHIM_MATH_H

/* ---- float */

/* Macros, because glibc's <math.h> declares these names. */
#define __expf    expf
#define __exp10f  exp10f
#define __logf    logf
#define __log2f   log2f
#define __sinf    sinf
#define __cosf    cosf
#define __sincosf sincosf
#define __powf    powf
CU_DEVICE float __fdividef(float a, float b) {
    return a / b;
}
CU_DEVICE float __fadd_rn(float a, float b) {
    return a + b;
}
CU_DEVICE float __fsub_rn(float a, float b) {
    return a - b;
}
CU_DEVICE float __fmul_rn(float a, float b) {
    return a * b;
}
CU_DEVICE float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
CU_DEVICE float __fdiv_rn(float a, float b) {
    return a / b;
}
CU_DEVICE float __frcp_rn(float a) {
    return 1.0f / a;
}
CU_DEVICE float __fsqrt_rn(float a) {
    return sqrtf(a);
}
CU_DEVICE float __frsqrt_rn(float a) {
    return (float)(1.0 / sqrt((double)a));
}
CU_DEVICE float __saturatef(float a) {
    return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f;
}
/* Not contracted on the device, whatever stands around them. */
CU_DEVICE double __dadd_rn(double a, double b) {
    return a + b;
}
CU_DEVICE double __dmul_rn(double a, double b) {
    return a * b;
}
CU_DEVICE float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}

/* ---- conversions: out of range saturates, NaN gives 0, as on the device */

CU_DEVICE int cushim_to_int(float rounded) {
    if (rounded != rounded) return 0;
    if (rounded >= 2147483648.0f) return 2147483647;
    return rounded < -2147483648.0f ? -2147483647 - 1 : (int)rounded;
}
CU_DEVICE int __float2int_rn(float x) {
    return cushim_to_int(rintf(x));
}
CU_DEVICE int __float2int_rz(float x) {
    return cushim_to_int(truncf(x));
}
CU_DEVICE int __float2int_rd(float x) {
    return cushim_to_int(floorf(x));
}
CU_DEVICE int __float2int_ru(float x) {
    return cushim_to_int(ceilf(x));
}
CU_DEVICE unsigned __float2uint_rn(float x) {
    float r = rintf(x);
    return r > 0.0f ? (r >= 4294967296.0f ? 0xffffffffu : (unsigned)r) : 0u;
}
CU_DEVICE float __int2float_rn(int x) {
    return (float)x;
}
CU_DEVICE float __uint2float_rn(unsigned x) {
    return (float)x;
}

template <class TO, class FROM> static inline TO cushim_bits(FROM v) {
    static_assert(sizeof(TO) == sizeof(FROM), "");
    TO r;
    memcpy(&r, &v, sizeof r);
    return r;
}
CU_DEVICE int __float_as_int(float x) {
    return cushim_bits<int>(x);
}
CU_DEVICE unsigned __float_as_uint(float x) {
    return cushim_bits<unsigned>(x);
}
CU_DEVICE float __int_as_float(int x) {
    return cushim_bits<float>(x);
}
CU_DEVICE float __uint_as_float(unsigned x) {
    return cushim_bits<float>(x);
}
CU_DEVICE double __longlong_as_double(long long x) {
    return cushim_bits<double>(x);
}
CU_DEVICE long long __double_as_longlong(double x) {
    return cushim_bits<long long>(x);
}

/* ---- integers */

CU_DEVICE int __popc(unsigned x) {
    return __builtin_popcount(x);
}
CU_DEVICE int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
CU_DEVICE int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
CU_DEVICE int __clzll(long long x) {
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
CU_DEVICE int __ffs(int x) {
    return __builtin_ffs(x);
}
CU_DEVICE unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
    return r;
}
CU_DEVICE unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
CU_DEVICE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
CU_DEVICE int __mulhi(int a, int b) {
    return (int)((int64_t)a * b >> 32);
}
CU_DEVICE unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((uint64_t)hi << 32 | lo) << (n & 31) >> 32);
}
CU_DEVICE unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (n & 31));
}
CU_DEVICE unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    uint64_t bytes = (uint64_t)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        r |= ((unsigned)(bytes >> 8 * (selector >> 4 * i & 7)) & 0xff) << 8 * i;
    }
    return r;
}
CU_DEVICE int __dp4a(int a, int b, int c) {
    unsigned r = (unsigned)c;
    for (int i = 0; i < 32; i += 8) r += (unsigned)((int8_t)(a >> i) * (int8_t)(b >> i));
    return (int)r;
}
CU_DEVICE unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 32; i += 8) c += (a >> i & 0xff) * (b >> i & 0xff);
    return c;
}
/* Bytewise; the four do not borrow from each other. */
CU_DEVICE unsigned __vsub4(unsigned a, unsigned b) {
    unsigned r = 0;
    for (int i = 0; i < 32; i += 8) r |= (((a >> i) - (b >> i)) & 0xff) << i;
    return r;
}
CU_DEVICE unsigned __vadd4(unsigned a, unsigned b) {
    unsigned r = 0;
    for (int i = 0; i < 32; i += 8) r |= (((a >> i) + (b >> i)) & 0xff) << i;
    return r;
}
CU_DEVICE unsigned __vsubss4(unsigned a, unsigned b) { /* signed, saturating */
    unsigned r = 0;
    for (int i = 0; i < 32; i += 8) {
        int d = (int8_t)(a >> i) - (int8_t)(b >> i);
        d = d > 127 ? 127 : d < -128 ? -128 : d;
        r |= ((unsigned)d & 0xff) << i;
    }
    return r;
}

CU_DEVICE int min(int a, int b) {
    return a < b ? a : b;
}
CU_DEVICE int max(int a, int b) {
    return a > b ? a : b;
}
CU_DEVICE unsigned min(unsigned a, unsigned b) {
    return a < b ? a : b;
}
CU_DEVICE unsigned max(unsigned a, unsigned b) {
    return a > b ? a : b;
}
CU_DEVICE unsigned min(int a, unsigned b) {
    return min((unsigned)a, b);
}
CU_DEVICE unsigned max(int a, unsigned b) {
    return max((unsigned)a, b);
}
CU_DEVICE unsigned min(unsigned a, int b) {
    return min(a, (unsigned)b);
}
CU_DEVICE unsigned max(unsigned a, int b) {
    return max(a, (unsigned)b);
}
CU_DEVICE long min(long a, long b) {
    return a < b ? a : b;
}
CU_DEVICE long max(long a, long b) {
    return a > b ? a : b;
}
CU_DEVICE unsigned long min(unsigned long a, unsigned long b) {
    return a < b ? a : b;
}
CU_DEVICE unsigned long max(unsigned long a, unsigned long b) {
    return a > b ? a : b;
}
CU_DEVICE long long min(long long a, long long b) {
    return a < b ? a : b;
}
CU_DEVICE long long max(long long a, long long b) {
    return a > b ? a : b;
}
CU_DEVICE float min(float a, float b) {
    return fminf(a, b);
}
CU_DEVICE float max(float a, float b) {
    return fmaxf(a, b);
}

/* ---- memory: loads and stores with cache hints, fences. One thread runs at a time, from one
 * barrier to the next: a fence has nothing to order. */

template <class T> static inline T __ldg(const T *p) {
    return *p;
}
template <class T> static inline T __ldcg(const T *p) {
    return *p;
}
template <class T> static inline T __ldcs(const T *p) {
    return *p;
}
template <class T> static inline T __ldca(const T *p) {
    return *p;
}
template <class T> static inline void __stcg(T *p, T v) {
    *p = v;
}
template <class T> static inline void __stcs(T *p, T v) {
    *p = v;
}
CU_DEVICE void __threadfence() {}
CU_DEVICE void __threadfence_block() {}
CU_DEVICE void __threadfence_system() {}

#define __trap() cushim_fault("__trap() at %s:%d", __FILE__, __LINE__)

/* ---- atomics: return what was there */

#define CUSHIM_ATOMIC(name, expression)                                                        \
    template <class T, class U> static inline T name(T *p, U arg) {                            \
        T old = *p, v = (T)arg;                                                                \
        *p = (T)(expression);                                                                  \
        return old;                                                                            \
    }
CUSHIM_ATOMIC(atomicAdd, old + v)
CUSHIM_ATOMIC(atomicSub, old - v)
CUSHIM_ATOMIC(atomicMin, v < old ? v : old)
CUSHIM_ATOMIC(atomicMax, v > old ? v : old)
CUSHIM_ATOMIC(atomicAnd, old &v)
CUSHIM_ATOMIC(atomicOr, old | v)
CUSHIM_ATOMIC(atomicXor, old ^ v)
CUSHIM_ATOMIC(atomicExch, v)
CUSHIM_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
#undef CUSHIM_ATOMIC

template <class T, class U, class V> static inline T atomicCAS(T *p, U compare, V value) {
    T old = *p;
    if (old == (T)compare) *p = (T)value;
    return old;
}

#endif
