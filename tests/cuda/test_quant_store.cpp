/* Tests of cu_matrix_store, cu_matrix_random and the readers of quant.cuh: what was stored
 * comes back, bit for bit; what becomes 16 bits is rounded once. */
#include "tests/cuda/linear_rig.h"

#include "engine/cuda/quant.cuh"

#include <stdio.h>

template <dtype TYPE> __global__ void read_all(quant_view v, uint32_t n_out, float *out) {
    for (uint32_t o = blockIdx.x; o < n_out; o += gridDim.x)
        for (uint32_t k = threadIdx.x; k < v.n_in; k += blockDim.x)
            out[(size_t)o * v.n_in + k] = quant_at<TYPE>(v, o, k);
}

/* Every fragment a warp holds, put where its element belongs. */
template <dtype TYPE, class T>
__global__ void read_fragments(quant_view v, uint32_t n_in, uint16_t *out) {
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    const quant_tile<TYPE> w = quant_read<TYPE>(v, blockIdx.y, blockIdx.x, lane);
    for (int b = 0; b < 2; b++) {
        uint32_t a[2][4];
        quant_halves<TYPE, T>(w, b, a);
        for (int step = 0; step < 2; step++)
            for (int i = 0; i < 8; i++) {
                const uint32_t o = blockIdx.y * 16 + g + (i / 2 % 2) * 8;
                const uint32_t k =
                    blockIdx.x * 64 + b * 32 + step * 16 + i / 4 * 8 + 2 * t + i % 2;
                if (k < n_in)
                    out[(size_t)o * n_in + k] = (uint16_t)(a[step][i / 2] >> 16 * (i % 2));
            }
    }
}

template <dtype TYPE> static void launch_read(const cu_matrix *w, float *out) {
    CU_LAUNCH((read_all<TYPE>), 3, 64, 0, 0, quant_view_of(w), w->n_out, out);
}

static std::vector<float> values_of(const cu_matrix &w) {
    device<float> out((size_t)w.n_out * w.n_in);
    switch (w.type) {
    case DT_F16: launch_read<DT_F16>(&w, out.p); break;
    case DT_BF16: launch_read<DT_BF16>(&w, out.p); break;
    default:
        CUDA_OK(quant_by_type(w.type, [&](auto type) {
            launch_read<decltype(type)::value>(&w, out.p);
            return cudaSuccess;
        }));
    }
    CUDA_OK(cudaGetLastError());
    return out.get();
}

static void assert_same(const std::vector<float> &a, const std::vector<float> &b) {
    SWEEP(a.size() == b.size());
    for (size_t i = 0; i < a.size(); i++)
        if (bits_of_float(a[i]) != bits_of_float(b[i]))
            ck_abort_msg("[%zu] %.9g, not %.9g", i, b[i], a[i]);
}

START_TEST(packed_rows_are_exactly_the_values_of_the_file) {
    static const uint32_t outs[] = {1, 16, 31, 130}, ins[] = {32, 64, 96, 576};
    for (dtype t : packed_types)
        for (uint32_t n_out : outs)
            for (uint32_t n_in : ins) {
                if (n_in != inputs_for(t, n_in)) n_in = inputs_for(t, 256 + n_in);
                file_matrix f(t, n_out, n_in, 7 + n_in);
                device_matrix m(f, t, n_out > 64 ? 64 : 0);
                assert_same(f.value, values_of(m.w));
            }
}
END_TEST

/* Those of published files are float32: of 24 bits, and of any size. */
START_TEST(scales_of_f8_are_exact) {
    for (dtype t : {CU_F8, F8_128, F8_352}) {
        const uint32_t n_in = inputs_for(t, 96), group = dtype_group(t);
        file_matrix f(t, 40, n_in, 5);
        for (size_t g = 0; g < f.value.size() / group; g++) {
            uint8_t *p = f.raw.data() + g * (group + 4);
            const float d = ldexpf(1 + (float)(g % 7) * 0x1.234566p-3f, (int)(g % 120) - 60);
            memcpy(p, &d, 4);
            for (uint32_t i = 0; i < group; i++) f.value[g * group + i] = d * e4m3_of(p[4 + i]);
        }
        device_matrix m(f, t);
        assert_same(f.value, values_of(m.w));
    }
}
END_TEST

/* 8 bits a weight, and 32 for each scale. */
START_TEST(f8_has_the_bytes_of_its_codes_and_scales) {
    ck_assert_uint_eq(cu_matrix_bytes(CU_F8, 64, 256), 64 * 256 + 64 * 8 * 4);
    ck_assert_uint_eq(cu_matrix_bytes(F8_128, 64, 256), 64 * 256 + 64 * 2 * 4);
    ck_assert_uint_eq(cu_matrix_bytes(F8_352, 64, 352), 64 * 384 + 64 * 4);
    ck_assert_uint_eq(cu_matrix_bytes(F8_352, 64, 704), 64 * 704 + 64 * 22 * 4);
}
END_TEST

/* Blocks made and read by PyPI's gguf: numbers of the rows whose scales are ordinary ones, which are
 * rounded to f16 where they are products. */
START_TEST(golden_blocks_have_the_values_of_gguf) {
    enum { ORDINARY_FROM = 7, ORDINARY = 7 };
    FILE *f = fopen("tests/golden/quants.bin", "rb");
    ck_assert_msg(f != NULL, "tests/golden/quants.bin: run this in the repository's root");
    uint32_t head[3], n_types = 0;
    while (fread(head, 4, 3, f) == 3) {
        const dtype t = (dtype)head[0];
        const uint32_t n_out = head[1], n_in = head[2];
        const dtype_block size = dtype_block_of(t);
        std::vector<uint8_t> file((size_t)n_out * n_in / size.elems * size.bytes);
        std::vector<float> want((size_t)n_out * n_in);
        ck_assert(fread(file.data(), 1, file.size(), f) == file.size());
        ck_assert(fread(want.data(), 4, want.size(), f) == want.size());
        if (!cu_matrix_is_packed(t)) continue;
        n_types++;
        device<uint8_t> raw(file), bytes(cu_matrix_bytes(t, n_out, n_in));
        const cu_matrix w = {bytes.p, t, n_out, n_in};
        CUDA_OK(cu_matrix_store(0, &w, t, 0, n_out, raw.p));
        const std::vector<float> got = values_of(w);
        const bool products = size.elems == 256;
        for (uint32_t o = ORDINARY_FROM; o < ORDINARY_FROM + ORDINARY; o++) {
            float most = 0;
            for (uint32_t k = 0; k < n_in; k++)
                most = fmaxf(most, fabsf(want[(size_t)o * n_in + k]));
            for (uint32_t k = 0; k < n_in; k++) {
                const size_t at = (size_t)o * n_in + k;
                if (!(fabsf(got[at] - want[at]) <= (products ? 0x1p-10f : 0x1p-23f) * most))
                    ck_abort_msg("%s [%u][%u]: %g, not %g", dtype_name(t), o, k, got[at],
                                 want[at]);
            }
        }
    }
    fclose(f);
    ck_assert_uint_eq(n_types, 10); /* all of CU_PACKED_LIST but F8 */
}
END_TEST

START_TEST(padding_is_zero_and_storing_does_not_write_beyond_its_rows) {
    for (dtype t : packed_types) {
        const uint32_t n_in = inputs_for(t, 96), wide_in = (n_in + 63) / 64 * 64;
        file_matrix f(t, 21, n_in, 3);
        device_matrix m(f, t);
        cu_matrix padded = m.w;
        padded.n_out = 32;
        const std::vector<float> v = values_of(padded);
        for (size_t i = f.value.size(); i < v.size(); i++) SWEEP(v[i] == 0);
        /* Columns 96 .. 127 of the view as if they existed. */
        padded.n_in = wide_in;
        if (t == F8_352) padded.type = dtype_grouped(DT_F8, DT_F32, wide_in); /* one scale */
        const std::vector<float> wide = values_of(padded);
        for (size_t i = 0; i < wide.size(); i++) SWEEP(i % wide_in < n_in || wide[i] == 0);
        /* A row rewritten in the middle leaves its neighbours alone. */
        file_matrix other(t, 1, n_in, 4);
        device<uint8_t> raw(other.raw);
        CUDA_OK(cu_matrix_store(0, &m.w, t, 9, 1, raw.p));
        std::vector<float> want = f.value;
        memcpy(&want[(size_t)9 * n_in], other.value.data(), n_in * sizeof(float));
        assert_same(want, values_of(m.w));
    }
}
END_TEST

template <class T>
static void launch_fragments(const cu_matrix &w, std::vector<uint16_t> *out) {
    device<uint16_t> o((size_t)packed_strips(w.n_out) * 16 * w.n_in);
    const quant_view v = quant_view_of(&w);
    const dim3 grid(v.n_chunks, v.n_strips);
    CUDA_OK(quant_by_type(w.type, [&](auto type) {
        constexpr dtype TYPE = decltype(type)::value;
        CU_LAUNCH((read_fragments<TYPE, T>), grid, 32, 0, 0, v, w.n_in, o.p);
        return cudaGetLastError();
    }));
    *out = o.get();
}

START_TEST(fragments_are_the_values_rounded_once) {
    for (dtype t : packed_types)
        for (cu_type type : {CU_F16, CU_BF16}) {
            file_matrix f(t, 32, inputs_for(t, 160), 11);
            device_matrix m(f, t);
            std::vector<uint16_t> got;
            if (type == CU_F16)
                launch_fragments<__half>(m.w, &got);
            else
                launch_fragments<__nv_bfloat16>(m.w, &got);
            for (size_t i = 0; i < f.value.size(); i++) {
                const float want = from_16(type, to_16(type, f.value[i]));
                if (from_16(type, got[i]) != want)
                    ck_abort_msg("%s to %d: [%zu] %g, not %g", dtype_name(t), type, i,
                                 from_16(type, got[i]), want);
            }
        }
}
END_TEST

START_TEST(floats_become_the_16_bit_type_by_one_rounding) {
    static const dtype from[] = {DT_F32, DT_F16, DT_BF16};
    for (dtype t : from)
        for (dtype to : {DT_F16, DT_BF16}) {
            const cu_type type = to == DT_F16 ? CU_F16 : CU_BF16;
            file_matrix f(t, 37, 72, 5);
            device_matrix m(f, to, 5);
            std::vector<float> want = f.value;
            for (float &v : want) v = from_16(type, to_16(type, v));
            assert_same(want, values_of(m.w));
        }
}
END_TEST

START_TEST(a_type_that_does_not_fit_the_matrix_is_refused) {
    device<uint8_t> bytes(4096);
    const cu_matrix w = {bytes.p, DT_Q4_0, 16, 64}, f = {bytes.p, DT_F16, 16, 64};
    ck_assert(cu_matrix_store(0, &w, DT_Q4_1, 0, 16, bytes.p) == cudaErrorInvalidValue);
    ck_assert(cu_matrix_store(0, &f, DT_Q4_0, 0, 16, bytes.p) == cudaErrorInvalidValue);
    ck_assert(cu_matrix_store(0, &w, DT_Q4_0, 0, 0, bytes.p) == cudaSuccess);
}
END_TEST

START_TEST(random_weights_have_mean_0_and_the_deviation_asked_for_and_follow_the_seed) {
    std::vector<dtype> all(packed_types, std::end(packed_types));
    all.insert(all.end(), {DT_F16, DT_BF16});
    for (dtype t : all) {
        const uint32_t n_out = 120, n_in = inputs_for(t, 544);
        std::vector<float> runs[3];
        for (int i = 0; i < 3; i++) {
            device<uint8_t> bytes(cu_matrix_bytes(t, n_out, n_in));
            const cu_matrix w = {bytes.p, t, n_out, n_in};
            CUDA_OK(cu_matrix_random(0, &w, i == 2 ? 9 : 8));
            runs[i] = values_of(w);
        }
        double sum = 0, squares = 0;
        for (float v : runs[0]) sum += v, squares += (double)v * v;
        const double n = (double)runs[0].size(), sd = sqrt(squares / n * n_in);
        ck_assert_msg(fabs(sum / n) * sqrt(n_in) < 0.02, "%s: mean %g", dtype_name(t), sum / n);
        ck_assert_msg(fabs(sd - 1) < 0.02, "%s: deviation %g", dtype_name(t), sd);
        assert_same(runs[0], runs[1]);
        ck_assert(memcmp(runs[0].data(), runs[2].data(), runs[0].size() * 4) != 0);
    }
}
END_TEST

CHECK_MAIN("quant_store", packed_rows_are_exactly_the_values_of_the_file,
           scales_of_f8_are_exact, f8_has_the_bytes_of_its_codes_and_scales,
           golden_blocks_have_the_values_of_gguf,
           padding_is_zero_and_storing_does_not_write_beyond_its_rows,
           fragments_are_the_values_rounded_once, floats_become_the_16_bit_type_by_one_rounding,
           a_type_that_does_not_fit_the_matrix_is_refused,
           random_weights_have_mean_0_and_the_deviation_asked_for_and_follow_the_seed)
