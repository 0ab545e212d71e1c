/* Importance matrices as files of llama.cpp's (tools/imatrix, GGUF): for a tensor T the sums of squares of its inputs
 * "T.in_sum2" [inputs, matrices] and of how many rows, "T.counts" [1, matrices], both F32. */
#ifndef VRAMD_QUANT_IMATRIX_H
#define VRAMD_QUANT_IMATRIX_H

#include "model/gguf/gguf.h"
#include "quant/calib.h"

/* Errors: those of gguf_open; ERR_FORMAT (another kind of file; a tensor without its counts, or of another
 * type or shape; field: the tensor). */
status imatrix_open(gguf **out, const char *path, err *);
/* Mean squares of a tensor's n inputs, over all its matrices. *found false: the file has none of it. Errors:
 * ERR_FORMAT (another number of inputs, or numbers that are not finite or negative; field: the
 * tensor), ERR_IO. */
status imatrix_read(const gguf *, const char *tensor, uint32_t n, float *out, bool *found,
                    err *);

/* Writes the sums of all tensors that a calibration has, to path.XXXXXX, which is then renamed. datasets: names of the
 * texts; context: tokens of a window. Errors: ERR_IO, ERR_NO_MEMORY. */
status imatrix_write(const calib *, const char *path, const str *datasets, uint32_t n_datasets,
                     uint32_t context, err *);

#endif
