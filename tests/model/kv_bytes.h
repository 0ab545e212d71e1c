/* What models' authors publish of the KV cache: bytes of K and V of one token over all layers,
 * stored as t; 0 when head_dim is no multiple of its block. */
#ifndef VRAMD_TESTS_MODEL_KV_BYTES_H
#define VRAMD_TESTS_MODEL_KV_BYTES_H

#include "model/config.h"

static inline uint64_t kv_bytes_per_token(const model_config *c, dtype t) {
    uint64_t bytes;
    return dtype_bytes(t, 2ull * c->n_kv_heads * c->n_layers, c->head_dim, &bytes) ? bytes : 0;
}

#endif
