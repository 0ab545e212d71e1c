/* The second moments of a linear operation's inputs, H = X^T X, and what GPTQ makes of them. Half of the
 * symmetric matrix is kept, in float64, in tiles:
 *
 *   column    0..63  64..127  128..        tile (i, j), j <= i, begins at number
 *   row 0     (0,0)                        (i * (i + 1) / 2 + j) * TILE * TILE
 *   row 64    (1,0)   (1,1)                and is kept row after row; tiles (i, i)
 *   row 128   (2,0)   (2,1)    (2,2)       in whole.
 *
 * Rows and columns from n up to the tile's end are 0. The memory is the caller's. */
#ifndef VRAMD_QUANT_HESSIAN_H
#define VRAMD_QUANT_HESSIAN_H

#include "base/err.h"
#include "quant/tile.h"

/* Bytes for n inputs: about 4 n^2. */
size_t hessian_bytes(uint32_t n);
/* Where entry (i, j), j <= i, is. */
size_t hessian_at(uint32_t i, uint32_t j);

/* h += sum over rows x of x^T x; x: [n_rows][n]. Threads with numbers 0..n_threads-1 each add a part of
 * the tiles; the bits do not depend on their number. */
void hessian_add(double *h, uint32_t n, const float *x, uint32_t n_rows, uint32_t thread,
                 uint32_t n_threads);

/* out: [n], the diagonal. */
void hessian_diagonal(const double *h, uint32_t n, double *out);

/* e H e^T: what an error e of a row of weights adds to the squared error of the outputs.
 * e: [n]. */
double hessian_error(const double *h, uint32_t n, const float *e);
/* The same, added up over rows, in float32 but for the sum. e: [n_rows][hessian_ld(n)], 0 from n on; scratch:
 * [n_rows][hessian_ld(n)]. */
uint32_t hessian_ld(uint32_t n);
double hessian_errors(const double *h, uint32_t n, const float *e, uint32_t n_rows,
                      float *scratch);

/* The factor that GPTQ works with: of H with its rows and columns in the order of order ([n], a
 * permutation), inputs that are always 0 given a 1, and damp times the mean of the diagonal (ten times as
 * much when a factor cannot be found, at most three times) added to it, the inverse of the lower Cholesky
 * factor, in tiles as H. scale: [n], the inputs are divided by it first, or NULL. out: hessian_bytes(n).
 * *damped: what was used; NULL: not wanted. Errors: ERR_INVALID (the matrix is not positive definite or not
 * finite even so). */
status hessian_factor(const double *h, uint32_t n, const uint32_t *order, const float *scale,
                      double damp, double *out, double *damped, err *);

#endif
