/* What a block of the KV cache is. Both engines' layouts, kernels and copies take their bytes
 * and addresses from here, so this is the one place that knows where something lies in the
 * cache.
 *
 * A part is the K and V of one KV head, in one layer, of block_tokens tokens:
 *
 *       0 +----------------------------+
 *         | K codes                    |  a group of tokens after the other
 *    v_at +----------------------------+
 *         | V codes                    |  a token after the other
 *         +----------------------------+  k_words_at
 *         | K words [segments][tokens] |  scales (kv_code.h); none for f16, bf16, f32
 *         +----------------------------+  v_words_at
 *         | V words [segments][tokens] |
 *         +----------------------------+  part_bytes: a multiple of 64 and of block_tokens
 *
 * A block is the parts of all layers of a group of layers, so that a copy of a block, writing
 * it out and giving it back are each one range of bytes:
 *
 *       0 +--------------------------------------------+
 *         | layer 0: part of head 0, of head 1, ...    |  layer_bytes
 *         +--------------------------------------------+
 *         | layer 1: ...                               |
 *         +--------------------------------------------+  kv_block_bytes
 *
 * and the pool of a group is an array of blocks. K and V have types of their own.
 *
 * The order of elements within the codes is the engine's:
 *   KV_LANES  CPU: K [tokens / lanes][head_dim][lanes], so that a vector holds one dimension of
 *             16 tokens (blocks of 8 tokens have 8 lanes); V [tokens][v_dims], v_dims =
 *             head_dim rounded up to 16, the rest zero
 *   KV_ROWS   CUDA: K and V [tokens][head_dim], that is, one lane and no padding
 * In KV_LANES integer codes (int8, q8_0, int4) lie in pairs, which one instruction multiplies
 * and adds: K [tokens / lanes][head_dim / 2][lanes][2 dimensions], V [tokens / 2][v_dims][2
 * tokens]. Two codes of 4 bits share a byte (kv_k_code, kv_v_code): of KV_ROWS dimensions 2i
 * (low) and 2i + 1; of KV_LANES i and i + 2 of each 4 in K, i and i + 8 of each 16 in V.
 *
 * Example: f16, 16 tokens, heads of 64. v_at = 16 * 64 * 2 = 2,048, part_bytes = 4,096.
 *   KV_LANES: K of token 5, dimension 3 is at (3 * 16 + 5) * 2 = 106, V at 2,048 + (5 * 64 + 3)
 *   * 2 = 2,694. KV_ROWS: K at (5 * 64 + 3) * 2 = 646, V at 2,694.
 *
 * Pure arithmetic; any thread. The functions are also for device code. */
#ifndef VRAMD_ENGINE_KV_BLOCK_H
#define VRAMD_ENGINE_KV_BLOCK_H

#include "base/err.h"
#include "model/dtype.h"

#ifdef __CUDACC__
#define KV_INLINE static inline __host__ __device__
#else
#define KV_INLINE static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { KV_MAX_LANES = 16 };

typedef enum kv_order { KV_LANES, KV_ROWS } kv_order;

/* How a type is stored: bits of an element's code, bytes of the word (scale, zero point) of one
 * token and segment, the dimensions of a segment, and whether a segment is rotated by the
 * Hadamard matrix before it is coded (kv_code.h). Types without words have no segments. */
typedef struct kv_type {
    dtype type;
    uint8_t bits, word_bytes, segment;
    bool rotated, integers; /* integers: codes are such, not floating point */
} kv_type;

/* X(type, bits, bytes of a word, most dimensions of a segment, rotated, integers): all that a cache can
 * be made of. */
#define KV_TYPE_LIST(X)                                                                        \
    X(DT_F16, 16, 0, 0, false, false)                                                          \
    X(DT_BF16, 16, 0, 0, false, false)                                                         \
    X(DT_F32, 32, 0, 0, false, false)                                                          \
    X(DT_INT8, 8, 2, 64, true, true)                                                           \
    X(DT_Q8_0, 8, 2, 32, false, true)                                                          \
    X(DT_FP8, 8, 2, 64, true, false)                                                           \
    X(DT_INT4, 4, 2, 64, true, true)

/* Where K or V has 4 bits, a query reads the newest tokens, those at a distance of less than
 * KV_TAIL_TOKENS, in full precision, and older ones as codes: an error of 4 bits costs ten times
 * more in the newest tokens. They are in both: the codes of a token are written with it. The tail
 * is a group of blocks of its own, with a window (engine/arrange.h), so that what a query reads
 * depends on distances alone. */
enum { KV_TAIL_TOKENS = 64 };

/* What types with words require. */
enum { KV_LEAST_SEGMENT = 16, KV_LEAST_TOKENS = 16 };

/* Bits of an element's code, a constant where t is one; 0: not in the list. */
KV_INLINE uint32_t kv_bits(dtype t) {
#define X(type, bits, ...)                                                                     \
    if (t == type) return bits;
    KV_TYPE_LIST(X)
#undef X
    return 0;
}

/* NULL: not in the list. */
const kv_type *kv_type_get(dtype);
/* How the tail keeps what is of type t elsewhere: codes become f16, rotated as they are, so that
 * sums over both are of the same numbers; other types stay. */
kv_type kv_tail_type(const kv_type *t);
static inline bool kv_has_tail(dtype k, dtype v) {
    return k == DT_INT4 || v == DT_INT4;
}

typedef struct kv_format {
    kv_type k, v;
    uint32_t block_tokens, n_kv_heads, head_dim;
    uint32_t lanes; /* tokens of a group of K */
    uint32_t block_shift,
        lane_shift;  /* log2 of block_tokens and of lanes: divisions cost time */
    uint32_t v_dims; /* elements of a token's V */
    uint32_t latent; /* V is so many dimensions of K, the first; 0: it is stored */
    /* Dimensions of a segment: the largest power of two up to the type's that divides head_dim;
     * and segments of a head that have a word each. Of types without words: what is rotated
     * together, or head_dim; and 1. */
    uint32_t k_segment, v_segment, k_segments, v_segments;
    uint32_t k_group_bytes, v_token_bytes;
    uint32_t v_at, k_words_at, v_words_at, part_bytes; /* offsets in a part */
    uint64_t layer_bytes;                              /* all parts of a block in one layer */
} kv_format;

/* block_tokens: a power of two from 8 to 256; head_dim: even, up to 2^14. */
void kv_format_init(kv_format *, kv_order, const kv_type *k, const kv_type *v,
                    uint32_t block_tokens, uint32_t n_kv_heads, uint32_t head_dim);

/* The same where V is the first `latent` dimensions of K (latent attention) and is not stored: v is then
 * what a reader makes of K's codes, float32, turned by Hadamard's matrix where K is. */
void kv_format_drop_v(kv_format *, uint32_t latent);
/* Whether that can be: of types with segments, whole ones. Errors: ERR_UNSUPPORTED (field:
 * cache_type_v, head_dim). */
status kv_latent_check(dtype k, dtype v, uint32_t head_dim, uint32_t latent, err *);

/* Whether the types can be used with these sizes. Errors: ERR_INVALID (field: block_size),
 * ERR_UNSUPPORTED (head_dim), with the type named. */
status kv_sizes_check(dtype k, dtype v, uint32_t block_tokens, uint32_t head_dim, err *);

/* ERR_UNSUPPORTED where the type of K or of V is not among the n that the engine of that name
 * computes with; the field is the option to change, the hint lists them. */
status kv_types_check(dtype k, dtype v, const dtype *known, size_t n, const char *engine,
                      err *);

/* Elements of a token's V as a part in this order has them. */
KV_INLINE uint32_t kv_v_dims(kv_order order, uint32_t head_dim) {
    return order == KV_LANES ? (head_dim + 15u) & ~15u : head_dim;
}

/* Bytes of a block in the pool of a group of so many layers. */
KV_INLINE uint64_t kv_block_bytes(const kv_format *f, uint32_t n_layers) {
    return f->layer_bytes * n_layers;
}
/* Where the part of a layer (counted within its group) and a KV head begins in a block. */
KV_INLINE uint64_t kv_part_at(const kv_format *f, uint32_t layer, uint32_t head) {
    return f->layer_bytes * layer + (uint64_t)f->part_bytes * head;
}

/* The rest are offsets in a part; token: within the block. */

/* Of the group of K codes that holds the token, whose lane there is token % lanes. */
KV_INLINE uint32_t kv_k_group_at(const kv_format *f, uint32_t token) {
    return (token >> f->lane_shift) * f->k_group_bytes;
}
/* Of the token's V codes; where tokens lie in pairs, of an even token's. */
KV_INLINE uint32_t kv_v_token_at(const kv_format *f, uint32_t token) {
    return f->v_at + token * f->v_token_bytes;
}

/* The code of a dimension: a byte of the part, and how far the code is shifted in it. For types
 * of up to 8 bits, the offset alone for all. */
typedef struct kv_place {
    uint32_t at, shift;
} kv_place;

KV_INLINE kv_place kv_k_code(const kv_format *f, uint32_t token, uint32_t dim) {
    const uint32_t lane = token & (f->lanes - 1), group = kv_k_group_at(f, token);
    const bool pairs = f->k.integers && f->lanes > 1;
    kv_place p;
    p.shift = 0;
    if (f->k.bits == 4) {
        p.shift = pairs ? (dim & 2) * 2 : (dim & 1) * 4;
        p.at = pairs ? ((dim / 4 << f->lane_shift) + lane) * 2 + (dim & 1) : dim / 2;
    } else if (pairs) {
        p.at = ((dim / 2 << f->lane_shift) + lane) * 2 + (dim & 1);
    } else {
        p.at = ((dim << f->lane_shift) + lane) * (f->k.bits / 8u);
    }
    p.at += group;
    return p;
}
KV_INLINE kv_place kv_v_code(const kv_format *f, uint32_t token, uint32_t dim) {
    const bool pairs = f->v.integers && f->lanes > 1;
    kv_place p;
    p.shift = 0;
    p.at = kv_v_token_at(f, pairs ? token & ~1u : token);
    if (f->v.bits == 4) {
        p.shift = pairs ? (dim & 8) / 2 : (dim & 1) * 4;
        p.at += pairs ? dim / 16 * 16 + dim % 8 * 2 + (token & 1) : dim / 2;
    } else {
        p.at += pairs ? dim * 2 + (token & 1) : dim * (f->v.bits / 8u);
    }
    return p;
}

/* Of the words of K and of V; for types that have them. */
KV_INLINE uint32_t kv_k_word_at(const kv_format *f, uint32_t segment, uint32_t token) {
    return f->k_words_at + (segment * f->block_tokens + token) * f->k.word_bytes;
}
KV_INLINE uint32_t kv_v_word_at(const kv_format *f, uint32_t segment, uint32_t token) {
    return f->v_words_at + (segment * f->block_tokens + token) * f->v.word_bytes;
}

#ifdef __cplusplus
}
#endif
#endif
