/* Lowering: each operation of the program becomes a few kernel calls on the stream. Which ones
 * depends on the weights' types and on how many rows there are, never on device data, so that a
 * run can be captured as a graph.
 *
 * batch_invariant: one way of computing for every number of rows: GEMMs of one fixed number of
 * rows (the buffers are padded to its multiples), linear_packed.cu where weights are packed, and prefill attention for rows that stand alone, too. */
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/cuda.h"
#include "engine/cuda/linear_many.h"
#include "engine/cuda/op_list.h"
#include "engine/cuda/packed.h"

/* What the operations of one run share. */
typedef struct lowering {
    cuda_engine *e;
    const cuda_run *run;
    cudaStream_t s;
    cu_tables tables;
    const tables_sampling *sampling;
    const tables_score *scores;
    const int32_t *tiles, *copies, *lists;
    const int32_t *state, *checkpoints;
} lowering;

static const int32_t *words_at(const cuda_engine *e, uint64_t at) {
    return (const int32_t *)cuda_at(e, e->l->tables + at);
}

static lowering lower_init(cuda_engine *e, const cuda_run *run) {
    const tables_at t = tables_lay(e->l->n_groups, &run->shape);
    lowering w = {};
    w.e = e, w.run = run, w.s = e->stream;
    w.tables.token = words_at(e, t.token);
    w.tables.from = words_at(e, t.from);
    w.tables.pos = words_at(e, t.pos);
    w.tables.entry = words_at(e, t.entry);
    w.tables.first_row = words_at(e, t.first_row);
    w.tables.n_rows = words_at(e, t.n_rows);
    w.tables.first_pos = words_at(e, t.first_pos);
    for (uint32_t g = 0; g < e->l->n_groups; g++) w.tables.blocks[g] = words_at(e, t.blocks[g]);
    w.tables.table_stride = run->shape.stride;
    w.tables.gathered = words_at(e, t.gathered);
    w.tables.previous = (const int32_t *)cuda_at(e, e->l->previous);
    w.sampling = (const tables_sampling *)words_at(e, t.sampling);
    w.scores = (const tables_score *)words_at(e, t.scores);
    w.tiles = words_at(e, t.tiles);
    w.copies = words_at(e, t.copies);
    w.lists = words_at(e, t.lists);
    w.state = words_at(e, t.state);
    w.checkpoints = words_at(e, t.checkpoints);
    return w;
}

static void *value_at(const lowering *w, value_id v) {
    return cuda_at(w->e, w->e->l->values[v].at);
}

static uint32_t rows_of(const lowering *w, value_id v) {
    return (uint32_t)value_rows(&w->e->p->values[v], w->run->shape.n_rows,
                                w->run->shape.n_logit_rows);
}

static uint32_t cols_of(const lowering *w, value_id v) {
    return w->e->l->values[v].cols;
}

/* What an operation's matrices read: its input, or that rounded (round_input). */
static void *input_at(const lowering *w, const cuda_op *c) {
    const uint64_t aside = w->e->l->aside[c - w->e->op].in;
    return aside ? cuda_at(w->e, aside) : value_at(w, c->o->in);
}

/* The cache of a group's layer. */
static cu_kv kv_of(const cuda_engine *e, uint32_t group, uint32_t layer) {
    const kv_format *f = &e->l->kv[group];
    cu_kv kv;
    kv.base = e->kv[group] + kv_part_at(f, layer, 0);
    kv.block_stride = kv_block_bytes(f, e->l->kv_layers[group]);
    kv.format = *f;
    kv.type = e->l->kv_type, kv.group = group;
    return kv;
}

static cu_kv kv_of_op(const cuda_engine *e, const op *o) {
    return kv_of(e, e->p->layer_group[o->layer], e->p->layer_index[o->layer]);
}

static cu_kv tail_of_op(const cuda_engine *e, const op *o) {
    if (!e->l->tail_at) return cu_kv();
    return kv_of(e, e->p->layer_group[o->layer] + e->l->tail_at, e->p->layer_index[o->layer]);
}

/* ---- rows ---- */

static cudaError_t run_embed(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    const uint32_t n = rows_of(w, o->out);
    float *out = (float *)value_at(w, o->out);
    if (w->e->l->n_ranks == 1)
        return cu_embed(w->s, &c->part[0].w, &w->tables, n, o->embed.scale, out);
    const uint32_t first = w->e->p->weights[o->w[0]].first_row;
    return cu_embed_part(w->s, &c->part[0].w, &w->tables, first, n, o->embed.scale, out);
}

static cudaError_t run_embed_add(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    return cu_embed_add(w->s, &c->part[0].w, &w->tables, rows_of(w, o->out), o->embed.scale,
                        w->e->l->t, value_at(w, o->in), value_at(w, o->out));
}

static bool is_f32(const lowering *w, value_id v) {
    return w->e->l->values[v].form == CUDA_VALUE_F32;
}

/* Do the kernels that read the weights once for a few rows take this? */
static bool is_few(const cuda_engine *e, uint32_t n_rows) {
    return n_rows <= CU_FEW_ROWS && !e->l->batch_invariant;
}

static bool is_fused(const lowering *w, const cuda_op *c, uint32_t n_rows);
static bool is_decode(const lowering *w);

/* Does an operation leave its result as the codes that the next one multiplies? Norms leave nothing else. */
static bool leaves_codes(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    const kv_format *kv;
    if (!c->feeds_codes || !is_few(w->e, rows_of(w, o->out))) return false;
    switch (o->kind) {
    case OP_NORM: return o->residual == NO_VALUE && is_f32(w, o->in) && !is_f32(w, o->out);
    case OP_GATE_UP:
        return cols_of(w, o->out) % PACKED_CHUNK == 0 &&
               cu_matrix_is_coded(c->part[0].w.type) && is_fused(w, c, rows_of(w, o->out));
    case OP_ATTENTION:
        kv = &w->e->l->kv[w->e->p->layer_group[o->layer]];
        return is_decode(w) && cols_of(w, o->out) % PACKED_CHUNK == 0 &&
               kv->head_dim % PACKED_BLOCK == 0 && kv->head_dim <= CU_ATTN_HEAD &&
               !kv->k.word_bytes;
    default: return false;
    }
}

/* Where an operation leaves codes. What it multiplies itself is elsewhere. */
static void *codes_at(const lowering *w, const cuda_op *c) {
    const cuda_layout *l = w->e->l;
    return cuda_at(w->e, c->o->kind == OP_NORM ? l->quantized : l->beside_quantized);
}

static cu_codes codes_of(const lowering *w, const cuda_op *c) {
    return cu_codes{leaves_codes(w, c) ? codes_at(w, c) : NULL,
                    (uint32_t *)cuda_at(w->e, w->e->l->arrived)};
}

/* The operation before, if it has left the codes of this one's input; else NULL. */
static const cuda_op *codes_from(const lowering *w, const cuda_op *c) {
    if (c == w->e->op || c[-1].o->out != c->o->in) return NULL;
    return leaves_codes(w, c - 1) ? c - 1 : NULL;
}

/* The sum with a residual stream stands where that does (layout.c). */
static cudaError_t run_norm(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    const cu_norm n = {w->e->l->t, rows_of(w, o->in), o->norm.eps, c->vec[0]};
    if (leaves_codes(w, c))
        return cu_row_norm_codes(w->s, &n, cols_of(w, o->in), (const float *)value_at(w, o->in),
                                 codes_at(w, c));
    const cu_out kind = o->residual != NO_VALUE ? CU_OUT_ADD
                        : is_f32(w, o->out)     ? CU_OUT_F32
                                                : CU_OUT_T;
    return cu_row_norm(w->s, &n, cols_of(w, o->in), is_f32(w, o->in) ? CU_F32 : n.t,
                       value_at(w, o->in), value_at(w, o->out), kind);
}

static cudaError_t run_mul_sigmoid(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    return cu_mul_sigmoid(w->s, w->e->l->t, rows_of(w, o->in), cols_of(w, o->in),
                          value_at(w, o->in), value_at(w, o->by), cols_of(w, o->by),
                          value_at(w, o->out), o->residual == NO_VALUE ? CU_OUT_T : CU_OUT_ADD);
}

static cudaError_t run_mul_act(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    const char *by = (const char *)value_at(w, o->by) + (size_t)o->mul.first_col * 2;
    return cu_mul_act(w->s, w->e->l->t, o->mul.act, rows_of(w, o->in), cols_of(w, o->in),
                      value_at(w, o->in), by, cols_of(w, o->by), value_at(w, o->out));
}

static cudaError_t run_scale(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    return cu_scale(w->s, (uint64_t)rows_of(w, o->in) * cols_of(w, o->in),
                    (const float *)value_at(w, o->in), c->vec[0], (float *)value_at(w, o->out));
}

static cudaError_t run_gather(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    return cu_gather(w->s, &w->tables, rows_of(w, o->out), w->e->p->values[o->in].cols,
                     (const float *)value_at(w, o->in), (float *)value_at(w, o->out));
}

/* ---- matrices ---- */

static bool is_packed(const cuda_part *p) {
    return cu_matrix_is_packed(p->w.type);
}

static cu_linear linear_of(const lowering *w, const cuda_part *p, uint32_t n_rows,
                           const void *in) {
    cu_linear l = {};
    l.w = p->w, l.bias = p->bias, l.t = w->e->l->t;
    l.n_rows = n_rows, l.in = in, l.ld_in = p->w.n_in;
    l.in_q = cuda_at(w->e, w->e->l->quantized);
    l.split = cuda_at(w->e, w->e->l->split);
    l.same_bits = w->e->l->batch_invariant;
    return l;
}

/* The same product for as many rows as batch_invariant wants in a call. */
static cudaError_t run_fixed_gemm(const lowering *w, const cu_linear *l, uint32_t unit) {
    cudaError_t e = cudaSuccess;
    const uint32_t width = l->kind == CU_OUT_T ? 2 : 4;
    for (uint32_t r = 0; r < l->n_rows && e == cudaSuccess; r += unit) {
        cu_linear part = *l;
        part.n_rows = unit;
        part.in = (const char *)l->in + (size_t)r * l->ld_in * 2;
        part.out = (char *)l->out + (size_t)r * l->ld_out * width;
        e = gemm_run(w->e->lt, w->s, &part);
    }
    return e;
}

static gemm_scratch scratch_of(const cuda_engine *e) {
    const cuda_layout *l = e->l;
    return gemm_scratch{cuda_at(e, l->slice), l->slice_bytes,
                        l->codes_bytes ? cuda_at(e, l->codes) : NULL, l->codes_rows};
}

static cudaError_t run_gemm(const lowering *w, const cu_linear *l, uint32_t unit) {
    const gemm_scratch scratch = scratch_of(w->e);
    cudaError_t e = cu_matrix_is_packed(l->w.type)
                        ? gemm_run_packed(w->e->lt, w->s, l, &scratch)
                    : w->e->l->batch_invariant ? run_fixed_gemm(w, l, unit)
                                               : gemm_run(w->e->lt, w->s, l);
    if (e != cudaSuccess || !l->bias) return e;
    return cu_add_bias(w->s, l->kind == CU_OUT_T ? l->t : CU_F32, l->n_rows, l->w.n_out,
                       l->ld_out, l->bias, l->out);
}

/* Many rows of packed weights, where the device multiplies them as they are; not of F8, whose scales lie apart. */
static bool takes_many(const cuda_engine *e, const cu_linear *l) {
    return e->has_wgmma && cu_matrix_is_packed(l->w.type) && !cu_matrix_is_float(l->w.type) &&
           l->n_rows > CU_MANY_ROWS && !l->same_bits;
}

/* Without cuBLASLt (plugin.cu) linear_packed.cu takes all of them. */
static bool takes_packed(const cuda_engine *e, const cu_linear *l) {
    return e->lt && !takes_many(e, l) && gemm_takes_packed(l);
}

static uint32_t unit_of(const lowering *w, value_id v) {
    return w->e->p->values[v].rows == ROWS_GATHERED ? w->e->l->logits_unit : w->e->l->rows_unit;
}

/* One part; packed weights of few rows find their input quantised. */
static cudaError_t run_part(const lowering *w, const cu_linear *l, uint32_t unit) {
    if (l->w.type == DT_F32) return cu_linear_narrow(w->s, l);
    if (takes_many(w->e, l)) return cu_linear_many(w->s, l);
    if (takes_packed(w->e, l)) return run_gemm(w, l, unit);
    if (cu_matrix_is_packed(l->w.type)) return cu_linear_quant(w->s, l);
    return is_few(w->e, l->n_rows) ? cu_linear_few(w->s, l) : run_gemm(w, l, unit);
}

/* Where the input's codes are, of an operation with packed weights. */
static const void *input_codes(const lowering *w, const cuda_op *c) {
    const cuda_op *from = codes_from(w, c);
    return from ? codes_at(w, from) : cuda_at(w->e, w->e->l->quantized);
}

/* Quantises the input of an operation that has packed weights, for few rows, where the one before has not. */
static cudaError_t quantize_input(const lowering *w, const cuda_op *c, uint32_t n_rows) {
    const cuda_engine *e = w->e;
    bool coded = false;
    for (uint32_t i = 0; i < c->n_parts; i++) coded |= cu_matrix_is_coded(c->part[i].w.type);
    if (!coded || !is_few(e, n_rows) || codes_from(w, c)) return cudaSuccess;
    const uint32_t n_in = c->part[0].w.n_in;
    return cu_quantize(w->s, e->l->t, n_rows, n_in, n_in, input_at(w, c),
                       cuda_at(e, e->l->quantized));
}

/* All parts side by side into out. */
static cudaError_t run_parts(const lowering *w, const cuda_op *c, void *out, uint32_t ld_out,
                             cu_out kind) {
    const uint32_t n = rows_of(w, c->o->in), width = kind == CU_OUT_T ? 2 : 4;
    cudaError_t e = quantize_input(w, c, n);
    for (uint32_t i = 0; i < c->n_parts && e == cudaSuccess; i++) {
        const cuda_part *p = &c->part[i];
        cu_linear l = linear_of(w, p, n, input_at(w, c));
        l.out = (char *)out + (size_t)p->first_col * width;
        l.in_q = input_codes(w, c);
        l.ld_out = ld_out, l.kind = kind;
        e = run_part(w, &l, unit_of(w, c->o->in));
    }
    return e;
}

static cudaError_t run_linear(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    /* The residual's sum stands where its first summand does: it is added to in place. */
    const bool adds = o->residual != NO_VALUE;
    char *out = (char *)value_at(w, o->out) + (adds ? (size_t)o->first_col * 4 : 0);
    return run_parts(w, c, out, cols_of(w, o->out), adds ? CU_OUT_ADD : CU_OUT_T);
}

static cudaError_t run_logits(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    float *out = (float *)value_at(w, o->out);
    const uint32_t n = cols_of(w, o->out);
    const cudaError_t e = run_parts(w, c, out, n, CU_OUT_F32);
    if (e != cudaSuccess || (o->logits.scale == 1 && o->logits.cap == 0)) return e;
    return cu_cap(w->s, (uint64_t)rows_of(w, o->out) * n, o->logits.scale, o->logits.cap, out);
}

/* Gate and up; 16-bit ones lie as one matrix. */
static void gate_and_up(const lowering *w, const cuda_op *c, uint32_t n_rows, cu_linear l[2]) {
    const uint32_t n = cols_of(w, c->o->out);
    const bool joined = c->n_parts == 1;
    for (uint32_t i = 0; i < 2; i++) {
        const cuda_part *p = &c->part[joined ? 0 : i];
        l[i] = linear_of(w, p, n_rows, input_at(w, c));
        l[i].out = value_at(w, c->o->out);
        l[i].in_q = input_codes(w, c);
        l[i].ld_out = n, l[i].kind = CU_OUT_T;
        l[i].w.n_out = n;
        if (!joined || i == 0) continue;
        l[i].w.data = (char *)p->w.data + (size_t)n * p->w.n_in * 2;
        if (p->bias) l[i].bias = p->bias + n;
    }
}

/* Where one kernel does gate, up and the activation. */
static cudaError_t run_gate_up_fused(const lowering *w, const cuda_op *c, uint32_t n_rows) {
    const activation act = c->o->gate_up.act;
    cu_linear l[2];
    gate_and_up(w, c, n_rows, l);
    if (takes_many(w->e, &l[0])) return cu_gate_up_many(w->s, &l[0], &l[1], act);
    if (!is_few(w->e, n_rows)) return cu_gate_up_packed(w->s, &l[0], &l[1], act);
    if (!is_packed(&c->part[0])) return cu_gate_up_few(w->s, &l[0], &l[1], act);
    const cudaError_t e = quantize_input(w, c, n_rows);
    const cu_codes codes = codes_of(w, c);
    return e == cudaSuccess ? cu_gate_up_quant_few(w->s, &l[0], &l[1], act, &codes) : e;
}

static bool is_fused(const lowering *w, const cuda_op *c, uint32_t n_rows) {
    const cuda_part *p = c->part;
    if (is_few(w->e, n_rows)) return c->n_parts == 1 || p[0].w.type == p[1].w.type;
    if (c->n_parts == 1 || !is_packed(p) || p[0].w.type != p[1].w.type) return false;
    cu_linear l[2];
    gate_and_up(w, c, n_rows, l);
    return !takes_packed(w->e, &l[0]);
}

static cudaError_t run_gate_up(const lowering *w, const cuda_op *c) {
    const uint32_t n = cols_of(w, c->o->out), rows = rows_of(w, c->o->in);
    if (is_fused(w, c, rows)) return run_gate_up_fused(w, c, rows);
    void *both = cuda_at(w->e, w->e->l->aside[c - w->e->op].own);
    cudaError_t e = run_parts(w, c, both, 2 * n, CU_OUT_T);
    if (e != cudaSuccess) return e;
    return cu_gate(w->s, w->e->l->t, c->o->gate_up.act, rows, n, both, value_at(w, c->o->out));
}

/* ---- ranks ---- */

static cudaError_t copy_columns(const lowering *w, void *to, uint32_t to_cols, const void *from,
                                uint32_t from_cols, uint32_t cols, uint32_t n_rows,
                                uint32_t width) {
    return cudaMemcpy2DAsync(to, (size_t)to_cols * width, from, (size_t)from_cols * width,
                             (size_t)cols * width, n_rows, cudaMemcpyDeviceToDevice, w->s);
}

/* What all ranks have computed of a value: columns travel rank by rank, and are then put side by side. */
static cudaError_t run_all_gather(const lowering *w, const cuda_op *c) {
    cuda_engine *e = w->e;
    const op *o = c->o;
    const uint32_t *cut = e->l->aside[c - e->op].cuts;
    const uint32_t n = rows_of(w, o->out), cols = cols_of(w, o->out), own = e->p->part.rank,
                   width = e->l->values[o->out].form == CUDA_VALUE_T ? 2 : 4;
    if (!cut) return cuda_ranks_sum(e, value_at(w, o->out), (uint64_t)n * cols);
    char *joined = (char *)cuda_at(e, e->l->joined), *out = (char *)value_at(w, o->out);
    const char *mine = (const char *)value_at(w, o->in);
    const uint32_t first = cut[own], n_own = cut[own + 1] - first;
    cudaError_t ce = cudaSuccess;
    if (cols_of(w, o->in) == cols) { /* in place, among the others' */
        char *packed = joined + (size_t)n * first * width;
        ce =
            copy_columns(w, packed, n_own, mine + (size_t)first * width, cols, n_own, n, width);
        mine = packed;
    }
    if (ce == cudaSuccess) ce = cuda_ranks_gather(e, mine, joined, n, width, cut);
    for (uint32_t i = 0; i < e->l->n_ranks && ce == cudaSuccess; i++) {
        const uint32_t some = cut[i + 1] - cut[i];
        ce = copy_columns(w, out + (size_t)cut[i] * width, cols,
                          joined + (size_t)n * cut[i] * width, some, some, n, width);
    }
    return ce;
}

/* ---- mixtures of experts ---- */

/* What an OP_ROUTE left: it has the experts as rows of its matrix, of which a value says nothing. */
static cu_routed routed_of(const lowering *w, value_id routed, uint32_t n_experts) {
    const uint32_t top_k = cols_of(w, routed) / 2;
    return cu_routed_at(value_at(w, routed), rows_of(w, routed), top_k, n_experts);
}

static uint32_t experts_of(const lowering *w, const op *o) {
    const weight *x = &w->e->p->weights[o->w[0]];
    return o->kind == OP_ROUTE ? x->rows : x->n_experts;
}

static cudaError_t run_route(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    const uint32_t n = experts_of(w, o);
    float *logits = (float *)cuda_at(w->e, w->e->l->aside[c - w->e->op].own);
    cu_router r = {};
    r.logits = logits, r.pos = w->tables.pos;
    r.gate = o->route.gate, r.norm = o->route.norm, r.eps = o->route.eps;
    r.scale = o->route.scale, r.logit_scale = o->route.logit_scale;
    r.choice_bias = c->vec[1], r.scales = c->vec[2];
    r.n_groups = o->route.n_groups, r.groups_used = o->route.groups_used;
    r.group_best = o->route.group_best;
    const cu_routed to = routed_of(w, o->out, n);
    const cudaError_t e = run_parts(w, c, logits, n, CU_OUT_F32);
    return e == cudaSuccess ? cu_route(w->s, &r, &to) : e;
}

/* Of all slots; b: up, where a is gate. */
static cudaError_t run_experts(const lowering *w, const cuda_op *c, bool by_row, void *out,
                               cu_out kind) {
    const op *o = c->o;
    const cuda_part *p = c->part;
    const cu_experts x = {routed_of(w, o->by, experts_of(w, o)), p->stride, by_row};
    cu_linear l[2];
    for (uint32_t i = 0; i < c->n_parts; i++) {
        l[i] = linear_of(w, &p[i], 0, value_at(w, o->in));
        l[i].out = out, l[i].ld_out = p[i].w.n_out, l[i].kind = kind;
    }
    const cu_linear *b = c->n_parts == 2 ? &l[1] : NULL;
    const activation act = b ? o->gate_up.act : ACT_SILU;
    return is_packed(p) ? cu_experts_packed(w->s, &x, &l[0], b, act)
                        : cu_experts_few(w->s, &x, &l[0], b, act);
}

static cudaError_t run_experts_gate_up(const lowering *w, const cuda_op *c) {
    return run_experts(w, c, true, value_at(w, c->o->out), CU_OUT_T);
}

/* The sum stands where the residual stream does. */
static cudaError_t run_experts_down(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    float *each = (float *)cuda_at(w->e, w->e->l->aside[c - w->e->op].own);
    const cu_routed routed = routed_of(w, o->by, experts_of(w, o));
    const cudaError_t e = run_experts(w, c, false, each, CU_OUT_F32);
    if (e != cudaSuccess) return e;
    return cu_experts_sum(w->s, &routed, cols_of(w, o->out), each, o->residual != NO_VALUE,
                          (float *)value_at(w, o->out));
}

/* ---- recurrent layers ---- */

static cu_states states_of(const lowering *w, const cuda_op *c) {
    const cuda_layout *l = w->e->l;
    cu_states s;
    s.base = (float *)cuda_at(w->e, l->states_at) + l->aside[c - w->e->op].state;
    s.stride = l->state_floats;
    s.slot = w->state, s.checkpoints = w->checkpoints;
    s.n_checkpoints = w->run->shape.n_checkpoints;
    return s;
}

static cudaError_t run_conv(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    cu_conv a = {};
    a.states = states_of(w, c), a.t = w->e->l->t;
    a.channels = cols_of(w, o->out), a.width = o->conv.width;
    a.gated = o->conv.gated, a.silu = o->conv.silu;
    a.w = c->vec[0], a.bias = c->bias;
    a.in = value_at(w, o->in), a.out = value_at(w, o->out);
    return cu_conv_run(w->s, &a, &w->tables, rows_of(w, o->in), w->run->shape.n_seqs);
}

static cudaError_t run_recur(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    cu_recur a = {};
    a.states = states_of(w, c), a.t = w->e->l->t;
    a.d = o->delta, a.scan = o->kind == OP_SSM;
    a.w0 = c->vec[0], a.w1 = c->vec[1], a.w2 = c->vec[2];
    a.in = value_at(w, o->in), a.ld_in = cols_of(w, o->in);
    a.by = value_at(w, o->by), a.out = value_at(w, o->out);
    return cu_recur_run(w->s, &a, &w->tables, w->run->shape.n_seqs);
}

/* ---- attention ---- */

/* q, k and perhaps v, whose heads stand side by side. */
static cudaError_t run_head_norm(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    const head_shape *m = &o->heads;
    const uint32_t n_heads[3] = {m->n_heads, m->n_kv_heads, o->norm.values ? m->n_kv_heads : 0};
    uint32_t first_col = 0;
    cudaError_t ce = cudaSuccess;
    for (uint32_t i = 0; i < 3 && ce == cudaSuccess; i++) {
        const uint32_t all = n_heads[i] * m->head_dim;
        const cu_norm n = {w->e->l->t, w->run->shape.n_rows, o->norm.eps,
                           i < 2 ? c->vec[i] : NULL};
        const cu_heads h = {o->norm.whole ? 1 : n_heads[i], o->norm.whole ? all : m->head_dim,
                            first_col, cols_of(w, o->in), value_at(w, o->in)};
        if (all) ce = cu_head_norm(w->s, &n, &h);
        first_col += all;
    }
    return ce;
}

/* Is each entry of the step one row, which decode attention computes? */
static bool is_decode(const lowering *w) {
    return w->run->singles && w->run->shape.n_tiles == 0;
}

/* Does the attention behind a rotation do its work, too? */
static bool turns_within(const lowering *w, const cuda_op *c) {
    if (c + 1 == w->e->op + w->e->p->n_ops || c[1].o->kind != OP_ATTENTION) return false;
    const op *next = c[1].o;
    const kv_format *kv = &w->e->l->kv[w->e->p->layer_group[c->o->layer]];
    const bool tempered = next->attention.temperature != 0 && next->attention.temperature_len;
    return next->in == c->o->out && is_decode(w) && !kv->k.word_bytes && !tempered &&
           kv->head_dim <= CU_ATTN_HEAD;
}

static cu_rope rope_of(const lowering *w, const cuda_op *c) {
    const cuda_engine *e = w->e;
    const uint32_t table = c->o->rope.table;
    const rope_config *r = &e->p->rope[table];
    cu_rope a = {};
    a.kv = kv_of_op(e, c->o), a.tail = tail_of_op(e, c->o);
    a.t = e->l->t;
    a.qkv = value_at(w, c->o->in), a.ld = e->p->values[c->o->in].cols;
    a.n_heads = c->o->heads.n_heads;
    a.pairing = r->pairing, a.n_dims = r->n_dims;
    a.freqs = (const cu_freq *)cuda_at(e, e->l->freqs) + (size_t)table * e->l->rope_pairs;
    a.mscale = e->host->rope_scale[table];
    a.q_alone = c->o->heads.n_kv_heads == 0;
    return a;
}

static cudaError_t run_rope(const lowering *w, const cuda_op *c) {
    if (turns_within(w, c)) return cudaSuccess;
    const cu_rope a = rope_of(w, c);
    if (cu_kv_coded(&a.kv)) return cu_append_codes(w->s, &a, &w->tables, w->run->shape.n_rows);
    return cu_rope_append(w->s, &a, &w->tables, w->run->shape.n_rows);
}

static cudaError_t run_attention(const lowering *w, const cuda_op *c) {
    const cuda_engine *e = w->e;
    const attention_shape *x = &c->o->attention;
    const cuda_run *r = w->run;
    cu_attn a = {};
    a.kv = kv_of_op(e, c->o), a.tail = tail_of_op(e, c->o);
    a.t = e->l->t;
    a.qkv = value_at(w, c->o->in), a.ld = e->p->values[c->o->in].cols;
    a.out = value_at(w, c->o->out);
    a.n_heads = c->o->heads.n_heads;
    a.scale = x->scale, a.window = x->window, a.cap = x->cap, a.sinks = c->vec[0];
    a.codes = codes_of(w, c);
    cu_rope rope;
    if (c > e->op && c[-1].o->kind == OP_ROPE_APPEND && turns_within(w, c - 1)) {
        rope = rope_of(w, c - 1);
        a.rope = &rope;
        /* q alone: another layer of this step has appended what is read. */
        a.settled = r->shape.n_copies == 0 && !rope.q_alone;
    }
    cudaError_t ce = cudaSuccess;
    if (x->temperature != 0 && x->temperature_len)
        ce = cu_temper(w->s, a.t, &w->tables, r->shape.n_rows, a.n_heads * c->o->heads.head_dim,
                       a.ld, x->temperature, x->temperature_len, value_at(w, c->o->in));
    if (ce == cudaSuccess && r->singles)
        ce = cu_attn_decode(w->s, &a, &w->tables, r->shape.n_seqs, r->n_splits,
                            cuda_at(e, e->l->partials));
    if (ce == cudaSuccess && r->shape.n_tiles)
        ce = cu_attn_prefill(w->s, &a, &w->tables, w->tiles, r->shape.n_tiles);
    return ce == cudaSuccess ? cu_turn_back(w->s, &a, r->shape.n_rows) : ce;
}

/* ---- results ---- */

static cudaError_t run_sample(const lowering *w, const cuda_op *c) {
    cuda_engine *e = w->e;
    const tables_shape *sh = &w->run->shape;
    const uint32_t n_vocab = e->p->values[c->o->in].cols;
    const cu_logits logits = {(float *)value_at(w, c->o->in), n_vocab,
                              cuda_at(e, e->l->sampler)};
    sampled *token = (sampled *)cuda_at(e, e->l->results), *scored = token + e->opt.max_seqs;
    cudaError_t ce = cudaSuccess;
    if (e->kept && sh->n_logit_rows)
        ce = cudaMemcpyAsync(e->kept, logits.row, sizeof(float) * n_vocab * sh->n_logit_rows,
                             cudaMemcpyDeviceToDevice, w->s);
    if (ce == cudaSuccess && sh->n_scores)
        ce = cu_score_rows(w->s, &logits, w->scores, sh->n_scores, scored);
    if (ce != cudaSuccess || sh->n_seqs == 0) return ce;
    return cu_sample(w->s, &logits, w->sampling, w->lists, sh->n_seqs, token,
                     (int32_t *)cuda_at(e, e->l->previous));
}

/* ---- the program ---- */

static cudaError_t run_copies(const lowering *w) {
    const cuda_engine *e = w->e;
    const int32_t *pairs = w->copies; /* group by group */
    cudaError_t ce = cudaSuccess;
    for (uint32_t g = 0; g < e->l->n_groups && ce == cudaSuccess; g++) {
        const uint32_t n = w->run->copies[g];
        ce = cu_copy_blocks(w->s, e->kv[g], kv_block_bytes(&e->l->kv[g], e->l->kv_layers[g]),
                            pairs, n);
        pairs += 2 * n;
    }
    if (ce != cudaSuccess || !w->run->copies[ENGINE_COPY_STATE]) return ce;
    return cu_copy_blocks(w->s, cuda_at(e, e->l->states_at), e->l->state_floats * 4, pairs,
                          w->run->copies[ENGINE_COPY_STATE]);
}

/* Where matrices read a residual stream. */
static cudaError_t round_input(const lowering *w, const cuda_op *c) {
    const value_id in = c->o->in;
    if (!w->e->l->aside[c - w->e->op].in) return cudaSuccess;
    return cu_round(w->s, w->e->l->t, (uint64_t)rows_of(w, in) * cols_of(w, in),
                    (const float *)value_at(w, in), input_at(w, c));
}

static cudaError_t run_op(const lowering *w, const cuda_op *c) {
    const op *o = c->o;
    /* Without rows of logits sampling still has to say that nothing was drawn. */
    const uint32_t n = o->out == NO_VALUE ? 1 : rows_of(w, o->out);
    if (n == 0) return cudaSuccess;
    const cudaError_t rounded = round_input(w, c);
    if (rounded != cudaSuccess) return rounded;
    switch (o->kind) {
#define X(kind, run, ...)                                                                      \
    case OP_##kind: return run(w, c);
        CUDA_OPS(X)
#undef X
    default: return cudaErrorNotSupported; /* the layout refused it */
    }
}

/* Whether kernels start before the ones in front of them have ended. On an H200 that makes a
 * step of one sequence 15% faster with packed weights and 11% slower with 16-bit ones, and
 * steps of 16 rows are not faster (bench/results/cuda-first-h200.txt). VRAMD_CUDA_EARLY=0 and
 * =1 decide for all steps, for measurements and to find out whether it is to blame. */
static bool launches_early(const cuda_engine *e, uint32_t n_rows) {
    static const char *const wanted = getenv("VRAMD_CUDA_EARLY");
    if (wanted && *wanted) return strcmp(wanted, "0") != 0;
    return n_rows <= CU_FEW_ROWS && e->l->mostly_packed;
}

cudaError_t cuda_run_program(cuda_engine *e, const cuda_run *run) {
    const lowering w = lower_init(e, run);
    cu_early = launches_early(e, run->shape.n_rows);
    cudaError_t ce = run_copies(&w);
    if (ce == cudaSuccess) ce = cuda_stage_begin(e);
    for (uint32_t i = 0, r = 0; i < e->p->n_ops && ce == cudaSuccess; i++) {
        if (r < e->l->n_host_runs && e->l->host_runs[r].first_op == i) {
            ce = cuda_host_run_put(e, r, &run->shape);
            i = e->l->host_runs[r++].last_op;
            continue;
        }
        ce = cuda_stage_before(e, i);
        if (ce == cudaSuccess) ce = run_op(&w, &e->op[i]);
        if (ce == cudaSuccess) ce = cuda_stage_behind(e, i);
    }
    return ce;
}

/* ---- timing the GEMMs ---- */

/* Random numbers of the weights' size as input, since zeros are multiplied faster: weights. */
static cudaError_t fill_input(cuda_engine *e, const cu_linear *l, uint32_t rows) {
    const uint64_t all = (uint64_t)rows * l->ld_in * 2,
                   some = (uint64_t)l->w.n_out * l->w.n_in * 2;
    cudaError_t ce = cudaSuccess;
    for (uint64_t at = 0; at < all && ce == cudaSuccess; at += some)
        ce = cudaMemcpyAsync((char *)l->in + at, l->w.data, all - at < some ? all - at : some,
                             cudaMemcpyDeviceToDevice, e->stream);
    return ce;
}

static status tune_part(cuda_engine *e, const cu_linear *l, err *er) {
    cudaError_t ce = cudaSuccess;
    if (!gemm_known(e->lt, l, 0)) ce = fill_input(e, l, l->n_rows);
    status s = cuda_check(e->host, ce, "timing GEMMs", er);
    return s == OK ? gemm_tune(e->lt, e->stream, l, 0, er) : s;
}

static status tune_packed(cuda_engine *e, const cu_linear *l, err *er) {
    const gemm_scratch scratch = scratch_of(e);
    cu_linear first = *l;
    cudaError_t ce = cudaSuccess;
    if (gemm_takes_codes(l, &scratch))
        return gemm_tune_packed(e->lt, e->stream, l, &scratch, er);
    first.w.data = scratch.data;
    first.w.n_out = cu_slice_rows(l->w.n_out, l->w.n_in, scratch.bytes);
    if (!gemm_known(e->lt, &first, CU_MANY_ROWS)) {
        ce = cu_unpack(e->stream, &l->w, l->t, 0, first.w.n_out, scratch.data);
        if (ce == cudaSuccess) ce = fill_input(e, &first, l->n_rows);
    }
    status s = cuda_check(e->host, ce, "timing GEMMs", er);
    return s == OK ? gemm_tune_packed(e->lt, e->stream, l, &scratch, er) : s;
}

/* Where an operation's matrices leave what they compute. */
static void set_output(const lowering *w, const cuda_op *c, cu_linear *l) {
    const op *o = c->o;
    const uint64_t aside = w->e->l->aside[c - w->e->op].own;
    const uint32_t cols = cols_of(w, o->out);
    l->out = aside ? cuda_at(w->e, aside) : value_at(w, o->out);
    l->ld_out = o->kind == OP_GATE_UP ? 2 * cols : o->kind == OP_ROUTE ? l->w.n_out : cols;
    l->kind = o->kind == OP_LOGITS || o->kind == OP_ROUTE ? CU_OUT_F32
              : o->residual != NO_VALUE                   ? CU_OUT_ADD
                                                          : CU_OUT_T;
}

status cuda_tune(cuda_engine *e, err *er) {
    cuda_run none = {};
    const lowering w = lower_init(e, &none);
    status s = OK;
    for (uint32_t i = 0; i < e->p->n_ops && s == OK; i++) {
        const cuda_op *c = &e->op[i];
        const op *o = c->o;
        if (!cuda_multiplies(o->kind)) continue;
        const bool gathered = e->p->values[o->in].rows == ROWS_GATHERED;
        const uint32_t unit = unit_of(&w, o->in),
                       most = gathered ? e->opt.max_logit_rows : e->opt.max_rows;
        for (uint32_t k = 0; k < c->n_parts && s == OK; k++) {
            cu_linear l = linear_of(&w, &c->part[k], e->l->batch_invariant ? unit : most,
                                    input_at(&w, c));
            if (l.w.type == DT_F32) continue;
            set_output(&w, c, &l);
            if (!is_packed(&c->part[k]))
                s = tune_part(e, &l, er);
            else if (takes_packed(e, &l))
                s = tune_packed(e, &l, er);
        }
    }
    return s;
}
