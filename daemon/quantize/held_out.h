/* What a quantised file loses on texts that it was not calibrated on, beside what rounding to nearest loses there:
 * KL divergence from the model that it was made of, with float32 activations. Main thread. */
#ifndef VRAMD_DAEMON_QUANTIZE_HELD_OUT_H
#define VRAMD_DAEMON_QUANTIZE_HELD_OUT_H

#include <signal.h>

#include "daemon/quantize/calibrate_text.h"
#include "conf/options.h"

typedef struct held_out_row {
    const char *name; /* of the kind of text */
    uint64_t n;       /* tokens */
    double rtn, made; /* mean KL, nats */
    double change,
        se; /* made - rtn by pairs of tokens, and its standard error by batch means (NaN: too few) */
    bool worse; /* by more than twice that; where there is none, by any amount */
} held_out_row;

/* source, rtn, made: files with the same tokenizer. scratch: a path; files that begin with it are written and
 * removed. row: [text->n_kinds]. Errors: those of the machine and of eval_run. */
status held_out_compare(const char *source, const char *rtn, const char *made,
                        const char *scratch, const calibrate_text *, const options *,
                        const volatile sig_atomic_t *interrupted, held_out_row *row, err *);

/* made[i] - rtn[i] over n tokens. Pure. */
void held_out_difference(const float *rtn, const float *made, uint64_t n, held_out_row *row);

#endif
