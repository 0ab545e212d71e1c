/* Linear layers with packed weights for tests: inputs, references, and one call with everything
 * around it guarded. */
#ifndef VRAMD_TESTS_LINEAR_RIG_H
#define VRAMD_TESTS_LINEAR_RIG_H

#include "tests/cuda/quant_rig.h"
#include "engine/cuda/packed.h"

/* F8 with a scale for 128 inputs, and for all of rows of 352. */
#define F8_128             ((dtype)(DT_F8 | 2u << 8 | 128u / 32 << 10))
#define F8_352             ((dtype)(DT_F8 | 2u << 8 | 352u / 32 << 10))
#define X(name, type, ...) type,
static const dtype packed_types[] = {CU_PACKED_LIST(X) F8_128, F8_352};
#undef X
/* Types with integers as codes, which int8 activations can meet. */
#define EACH_INT8(t)                                                                           \
    for (dtype t : packed_types)                                                               \
        if (!cu_matrix_is_float(t))

/* The next shape that the type has: blocks of 256 inputs have theirs alone. */
static inline uint32_t inputs_for(dtype t, uint32_t n_in) {
    const uint32_t n = dtype_block_of(t).elems;
    return (n_in + n - 1) / n * n;
}

/* Activations [n_rows][ld] of T, a few channels 20 times the others, as trained models have
 * them; what lies between the rows is NaN. */
struct inputs {
    cu_type t;
    uint32_t n_rows, n_in, ld;
    std::vector<uint16_t> bits;
    device<uint16_t> on_device;
    inputs(cu_type t, uint32_t n_rows, uint32_t n_in, uint64_t seed)
        : t(t), n_rows(n_rows), n_in(n_in), ld(n_in + 8), bits(make(t, n_rows, n_in, seed)),
          on_device(bits) {}
    static std::vector<uint16_t> make(cu_type t, uint32_t rows, uint32_t n_in, uint64_t seed) {
        std::vector<uint16_t> v((size_t)rows * (n_in + 8) - 8, 0x7fff);
        rng r = {seed};
        for (uint32_t i = 0; i < rows; i++)
            for (uint32_t k = 0; k < n_in; k++)
                v[(size_t)i * (n_in + 8) + k] = to_16(t, r.normal() * (k % 97 == 5 ? 20 : 1));
        return v;
    }
    float at(uint32_t row, uint32_t k) const { return from_16(t, bits[(size_t)row * ld + k]); }
};

/* Outputs, and what lies around them, which must stay. */
enum { OUT_GAP = 5 };
static const float OUT_BEFORE = 0.375f; /* exact in every type */

struct guarded_out {
    cu_type type;
    uint32_t n_rows, n_out, ld;
    device<uint8_t> bytes;
    guarded_out(cu_type type, uint32_t n_rows, uint32_t n_out, uint32_t gap = OUT_GAP)
        : type(type), n_rows(n_rows), n_out(n_out), ld(n_out + gap),
          bytes(size_t(cu_type_bytes(type)) * ((size_t)n_rows * ld - gap)) {
        std::vector<uint8_t> v(bytes.n);
        for (size_t i = 0; i < v.size() / cu_type_bytes(type); i++) set(v, i);
        bytes.put(v);
    }
    void set(std::vector<uint8_t> &v, size_t i) const {
        const uint16_t h = to_16(type, OUT_BEFORE);
        if (type == CU_F32)
            memcpy(&v[4 * i], &OUT_BEFORE, 4);
        else
            memcpy(&v[2 * i], &h, 2);
    }
    std::vector<float> get() const {
        const std::vector<uint8_t> v = bytes.get();
        std::vector<float> out;
        for (size_t i = 0; i < v.size() / cu_type_bytes(type); i++) {
            float f;
            uint16_t h;
            memcpy(&f, &v[i * cu_type_bytes(type)], type == CU_F32 ? 4 : 2);
            memcpy(&h, &v[i * cu_type_bytes(type)], 2);
            if (type != CU_F32) f = from_16(type, h);
            if (i % ld < n_out)
                out.push_back(f);
            else
                SWEEP(f == OUT_BEFORE);
        }
        return out;
    }
};

/* Activations as cu_quantize leaves them, read back by packed.h. */
struct quantized {
    uint32_t n_in;
    device<uint8_t> bytes;
    std::vector<uint8_t> host;
    quantized(const inputs &x, uint32_t n_rows)
        : n_in(x.n_in), bytes(cu_quantized_bytes(n_rows, x.n_in)) {
        CUDA_OK(cu_quantize(0, x.t, n_rows, x.n_in, x.ld, x.on_device.p, bytes.p));
        host = bytes.get();
    }
    int code(uint32_t row, uint32_t k) const {
        const uint32_t e = k % 16, t = e % 8 / 2, part = k % 32 / 16, b = k / 32 % 2;
        const size_t at = ((size_t)k / 64 * 8 + row) * 64 + 16 * t + 8 * b + 4 * part;
        return (int8_t)host[at + e % 2 * 2 + e / 8];
    }
    float scale(uint32_t row, uint32_t block) const {
        return word(packed_act_scales_at(n_in), row, block);
    }
    float sum(uint32_t row, uint32_t block) const {
        return word(packed_act_sums_at(n_in), row, block);
    }
    float word(size_t plane, uint32_t row, uint32_t block) const {
        float f;
        memcpy(&f, &host[plane + ((block / 2 * 8 + row) * 2 + block % 2) * 4], 4);
        return f;
    }
};

static inline cu_linear linear_of(const cu_matrix &w, const inputs &x, uint32_t n_rows,
                                  const guarded_out &out, cu_out kind) {
    cu_linear l = {};
    l.w = w;
    l.t = x.t;
    l.n_rows = n_rows;
    l.in = x.on_device.p;
    l.ld_in = x.ld;
    l.out = out.bytes.p;
    l.ld_out = out.ld;
    l.kind = kind;
    return l;
}

/* What blocks that share a tile of outputs leave their sums in. */
struct split_scratch {
    device<uint8_t> bytes;
    explicit split_scratch(uint32_t n_rows) : bytes(cu_split_bytes(n_rows)) {
        CUDA_OK(cudaMemset(bytes.p, 0, CU_SPLIT_COUNTERS));
    }
    void check() const { /* ready for the next call */
        const std::vector<uint8_t> v = bytes.get();
        for (size_t i = 0; i < CU_SPLIT_COUNTERS; i++) SWEEP(v[i] == 0);
    }
};

/* Runs the first n_rows rows of x through w. same_bits: by linear_packed.cu. */
static inline std::vector<float> run_linear(const cu_matrix &w, const inputs &x,
                                            uint32_t n_rows, const float *bias = nullptr,
                                            cu_out kind = CU_OUT_F32, bool same_bits = false) {
    guarded_out out(kind == CU_OUT_T ? x.t : CU_F32, n_rows, w.n_out);
    cu_linear l = linear_of(w, x, n_rows, out, kind);
    l.bias = bias;
    l.same_bits = same_bits;
    if (n_rows <= CU_FEW_ROWS && !same_bits) {
        split_scratch unused(n_rows); /* but by types that int8 activations do not meet */
        quantized q(x, n_rows);
        l.in_q = q.bytes.p, l.split = unused.bytes.p;
        CUDA_OK(cu_linear_quant(0, &l));
        return out.get();
    }
    split_scratch scratch(n_rows);
    l.split = scratch.bytes.p;
    CUDA_OK(cu_linear_quant(0, &l));
    scratch.check();
    return out.get();
}

static inline void assert_same_rows(const std::vector<float> &a, const std::vector<float> &b,
                                    size_t n, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (bits_of_float(a[i]) != bits_of_float(b[i]))
            ck_abort_msg("%s: [%zu] %.9g, not %.9g", what, i, b[i], a[i]);
}

/* A bias is added to the sum, which is then stored as float32, added to what is there, or
 * rounded to T: for every type of weights and activations. */
static inline void assert_kinds(uint32_t n_rows) {
    const uint32_t n_out = 40;
    std::vector<float> bias(n_out);
    for (uint32_t o = 0; o < n_out; o++) bias[o] = 0.25f * (float)o - 3;
    device<float> b(bias);
    for (dtype type : packed_types) ALL_TYPES(t) {
            const uint32_t n_in = inputs_for(type, 160);
            file_matrix f(type, n_out, n_in, 31);
            device_matrix m(f, type);
            inputs x(t, n_rows, n_in, 37);
            const std::vector<float> plain = run_linear(m.w, x, n_rows),
                                     f32 = run_linear(m.w, x, n_rows, b.p),
                                     sum = run_linear(m.w, x, n_rows, b.p, CU_OUT_ADD),
                                     t16 = run_linear(m.w, x, n_rows, b.p, CU_OUT_T);
            for (uint32_t i = 0; i < n_rows * n_out; i++) {
                SWEEP(f32[i] == plain[i] + bias[i % n_out]);
                SWEEP(sum[i] == OUT_BEFORE + f32[i]);
                SWEEP(t16[i] == from_16(t, to_16(t, f32[i])));
            }
        }
}

static inline double act_of(activation act, double g) {
    if (act == ACT_SILU) return g / (1 + exp(-g));
    return 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)));
}

/* got: act(g) * u, computed in float32 and rounded to T. */
static inline void assert_gated(dtype type, cu_type t, activation act,
                                const std::vector<float> &g, const std::vector<float> &u,
                                const std::vector<float> &got) {
    const double unit = t == CU_F16 ? 0x1p-11 : 0x1p-8; /* of T's rounding */
    ck_assert_uint_eq(got.size(), g.size());
    for (size_t i = 0; i < got.size(); i++) {
        const double want = act_of(act, g[i]) * u[i];
        if (!(fabs(got[i] - want) <= fabs(want) * (unit + 1e-4) + 1e-6))
            ck_abort_msg("%s: [%zu] %g, not %g", dtype_name(type), i, got[i], want);
    }
}

/* Every row of outputs is within limit of float64's on the file's values, as a part of its
 * norm. */
static inline void assert_near_float64(const file_matrix &f, const inputs &x,
                                       const std::vector<float> &got, double limit) {
    for (uint32_t r = 0; r < x.n_rows; r++) {
        double off = 0, norm = 0;
        for (uint32_t o = 0; o < f.n_out; o++) {
            double y = 0;
            for (uint32_t k = 0; k < f.n_in; k++)
                y += (double)f.value[(size_t)o * f.n_in + k] * x.at(r, k);
            const double d = got[(size_t)r * f.n_out + o] - y;
            off += d * d;
            norm += y * y;
        }
        ck_assert_msg(sqrt(off / norm) < limit, "%s: %g", dtype_name(f.type), sqrt(off / norm));
    }
}

/* |y - want| <= 2e-6 * sum |w x| of weights rounded to 16 bits, and half a unit of what is stored; each `step`th row.
 * bias: empty where there is none. */
static inline void assert_products(const file_matrix &f, const inputs &x, cu_out kind,
                                   const std::vector<float> &bias,
                                   const std::vector<float> &got, uint32_t step) {
    for (uint32_t r = 0; r < got.size() / f.n_out; r += step)
        for (uint32_t o = 0; o < f.n_out; o++) {
            double y = kind == CU_OUT_ADD ? OUT_BEFORE : 0, size = 0;
            for (uint32_t k = 0; k < f.n_in; k++) {
                const double w = from_16(x.t, to_16(x.t, f.value[(size_t)o * f.n_in + k]));
                y += w * x.at(r, k);
                size += fabs(w * x.at(r, k));
            }
            if (!bias.empty()) y += bias[o];
            const double off = fabs(got[(size_t)r * f.n_out + o] - y);
            if (!(off <= 2e-6 * size + rounding_of(kind == CU_OUT_T ? x.t : CU_F32, y)))
                ck_abort_msg("%s, kind %d: [%u][%u] %g, not %g", dtype_name(f.type), kind, r, o,
                             got[(size_t)r * f.n_out + o], y);
        }
}

/* NaN in one row of inputs makes that row of outputs NaN and changes no bit of another. run(matrix, inputs, rows):
 * their results. */
template <class RUN>
static void assert_nan_stays(RUN run, dtype type, cu_type t, uint32_t n_rows, uint32_t n_in,
                             uint32_t row) {
    const uint32_t n_out = 20;
    file_matrix f(type, n_out, n_in, 3);
    device_matrix m(f, type);
    inputs x(t, n_rows, n_in, 4);
    const std::vector<float> clean = run(m.w, x, n_rows);
    x.bits[(size_t)x.ld * row + n_in - 2] = to_16(t, NAN);
    x.bits[(size_t)x.ld * row + n_in - 1] = to_16(t, INFINITY);
    x.on_device.put(x.bits);
    const std::vector<float> got = run(m.w, x, n_rows);
    for (uint32_t i = 0; i < n_rows * n_out; i++)
        SWEEP(i / n_out == row ? isnan(got[i]) : got[i] == clean[i]);
}
static inline void assert_nan_stays(dtype type, cu_type t, uint32_t n_rows, uint32_t n_in,
                                    uint32_t row) {
    const auto run = [](const cu_matrix &w, const inputs &x, uint32_t n) {
        return run_linear(w, x, n);
    };
    assert_nan_stays(run, type, t, n_rows, n_in, row);
}

/* Packed weights for any number of rows: no rows do nothing; a gate with float32 results, and weights that are not
 * packed, are refused. */
static inline void assert_refusals(cudaError_t linear(cudaStream_t, const cu_linear *),
                                   cudaError_t gate_up(cudaStream_t, const cu_linear *,
                                                       const cu_linear *, activation)) {
    file_matrix f(DT_Q4_0, 16, 64, 3);
    device_matrix m(f, DT_Q4_0);
    inputs x(CU_F16, 9, 64, 4);
    guarded_out out(CU_F32, 9, 16);
    cu_linear l = linear_of(m.w, x, 0, out, CU_OUT_F32);
    CUDA_OK(linear(0, &l));
    CUDA_OK(gate_up(0, &l, &l, ACT_SILU));
    l.n_rows = 9;
    ck_assert(gate_up(0, &l, &l, ACT_SILU) == cudaErrorInvalidValue); /* F32 */
    l.w.type = DT_F16;
    ck_assert(linear(0, &l) == cudaErrorInvalidValue);
    for (float v : out.get()) SWEEP(v == OUT_BEFORE);
}

#endif
