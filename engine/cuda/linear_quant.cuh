/* What linear_quant.cu (few rows) and linear_packed.cu share: how results are left. */
#ifndef VRAMD_ENGINE_CUDA_LINEAR_QUANT_CUH
#define VRAMD_ENGINE_CUDA_LINEAR_QUANT_CUH

#include "engine/cuda/kernels.h"
#include "engine/cuda/quant.cuh"

typedef struct linear_out {
    void *p;
    uint32_t ld;
    cu_out kind;
    cu_type t; /* of CU_OUT_T */
} linear_out;

static inline linear_out linear_out_of(const cu_linear *l) {
    return linear_out{l->out, l->ld_out, l->kind, l->t};
}

CU_DEVICE void linear_put(const linear_out &out, uint32_t row, uint32_t col, float v) {
    const size_t at = (size_t)row * out.ld + col;
    if (out.kind == CU_OUT_ADD)
        ((float *)out.p)[at] += v;
    else if (out.kind == CU_OUT_F32)
        ((float *)out.p)[at] = v;
    else if (out.t == CU_F16)
        ((__half *)out.p)[at] = __low2half(cu_halves(v, 0));
    else
        ((__nv_bfloat16 *)out.p)[at] = __float2bfloat16_rn(v);
}

#endif
