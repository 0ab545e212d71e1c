/* Linear layers with packed weights for many rows, on compute capability 9.0 (linear_many_sm90a.cu). As the
 * functions of kernels.h. */
#ifndef VRAMD_ENGINE_CUDA_LINEAR_MANY_H
#define VRAMD_ENGINE_CUDA_LINEAR_MANY_H

#include "engine/cuda/kernels.h"

/* Whether this device runs the functions below. With VRAMD_CUDA_WGMMA=0 none does: for measurements and to find
 * out whether they are to blame. */
bool cu_linear_many_runs(void);
/* Packed w but of F8, 16-bit activations (in), any n_rows; meant for more than CU_MANY_ROWS. Weights are rounded once to T. A row has
 * the same bits for any n_rows. */
cudaError_t cu_linear_many(cudaStream_t, const cu_linear *);
/* As cu_gate_up_packed. */
cudaError_t cu_gate_up_many(cudaStream_t, const cu_linear *gate, const cu_linear *up,
                            activation);

#endif
