/* What a model's matrices multiply on a text, through the daemon's scheduler and engine with float32
 * activations: the sums of quant/calib.h of all inputs, and the second moments of as many as the memory for
 * them holds; others by further passes over the text. Main thread. */
#ifndef VRAMD_DAEMON_QUANTIZE_CALIBRATE_H
#define VRAMD_DAEMON_QUANTIZE_CALIBRATE_H

#include <signal.h>

#include "daemon/eval/eval_run.h"
#include "daemon/machine.h"
#include "daemon/quantize/calibrate_text.h"
#include "quant/calib.h"

typedef struct calibrate_wish {
    const char *const *files; /* texts; n_files 0: built in */
    uint32_t n_files;
    uint32_t context; /* tokens of a window; 0: 512, or as many as the model was trained for */
    uint64_t n_fit,
        n_held; /* tokens: to calibrate on, over all texts, and of each held out; 0: 16,384 and an eighth */
    bool hessians;  /* H are wanted */
    uint64_t max_h; /* bytes for them; 0: all at once where that is at most 2 GiB, else 2 GiB */
    uint64_t more;  /* bytes that the caller will hold meanwhile (factors, rows) */
    bool progress;
    const volatile sig_atomic_t *interrupted;
} calibrate_wish;

typedef struct calibration {
    calibrate_wish wish;
    options opt;
    machine m;
    engine_tap tap;
    calibrate_text text;
    eval_job job;
    calib sums;
    void *h; /* of h_bytes: those of inputs [h_from, h_to) */
    uint64_t h_bytes;
    uint32_t h_from, h_to;
    uint32_t n_passes;
    double perplexity; /* of the text that was calibrated on */
    status s;          /* of what happens while the machine plans */
    err e;
} calibration;

/* Reads headers and texts, and plans. In any case calibration_close afterwards. Errors: those of the machine, of the
 * texts, ERR_BUDGET. */
status calibration_plan(calibration *out, const char *model, const options *,
                        const calibrate_wish *, err *);
/* The most that it will hold, with what the wish says of the caller. */
uint64_t calibration_bytes(const calibration *);
/* Loads the model and runs the text once: sums of all inputs, and H from the first input on. Errors: those of
 * the machine. */
status calibration_run(calibration *, err *);
/* Makes H of an input available: by another pass, from it on, unless it is. */
status calibration_need(calibration *, calib_input *, err *);
void calibration_close(calibration *);

#endif
