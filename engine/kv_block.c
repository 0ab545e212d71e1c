/* The format of a KV block: sizes and offsets, computed once. Pure; any thread. */
#include "engine/kv_block.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

const kv_type *kv_type_get(dtype t) {
    static const kv_type types[] = {
#define X(type, bits, word_bytes, segment, rotated, integers)                                  \
    {type, bits, word_bytes, segment, rotated, integers},
        KV_TYPE_LIST(X)
#undef X
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == t) return &types[i];
    return NULL;
}

kv_type kv_tail_type(const kv_type *t) {
    if (!t->word_bytes) return *t;
    kv_type tail = *kv_type_get(DT_F16);
    if (t->rotated) tail.rotated = true, tail.segment = t->segment;
    return tail;
}

/* Bytes of n elements' codes, up to a whole number of 16 bytes. */
static uint64_t code_bytes(const kv_type *t, uint64_t n) {
    return align_up(ceil_div(n * t->bits, 8), 16);
}

/* The largest power of two up to most that divides head_dim. */
static uint32_t segment_of(uint32_t most, uint32_t head_dim) {
    while (head_dim % most) most /= 2;
    return most;
}

void kv_format_init(kv_format *f, kv_order order, const kv_type *k, const kv_type *v,
                    uint32_t block_tokens, uint32_t n_kv_heads, uint32_t head_dim) {
    CHECK(block_tokens >= 8 && block_tokens <= 256 && !(block_tokens & (block_tokens - 1)));
    CHECK(head_dim && head_dim % 2 == 0 && head_dim <= 1 << 14);
    *f = (kv_format){.k = *k,
                     .v = *v,
                     .block_tokens = block_tokens,
                     .n_kv_heads = n_kv_heads,
                     .head_dim = head_dim,
                     .lanes = 1,
                     .v_dims = kv_v_dims(order, head_dim),
                     .k_segment = k->segment ? segment_of(k->segment, head_dim) : head_dim,
                     .v_segment = v->segment ? segment_of(v->segment, head_dim) : head_dim};
    f->k_segments = k->word_bytes ? head_dim / f->k_segment : 1;
    f->v_segments = v->word_bytes ? head_dim / f->v_segment : 1;
    if (order == KV_LANES) f->lanes = block_tokens < KV_MAX_LANES ? block_tokens : KV_MAX_LANES;
    while (1u << f->block_shift < block_tokens) f->block_shift++;
    while (1u << f->lane_shift < f->lanes) f->lane_shift++;
    f->k_group_bytes = head_dim * f->lanes * k->bits / 8;
    f->v_token_bytes = f->v_dims * v->bits / 8;
    const uint64_t k_words = (uint64_t)f->k_segments * block_tokens;
    const uint64_t v_words = (uint64_t)f->v_segments * block_tokens;
    f->v_at = (uint32_t)code_bytes(k, (uint64_t)block_tokens * head_dim);
    f->k_words_at = f->v_at + (uint32_t)code_bytes(v, (uint64_t)block_tokens * f->v_dims);
    f->v_words_at = f->k_words_at + (uint32_t)align_up(k_words * k->word_bytes, 16);
    f->part_bytes = (uint32_t)align_up(f->v_words_at + v_words * v->word_bytes, 64);
    CHECK(f->part_bytes % block_tokens == 0); /* the plan counts bytes of a token */
    f->layer_bytes = (uint64_t)n_kv_heads * f->part_bytes;
}

void kv_format_drop_v(kv_format *f, uint32_t latent) {
    const uint64_t k_words = (uint64_t)f->k_segments * f->block_tokens * f->k.word_bytes;
    f->latent = latent;
    f->v = *kv_type_get(DT_F32);
    f->v.rotated = f->k.rotated, f->v.segment = f->k.segment;
    f->v_segment = f->k.rotated ? f->k_segment : latent;
    f->v_segments = 1;
    f->v_dims = (latent + 15u) & ~15u;
    f->v_token_bytes = 0;
    f->k_words_at = f->v_at;
    f->v_words_at = f->k_words_at + (uint32_t)align_up(k_words, 16);
    f->part_bytes = (uint32_t)align_up(f->v_words_at, 64);
    CHECK(f->part_bytes % f->block_tokens == 0);
    f->layer_bytes = (uint64_t)f->n_kv_heads * f->part_bytes;
}

status kv_sizes_check(dtype k, dtype v, uint32_t block_tokens, uint32_t head_dim, err *e) {
    const dtype both[] = {k, v};
    for (int i = 0; i < 2; i++) {
        const kv_type *t = kv_type_get(both[i]);
        if (!t->word_bytes) continue;
        if (block_tokens < KV_LEAST_TOKENS) {
            err_set(e, ERR_INVALID, "block_size = %u: a KV cache of type %s needs at least %d",
                    block_tokens, dtype_name(both[i]), KV_LEAST_TOKENS);
            return err_field(e, "block_size");
        }
        if (segment_of(t->segment, head_dim) < KV_LEAST_SEGMENT) {
            err_set(e, ERR_UNSUPPORTED,
                    "a KV cache of type %s needs heads of a multiple of %d dimensions, not %u",
                    dtype_name(both[i]), KV_LEAST_SEGMENT, head_dim);
            err_hint(e, "use f16, bf16 or f32");
            return err_field(e, "head_dim");
        }
    }
    return OK;
}

status kv_latent_check(dtype k, dtype v, uint32_t head_dim, uint32_t latent, err *e) {
    const kv_type *t = kv_type_get(k);
    if (k != v) {
        err_set(e, ERR_UNSUPPORTED,
                "cache_type_k is %s and cache_type_v %s, but this model has one row for both",
                dtype_name(k), dtype_name(v));
        err_hint(e, "set kv_cache_dtype alone");
        return err_field(e, "cache_type_v");
    }
    if (!t->word_bytes || latent % segment_of(t->segment, head_dim) == 0) return OK;
    err_set(e, ERR_UNSUPPORTED,
            "a KV cache of type %s has groups of %u dimensions, in which a latent of %u of %u "
            "does not end",
            dtype_name(k), segment_of(t->segment, head_dim), latent, head_dim);
    err_hint(e, "use f16, bf16 or f32");
    return err_field(e, "head_dim");
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
