/* Attention: keys and values into the cache, then the tasks that plan_step.c cut, each with the
 * rotation of its queries and, of a lone row, its new entry of the cache (where one row is K and V of all
 * heads, those of all rows before the tasks); partial results of split sequences are joined by the thread
 * that brings the last of them. All threads of the step. */
#include "engine/cpu/step.h"

#include <math.h>

/* Of an encoder's step. */
static kv_head own_head(const cpu_engine *e, const batch_seq *s, uint32_t h) {
    const cpu_layout *l = &e->layout;
    const uint32_t seq = (uint32_t)(s - e->step.batch->seq);
    const int32_t *blocks = (const int32_t *)(e->workspace + l->key_blocks);
    return (kv_head){.base = e->workspace + l->keys + kv_part_at(&l->own_kv, 0, h),
                     .block_stride = kv_block_bytes(&l->own_kv, 1),
                     .blocks = blocks + layout_key_block(l, s->first_row, seq),
                     .format = &l->own_kv};
}

/* How the K and V of an operation's layer are stored. */
static const kv_format *format_of(const cpu_engine *e, const op *o) {
    return e->program->config.bidirectional ? &e->layout.own_kv
                                            : &e->layout.kv[e->program->layer_group[o->layer]];
}

/* group: of the layer, or behind it the tail's. */
static kv_head head_in(const cpu_engine *e, const op *o, const batch_seq *s, uint32_t group,
                       uint32_t h) {
    const program *p = e->program;
    if (p->config.bidirectional) return own_head(e, s, h);
    const uint32_t g = p->layer_group[o->layer] + group;
    const kv_format *f = &e->layout.kv[g];
    return (kv_head){.base = e->kv[g] + kv_part_at(f, p->layer_index[o->layer], h),
                     .block_stride = cpu_block_bytes(&e->layout, g),
                     .blocks = s->blocks[g],
                     .format = f};
}

static kv_head head_of(const cpu_engine *e, const op *o, const batch_seq *s, uint32_t h) {
    return head_in(e, o, s, 0, h);
}

/* One head of a row, rotated from column `from` on, and times scale. */
static void rotate_from(const cpu_engine *e, const cpu_op *c, const float *x, uint32_t from,
                        uint32_t row, float scale, float *out) {
    const rope_config *r = &e->program->rope[c->rope];
    const float *angles = cpu_angles(e, c->rope, row);
    if (from) e->ops->rope(x, angles, from, 0, r->pairing, scale, out);
    e->ops->rope(x + from, angles, c->op->heads.head_dim - from, r->n_dims, r->pairing, scale,
                 out + from);
}

static void rotate(const cpu_engine *e, const cpu_op *c, const float *x, uint32_t row,
                   float scale, float *out) {
    rotate_from(e, c, x, 0, row, scale, out);
}

/* A token into the cache, and into the tail where there is one. v: NULL where it is in k */
static void append(const cpu_engine *e, const op *o, const batch_seq *q, uint32_t pos,
                   uint32_t h, const float *k, const float *v) {
    const uint32_t tail_at = e->layout.groups.tail_at;
    const kv_head kv = head_of(e, o, q, h);
    e->ops->kv_append(&kv, pos, k, v);
    if (!tail_at) return;
    const kv_head tail = head_in(e, o, q, tail_at, h);
    e->ops->kv_append(&tail, pos, k, v);
}

/* Puts k and v of one row and head into the cache. tmp: [dim_pad] */
static void append_row(const cpu_engine *e, const cpu_op *c, const batch_seq *q,
                       const float *qkv, uint32_t row, uint32_t h, float *tmp) {
    const head_shape *s = &c->op->heads;
    const float *k = qkv + (size_t)row * heads_cols(s);
    k += (size_t)(s->n_heads + h) * s->head_dim;
    const float *v = k + (size_t)s->n_kv_heads * s->head_dim;
    rotate(e, c, k, row, 1.0f, tmp);
    append(e, c->op, q, e->step.rows[row].pos, h, tmp, v);
}

/* Only for parts of several rows: a lone row is appended by the task that needs it. */
void run_append(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const batch *b = e->step.batch;
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    const float *qkv = value_f(e, c->op->in);
    span s = step_share(b->n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        const batch_seq *q = &b->seq[e->step.rows[r].seq];
        if (q->n_rows == 1) continue;
        for (uint32_t h = 0; h < c->op->heads.n_kv_heads; h++)
            append_row(e, c, q, qkv, r, h, tmp);
    }
}

/* All rows: several tasks read one. */
void run_latent_append(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const batch *b = e->step.batch;
    const uint32_t n = e->program->weights[o->w[0]].cols, cols = o->heads.head_dim;
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    float *x = value_f(e, o->in);
    const span s = step_share(b->n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *row = x + (size_t)r * cols;
        e->ops->norm(row, c->vec[0], n, o->rope.eps, row);
        rotate_from(e, c, row, n, r, 1.0f, tmp);
        append(e, o, &b->seq[e->step.rows[r].seq], e->step.rows[r].pos, 0, tmp, NULL);
    }
}

/* The output of one head; where V was turned, turned back: H / n, whose division goes with that
 * by the sum. */
static void finish_head(const cpu_engine *e, const op *o, float sum, const float *acc,
                        float *out) {
    const kv_format *f = format_of(e, o);
    const uint32_t hd = attn_value_dim(o);
    e->ops->attn_finish(f->v.rotated ? sum * (float)f->v_segment : sum, acc, hd, out);
    if (f->v.rotated) e->ops->hadamard(out, hd, f->v_segment);
}

/* From accumulators to what the next layer reads: outputs of one row, of a group of heads. */
static void put_heads(cpu_engine *e, const cpu_op *c, const act *out, uint32_t thread,
                      uint32_t row, uint32_t h, const float *sum, const float *acc) {
    const head_shape s = attn_heads(c->op);
    const uint32_t hd = attn_value_dim(c->op), dp = attn_dim_pad(hd), group = heads_group(&s);
    const uint32_t col = h * group * hd;
    float *to = out->f ? out->f + (size_t)row * out->n_in + c->op->first_col + col
                       : thread_at(e, thread, e->layout.thread.out);
    for (uint32_t g = 0; g < group; g++)
        finish_head(e, c->op, sum[g], acc + (size_t)g * dp, to + (size_t)g * hd);
    if (out->q && heads_fill_blocks(c->op)) quantise_part(e, out, row, col, group * hd, to);
}

/* ---- partial results ---- */

/* Of the query heads of KV head h in a slot. */
static partial partial_at(const cpu_engine *e, const op *o, uint32_t slot, uint32_t h) {
    const head_shape s = attn_heads(o);
    const uint32_t group = heads_group(&s);
    float *at = (float *)(e->workspace + e->layout.partials);
    at += (size_t)slot * e->layout.slot_floats;
    at += (size_t)h * group * partial_floats(attn_dim_pad(attn_value_dim(o)));
    return (partial){at, at + group, at + 2 * group};
}

/* A thread's own, of ATTN_MAX_QUERIES. */
static partial partial_of_thread(const cpu_engine *e, uint32_t thread) {
    float *max = thread_at(e, thread, e->layout.thread.max);
    return (partial){max, max + ATTN_MAX_QUERIES, thread_at(e, thread, e->layout.thread.acc)};
}

/* Counts a split whose partial result is in its slot. True for the last one of all. */
static bool last_split(const cpu_engine *e, const attn_task *t, uint32_t h) {
    atomic_uint *done = (atomic_uint *)(e->workspace + e->layout.partials_done);
    done += t->done * e->layout.max_kv_heads + h;
    if (atomic_fetch_add(done, 1) + 1 < t->n_splits) return false;
    *done = 0; /* for the next layer; all others have counted */
    return true;
}

/* The partial results of a sequence, in order of position. */
static partial join_splits(const cpu_engine *e, const cpu_op *c, const attn_task *t,
                           uint32_t thread, uint32_t h) {
    const head_shape s = attn_heads(c->op);
    const uint32_t group = heads_group(&s), dp = attn_dim_pad(attn_value_dim(c->op));
    const uint32_t first = (uint32_t)t->slot - t->from / ATTN_SPLIT;
    const partial all = partial_of_thread(e, thread);
    for (uint32_t g = 0; g < group; g++) all.max[g] = -INFINITY;
    for (uint32_t k = 0; k < t->n_splits; k++) {
        const partial p = partial_at(e, c->op, first + k, h);
        for (uint32_t g = 0; g < group; g++)
            e->ops->attn_merge(all.max + g, all.sum + g, all.acc + (size_t)g * dp, p.max[g],
                               p.sum[g], p.acc + (size_t)g * dp, dp);
    }
    return all;
}

/* ---- tasks ---- */

/* What queries at a position are multiplied by. */
static float temperature(const attention_shape *a, uint32_t pos) {
    if (pos < a->temperature_len || a->temperature == 0) return 1;
    return (float)(1 + (double)a->temperature * log1p(pos / a->temperature_len));
}

/* The queries of a task that share KV head h, as attn_part has them. */
static void rotate_queries(const cpu_engine *e, const cpu_op *c, const attn_task *t, uint32_t h,
                           float *q) {
    const head_shape s = attn_heads(c->op);
    const uint32_t hd = s.head_dim, group = heads_group(&s);
    const kv_format *f = format_of(e, c->op);
    const float *qkv = value_f(e, c->op->in);
    const uint32_t cols =
        e->program->values[c->op->in].cols; /* of q alone where K is another's */
    float scale = c->op->attention.scale * LOG2_E;
    if (f->k.rotated) scale = scale / (float)f->k_segment;
    for (uint32_t r = 0; r < t->n_rows; r++) {
        const uint32_t row = t->first_row + r;
        const float *x = qkv + (size_t)row * cols + (size_t)h * group * hd;
        const float by = scale * temperature(&c->op->attention, e->step.rows[row].pos);
        for (uint32_t i = 0; i < group; i++)
            rotate_from(e, c, x + (size_t)i * hd, c->op->attention.latent, row, by,
                        q + ((size_t)r * group + i) * hd);
    }
    if (f->k.rotated) e->ops->hadamard(q, t->n_rows * group * hd, f->k_segment);
}

/* group: 0, or the distance to the tail's. */
static kv_head task_head(const cpu_engine *e, const cpu_op *c, const attn_task *t,
                         uint32_t group, uint32_t h) {
    return head_in(e, c->op, &e->step.batch->seq[t->seq], group,
                   c->op->attention.latent ? 0 : h);
}

static kv_head attn_head(const cpu_engine *e, const cpu_op *c, const attn_task *t, uint32_t h) {
    return task_head(e, c, t, 0, h);
}

static kv_head attn_open(cpu_engine *e, const cpu_op *c, const attn_task *t, uint32_t h,
                         uint32_t thread, float *q) {
    const batch_seq *s = &e->step.batch->seq[t->seq];
    const uint32_t pos = e->step.rows[t->first_row].pos;
    const kv_head kv = attn_head(e, c, t, h);
    /* Splits before the window see nothing and give an empty result. */
    if (t->to > kv_first_seen(c->op->attention.window, pos)) rotate_queries(e, c, t, h, q);
    const bool own = !c->op->attention.kv_from && !c->op->attention.latent;
    if (own && s->n_rows == 1 && t->to == s->first_pos + 1)
        append_row(e, c, s, value_f(e, c->op->in), t->first_row, h,
                   thread_at(e, thread, e->layout.thread.row));
    return kv;
}

static void attn_close(cpu_engine *e, const cpu_op *c, const act *out, const attn_task *t,
                       uint32_t h, uint32_t thread, const partial *p) {
    const head_shape heads = attn_heads(c->op);
    const uint32_t group = heads_group(&heads), dp = attn_dim_pad(attn_value_dim(c->op));
    const float *sinks = c->vec[0] ? c->vec[0] + h * group : NULL;
    for (uint32_t i = 0; sinks && i < t->n_rows * group; i++)
        p->sum[i] = p->sum[i] + e->ops->attn_sink(p->max[i], sinks[i % group] * LOG2_E);
    for (uint32_t r = 0; r < t->n_rows; r++)
        put_heads(e, c, out, thread, t->first_row + r, h, p->sum + r * group,
                  p->acc + (size_t)r * group * dp);
}

static void attend_task(cpu_engine *e, const cpu_op *c, const act *out, const attn_task *t,
                        uint32_t h, uint32_t thread) {
    const thread_place *at = &e->layout.thread;
    const head_shape heads = attn_heads(c->op);
    /* A row sees what is before it, and in an encoder all: as if it stood at the end. */
    const uint32_t pos =
        c->op->attention.bidirectional ? t->to - 1 : e->step.rows[t->first_row].pos;
    float *q = thread_at(e, thread, at->q);
    const kv_head kv = attn_open(e, c, t, h, thread, q);
    partial p = t->slot >= 0 ? partial_at(e, c->op, (uint32_t)t->slot, h)
                             : partial_of_thread(e, thread);
    const attn_part part = {.q = q,
                            .n_rows = t->n_rows,
                            .group = heads_group(&heads),
                            .first_pos = pos,
                            .window = c->op->attention.window,
                            .cap = attn_cap(c->op),
                            .from = t->from,
                            .to = t->to,
                            .max = p.max,
                            .sum = p.sum,
                            .acc = p.acc,
                            .scratch = thread_at(e, thread, at->attn)};
    const uint32_t tail_at = e->layout.groups.tail_at;
    const kv_head tail = tail_at ? task_head(e, c, t, tail_at, h) : (kv_head){0};
    e->ops->attend(&kv, tail_at ? &tail : NULL, &part);
    if (t->slot >= 0) {
        if (!last_split(e, t, h)) return;
        p = join_splits(e, c, t, thread, h);
    }
    attn_close(e, c, out, t, h, thread, &p);
}

static void attend_all(cpu_engine *e, const cpu_op *c, const act *out, uint32_t thread) {
    const uint32_t n_kv = attn_heads(c->op).n_kv_heads, n = e->step.n_tasks * n_kv;
    uint32_t take = n / (16 * e->step.n_threads);
    if (take == 0) take = 1;
    for (uint32_t i = team_next(e->team, take); i < n; i = team_next(e->team, take))
        for (uint32_t k = i; k < n && k < i + take; k++)
            attend_task(e, c, out, &e->step.tasks[k / n_kv], k % n_kv, thread);
}

void run_attention(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act out = value_act(e, c->op->out);
    if (e->opt.unfused) {
        static const attn_parts parts = {attn_head, attn_open, attn_close};
        attention_all *all =
            e->ops->isa == ISA_PLAIN ? attention_unfused_plain : attention_unfused_avx2;
        all(e, c, &parts, &out, thread);
    } else {
        attend_all(e, c, &out, thread);
    }
    if (!heads_fill_blocks(c->op)) quantise_written(e, c->op->out, thread); /* else by tasks */
}
