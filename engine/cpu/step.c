/* One step: the operations of the program in order, each shared out over the team, a barrier
 * after each. What can be done by the thread that has it in hand is fused: norm with the
 * quantising of its row, gate and up with the activation and its quantising, rotation and the
 * cache's new entry with attention, attention with the quantising of its heads.
 *
 * Runs on the engine thread and the workers. Which thread computes what is free to change: no
 * result depends on it (docs/numerics.md). */
#include "engine/cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "engine/cpu/linear_tiles.h"
#include "engine/cpu/rope.h"

enum { REST_OUTS = 64, ALONE_LEAST = 4, ALONE_MOST = 64 };

typedef struct span {
    uint32_t from, to;
} span;

/* Thread's part of n things: one contiguous run, whole groups of 8 when there are many. */
static span share(uint32_t n, uint32_t threads, uint32_t thread) {
    uint32_t unit = n >= 16 * threads ? ACT_GROUP : 1;
    uint64_t units = ceil_div(n, unit);
    uint64_t a = units * thread / threads * unit, b = units * (thread + 1) / threads * unit;
    return (span){a < n ? (uint32_t)a : n, b < n ? (uint32_t)b : n};
}

static uint32_t rows_of(const cpu_engine *e, value_id v) {
    const batch *b = e->step.batch;
    return e->program->values[v].rows == ROWS_GATHERED ? b->n_logit_rows : b->n_rows;
}

static float *value_f(const cpu_engine *e, value_id v) {
    const value_place *p = &e->layout.values[v];
    if (p->is_logits) return e->logits;
    return p->forms & FORM_F ? (float *)(e->activations + p->f) : NULL;
}

static act value_act(const cpu_engine *e, value_id v) {
    const value_place *p = &e->layout.values[v];
    return (act){.family = e->layout.family,
                 .n_in = e->program->values[v].cols,
                 .n_rows = rows_of(e, v),
                 .f = value_f(e, v),
                 .q = p->forms & FORM_Q ? e->activations + p->q : NULL};
}

/* Quantises inputs [k0, k0 + n) of a row: a view of that part of its group as an act. */
static void quantise_part(const cpu_engine *e, const act *a, uint32_t row, uint32_t k0,
                          uint32_t n, const float *x) {
    act part = {.family = a->family, .n_in = n, .n_rows = ACT_GROUP};
    part.q = act_group(a, row) + k0 / 32;
    e->linear->quantise(x, &part, row % ACT_GROUP);
}

/* The second plane of codes; q is NULL where there is none. */
static act value_rest(const cpu_engine *e, value_id v) {
    const value_place *p = &e->layout.values[v];
    act a = value_act(e, v);
    a.f = NULL;
    a.q = p->forms & FORM_REST ? e->activations + p->rest : NULL;
    return a;
}

/* Quantises row r of a value whose codes are in a, and what that lost into rest. */
static void quantise_row(const cpu_engine *e, const act *a, const act *rest, uint32_t r,
                         const float *x, uint32_t thread) {
    if (!a->q) return;
    e->linear->quantise(x, a, r);
    if (!rest->q) return;
    float *left = thread_at(e, thread, e->layout.thread.out);
    for (uint32_t k = 0; k < a->n_in; k += 32) {
        const act_block *b = act_group(a, r) + k / 32;
        e->ops->rest(x + k, b->q[r % ACT_GROUP], b->d[r % ACT_GROUP], left);
        quantise_part(e, rest, r, k, 32, left);
    }
}

/* ---- rows ---- */

static void run_embed(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const uint32_t cols = e->program->values[o->out].cols;
    const uint32_t n_dims = e->program->config.rope.n_dims;
    float *x = value_f(e, o->out);
    span s = share(e->step.batch->n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *row = x + (size_t)r * cols;
        packed_row(&c->part[0], (uint32_t)e->step.rows[r].token, row);
        if (o->embed.scale != 1)
            for (uint32_t i = 0; i < cols; i++) row[i] *= o->embed.scale;
        for (uint32_t t = 0; t < e->program->n_ropes; t++)
            rope_angles(cpu_freqs(e, t), n_dims, e->rope_scale[t], e->step.rows[r].pos,
                        cpu_angles(e, t, r));
    }
}

static void run_norm(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const act out = value_act(e, o->out), rest = value_rest(e, o->out);
    const float *x = value_f(e, o->in);
    const float *residual = o->residual == NO_VALUE ? NULL : value_f(e, o->residual);
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    span s = share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *to = out.f ? out.f + (size_t)r * out.n_in : tmp, *y = residual ? tmp : to;
        e->ops->norm(x + (size_t)r * out.n_in, c->vec[0], out.n_in, o->norm.eps, y);
        /* The sum may stand where its first summand does. */
        for (uint32_t i = 0; residual && i < out.n_in; i++)
            to[i] = residual[(size_t)r * out.n_in + i] + y[i];
        quantise_row(e, &out, &rest, r, to, thread);
    }
}

/* Norms of each head of q and of k, in place. */
static void run_head_norm(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const model_config *m = &e->program->config;
    const uint32_t hd = m->head_dim, cols = (m->n_heads + 2 * m->n_kv_heads) * hd;
    float *qkv = value_f(e, c->op->out);
    span s = share(e->step.batch->n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++)
        for (uint32_t h = 0; h < m->n_heads + m->n_kv_heads; h++) {
            float *x = qkv + (size_t)r * cols + (size_t)h * hd;
            e->ops->norm(x, c->vec[h >= m->n_heads], hd, c->op->norm.eps, x);
        }
}

static void gather_codes(const act *in, uint32_t from, const act *out, uint32_t to) {
    const uint32_t i = from % ACT_GROUP, j = to % ACT_GROUP;
    for (uint32_t k = 0; k < in->n_in / 32; k++) {
        const act_block *a = act_group(in, from) + k;
        act_block *b = act_group(out, to) + k;
        memcpy(b->q[j], a->q[i], sizeof b->q[j]);
        b->d[j] = a->d[i], b->s[j] = a->s[i], b->neg8[j] = a->neg8[i];
        memcpy(b->half[j], a->half[i], sizeof b->half[j]);
    }
}

static void run_gather(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act in = value_act(e, c->op->in), out = value_act(e, c->op->out);
    span s = share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        uint32_t from = e->step.rows[r].gathered;
        if (out.f)
            memcpy(out.f + (size_t)r * out.n_in, in.f + (size_t)from * in.n_in,
                   sizeof(float) * in.n_in);
        if (out.q) gather_codes(&in, from, &out, r);
    }
}

/* ---- matrices ---- */

/* One matrix of an operation: outputs [o.from, o.to) of rows [r.from, r.to). */
typedef struct linear_call {
    const packed *w;
    act in, rest;
    const float *bias, *residual;
    float *y;
    uint32_t ld;
} linear_call;

static void call_linear(const cpu_engine *e, const linear_call *c, span r, span o) {
    e->linear->linear(c->w, &c->in, r.from, r.to, o.from, o.to, c->bias, c->residual, c->ld,
                      c->y, c->ld);
    if (!c->rest.q || !linear_wants_int8(c->w->type)) return;
    e->linear->linear(c->w, &c->rest, r.from, r.to, o.from, o.to, NULL, c->y, c->ld, c->y,
                      c->ld);
}

static void run_linear(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const uint32_t cols = e->program->values[o->out].cols;
    const float *residual = o->residual == NO_VALUE ? NULL : value_f(e, o->residual);
    linear_call call = {.in = value_act(e, o->in), .rest = value_rest(e, o->in), .ld = cols};
    for (uint32_t i = 0; i < c->n_parts; i++) {
        const uint32_t col = c->first_col[i], n_out = c->part[i].n_out;
        span rows, outs;
        linear_share(call.in.n_rows, n_out, e->step.n_threads, thread, &rows.from, &rows.to,
                     &outs.from, &outs.to);
        call.w = &c->part[i];
        call.bias = c->bias[i];
        call.residual = residual ? residual + col : NULL;
        call.y = value_f(e, o->out) + col;
        /* The second plane of few rows finds the weights in the first cache. */
        uint32_t step = call.rest.q && call.in.n_rows <= 32 ? REST_OUTS : n_out;
        for (uint32_t at = outs.from; at < outs.to; at += step)
            call_linear(e, &call, rows, (span){at, outs.to - at < step ? outs.to : at + step});
    }
}

/* act(gate) * up of rows [r0, r1) and columns [o0, o1), through the thread's buffers. */
static void gate_up_chunk(cpu_engine *e, const cpu_op *c, const act *in, const act *out,
                          uint32_t thread, span r, span o) {
    float *gate = thread_at(e, thread, e->layout.thread.gate);
    float *up = thread_at(e, thread, e->layout.thread.up);
    const uint32_t n = o.to - o.from;
    float *y[2] = {gate, up};
    /* Views of the rows (whole groups) and of the strips, so that both begin at 0. */
    act rows = *in;
    rows.n_rows = r.to - r.from;
    if (rows.f) rows.f += (size_t)r.from * in->n_in;
    if (rows.q) rows.q = act_group(in, r.from);
    for (uint32_t i = 0; i < 2; i++) {
        packed w = c->part[i];
        w.tiles = strip_at(&w, o.from);
        w.n_out = n;
        const float *bias = c->bias[i] ? c->bias[i] + o.from : NULL;
        e->linear->linear(&w, &rows, 0, rows.n_rows, 0, n, bias, NULL, 0, y[i], n);
    }
    for (uint32_t k = r.from; k < r.to; k++) {
        float *g = gate + (size_t)(k - r.from) * n, *u = up + (size_t)(k - r.from) * n;
        float *to = out->f ? out->f + (size_t)k * out->n_in + o.from : g;
        e->ops->gate(c->op->gate_up.act, g, u, n, to);
        if (out->q) quantise_part(e, out, k, o.from, n, to);
    }
}

static void run_gate_up(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act in = value_act(e, c->op->in), out = value_act(e, c->op->out);
    const uint32_t n_ff = out.n_in;
    uint32_t row0, row1, half0, half1;
    /* Shares of half the columns, twice: whole blocks of 32. */
    linear_share(in.n_rows, (uint32_t)ceil_div(n_ff, 2), e->step.n_threads, thread, &row0,
                 &row1, &half0, &half1);
    uint32_t out0 = 2 * half0 < n_ff ? 2 * half0 : n_ff;
    uint32_t out1 = 2 * half1 < n_ff ? 2 * half1 : n_ff;
    for (uint32_t r = row0; r < row1; r += GATE_ROWS) {
        span rows = {r, row1 - r < GATE_ROWS ? row1 : r + GATE_ROWS};
        uint32_t wide = GATE_FLOATS / (rows.to - rows.from) / 32 * 32;
        for (uint32_t o = out0; o < out1; o += wide) {
            span outs = {o, out1 - o < wide ? out1 : o + wide};
            gate_up_chunk(e, c, &in, &out, thread, rows, outs);
        }
    }
}

/* ---- attention ---- */

static kv_head head_of(const cpu_engine *e, const op *o, const batch_seq *s, uint32_t h) {
    const program *p = e->program;
    const model_config *c = &p->config;
    const uint32_t g = p->layer_group[o->layer], layer = p->layer_index[o->layer];
    const uint64_t block = e->layout.kv_block_bytes[g], head = block / c->n_kv_heads;
    return (kv_head){.base = e->kv[g] + (uint64_t)layer * e->opt.n_blocks[g] * block + h * head,
                     .block_stride = block,
                     .blocks = s->blocks[g],
                     .block_tokens = e->opt.block_tokens,
                     .head_dim = c->head_dim,
                     .dim_pad = attn_dim_pad(c->head_dim),
                     .type = e->opt.kv};
}

/* Puts k and v of one row and head into the cache. tmp: [dim_pad] */
static void append_row(const cpu_engine *e, const cpu_op *o, const kv_head *kv,
                       const float *qkv, uint32_t row, uint32_t h, float *tmp) {
    const model_config *c = &e->program->config;
    const uint32_t hd = c->head_dim;
    const float *k = qkv + (size_t)row * (c->n_heads + 2 * c->n_kv_heads) * hd;
    k += (size_t)(c->n_heads + h) * hd;
    e->ops->rope(k, cpu_angles(e, o->rope, row), hd, c->rope.n_dims, c->rope.pairing, 1.0f,
                 tmp);
    e->ops->kv_append(kv, e->step.rows[row].pos, tmp, k + (size_t)c->n_kv_heads * hd);
}

/* Only for parts of several rows: a lone row is appended by the task that needs it. */
static void run_append(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const batch *b = e->step.batch;
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    const float *qkv = value_f(e, c->op->in);
    span s = share(b->n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        const batch_seq *q = &b->seq[e->step.rows[r].seq];
        if (q->n_rows == 1) continue;
        for (uint32_t h = 0; h < e->program->config.n_kv_heads; h++) {
            kv_head kv = head_of(e, c->op, q, h);
            append_row(e, c, &kv, qkv, r, h, tmp);
        }
    }
}

/* From accumulators to what the next layer reads: heads of one row, group * head_dim wide. */
static void put_heads(cpu_engine *e, const act *out, uint32_t thread, uint32_t row, uint32_t h,
                      const float *sum, const float *acc) {
    const model_config *c = &e->program->config;
    const uint32_t hd = c->head_dim, dp = attn_dim_pad(hd), group = c->n_heads / c->n_kv_heads;
    const uint32_t col = h * group * hd;
    float *to = out->f ? out->f + (size_t)row * out->n_in + col
                       : thread_at(e, thread, e->layout.thread.out);
    for (uint32_t g = 0; g < group; g++)
        e->ops->attn_finish(sum[g], acc + (size_t)g * dp, hd, to + (size_t)g * hd);
    if (out->q && group * hd % 32 == 0) quantise_part(e, out, row, col, group * hd, to);
}

/* A partial result is in its slot; who brings the last one joins them, in order of position. */
static void join_splits(cpu_engine *e, const act *out, const attn_task *t, uint32_t thread,
                        uint32_t h) {
    const model_config *c = &e->program->config;
    const uint32_t group = c->n_heads / c->n_kv_heads, dp = attn_dim_pad(c->head_dim);
    atomic_uint *done = (atomic_uint *)(e->workspace + e->layout.partials_done);
    if ((atomic_fetch_add(&done[t->done * c->n_kv_heads + h], 1) + 1) % t->n_splits) return;
    uint32_t first = (uint32_t)t->slot - t->from / ATTN_SPLIT;
    float *max = thread_at(e, thread, e->layout.thread.max), *sum = max + ATTN_MAX_QUERIES;
    float *acc = thread_at(e, thread, e->layout.thread.acc);
    for (uint32_t g = 0; g < group; g++) max[g] = -INFINITY;
    for (uint32_t k = 0; k < t->n_splits; k++) {
        const float *p = (const float *)(e->workspace + e->layout.partials) +
                         ((size_t)(first + k) * c->n_kv_heads + h) * e->layout.slot_floats;
        for (uint32_t g = 0; g < group; g++)
            e->ops->attn_merge(max + g, sum + g, acc + (size_t)g * dp, p[g], p[group + g],
                               p + 2 * group + (size_t)g * dp, dp);
    }
    put_heads(e, out, thread, t->first_row, h, sum, acc);
}

static void attend_task(cpu_engine *e, const cpu_op *c, const act *out, const attn_task *t,
                        uint32_t h, uint32_t thread) {
    const model_config *m = &e->program->config;
    const uint32_t hd = m->head_dim, dp = attn_dim_pad(hd), group = m->n_heads / m->n_kv_heads;
    const batch_seq *s = &e->step.batch->seq[t->seq];
    const kv_head kv = head_of(e, c->op, s, h);
    const float *qkv = value_f(e, c->op->in);
    const thread_place *at = &e->layout.thread;
    float *q = thread_at(e, thread, at->q), *max = thread_at(e, thread, at->max);
    attn_part part = {.q = q,
                      .n_rows = t->n_rows,
                      .group = group,
                      .first_pos = e->step.rows[t->first_row].pos,
                      .window = c->op->attention.window,
                      .from = t->from,
                      .to = t->to,
                      .max = max,
                      .sum = max + ATTN_MAX_QUERIES,
                      .acc = thread_at(e, thread, at->acc),
                      .scratch = thread_at(e, thread, at->attn)};
    /* Splits before the window see nothing and give an empty result. */
    const uint32_t seen =
        part.window && part.first_pos >= part.window ? part.first_pos + 1 - part.window : 0;
    for (uint32_t i = 0; i < t->n_rows * group && t->to > seen; i++) {
        uint32_t row = t->first_row + i / group;
        const float *x = qkv + (size_t)row * (m->n_heads + 2 * m->n_kv_heads) * hd;
        e->ops->rope(x + (size_t)(h * group + i % group) * hd, cpu_angles(e, c->rope, row), hd,
                     m->rope.n_dims, m->rope.pairing, c->op->attention.scale * LOG2_E,
                     q + (size_t)i * hd);
    }
    if (s->n_rows == 1 && t->to == s->first_pos + 1)
        append_row(e, c, &kv, qkv, t->first_row, h, thread_at(e, thread, at->row));
    if (t->slot >= 0) {
        part.max = (float *)(e->workspace + e->layout.partials) +
                   ((size_t)t->slot * m->n_kv_heads + h) * e->layout.slot_floats;
        part.sum = part.max + group;
        part.acc = part.sum + group;
    }
    e->ops->attend(&kv, &part);
    if (t->slot >= 0) {
        join_splits(e, out, t, thread, h);
        return;
    }
    for (uint32_t r = 0; r < t->n_rows; r++)
        put_heads(e, out, thread, t->first_row + r, h, part.sum + r * group,
                  part.acc + (size_t)r * group * dp);
}

static void run_attention(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const uint32_t n_kv = e->program->config.n_kv_heads, n = e->step.n_tasks * n_kv;
    const act out = value_act(e, c->op->out);
    uint32_t take = n / (16 * e->step.n_threads);
    if (take == 0) take = 1;
    for (uint32_t i = team_next(e->team, take); i < n; i = team_next(e->team, take))
        for (uint32_t k = i; k < n && k < i + take; k++)
            attend_task(e, c, &out, &e->step.tasks[k / n_kv], k % n_kv, thread);
    if (!out.q || e->program->config.n_heads / n_kv * e->program->config.head_dim % 32 == 0)
        return;
    team_barrier(e->team, thread); /* heads that do not fall on blocks of 32 */
    span s = share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++)
        e->linear->quantise(out.f + (size_t)r * out.n_in, &out, r);
}

/* ---- sampling ---- */

static void sample_row(cpu_engine *e, uint32_t gathered, float *logits, void *scratch) {
    const step_row *row = &e->step.rows[e->step.rows[gathered].gathered];
    const batch_seq *s = &e->step.batch->seq[row->seq];
    const uint32_t n_vocab = e->program->config.n_vocab, next = row->pos + 1;
    if (e->kept) memcpy(e->kept + (size_t)gathered * n_vocab, logits, sizeof(float) * n_vocab);
    if (s->n_score >= 0 && next < s->n_prompt)
        sampling_score(&e->scored[gathered], logits, n_vocab, s->tokens[next], s->n_score,
                       scratch);
    if (!s->sample || next != s->first_pos + s->n_rows) return;
    /* A token that the previous step produced is not in the history yet. */
    sampling_history h = {s->tokens, s->input_from >= 0 ? row->pos : next, s->n_prompt};
    sampling_draw(&e->token[row->seq], logits, n_vocab, s->params, s->allowed, &h, next,
                  scratch);
}

static void run_sample(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const uint32_t n = e->step.batch->n_logit_rows;
    float *logits = value_f(e, c->op->in);
    void *scratch = thread_at(e, thread, e->layout.thread.sampler);
    for (uint32_t i = team_next(e->team, 1); i < n; i = team_next(e->team, 1))
        sample_row(e, i, logits + (size_t)i * e->program->config.n_vocab, scratch);
}

/* ---- the step ---- */

static void run_copies(cpu_engine *e, uint32_t thread) {
    const batch *b = e->step.batch;
    for (uint32_t i = 0; i < b->n_copies; i++) {
        const block_copy *c = &b->copies[i];
        const uint64_t bytes = e->layout.kv_block_bytes[c->group];
        for (uint32_t l = thread; l < e->program->group[c->group].n_layers;
             l += e->step.n_threads) {
            unsigned char *at =
                e->kv[c->group] + (uint64_t)l * e->opt.n_blocks[c->group] * bytes;
            memmove(at + (uint32_t)c->to * bytes, at + (uint32_t)c->from * bytes, bytes);
        }
    }
    if (b->n_copies) team_barrier(e->team, thread);
}

static void run_op(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    switch (c->op->kind) {
    case OP_EMBED: run_embed(e, c, thread); break;
    case OP_NORM: run_norm(e, c, thread); break;
    case OP_LINEAR:
    case OP_LOGITS: run_linear(e, c, thread); break;
    case OP_HEAD_NORM: run_head_norm(e, c, thread); break;
    case OP_ROPE_APPEND: run_append(e, c, thread); break;
    case OP_ATTENTION: run_attention(e, c, thread); break;
    case OP_GATE_UP: run_gate_up(e, c, thread); break;
    case OP_GATHER_ROWS: run_gather(e, c, thread); break;
    case OP_SAMPLE: run_sample(e, c, thread); break;
    default: CHECK(!"an operation that cpu_open let through");
    }
}

static void step_thread(void *arg, uint32_t thread) {
    cpu_engine *e = arg;
    run_copies(e, thread);
    for (uint32_t i = 0; i < e->program->n_ops; i++) {
        if (e->op[i].op->kind == OP_ROPE_APPEND && !e->step.prefill) continue;
        run_op(e, &e->op[i], thread);
        team_barrier(e->team, thread);
    }
}

/* Where others want the processors too, a team waits for members that are not running, and one
 * thread can be faster than all of them: it would take n times what this one worked. Then the
 * next steps run alone, twice as many each time that a trial of all fails. */
static void judge_team(cpu_engine *e, uint64_t took_us) {
    uint64_t waited = team_waited_ns(e->team) / 1000;
    if (waited > took_us) waited = took_us;
    if ((took_us - waited) * e->opt.n_threads >= took_us) {
        e->alone_next = 0;
        return;
    }
    e->alone_left = e->alone_next ? e->alone_next : ALONE_LEAST;
    e->alone_next = e->alone_left < ALONE_MOST ? e->alone_left * 2 : ALONE_MOST;
}

void cpu_step_run(cpu_engine *e) {
    if (e->opt.n_threads == 1 || e->alone_left) {
        e->step.n_threads = 1;
        if (e->alone_left) e->alone_left--;
        team_run_alone(e->team, step_thread, e);
        return;
    }
    uint64_t start = clock_us();
    e->step.n_threads = e->opt.n_threads;
    team_run(e->team, step_thread, e);
    judge_team(e, clock_us() - start);
}
