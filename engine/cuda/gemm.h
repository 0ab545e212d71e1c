/* Matrix products by cuBLASLt, which is loaded when the first engine opens
 * (the library is large, and machines without CUDA have none). A product's algorithm is the
 * fastest of those that the library proposes, timed once per shape and bucket of rows when the
 * engine opens. Calls neither allocate device memory nor wait, so they can be captured. */
#ifndef VRAMD_ENGINE_CUDA_GEMM_H
#define VRAMD_ENGINE_CUDA_GEMM_H

#include "engine/cuda/kernels.h"
#include "engine/cuda/plugin.h"

typedef struct gemm gemm;

/* Device memory, 256-byte aligned. idle: overwritten between timed runs, so that no run finds
 * its weights in the cache; gemm_tune alone uses it. */
typedef struct gemm_memory {
    void *workspace;
    uint64_t workspace_bytes;
    void *idle;
    uint64_t idle_bytes; /* 0: none */
} gemm_memory;

/* invariant: every call of a shape has the number of rows that it was tuned for, and algorithms
 * that split sums are left out.
 * Errors: ERR_UNSUPPORTED (no library: what was looked for), ERR_DEVICE, ERR_NO_MEMORY. */
status gemm_open(gemm **out, const cuda_host *, const gemm_memory *, bool invariant, err *);
void gemm_close(gemm *); /* NULL is ignored */

/* Have products of this shape been timed for every number of rows in more + 1 .. l->n_rows? */
bool gemm_known(const gemm *, const cu_linear *l, uint32_t more);
/* Times the algorithms for products like l (w, in, out as they will be; in and out are
 * overwritten) at every bucket of rows up to l->n_rows but those of `more` rows or fewer, or
 * under batch_invariant at l->n_rows alone. Does nothing for what is known. Waits. */
status gemm_tune(gemm *, cudaStream_t, const cu_linear *l, uint32_t more, err *);
/* out (+)= in * w^T; no bias. n_rows: up to those it was tuned for, or exactly them under
 * batch_invariant. w of F8: w and in are e4m3 codes by rows, and out is float32, without a scale. */
cudaError_t gemm_run(gemm *, cudaStream_t, const cu_linear *l);

/* ---- packed w (gemm_packed.cu): turned to T in scratch, slice after slice ---- */

/* Device memory of bytes, 256-byte aligned: cu_slice_rows(n_out, n_in, bytes) rows at least. codes: for
 * activations as e4m3 (w8a8.h), which up to most_rows rows of F8 then become; NULL: they stay of T. */
typedef struct gemm_scratch {
    void *data;
    uint64_t bytes;
    void *codes;
    uint32_t most_rows;
} gemm_scratch;
/* Do codes meet codes? */
bool gemm_takes_codes(const cu_linear *l, const gemm_scratch *);
/* Is that the way for l: packed w, more than CU_MANY_ROWS rows, not same_bits, and outputs
 * aligned as the library wants them? */
bool gemm_takes_packed(const cu_linear *l);
/* gemm_tune for the slices of l, from CU_MANY_ROWS + 1 rows on; times what scratch holds. */
status gemm_tune_packed(gemm *, cudaStream_t, const cu_linear *l, const gemm_scratch *, err *);
cudaError_t gemm_run_packed(gemm *, cudaStream_t, const cu_linear *l, const gemm_scratch *);

/* ---- its kernels ---- */

/* unpack.cu: the codes of rows [row, row + n) of an F8 w, [n][n_in]. row: a multiple of 16. */
cudaError_t cu_unpack_codes(cudaStream_t, const cu_matrix *w, uint32_t row, uint32_t n,
                            void *out);
/* w8a8.cu: in of l to codes (w8a8.h), by rows of any length that is a multiple of 8. */
cudaError_t cu_w8a8_codes(cudaStream_t, const cu_linear *l, void *codes);
/* Sums [n_rows][n] of codes' products, of outputs [row, row + n), times the rows' and the outputs' scales,
 * to out of l as its kind says; no bias. row and n: multiples of 4. */
cudaError_t cu_w8a8_scales(cudaStream_t, const cu_linear *l, const void *codes, uint32_t row,
                           uint32_t n, const float *sums);

#endif
