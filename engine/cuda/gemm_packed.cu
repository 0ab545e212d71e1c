/* Packed weights for many rows: a slice of the matrix is turned to T in scratch memory, where
 * the library's GEMM multiplies it into its columns of the output; then the next slice, in the
 * same memory. The library multiplies rows of hundreds several times as fast as linear_packed.cu,
 * which pays for writing and reading the weights once more. */
#include "engine/cuda/gemm.h"

bool gemm_takes_packed(const cu_linear *l) {
    const size_t width = l->kind == CU_OUT_T ? 2 : 4;
    return cu_matrix_is_packed(l->w.type) && l->n_rows > CU_MANY_ROWS && !l->same_bits &&
           l->ld_out * width % 16 == 0 && (uintptr_t)l->out % 16 == 0;
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

status gemm_tune_packed(gemm *g, cudaStream_t st, const cu_linear *l, const gemm_scratch *s,
                        err *er) {
    status code = OK;
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
    for (uint32_t row = 0, n; row < l->w.n_out && e == cudaSuccess; row += n) {
        n = next_slice(l, row, s);
        const cu_linear x = slice_of(l, row, n, s);
        e = cu_unpack(st, &l->w, l->t, row, n, s->data);
        if (e == cudaSuccess) e = gemm_run(g, st, &x);
    }
    return e;
}
