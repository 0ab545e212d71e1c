/* Second moments of inputs, added up in tiles, and their Cholesky factor's inverse, in place.
 *
 * GPTQ (Frantar et al., 2023, algorithm 1) uses the upper Cholesky factor of H's inverse, U with U^T U =
 * H^-1. With the inputs in reverse order that is the inverse of H's own lower factor: if H = L L^T then H^-1 =
 * M^T M with M = L^-1, which is lower. So one factorisation and one triangular inverse do. Pure; any
 * thread. */
#include "quant/hessian.h"

#include <math.h>
#include <string.h>

#include "base/check.h"

enum { TILE2 = TILE * TILE };

static uint32_t tiles_of(uint32_t n) {
    return (uint32_t)ceil_div(n, TILE);
}

static size_t tile_number(uint32_t i, uint32_t j) {
    return ((size_t)i * (i + 1) / 2 + j) * TILE2;
}

size_t hessian_bytes(uint32_t n) {
    return tile_number(tiles_of(n), 0) * sizeof(double);
}

size_t hessian_at(uint32_t i, uint32_t j) {
    return tile_number(i / TILE, j / TILE) + (size_t)(i % TILE) * TILE + j % TILE;
}

/* Columns [c0, c0 + TILE) of up to TILE rows; 0 where x has none. */
static void cut(float out[TILE2], const float *x, uint32_t n, uint32_t n_rows, uint32_t c0) {
    const uint32_t cols = n - c0 < TILE ? n - c0 : TILE;
    if (cols < TILE || n_rows < TILE) memset(out, 0, TILE2 * sizeof *out);
    for (uint32_t t = 0; t < n_rows; t++)
        memcpy(out + (size_t)t * TILE, x + (size_t)t * n + c0, cols * sizeof *out);
}

void hessian_add(double *h, uint32_t n, const float *x, uint32_t n_rows, uint32_t thread,
                 uint32_t n_threads) {
    const tile_kernels *k = tile_kernels_get();
    const uint32_t n_tiles = tiles_of(n);
    float a[TILE2], b[TILE2];
    for (uint32_t t = 0; t < n_rows; t += TILE) {
        const uint32_t rows = n_rows - t < TILE ? n_rows - t : TILE;
        const float *at = x + (size_t)t * n;
        for (uint32_t i = 0; i < n_tiles; i++) {
            bool cut_a = false;
            for (uint32_t j = 0; j <= i; j++) {
                if ((tile_number(i, j) / TILE2) % n_threads != thread) continue;
                if (!cut_a) cut(a, at, n, rows, i * TILE);
                cut_a = true;
                if (j < i) cut(b, at, n, rows, j * TILE);
                k->gram(h + tile_number(i, j), a, j < i ? b : a);
            }
        }
    }
}

void hessian_diagonal(const double *h, uint32_t n, double *out) {
    for (uint32_t i = 0; i < n; i++) out[i] = h[hessian_at(i, i)];
}

double hessian_error(const double *h, uint32_t n, const float *e) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (e[i] == 0) continue;
        double row = 0;
        for (uint32_t j0 = 0; j0 < i; j0 += TILE) {
            const double *p = h + hessian_at(i, j0);
            const uint32_t m = i - j0 < TILE ? i - j0 : TILE;
            for (uint32_t j = 0; j < m; j++) row += p[j] * (double)e[j0 + j];
        }
        sum += (double)e[i] * (2 * row + h[hessian_at(i, i)] * (double)e[i]);
    }
    return sum;
}

uint32_t hessian_ld(uint32_t n) {
    return tiles_of(n) * TILE;
}

/* For every column of tiles J: y = -(sum over I >= J of e(I) H(I, J)), of which those with I > J count twice. */
double hessian_errors(const double *h, uint32_t n, const float *e, uint32_t n_rows,
                      float *scratch) {
    const tile_kernels *k = tile_kernels_get();
    const uint32_t ld = hessian_ld(n), n_tiles = tiles_of(n);
    float tile[TILE2];
    double sum = 0;
    memset(scratch, 0, (size_t)n_rows * ld * sizeof *scratch);
    for (uint32_t j = 0; j < n_tiles; j++)
        for (uint32_t i = j; i < n_tiles; i++) {
            const double *from = h + tile_number(i, j);
            for (uint32_t a = 0; a < TILE2; a++)
                tile[a] = (float)(i > j ? 2 * from[a] : from[a]);
            /* c and a have the same ld: the product of the rows' part I goes to part J of y */
            k->sub_mul_f(scratch + (size_t)j * TILE, e + (size_t)i * TILE, ld, n_rows, tile);
        }
    for (size_t a = 0; a < (size_t)n_rows * ld; a++) sum -= (double)scratch[a] * (double)e[a];
    return sum;
}

/* ---- the factor ---- */

/* H in another order, with its diagonal made larger. What lies beyond n becomes a unit matrix, so that
 * every tile is treated alike. */
static void permuted(double *out, const double *h, uint32_t n, const uint32_t *order,
                     const float *scale, double add) {
    const uint32_t all = tiles_of(n) * TILE;
    for (uint32_t i = 0; i < all; i++) {
        const uint32_t tile_end = i / TILE * TILE + TILE;
        for (uint32_t j = 0; j < tile_end; j++) {
            double v = 0;
            if (i < n && j <= i) {
                const uint32_t a = order[i] > order[j] ? order[i] : order[j];
                const uint32_t b = order[i] > order[j] ? order[j] : order[i];
                v = h[hessian_at(a, b)];
                if (scale) v /= (double)scale[a] * (double)scale[b];
                if (i == j) v = (v == 0 ? 1 : v) + add;
            } else if (i == j) {
                v = 1;
            }
            out[hessian_at(i, j)] = v;
        }
    }
}

static void transpose(double out[TILE2], const double in[TILE2]) {
    for (uint32_t i = 0; i < TILE; i++)
        for (uint32_t j = 0; j < TILE; j++) out[j * TILE + i] = in[i * TILE + j];
}

/* The lower factor of a tile on the diagonal, in place; 0 above it. False: none. */
static bool factor_tile(double a[TILE2]) {
    for (uint32_t j = 0; j < TILE; j++) {
        double d = a[j * TILE + j];
        for (uint32_t k = 0; k < j; k++) d -= a[j * TILE + k] * a[j * TILE + k];
        if (!(d > 0) || !isfinite(d)) return false;
        d = sqrt(d);
        a[j * TILE + j] = d;
        for (uint32_t i = j + 1; i < TILE; i++) {
            double v = a[i * TILE + j];
            for (uint32_t k = 0; k < j; k++) v -= a[i * TILE + k] * a[j * TILE + k];
            a[i * TILE + j] = v / d;
            a[j * TILE + i] = 0;
        }
    }
    return true;
}

/* The inverse of a lower triangular tile, in place. */
static void invert_tile(double a[TILE2]) {
    for (uint32_t j = 0; j < TILE; j++) {
        a[j * TILE + j] = 1 / a[j * TILE + j];
        for (uint32_t i = j + 1; i < TILE; i++) {
            double v = 0;
            for (uint32_t k = j; k < i; k++) v -= a[i * TILE + k] * a[k * TILE + j];
            a[i * TILE + j] = v / a[i * TILE + i];
        }
    }
}

/* c = c b^-T for a lower triangular tile b: x b^T = c, solved from the first column on. */
static void solve_tile(double c[TILE2], const double b[TILE2]) {
    for (uint32_t i = 0; i < TILE; i++) {
        double *x = c + (size_t)i * TILE;
        for (uint32_t j = 0; j < TILE; j++) {
            double v = x[j];
            for (uint32_t k = 0; k < j; k++) v -= x[k] * b[j * TILE + k];
            x[j] = v / b[j * TILE + j];
        }
    }
}

/* H = L L^T, tile column after tile column. */
static bool cholesky(const tile_kernels *k, double *h, uint32_t n_tiles) {
    double t[TILE2];
    for (uint32_t j = 0; j < n_tiles; j++) {
        for (uint32_t l = 0; l < j; l++) {
            transpose(t, h + tile_number(j, l));
            for (uint32_t i = j; i < n_tiles; i++)
                k->sub_mul(h + tile_number(i, j), h + tile_number(i, l), t);
        }
        if (!factor_tile(h + tile_number(j, j))) return false;
        for (uint32_t i = j + 1; i < n_tiles; i++)
            solve_tile(h + tile_number(i, j), h + tile_number(j, j));
    }
    return true;
}

/* M = L^-1, tile row after tile row: M(i, j) = -M(i, i) times the sum of L(i, l) M(l, j) over l = j .. i - 1. */
static void invert(const tile_kernels *k, double *h, uint32_t n_tiles) {
    double sum[TILE2];
    for (uint32_t i = 0; i < n_tiles; i++) {
        double *own = h + tile_number(i, i);
        invert_tile(own);
        for (uint32_t j = 0; j < i; j++) {
            double *out = h + tile_number(i, j);
            memset(sum, 0, sizeof sum);
            for (uint32_t l = j; l < i; l++)
                k->sub_mul(sum, h + tile_number(i, l), h + tile_number(l, j));
            memset(out, 0, TILE2 * sizeof *out);
            for (uint32_t a = 0; a < TILE2; a++) sum[a] = -sum[a];
            k->sub_mul(out, own, sum);
        }
    }
}

status hessian_factor(const double *h, uint32_t n, const uint32_t *order, const float *scale,
                      double damp, double *out, double *damped, err *e) {
    enum { TRIALS = 4 };
    const tile_kernels *k = tile_kernels_get();
    double mean = 0;
    for (uint32_t i = 0; i < n; i++) {
        double d = h[hessian_at(i, i)];
        if (scale) d /= (double)scale[i] * (double)scale[i];
        mean += (d == 0 ? 1 : d) / n;
    }
    for (uint32_t trial = 0; trial < TRIALS; trial++) {
        if (trial) damp *= 10;
        permuted(out, h, n, order, scale, damp * mean);
        if (!cholesky(k, out, tiles_of(n))) continue;
        invert(k, out, tiles_of(n));
        if (damped) *damped = damp;
        return OK;
    }
    return err_set(e, ERR_INVALID, "the second moments of %u inputs have no Cholesky factor",
                   n);
}
