/* Codes with errors carried over. Owns nothing. */
#include "quant/gptq.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "quant/grid.h"

static uint32_t padded(uint32_t n) {
    return (uint32_t)align_up(n, TILE);
}

static size_t order_bytes(uint32_t n) {
    return align_up(n * sizeof(uint32_t), 64);
}

size_t gptq_bytes(uint32_t n) {
    return order_bytes(n) + hessian_bytes(n);
}

typedef struct moment {
    double v;
    uint32_t i;
} moment;

/* Ascending; of equals the later input first, so that the earlier is treated first. */
static int by_moment(const void *a, const void *b) {
    const moment *x = a, *y = b;
    if (x->v != y->v) return x->v < y->v ? -1 : 1;
    return x->i > y->i ? -1 : 1;
}

status gptq_init(gptq *out, const double *h, uint32_t n, const float *scale, bool act_order,
                 double damp, void *mem, err *e) {
    uint32_t *order = mem;
    double *factor = (double *)((char *)mem + order_bytes(n));
    CHECK(hessian_bytes(n) >= n * sizeof(moment));
    moment *m = (moment *)factor; /* until the factor is made */
    for (uint32_t i = 0; i < n; i++) {
        const double by = scale ? (double)scale[i] * (double)scale[i] : 1;
        m[i] = (moment){act_order ? h[hessian_at(i, i)] / by : 0, i};
    }
    qsort(m, n, sizeof *m, by_moment);
    for (uint32_t i = 0; i < n; i++) order[i] = m[i].i;
    status s = hessian_factor(h, n, order, scale, damp, factor, NULL, e);
    if (s != OK) return s;
    float *narrow = (float *)factor; /* entry i lies at or before where it is read */
    for (size_t i = 0; i < hessian_bytes(n) / sizeof(double); i++) {
        const float v = (float)factor[i];
        memcpy(narrow + i, &v, sizeof v);
    }
    *out = (gptq){.n = n, .order = order, .factor = narrow};
    return OK;
}

/* ---- rows ---- */

typedef struct scratch {
    float *w, *err;    /* [n_rows][padded(n)], in the order of the factor */
    grid_scale *scale; /* [n_rows][n / group] */
    int16_t *codes;    /* [n_rows][n], natural order */
} scratch;

size_t gptq_scratch_bytes(uint32_t n, uint32_t n_rows) {
    return n_rows * (2 * padded(n) * sizeof(float) + align_up(n, 32) / 16 * sizeof(grid_scale) +
                     n * sizeof(int16_t));
}

static scratch scratch_of(void *mem, uint32_t n, uint32_t n_rows) {
    scratch s;
    s.w = mem;
    s.err = s.w + (size_t)n_rows * padded(n);
    s.scale = (grid_scale *)(s.err + (size_t)n_rows * padded(n));
    s.codes = (int16_t *)(s.scale + n_rows * (align_up(n, 32) / 16));
    return s;
}

/* Columns [c0, c0 + TILE) of one row, from the last to the first; w already has what the columns after them
 * carried over. f: the tile of the factor on the diagonal. */
static void treat(const gptq *g, const grid *grid, const float *f, uint32_t c0, float *w,
                  float *err, const grid_scale *scale, int16_t *codes) {
    for (uint32_t c = TILE; c-- > 0;) {
        err[c] = 0;
        if (c0 + c >= g->n) continue;
        const uint32_t at = g->order[c0 + c];
        float number;
        codes[at] = grid_nearest(grid, scale[at / grid->group], w[c], &number);
        const float e = (w[c] - number) / f[c * TILE + c];
        err[c] = e;
        for (uint32_t j = 0; j < c; j++) w[j] -= e * f[c * TILE + j];
    }
}

void gptq_rows(const gptq *g, dtype t, const float *w, uint32_t n_rows, void *rows, void *mem) {
    const uint32_t n = g->n, ld = padded(n);
    const tile_kernels *k = tile_kernels_get();
    scratch s = scratch_of(mem, n, n_rows);
    grid grid;
    uint64_t row_bytes;
    CHECK(grid_of(t, &grid) && dtype_bytes(t, 1, n, &row_bytes));
    const uint32_t n_scales = n / grid.group;
    for (uint32_t r = 0; r < n_rows; r++) {
        float *to = s.w + (size_t)r * ld;
        for (uint32_t i = 0; i < ld; i++) to[i] = i < n ? w[(size_t)r * n + g->order[i]] : 0;
        grid_read(&grid, (char *)rows + r * row_bytes, n, s.scale + (size_t)r * n_scales);
    }
    for (uint32_t j = ld / TILE; j-- > 0;) {
        for (uint32_t l = j + 1; l < ld / TILE; l++)
            k->sub_mul_f(s.w + (size_t)j * TILE, s.err + (size_t)l * TILE, ld, n_rows,
                         g->factor + hessian_at(l * TILE, j * TILE));
        for (uint32_t r = 0; r < n_rows; r++)
            treat(g, &grid, g->factor + hessian_at(j * TILE, j * TILE), j * TILE,
                  s.w + (size_t)r * ld + (size_t)j * TILE,
                  s.err + (size_t)r * ld + (size_t)j * TILE, s.scale + (size_t)r * n_scales,
                  s.codes + (size_t)r * n);
    }
    for (uint32_t r = 0; r < n_rows; r++)
        grid_write(&grid, (char *)rows + r * row_bytes, n, s.codes + (size_t)r * n);
}
