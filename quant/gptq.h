/* GPTQ: codes chosen one input after the other, the error of each carried over to the inputs that follow, so
 * that the outputs change least (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative
 * Pre-trained Transformers", 2023, algorithm 1). Scales are chosen before, in the natural order of the inputs, so
 * that the result is an ordinary row of the type whatever the order was. Pure; any thread. */
#ifndef VRAMD_QUANT_GPTQ_H
#define VRAMD_QUANT_GPTQ_H

#include <stdbool.h>

#include "model/dtype.h"
#include "quant/hessian.h"

/* What all matrices with the same inputs share. */
typedef struct gptq {
    uint32_t n;      /* inputs */
    uint32_t *order; /* [n]: those of the largest moments last, which is where it begins */
    float *factor;   /* hessian_factor of that order, in float32 */
} gptq;

/* Bytes of a gptq's arrays while it is made (they hold the factor in float64). */
size_t gptq_bytes(uint32_t n);
/* mem: gptq_bytes(n), as aligned as malloc's; lent as long as *out is used. act_order: largest moments first;
 * else the natural order. scale: the inputs are divided by it, or NULL. Errors: as hessian_factor. */
status gptq_init(gptq *out, const double *h, uint32_t n, const float *scale, bool act_order,
                 double damp, void *mem, err *);

/* Bytes of scratch for n_rows rows. */
size_t gptq_scratch_bytes(uint32_t n, uint32_t n_rows);
/* Chooses the codes of n_rows rows anew. w: [n_rows][n] float32. rows: the same encoded to type t, whose scales
 * stay. grid_of(t) holds. */
void gptq_rows(const gptq *, dtype t, const float *w, uint32_t n_rows, void *rows,
               void *scratch);

#endif
