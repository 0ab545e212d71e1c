/* The kernels of quant/tile.h, in the compiler's vectors (GNU C); the file that includes it says for
 * which instructions they are compiled, and defines TILE_KERNELS. 4 rows times 2 vectors stay in registers. */
#ifndef VRAMD_QUANT_TILE_BODY_H
#define VRAMD_QUANT_TILE_BODY_H

#include <string.h>

#include "quant/tile.h"

#pragma GCC diagnostic ignored "-Wpsabi" /* nothing passes vectors */

typedef float vf __attribute__((vector_size(32)));
typedef double vd __attribute__((vector_size(32)));
typedef float vf_mem __attribute__((vector_size(32), aligned(4), may_alias));
typedef double vd_mem __attribute__((vector_size(32), aligned(8), may_alias));
enum { VF = 8, VD = 4, ROWS = 4 };

static void gram(double h[TILE * TILE], const float a[TILE * TILE],
                 const float b[TILE * TILE]) {
    for (uint32_t i = 0; i < TILE; i += ROWS)
        for (uint32_t j = 0; j < TILE; j += 2 * VF) {
            vf s[ROWS][2] = {{{0}}};
            for (uint32_t t = 0; t < TILE; t++) {
                const vf b0 = *(const vf_mem *)(b + t * TILE + j);
                const vf b1 = *(const vf_mem *)(b + t * TILE + j + VF);
                for (uint32_t r = 0; r < ROWS; r++) {
                    const float x = a[t * TILE + i + r];
                    s[r][0] += x * b0;
                    s[r][1] += x * b1;
                }
            }
            for (uint32_t r = 0; r < ROWS; r++)
                for (uint32_t l = 0; l < 2 * VF; l++)
                    h[(i + r) * TILE + j + l] += (double)s[r][l / VF][l % VF];
        }
}

static void sub_mul(double c[TILE * TILE], const double a[TILE * TILE],
                    const double b[TILE * TILE]) {
    for (uint32_t i = 0; i < TILE; i += ROWS)
        for (uint32_t j = 0; j < TILE; j += 2 * VD) {
            vd s[ROWS][2];
            for (uint32_t r = 0; r < ROWS; r++)
                for (uint32_t v = 0; v < 2; v++)
                    s[r][v] = *(const vd_mem *)(c + (i + r) * TILE + j + v * VD);
            for (uint32_t k = 0; k < TILE; k++) {
                const vd b0 = *(const vd_mem *)(b + k * TILE + j);
                const vd b1 = *(const vd_mem *)(b + k * TILE + j + VD);
                for (uint32_t r = 0; r < ROWS; r++) {
                    const double x = a[(i + r) * TILE + k];
                    s[r][0] -= x * b0;
                    s[r][1] -= x * b1;
                }
            }
            for (uint32_t r = 0; r < ROWS; r++)
                for (uint32_t v = 0; v < 2; v++)
                    *(vd_mem *)(c + (i + r) * TILE + j + v * VD) = s[r][v];
        }
}

/* Rows [i, i + n), n <= ROWS: a row that is not there is computed as another. */
static void sub_mul_rows(float *c, const float *a, size_t ld, uint32_t n,
                         const float b[TILE * TILE]) {
    const float *from[ROWS];
    for (uint32_t r = 0; r < ROWS; r++) from[r] = a + (r < n ? r : 0) * ld;
    for (uint32_t j = 0; j < TILE; j += 2 * VF) {
        vf s[ROWS][2];
        for (uint32_t r = 0; r < ROWS; r++)
            for (uint32_t v = 0; v < 2; v++)
                s[r][v] = *(const vf_mem *)(c + (r < n ? r : 0) * ld + j + v * VF);
        for (uint32_t k = 0; k < TILE; k++) {
            const vf b0 = *(const vf_mem *)(b + k * TILE + j);
            const vf b1 = *(const vf_mem *)(b + k * TILE + j + VF);
            for (uint32_t r = 0; r < ROWS; r++) {
                s[r][0] -= from[r][k] * b0;
                s[r][1] -= from[r][k] * b1;
            }
        }
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t v = 0; v < 2; v++) *(vf_mem *)(c + r * ld + j + v * VF) = s[r][v];
    }
}

static void sub_mul_f(float *c, const float *a, size_t ld, uint32_t n_rows,
                      const float b[TILE * TILE]) {
    for (uint32_t i = 0; i < n_rows; i += ROWS)
        sub_mul_rows(c + i * ld, a + i * ld, ld, n_rows - i < ROWS ? n_rows - i : ROWS, b);
}

const tile_kernels TILE_KERNELS = {gram, sub_mul, sub_mul_f};

#endif
