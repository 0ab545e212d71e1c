/* The layout of the CPU engine. Values of a step share one arena by liveness: a value lives
 * from the operation that writes it to the last that reads it, and values whose lives do not
 * overlap may lie in the same bytes. Pure; one thread. */
#include "engine/cpu/layout.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "engine/cpu/op_list.h"
#include "engine/cpu/route.h"
#include "engine/follow.h"
#include "memory/term.h"
#include "model/direct_file.h"

static uint64_t place(sizer *s, uint64_t bytes) {
    return sizer_place(s, bytes, 64);
}

static uint64_t place_n(sizer *s, uint64_t n, uint64_t bytes) {
    return place(s, sizer_times(s, n, bytes));
}

/* ---- checks ---- */

enum { MAX_MODEL_LEN = 1 << 26 };

static status check_options(const program *p, const engine_options *o, err *e) {
    status s = engine_options_check(o, MAX_MODEL_LEN, e);
    if (s != OK) return s;
    if (engine_states(p, o) && engine_states(p, o) < o->max_seqs)
        return engine_option_bad(e, "n_states", o->n_states, "as many as sequences, at least");
    if (o->n_threads < 1 || o->n_threads > 256)
        return engine_option_bad(e, "threads", o->n_threads, "1 to 256");
    if (o->activations == ACTIVATION_F16 || o->activations == ACTIVATION_FP8) {
        err_set(e, ERR_UNSUPPORTED, "activation_dtype = %s needs kernels this engine lacks",
                activation_dtype_name(o->activations));
        err_hint(e, "use int8, bf16, f32 or auto");
        return err_field(e, "activation_dtype");
    }
    static const dtype kv[] = {DT_F16, DT_BF16, DT_F32, DT_INT8, DT_Q8_0, DT_FP8, DT_INT4};
    s = kv_options_check(p, o, kv, sizeof kv / sizeof *kv, "CPU", e);
    if (s != OK || !o->unfused) return s;
    if (p->config.bidirectional || p->config.shape.kv_rank) {
        err_set(e, ERR_UNSUPPORTED,
                p->config.bidirectional
                    ? "attention = unfused is causal, and this model is an encoder"
                    : "attention = unfused reads K and V apart, and this model has one row for "
                      "both");
        err_hint(e, "use attention = fused");
        return err_field(e, "attention");
    }
    if (!kv_type_get(o->kv_k)->word_bytes && !kv_type_get(o->kv_v)->word_bytes) return OK;
    err_set(e, ERR_UNSUPPORTED,
            "attention = unfused computes with a KV cache of f16, bf16 or f32");
    err_hint(e, "use one of these, or attention = fused");
    return err_field(e, "attention");
}

static status check_weights(const program *p, err *e) {
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        const dtype type = w->turned ? w->stored : w->type;
        const uint32_t cols = w->turned ? w->rows : w->cols;
        if (!weight_is_matrix(w) || linear_supports(type, cols)) continue;
        err_set(e, ERR_UNSUPPORTED,
                "tensor %s: the CPU engine has no kernel for type %s with rows of %u", w->name,
                dtype_name(type), cols);
        err_hint(e, "types with kernels: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to "
                    "Q6_K, IQ1_S to IQ4_XS, TQ1_0, TQ2_0, Q1_0, Q2_0, MXFP4, NVFP4");
        return err_field(e, "%s", w->name);
    }
    return OK;
}

static status check_heads(const op *o, err *e) {
    const head_shape split = attn_heads(o), *h = &split;
    if (h->head_dim % 8 || h->n_kv_heads == 0 || h->n_heads % h->n_kv_heads) {
        err_set(e, ERR_UNSUPPORTED,
                "heads of %u (a multiple of 8 is needed), %u query heads for %u of K and V",
                h->head_dim, h->n_heads, h->n_kv_heads);
        return err_field(e, "head_dim");
    }
    if (heads_group(h) > ATTN_MAX_QUERIES) {
        err_set(e, ERR_UNSUPPORTED, "%u query heads share one of K and V; at most %d may",
                heads_group(h), ATTN_MAX_QUERIES);
        return err_field(e, "n_kv_heads");
    }
    return OK;
}

static status check_router(const program *p, const op *o, err *e) {
    const uint32_t n = p->weights[o->w[0]].rows;
    if (o->route.n_groups > ROUTE_MAX_GROUPS) {
        err_set(e, ERR_UNSUPPORTED, "%u groups of experts; at most %d can be",
                o->route.n_groups, ROUTE_MAX_GROUPS);
        return err_field(e, "expert_groups");
    }
    if (n <= ROUTE_MAX_EXPERTS && o->route.top_k >= 1 && o->route.top_k <= n) return OK;
    err_set(e, ERR_UNSUPPORTED, "%u of %u experts are used; at most %d can be", o->route.top_k,
            n, ROUTE_MAX_EXPERTS);
    return err_field(e, "n_experts");
}

static status check_conv(const op *o, err *e) {
    if (o->conv.width >= 1 && o->conv.width <= CONV_MAX_WIDTH) return OK;
    err_set(e, ERR_UNSUPPORTED, "a convolution over %u positions; at most %d are supported",
            o->conv.width, CONV_MAX_WIDTH);
    return err_field(e, "ssm.conv");
}

static status check_delta(const op *o, err *e) {
    const delta_shape *d = &o->delta;
    if (d->key_heads && d->value_heads % d->key_heads == 0 && d->value_dim % 16 == 0 &&
        d->key_dim >= 1 && d->key_dim <= DELTA_MAX_DIM && d->value_dim <= DELTA_MAX_DIM)
        return OK;
    err_set(e, ERR_UNSUPPORTED,
            "a state of %u heads of %u by %u heads of %u; a multiple of 16 up to %d is "
            "supported",
            d->key_heads, d->key_dim, d->value_heads, d->value_dim, DELTA_MAX_DIM);
    return err_field(e, "ssm.state");
}

static status check_program(const program *p, err *e) {
    status s = OK;
    for (uint32_t i = 0; i < p->n_ops && s == OK; i++) {
        const op *o = &p->ops[i];
        if (o->kind == OP_ATTENTION) s = check_heads(o, e);
        if (o->kind == OP_ROUTE) s = check_router(p, o, e);
        if (o->kind == OP_CONV) s = check_conv(o, e);
        if (o->kind == OP_DELTA || o->kind == OP_SSM) s = check_delta(o, e);
    }
    return s == OK ? check_weights(p, e) : s;
}

/* ---- attention ---- */

static uint32_t larger(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

static void find_attention(cpu_layout *l, const program *p) {
    l->rope_dims = program_rope_dims(p);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].kind != OP_ATTENTION) continue;
        const head_shape split = attn_heads(&p->ops[i]), *h = &split;
        const uint32_t partial = partial_floats(attn_dim_pad(attn_value_dim(&p->ops[i])));
        l->max_kv_heads = larger(l->max_kv_heads, h->n_kv_heads);
        l->max_heads = larger(l->max_heads, h->n_heads);
        l->max_group = larger(l->max_group, heads_group(h));
        l->max_head_dim = larger(l->max_head_dim, h->head_dim);
        l->slot_floats = larger(l->slot_floats, h->n_heads * partial);
    }
}

static void find_routers(cpu_layout *l, const program *p) {
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        /* Experts whose router is another engine's are routed to, too. */
        if (o->kind != OP_ROUTE && o->kind != OP_EXPERTS_GATE_UP) continue;
        const bool router = o->kind == OP_ROUTE;
        const weight *w = &p->weights[o->w[0]];
        l->max_experts = larger(l->max_experts, router ? w->rows : w->n_experts);
        l->max_top_k = larger(l->max_top_k, router ? o->route.top_k : p->values[o->out].top_k);
    }
}

static void find_deltas(cpu_layout *l, const program *p) {
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const delta_shape *d = &p->ops[i].delta;
        const op_kind k = p->ops[i].kind;
        if (k != OP_DELTA && k != OP_SSM) continue;
        const uint64_t n = k == OP_SSM ? ssm_scratch_floats(d->key_dim, d->value_dim)
                                       : delta_scratch_floats(d->key_dim, d->value_dim);
        if (n > l->delta_floats) l->delta_floats = n;
    }
}

/* ---- values ---- */

static bool reads_activations(op_kind k) {
    switch (k) {
#define X(kind, run, reads)                                                                    \
    case OP_##kind: return reads;
        CPU_OPS(X)
#undef X
    default: return false; /* OP_N_KINDS */
    }
}

static bool writes_floats(op_kind k) {
    return k == OP_EMBED || k == OP_LINEAR || k == OP_ROUTE || k == OP_EXPERTS_DOWN ||
           k == OP_MUL_SIGMOID || k == OP_DELTA || k == OP_SSM || k == OP_POOL ||
           k == OP_LINEAR_BY_HEAD || k == OP_ALL_GATHER || k == OP_RECV;
}

/* What its readers want of a value, backwards, since gathered rows want what theirs do. */
static void find_forms(cpu_layout *l, const program *p, const engine_options *opt) {
    l->hidden = p->config.bidirectional ? p->ops[p->n_ops - 1].out : NO_VALUE;
    for (uint32_t i = p->n_ops; i-- > 0;) {
        const op *o = &p->ops[i];
        if (o->kind == OP_LOGITS) {
            l->values[o->out].is_logits = true;
            if (opt->hidden) l->hidden = o->in;
        }
        if (o->kind == OP_SAMPLE) l->values[o->in].is_logits = true;
        if (op_appends(o) || (o->kind == OP_ATTENTION && o->attention.latent) ||
            (o->kind == OP_LINEAR_BY_HEAD && l->values[o->out].feeds_rope) ||
            (o->kind == OP_SEND && o->sent.rotated))
            l->values[o->in].feeds_rope = true;
        if (o->residual != NO_VALUE) l->values[o->residual].forms |= FORM_F;
        if (o->by != NO_VALUE) l->values[o->by].forms |= FORM_F;
        if (o->in == NO_VALUE) continue;
        uint8_t *forms = &l->values[o->in].forms;
        if (o->kind == OP_GATHER_ROWS) {
            *forms |= l->values[o->out].forms;
            continue;
        }
        if (!reads_activations(o->kind)) {
            *forms |= FORM_F;
            continue;
        }
        uint8_t codes = l->values[o->out].feeds_rope ? FORM_Q | FORM_REST : FORM_Q;
        for (uint32_t j = 0; j < o->n_weights; j++) {
            const bool q = layout_reads_codes(l, p->weights[o->w[j]].type);
            *forms |= !q ? FORM_F : l->family == ACTIVATION_BF16 ? FORM_Q : codes;
        }
    }
    if (l->hidden != NO_VALUE) l->values[l->hidden].forms |= FORM_F;
    /* Heads whose columns do not fall on blocks of 32 are quantised row by row afterwards. */
    for (uint32_t i = 0; i < p->n_ops; i++) {
        uint8_t *forms = p->ops[i].out == NO_VALUE ? NULL : &l->values[p->ops[i].out].forms;
        if (p->ops[i].kind == OP_ATTENTION && !heads_fill_blocks(&p->ops[i])) *forms |= FORM_F;
        if (writes_floats(p->ops[i].kind)) *forms |= FORM_F;
        if (p->ops[i].kind == OP_ALL_GATHER)
            l->values[p->ops[i].out].is_logits = l->values[p->ops[i].in].is_logits;
    }
}

typedef struct value_bytes {
    uint64_t f, q, all;
} value_bytes;

static value_bytes bytes_of_value(const cpu_layout *l, const program *p,
                                  const engine_options *o, value_id v, sizer *s) {
    const value *val = &p->values[v];
    uint64_t rows = value_rows(val, o->max_rows, o->max_logit_rows);
    sizer own = {0};
    value_bytes b = {0};
    if ((l->values[v].forms & FORM_F) && !l->values[v].is_shared)
        place_n(&own, sizer_times(&own, rows, val->cols), 4);
    b.f = own.n;
    if (l->values[v].forms & FORM_Q)
        place(&own, act_bytes_of(l->family, val->cols, (uint32_t)rows));
    b.q = own.n - b.f;
    if (l->values[v].forms & FORM_REST) place(&own, b.q);
    b.all = own.n;
    s->failed |= own.failed;
    return b;
}

/* The sum of a residual stream may stand where its first summand dies. */
static bool takes_over(const cpu_layout *l, const program *p, uint32_t at, value_id out) {
    const op *o = &p->ops[at];
    const bool one_by_one =
        o->kind == OP_LINEAR || o->kind == OP_NORM || o->kind == OP_MUL_SIGMOID;
    return one_by_one && o->out == out && o->residual != NO_VALUE &&
           l->values[o->residual].last_op == at && l->values[o->residual].forms == FORM_F &&
           l->values[out].forms == FORM_F && !l->values[o->residual].is_shared &&
           !l->values[out].is_shared && p->values[o->residual].rows == p->values[out].rows &&
           p->values[o->residual].cols == p->values[out].cols;
}

static status place_values(cpu_layout *l, const program *p, const engine_options *o, sizer *s,
                           err *e) {
    life *lives = calloc(p->n_values + 1, sizeof *lives);
    if (!lives) return mem_exhausted(e, MEM_RUNTIME, "the layout");
    lives_of_values(p, lives);
    for (uint32_t i = 0; i < p->n_ops && l->experts.n_layers; i++)
        if (p->ops[i].kind == OP_EXPERTS_GATE_UP) /* both are done expert after expert */
            lives[p->ops[i].in].last_op = larger(lives[p->ops[i].in].last_op, i + 1);
    if (l->hidden != NO_VALUE) lives[l->hidden].last_op = p->n_ops; /* read after the step */
    for (uint32_t i = 0; i < p->n_values; i++) {
        l->values[i].first_op = lives[i].first_op;
        l->values[i].last_op = lives[i].last_op;
    }
    for (uint32_t i = 0; i < p->n_ops && !s->failed; i++) {
        value_id v = p->ops[i].out;
        if (v == NO_VALUE || l->values[v].is_logits || lives[v].at != UINT64_MAX) continue;
        if (p->values[v].cols > l->max_cols) l->max_cols = p->values[v].cols;
        value_bytes b = bytes_of_value(l, p, o, v, s);
        if (s->failed) break;
        lives[v].bytes = b.all;
        lives[v].at = takes_over(l, p, i, v) ? lives[p->ops[i].residual].at
                                             : life_first_fit(lives, p->n_values, &lives[v]);
        if (!l->values[v].is_shared) l->values[v].f = lives[v].at;
        l->values[v].q = lives[v].at + b.f;
        l->values[v].rest = l->values[v].q + b.q;
        if (lives[v].at + b.all > l->activations_bytes)
            l->activations_bytes = lives[v].at + b.all;
    }
    free(lives);
    return OK;
}

/* ---- the rest ---- */

/* Each expert is packed as a matrix of its own. */
static uint64_t packed_bytes_of(const weight *w, sizer *s) {
    return sizer_times(s, packed_bytes(w->type, w->rows, w->cols),
                       w->n_experts ? w->n_experts : 1);
}

/* Of all tokens a few are in a step, and a row is read once: memory is better used for the KV cache. */
static void find_table(cpu_layout *l, const program *p) {
    l->table = program_table(p);
    if (l->table == NO_WEIGHT) return;
    const weight *w = &p->weights[l->table];
    uint64_t raw;
    CHECK(dtype_bytes(w->type, TABLE_ROWS, w->cols, &raw)); /* checked when it was recorded */
    l->table_packed_bytes = align_up(packed_bytes(w->type, TABLE_ROWS, w->cols), 64);
    l->table_thread_bytes = l->table_packed_bytes + align_up(raw, 64);
}

expert_parts layout_expert_parts(const program *p, const op *up) {
    const op *down = up + 1;
    expert_parts x = {.n = up->n_weights + 1};
    sizer s = {0};
    CHECK(down->kind == OP_EXPERTS_DOWN && down->in == up->out && down->by == up->by);
    for (uint32_t i = 0; i < x.n; i++) {
        x.w[i] = i + 1 < x.n ? up->w[i] : down->w[0];
        const weight *w = &p->weights[x.w[i]];
        if (!linear_supports(w->type, w->cols)) return (expert_parts){0};
        x.at[i] = place(&s, packed_bytes(w->type, w->rows, w->cols));
    }
    x.n_experts = p->weights[x.w[0]].n_experts;
    x.bytes = s.n;
    return x;
}

uint32_t layout_expert_rows(const weight *w) {
    uint64_t row;
    CHECK(dtype_bytes(w->type, 1, w->cols, &row)); /* checked when it was recorded */
    uint64_t n = EXPERT_PIECE_BYTES / row / 32 * 32;
    if (n < 32) n = 32;
    return n < w->rows ? (uint32_t)n : w->rows;
}

expert_shape layout_experts(const program *p) {
    expert_shape s = {0};
    for (uint32_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].kind != OP_EXPERTS_GATE_UP) continue;
        const expert_parts x = layout_expert_parts(p, &p->ops[i]);
        if (!x.n) return (expert_shape){0};
        s.n_layers++;
        s.n_all += x.n_experts;
        s.n_most = larger(s.n_most, x.n_experts);
        if (x.bytes > s.slot_bytes) s.slot_bytes = x.bytes;
        for (uint32_t k = 0; k < x.n; k++) {
            const weight *w = &p->weights[x.w[k]];
            uint64_t bytes;
            CHECK(dtype_bytes(w->type, layout_expert_rows(w), w->cols, &bytes));
            if (bytes > s.piece_bytes) s.piece_bytes = bytes;
        }
    }
    return s;
}

expert_tables layout_expert_tables(const expert_shape *x, uint32_t n_slots) {
    sizer s = {0};
    expert_tables t;
    t.slots = place(&s, expert_slots_bytes(x->n_layers, x->n_most, n_slots));
    t.state = place_n(&s, n_slots, sizeof(expert_state));
    t.job = place_n(&s, 2ull * n_slots, sizeof(expert_job));
    t.order = place_n(&s, x->n_most, sizeof(uint32_t));
    t.used = place_n(&s, x->n_most, sizeof(uint32_t));
    t.bytes = s.n;
    return t;
}

uint64_t layout_expert_buffer(const expert_shape *x) {
    return direct_buffer_bytes(x->piece_bytes);
}

/* Before anything is placed: what is in slots is not in the arena of weights. */
static status find_experts(cpu_layout *l, const program *p, const engine_options *o, err *e) {
    if (!o->expert_slots) return OK;
    if (p->part.n_ranks > 1) {
        err_set(e, ERR_UNSUPPORTED, "the experts of several ranks are all in memory");
        err_hint(e, "leave out expert_memory, or tensor_parallel_size");
        return err_field(e, "expert_memory");
    }
    l->experts = layout_experts(p);
    if (!l->experts.n_layers || o->expert_slots < 2) {
        err_set(e, ERR_INVALID,
                l->experts.n_layers ? "%u slots for experts; 2 are the least"
                                    : "%u slots for experts, of which the model has none",
                o->expert_slots);
        return err_field(e, "expert_memory");
    }
    for (uint32_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].kind != OP_EXPERTS_GATE_UP) continue;
        const expert_parts x = layout_expert_parts(p, &p->ops[i]);
        for (uint32_t k = 0; k < x.n; k++) l->weights[x.w[k]].in_slots = true;
    }
    return OK;
}

turned_place layout_turned(const weight *w) {
    sizer s = {0};
    turned_place p;
    uint64_t raw, out;
    /* checked when it was recorded */
    CHECK(dtype_bytes(w->stored, TURNED_ROWS, w->rows, &raw));
    CHECK(dtype_bytes(w->type, w->rows, w->cols, &out));
    p.raw = place(&s, raw);
    p.tiles = place(&s, packed_bytes(w->stored, TURNED_ROWS, w->rows));
    p.row = place_n(&s, w->rows, 4);
    p.out = place(&s, out);
    p.bytes = s.n;
    return p;
}

static void place_weights(cpu_layout *l, const program *p, sizer *s) {
    sizer w = {0};
    uint64_t rows32 = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *x = &p->weights[i];
        if (i == l->table || l->weights[i].in_slots) continue;
        uint64_t bytes = weight_is_matrix(x) ? packed_bytes_of(x, &w)
                                             : sizer_times(&w, (uint64_t)x->rows * x->cols, 4);
        l->weights[i].at = place(&w, bytes);
        l->weights[i].bytes = w.n - l->weights[i].at;
        uint64_t row;
        CHECK(dtype_bytes(x->type, 1, x->cols, &row)); /* checked when it was recorded */
        if (weight_is_matrix(x) && row * 32 > rows32) rows32 = row * 32;
        if (x->turned && layout_turned(x).bytes > rows32) rows32 = layout_turned(x).bytes;
    }
    l->weights_bytes = w.n;
    s->failed |= w.failed;
    const uint64_t enough = 256 << 10;
    l->bounce_bytes = align_up(rows32 > enough ? rows32 : enough, 4096);
}

/* Room for the rows that a chunk of an expert's or a head's has, in the forms that its matrices read. */
static void place_gathered(cpu_layout *l, const program *p, sizer *n) {
    uint64_t f = 0, q = 0, rest = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        const bool by_head = o->kind == OP_LINEAR_BY_HEAD;
        if (o->kind != OP_EXPERTS_GATE_UP && !by_head) continue;
        const uint32_t cols = by_head ? p->weights[o->w[0]].cols : p->values[o->in].cols;
        for (uint32_t j = 0; j < o->n_weights; j++) {
            const bool codes = layout_reads_codes(l, p->weights[o->w[j]].type);
            const uint64_t bytes = codes ? act_bytes_of(l->family, cols, GATHER_ROWS)
                                         : (uint64_t)GATHER_ROWS * cols * 4;
            uint64_t *most = codes ? &q : &f;
            if (bytes > *most) *most = bytes;
            if (by_head && codes && l->family == ACTIVATION_INT8 && bytes > rest) rest = bytes;
        }
    }
    l->thread.gather_f = place(n, f);
    l->thread.gather_q = place(n, q);
    l->thread.gather_rest = place(n, rest);
    l->thread.scores = place_n(n, 2ull * l->max_experts, 4);
}

/* An encoder does not, nor does another rank than the first. */
static bool samples(const program *p) {
    return !p->config.bidirectional && layout_rank(p) == 0;
}

static void place_thread(cpu_layout *l, const program *p, sizer *s) {
    const uint64_t dp = attn_dim_pad(l->max_head_dim);
    thread_place *t = &l->thread;
    sizer n = {0};
    t->attn = place(&n, attn_scratch_bytes(l->max_head_dim));
    t->q = place_n(&n, ATTN_MAX_QUERIES * dp, 4);
    t->acc = place_n(&n, ATTN_MAX_QUERIES * dp, 4);
    t->max = place_n(&n, 2 * ATTN_MAX_QUERIES, 4);
    t->out = place_n(&n, ATTN_MAX_QUERIES * dp, 4);
    t->row = place_n(&n, (uint64_t)l->max_cols + 16, 4);
    t->gate = place_n(&n, GATE_FLOATS, 4);
    t->up = place_n(&n, GATE_FLOATS, 4);
    t->sampler = place(&n, samples(p) ? sampling_scratch_bytes(p->config.n_vocab) : 0);
    t->delta = place_n(&n, l->delta_floats, 4);
    place_gathered(l, p, &n);
    t->bytes = align_up(n.n, 4096);
    s->failed |= n.failed;
}

static void place_routing(cpu_layout *l, const engine_options *o, sizer *w) {
    const uint64_t slots = (uint64_t)o->max_rows * l->max_top_k;
    route_place *r = &l->route;
    l->routing = w->n;
    r->logits = place_n(w, (uint64_t)o->max_rows * l->max_experts, 4);
    r->first = place_n(w, l->max_experts ? l->max_experts + 1 : 0, 4);
    r->used = place_n(w, l->max_experts, 4);
    r->row = place_n(w, slots, 4);
    r->weight = place_n(w, slots, 4);
}

/* Of the rows of a step, in float32, in groups of ATTN_LANES tokens. */
static void place_keys(cpu_layout *l, const program *p, const engine_options *o, sizer *w) {
    const kv_type *f32 = kv_type_get(DT_F32);
    if (p->config.bidirectional) {
        kv_format_init(&l->own_kv, KV_LANES, f32, f32, ATTN_LANES, l->max_kv_heads,
                       l->max_head_dim);
        l->n_key_blocks = layout_key_block(l, o->max_rows, o->max_seqs);
    }
    l->keys = place_n(w, l->n_key_blocks, kv_block_bytes(&l->own_kv, 1));
    l->key_blocks = place_n(w, l->n_key_blocks, sizeof(int32_t));
}

static void place_workspace(cpu_layout *l, const program *p, const engine_options *o,
                            sizer *s) {
    uint32_t seqs = o->max_seqs < SPLIT_SEQS ? o->max_seqs : SPLIT_SEQS;
    if (seqs > o->n_threads) seqs = o->n_threads;
    if (o->n_threads == 1 || o->unfused) seqs = 0;
    l->n_splits = (uint32_t)ceil_div(o->max_model_len, ATTN_SPLIT);
    l->n_slots = l->n_splits > 1 ? l->n_splits * seqs : 0;
    l->n_tasks = o->max_rows + l->n_slots;
    sizer w = {0};
    place_n(&w, l->thread.bytes, o->n_threads);
    l->partials = place_n(&w, (uint64_t)l->n_slots, 4 * (uint64_t)l->slot_floats);
    l->partials_done = place_n(&w, (uint64_t)l->n_slots * l->max_kv_heads, sizeof(uint32_t));
    l->freqs = place_n(&w, (uint64_t)p->n_ropes * l->rope_dims, 4);
    l->rope = place_n(&w, (uint64_t)p->n_ropes * o->max_rows * l->rope_dims, 4);
    uint64_t rows = o->max_rows > o->max_logit_rows ? o->max_rows : o->max_logit_rows;
    l->rows = place_n(&w, rows, sizeof(step_row));
    l->tasks = place_n(&w, l->n_tasks, sizeof(attn_task));
    const uint64_t most_drawn = sizer_times(&w, o->max_seqs, 1 + (uint64_t)o->max_draft);
    l->results = place_n(&w, most_drawn + o->max_logit_rows, sizeof(sampled));
    const uint64_t scored = o->unfused ? (uint64_t)o->max_rows * l->max_heads : 0;
    l->scores = place_n(&w, scored, 4 * unfused_row_floats(o->max_model_len));
    place_routing(l, o, &w);
    place_keys(l, p, o, &w);
    l->table_rows = place_n(&w, l->table_thread_bytes, o->n_threads);
    l->workspace_bytes = w.n;
    s->failed |= w.failed;
}

status cpu_layout_init(cpu_layout *l, const program *p, const engine_options *o, err *e) {
    memset(l, 0, sizeof *l);
    status st = check_options(p, o, e);
    if (st == OK) st = check_program(p, e);
    if (st != OK) return st;
    l->family = o->activations == ACTIVATION_AUTO ? ACTIVATION_INT8 : o->activations;
    l->values = calloc(p->n_values + 1, sizeof *l->values);
    l->weights = calloc(p->n_weights + 1, sizeof *l->weights);
    if (!l->values || !l->weights) {
        cpu_layout_clear(l);
        return mem_exhausted(e, MEM_RUNTIME, "the layout");
    }
    sizer s = {0};
    find_attention(l, p);
    find_routers(l, p);
    find_deltas(l, p);
    find_table(l, p);
    find_forms(l, p, o);
    st = find_experts(l, p, o, e);
    if (st == OK && layout_is_shared(p)) st = layout_shared(l, p, o, &s, e);
    if (st == OK) st = place_values(l, p, o, &s, e);
    place_weights(l, p, &s);
    place_thread(l, p, &s);
    place_workspace(l, p, o, &s);
    l->n_states = engine_states(p, o);
    l->state_floats = program_state_bytes(p) / sizeof(float);
    l->groups = kv_groups_of(p, o);
    kv_formats_init(l->kv, KV_LANES, &l->groups, o);
    const uint32_t n_vocab = p->config.bidirectional ? 0 : p->config.n_vocab;
    l->kept_at = sizer_times(&s, sizer_times(&s, o->max_logit_rows, n_vocab), 4);
    l->logits_bytes = sizer_times(&s, l->kept_at, o->keep_logits ? 2 : 1);
    if (l->shared.n_ranks) {
        l->shared.logits_bytes = l->kept_at;
        l->logits_bytes -= l->kept_at;
        l->kept_at = 0;
        s.failed |= group_lay(&l->shared).bytes == 0;
    }
    if (st == OK && s.failed)
        st = err_set(e, ERR_INVALID, "the model and the options require more than 2^64 bytes");
    if (st != OK) cpu_layout_clear(l);
    return st;
}

void cpu_layout_clear(cpu_layout *l) {
    free(l->values);
    free(l->weights);
    l->values = NULL;
    l->weights = NULL;
}

/* ---- terms ---- */

static void weight_terms(const cpu_layout *l, const program *p, terms *t) {
    const size_t first = t->n;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        if (i == l->table || l->weights[i].in_slots) continue;
        const char *type = w->role == WEIGHT_VECTOR ? "F32" : dtype_name(w->type);
        weight_term_add(t, first, w, type, l->weights[i].bytes);
    }
}

/* The group's memory, counted as of group_share. */
static void shared_terms(const cpu_layout *l, const program *p, const engine_options *o,
                         terms *t) {
    const group_shape *all = &l->shared;
    const uint32_t rank = layout_rank(p), n = all->n_ranks;
    if (!n) return;
    const char *of = all->by_messages ? "as" : "shared by",
               *by = all->by_messages ? " have it" : "";
    if (p->part.rank == 0 || all->by_messages)
        terms_add(t, MEM_ACTIVATIONS, TERM_EXACT, group_share(all, rank, MEM_ACTIVATIONS),
                  "%s %u ranks%s: values of %u rows", of, n, by, o->max_rows);
    if (rank > 0)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, follow_bytes(p, o, l->groups.n),
                  "a step as it was read");
    if (rank == 0 || all->by_messages)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, group_share(all, rank, MEM_WORKSPACE),
                  "%s %u ranks%s: the step%s", of, n, by, all->by_messages ? ", messages" : "");
    if (group_share(all, rank, MEM_LOGITS))
        terms_add(t, MEM_LOGITS, TERM_EXACT, group_share(all, rank, MEM_LOGITS),
                  "%s %u ranks%s: %u rows of %u", of, n, by, o->max_logit_rows,
                  p->config.n_vocab);
}

static void expert_terms(const cpu_layout *l, const engine_options *o, terms *t) {
    const expert_shape *x = &l->experts;
    if (!x->n_layers) return;
    terms_add(t, MEM_EXPERTS, TERM_EXACT, o->expert_slots * x->slot_bytes,
              "slots for %u of %u experts, %llu bytes each", o->expert_slots, x->n_all,
              (unsigned long long)x->slot_bytes);
    terms_add(t, MEM_EXPERTS, TERM_EXACT, layout_expert_tables(x, o->expert_slots).bytes,
              "which experts are where");
    terms_add(t, MEM_EXPERTS, TERM_EXACT, EXPERT_READERS * layout_expert_buffer(x),
              "buffers of %d threads that read experts", EXPERT_READERS);
}

void cpu_layout_terms(const cpu_layout *l, const program *p, const engine_options *o,
                      terms *t) {
    weight_terms(l, p, t);
    expert_terms(l, o, t);
    state_term_add(t, p, o);
    shared_terms(l, p, o, t);
    terms_add(t, MEM_ACTIVATIONS, TERM_EXACT, l->activations_bytes, "values of %u rows",
              o->max_rows);
    if (l->kept_at)
        terms_add(t, MEM_LOGITS, TERM_EXACT, l->kept_at, "%u rows of %u", o->max_logit_rows,
                  p->config.n_vocab);
    if (l->logits_bytes && o->keep_logits)
        terms_add(t, MEM_LOGITS, TERM_EXACT, l->logits_bytes - l->kept_at,
                  "the same rows as they were before sampling");
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->partials, "scratch of %u threads", o->n_threads);
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->freqs - l->partials,
              "attention of split sequences");
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->scores - l->freqs,
              "rotary angles, tasks and results of a step");
    if (o->unfused)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->routing - l->scores,
                  "scores of %u rows x %u heads x %u tokens (attention = unfused)", o->max_rows,
                  l->max_heads, o->max_model_len);
    if (l->max_experts)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->keys - l->routing,
                  "routing of %u rows to %u of %u experts", o->max_rows, l->max_top_k,
                  l->max_experts);
    if (l->n_key_blocks)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->table_rows - l->keys,
                  "keys and values of %u rows in one layer", o->max_rows);
    if (l->table != NO_WEIGHT)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->workspace_bytes - l->table_rows,
                  "rows of %s, which stays in the file", p->weights[l->table].name);
    terms_add(t, MEM_LOADING, TERM_EXACT, l->bounce_bytes * o->n_threads,
              "buffers of %u reading threads", o->n_threads);
    terms_last_while_loading(t);
}
