/* The operations of a program on a CUDA device: each function puts one operation into a stream
 * and returns at once. Implemented in embed.cu, norm.cu, gate.cu, elementwise.cu, linear_few.cu,
 * linear_packed.cu, linear_quant.cu, route.cu, rope.cu, attn_decode.cu, attn_prefill.cu, attn_wide.cu,
 * conv.cu, recur.cu, sample.cu. lower.cu chooses
 * between them and graphs.cu captures them, so a function neither allocates nor waits, and its
 * grid depends on its arguments only, never on device data.
 *
 * Pointers are device pointers unless said otherwise. Strides (ld_*) count elements. T is the
 * activations' type, f16 or bf16; every sum is float32. The residual stream is float32.
 * A step padded to a graph's bucket has rows of position -1 and entries of n_rows 0: they are
 * computed like others where that is harmless and touch neither the KV cache nor results.
 *
 * Same bits: no function's result for a row depends on the other rows of the call, except where
 * its comment says so; sums over a row or over tokens are split at fixed absolute places.
 *
 * Every function returns the launch's error (cudaSuccess otherwise). */
#ifndef VRAMD_ENGINE_CUDA_KERNELS_H
#define VRAMD_ENGINE_CUDA_KERNELS_H

#include "engine/cuda/cu.h"
#include "engine/cuda/matrix.h"
#include "engine/cuda/scratch.h"
#include "engine/kv_block.h"
#include "engine/tables.h"
#include "model/program.h"
#include "model/sampling.h"

/* ---- tables of a step: int32, at fixed addresses, filled by one copy a step ---- */

typedef struct cu_tables {
    /* by row: [n_rows] */
    const int32_t *token; /* input id; meaningless where from >= 0 */
    const int32_t *from;  /* >= 0: the input is previous[from] instead */
    const int32_t *pos;   /* absolute position; -1: padding */
    const int32_t *entry; /* which entry of the batch the row belongs to */
    /* by entry: [n_seqs] */
    const int32_t *first_row, *n_rows, *first_pos;
    const int32_t *blocks[PROGRAM_MAX_GROUPS]; /* [n_seqs][table_stride]; -1: none */
    uint32_t table_stride;
    /* by gathered row: [n_logit_rows] */
    const int32_t *gathered; /* its row in the step */
    const int32_t *previous; /* [max_seqs]: what each entry of the step before drew */
} cu_tables;

/* How a result is left. */
typedef enum cu_out {
    CU_OUT_T,   /* stores T */
    CU_OUT_F32, /* stores float32 (logits) */
    CU_OUT_ADD  /* adds to float32 (the residual stream) */
} cu_out;

/* Where a kernel leaves its result quantised beside the result itself: what cu_quantize makes of it. */
typedef struct cu_codes {
    void *codes; /* cu_quantized_bytes; NULL: it is not quantised. No input of the kernel */
    uint32_t *arrived; /* cu_arrived_bytes (scratch.h), zeros before and after */
} cu_codes;

/* ---- embed.cu ---- */

/* out[r] = scale * w[token of row r]. out: [n_rows][n_in of w] float32. An id outside the
 * vocabulary (a padding row) reads row 0. w: any supported type. */
cudaError_t cu_embed(cudaStream_t, const cu_matrix *w, const cu_tables *, uint32_t n_rows,
                     float scale, float *out);
/* The same of a rank, whose w has the rows of the vocabulary from first on: rows of other tokens are 0. */
cudaError_t cu_embed_part(cudaStream_t, const cu_matrix *w, const cu_tables *, uint32_t first,
                          uint32_t n_rows, float scale, float *out);
/* out[r] = (in[r] + scale * w[token of row r]) / sqrt(2). in, out: [n_rows][n_in of w] of T. */
cudaError_t cu_embed_add(cudaStream_t, const cu_matrix *w, const cu_tables *, uint32_t n_rows,
                         float scale, cu_type t, const void *in, void *out);
/* out[i] = in[gathered[i]]. in: [*][cols] float32, out: [n_logit_rows][cols] float32. */
cudaError_t cu_gather(cudaStream_t, const cu_tables *, uint32_t n_logit_rows, uint32_t cols,
                      const float *in, float *out);

/* ---- norm.cu ---- */

/* x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich, "Root Mean Square Layer Normalization",
 * eq. 4), in one fixed order of additions. */
typedef struct cu_norm {
    cu_type t; /* T: of the result */
    uint32_t n_rows;
    float eps;
    const float *w; /* as many as there are numbers under one root; NULL: ones */
} cu_norm;
/* The norm of x is stored as T or float32, or added to float32, as kind says. x: [n_rows][cols] of `from`,
 * float32 or T. One block a row. cols: a multiple of 8, at most 32768. */
cudaError_t cu_row_norm(cudaStream_t, const cu_norm *, uint32_t cols, cu_type from,
                        const void *x, void *out, cu_out kind);
/* The norm of x, rounded to T and then quantised as cu_quantize does: the same codes. x: [n_rows][cols] float32; codes:
 * cu_quantized_bytes. n_rows <= CU_FEW_ROWS, cols: a multiple of 32. */
cudaError_t cu_row_norm_codes(cudaStream_t, const cu_norm *, uint32_t cols, const float *x,
                              void *codes);
/* Heads of each row: v: [n_rows][ld] of T, the heads at columns first_col + h * head_dim. */
typedef struct cu_heads {
    uint32_t n_heads, head_dim, first_col, ld;
    void *v;
} cu_heads;
/* In place: QK norm (for models that have it). head_dim: a multiple of 8, at most 32768; all heads
 * of a row under one root are one head. */
cudaError_t cu_head_norm(cudaStream_t, const cu_norm *, const cu_heads *);

/* ---- gate.cu ---- */

/* out[r][c] = act(in[r][c]) * in[r][n + c]. in: [n_rows][2n] of T, out: [n_rows][n] of T. */
cudaError_t cu_gate(cudaStream_t, cu_type t, activation, uint32_t n_rows, uint32_t n,
                    const void *in, void *out);
/* out[r][c] = act(in[r][c]) * by[r][c]. in, out: [n_rows][n] of T, by: [n_rows][ld_by] of T. n and
 * ld_by: multiples of 8. */
cudaError_t cu_mul_act(cudaStream_t, cu_type t, activation, uint32_t n_rows, uint32_t n,
                       const void *in, const void *by, uint32_t ld_by, void *out);

/* ---- elementwise.cu ---- */

/* out[i] = in[i], rounded. in: [n] float32, out: [n] of T; n a multiple of 8. */
cudaError_t cu_round(cudaStream_t, cu_type t, uint64_t n, const float *in, void *out);
/* out[i] = in[i] * by[0]. float32; out may be in. */
cudaError_t cu_scale(cudaStream_t, uint64_t n, const float *in, const float *by, float *out);
/* x[i] = cap * tanh(scale * x[i] / cap); cap 0: scale * x[i]. [n] float32, in place. */
cudaError_t cu_cap(cudaStream_t, uint64_t n, float scale, float cap, float *x);
/* out[r][c] = in[r][c] * sigmoid(by[r][c]). in: [n_rows][n] of T, by: [n_rows][n_by] of T, n_by n or
 * 1. CU_OUT_T: out is of T; CU_OUT_ADD: it is float32 and added to. */
cudaError_t cu_mul_sigmoid(cudaStream_t, cu_type t, uint32_t n_rows, uint32_t n, const void *in,
                           const void *by, uint32_t n_by, void *out, cu_out kind);
/* The first n columns of each row times 1 + temperature * ln(1 + floor(position / len)), in place.
 * qkv: [n_rows][ld] of T. */
cudaError_t cu_temper(cudaStream_t, cu_type t, const cu_tables *, uint32_t n_rows, uint32_t n,
                      uint32_t ld, float temperature, uint32_t len, void *qkv);

/* ---- linear layers: out = in * W^T (+ bias) ---- */

typedef struct cu_linear {
    cu_matrix w;
    const float *bias; /* [n_out] or NULL */
    cu_type t;         /* of in */
    uint32_t n_rows;
    const void *in;   /* [n_rows][ld_in] of T, 16-byte aligned rows */
    const void *in_q; /* the same rows as cu_quantize left them; for packed w, few rows */
    uint32_t ld_in;
    void *out; /* [n_rows][ld_out]; points at the first column of this matrix's outputs */
    uint32_t ld_out;
    cu_out kind;
    void *split;    /* packed w: cu_split_bytes of scratch memory */
    bool same_bits; /* packed w: the one path whose bits do not depend on n_rows */
} cu_linear;

/* Whether packed gate and up can be multiplied together: of one type and size, with results of T. */
static inline bool cu_gate_up_fits(const cu_linear *gate, const cu_linear *up) {
    return gate->kind == CU_OUT_T && gate->w.type == up->w.type &&
           gate->w.n_out == up->w.n_out && gate->w.n_in == up->w.n_in;
}

/* linear_few.cu: 16-bit w, n_rows <= CU_FEW_ROWS, n_in a multiple of 8. Bound by reading w
 * once. A row has the same bits for any n_rows. */
cudaError_t cu_linear_few(cudaStream_t, const cu_linear *);
/* The two halves of OP_GATE_UP fused for few rows: out = act(in * gate^T) * (in * up^T), T. */
cudaError_t cu_gate_up_few(cudaStream_t, const cu_linear *gate, const cu_linear *up,
                           activation);

/* linear_packed.cu: packed w, 16-bit activations (in), any n_rows; best for up to 64. A row has
 * the same bits for any n_rows. */
cudaError_t cu_linear_packed(cudaStream_t, const cu_linear *);
/* The two halves of OP_GATE_UP fused: out = act(in * gate^T) * (in * up^T), T. gate and up of
 * one type and shape; in, out, t, n_rows, split and the strides are gate's. */
cudaError_t cu_gate_up_packed(cudaStream_t, const cu_linear *gate, const cu_linear *up,
                              activation);

/* linear_quant.cu: packed w, n_rows <= CU_FEW_ROWS, int8 activations (in_q) on the tensor
 * cores; more rows, or same_bits: cu_linear_packed. Every output is one sum in one order, which
 * n_rows does not change but for this choice. */
cudaError_t cu_linear_quant(cudaStream_t, const cu_linear *);
/* As cu_gate_up_few for packed w; n_rows <= CU_FEW_ROWS. gate and up of one type and shape, the
 * same in_q; out, t and ld_out are gate's. With codes: n_out a multiple of 64, of a type of integer codes. */
cudaError_t cu_gate_up_quant_few(cudaStream_t, const cu_linear *gate, const cu_linear *up,
                                 activation, const cu_codes *);
/* route.cu: float32 w, any n_rows; for few outputs, such as a router's, whose logits are not
 * rounded. n_in a multiple of 8. A row has the same bits for any n_rows. */
cudaError_t cu_linear_narrow(cudaStream_t, const cu_linear *);
/* Activations to int8 with a float32 scale (and sum of codes) per 32 columns: scale = max |x| /
 * 127, codes rounded to nearest even (engine/cpu/linear.h: the same numbers). n_rows <=
 * CU_FEW_ROWS. in: [n_rows][ld] of T, 16-byte aligned rows; out: cu_quantized_bytes of them. */
cudaError_t cu_quantize(cudaStream_t, cu_type t, uint32_t n_rows, uint32_t n_in, uint32_t ld,
                        const void *in, void *out);
/* Loading: rows [row, row + n) of w from the file's own bytes (raw, on the device), packed, or
 * converted to the 16-bit type of w. from: the type in the file. row and n are multiples of
 * CU_STORE_ROWS, but for a 16-bit w and for an n that ends the matrix. */
cudaError_t cu_matrix_store(cudaStream_t, const cu_matrix *w, dtype from, uint32_t row,
                            uint32_t n, const void *raw);
/* unpack.cu: rows [row, row + n) of a packed w as T, [n][n_in], each value rounded once. row: a multiple of 16; out: 16-byte
 * aligned. */
cudaError_t cu_unpack(cudaStream_t, const cu_matrix *w, cu_type t, uint32_t row, uint32_t n,
                      void *out);
/* Random weights, for measurements on models that are not there: mean 0, deviation 1 /
 * sqrt(n_in), the same for the same seed. */
cudaError_t cu_matrix_random(cudaStream_t, const cu_matrix *w, uint64_t seed);

/* gemm_extra.cu: what a GEMM of the library leaves to do. Adds bias [n] to out: [n_rows][ld] of
 * type (T or float32). */
cudaError_t cu_add_bias(cudaStream_t, cu_type, uint32_t n_rows, uint32_t n, uint32_t ld,
                        const float *bias, void *out);
/* Checks of gemm.cu: copies row 0 of x over all others; counts elements of rows 1.. whose bits
 * are not those of row 0 into *count. x: [n_rows][ld] of type, n columns used. */
cudaError_t cu_repeat_row(cudaStream_t, cu_type, uint32_t n_rows, uint32_t n, uint32_t ld,
                          void *x);
cudaError_t cu_rows_differ(cudaStream_t, cu_type, uint32_t n_rows, uint32_t n, uint32_t ld,
                           const void *x, uint32_t *count);

/* ---- mixtures of experts ----
 *
 * A row that is routed to an expert has a slot. Slots are sorted by expert, and within an expert by
 * row; an expert's slots are cut into tiles. Grids have as many tiles as there can be. */

/* What cu_route leaves, in cu_routed_bytes (scratch.h). Of each row its experts stand in ascending
 * order, so that its sum over them has one order. A row of padding has none: expert -1. */
typedef struct cu_routed {
    uint32_t n_rows, top_k, n_experts, n_tiles;
    int32_t *tiles; /* [n_tiles][4]: expert, first slot, slots, 0; no slots: there is no tile */
    int32_t *expert; /* [n_rows][top_k] */
    float *weight;   /* [n_rows][top_k] */
    int32_t *slot;   /* [n_rows][top_k] */
    int32_t *row;    /* [n_rows * top_k]: of each slot */
} cu_routed;

static inline cu_routed cu_routed_at(void *p, uint32_t n_rows, uint32_t top_k,
                                     uint32_t n_experts) {
    const size_t n = (size_t)n_rows * top_k;
    cu_routed r = {};
    r.n_rows = n_rows, r.top_k = top_k, r.n_experts = n_experts;
    r.n_tiles = cu_expert_tiles(n_rows, top_k, n_experts);
    r.tiles = (int32_t *)p;
    r.expert = r.tiles + 4 * (size_t)r.n_tiles;
    r.weight = (float *)(r.expert + n);
    r.slot = r.expert + 2 * n, r.row = r.expert + 3 * n;
    return r;
}

typedef struct cu_router {
    const float *logits; /* [n_rows][n_experts] */
    const int32_t *pos;  /* cu_tables' */
    route_gate gate;
    bool norm;
    float scale, logit_scale, eps;
    const float *choice_bias, *scales; /* [n_experts] or NULL */
    uint32_t n_groups, groups_used,
        group_best; /* n_groups 0: none; else up to CU_MOST_GROUPS */
} cu_router;

/* route.cu. The top_k experts with the largest logits, or as choice_bias and groups say, the lowest index on
 * a tie, and their weights as model/program.h says of OP_ROUTE. Of a row with a NaN or infinity: experts 0 to top_k - 1, and
 * weights of NaN. n_experts: up to CU_MOST_EXPERTS, top_k up to CU_MOST_CHOSEN. */
cudaError_t cu_route(cudaStream_t, const cu_router *, const cu_routed *);
/* out[r] += sum over the experts of row r, ascending, of weight * y[slot]. y: [slots][n] float32,
 * out: [n_rows][n] float32. n: a multiple of 8. Not `adds`: out[r] = the sum. */
cudaError_t cu_experts_sum(cudaStream_t, const cu_routed *, uint32_t n, const float *y,
                           bool adds, float *out);

/* Matrices of one shape, one for each expert. */
typedef struct cu_experts {
    cu_routed routed;
    uint64_t stride; /* bytes from an expert's matrix to the next */
    bool by_row;     /* the input of a slot is that of its row; else the slot's own */
} cu_experts;

/* linear_few.cu (16-bit w) and linear_packed.cu: for each slot out = in * w^T + bias by its expert;
 * b, if any: out = act(in * a^T) * (in * b^T), of T. w, bias of a and b: of expert 0; biases are
 * [n_experts][n_out]; a and b of one type and shape. n_rows, in_q, split and same_bits are not
 * looked at; kind: not CU_OUT_ADD. A slot has the same bits whatever the other slots. */
cudaError_t cu_experts_few(cudaStream_t, const cu_experts *, const cu_linear *a,
                           const cu_linear *b, activation);
cudaError_t cu_experts_packed(cudaStream_t, const cu_experts *, const cu_linear *a,
                              const cu_linear *b, activation);

/* ---- recurrent layers ---- */

/* What an operation keeps of the sequences. */
typedef struct cu_states {
    float *base;         /* of this operation, in slot 0 */
    uint64_t stride;     /* floats from a slot to the next */
    const int32_t *slot; /* by entry; -1: padding */
    /* [n_checkpoints][3]: entry (-1: padding), tokens, slot: the state behind so many tokens of the entry,
     * which its rows of the step reach or pass, goes there, too */
    const int32_t *checkpoints;
    uint32_t n_checkpoints;
} cu_states;

/* As OP_CONV says (model/program.h). */
typedef struct cu_conv {
    cu_states states; /* rows of inputs: conv_state_rows(width) of channels */
    cu_type t;
    uint32_t channels, width;
    bool gated, silu;
    const float *w, *bias; /* [channels][width], the newest token last; [channels] or NULL */
    const void *in;        /* [n_rows][channels, gated: 3 * channels] of T */
    void *out;             /* [n_rows][channels] of T */
} cu_conv;

/* conv.cu. A row has the same bits however its text is cut into steps. */
cudaError_t cu_conv_run(cudaStream_t, const cu_conv *, const cu_tables *, uint32_t n_rows,
                        uint32_t n_seqs);

/* As OP_DELTA and, where it is a scan, OP_SSM say (model/program.h). */
typedef struct cu_recur {
    cu_states states; /* delta_state_floats of d */
    cu_type t;
    delta_shape d;
    bool scan;
    const float *w0, *w1, *w2; /* [value_heads]; w2 of a scan */
    const void *in,
        *by; /* [n_rows][ld_in], [n_rows][value_heads, of the rule twice as many] of T */
    uint32_t ld_in;
    void *out; /* [n_rows][value_heads * value_dim] of T; rows of padding are left alone */
} cu_recur;

/* recur.cu: heads that cu_recur_supports (scratch.h). A row has the same bits however its text is cut into
 * steps, and whatever others are in it. */
cudaError_t cu_recur_run(cudaStream_t, const cu_recur *, const cu_tables *, uint32_t n_seqs);

/* ---- the KV cache ---- */

/* Of one layer. */
typedef struct cu_kv {
    void *base;            /* this layer's parts of block 0, 256-byte aligned */
    uint64_t block_stride; /* bytes from a block to the next */
    kv_format format;      /* in the order KV_ROWS; both of codes, or of one other type */
    /* CU_F16 or CU_BF16: of K and V; of codes what they become before they are multiplied,
     * CU_F16 */
    cu_type type;
    uint32_t group; /* whose block tables */
} cu_kv;

/* Whether K and V are codes with words (kv_code.h). */
static inline bool cu_kv_coded(const cu_kv *kv) {
    return kv->format.k.word_bytes != 0;
}
/* Whether these are codes of 8 bits, K and V alike: kernels of their own. */
static inline bool cu_kv_bytes(const cu_kv *kv) {
    return cu_kv_coded(kv) && kv->format.k.bits == 8 && kv->format.k.type == kv->format.v.type;
}

/* A frequency of rotary embedding, radians per position (YaRN, llama3 and rope_freqs already in
 * it): a double as the float32 nearest to it and the float32 of the rest. Rounded to one
 * float32 an angle would be off by 4e-3 at position 2^17. */
typedef struct cu_freq {
    float high, low;
} cu_freq;

typedef struct cu_rope {
    cu_kv kv;
    cu_type t;
    void *qkv; /* [n_rows][ld] of T: n_heads of q, then n_kv_heads of k and of v */
    uint32_t ld;
    uint32_t n_heads;
    rope_pairing pairing;
    uint32_t n_dims;      /* of a head, that are rotated */
    const cu_freq *freqs; /* [n_dims / 2] */
    float mscale;         /* multiplies cos and sin */
    cu_kv tail;           /* of kv, where it has 4 bits (kv_tail_type); base NULL: none */
    bool q_alone;         /* qkv has q alone; nothing is stored */
} cu_rope;

/* rope.cu. Rotates q in place, and stores rotated k, and v, in the cache at the row's position
 * (RoFormer, section 3.4.2); k in qkv is left as it was. Angles are reduced in float32 after an
 * exact product split, so that positions up to 2^20 keep 1e-6. */
cudaError_t cu_rope_append(cudaStream_t, const cu_rope *, const cu_tables *, uint32_t n_rows);
/* kv_codes.cu. The same for a cache of codes, and for its tail; where K's type is rotated, q is
 * left as attention needs it: rotated within segments, too. Heads of up to 256. */
cudaError_t cu_append_codes(cudaStream_t, const cu_rope *, const cu_tables *, uint32_t n_rows);
/* Copies whole blocks of a pool, 16-byte aligned, of block_bytes (a multiple of 16) each.
 * pairs: [n][2] int32 (from, to); where one of them is negative nothing is copied. */
cudaError_t cu_copy_blocks(cudaStream_t, void *pool, uint64_t block_bytes, const int32_t *pairs,
                           uint32_t n);

/* ---- attention: FlashAttention form (Dao et al. 2022, algorithm 1), no score matrix ---- */

typedef struct cu_attn {
    cu_kv kv;
    cu_type t;
    const void *qkv; /* [n_rows][ld] of T; q of row r at columns h * head_dim */
    uint32_t ld;
    void *out; /* [n_rows][n_heads * head_dim] of T */
    uint32_t n_heads;
    float scale;     /* multiplies q k^T */
    uint32_t window; /* 0: full; else a row at position i sees i - window + 1 .. i */
    float cap;       /* of the scores: cap * tanh(score / cap); 0: none */
    /* Of each query head one more score, which has no value; NULL: none. [n_heads] float32. It is
     * joined once, to the sum of all that the row sees. */
    const float *sinks;
    /* Where kv has 4 bits: the newest KV_TAIL_TOKENS that a row sees are read here, and only
     * older ones in kv. base NULL: all are read in kv. */
    cu_kv tail;
    /* cu_attn_decode: of all rows, up to CU_FEW_ROWS; head_dim a multiple of 32, all heads' of 64, up to CU_ATTN_HEAD.
     * `arrived` is wanted without codes, too. */
    cu_codes codes;
    /* cu_attn_decode: qkv is as it was before cu_rope_append, whose work is done on the way, but for q in qkv, which
     * is left as it is; NULL: it was done. Of K and V in 16 bits, heads of up to CU_ATTN_HEAD. */
    const cu_rope *rope;
    bool settled; /* with rope: no kernel of the step changes K and V of earlier positions */
} cu_attn;

/* Both: cu_attn_supports (scratch.h), else cudaErrorNotSupported. Block-table entries wholly
 * below a window are not read. Where T and the cache's type differ, q and the softmax weights
 * are rounded to the cache's type. A cache of codes: cu_attn_supports_codes; q as
 * cu_append_codes leaves it, and out is to go through cu_turn_back.
 *
 * attn_decode.cu: entries of one row (entries [0, n_seqs) whose n_rows is 1; others are left
 * alone). One K/V load serves a whole GQA group (16 heads of it; larger groups read once more,
 * from L2). n_splits: cu_attn_splits(longest context) or more; partials: cu_attn_decode_bytes
 * (scratch.h), combined in order of the splits by the block that comes last. The grid is fixed by n_seqs, n_kv_heads,
 * n_splits and the device. */
cudaError_t cu_attn_decode(cudaStream_t, const cu_attn *, const cu_tables *, uint32_t n_seqs,
                           uint32_t n_splits, void *partials);
/* attn_prefill.cu: the entries that tiles name, those of one row too (batch_invariant computes
 * all rows here); mma over tiles of CU_PREFILL_TILE query rows (scratch.h), causal and windowed
 * blocks skipped. tiles: [n_tiles][2] int32 (entry, first query row within the entry's rows),
 * made by the host; a tile may begin at any row. Keys are taken in blocks at fixed absolute
 * positions, so that a row's result does not depend on where in its tile it stands. */
cudaError_t cu_attn_prefill(cudaStream_t, const cu_attn *, const cu_tables *,
                            const int32_t *tiles, uint32_t n_tiles);

/* kv_codes.cu. Turns what attention has left in out back, after all entries of a step, where the
 * cache's type is rotated; else does nothing. */
cudaError_t cu_turn_back(cudaStream_t, const cu_attn *, uint32_t n_rows);

/* ---- sample.cu: what model/sampling.h says, the same tokens for the same logits; parameters
 * in tables.h ---- */

typedef struct cu_logits {
    float *row; /* [n_logit_rows][n_vocab] */
    uint32_t n_vocab;
    void *scratch; /* cu_sample_scratch_bytes(n, n_vocab) for calls of up to n rows */
} cu_logits;

/* Edits the logits in place. p: [n_seqs], lists: words. Writes out[i] (the same bits as
 * sampling_draw's for the same logits; SAMPLING_NOT_FINITE for a row with a logit that is not
 * finite) and drawn[i] = the token, or -1, where out[i] is left alone. drawn holds on entry
 * what the step before drew (cu_tables.previous). */
cudaError_t cu_sample(cudaStream_t, const cu_logits *, const tables_sampling *p,
                      const int32_t *lists, uint32_t n_seqs, sampled *out, int32_t *drawn);
/* sampling_score for rows that draw nothing, or before cu_sample edits them. s: [n], out: [n].
 * Leaves the logits as they are. */
cudaError_t cu_score_rows(cudaStream_t, const cu_logits *, const tables_score *s, uint32_t n,
                          sampled *out);

#endif
