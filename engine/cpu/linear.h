/* Linear layers on the CPU: y = x W^T over quantised or float weights, the house's hottest
 * code. Everything here is pure (no state, no allocation); any thread, disjoint outputs.
 *
 * Weights are packed once at load ("strips", engine/cpu/linear_tiles.h): 16 outputs side by
 * side, the inputs of a strip streamed strictly forward, the same bytes as in the file. Outputs
 * are padded to a multiple of 16 with zeros.
 *
 * Three families of activations, and in each the same bits from every instruction set, number of
 * threads, batch size and tiling (-ffp-contract=off, explicit fma, no reassociation):
 *
 * int8 (quantised weights): a row is quantised per 32 values to codes q with scale d_a, and
 * s_a = d_a * float(sum of the 32 codes). Then for each output
 *
 *     acc = 0; for each block of 32 inputs, in order:
 *       acc = fma(float(isum), d_w * d_a, acc)   (isum: exact int32 sum of code products)
 *       acc = fma(m_w, s_a, acc)                 (only types with a minimum)
 *
 * d_w and m_w are the block's, or for Q4_K, Q5_K and IQ4_XS the products of the superblock's
 * binary16 numbers by its 6-bit ones, which float32 holds exactly; m_w is minus the minimum.
 * Q2_K, Q3_K and Q6_K have integer scales c for 16 inputs: isum = c0 * isum0 + c1 * isum1 over
 * the halves, below 2^24 and so exact in float32, and Q2_K's minimum is
 *
 *       acc = fma(float(min0 * qsum0 + min1 * qsum1), -dmin * d_a, acc)
 *
 * Types of model/words.h have d_w for 32 inputs, or for 16:
 *
 *       for both halves h, in order: acc = fma(float(isum[h]), d_w[h] * d_a, acc)
 *
 * Types with groups (model/dtype.h) have d_w for a group of inputs, in binary16, bfloat16 or float32; of I4Z and I8Z
 * isum = sum of code products - zero * (sum of the 32 codes of activations), exact in int32 and float32
 * (zero 0..16 and -128..128: below 2^17 and 2^20).
 *
 * Weight codes: -128..127 (Q8_0, I8G, I8Z), -8..7 (Q4_0, I4), 0..15 (Q4_1, Q4_K, I4Z), -16..15 (Q5_0), 0..31
 * (Q5_1, Q5_K), 16 values of -127..113 (IQ4_NL, IQ4_XS), 8 values of 0..12 and their negatives (MXFP4), 0..3 (Q2_K), -4..3 (Q3_K), -32..31
 * (Q6_K). Error of one layer against float64: about 0.005 of the norm of the output, up to
 * 0.022 with outlier channels (as tests/engine/test_linear.c makes them).
 *
 * f32 (any weights; float weights and F8 take it in the int8 family too): weights as packed_row
 * returns them;
 *
 *     acc = 0; for each input k, in order: acc = fma(w[k], x[k], acc)
 *
 * bf16 (any weights): activations, and weights as packed_row returns them, are rounded to bf16 (nearest even;
 * below 2^-56 they are 0);
 *
 *     acc = 0; for each 32 inputs, in order:
 *       even = odd = 0; for each of the 16 even inputs k, in order: even = fma(w[k], x[k], even);
 *       for each of the odd ones: odd = fma(w[k], x[k], odd);  acc = acc + (even + odd)
 *
 * which is what the tile instruction TDPBF16PS of AMX computes, too; vdpbf16ps adds odd and even products in turn to
 * one sum, which are other bits: it is not used.
 *
 * Then y = (acc + bias) + residual; of NVFP4 y = (acc * scale + bias) + residual.
 *
 * NaN and infinity travel: a row block that holds one gets d_a = s_a = NaN, so its outputs are
 * NaN, never garbage. Which NaN is not promised. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_H
#define VRAMD_ENGINE_CPU_LINEAR_H

#include "engine/engine.h"

typedef struct packed {
    const void *tiles; /* packed_bytes of them, 64-byte aligned */
    dtype type;
    uint32_t n_out, n_in;
    const float
        *scale; /* of NVFP4, a number that all weights are to be multiplied by; NULL: 1 */
} packed;

/* Types F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K,
 * IQ4_XS, those of model/words.h, and those with groups: I4, I4Z, I8G, I8Z, F8. False when this
 * engine has no kernel for the type, or n_in is no multiple of its block (or 0, or above 2^20). */
bool linear_supports(dtype, uint32_t n_in);
/* True when the int8 family uses the quantised activations for this type, false when the float
 * ones. */
bool linear_wants_int8(dtype);
/* Exact, padding included. The type must be supported. */
uint64_t packed_bytes(dtype, uint32_t n_out, uint32_t n_in);
/* Packs rows [row, row + n) of the file's layout (rows one after the other, no gaps) into
 * tiles. row is a multiple of 16, and n too unless row + n == n_out: then the padding is
 * zeroed. Any thread, disjoint rows in parallel. */
void packed_store(void *tiles, dtype, uint32_t n_out, uint32_t n_in, uint32_t row, uint32_t n,
                  const void *rows);
/* One row back as float32 (embedding look-up in a tied matrix): exactly the file's values, times w->scale. */
void packed_row(const packed *, uint32_t row, float *out);

/* Activations of n_rows rows. The caller owns the memory. */
typedef struct act {
    activation_dtype family; /* ACTIVATION_INT8, ACTIVATION_F32 or ACTIVATION_BF16 */
    uint32_t n_in, n_rows;
    float *f; /* [n_rows][n_in]; needed by family f32 and by weights of a float type */
    void *q;  /* family int8: act_bytes(n_in, n_rows), 64-byte aligned, layout private; n_in a
                 multiple of 32. Family bf16: act_bytes_of it, and all weights need it. NULL
                 otherwise */
} act;

uint64_t act_bytes(uint32_t n_in, uint32_t n_rows); /* of act.q, exact */
uint64_t act_bytes_of(activation_dtype family, uint32_t n_in, uint32_t n_rows);
/* Rows of a group, which lie together in q: views of an act begin at a multiple of it. */
uint32_t act_rows(activation_dtype family);
/* Where a.q has the group of a row, from input k on (a multiple of 32): the q of a view. */
void *act_part(const act *a, uint32_t row, uint32_t k);
/* Reads a quantised row back (tests, debugging). q: [n_in]; d, s: [n_in / 32]. */
void act_get(const act *, uint32_t row, int8_t *q, float *d, float *s);

/* Things [from, to). */
typedef struct span {
    uint32_t from, to;
} span;

/* A product: y[row * ldy + out] = acc (+ bias[out]) (+ residual[row * ld_res + out]). bias and
 * residual may be NULL; residual may be y itself. */
typedef struct linear_call {
    const packed *w;
    const act *a;
    const float *bias, *residual;
    float *y;
    uint32_t ld_res, ldy;
} linear_call;

/* A thread's part of a product. */
typedef struct linear_part {
    span rows, outs;
} linear_part;

/* The kernels of one ISA. */
typedef struct linear_kernels {
    cpu_isa isa;
    /* Quantises x: [a->n_in] as row `row` of a->q. Per 32 values, with big = max|x|:
     *   d = big / 127, q = round-half-even(x * (127 / big)), s = d * float(sum of q);
     *   big < 2^-80: all zero;  a NaN or infinity among them: d = s = NaN, q = 0.
     * Disjoint rows in parallel. */
    void (*quantise)(const float *x, const act *a, uint32_t row);
    /* Some rows and outputs of a product. outs.from is a multiple of 16, and outs.to too or
     * n_out. Threads share work by disjoint ranges; empty ranges are fine. */
    void (*linear)(const linear_call *, span rows, span outs);
} linear_kernels;

/* The kernels of the best ISA that this CPU has (ISA_AUTO), or exactly those of isa; NULL when
 * isa cannot be had (isa_lack). Tiles of AMX are for bf16: for int8 and f32 ISA_AMX has those of AVX-512. */
const linear_kernels *linear_kernels_get(cpu_isa isa);
/* Those of the family bf16; linear_kernels_get's are of int8 and f32. */
const linear_kernels *linear_kernels_bf16(cpu_isa isa);

/* How thread id of n_threads best takes part in a linear of n_rows x n_out: by outputs for few
 * rows (each weight is read by one core only), by rows for long prefills. The parts of all ids
 * are disjoint and cover everything; a part may be empty. family: whose groups of rows (act_rows)
 * stay whole. */
linear_part linear_share(activation_dtype family, uint32_t n_rows, uint32_t n_out,
                         uint32_t n_threads, uint32_t id);

#endif
