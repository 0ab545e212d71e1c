/* Tests of unpack.cu and gemm_packed.cu: packed weights turned to 16 bits, slice after slice,
 * and multiplied by the library. */
#include "tests/cuda/library_rig.h"

/* ---- the weights ---- */

START_TEST(unpacked_rows_are_the_file_s_values_rounded_once) {
    static const uint32_t shapes[][4] = {/* outputs, inputs, first row, rows */
                                         {1, 32, 0, 1},      {40, 96, 16, 24},
                                         {130, 160, 0, 130}, {130, 160, 64, 66},
                                         {72, 1120, 0, 64},  {200, 64, 48, 3}};
    for (dtype type : packed_types) ALL_TYPES(t) for (auto &s : shapes) {
            const uint32_t n_in = inputs_for(type, s[1]);
            file_matrix f(type, s[0], n_in, 5);
            device_matrix m(f, type);
            device<uint16_t> out((size_t)s[3] * n_in);
            CUDA_OK(cu_unpack(0, &m.w, t, s[2], s[3], out.p));
            const std::vector<uint16_t> got = out.get();
            for (size_t i = 0; i < got.size(); i++)
                SWEEP(from_16(t, got[i]) ==
                      from_16(t, to_16(t, f.value[(size_t)s[2] * n_in + i])));
        }
}
END_TEST

START_TEST(rows_outside_the_matrix_are_refused) {
    file_matrix f(DT_Q4_0, 72, 64, 7);
    device_matrix m(f, DT_Q4_0);
    device<uint16_t> out(72 * 64);
    ck_assert_int_eq(cu_unpack(0, &m.w, CU_F16, 64, 9, out.p), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_unpack(0, &m.w, CU_F16, 8, 16, out.p), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_unpack(0, &m.w, CU_F16, 80, 1, out.p), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_unpack(0, &m.w, CU_F16, 64, 0, out.p), cudaSuccess);
}
END_TEST

/* ---- the layer ---- */

/* As run_linear, in slices of slice_rows outputs; tuned: after the algorithms were timed. */
static std::vector<float> run_slices(const library &lib, const cu_matrix &w, const inputs &x,
                                     uint32_t slice_rows, cu_out kind, bool tuned) {
    const uint32_t gap = 8 + (8 - w.n_out % 8) % 8;
    guarded_out out(kind == CU_OUT_T ? x.t : CU_F32, x.n_rows, w.n_out, gap);
    device<uint8_t> memory((size_t)slice_rows * w.n_in * 2);
    const gemm_scratch scratch = {memory.p, memory.n, NULL, 0};
    const cu_linear l = linear_of(w, x, x.n_rows, out, kind);
    ck_assert_uint_le(cu_slice_rows(w.n_out, w.n_in, scratch.bytes), slice_rows);
    ck_assert(gemm_takes_packed(&l));
    if (tuned) {
        guarded_out other(out.type, x.n_rows, w.n_out, gap);
        const cu_linear timed = linear_of(w, x, x.n_rows, other, kind);
        err e;
        CUDA_OK(
            cu_unpack(0, &w, x.t, 0, cu_slice_rows(w.n_out, w.n_in, scratch.bytes), memory.p));
        ck_assert_msg(gemm_tune_packed(lib.lt, 0, &timed, &scratch, &e) == OK, "%s", e.text);
    }
    CUDA_OK(gemm_run_packed(lib.lt, 0, &l, &scratch));
    return out.get();
}

START_TEST(slices_give_the_products_of_the_rounded_weights_in_every_kind_of_output) {
    /* rows, outputs, inputs, outputs of a slice at most: one slice, equal ones, a short last
     * one that ends within a tile. */
    static const uint32_t shapes[][4] = {
        {65, 40, 96, 64}, {70, 256, 160, 128}, {130, 330, 96, 128}, {65, 65, 1120, 64}};
    const library lib;
    for (dtype type : packed_types)
        for (auto &s : shapes) {
            const cu_type t = (s[0] + type) % 2 ? CU_F16 : CU_BF16;
            const uint32_t n_in = inputs_for(type, s[2]);
            file_matrix f(type, s[1], n_in, 8);
            device_matrix m(f, type);
            inputs x(t, s[0], n_in, 9);
            for (cu_out kind : {CU_OUT_T, CU_OUT_F32, CU_OUT_ADD})
                for (bool tuned : {false, true})
                    assert_products(f, x, kind, {}, run_slices(lib, m.w, x, s[3], kind, tuned),
                                    1);
        }
}
END_TEST

START_TEST(few_rows_same_bits_and_unaligned_outputs_are_left_to_the_kernels) {
    cu_linear l = {};
    l.w.type = DT_Q4_1, l.w.n_out = l.w.n_in = 64;
    l.n_rows = 65, l.ld_out = 72, l.kind = CU_OUT_T;
    ck_assert(gemm_takes_packed(&l));
    cu_linear x = l;
    x.n_rows = 64;
    ck_assert(!gemm_takes_packed(&x));
    x = l, x.same_bits = true;
    ck_assert(!gemm_takes_packed(&x));
    x = l, x.w.type = DT_F16;
    ck_assert(!gemm_takes_packed(&x));
    x = l, x.ld_out = 68;
    ck_assert(!gemm_takes_packed(&x));
    x.kind = CU_OUT_F32;
    ck_assert(gemm_takes_packed(&x));
    x.out = (void *)8;
    ck_assert(!gemm_takes_packed(&x));
}
END_TEST

CHECK_MAIN("gemm_packed", unpacked_rows_are_the_file_s_values_rounded_once,
           rows_outside_the_matrix_are_refused,
           slices_give_the_products_of_the_rounded_weights_in_every_kind_of_output,
           few_rows_same_bits_and_unaligned_outputs_are_left_to_the_kernels)
