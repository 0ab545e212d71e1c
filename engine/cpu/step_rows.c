/* The operations that go row by row: embedding, norms, gathering, sampling. All threads of the
 * step, each with rows of its own. */
#include "engine/cpu/step.h"

#include <string.h>

#include "base/check.h"
#include "engine/cpu/rope.h"

static const float SQRT_HALF = 0.70710678118654752f;

/* The rows of OP_EMBED's further tables. */
static void add_tables(const cpu_engine *e, const cpu_op *c, uint32_t r, float *row,
                       float *tmp) {
    const step_row *at = &e->step.rows[r];
    const uint32_t n_first = e->step.batch->seq[at->seq].n_first, cols = c->part[0].n_in;
    for (uint32_t k = 1; k < c->n_parts; k++) {
        const bool positions = k == 1 && c->op->embed.positions;
        const uint32_t text = n_first && at->pos >= n_first && c->part[k].n_out > 1;
        packed_row(&c->part[k], positions ? at->pos : text, tmp);
        for (uint32_t i = 0; i < cols; i++) row[i] += tmp[i];
    }
}

/* Of the step's rows, which every attention turns by. */
static void turn_rows(cpu_engine *e, uint32_t r) {
    for (uint32_t t = 0; t < e->program->n_ropes; t++)
        rope_angles(cpu_freqs(e, t), e->program->rope[t].n_dims, e->rope_scale[t],
                    e->step.rows[r].pos, cpu_angles(e, t, r));
}

void run_embed(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const act out = value_act(e, o->out), rest = value_rest(e, o->out);
    const uint32_t cols = out.n_in;
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    /* Of one rank's program the part of the vocabulary that is its own. */
    const uint32_t first = e->shared ? e->program->weights[o->w[0]].first_row : 0;
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *row = out.f + (size_t)r * cols;
        const uint32_t token = (uint32_t)e->step.rows[r].token - first;
        if (token < c->part[0].n_out || !e->shared) {
            packed_row(&c->part[0], token, row);
            if (o->embed.scale != 1)
                for (uint32_t i = 0; i < cols; i++) row[i] *= o->embed.scale;
            add_tables(e, c, r, row, tmp);
            quantise_row(e, &out, &rest, r, row, thread);
        }
        turn_rows(e, r);
    }
}

/* To where the next stage finds it. Logits are in their place already. */
void run_send(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    if (e->crossing) {
        part_send(e, c, thread);
        return;
    }
    const value_place *p = &e->layout.values[c->op->in];
    if (p->is_logits) return;
    const act x = value_act(e, c->op->in);
    float *to = (float *)(void *)(group_sent_at(e->opt.group, e->step.number) + p->sent);
    const span s = step_share(x.n_rows, e->step.n_threads, thread);
    if (s.from < s.to)
        memcpy(to + (size_t)s.from * x.n_in, x.f + (size_t)s.from * x.n_in,
               (size_t)(s.to - s.from) * x.n_in * sizeof *to);
}

/* From there, into the rank's own memory; the first one of a stage has what OP_EMBED does beside it. */
void run_recv(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    if (e->crossing) {
        part_recv(e, c, thread);
        return;
    }
    const value_place *p = &e->layout.values[c->op->out];
    if (p->is_logits) return;
    const act out = value_act(e, c->op->out), rest = value_rest(e, c->op->out);
    const unsigned char *at = group_received_at(e->opt.group, e->step.number) + p->received;
    const span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *row = out.f + (size_t)r * out.n_in;
        memcpy(row, at + (size_t)r * out.n_in * sizeof *row, out.n_in * sizeof *row);
        quantise_row(e, &out, &rest, r, row, thread);
        if (c == e->op) turn_rows(e, r);
    }
}

/* What OP_SEND has written of this step. */
void cpu_step_put_sent(cpu_engine *e) {
    group *g = e->opt.group;
    for (uint32_t i = 0; i < e->n_front; i++) {
        const op *o = &e->program->ops[i];
        if (o->kind != OP_SEND || o->idle) continue;
        const value_place *p = &e->layout.values[o->in];
        const act x = value_act(e, o->in);
        const unsigned char *sent = group_sent_at(g, e->step.number) + p->sent;
        group_put(g, GROUP_NEXT, p->is_logits ? x.f : (const float *)(const void *)sent,
                  x.n_rows, x.n_in, x.n_in);
    }
}

/* What this rank has made of a value: its columns; of OP_EMBED's, the rows of its part of the vocabulary. Logits
 * are wanted where they are sampled or sent on. */
static void put_made(cpu_engine *e, const cpu_op *c) {
    const op *o = c->op, *embed = o - 1;
    const act x = value_act(e, o->in);
    const group_whom whom = e->layout.values[o->in].is_logits ? GROUP_FIRST : GROUP_STAGE;
    if (!o->gather.rows) {
        group_put(e->opt.group, whom, x.f + o->first_col, x.n_rows, o->gather.n_cols, x.n_in);
        return;
    }
    CHECK(embed->kind == OP_EMBED);
    const weight *w = &e->program->weights[embed->w[0]];
    for (uint32_t r = 0; r < x.n_rows; r++)
        if ((uint32_t)e->step.rows[r].token - w->first_row < w->rows)
            group_put(e->opt.group, whom, x.f + (size_t)r * x.n_in, 1, x.n_in, x.n_in);
}

/* What all ranks have computed of a value: after the meeting it is there for each of them. */
void run_all_gather(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    if (thread == 0) put_made(e, c);
    if (thread == 0 && !group_meet(e->opt.group)) {
        if (!atomic_exchange(&e->step.failed, true)) group_error(e->opt.group, &e->step.error);
    }
    team_barrier(e->team, thread);
    const act out = value_act(e, o->out), rest = value_rest(e, o->out);
    const float *x = value_f(e, o->in);
    if (out.f == x && !out.q) return;
    const span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        const float *row = x + (size_t)r * out.n_in;
        if (out.f != x) memcpy(out.f + (size_t)r * out.n_in, row, sizeof *row * out.n_in);
        quantise_row(e, &out, &rest, r, row, thread);
    }
}

/* Rows [from, to) of the step, at most TABLE_ROWS: those of their tokens in the table, as a matrix of
 * so many rows. False: the step has failed. */
static bool read_table(cpu_engine *e, uint32_t thread, span rows, packed *out) {
    const weight *w = &e->program->weights[e->layout.table];
    unsigned char *tiles =
        e->workspace + e->layout.table_rows + thread * e->layout.table_thread_bytes;
    unsigned char *raw = tiles + e->layout.table_packed_bytes;
    const uint32_t n = rows.to - rows.from;
    err er;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = (uint32_t)e->step.rows[rows.from + i].token;
        if (token >= w->rows) token = 0; /* the table may end before the vocabulary */
        if (checkpoint_rows_read(&e->table, token, raw + i * e->table.bytes, &er) == OK)
            continue;
        cpu_step_fail(e, &er);
        return false;
    }
    packed_store(tiles, w->type, n, w->cols, 0, n, raw);
    *out = (packed){tiles, w->type, n, w->cols, out->scale};
    return true;
}

void run_embed_add(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const act out = value_act(e, o->out);
    const float *x = value_f(e, o->in);
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from, to; r < s.to; r = to) {
        packed table = c->part[0];
        to = s.to - r < TABLE_ROWS ? s.to : r + TABLE_ROWS;
        if (!read_table(e, thread, (span){r, to}, &table)) return;
        for (size_t k = r; k < to; k++) {
            packed_row(&table, (uint32_t)(k - r), tmp);
            for (uint32_t i = 0; i < out.n_in; i++)
                out.f[k * out.n_in + i] =
                    (x[k * out.n_in + i] + tmp[i] * o->embed.scale) * SQRT_HALF;
        }
    }
}

void run_mul_act(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const act out = value_act(e, o->out), rest = value_rest(e, o->out);
    const uint32_t all = e->program->values[o->by].cols;
    const float *x = value_f(e, o->in), *by = value_f(e, o->by) + o->mul.first_col;
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *to = out.f ? out.f + (size_t)r * out.n_in : tmp;
        e->ops->gate(o->mul.act, x + (size_t)r * out.n_in, by + (size_t)r * all, out.n_in, to);
        quantise_row(e, &out, &rest, r, to, thread);
    }
}

void run_scale(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act out = value_act(e, c->op->out), rest = value_rest(e, c->op->out);
    const float *x = value_f(e, c->op->in), by = c->vec[0][0];
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *to = out.f ? out.f + (size_t)r * out.n_in : tmp;
        for (uint32_t i = 0; i < out.n_in; i++) to[i] = x[(size_t)r * out.n_in + i] * by;
        quantise_row(e, &out, &rest, r, to, thread);
    }
}

void run_norm(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const act out = value_act(e, o->out), rest = value_rest(e, o->out);
    const float *x = value_f(e, o->in);
    const float *residual = o->residual == NO_VALUE ? NULL : value_f(e, o->residual);
    const uint32_t width = out.n_in / (o->norm.groups ? o->norm.groups : 1);
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *to = out.f ? out.f + (size_t)r * out.n_in : tmp, *y = residual ? tmp : to;
        for (uint32_t i = 0; i < out.n_in; i += width)
            e->ops->norm(x + (size_t)r * out.n_in + i, c->vec[0] + i, width, o->norm.eps,
                         y + i);
        /* The sum may stand where its first summand does. */
        for (uint32_t i = 0; residual && i < out.n_in; i++)
            to[i] = residual[(size_t)r * out.n_in + i] + y[i];
        quantise_row(e, &out, &rest, r, to, thread);
    }
}

void run_layer_norm(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const act out = value_act(e, o->out), rest = value_rest(e, o->out);
    const float *x = value_f(e, o->in);
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *to = out.f ? out.f + (size_t)r * out.n_in : tmp;
        e->ops->layer_norm(x + (size_t)r * out.n_in, c->vec[0], c->bias[0], out.n_in,
                           o->norm.eps, to);
        quantise_row(e, &out, &rest, r, to, thread);
    }
}

/* The mean of n rows, summed in double in their order. */
static void mean_row(const float *x, uint32_t n, uint32_t cols, float *out) {
    enum { AT_ONCE = 64 };
    for (uint32_t i = 0; i < cols; i += AT_ONCE) {
        const uint32_t w = cols - i < AT_ONCE ? cols - i : AT_ONCE;
        double sum[AT_ONCE] = {0};
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t k = 0; k < w; k++) sum[k] += x[(size_t)r * cols + i + k];
        for (uint32_t k = 0; k < w; k++) out[i + k] = (float)(sum[k] / n);
    }
}

void run_pool(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act out = value_act(e, c->op->out), rest = value_rest(e, c->op->out);
    const float *x = value_f(e, c->op->in);
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        const uint32_t last = e->step.rows[r].gathered;
        const batch_seq *q = &e->step.batch->seq[e->step.rows[last].seq];
        const bool mean = e->opt.pooling == POOL_MEAN;
        const uint32_t from = e->opt.pooling == POOL_LAST ? last : q->first_row;
        float *to = out.f + (size_t)r * out.n_in;
        mean_row(x + (size_t)from * out.n_in, mean ? q->n_rows : 1, out.n_in, to);
        quantise_row(e, &out, &rest, r, to, thread);
    }
}

void run_permute(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act out = value_act(e, c->op->out), rest = value_rest(e, c->op->out);
    const float *x = value_f(e, c->op->in);
    float *tmp = thread_at(e, thread, e->layout.thread.row);
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *to = out.f ? out.f + (size_t)r * out.n_in : tmp;
        for (uint32_t i = 0; i < out.n_in; i++) to[i] = x[(size_t)r * out.n_in + c->order[i]];
        quantise_row(e, &out, &rest, r, to, thread);
    }
}

/* Norms of each head of q and of k, or of all of them together, and of each of v where the model
 * has them, in place. */
void run_head_norm(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const head_shape *m = &c->op->heads;
    const uint32_t n_heads[3] = {m->n_heads, m->n_kv_heads, m->n_kv_heads};
    const uint32_t cols = heads_cols(m), n_parts = c->op->norm.values ? 3 : 2;
    const bool whole = c->op->norm.whole;
    float *qkv = value_f(e, c->op->out);
    span s = step_share(e->step.batch->n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        float *x = qkv + (size_t)r * cols;
        for (uint32_t k = 0; k < n_parts; k++) {
            const float *w = k < 2 ? c->vec[k] : NULL;
            const uint32_t n = whole ? 1 : n_heads[k];
            const uint32_t width = m->head_dim * (whole ? n_heads[k] : 1);
            for (uint32_t i = 0; i < n; i++, x += width)
                e->ops->norm(x, w, width, c->op->norm.eps, x);
        }
    }
}

void run_gather(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act in = value_act(e, c->op->in), out = value_act(e, c->op->out);
    span s = step_share(out.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++) {
        uint32_t from = e->step.rows[r].gathered;
        row_copy(&in, from, &out, r);
    }
}

/* ---- sampling ---- */

static bool is_finite(const float *x, uint32_t n) {
    return dtype_is_finite(DT_F32, x, n);
}

static void sample_row(cpu_engine *e, uint32_t gathered, float *logits, uint32_t n_vocab,
                       void *scratch) {
    const step_row *row = &e->step.rows[e->step.rows[gathered].gathered];
    const batch_seq *s = &e->step.batch->seq[row->seq];
    const uint32_t next = row->pos + 1;
    if (e->kept) memcpy(e->kept + (size_t)gathered * n_vocab, logits, sizeof(float) * n_vocab);
    if (s->n_score >= 0 && next < s->n_prompt)
        sampling_score(&e->scored[gathered], logits, n_vocab, s->tokens[next], s->n_score,
                       scratch);
    const uint32_t first = s->first_pos + s->n_rows - s->n_draft;
    if (!s->sample || next < first) return;
    /* A token that the previous step produced is not in the history yet; guesses are. */
    sampling_history h = {s->tokens, s->input_from >= 0 ? row->pos : next, s->n_prompt};
    const bool finite = is_finite(logits, n_vocab);
    sampled *out = &e->token[(size_t)row->seq * max_run(e) + next - first];
    const uint32_t *allowed =
        s->allowed ? s->allowed + (size_t)(next - first) * s->allowed_stride : NULL;
    sampling_draw(out, logits, n_vocab, s->params, allowed, &h, next, scratch);
    if (!finite) out->token = SAMPLING_NOT_FINITE;
}

void run_sample(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const uint32_t n = e->step.batch->n_logit_rows;
    const uint32_t n_vocab = e->program->values[c->op->in].cols;
    float *logits = value_f(e, c->op->in);
    void *scratch = thread_at(e, thread, e->layout.thread.sampler);
    for (uint32_t i = team_next(e->team, 1); i < n; i = team_next(e->team, 1))
        sample_row(e, i, logits + (size_t)i * n_vocab, n_vocab, scratch);
}
