/* Linear layers on the CPU: y = x W^T over quantised or float weights, the house's hottest
 * code.
 *
 * Layout ("tiles"): a matrix [n_out, n_in] is stored as tiles of 16 outputs x 32 inputs, a pair
 * of 16-output tiles side by side per 32 inputs, streamed strictly forward:
 * [n_out/32][n_in/32][2]. A tile of a quantised type holds the same bytes as the file: 16 half
 * scales, (16 half minima,) the codes, each 32-bit lane one output with 4 or 8 inputs. Float
 * types: 16 outputs interleaved per input. Outputs are padded to a multiple of 32 with zeros.
 *
 * Same bits: for the int8 family each output is
 *   acc = 0; for each block of 32 inputs, in order:
 *     acc = fma(float(sum of int products), d_w * d_a, acc); with minima also acc = fma(m_w,
 * s_a, acc) where d_a, s_a = d_a * (sum of the codes) belong to the activation block; for float
 * activations one fma chain over the inputs in order. Every ISA, thread count, batch size and
 * tiling gives exactly these bits (-ffp-contract=off, explicit fma). */
#ifndef VRAMD_ENGINE_CPU_LINEAR_H
#define VRAMD_ENGINE_CPU_LINEAR_H

#include "engine/engine.h"

typedef struct packed {
    const void *tiles; /* 64-byte aligned */
    dtype type;
    uint32_t n_out, n_in;
} packed;

/* False when this engine has no kernel for the type, or n_in is no multiple of its block. */
bool linear_supports(dtype, uint32_t n_in);
uint64_t packed_bytes(dtype, uint32_t n_out, uint32_t n_in); /* exact, padding included */
/* Packs rows [row, row + n) of the file's layout into tiles; row and n multiples of 32 (the
 * last call may be short: the rest is zeroed). Pure; any thread, disjoint rows in parallel. */
void packed_store(void *tiles, dtype, uint32_t n_out, uint32_t n_in, uint32_t row, uint32_t n,
                  const void *rows);
/* One row back as float32 (embedding look-up in a tied matrix): exactly the file's values. */
void packed_row(const packed *, uint32_t row, float *out);

/* Activations of up to max_rows rows, quantised (int8 family) or not (f32). The caller owns the
 * memory. */
typedef struct act {
    activation_dtype family; /* ACTIVATION_INT8 or ACTIVATION_F32 */
    uint32_t n_in, n_rows;   /* n_in a multiple of 32 for int8 */
    float *f; /* [rows][n_in]: always valid for f32; for int8 only if the weight type is a float
                 type */
    int8_t *q;    /* [rows][n_in] codes, 64-byte aligned rows not required */
    float *d, *s; /* [rows][n_in / 32] */
} act;

/* The kernels of one ISA. A call computes outputs [out0, out1) (multiples of 32, or n_out) of
 * rows [row0, row1): threads share work by disjoint ranges. */
typedef struct linear_kernels {
    cpu_isa isa;
    /* Per 32 inputs: d = max|x| / 127, q = round-half-even(x / d) by x * (1 / d); d = 0 gives q
     * = 0. */
    void (*quantise)(const float *x, uint32_t n_in, int8_t *q, float *d, float *s);
    /* y[row * ldy + out] = ... (+ bias[out]) (+ residual[row * ldy_r + out]); bias and residual
     * may be NULL; residual may be y itself. The sum order is ((acc) + bias) + residual. */
    void (*linear)(const packed *, const act *, uint32_t row0, uint32_t row1, uint32_t out0,
                   uint32_t out1, const float *bias, const float *residual, uint32_t ld_res,
                   float *y, uint32_t ldy);
} linear_kernels;

/* The kernels of the best ISA that this CPU has and isa allows; NULL when isa cannot be had. */
const linear_kernels *linear_kernels_get(cpu_isa isa);
/* How to share out a linear: true = by rows (long prefills), false = by outputs. Pure. */

#endif
