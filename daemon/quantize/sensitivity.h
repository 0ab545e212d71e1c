/* What each type would cost each matrix, and the types for a number of bytes. Main thread, with threads of its own
 * while it measures. */
#ifndef VRAMD_DAEMON_QUANTIZE_SENSITIVITY_H
#define VRAMD_DAEMON_QUANTIZE_SENSITIVITY_H

#include <signal.h>

#include "base/buf.h"
#include "daemon/quantize/convert.h"
#include "quant/choose.h"

typedef struct sensitivity {
    quant_job *job;
    choose_item *item; /* [n]: the free matrices */
    size_t *tensor;    /* [n]: their indexes in the job */
    size_t n;
    uint64_t fixed_bytes; /* of the other tensors, padded */
    bool weighted;        /* with importance */
    choose_option *mem;
} sensitivity;

/* Bytes that a thread holds while it measures. */
uint64_t sensitivity_bytes_of_thread(const quant_job *);
/* Rounds evenly spaced rows of each matrix, 65,536 numbers or all, to every type. The loss of a type is the squared error as a share
 * of the sum of squares (where the hooks have the importance of inputs, the larger of the share with it and without:
 * one input that is huge at few tokens, as models keep for attention's first, would hide all others), times how much of the
 * model's output passes through the matrix: 1 for the output matrix, 1 / (2 x layers) for one of a layer, twice
 * that for v and a third of it for q and k. Errors: as convert. */
status sensitivity_measure(sensitivity *, quant_job *, const quant_hooks *, uint32_t n_threads,
                           const volatile sig_atomic_t *interrupted, err *);
/* Sets the job's types: the file's bytes stay within the budget. Errors: ERR_BUDGET (what the least is), ERR_NO_MEMORY. */
status sensitivity_pick(sensitivity *, uint64_t file_bytes, err *);
/* OUT.sensitivity.json: {schema, version, input, budget, bytes, loss, importance, tensors: [{name, type, options:
 * [{type, bytes, loss}]}]}. */
void sensitivity_json(buf *, const sensitivity *, uint64_t budget);
void sensitivity_clear(sensitivity *);

#endif
