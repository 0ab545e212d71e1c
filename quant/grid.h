/* Blocks of a quantised type as what they are made of: codes, and for every 16 or 32 inputs in a row a scale and a
 * minimum. With the scales given, a number is code times scale plus minimum, or for IQ4 types an entry of
 * ggml's table times scale. Layouts: ggml-common.h. Pure; any thread. */
#ifndef VRAMD_QUANT_GRID_H
#define VRAMD_QUANT_GRID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/dtype.h"

typedef struct grid {
    dtype type;
    uint32_t group;     /* inputs that share a scale: 16 or 32 */
    int32_t low, high;  /* codes that are used, as numbers (Q4_0: -8..7, Q4_1: 0..15) */
    const int8_t *book; /* IQ4: what code i stands for; else NULL */
} grid;

typedef struct grid_scale {
    float d, m; /* number = d * code + m */
} grid_scale;

/* False: the type has none (F32, F16, BF16, and what quant_can refuses). */
bool grid_of(dtype, grid *out);
/* The scales of a row of n numbers. out: [n / group]. */
void grid_read(const grid *, const void *blocks, size_t n, grid_scale *out);
/* Stores codes in blocks whose scales stay. codes: [n], as numbers; for IQ4 indexes of the table. */
void grid_write(const grid *, void *blocks, size_t n, const int16_t *codes);
/* The code whose number is nearest to w, and that number. */
int16_t grid_nearest(const grid *, grid_scale, float w, float *number);

#endif
