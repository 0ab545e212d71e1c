/* How vramd quantize chooses scales and codes beyond rounding to nearest: by an importance matrix, by GPTQ, by
 * scales of inputs (AWQ, SmoothQuant), alone or one after the other: scales, then the search of a block's own
 * scale, then GPTQ's codes. The three calls of a tensor (method_begin, method_values, method_encode) are made by
 * the loop that writes the file. */
#ifndef VRAMD_DAEMON_QUANTIZE_METHOD_H
#define VRAMD_DAEMON_QUANTIZE_METHOD_H

#include <string.h>

#include "daemon/quantize/calibrate.h"
#include "quant/gptq.h"
#include "quant/imatrix.h"
#include "quant/job.h"
#include "quant/scale.h"

/* Bits: how it is made. */
enum { METHOD_RTN = 0, METHOD_IMATRIX = 1, METHOD_GPTQ = 2, METHOD_AWQ = 4, METHOD_SMOOTH = 8 };

/* "gptq", "awq+gptq", ...; NULL: rtn. Errors: ERR_INVALID (a word that is none; AWQ with SmoothQuant). */
status method_by_name(uint32_t *out, const char *words, err *);

enum {
    METHOD_SLOTS = 2
}; /* factors that are kept: in a file's order a layer's inputs come back */

typedef struct method_slot {
    const calib_input *input; /* NULL: free */
    uint64_t used;
    gptq factor;
    void *mem;
} method_slot;

typedef struct method {
    uint32_t kind;
    calibration *cal;     /* borrowed; NULL: the importance is a file's */
    const gguf *imatrix;  /* borrowed; NULL: it is the calibration's */
    const quant_job *job; /* borrowed: types by tensor, the weights */
    scale_fold *fold;     /* [n_inputs]; n 0: the inputs are not scaled */
    float **scale;        /* [n_inputs]: [n], NULL where fold has none */
    void *scales;         /* what scale points into */
    method_slot slot[METHOD_SLOTS];
    uint64_t clock;
    uint32_t n_threads;
    void **scratch; /* [n_threads] */
    /* Of the tensor at hand: */
    dtype to;
    calib_input *input; /* NULL: no operation with matrices reads it */
    const gptq *factor; /* NULL: codes are not chosen anew */
    float *importance;  /* [n] of the input; weights of the search are wanted: weighted */
    bool weighted;
} method;

/* Bytes that a method holds beside the calibration, for calibrate_wish.more: n_threads call
 * method_encode. */
uint64_t method_bytes(const program *, uint32_t kind, uint32_t n_threads);
/* Scales of inputs are 1 until search_scales finds them. In any case method_close afterwards. Errors:
 * ERR_NO_MEMORY. */
status method_open(method *out, uint32_t kind, calibration *, const quant_job *,
                   uint32_t n_threads, err *);
/* METHOD_IMATRIX by the file alone. Errors: ERR_NO_MEMORY. */
status method_open_imatrix(method *out, const gguf *, const quant_job *, err *);
/* A tensor of the job by name; NULL: none. */
static inline const quant_tensor *method_tensor(const quant_job *j, const char *name) {
    for (size_t i = 0; i < j->n; i++)
        if (strcmp(j->v[i].info.name, name) == 0) return &j->v[i];
    return NULL;
}
void method_close(method *);

/* One thread, before the rows of a tensor; may run a pass over the text. Errors: those of
 * calibration_need, hessian_factor and imatrix_read. */
status method_begin(method *, const char *tensor, dtype to, err *);
/* Scales folded into rows [first_row, first_row + n_rows) of the tensor, before they are encoded. Any thread,
 * any tensor. */
void method_values(const method *, const char *tensor, uint64_t first_row, uint64_t n_rows,
                   uint64_t n_cols, float *rows);
/* Mean squares of a tensor's n inputs, out: [n]. *found false: nothing is known of them. Any thread. Errors: those
 * of imatrix_read. */
status method_importance(const method *, const char *tensor, uint64_t n, float *out,
                         bool *found, err *);
/* Encodes rows of the tensor that began last. Thread: 0..n_threads-1, one call at a time each. False: it has
 * nothing to say of this tensor. */
bool method_encode(const method *, const float *rows, uint64_t n_rows, uint64_t n_cols,
                   void *out, uint32_t thread);

#endif
