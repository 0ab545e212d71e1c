/* Every operation of the CPU engine but the linear layers (linear.h): norm, rotary embedding,
 * the KV cache, attention, the gated activation. One table of functions per instruction set;
 * plain.c is the readable twin that the others must equal bit for bit. Pure; any thread.
 *
 * Same bits (docs/numerics.md): a row's result depends on the row alone. Reductions run in 16
 * virtual lanes, joined by the tree 8, 4, 2, 1; attention works in tiles and splits at fixed
 * absolute positions. */
#ifndef VRAMD_ENGINE_CPU_OPS_H
#define VRAMD_ENGINE_CPU_OPS_H

#include "engine/engine.h"
#include "engine/kv_code.h"

enum {
    ATTN_LANES = KV_MAX_LANES, /* tokens of a K group: one vector of scores */
    ATTN_TILE = 64,            /* tokens between two rescalings of the accumulators */
    ATTN_SPLIT = 512,     /* tokens of a partial result, which another thread may compute */
    ATTN_MAX_QUERIES = 24 /* query vectors that share the loads of a KV head */
};

/* One KV head of one sequence in one layer, paged: parts in the order KV_LANES (kv_block.h). */
typedef struct kv_head {
    unsigned char *base; /* its part of block 0 */
    size_t block_stride; /* bytes from a block to the next */
    const int32_t *blocks;
    const kv_format *format;
} kv_head;

/* Elements of an accumulator: those of a token's V, head_dim where that is as wide as K. */
static inline uint32_t attn_dim_pad(uint32_t head_dim) {
    return kv_v_dims(KV_LANES, head_dim);
}

/* Queries of consecutive rows against one KV head: query i belongs to row i / group, which
 * stands at position first_pos + i / group and sees the tokens up to it, with a window only so
 * many of them. What none of the rows sees is not read. */
typedef struct attn_part {
    const float *q; /* [n_rows * group][head_dim], rotated, times scale * log2(e); where K is of
                       a type that is turned by Hadamard's matrix, turned by it, too, and
                       divided by the dimensions of a segment */
    uint32_t n_rows, group, first_pos;
    uint32_t window;   /* 0: none */
    float cap;         /* of the scores, times log2(e): cap * tanh(score / cap); 0: none */
    uint32_t skip;     /* newest tokens that are not seen: 0, but for codes beside a tail */
    uint32_t from, to; /* tokens [from, to); from a multiple of ATTN_SPLIT */
    /* Out, per query: the largest score, the sum of the weights, and the weighted sum of V,
     * both relative to that score. Where no token of the range is seen: -inf, 0, 0. */
    float *max, *sum; /* [n_rows * group] */
    float *acc;       /* [n_rows * group][v_dims of the format]; of V as it is coded */
    void *scratch;    /* attn_scratch_bytes */
} attn_part;

/* Scratch of attend, and of attn_part's outputs where the caller keeps them beside it. */
size_t attn_scratch_bytes(uint32_t head_dim);

typedef struct op_kernels {
    cpu_isa isa;
    /* out = x / sqrt(mean(x^2) + eps) * w; n any; w NULL: of ones */
    void (*norm)(const float *x, const float *w, uint32_t n, float eps, float *out);
    /* out = (x - mean) / sqrt(variance + eps) * w + bias; n any */
    void (*layer_norm)(const float *x, const float *w, const float *bias, uint32_t n, float eps,
                       float *out);
    /* Rotates the first n_dims of head_dim by cos_sin (n_dims / 2 cosines, then the sines),
     * copies the rest, multiplies all by scale. */
    void (*rope)(const float *x, const float *cos_sin, uint32_t head_dim, uint32_t n_dims,
                 rope_pairing, float scale, float *out);
    /* Hadamard's matrix times each segment of x: kv_hadamard. dims: a multiple of segment, a
     * power of two from 16. */
    void (*hadamard)(float *x, uint32_t dims, uint32_t segment);
    /* Stores k (after its rotary embedding) and v of the token at pos; v is not read where it is in k. */
    void (*kv_append)(const kv_head *, uint32_t pos, const float *k, const float *v);
    /* tail: the newest KV_TAIL_TOKENS that each query sees, of types kv_tail_type, while older
     * ones are read from kv; NULL: all are. In each split of the sequence, older ones first. */
    void (*attend)(const kv_head *kv, const kv_head *tail, const attn_part *);
    /* Adds the partial result b of the tokens that follow to a. dim: dim_pad */
    void (*attn_merge)(float *max_a, float *sum_a, float *acc_a, float max_b, float sum_b,
                       const float *acc_b, uint32_t dim);
    /* What an attention sink adds to the sum of the weights: 2^(sink - max), at most 2^127. sink:
     * a learned score that has no value, times log2(e). */
    float (*attn_sink)(float max, float sink);
    /* out = acc * (1 / sum) */
    void (*attn_finish)(float sum, const float *acc, uint32_t n, float *out);
    /* What quantising a block of 32 lost: rest = x - d * q */
    void (*rest)(const float *x, const int8_t *q, float d, float *rest);
    /* out = act(gate) * up; out may be gate; up NULL: of ones, which ACT_SWIGLU_OAI has not */
    void (*gate)(activation, const float *gate, const float *up, uint32_t n, float *out);
    /* out[i] = the sum over rows k < n_rows of w[k * n + i] * x[k][i], a chain of fma from 0 on */
    void (*taps)(const float *const *x, const float *w, uint32_t n_rows, uint32_t n,
                 float *out);
    /* The sum of x[i] * y[i] */
    float (*dot)(const float *x, const float *y, uint32_t n);
    /* out[j][c] = the sum over i < n_in of x[j][i] * m[i][c], a chain of fma from 0 on. x:
     * [n_rows][n_in]; m: [n_in][n_out]; out: [n_rows][n_out]; n_out: a multiple of 16 */
    void (*rows_by)(const float *x, uint32_t n_rows, const float *m, uint32_t n_in,
                    uint32_t n_out, float *out);
    /* m[i][c] = m[i][c] * by + the sum over j < n_rows of x[j][i] * y[j][c], a chain of fma. x:
     * [n_rows][n_in]; y: [n_rows][n_out]; m: [n_in][n_out]; n_out: a multiple of 16 */
    void (*add_outer)(float *m, float by, const float *x, const float *y, uint32_t n_rows,
                      uint32_t n_in, uint32_t n_out);
    /* sum = fma(w, x, sum) */
    void (*add_scaled)(float w, const float *x, uint32_t n, float *sum);
    /* x = cap * tanh(x / cap), in place */
    void (*soft_cap)(float *x, uint32_t n, float cap);
    /* 2^x for x <= 127; 0 below -125. out may be x. */
    void (*exp2)(const float *x, uint32_t n, float *out);
} op_kernels;

extern const op_kernels ops_plain, ops_avx2, ops_avx512;

/* The table for an ISA, which must be one that linear_kernels_get gave. */
const op_kernels *op_kernels_get(cpu_isa isa);

/* exp2: n = round-to-even(x), f = x - n, 2^f = fma chain over these, highest first, then 1. A
 * least-maximum fit of the relative error on [-1/2, 1/2]: 9.2e-8. */
#define EXP2_C1 0x1.62e42ap-1f
#define EXP2_C2 0x1.ebf9bcp-3f
#define EXP2_C3 0x1.c6b752p-5f
#define EXP2_C4 0x1.3cea88p-7f
#define EXP2_C5 0x1.5bba14p-10f
#define LOG2_E  0x1.715476p+0f

/* Soft cap: cap (t - 1) / (t + 1), t = 2^(x SOFT_CAP_RATE / cap) = e^(2x / cap); its error is
 * below 1e-7 cap. */
#define SOFT_CAP_RATE (2 * LOG2_E)

#endif
