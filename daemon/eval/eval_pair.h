/* What a reference of vramd eval belongs to: text, windows, tokenizer, weights; a wrong pair is refused
 * by name. Main thread. */
#ifndef VRAMD_DAEMON_EVAL_PAIR_H
#define VRAMD_DAEMON_EVAL_PAIR_H

#include "daemon/eval/eval_file.h"
#include "daemon/eval/eval_text.h"
#include "daemon/machine.h"

/* Of names, types, shapes, and of each tensor the first and the last row: enough to know models
 * apart without reading all of them. Errors: ERR_IO, ERR_NO_MEMORY. */
status eval_hash_weights(const checkpoint *, uint64_t out[2], err *);

/* Whether f was written for this text in these windows by this tokenizer and, unless weights is
 * NULL, with weights of this hash. Errors: ERR_INVALID (field reference; text: what differs). */
status eval_check_pairing(const eval_file *f, const eval_text *, const uint64_t *weights,
                          const machine *m, err *);

/* Fills in all of a header but its seal. */
void eval_name_reference(eval_header *, const eval_text *, const uint64_t weights[2],
                         const machine *, const engine_info *);

#endif
