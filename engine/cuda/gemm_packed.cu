/* Packed weights for many rows: a slice of the matrix is turned to T in scratch memory, where
 * the library's GEMM multiplies it into its columns of the output; then the next slice, in the
 * same memory. The library multiplies rows of hundreds several times as fast as linear_packed.cu,
 * which pays for writing and reading the weights once more.
 *
 * Of F8 the slice may be of codes, which meet activations as codes: the library's float32 sums stand
 * behind the slice until their scales are applied (w8a8.cu). */
#include "engine/cuda/gemm.h"
#include "engine/cuda/w8a8.h"

bool gemm_takes_packed(const cu_linear *l) {
    const size_t width = l->kind == CU_OUT_T ? 2 : 4;
    return cu_matrix_is_packed(l->w.type) && l->n_rows > CU_MANY_ROWS && !l->same_bits &&
           l->ld_out * width % 16 == 0 && (uintptr_t)l->out % 16 == 0;
}

bool gemm_takes_codes(const cu_linear *l, const gemm_scratch *s) {
    return s->codes && l->n_rows <= s->most_rows && gemm_takes_packed(l) &&
           cu_w8a8_takes(l->w.type, l->w.n_out, l->w.n_in);
}

/* The product with n outputs from row on, as if their 16-bit weights lay in scratch. */
static cu_linear slice_of(const cu_linear *l, uint32_t row, uint32_t n, const gemm_scratch *s) {
    cu_linear x = *l;
    x.w.data = s->data;
    x.w.type = l->t == CU_BF16 ? DT_BF16 : DT_F16;
    x.w.n_out = n;
    x.out = (char *)l->out + (size_t)row * (l->kind == CU_OUT_T ? 2 : 4);
    return x;
}

static uint32_t next_slice(const cu_linear *l, uint32_t row, const gemm_scratch *s) {
    const uint32_t n = cu_slice_rows(l->w.n_out, l->w.n_in, s->bytes), left = l->w.n_out - row;
    return n < left ? n : left;
}

/* ---- codes ---- */

static uint32_t next_codes(const cu_linear *l, uint32_t row, const gemm_scratch *s) {
    const uint32_t n = cu_w8a8_slice(l->w.n_out, l->w.n_in, s->most_rows, s->bytes),
                   left = l->w.n_out - row;
    return n < left ? n : left;
}

static float *sums_of(const cu_linear *l, uint32_t n, const gemm_scratch *s) {
    return (float *)((char *)s->data + (size_t)n * l->w.n_in);
}

/* The sums of n outputs' products of codes. */
static cu_linear codes_of(const cu_linear *l, uint32_t n, const gemm_scratch *s) {
    cu_linear x = *l;
    x.w.data = s->data, x.w.n_out = n;
    x.in = s->codes, x.ld_in = l->w.n_in;
    x.out = sums_of(l, n, s), x.ld_out = n, x.kind = CU_OUT_F32;
    return x;
}

/* Activations as random as the weights: their codes. */
static void fill_codes(cudaStream_t st, const cu_linear *l, uint32_t n, const gemm_scratch *s) {
    const size_t all = (size_t)l->n_rows * l->w.n_in, some = (size_t)n * l->w.n_in;
    cudaError_t e = cu_unpack_codes(st, &l->w, 0, n, s->data);
    for (size_t at = 0; at < all && e == cudaSuccess; at += some)
        e = cudaMemcpyAsync((char *)s->codes + at, s->data, all - at < some ? all - at : some,
                            cudaMemcpyDeviceToDevice, st);
}

static status tune_codes(gemm *g, cudaStream_t st, const cu_linear *l, const gemm_scratch *s,
                         err *er) {
    status code = OK;
    for (uint32_t row = 0, n; row < l->w.n_out && code == OK; row += n) {
        n = next_codes(l, row, s);
        const cu_linear x = codes_of(l, n, s);
        if (gemm_known(g, &x, CU_MANY_ROWS)) continue;
        fill_codes(st, l, n, s); /* what is wrong with the device, timing says */
        code = gemm_tune(g, st, &x, CU_MANY_ROWS, er);
    }
    return code;
}

static cudaError_t run_codes(gemm *g, cudaStream_t st, const cu_linear *l,
                             const gemm_scratch *s) {
    cudaError_t e = cu_w8a8_codes(st, l, s->codes);
    for (uint32_t row = 0, n; row < l->w.n_out && e == cudaSuccess; row += n) {
        n = next_codes(l, row, s);
        const cu_linear x = codes_of(l, n, s);
        e = cu_unpack_codes(st, &l->w, row, n, s->data);
        if (e == cudaSuccess) e = gemm_run(g, st, &x);
        if (e == cudaSuccess) e = cu_w8a8_scales(st, l, s->codes, row, n, (const float *)x.out);
    }
    return e;
}

/* ---- */

status gemm_tune_packed(gemm *g, cudaStream_t st, const cu_linear *l, const gemm_scratch *s,
                        err *er) {
    status code = OK;
    if (gemm_takes_codes(l, s)) return tune_codes(g, st, l, s, er);
    for (uint32_t row = 0, n; row < l->w.n_out && code == OK; row += n) {
        n = next_slice(l, row, s);
        const cu_linear x = slice_of(l, row, n, s);
        if (!gemm_known(g, &x, CU_MANY_ROWS)) code = gemm_tune(g, st, &x, CU_MANY_ROWS, er);
    }
    return code;
}

cudaError_t gemm_run_packed(gemm *g, cudaStream_t st, const cu_linear *l,
                            const gemm_scratch *s) {
    cudaError_t e = cudaSuccess;
    if (gemm_takes_codes(l, s)) return run_codes(g, st, l, s);
    for (uint32_t row = 0, n; row < l->w.n_out && e == cudaSuccess; row += n) {
        n = next_slice(l, row, s);
        const cu_linear x = slice_of(l, row, n, s);
        e = cu_unpack(st, &l->w, l->t, row, n, s->data);
        if (e == cudaSuccess) e = gemm_run(g, st, &x);
    }
    return e;
}
