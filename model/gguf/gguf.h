/* GGUF, versions 2 and 3 (specification: ggml, docs/gguf.md), one file or split
 * (NAME-00001-of-0000N.gguf: opening any part opens all). Everything is checked before use; a
 * hostile file gets an error that names the field. Nothing is mapped: headers are read once,
 * tensor data by bounded pread. Immutable after open; reads from any thread. */
#ifndef VRAMD_MODEL_GGUF_H
#define VRAMD_MODEL_GGUF_H

#include "base/err.h"
#include "base/str.h"
#include "model/checkpoint.h"

typedef struct gguf gguf;

typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
} gguf_type;

typedef struct gguf_array {
    gguf_type type; /* of the elements; never GGUF_ARRAY */
    uint64_t n;
    const void *v; /* packed little-endian numbers, or an array of str */
} gguf_array;

typedef struct gguf_kv {
    str key;
    gguf_type type;
    union {
        uint64_t u; /* unsigned and bool */
        int64_t i;
        double f;
        str s;
        gguf_array a;
    };
} gguf_kv;

typedef struct gguf_tensor {
    char name[72];
    dtype type;
    uint32_t n_dims;
    uint64_t ne[4];         /* ne[0]: elements of a row; absent dimensions are 1 */
    uint64_t bytes, offset; /* offset from the start of its file */
    uint32_t part;          /* which file of a split */
} gguf_tensor;

/* Errors: ERR_NOT_FOUND, ERR_IO, ERR_FORMAT (field: what is wrong in the file). */
status gguf_open(gguf **out, const char *path, err *);
/* One file that is open already (tests, the fuzzer): path is only what errors call it. The
 * descriptor is duplicated. A split file is an error here. */
status gguf_open_fd(gguf **out, int fd, const char *path, err *);
void gguf_close(gguf *); /* NULL is fine */
/* The file as a checkpoint, the same object: either is closed, not both. */
checkpoint *gguf_checkpoint(gguf *);
/* The other way round; NULL: a checkpoint of another format. */
const gguf *gguf_of(const checkpoint *);

const char *gguf_path(const gguf *);
uint32_t gguf_version(const gguf *);
uint64_t gguf_file_bytes(const gguf *); /* all parts */
uint32_t gguf_n_parts(const gguf *);
uint64_t gguf_header_bytes(const gguf *); /* what the parsed headers take in memory */
uint64_t gguf_alignment(const gguf *);    /* of the first part */
const char *gguf_type_name(gguf_type);    /* "u32", "string", ... */

size_t gguf_n_kv(const gguf *);
const gguf_kv *gguf_kv_at(const gguf *, size_t i);
const gguf_kv *gguf_find(const gguf *, const char *key); /* NULL: absent */
size_t gguf_n_tensors(const gguf *);
const gguf_tensor *gguf_tensor_at(const gguf *, size_t i);
const gguf_tensor *gguf_tensor_find(const gguf *, const char *name); /* NULL: absent */

/* Typed look-ups. An absent key leaves *out alone and is OK; a key of another type is
 * ERR_FORMAT naming the key. Any integer type serves where the value fits. */
status gguf_get_u32(const gguf *, const char *key, uint32_t *out, err *);
status gguf_get_f32(const gguf *, const char *key, float *out, err *);
status gguf_get_bool(const gguf *, const char *key, bool *out, err *);
status gguf_get_str(const gguf *, const char *key, str *out, err *);
status gguf_get_array(const gguf *, const char *key, gguf_type elem, gguf_array *out, err *);

/* Reads n bytes of a tensor's data from offset on. Errors: ERR_IO (the file shrank, ...). */
status gguf_read(const gguf *, const gguf_tensor *, uint64_t offset, void *dst, size_t n,
                 err *);

#endif
