/* The format of a KV block: sizes and offsets, computed once. Pure; any thread. */
#include "engine/kv_block.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

const kv_type *kv_type_get(dtype t) {
    static const kv_type types[] = {
#define X(type, bits, word_bytes) {type, bits, word_bytes},
        KV_TYPE_LIST(X)
#undef X
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == t) return &types[i];
    return NULL;
}

/* Bytes of n elements' codes, up to a whole number of 16 bytes. */
static uint64_t code_bytes(const kv_type *t, uint64_t n) {
    return align_up(ceil_div(n * t->bits, 8), 16);
}

void kv_format_init(kv_format *f, kv_order order, const kv_type *k, const kv_type *v,
                    uint32_t block_tokens, uint32_t n_kv_heads, uint32_t head_dim) {
    CHECK(block_tokens >= 8 && block_tokens <= 256 && !(block_tokens & (block_tokens - 1)));
    CHECK(head_dim && head_dim % 2 == 0 && head_dim <= 1 << 14);
    uint32_t segment = 64;
    while (head_dim % segment) segment /= 2;
    *f = (kv_format){.k = *k,
                     .v = *v,
                     .block_tokens = block_tokens,
                     .n_kv_heads = n_kv_heads,
                     .head_dim = head_dim,
                     .lanes = 1,
                     .v_dims = kv_v_dims(order, head_dim),
                     .segments = head_dim / segment};
    if (order == KV_LANES) f->lanes = block_tokens < KV_MAX_LANES ? block_tokens : KV_MAX_LANES;
    while (1u << f->block_shift < block_tokens) f->block_shift++;
    while (1u << f->lane_shift < f->lanes) f->lane_shift++;
    f->k_group_bytes = head_dim * f->lanes * k->bits / 8;
    f->v_token_bytes = f->v_dims * v->bits / 8;
    const uint64_t words = (uint64_t)f->segments * block_tokens;
    f->v_at = (uint32_t)code_bytes(k, (uint64_t)block_tokens * head_dim);
    f->k_words_at = f->v_at + (uint32_t)code_bytes(v, (uint64_t)block_tokens * f->v_dims);
    f->v_words_at = f->k_words_at + (uint32_t)align_up(words * k->word_bytes, 16);
    f->part_bytes = (uint32_t)align_up(f->v_words_at + words * v->word_bytes, 64);
    CHECK(f->part_bytes % block_tokens == 0); /* the plan counts bytes of a token */
    f->layer_bytes = (uint64_t)n_kv_heads * f->part_bytes;
}

static bool is_among(dtype t, const dtype *known, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (known[i] == t) return true;
    return false;
}

status kv_types_check(dtype k, dtype v, const dtype *known, size_t n, const char *engine,
                      err *e) {
    const bool k_known = is_among(k, known, n);
    if (k_known && is_among(v, known, n)) return OK;
    char names[120] = "";
    for (size_t i = 0, at = 0; i < n && at < sizeof names; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "",
                               dtype_name(known[i]));
    err_set(e, ERR_UNSUPPORTED, "the %s engine has no KV cache of type %s", engine,
            dtype_name(k_known ? v : k));
    err_hint(e, "types it has: %s", names);
    return err_field(e, "%s",
                     k == v    ? "kv_cache_dtype"
                     : k_known ? "cache_type_v"
                               : "cache_type_k");
}
