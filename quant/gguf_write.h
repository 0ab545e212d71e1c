/* A GGUF file's header (version 3), byte by byte into a buf: what model/gguf/gguf.h reads. The buf's failed flag
 * tells at the end whether memory sufficed. */
#ifndef VRAMD_QUANT_GGUF_WRITE_H
#define VRAMD_QUANT_GGUF_WRITE_H

#include "base/buf.h"
#include "model/gguf/gguf.h"

/* Keys and values, and how many there are. */
typedef struct gguf_keys {
    buf b;
    uint64_t n;
} gguf_keys;

void gguf_put(gguf_keys *, const gguf_kv *); /* as it was read */
void gguf_put_u32(gguf_keys *, str key, uint32_t);
void gguf_put_f32(gguf_keys *, str key, float);
void gguf_put_bool(gguf_keys *, str key, bool);
void gguf_put_str(gguf_keys *, str key, str);
/* elems: [n], packed little-endian numbers (bools: bytes), or of GGUF_STRING str. */
void gguf_put_array(gguf_keys *, str key, gguf_type, uint64_t n, const void *elems);

typedef struct gguf_entry {
    const char *name;
    dtype type;
    uint32_t n_dims;
    uint64_t ne[4], offset; /* from the start of the data, a multiple of the alignment */
} gguf_entry;

/* The whole header, padded to the alignment (a power of two): data begins right behind it. */
void gguf_put_header(buf *, const gguf_keys *, const gguf_entry *, uint64_t n,
                     uint64_t alignment);

#endif
