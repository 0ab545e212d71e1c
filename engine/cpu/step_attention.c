/* Attention: keys and values into the cache, then the tasks that plan_step.c cut, each with the
 * rotation of its queries and, of a lone row, its new entry of the cache; partial results of
 * split sequences are joined by the thread that brings the last of them. All threads of the
 * step. */
#include "engine/cpu/step.h"

#include <math.h>

#include "base/check.h"

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
void run_append(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const batch *b = e->step.batch;
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    const float *qkv = value_f(e, c->op->in);
    span s = step_share(b->n_rows, e->step.n_threads, thread);
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
    done += t->done * c->n_kv_heads + h;
    if (atomic_fetch_add(done, 1) + 1 < t->n_splits) return;
    *done = 0; /* for the next layer; all others have counted */
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
    const uint32_t seen = kv_first_seen(part.window, part.first_pos);
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

void run_attention(cpu_engine *e, const cpu_op *c, uint32_t thread) {
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
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++)
        e->linear->quantise(out.f + (size_t)r * out.n_in, &out, r);
}
