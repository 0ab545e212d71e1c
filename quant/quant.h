/* Rows of float32 to rows of a stored type (model/dtype.h) and back. Pure; any thread.
 *
 * Without importance Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, MXFP4, F16 and BF16 round to nearest and have the bytes that
 * ggml's reference gives (its functions quantize_row_*_ref). The other types, and all with importance,
 * search the scales for the least error: bytes are the same on every machine, and the error
 * is no larger than that of ggml's search. */
#ifndef VRAMD_QUANT_QUANT_H
#define VRAMD_QUANT_QUANT_H

#include <stdbool.h>
#include <stddef.h>

#include "model/dtype.h"

/* Types that rows can be encoded to: F32, F16, BF16, and the quantised ones that an engine computes with. */
bool quant_can(dtype);
/* Types whose rows are decoded: those, the ones with groups (grouped.h), and those of model/words.h but for NVFP4,
 * whose numbers need a tensor beside theirs. */
bool quant_reads(dtype);

/* Bytes of a row of n numbers; n: a multiple of the type's block. */
size_t quant_row_bytes(dtype, size_t n);

/* x: [n], finite. importance: [n], the weight of the squared error of each input (not negative, finite;
 * the mean square of the activations, say), or NULL: all weigh the same. A block whose weights are all 0
 * counts as one without. out: quant_row_bytes(t, n). quant_can(t) holds. */
void quant_encode_row(dtype t, const float *x, size_t n, const float *importance, void *out);

/* The numbers that an engine computes with, exactly. out: [n]. quant_reads(t) holds. */
void quant_decode_row(dtype t, const void *blocks, size_t n, float *out);

/* sum of importance[i] * (x[i] - y[i])^2, in the order of i; importance NULL: weights of 1. */
double quant_error(const float *x, const float *y, size_t n, const float *importance);

#endif
