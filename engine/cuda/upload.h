/* What a matrix of the model file becomes on its way to the device, on the host: types without
 * a layout of their own there become one that has. Pure.
 *
 *   Q4_K          Q4_1; scale and minimum of 32 weights, products of two numbers, are rounded
 *                 to f16 (relative error up to 2^-11)
 *   Q5_K          Q5_1, in the same way
 *   IQ4_XS        IQ4_NL, in the same way
 *   I4            Q4_0, which repeats the scale; one of BF16 or F32 is rounded to f16 (BF16 is exact
 *                 from 2^-14 to 65,504); by 32 with F32: Q8_0
 *   I4Z, I8G      Q8_0: the difference of code and zero point; scales as with I4
 *   F8            F8 of the same groups with float32 scales, exactly
 *   IQ1_S, IQ2_XXS, IQ3_XXS, IQ3_S, TQ1_0, TQ2_0, Q1_0, Q2_0
 *                 Q8_0; scales of 32 weights are rounded to f16
 *   IQ1_M, IQ2_XS, IQ2_S, which have scales for 16; I8Z, whose differences have 9 bits; I8G by 32 with F32
 *                 float32, exactly, and the activations' 16-bit type on the device
 *
 * NVFP4, whose matrices have a scale beside them, is refused. */
#ifndef VRAMD_ENGINE_CUDA_UPLOAD_H
#define VRAMD_ENGINE_CUDA_UPLOAD_H

#include <stdint.h>

#include "engine/cuda/matrix.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The type in which rows of the file's type are copied to the device: t itself, for those that
 * the device stores. Inline, since the plugin links nothing of the base. */
static inline dtype cu_upload_type(dtype t) {
    switch (dtype_kind(t)) {
    case DT_I4: return dtype_scale(t) == DT_F32 && dtype_group(t) == 32 ? DT_Q8_0 : DT_Q4_0;
    case DT_I4Z: return DT_Q8_0;
    case DT_I8G: return dtype_scale(t) == DT_F32 && dtype_group(t) == 32 ? DT_F32 : DT_Q8_0;
    case DT_F8: return (dtype)(((uint32_t)t & ~(3u << 8)) | 2u << 8);
    case DT_Q4_K: return DT_Q4_1;
    case DT_Q5_K: return DT_Q5_1;
    case DT_IQ4_XS: return DT_IQ4_NL;
    case DT_IQ1_S:
    case DT_IQ2_XXS:
    case DT_IQ3_XXS:
    case DT_IQ3_S:
    case DT_TQ1_0:
    case DT_TQ2_0:
    case DT_Q1_0:
    case DT_Q2_0: return DT_Q8_0;
    case DT_IQ1_M:
    case DT_IQ2_XS:
    case DT_IQ2_S:
    case DT_I8Z: return DT_F32;
    default: return t;
    }
}

/* n elements of type t (whole blocks), from a file's bytes to those of cu_upload_type(t), which
 * is not t. from and to must not overlap. */
void cu_upload(dtype t, const void *from, uint64_t n, void *to);

/* Whether the device's f16 holds the scales of n elements of type t: none that is finite becomes infinite. */
bool cu_upload_fits(dtype t, const void *from, uint64_t n);

#ifdef __cplusplus
}
#endif
#endif
