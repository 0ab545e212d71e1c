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
/* The same as convert where the method is rtn. Afterwards the KL divergence on the held-out part of each text is
 * printed beside that of rounding. Errors: those of convert and of method_open; ERR_UNSUPPORTED where a text is
 * worse than by rounding (the file is there). */
status convert_by_method(conversion *, const method_args *, err *);

#endif
