/* The text of a calibration: one or several kinds in equal parts, each cut into whole windows, and of each kind a
 * part that is held out. Main thread. */
#ifndef VRAMD_DAEMON_QUANTIZE_CALIBRATE_TEXT_H
#define VRAMD_DAEMON_QUANTIZE_CALIBRATE_TEXT_H

#include "daemon/eval/eval_text.h"

enum { CALIBRATE_KINDS = 16 };

typedef struct calibrate_kind {
    char name[64]; /* of the file, without folders */
    buf text;
} calibrate_kind;

typedef struct calibrate_text {
    calibrate_kind kind[CALIBRATE_KINDS];
    uint32_t n_kinds;
    eval_text fit;                   /* what is calibrated on: windows of all kinds */
    eval_text held[CALIBRATE_KINDS]; /* of each kind, what is not */
} calibrate_text;

/* Reads the files; without any, the texts that are built in. Errors: those of eval_text_read, ERR_INVALID (too
 * many). */
status calibrate_text_read(calibrate_text *out, const char *const *files, uint32_t n, err *);
/* Cuts windows of context tokens: of each kind the last fifth is held out, at most n_held tokens of it, and n_fit
 * tokens over all kinds are taken of the rest. The text itself is freed. Errors: ERR_INVALID (a text too
 * short for one window; field: its name), ERR_NO_MEMORY. */
status calibrate_text_cut(calibrate_text *, const tokenizer *, uint32_t context, uint64_t n_fit,
                          uint64_t n_held, err *);
void calibrate_text_clear(calibrate_text *);

#endif
