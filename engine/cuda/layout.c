/* The layout of the CUDA engine: weights that compute together lie together, values of a step
 * share bytes by liveness, and the KV cache comes last. Pure; any thread. */
#include "engine/cuda/layout.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "engine/arrange.h"
#include "engine/cuda/hosting.h"
#include "engine/cuda/op_list.h"
#include "engine/cuda/staging.h"
#include "engine/cuda/upload.h"
#include "engine/group.h"
#include "model/shard.h"
#include "engine/cuda/w8a8.h"

enum { ALIGN = 256, FEW_ROWS = 8, TILE_ROWS = 64, BOUNCE_ROWS = CU_STORE_ROWS };
static const uint64_t BOUNCE_ENOUGH = 4 << 20;

static uint64_t place(sizer *s, uint64_t bytes) {
    return sizer_place(s, bytes, ALIGN);
}

static uint64_t place_n(sizer *s, uint64_t n, uint64_t bytes) {
    return place(s, sizer_times(s, n, bytes));
}

/* ---- checks ---- */

/* Positions that rotary angles stay exact for (rope.cu). */
enum { MAX_MODEL_LEN = 1 << 20 };

/* Outputs of a matrix up to which it is narrow: the library wants rows of 16 bytes. */
enum { NARROW = 7 };

/* Whether an operation has a router, whose choice is not to be rounded, or a matrix of few outputs. */
static bool is_narrow(const program *p, const op *o) {
    return o->kind == OP_ROUTE ||
           (o->kind == OP_LINEAR && o->n_weights == 1 && o->residual == NO_VALUE &&
            p->weights[o->w[0]].rows <= NARROW);
}

/* All but the narrow ones, which have float32 on the device. */
static bool all_f16(const program *p) {
    uint32_t others = 0;
    for (uint32_t i = 0; i < p->n_weights; i++)
        others += p->weights[i].role != WEIGHT_VECTOR && p->weights[i].type != DT_F16;
    for (uint32_t i = 0; i < p->n_ops; i++)
        others -= is_narrow(p, &p->ops[i]) && p->weights[p->ops[i].w[0]].type != DT_F16;
    return others == 0;
}

/* Activations of auto: bf16, since products of gate and up exceed what f16 holds in some models
 * (Gemma 3: huggingface/transformers issue 36822); f16 where all weights are f16, whose
 * precision bf16 would lose. */
static status choose_types(cuda_layout *l, const program *p, const engine_options *o, err *e) {
    l->t = o->activations == ACTIVATION_F16 ? CU_F16 : CU_BF16;
    if (o->activations == ACTIVATION_INT8 || o->activations == ACTIVATION_F32) {
        err_set(e, ERR_UNSUPPORTED, "activation_dtype = %s is of the CPU engine",
                activation_dtype_name(o->activations));
        err_hint(e, "with CUDA use f16, bf16, fp8 or auto");
        return err_field(e, "activation_dtype");
    }
    l->wants_codes = o->activations == ACTIVATION_FP8;
    if (l->wants_codes && o->batch_invariant) {
        err_set(e, ERR_UNSUPPORTED,
                "activation_dtype = fp8 rounds activations by the number of "
                "rows of a step, which batch_invariant excludes");
        err_hint(e, "set activation_dtype = auto, or batch_invariant = off");
        return err_field(e, "activation_dtype");
    }
    if (o->activations == ACTIVATION_AUTO && all_f16(p)) l->t = CU_F16;
    static const dtype kv[] = {DT_F16, DT_BF16, DT_INT8, DT_Q8_0, DT_FP8, DT_INT4};
    status s = kv_options_check(p, o, kv, sizeof kv / sizeof *kv, "CUDA", e);
    if (s != OK) return s;
    l->kv_type = o->kv_k == DT_BF16 ? CU_BF16 : CU_F16;
    const bool coded = kv_type_get(o->kv_k)->word_bytes && kv_type_get(o->kv_v)->word_bytes;
    if (coded || o->kv_k == o->kv_v) return OK;
    err_set(e, ERR_UNSUPPORTED, "the CUDA engine has no KV cache of K in %s and V in %s",
            dtype_name(o->kv_k), dtype_name(o->kv_v));
    err_hint(e, "two types can be of int8, q8_0, fp8 and int4; f16 and bf16 are for both");
    return err_field(e, "cache_type_v");
}

static status check_heads(const head_shape *h, err *e) {
    if (h->head_dim % 16 == 0 && h->head_dim <= CU_ATTN_WIDE && h->n_kv_heads &&
        h->n_heads % h->n_kv_heads == 0)
        return OK;
    err_set(e, ERR_UNSUPPORTED,
            "heads of %u (a multiple of 16 up to %d is needed), %u query heads for %u of "
            "K and V",
            h->head_dim, CU_ATTN_WIDE, h->n_heads, h->n_kv_heads);
    return err_field(e, "head_dim");
}

/* Whether the kernels hold the words of such a head in a cache of codes. */
static status check_segments(const head_shape *h, const engine_options *o, err *e) {
    const kv_type *k = kv_type_get(o->kv_k), *v = kv_type_get(o->kv_v);
    if (!k->word_bytes) return OK;
    kv_format f;
    kv_format_init(&f, KV_ROWS, k, v, KV_LEAST_TOKENS, h->n_kv_heads, h->head_dim);
    const bool k_fits = cu_attn_supports_codes(h->head_dim, f.k_segments);
    if (k_fits && cu_attn_supports_codes(h->head_dim, f.v_segments)) return OK;
    err_set(e, ERR_UNSUPPORTED, "the CUDA engine has no KV cache of type %s for heads of %u",
            dtype_name(k_fits ? o->kv_v : o->kv_k), h->head_dim);
    err_hint(e, "set kv_cache_dtype = f16");
    return err_field(e, "kv_cache_dtype");
}

static status check_states(const program *p, const engine_options *o, err *e) {
    const uint32_t n = engine_states(p, o);
    if (n && n < o->max_seqs)
        return engine_option_bad(e, "n_states", o->n_states, "as many as sequences, at least");
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *x = &p->ops[i];
        if ((x->kind == OP_DELTA || x->kind == OP_SSM) && !cu_recur_supports(&x->delta)) {
            err_set(
                e, ERR_UNSUPPORTED,
                "a state of %u heads of %u by %u heads of %u; the CUDA engine takes up to %d "
                "numbers a head",
                x->delta.key_heads, x->delta.key_dim, x->delta.value_heads, x->delta.value_dim,
                CU_RECUR_FLOATS);
            return err_field(e, "ssm.state");
        }
        if (x->state_floats % 4 == 0 && (x->kind != OP_CONV || x->conv.width <= CU_CONV_MOST))
            continue;
        err_set(e, ERR_UNSUPPORTED, "a convolution over %u positions; at most %d are supported",
                x->conv.width, CU_CONV_MOST);
        return err_field(e, "ssm.conv");
    }
    return OK;
}

static status check_program(const program *p, const engine_options *o, err *e) {
    const status states = check_states(p, o, e);
    if (states != OK) return states;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].kind != OP_ATTENTION) continue;
        status s = check_heads(&p->ops[i].heads, e);
        if (s == OK) s = check_segments(&p->ops[i].heads, o, e);
        if (s != OK) return s;
    }
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        if (w->role == WEIGHT_VECTOR) continue;
        if (w->role == WEIGHT_ORDER) {
            err_set(e, ERR_UNSUPPORTED,
                    "tensor %s: the CUDA engine has no kernel for inputs in another order",
                    w->name);
            err_hint(e, "set device = cpu");
            return err_field(e, "%s", w->name);
        }
        if (cu_matrix_supports(w->type, w->cols) && w->cols % 8 == 0) continue;
        err_set(e, ERR_UNSUPPORTED,
                "tensor %s: the CUDA engine has no kernel for type %s with rows of %u", w->name,
                dtype_name(w->type), w->cols);
        err_hint(e,
                 "types that it takes: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to "
                 "Q6_K, IQ1_S to IQ4_XS, TQ1_0, TQ2_0, Q1_0, Q2_0, MXFP4");
        return err_field(e, "%s", w->name);
    }
    return OK;
}

/* ---- weights ---- */

static dtype device_type(const cuda_layout *l, const program *p, weight_id id) {
    const dtype as = cu_upload_type(p->weights[id].type);
    if (cu_matrix_is_packed(as)) return as;
    if (l->weights[id].narrow) return DT_F32;
    return l->t == CU_BF16 ? DT_BF16 : DT_F16;
}

static const uint32_t UNPLACED = UINT32_MAX;

static void new_place(cuda_layout *l, const program *p, weight_id id) {
    const weight *w = &p->weights[id];
    cuda_place *x = &l->places[l->n_places];
    *x = (cuda_place){.is_vector = w->role == WEIGHT_VECTOR,
                      .type = device_type(l, p, id),
                      .n_out = w->rows,
                      .n_in = w->cols,
                      .n_experts = w->n_experts ? w->n_experts : 1,
                      .first = id,
                      .staged = l->weights[id].absent ? CUDA_ABSENT : CUDA_RESIDENT};
    if (x->is_vector) x->n_in *= w->rows; /* of each expert a row */
    l->weights[id].place = l->n_places++;
    l->weights[id].row = 0;
    const bool is_16 = !x->is_vector && !cu_matrix_is_packed(x->type) && x->type != DT_F32;
    if (is_16 && !w->n_experts && !l->weights[id].absent) l->needs_gemm = true;
}

/* May weight b stand below a, the last one of its place? */
static bool joins(const cuda_layout *l, const program *p, const op *o, weight_id a,
                  weight_id b) {
    const weight *x = &p->weights[a], *y = &p->weights[b];
    const dtype type = device_type(l, p, a);
    if (l->weights[b].place != UNPLACED || device_type(l, p, b) != type || x->cols != y->cols ||
        l->weights[a].absent != l->weights[b].absent)
        return false;
    for (uint32_t i = 0, n = 0; i < o->n_weights; i++) /* V made by K's matrix: a part each */
        if (o->w[i] == b && n++) return false;
    if (!cu_matrix_is_packed(type)) return true;
    return o->kind == OP_LINEAR && x->rows % CU_STORE_ROWS == 0;
}

/* The matrices of one operation, and their biases in the same way, if all have one or none. */
static void join_weights(cuda_layout *l, const program *p, const op *o) {
    if (o->n_weights < 2 || (o->kind != OP_LINEAR && o->kind != OP_GATE_UP)) return;
    for (uint32_t i = 0; i < o->n_weights; i++) {
        if (l->weights[o->w[i]].place != UNPLACED) continue;
        new_place(l, p, o->w[i]);
        cuda_place *x = &l->places[l->n_places - 1], *bias = NULL;
        if (o->bias[i] != NO_WEIGHT && l->weights[o->bias[i]].place == UNPLACED) {
            new_place(l, p, o->bias[i]);
            bias = &l->places[l->n_places - 1];
        }
        for (; i + 1 < o->n_weights && joins(l, p, o, o->w[i], o->w[i + 1]); i++) {
            const weight_id w = o->w[i + 1], b = o->bias[i + 1];
            const uint32_t place = l->weights[o->w[i]].place;
            if ((b != NO_WEIGHT) != (bias != NULL)) break;
            if (bias && (l->weights[b].place != UNPLACED ||
                         l->weights[b].absent != l->weights[bias->first].absent))
                break;
            l->weights[w].place = place;
            l->weights[w].row = x->n_out;
            x->n_out += p->weights[w].rows;
            if (!bias) continue;
            l->weights[b].place = place + 1;
            l->weights[b].row = bias->n_in;
            bias->n_in += p->weights[b].cols;
        }
    }
}

static uint64_t row_bytes(const weight *w, dtype t) {
    const dtype_block d = dtype_block_of(t);
    return w->role == WEIGHT_VECTOR ? (uint64_t)w->cols * 4
                                    : w->cols / d.elems * (uint64_t)d.bytes;
}

static status place_weights(cuda_layout *l, const program *p, const engine_options *o, sizer *s,
                            err *e) {
    uint64_t row = 0, file_row = 0, all = 0, packed = 0, total = 0, vector = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) l->weights[i].place = UNPLACED;
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (is_narrow(p, &p->ops[i])) l->weights[p->ops[i].w[0]].narrow = true;
    hosting_choose(l, p, o);
    for (uint32_t i = 0; i < p->n_ops; i++) join_weights(l, p, &p->ops[i]);
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        if (l->weights[i].place == UNPLACED) new_place(l, p, i);
        const dtype as = cu_upload_type(w->type);
        const uint64_t bytes = row_bytes(w, as);
        const uint64_t extra = as == w->type ? 0 : row_bytes(w, w->type);
        if (l->weights[i].absent) continue;
        l->weights[i].row_bytes = bytes;
        if (bytes > row) row = bytes;
        if (extra > file_row) file_row = extra;
        if (bytes * w->rows > all) all = bytes * w->rows;
        if (w->role == WEIGHT_VECTOR && bytes * w->rows > vector) vector = bytes * w->rows;
    }
    const status staged = staging_choose(l, p, o, e);
    if (staged != OK) return staged;
    for (uint32_t i = 0; i < l->n_places; i++) {
        cuda_place *x = &l->places[i];
        if (x->staged == CUDA_ABSENT) continue;
        uint64_t bytes =
            x->is_vector ? (uint64_t)x->n_in * 4 : cu_matrix_bytes(x->type, x->n_out, x->n_in);
        sizer own = {0};
        place_n(&own, x->n_experts, bytes);
        s->failed |= own.failed;
        x->bytes = own.n;
        total += x->bytes;
        if (x->staged == CUDA_RESIDENT) x->at = place(s, x->bytes);
        if (!x->is_vector && cu_matrix_is_packed(x->type)) packed += x->bytes;
    }
    l->weights_bytes = s->n;
    l->mostly_packed = packed > total / 2;
    staging_place(l, s);
    uint64_t enough = all < BOUNCE_ENOUGH ? all : BOUNCE_ENOUGH;
    if (enough < CUDA_PINNED_LEAST / CUDA_BOUNCES) enough = CUDA_PINNED_LEAST / CUDA_BOUNCES;
    if (row * BOUNCE_ROWS > enough) enough = row * BOUNCE_ROWS;
    if (vector > enough) enough = vector; /* is read at once */
    l->bounce_rows = enough;
    l->bounce_bytes = align_up(enough + file_row, 4096);
    return OK;
}

/* activation_dtype = fp8 is of matrices whose codes can meet codes. */
static status check_codes(const cuda_layout *l, err *e) {
    for (uint32_t i = 0; i < l->n_places && l->wants_codes; i++) {
        const cuda_place *x = &l->places[i];
        if (!x->is_vector && cu_w8a8_takes(x->type, x->n_out, x->n_in)) return OK;
    }
    if (!l->wants_codes) return OK;
    err_set(e, ERR_UNSUPPORTED,
            "activation_dtype = fp8, and no matrix is FP8 with one scale for each output");
    err_hint(e, "set activation_dtype = auto");
    return err_field(e, "activation_dtype");
}

/* ---- values ---- */

static status cannot_run(const op *o, const char *why, err *e) {
    err_set(e, ERR_UNSUPPORTED, "the CUDA engine does not run operation %s of layer %d: %s",
            op_kind_name(o->kind), o->layer, why);
    return err_field(e, "%s", op_kind_name(o->kind));
}

static bool is_f32(const cuda_layout *l, value_id v) {
    return l->values[v].form == CUDA_VALUE_F32;
}

typedef enum cuda_in { CUDA_IN_ANY, CUDA_IN_STREAM, CUDA_IN_T, CUDA_IN_ROUNDED } cuda_in;

/* False: the engine does not run operations of this kind. */
static bool find_op(op_kind k, cuda_in *in, cuda_form *out) {
    switch (k) {
#define X(kind, run, input, output)                                                            \
    case OP_##kind:                                                                            \
        *in = input;                                                                           \
        *out = output;                                                                         \
        return true;
        CUDA_OPS(X)
#undef X
    default: return false;
    }
}

/* Kinds that can add what they compute to a residual stream, where that stands. */
static bool adds(op_kind k) {
    return k == OP_LINEAR || k == OP_NORM || k == OP_MUL_SIGMOID || k == OP_EXPERTS_DOWN;
}

/* What of a mixture the kernels do not take. */
static status check_experts(const cuda_layout *l, const program *p, const op *o, err *e) {
    if (o->kind == OP_ROUTE &&
        (o->route.top_k > CU_MOST_CHOSEN || p->weights[o->w[0]].rows > CU_MOST_EXPERTS))
        return cannot_run(o, "more than 1024 experts, or 32 for a row", e);
    if (o->kind == OP_ROUTE && o->route.n_groups > CU_MOST_GROUPS)
        return cannot_run(o, "more than 64 groups of experts", e);
    if (o->kind == OP_EXPERTS_GATE_UP &&
        device_type(l, p, o->w[0]) != device_type(l, p, o->w[1]))
        return cannot_run(o, "the experts' gate and up are of two types", e);
    return OK;
}

/* Whether an operation adds to the value, so that it is float32. */
static bool is_added_to(const program *p, value_id v) {
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].residual == v) return true;
    return false;
}

/* What a rank computes of a value that is joined: where it adds to a residual stream, or joins rows, in place;
 * else its columns, by themselves. */
static status find_part(cuda_layout *l, const program *p, uint32_t i, uint32_t *cuts, err *e) {
    const op *o = &p->ops[i], *by = o - 1;
    const uint32_t cols = p->values[o->out].cols;
    CHECK(i > 0 && by->out == o->in);
    if (by->idle) return cannot_run(by, "this rank has nothing of it", e);
    if (by->kind == OP_EMBED) return OK;
    for (uint32_t r = 0; r < l->n_ranks; r++) cuts[r] = shard_joined(p, o, r).from;
    cuts[l->n_ranks] = cols;
    l->aside[i].cuts = cuts;
    const uint32_t from = cuts[p->part.rank], n = cuts[p->part.rank + 1] - from;
    if (by->kind != OP_LOGITS && (from % 8 || n % 8))
        return cannot_run(by, "a rank would have columns that are no multiple of 8", e);
    if (by->residual == NO_VALUE) l->values[o->in].cols = n;
    return OK;
}

static status find_parts(cuda_layout *l, const program *p, const engine_options *o, err *e) {
    l->n_ranks = p->part.n_ranks > 1 ? p->part.n_ranks : 1;
    for (uint32_t i = 0; i < p->n_values; i++) l->values[i].cols = p->values[i].cols;
    if (l->n_ranks == 1) return OK;
    if (o->by_messages) {
        err_set(e, ERR_UNSUPPORTED, "ranks on devices are processes of one machine");
        err_hint(e, "give each machine the whole model, or use backend = cpu");
        return err_field(e, "backend");
    }
    l->cuts = calloc((size_t)p->n_ops * (l->n_ranks + 1), sizeof *l->cuts);
    if (!l->cuts) return err_set(e, ERR_NO_MEMORY, "no memory for the layout");
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if (o->kind == OP_ROUTE) return cannot_run(o, "experts are not cut over devices", e);
        if (o->kind != OP_ALL_GATHER) continue;
        const status s = find_part(l, p, i, l->cuts + (size_t)i * (l->n_ranks + 1), e);
        if (s != OK) return s;
    }
    return OK;
}

/* Gives each value its form, in the order of the operations; refuses what does not fit. */
static status find_forms(cuda_layout *l, const program *p, err *e) {
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        cuda_in in;
        cuda_form out;
        if (!find_op(o->kind, &in, &out)) return cannot_run(o, "there is no kernel for it", e);
        if (o->kind == OP_NORM && o->residual == NO_VALUE && is_added_to(p, o->out))
            out = CUDA_VALUE_F32;
        if (in == CUDA_IN_STREAM && !is_f32(l, o->in))
            return cannot_run(o, "its input is no residual stream", e);
        if (in == CUDA_IN_T && is_f32(l, o->in))
            return cannot_run(o, "its input is a residual stream", e);
        if (o->residual != NO_VALUE) {
            if (!adds(o->kind)) return cannot_run(o, "it adds to a residual", e);
            out = CUDA_VALUE_F32;
        }
        if (o->kind == OP_LOGITS && l->n_ranks > 1)
            out = CUDA_VALUE_F32; /* until it is joined */
        if (o->kind == OP_ALL_GATHER)
            out = o[-1].kind == OP_LOGITS ? CUDA_VALUE_LOGITS : l->values[o->in].form;
        if (o->out != NO_VALUE) l->values[o->out].form = out;
        status s = check_experts(l, p, o, e);
        if (s != OK) return s;
    }
    return OK;
}

static uint64_t rows_of(const cuda_layout *l, const program *p, const engine_options *o,
                        value_id v) {
    const bool gathered = p->values[v].rows == ROWS_GATHERED;
    return gathered ? cuda_rows_up(o->max_logit_rows, l->logits_unit)
                    : (uint64_t)cuda_rows_up(o->max_rows, l->rows_unit) * p->values[v].top_k;
}

/* Two for each operation, behind those of the values: what it puts aside. */
enum { ASIDE_IN, ASIDE_OWN, N_ASIDES };

static uint32_t aside_at(const program *p, uint32_t op, uint32_t which) {
    return p->n_values + op * N_ASIDES + which;
}
static uint32_t lives_of(const program *p) {
    return aside_at(p, p->n_ops, 0);
}

/* Bytes that live for this one operation. */
static void put_aside(const program *p, life *lives, uint32_t at, uint32_t which,
                      uint64_t bytes) {
    life *x = &lives[aside_at(p, at, which)];
    *x = (life){at, at, UINT64_MAX, align_up(bytes, ALIGN)};
    x->at = life_first_fit(lives, lives_of(p), x);
}

static void place_asides(cuda_layout *l, const program *p, const engine_options *o, uint32_t at,
                         life *lives, sizer *s) {
    const op *x = &p->ops[at];
    cuda_in in;
    cuda_form out;
    if (l->aside[at].on_host) return;
    if (find_op(x->kind, &in, &out) && in == CUDA_IN_ROUNDED && is_f32(l, x->in))
        put_aside(p, lives, at, ASIDE_IN,
                  sizer_times(s, rows_of(l, p, o, x->in), 2 * (uint64_t)l->values[x->in].cols));
    const uint64_t cols =
        x->kind == OP_ROUTE ? p->weights[x->w[0]].rows : l->values[x->out].cols;
    const value_id rows = x->kind == OP_EXPERTS_DOWN ? x->in : x->out;
    if (x->kind == OP_GATE_UP || x->kind == OP_ROUTE || x->kind == OP_EXPERTS_DOWN)
        put_aside(p, lives, at, ASIDE_OWN, sizer_times(s, rows_of(l, p, o, rows), 4 * cols));
}

/* Bytes of an operation's output. */
static uint64_t value_bytes(const cuda_layout *l, const program *p, const engine_options *o,
                            const op *x, sizer *s) {
    const value_id v = x->out;
    const uint64_t rows = rows_of(l, p, o, v),
                   width = l->values[v].form == CUDA_VALUE_T ? 2 : 4;
    if (x->kind == OP_ROUTE)
        return cu_routed_bytes((uint32_t)rows, x->route.top_k, p->weights[x->w[0]].rows);
    return align_up(sizer_times(s, sizer_times(s, rows, l->values[v].cols), width), ALIGN);
}

static status place_value(cuda_layout *l, const program *p, const engine_options *o,
                          uint32_t at, life *lives, sizer *s, err *e) {
    const op *x = &p->ops[at];
    const value_id v = x->out;
    place_asides(l, p, o, at, lives, s);
    /* OP_HEAD_NORM and OP_ROPE_APPEND work in place */
    if (lives[v].at != UINT64_MAX) return OK;
    lives[v].bytes = value_bytes(l, p, o, x, s);
    if (s->failed) return OK;
    /* A residual stream that is added to, scaled, or joined, stays where it is. */
    const bool joined = x->kind == OP_ALL_GATHER && l->values[x->in].cols == l->values[v].cols;
    const value_id under = x->kind == OP_SCALE || joined ? x->in : x->residual;
    if (under == NO_VALUE) {
        lives[v].at = life_first_fit(lives, lives_of(p), &lives[v]);
        return OK;
    }
    const life *r = &lives[under];
    if (!is_f32(l, under) || r->last_op != at || r->bytes != lives[v].bytes)
        return cannot_run(x, "its residual is used again", e);
    lives[v].at = r->at;
    return OK;
}

static status place_values(cuda_layout *l, const program *p, const engine_options *o, sizer *s,
                           err *e) {
    const uint32_t n = lives_of(p);
    life *lives = calloc(n + 1, sizeof *lives);
    status st = OK;
    if (!lives) return err_set(e, ERR_NO_MEMORY, "no memory for the layout");
    lives_of_values(p, lives);
    for (uint32_t i = 0; i < p->n_ops && st == OK && !s->failed; i++) {
        value_id v = p->ops[i].out;
        if (v != NO_VALUE && l->values[v].form != CUDA_VALUE_LOGITS)
            st = place_value(l, p, o, i, lives, s, e);
    }
    l->values_at = s->n;
    uint64_t bytes = CUDA_BOUNCES * l->bounce_bytes; /* the file's bytes lie here at first */
    for (uint32_t i = 0; i < n && st == OK; i++) {
        if (lives[i].bytes == 0 || lives[i].at == UINT64_MAX) continue;
        if (lives[i].at + lives[i].bytes > bytes) bytes = lives[i].at + lives[i].bytes;
        if (i < p->n_values) l->values[i].at = l->values_at + lives[i].at;
    }
    for (uint32_t i = 0; i < p->n_ops && st == OK; i++) {
        const life *in = &lives[aside_at(p, i, ASIDE_IN)],
                   *own = &lives[aside_at(p, i, ASIDE_OWN)];
        if (in->bytes) l->aside[i].in = l->values_at + in->at;
        if (own->bytes) l->aside[i].own = l->values_at + own->at;
    }
    free(lives);
    place(s, bytes);
    l->values_bytes = s->n - l->values_at;
    return st;
}

static uint64_t kept_bytes(const program *p, const engine_options *o, sizer *s) {
    return sizer_times(s, o->max_logit_rows, (uint64_t)p->config.n_vocab * 4);
}

static void place_logits(cuda_layout *l, const program *p, const engine_options *o, sizer *s) {
    l->logits_at = place_n(s, cuda_rows_up(o->max_logit_rows, l->logits_unit),
                           (uint64_t)p->config.n_vocab * 4);
    l->kept_at = s->n;
    if (o->keep_logits) place(s, kept_bytes(p, o, s));
    l->logits_bytes = s->n - l->logits_at;
    for (uint32_t i = 0; i < p->n_values; i++)
        if (l->values[i].form == CUDA_VALUE_LOGITS) l->values[i].at = l->logits_at;
}

/* ---- workspace ---- */

static uint32_t most_heads(const program *p) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == OP_ATTENTION && p->ops[i].heads.n_heads > most)
            most = p->ops[i].heads.n_heads;
    return most;
}

/* For the packed weights: their few input rows quantised, and the sums of blocks that share a
 * tile of outputs; and the counters of blocks that finish something together. */
static void place_packed(cuda_layout *l, const program *p, const engine_options *o, sizer *s) {
    uint64_t most = 0;
    uint32_t n_out = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        if (w->role == WEIGHT_VECTOR || l->weights[i].absent ||
            !cu_matrix_is_packed(device_type(l, p, i)))
            continue;
        const uint64_t n = cu_quantized_bytes(FEW_ROWS, w->cols);
        if (n > most) most = n;
        if (w->rows > n_out) n_out = w->rows;
    }
    l->quantized = place(s, most);
    l->beside_quantized = place(s, most);
    l->split_bytes = most > 0 ? cu_split_bytes(o->max_rows) : 0;
    l->split = place(s, l->split_bytes);
    l->arrived_bytes = cu_arrived_bytes(o->max_seqs, most_heads(p), n_out);
    l->arrived = place(s, l->arrived_bytes);
}

/* A matrix whose codes meet activations as codes. A slice counts twice: it has three kernels, not two,
 * and activations have one. */
static void count_codes(cuda_layout *l, const cuda_place *w) {
    const uint32_t n = cu_w8a8_slice(w->n_out, w->n_in, l->codes_rows, CU_SLICE_BYTES);
    const uint64_t slice = align_up(cu_w8a8_slice_bytes(n, w->n_in, l->codes_rows), ALIGN),
                   codes = cu_w8a8_codes_bytes(l->codes_rows, w->n_in);
    l->n_slices += 2 * ((w->n_out + n - 1) / n);
    if (slice > l->slice_bytes) l->slice_bytes = slice;
    if (codes > l->codes_bytes) l->codes_bytes = codes;
}

/* Packed weights that meet many rows: how many slices, and the bytes of the largest. */
static void count_slices(cuda_layout *l, const program *p, const engine_options *o) {
    uint32_t last = UNPLACED;
    if (l->wants_codes)
        l->codes_rows = o->max_rows > o->max_logit_rows ? o->max_rows : o->max_logit_rows;
    for (uint32_t i = 0; i < p->n_ops && !o->batch_invariant; i++) {
        const op *x = &p->ops[i];
        if (!cuda_multiplies(x->kind) || l->aside[i].on_host) continue;
        if (rows_of(l, p, o, x->in) <= CU_MANY_ROWS) continue;
        for (uint32_t k = 0; k < x->n_weights; k++) {
            if (x->w[k] == NO_WEIGHT) continue;
            const uint32_t at = l->weights[x->w[k]].place;
            const cuda_place *w = &l->places[at];
            if (at == last || w->is_vector || !cu_matrix_is_packed(w->type)) continue;
            last = at;
            if (l->wants_codes && cu_w8a8_takes(w->type, w->n_out, w->n_in)) {
                count_codes(l, w);
                continue;
            }
            const uint32_t rows = cu_slice_rows(w->n_out, w->n_in, CU_SLICE_BYTES);
            const uint64_t bytes = align_up((uint64_t)rows * w->n_in * 2, ALIGN);
            l->n_slices += (w->n_out + rows - 1) / rows;
            if (bytes > l->slice_bytes) l->slice_bytes = bytes;
        }
    }
}

/* The largest tables a step can have. */
static uint64_t tables_bytes(const cuda_layout *l, const engine_options *o, uint32_t n_vocab) {
    const tables_shape most = {.n_rows = o->max_rows,
                               .n_seqs = o->max_seqs,
                               .n_logit_rows = o->max_logit_rows,
                               .n_scores = o->max_logit_rows,
                               .n_tiles = l->max_tiles,
                               .n_copies = l->max_copies,
                               .n_checkpoints = l->max_checkpoints,
                               .stride = l->max_stride};
    const uint64_t listed =
        (uint64_t)o->max_model_len + CUDA_LISTED + sampling_mask_words(n_vocab);
    return tables_lay(l->n_groups, &most).lists + align_up(o->max_seqs * listed * 4, 64);
}

/* The most that attention of any layer puts aside. */
static uint64_t partials_bytes(const program *p, const engine_options *o) {
    uint64_t most = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const head_shape *h = &p->ops[i].heads;
        if (p->ops[i].kind != OP_ATTENTION) continue;
        uint64_t n =
            cu_attn_decode_most_bytes(o->max_seqs, o->max_model_len, h->n_heads, h->head_dim);
        if (n > most) most = n;
    }
    return most;
}

/* The most that ranks have of a value's columns together. */
static uint64_t joined_bytes(const cuda_layout *l, const program *p, const engine_options *o,
                             sizer *s) {
    uint64_t most = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const value_id v = p->ops[i].out;
        if (!l->aside[i].cuts) continue;
        const uint64_t width = l->values[v].form == CUDA_VALUE_T ? 2 : 4,
                       rows = rows_of(l, p, o, v);
        const uint64_t n = sizer_times(s, rows, p->values[v].cols * width);
        if (n > most) most = n;
    }
    return most;
}

static void place_workspace(cuda_layout *l, const program *p, const engine_options *o,
                            sizer *s) {
    const uint64_t n_results = (uint64_t)o->max_seqs + o->max_logit_rows;
    l->is_split = o->max_model_len > CUDA_SHORT;
    l->max_stride = (uint32_t)ceil_div(o->max_model_len, o->block_tokens);
    l->max_tiles = o->max_rows / TILE_ROWS + o->max_seqs;
    l->max_copies = o->max_seqs * (l->n_groups + (l->n_states > 0 ? 1 : 0)) + ENGINE_MAX_MOVES;
    if (l->n_states) l->max_checkpoints = o->max_seqs + o->max_rows / STATE_CHUNK;
    l->tables_bytes = align_up(tables_bytes(l, o, p->config.n_vocab), 4096);
    l->results_bytes = align_up(n_results * sizeof(sampled), 4096);
    count_slices(l, p, o);
    l->wants_gemm = l->needs_gemm || l->slice_bytes > 0;
    l->gemm_bytes = l->wants_gemm ? CUDA_GEMM_WORKSPACE : 0;
    l->workspace_at = s->n;
    l->joined = place(s, joined_bytes(l, p, o, s));
    l->gemm = place(s, l->gemm_bytes);
    l->slice = place(s, l->slice_bytes);
    l->codes = place(s, l->codes_bytes);
    place_packed(l, p, o, s);
    l->partials = place(s, partials_bytes(p, o));
    l->sampler = place(s, cu_sample_scratch_bytes(o->max_logit_rows, p->config.n_vocab));
    l->tables = place(s, l->tables_bytes);
    l->results = place(s, l->results_bytes);
    l->previous = place_n(s, o->max_seqs, 4);
    l->rope_pairs = program_rope_dims(p) / 2;
    l->freqs = place_n(s, (uint64_t)p->n_ropes * l->rope_pairs, 8);
    l->workspace_bytes = s->n - l->workspace_at;
    l->slot_results = l->tables_bytes;
    l->slot_logits = align_up(l->slot_results + l->results_bytes, ALIGN);
    l->slot_bytes = l->slot_logits;
    if (o->keep_logits) l->slot_bytes += align_up(kept_bytes(p, o, s), ALIGN);
    l->crossing_at = sizer_times(s, l->slot_bytes, CUDA_DEPTH);
    s->failed |= !add_u64(l->crossing_at, l->crossing_bytes, &l->staging_bytes);
    if (l->staging_bytes < CUDA_PINNED_LEAST) l->staging_bytes = CUDA_PINNED_LEAST;
}

/* A slot has the parts of all operations, one after the other. */
static void place_states(cuda_layout *l, const program *p, sizer *s) {
    uint64_t floats = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        l->aside[i].state = floats;
        floats += p->ops[i].state_floats;
    }
    l->state_floats = floats;
    l->states_at = place(s, sizer_times(s, l->n_states, floats * sizeof(float)));
    l->states_bytes = s->n - l->states_at;
}

static void find_kv(cuda_layout *l, const program *p, const engine_options *o) {
    const kv_groups groups = kv_groups_of(p, o);
    kv_formats_init(l->kv, KV_ROWS, &groups, o);
    for (uint32_t g = 0; g < groups.n; g++) l->kv_layers[g] = groups.group[g].n_layers;
    l->n_groups = groups.n;
    l->tail_at = groups.tail_at;
}

static uint32_t gemm_unit(const engine_options *o, uint32_t rows) {
    if (!o->batch_invariant) return 1;
    rows = cuda_rows_up(rows, 16);
    return rows < CUDA_INVARIANT_ROWS ? rows : CUDA_INVARIANT_ROWS;
}

status cuda_layout_init(cuda_layout *l, const program *p, const engine_options *o, err *e) {
    *l = (cuda_layout){.batch_invariant = o->batch_invariant};
    status st = engine_options_check(o, MAX_MODEL_LEN, e);
    if (st == OK && o->hidden) {
        err_set(e, ERR_UNSUPPORTED, "the CUDA engine gives no embeddings");
        err_hint(e, "set embeddings = off, or backend = cpu");
        st = err_field(e, "embeddings");
    }
    if (st == OK) st = choose_types(l, p, o, e);
    if (st == OK) st = check_program(p, o, e);
    if (st != OK) return st;
    find_kv(l, p, o);
    l->n_states = engine_states(p, o);
    l->places = calloc(p->n_weights + 1, sizeof *l->places);
    l->weights = calloc(p->n_weights + 1, sizeof *l->weights);
    l->values = calloc(p->n_values + 1, sizeof *l->values);
    l->aside = calloc(p->n_ops + 1, sizeof *l->aside);
    sizer s = {0};
    if (!l->places || !l->weights || !l->values || !l->aside)
        st = err_set(e, ERR_NO_MEMORY, "no memory for the layout");
    l->rows_unit = gemm_unit(o, o->max_rows);
    l->logits_unit = gemm_unit(o, o->max_logit_rows);
    if (st == OK) st = find_parts(l, p, o, e);
    if (st == OK) st = find_forms(l, p, e);
    if (st == OK) st = place_weights(l, p, o, &s, e);
    if (st == OK) st = hosting_cut(l, p, o, e);
    if (st == OK) st = check_codes(l, e);
    if (st == OK) st = place_values(l, p, o, &s, e);
    if (st == OK) {
        place_logits(l, p, o, &s);
        place_workspace(l, p, o, &s);
        place_states(l, p, &s);
        l->fixed_bytes = s.n;
    }
    if (st == OK && s.failed)
        st = err_set(e, ERR_INVALID, "the model and the options require more than 2^64 bytes");
    if (st != OK) cuda_layout_clear(l);
    return st;
}

void cuda_layout_clear(cuda_layout *l) {
    hosting_clear(l);
    free(l->places);
    free(l->staged);
    free(l->weights);
    free(l->values);
    free(l->aside);
    free(l->cuts);
    *l = (cuda_layout){0};
}

group_shape cuda_shape_of(const cuda_layout *l) {
    return (group_shape){
        .n_ranks = l->n_ranks, .n_stages = 1, .depth = 1, .step_bytes = l->tables_bytes};
}

status cuda_group_shape(group_shape *out, const program *p, const engine_options *o, err *e) {
    cuda_layout l;
    const status s = cuda_layout_init(&l, p, o, e);
    if (s != OK) return s;
    *out = cuda_shape_of(&l);
    cuda_layout_clear(&l);
    return OK;
}
