/* vramd quantize --method: a conversion whose scales and codes are chosen on a text. Main thread. */
#ifndef VRAMD_DAEMON_QUANTIZE_BY_METHOD_H
#define VRAMD_DAEMON_QUANTIZE_BY_METHOD_H

#include "daemon/quantize/convert.h"
#include "daemon/quantize/method.h"

typedef struct method_args {
    uint32_t kind;
    const char *file[CALIBRATE_KINDS]; /* --calibrate, in order */
    uint32_t n_files;
    uint64_t n_tokens, max_h;            /* 0: defaults */
    const char *imatrix, *write_imatrix; /* NULL: none */
    bool unchecked;                      /* held-out texts are not looked at */
    bool accept; /* a file that is worse than rounding on one of them is no error */
} method_args;

/* Takes --method, --calibrate, --calibrate-tokens, --max-h, --imatrix, --write-imatrix, --no-check and --accept-worse
 * out of argv. Errors: ERR_INVALID. */
status method_take_args(method_args *, int *argc, char **argv, err *);
/* A method on its way through plan, text and conversion; of rtn nothing happens but the conversion. */
typedef struct method_run {
    const method_args *args; /* borrowed */
    conversion *conversion;  /* borrowed */
    gguf *imatrix;           /* NULL: none is read */
    calibration cal;
    bool calibrates, ran;
    method method;
    quant_hooks hooks;
    options opt; /* of the calibration, and of what is compared */
} method_run;

/* Opens and plans what it needs. In any case method_run_close afterwards. Errors: those of calibration_plan and
 * imatrix_open. */
status method_run_plan(method_run *out, const method_args *, conversion *, err *);
/* The most that the calibration holds, rows in conversion included; 0: there is none. */
uint64_t method_run_bytes(const method_run *);
/* Runs the text, once: the hooks know the importance of inputs. Errors: those of calibration_run and
 * method_open. */
status method_run_text(method_run *, err *);
/* Converts. Afterwards the KL divergence on the held-out part of each text is printed beside that of rounding.
 * Errors: those of method_run_text and convert; ERR_UNSUPPORTED where a text is worse than by rounding (the file is
 * there). */
status method_run_convert(method_run *, err *);
void method_run_close(method_run *);

#endif
