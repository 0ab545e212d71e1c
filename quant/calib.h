/* What a model's matrices multiply, added up over a text: for each operation with matrices the mean squares of
 * its inputs (the importance matrix), their mean and largest magnitudes (scales of AWQ and SmoothQuant), and where it is
 * wanted H = X^T X (GPTQ). Threads: see calib_add. */
#ifndef VRAMD_QUANT_CALIB_H
#define VRAMD_QUANT_CALIB_H

#include "model/program.h"
#include "quant/hessian.h"

typedef struct calib_input {
    uint32_t op;              /* its index in the program */
    uint32_t n;               /* inputs */
    uint64_t n_rows;          /* that were added */
    double *sum_sq, *sum_abs; /* [n] */
    float *max_abs;           /* [n] */
    double *h;                /* hessian.h; NULL: not wanted. The caller's */
    bool
        counts; /* false: what comes is left alone, as when only other inputs are wanted again */
} calib_input;

typedef struct calib {
    const program *program; /* borrowed */
    calib_input *input;     /* in the order of the program */
    uint32_t n_inputs;
    uint32_t *of_op; /* [n_ops]: index of the input; n_inputs: none */
    void *sums;
} calib;

/* Bytes of the sums, without any h. */
uint64_t calib_bytes(const program *);
/* Everything zero and counting. Errors: ERR_NO_MEMORY. */
status calib_init(calib *out, const program *, err *);
void calib_clear(calib *); /* frees no h */

/* Adds x: [n_rows][n] of the operation. Threads 0..n_threads-1 each call it, with the same rows, and each adds
 * a part of the columns; the bits do not depend on their number. */
void calib_add(calib *, const op *, const float *x, uint32_t n_rows, uint32_t thread,
               uint32_t n_threads);

/* The input of a stored tensor; NULL: no operation with matrices reads it (embeddings, norms, the head). */
calib_input *calib_find(const calib *, const char *tensor);
/* Mean squares by input; 0 where nothing was added. out: [n]. */
void calib_importance(const calib_input *, float *out);

#endif
