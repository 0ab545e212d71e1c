/* Scales of inputs that make rounding of the weights behind them cheaper, and where their inverse goes, so that the
 * model computes the same: weights times s on inputs divided by s. What divides the inputs is what makes them: a
 * norm's weights, the rows of up behind an activation, the rows of v behind attention. Pure; any thread.
 *
 * AWQ (Lin et al., 2023): s = mean |x|^a. SmoothQuant (Xiao et al., 2023): s = max |x|^.5 / max |w|^.5. */
#ifndef VRAMD_QUANT_SCALE_H
#define VRAMD_QUANT_SCALE_H

#include "quant/calib.h"

typedef struct scale_fold {
    uint32_t n; /* inputs */
    const weight
        *divided; /* its rows from first_row on (of a vector: its elements) are divided by s */
    const weight *bias; /* likewise, from element first_row on; NULL: none */
    uint32_t first_row; /* of the stored tensors */
    uint32_t n_rows;    /* as many scales differ; n, or fewer where heads share K and V */
    uint32_t head_dim,
        shared; /* input i is made by row i / (head_dim * shared) * head_dim + i % head_dim */
} scale_fold;

/* How the inputs of an operation can be divided; false: they cannot. */
bool scale_fold_of(const program *, uint32_t op, scale_fold *out);
/* The row of `divided`, counted from first_row, that makes input i. */
uint32_t scale_row(const scale_fold *, uint32_t i);

/* Scales, [f->n], equal where inputs have the same row. power 0: all 1. */
void scale_awq(const calib_input *, const scale_fold *, double power, float *s);
/* w_max: [n], the largest magnitude of the weights of each input. */
void scale_smooth(const calib_input *, const scale_fold *, const float *w_max, float *s);

#endif
