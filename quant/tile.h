/* Products of square tiles of numbers, of which Hessians and their factors are made. Each product and
 * each sum is rounded on its own, in the order of the inner index, so that every instruction set gives the
 * same bits. Pure; any thread. */
#ifndef VRAMD_QUANT_TILE_H
#define VRAMD_QUANT_TILE_H

#include <stddef.h>
#include <stdint.h>

enum { TILE = 64 }; /* rows and columns, row after row */

typedef struct tile_kernels {
    /* h += a^T b: a, b [TILE of rows][TILE]; sums of one call are float32, h is not. */
    void (*gram)(double h[TILE * TILE], const float a[TILE * TILE], const float b[TILE * TILE]);
    /* c -= a b, all [TILE][TILE] */
    void (*sub_mul)(double c[TILE * TILE], const double a[TILE * TILE],
                    const double b[TILE * TILE]);
    /* c -= a b; a, c: [n_rows] rows of TILE, ld floats apart; b: [TILE][TILE] */
    void (*sub_mul_f)(float *c, const float *a, size_t ld, uint32_t n_rows,
                      const float b[TILE * TILE]);
} tile_kernels;

extern const tile_kernels tile_plain, tile_avx2;

/* The fastest that this machine runs. */
const tile_kernels *tile_kernels_get(void);

#endif
