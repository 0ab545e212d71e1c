/* A checkpoint: the files in which a model comes, whatever their format. What everything else
 * reads of them: tensors by name, facts by key, rows. GGUF (model/gguf/gguf.h) is one format; a test
 * has another, in memory (tests/model/fake_checkpoint.h).
 *
 * The names of tensors and the keys of facts are those that GGUF has (ggml, docs/gguf.md):
 * "blk.0.attn_q.weight", "llama.block_count", "tokenizer.ggml.tokens". A format with names of
 * its own translates them.
 *
 * A tensor is what the program of a model calls a weight, and its type is the one that rows are
 * read in. A format may make one of several stored tensors (codes, zeros and scales of one
 * matrix) and convert on reading; what it stores and makes nothing of, it lists as a tensor
 * under the stored name, so that model_open refuses it.
 *
 * Immutable after open; reads from any thread. */
#ifndef VRAMD_MODEL_CHECKPOINT_H
#define VRAMD_MODEL_CHECKPOINT_H

#include "base/err.h"
#include "base/str.h"
#include "model/dtype.h"

typedef struct checkpoint checkpoint;
struct model_config;

typedef struct tensor_info {
    const char *name; /* valid as long as the checkpoint */
    dtype type;
    uint64_t ne[4]; /* ne[0]: elements of a row; absent dimensions are 1 */
} tensor_info;

/* Without the dimensions of 1 at the end; at least 1. */
uint32_t tensor_n_dims(const tensor_info *);
/* All of it; 0: its rows are no whole blocks, or 64 bits do not hold the number. */
uint64_t tensor_bytes(const tensor_info *);

typedef enum fact_type { FACT_STR, FACT_I32, FACT_F32, FACT_BOOL } fact_type;

typedef struct fact_array {
    uint64_t n;
    const void *v; /* [n] str, int32_t, float, or bytes 0 and 1; as long as the checkpoint */
} fact_array;

/* What a format implements; the functions below describe the members. */
typedef struct checkpoint_format {
    const char *name; /* "GGUF" */
    /* The rows of q and k of the families with `permuted` (model/family.h) are stored in the
     * order in which rotated pairs are neighbours. */
    bool permutes_qk;
    const char *(*path)(const checkpoint *);
    uint64_t (*header_bytes)(const checkpoint *);
    size_t (*n_tensors)(const checkpoint *);
    void (*tensor)(const checkpoint *, size_t i, tensor_info *out);
    int32_t (*find)(const checkpoint *, const char *name);
    status (*read_rows)(const checkpoint *, size_t i, uint64_t row, uint64_t n, void *dst,
                        err *);
    status (*read_part)(const checkpoint *, size_t i, uint64_t row, uint64_t col, uint64_t n,
                        void *dst, err *);
    /* Where a tensor's rows begin, one after the other as read_rows gives them; the descriptor stays
     * the checkpoint's. False: they are not stored so. NULL: none are. */
    bool (*place)(const checkpoint *, size_t i, int *fd, uint64_t *at);
    bool (*has)(const checkpoint *, const char *key);
    bool (*length)(const checkpoint *, const char *key, uint64_t *n);
    status (*get_u32)(const checkpoint *, const char *key, uint32_t *out, err *);
    status (*get_f32)(const checkpoint *, const char *key, float *out, err *);
    status (*get_bool)(const checkpoint *, const char *key, bool *out, err *);
    status (*get_str)(const checkpoint *, const char *key, str *out, err *);
    status (*get_array)(const checkpoint *, const char *key, fact_type, fact_array *out, err *);
    /* The model's numbers, where they are no facts; NULL: they are. */
    status (*config)(const checkpoint *, struct model_config *, err *);
    status (*unchanged)(const checkpoint *, err *); /* NULL: it cannot change */
    void (*close)(checkpoint *);
} checkpoint_format;

struct checkpoint { /* the first member of a format's own struct */
    const checkpoint_format *format;
};

/* Opens the files at path in the format that they have: GGUF. Errors: ERR_NOT_FOUND, ERR_IO,
 * ERR_FORMAT (field: what is wrong in the file), ERR_INVALID (a directory), ERR_UNSUPPORTED (a
 * safetensors or PyTorch file). */
status checkpoint_open(checkpoint **out, const char *path, err *);
void checkpoint_close(checkpoint *); /* NULL is fine */
/* Whether the files are those that were opened, in size and time of modification: after the last
 * read. Errors: ERR_IO. */
status checkpoint_unchanged(const checkpoint *, err *);

const char *checkpoint_path(const checkpoint *);
/* What the parsed headers take in memory. */
uint64_t checkpoint_header_bytes(const checkpoint *);

size_t checkpoint_n_tensors(const checkpoint *);
/* i < n_tensors. */
tensor_info checkpoint_tensor(const checkpoint *, size_t i);
/* The index of the tensor, and *out (which may be NULL) filled; -1: absent. */
int32_t checkpoint_find(const checkpoint *, const char *name, tensor_info *out);
/* Reads rows [row, row + n) of tensor i; rows of all dimensions but the first count through.
 * dst: n rows of the type's bytes. Errors: ERR_IO (the file shrank, ...). */
status checkpoint_read_rows(const checkpoint *, size_t i, uint64_t row, uint64_t n, void *dst,
                            err *);
/* Reads columns [col, col + n) of one row of tensor i: whole blocks of the type. */
status checkpoint_read_part(const checkpoint *, size_t i, uint64_t row, uint64_t col,
                            uint64_t n, void *dst, err *);

bool checkpoint_has(const checkpoint *, const char *key);
/* Whether the fact is an array, of any type, and its length. */
bool checkpoint_length(const checkpoint *, const char *key, uint64_t *n);
/* Typed look-ups. An absent key leaves *out alone and is OK; a key of another type is
 * ERR_FORMAT naming the key. Any integer type serves as u32 where the value fits. */
status checkpoint_get_u32(const checkpoint *, const char *key, uint32_t *out, err *);
status checkpoint_get_f32(const checkpoint *, const char *key, float *out, err *);
status checkpoint_get_bool(const checkpoint *, const char *key, bool *out, err *);
status checkpoint_get_str(const checkpoint *, const char *key, str *out, err *);
status checkpoint_get_array(const checkpoint *, const char *key, fact_type, fact_array *out,
                            err *);

#endif
