/* What a matrix of the model file becomes on its way to the device, on the host: types without
 * a layout of their own there become one that has. Pure.
 *
 *   Q4_K          Q4_1; scale and minimum of 32 weights, products of two numbers, are rounded
 *                 to f16 (relative error up to 2^-11)
 *   Q5_0, IQ4_NL  Q8_0, exactly
 *   IQ4_XS        Q8_0; the scale of 32 weights is rounded to f16
 *   I4            Q4_0, which repeats the scale; one of BF16 or F32 is rounded to f16 (BF16 is exact
 *                 from 2^-14 to 65,504); by 32 with F32: Q8_0
 *   I4Z, I8G      Q8_0: the difference of code and zero point; scales as with I4 (I8G by 32 with F32:
 *                 nothing, it is refused, as are I8Z and F8)
 *   Q5_1, Q2_K, Q3_K, Q5_K, Q6_K
 *                 float32, exactly, and the activations' 16-bit type on the device */
#ifndef VRAMD_ENGINE_CUDA_UPLOAD_H
#define VRAMD_ENGINE_CUDA_UPLOAD_H

#include <stdint.h>

#include "model/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The type in which rows of the file's type are copied to the device: t itself, for those that
 * the device stores. Inline, since the plugin links nothing of the base. */
static inline dtype cu_upload_type(dtype t) {
    switch (dtype_kind(t)) {
    case DT_I4: return dtype_scale(t) == DT_F32 && dtype_group(t) == 32 ? DT_Q8_0 : DT_Q4_0;
    case DT_I4Z: return DT_Q8_0;
    case DT_I8G: return dtype_scale(t) == DT_F32 && dtype_group(t) == 32 ? t : DT_Q8_0;
    case DT_Q4_K: return DT_Q4_1;
    case DT_Q5_0:
    case DT_IQ4_NL:
    case DT_IQ4_XS: return DT_Q8_0;
    case DT_Q5_1:
    case DT_Q2_K:
    case DT_Q3_K:
    case DT_Q5_K:
    case DT_Q6_K: return DT_F32;
    default: return t;
    }
}

/* n elements of type t (whole blocks), from a file's bytes to those of cu_upload_type(t), which
 * is not t. from and to must not overlap. */
void cu_upload(dtype t, const void *from, uint64_t n, void *to);

#ifdef __cplusplus
}
#endif
#endif
