/* What a quantised file will be: its tensors, their types and places, its header. Made from headers alone, and
 * exact to the byte. Not thread-safe while it is made; read by any thread afterwards. */
#ifndef VRAMD_QUANT_JOB_H
#define VRAMD_QUANT_JOB_H

#include "base/arena.h"
#include "base/buf.h"
#include "model/checkpoint.h"

typedef struct quant_tensor {
    tensor_info info; /* as the checkpoint has it */
    size_t in;        /* its index there */
    dtype to;         /* DT_NONE: not chosen yet */
    bool free;        /* a matrix whose type may be chosen; the others have theirs */
    uint64_t rows, cols;
    uint64_t bytes, offset; /* in the new file; offset from the start of the data */
} quant_tensor;

typedef struct quant_job {
    const checkpoint *in;
    quant_tensor *v; /* [n], in the order of the file: by layer, then by name */
    size_t n;
    buf header;
    uint64_t alignment, data_bytes, file_bytes;
    arena mem;
} quant_job;

/* Lists the tensors. Norms, biases, routers of experts and tables of positions are not free: of a GGUF file
 * they stay as they are; of a folder they become F32, as converters have them. Errors: ERR_UNSUPPORTED (a type
 * that is not decoded; field: the tensor), ERR_NO_MEMORY. */
status quant_job_open(quant_job *, const checkpoint *in, err *);
void quant_job_close(quant_job *);

/* Types by rule. type DT_NONE: each tensor keeps its own. else: all free matrices get it, or what
 * dtype_for_cols says; but, unless pure, output.weight, or the embedding where it is the head, gets Q6_K, or
 * Q8_0 where the type is Q8_0 or its blocks do not fit (llama.cpp, src/llama-quant.cpp). */
void quant_job_pick(quant_job *, dtype type, bool pure);
/* The type with the same numbers that a GGUF file can have: t itself, or what groups are repeated as (grouped.h);
 * DT_NONE: there is none. */
dtype quant_own(dtype t);
/* The type that the rule gives one of the free matrices. */
dtype quant_rule(const quant_job *, const quant_tensor *, dtype type, bool pure);
/* Whether the embedding is the output matrix, too. */
bool quant_tied(const quant_job *);
/* Whether numbers are rounded a second time: a quantised tensor gets another type than F32. The first such
 * tensor, or NULL. */
const quant_tensor *quant_job_twice(const quant_job *);

/* Bytes of all tensors of the types chosen, each padded to the alignment. */
uint64_t quant_job_data_bytes(const quant_job *);
/* Places and header. The header is read back: the model must be the same as the checkpoint's. Errors:
 * ERR_UNSUPPORTED (it would be another), ERR_NO_MEMORY. */
status quant_job_finish(quant_job *, err *);

#endif
