/* Rows of the types with groups (dtype.h), which published checkpoints have and GGUF files do not. Pure; any
 * thread. */
#ifndef VRAMD_QUANT_GROUPED_H
#define VRAMD_QUANT_GROUPED_H

#include <stdbool.h>
#include <stddef.h>

#include "model/dtype.h"

/* The type of GGUF that has the same numbers, where F16 holds each scale: Q4_0 for I4, Q5_0 for I4Z, Q8_0 for
 * I8G, all by repeating the scale; DT_NONE: none has (I8Z, F8). t is a type with groups. */
dtype quant_ungrouped(dtype t);
/* n numbers, whole groups, in that type. False: F16 does not hold a scale. out: quant_row_bytes of that type. */
bool quant_ungroup_row(dtype t, const void *blocks, size_t n, void *out);
/* The numbers, each rounded once. out: [n]. */
void quant_decode_groups(dtype t, const void *blocks, size_t n, float *out);

#endif
