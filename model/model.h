/* A model file opened: its program recorded, each tensor accounted for, rows read on demand. */
#ifndef VRAMD_MODEL_MODEL_H
#define VRAMD_MODEL_MODEL_H

#include "model/checkpoint_rows.h"
#include "model/program.h"
#include "model/weight_mix.h"

/* A model file opened: its program and where its weights are. Owns neither more nor less than
 * the program; the checkpoint is borrowed and must outlive it. */
typedef struct model {
    struct program program;
    const checkpoint *file; /* NULL when planned from a config */
} model;

/* Errors: ERR_UNSUPPORTED naming architecture, tensor or type (also for a tensor that the
 * architecture does not have: it would be a different model); ERR_FORMAT for a missing tensor
 * or a wrong shape (field: the tensor, text: wanted and found). */
status model_open(model **out, const checkpoint *, err *);
/* The program of a model that is not here, with every matrix of the given type (norms and
 * biases float32). Where cols is no multiple of the block, falls back as quantizers do. */
status model_from_config(model **out, const model_config *, dtype weights, err *);
/* The same with the types of a mixture. */
status model_from_mix(model **out, const model_config *, weight_mix, err *);
void model_close(model *);

/* Reads rows [row, row + n) of a weight as stored; row r of expert e is e * rows + r. dst: n
 * rows of cols columns of the type's bytes. Needs a file, as the next one. Errors: ERR_IO. */
status model_read_rows(const model *, weight_id, uint32_t row, uint32_t n, void *dst, err *);
/* The same of a weight that is turned, as it is stored: row r of the tensor's part for expert e, which is
 * column r of the weight, is e * cols + r. dst: n rows of w->rows numbers of the type stored. */
status model_read_turned(const model *, weight_id, uint32_t row, uint32_t n, void *dst, err *);
/* A weight's rows for whoever reads them when the checkpoint is closed; it is a whole tensor. Errors: as
 * checkpoint_rows_open. */
status model_keep_rows(const model *, weight_id, checkpoint_rows *out, err *);
/* Where the matrices of a weight's experts lie in a file, one as long as stride after the other: for
 * whoever reads them when the checkpoint is closed. */
typedef struct expert_store {
    int fd; /* the checkpoint's */
    uint64_t at, stride, row_bytes;
} expert_store;
/* Errors: ERR_UNSUPPORTED (field: the tensor): they are not stored as model_read_rows gives them. */
status model_expert_rows(const model *, weight_id, expert_store *out, err *);
/* Reads a WEIGHT_VECTOR (stored as F32, F16 or BF16) as float32. dst: [cols]. */
status model_read_vector(const model *, weight_id, float *dst, err *);

#endif
