/* Inside of model/gguf/gguf*.c: the header of one file. */
#ifndef VRAMD_MODEL_GGUF_PARSE_H
#define VRAMD_MODEL_GGUF_PARSE_H

#include <time.h>

#include "base/arena.h"
#include "model/gguf/gguf.h"

/* Limits of a header, far above any real one (2025: 10 MB, 1,000 keys, 30,000 tensors), so that
 * a hostile file cannot make us take memory out of proportion. */
enum {
    GGUF_MAX_KEYS = 1 << 16,
    GGUF_MAX_TENSORS = 1 << 18,
    GGUF_MAX_HEADER = 256 << 20,
    GGUF_MAX_KEY = 65535, /* the specification's */
    GGUF_MAX_NAME = 64,   /* of a tensor; the specification's */
    GGUF_MAX_PARTS = 1024,
    GGUF_MAX_ALIGNMENT = 1 << 20
};

/* Names -> index; open addressing. Memory: the arena it was built in. */
typedef struct name_index {
    const str *names;
    uint32_t *slot; /* index + 1; 0: free */
    uint32_t mask;
} name_index;

/* UINT32_MAX: unique; else the index of the first name that was there before. False: memory. */
bool name_index_build(name_index *, arena *, const str *names, uint32_t n, uint32_t *twice);
/* UINT32_MAX: absent. */
uint32_t name_index_find(const name_index *, str name);

typedef struct gguf_part {
    int fd;
    uint64_t bytes;          /* of the file */
    struct timespec written; /* its last modification */
    uint32_t version, n_kv, n_tensors;
    uint64_t alignment, data_start;
    gguf_kv *kv;
    name_index keys;
    gguf_tensor *tensors;
} gguf_part;

/* Reads the header from part->fd; path is for errors. Memory comes from the arena. */
status gguf_parse(gguf_part *part, arena *, const char *path, err *);
/* The metadata of one part; NULL: absent. */
const gguf_kv *gguf_part_find(const gguf_part *, const char *key);
/* False when kv is no integer or does not fit. */
bool gguf_kv_u64(const gguf_kv *, uint64_t *out);

#endif
