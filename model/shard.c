/* From the program of a model to that of one rank: operation after operation, with the values, weights
 * and heads that the rank has of it. Owns the new program's arrays until model_shard returns. Pure;
 * any thread. */
#include "model/shard.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "memory/term.h"

/* Copies of a weight that stand in the new program: the last, and the one before each. */
enum { NO_COPY = NO_WEIGHT };

typedef struct cutter {
    const program *from;
    program *to;
    const shard *part;
    value_id *value;        /* [from->n_values]: in the new program; NO_VALUE: not there yet */
    const op **reads_heads; /* [from->n_values]: OP_ATTENTION of the q | k | v that it is */
    uint32_t *written,
        *read;        /* [from->n_values]: stages of the first writer and the last reader */
    weight_id *copy;  /* [from->n_weights] */
    weight_id *other; /* [capacity of to->weights] */
    uint32_t cap_weights, cap_values, cap_ops;
    status s;
    err *e;
} cutter;

/* ---- ranges ---- */

shard_range shard_outputs(const shard *s, uint32_t n) {
    const uint32_t ranks = s->n_ranks ? s->n_ranks : 1;
    const uint32_t unit = n / SHARD_STRIP >= ranks ? SHARD_STRIP : 1;
    const uint64_t units = ceil_div(n, unit);
    const uint64_t from = units * s->rank / ranks * unit,
                   to = units * (s->rank + 1) / ranks * unit;
    return (shard_range){(uint32_t)from, (uint32_t)((to < n ? to : n) - from)};
}

shard_heads shard_heads_of(const shard *s, const head_shape *h) {
    const uint32_t n = s->n_ranks ? s->n_ranks : 1, group = heads_group(h);
    const uint32_t kv = (uint32_t)((uint64_t)h->n_kv_heads * s->rank / n);
    if (n <= h->n_kv_heads) {
        const uint32_t end = (uint32_t)((uint64_t)h->n_kv_heads * (s->rank + 1) / n);
        return (shard_heads){{kv * group, (end - kv) * group}, {kv, end - kv}};
    }
    /* The ranks that hold this KV head, and which of them we are. */
    const uint32_t first = (uint32_t)ceil_div((uint64_t)kv * n, h->n_kv_heads);
    const uint32_t next = (uint32_t)ceil_div((uint64_t)(kv + 1) * n, h->n_kv_heads);
    const uint32_t holders = next - first, i = s->rank - first;
    const uint32_t from = group * i / holders, end = group * (i + 1) / holders;
    return (shard_heads){{kv * group + from, end - from}, {kv, 1}};
}

/* ---- the new program ---- */

static value_id add_value(cutter *c, value_id of, uint32_t cols) {
    program *p = c->to;
    CHECK(p->n_values < c->cap_values && p->n_values < NO_VALUE);
    p->values[p->n_values] = c->from->values[of];
    p->values[p->n_values].cols = cols;
    return (value_id)p->n_values++;
}

static op *add_op(cutter *c, const op *like) {
    program *p = c->to;
    CHECK(p->n_ops < c->cap_ops);
    p->ops[p->n_ops] = *like;
    return &p->ops[p->n_ops++];
}

static bool same_slice(const weight *a, const weight *b) {
    return a->first_row == b->first_row && a->rows == b->rows && a->first_col == b->first_col &&
           a->cols == b->cols;
}

/* w is a weight of the whole, or part of it. */
static weight_id add_weight(cutter *c, weight_id of, weight w) {
    program *p = c->to;
    for (weight_id i = c->copy[of]; i != NO_COPY; i = c->other[i])
        if (same_slice(&p->weights[i], &w)) return i;
    CHECK(p->n_weights < c->cap_weights);
    const weight_id id = p->n_weights++;
    p->weights[id] = w;
    c->other[id] = c->copy[of];
    c->copy[of] = id;
    if (w.scale != NO_WEIGHT) {
        const weight_id scale = add_weight(c, w.scale, c->from->weights[w.scale]);
        p->weights[id].scale = scale;
    }
    return id;
}

static weight_id add_whole(cutter *c, weight_id of) {
    return of == NO_WEIGHT ? NO_WEIGHT : add_weight(c, of, c->from->weights[of]);
}

/* Outputs [from, from + n): rows of a matrix or of each expert's, columns of a vector or of each expert's. */
static weight_id add_outputs(cutter *c, weight_id of, uint32_t from, uint32_t n) {
    if (of == NO_WEIGHT) return NO_WEIGHT;
    weight w = c->from->weights[of];
    if (w.role == WEIGHT_VECTOR) {
        w.first_col += from;
        w.cols = n;
        return add_weight(c, of, w);
    }
    const uint32_t all = w.rows;
    w.rows = n;
    if (!w.run || (from == 0 && n == all)) {
        w.first_row += from;
    } else if (from % w.run == 0 && n % w.run == 0) {
        w.first_row += from / w.run * w.run_step;
    } else {
        err_set(c->e, ERR_UNSUPPORTED, "%s has runs of %u rows, which %u ranks would cut",
                w.name, w.run, c->part->n_ranks);
        c->s = err_field(c->e, "%s", w.name);
    }
    return add_weight(c, of, w);
}

/* ---- outputs that are cut ---- */

static uint32_t outputs_of(const program *p, weight_id w) {
    return p->weights[w].role == WEIGHT_VECTOR ? p->weights[w].cols : p->weights[w].rows;
}

/* The weights of o, side by side, of which the rank has these ranges, in this order. */
static void cut_side_by_side(cutter *c, const op *of, op *o, const shard_range *range,
                             uint32_t n) {
    uint32_t k = 0;
    for (int i = 0; i < 3; i++) o->w[i] = o->bias[i] = NO_WEIGHT;
    for (uint32_t i = 0, at = 0; i < of->n_weights; i++) {
        const uint32_t rows = outputs_of(c->from, of->w[i]), end = at + rows;
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t a = range[j].from > at ? range[j].from : at;
            const uint32_t last = range[j].from + range[j].n, b = last < end ? last : end;
            if (a >= b) continue;
            CHECK(k < 3);
            o->w[k] = add_outputs(c, of->w[i], a - at, b - a);
            o->bias[k++] = add_outputs(c, of->bias[i], a - at, b - a);
        }
        at = end;
    }
    o->n_weights = (uint8_t)k;
}

/* The same outputs of every weight. */
static void cut_each(cutter *c, const op *of, op *o, shard_range r) {
    for (uint32_t i = 0; i < of->n_weights; i++) {
        o->w[i] = add_outputs(c, of->w[i], r.from, r.n);
        o->bias[i] = add_outputs(c, of->bias[i], r.from, r.n);
    }
}

static void keep_weights(cutter *c, const op *of, op *o) {
    for (int i = 0; i < 3; i++) {
        o->w[i] = add_whole(c, of->w[i]);
        o->bias[i] = add_whole(c, of->bias[i]);
    }
    if (!op_appends(of)) return;
    o->rope.factors = add_whole(c, of->rope.factors);
    o->rope.long_factors = add_whole(c, of->rope.long_factors);
}

/* Nothing of it is the rank's: it has no weights. */
static void leave_idle(op *o) {
    o->idle = true;
    o->n_weights = 0;
    for (int i = 0; i < 3; i++) o->w[i] = o->bias[i] = NO_WEIGHT;
}

/* The value that all ranks have when each has computed its part of out: columns, or rows. */
static void gather(cutter *c, const op *of, value_id mine, shard_range made, bool rows) {
    const uint32_t cols = c->from->values[of->out].cols;
    op *g = add_op(c, &(op){.kind = OP_ALL_GATHER,
                            .layer = of->layer,
                            .in = mine,
                            .first_col = made.from,
                            .gather = {made.n, rows},
                            .residual = NO_VALUE,
                            .by = NO_VALUE});
    for (int i = 0; i < 3; i++) g->w[i] = g->bias[i] = NO_WEIGHT;
    if (of->kind == OP_ATTENTION) g->heads = of->heads; /* of all ranks */
    g->out = c->value[of->out] = add_value(c, of->out, cols);
}

shard_range shard_joined(const program *p, const op *gather, uint32_t rank) {
    shard s = p->part;
    s.rank = rank;
    if (gather[-1].kind == OP_EMBED) return (shard_range){0, 0};
    if (!gather->heads.n_heads) return shard_outputs(&s, p->values[gather->out].cols);
    const shard_range q = shard_heads_of(&s, &gather->heads).q;
    const uint32_t dim = gather->heads.head_dim;
    return (shard_range){q.from * dim, q.n * dim};
}

static value_id mapped(const cutter *c, value_id v) {
    return v == NO_VALUE ? NO_VALUE : c->value[v];
}

/* The operation with its values as the new program names them; out stands in full width. */
static op *start(cutter *c, const op *of, value_id out) {
    op *o = add_op(c, of);
    o->in = mapped(c, of->in);
    o->residual = mapped(c, of->residual);
    o->by = mapped(c, of->by);
    o->out = out;
    return o;
}

static void cut_outputs(cutter *c, const op *of) {
    const uint32_t cols = c->from->values[of->out].cols;
    const shard_range r = shard_outputs(c->part, cols);
    const value_id mine = add_value(c, of->out, cols);
    op *o = start(c, of, mine);
    o->first_col = r.from;
    if (!r.n)
        leave_idle(o);
    else if (of->kind == OP_LINEAR)
        cut_side_by_side(c, of, o, &r, 1);
    else
        cut_each(c, of, o, r);
    gather(c, of, mine, r, false);
}

/* Rows of the vocabulary, and where they go whole rows of out. */
static void cut_embedding(cutter *c, const op *of) {
    const shard_range r = shard_outputs(c->part, c->from->weights[of->w[0]].rows);
    const value_id mine = add_value(c, of->out, c->from->values[of->out].cols);
    op *o = start(c, of, mine);
    o->w[0] = add_outputs(c, of->w[0], r.from, r.n);
    gather(c, of, mine, (shard_range){0, c->from->values[of->out].cols}, true);
}

/* ---- heads ---- */

static head_shape narrow(const cutter *c, const op *attention, const head_shape *own) {
    const shard_heads r = shard_heads_of(c->part, &attention->heads);
    return (head_shape){r.q.n, own->n_kv_heads ? r.kv.n : 0, own->head_dim};
}

/* The projection of q | k | v, or of q alone. */
static void cut_heads(cutter *c, const op *of, const op *attention) {
    const head_shape *h = &attention->heads;
    const shard_heads r = shard_heads_of(c->part, h);
    const uint32_t hd = h->head_dim, q = h->n_heads * hd, kv = h->n_kv_heads * hd;
    const bool alone = c->from->values[of->out].cols == q;
    const shard_range mine[3] = {{r.q.from * hd, r.q.n * hd},
                                 {q + r.kv.from * hd, r.kv.n * hd},
                                 {q + kv + r.kv.from * hd, r.kv.n * hd}};
    const uint32_t cols = (r.q.n + (alone ? 0 : 2 * r.kv.n)) * hd;
    c->value[of->out] = add_value(c, of->out, cols);
    cut_side_by_side(c, of, start(c, of, c->value[of->out]), mine, alone ? 1 : 3);
}

/* Norms and rotation of heads, in place. */
static void keep_in_heads(cutter *c, const op *of, const op *attention) {
    op *o = start(c, of, mapped(c, of->out));
    keep_weights(c, of, o);
    o->heads = narrow(c, attention, &of->heads);
}

static void cut_attention(cutter *c, const op *of) {
    const shard_heads r = shard_heads_of(c->part, &of->heads);
    const value_id mine = add_value(c, of->out, c->from->values[of->out].cols);
    op *o = start(c, of, mine);
    o->heads = narrow(c, of, &of->heads);
    o->first_col = r.q.from * of->heads.head_dim;
    o->w[0] = add_outputs(c, of->w[0], r.q.from, r.q.n);
    const uint32_t hd = of->heads.head_dim;
    gather(c, of, mine, (shard_range){r.q.from * hd, r.q.n * hd}, false);
}

/* ---- operation by operation ---- */

static const char *why_not(const op *o) {
    switch (o->kind) {
    case OP_CONV:
    case OP_DELTA:
    case OP_SSM: return "keeps a state of each sequence";
    case OP_LATENT_APPEND:
    case OP_LINEAR_BY_HEAD: return "has one row of the KV cache for all heads";
    case OP_LAYER_NORM:
    case OP_POOL: return "is an encoder's";
    case OP_HEAD_NORM: return o->norm.whole ? "is over all heads together" : NULL;
    case OP_ATTENTION:
        return o->attention.latent          ? "has one row of the KV cache for all heads"
               : o->attention.bidirectional ? "is an encoder's"
                                            : NULL;
    case OP_EMBED: return o->embed.positions || o->embed.texts ? "is an encoder's" : NULL;
    default: return NULL;
    }
}

static status check_ops(const cutter *c) {
    const program *p = c->from;
    if (c->part->n_stages > 1 && p->config.bidirectional) {
        err_set(c->e, ERR_UNSUPPORTED, "architecture %s has no stages: it is an encoder",
                p->config.arch);
        err_hint(c->e, "leave pipeline_parallel_size at 1");
        return err_field(c->e, "pipeline_parallel_size");
    }
    if (p->config.n_vocab < c->part->n_ranks) {
        err_set(c->e, ERR_INVALID, "%u ranks for a vocabulary of %u", c->part->n_ranks,
                p->config.n_vocab);
        return err_field(c->e, "tensor_parallel_size");
    }
    for (uint32_t i = 0; i < p->n_ops && c->part->n_ranks > 1; i++) {
        const op *o = &p->ops[i];
        const char *why = why_not(o);
        if (why) {
            err_set(c->e, ERR_UNSUPPORTED,
                    "architecture %s cannot be cut into %u ranks: the operation %s %s",
                    p->config.arch, c->part->n_ranks, op_kind_name(o->kind), why);
            err_hint(c->e, "leave tensor_parallel_size at 1");
            return err_field(c->e, "%s", op_kind_name(o->kind));
        }
        if (o->kind != OP_ATTENTION || o->heads.n_heads >= c->part->n_ranks) continue;
        err_set(c->e, ERR_INVALID, "%u ranks, but layer %d has %u query heads",
                c->part->n_ranks, o->layer, o->heads.n_heads);
        err_hint(c->e, "give at most %u ranks", o->heads.n_heads);
        return err_field(c->e, "tensor_parallel_size");
    }
    return OK;
}

/* All of it, by this rank as by the others. */
static void repeat(cutter *c, const op *of) {
    value_id out = mapped(c, of->out);
    if (of->out != NO_VALUE && out == NO_VALUE) {
        out = add_value(c, of->out, c->from->values[of->out].cols);
        c->value[of->out] = out;
    }
    keep_weights(c, of, start(c, of, out));
}

static bool few_outputs(const program *p, const op *o) {
    return p->values[o->out].cols < SHARD_STRIP;
}

static void cut_op(cutter *c, const op *of) {
    const op *attention = of->out == NO_VALUE ? NULL : c->reads_heads[of->out];
    if (c->part->n_ranks < 2)
        repeat(c, of);
    else if (of->kind == OP_EMBED)
        cut_embedding(c, of);
    else if (of->kind == OP_ATTENTION)
        cut_attention(c, of);
    else if (of->kind == OP_LINEAR && attention)
        cut_heads(c, of, attention);
    else if (attention)
        keep_in_heads(c, of, attention);
    else if ((of->kind == OP_LINEAR && !few_outputs(c->from, of)) || of->kind == OP_GATE_UP ||
             of->kind == OP_LOGITS || of->kind == OP_EXPERTS_GATE_UP ||
             of->kind == OP_EXPERTS_DOWN)
        cut_outputs(c, of);
    else
        repeat(c, of);
}

/* ---- stages ---- */

/* The layers of stages of at most so many bytes, the fewest that will do; first: [n_stages + 1]. */
static bool fill_stages(const uint64_t *cost, uint32_t n_layers, uint32_t n_stages,
                        uint64_t most, uint32_t *first) {
    uint32_t l = 0;
    for (uint32_t s = 0; s < n_stages; s++) {
        uint64_t sum = 0;
        first[s] = l;
        const uint32_t end = n_layers - (n_stages - 1 - s); /* a layer for each of the others */
        for (; l < end && (l == first[s] || sum + cost[l] <= most); l++) sum += cost[l];
        if (sum > most) return false;
    }
    first[n_stages] = l;
    return l == n_layers;
}

/* Which stage an operation is of. */
static uint32_t stage_of_layer(const uint32_t *first, uint32_t n_stages, int layer) {
    uint32_t s = 0;
    while (s + 1 < n_stages && (uint32_t)layer >= first[s + 1]) s++;
    return s;
}

/* Bytes of weights by layer; what stands before the layers is the first's, what is behind the last's. */
static void layer_costs(const program *p, uint64_t *cost) {
    const uint32_t last = p->config.n_layers - 1;
    bool layers = false;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        layers |= o->layer >= 0;
        const uint32_t at = o->layer >= 0 ? (uint32_t)o->layer : layers ? last : 0;
        for (uint32_t k = 0; k < o->n_weights; k++)
            if (o->w[k] != NO_WEIGHT) cost[at] += weight_bytes(&p->weights[o->w[k]]);
    }
}

/* first: [n_stages + 1] */
static status cut_layers(const cutter *c, uint32_t *first) {
    const uint32_t n_layers = c->from->config.n_layers, n = c->part->n_stages;
    uint64_t lo = 0, hi = 0;
    if (n > n_layers) {
        err_set(c->e, ERR_INVALID, "%u stages, but the model has %u layers", n, n_layers);
        return err_field(c->e, "pipeline_parallel_size");
    }
    uint64_t *cost = calloc(n_layers, sizeof *cost);
    if (!cost) return mem_exhausted(c->e, MEM_RUNTIME, "the program of the model");
    layer_costs(c->from, cost);
    for (uint32_t l = 0; l < n_layers; l++) hi += cost[l];
    while (lo < hi) {
        const uint64_t mid = lo + (hi - lo) / 2;
        if (fill_stages(cost, n_layers, n, mid, first))
            hi = mid;
        else
            lo = mid + 1;
    }
    CHECK(fill_stages(cost, n_layers, n, lo, first));
    free(cost);
    return OK;
}

static void touch(cutter *c, value_id v, uint32_t stage) {
    if (v == NO_VALUE) return;
    if (c->written[v] == UINT32_MAX) c->written[v] = stage;
    c->read[v] = stage;
}

/* The stage of each operation, and of each value the first that has it and the last that needs it. */
static status find_stages(cutter *c, uint32_t *stage) {
    const program *p = c->from;
    const uint32_t n = c->part->n_stages > 1 ? c->part->n_stages : 1;
    uint32_t first[SHARD_MAX_RANKS + 1] = {0};
    const status s = n > 1 ? cut_layers(c, first) : OK;
    if (s != OK) return s;
    bool layers = false;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        layers |= o->layer >= 0;
        stage[i] = o->layer >= 0 ? stage_of_layer(first, n, o->layer) : layers ? n - 1 : 0;
        touch(c, o->in, stage[i]);
        touch(c, o->residual, stage[i]);
        touch(c, o->by, stage[i]);
        touch(c, o->out, stage[i]);
        if (o->kind != OP_ATTENTION || !o->attention.kv_from ||
            stage_of_layer(first, n, (int)o->attention.kv_from - 1) == stage[i])
            continue;
        err_set(
            c->e, ERR_UNSUPPORTED,
            "architecture %s cannot be cut into %u stages: the operation %s of layer %d reads "
            "the KV cache of layer %u, which another stage has",
            p->config.arch, n, op_kind_name(o->kind), o->layer, o->attention.kv_from - 1);
        err_hint(c->e, "leave pipeline_parallel_size at 1");
        return err_field(c->e, "%s", op_kind_name(o->kind));
    }
    return OK;
}

static bool crosses(const cutter *c, uint32_t v, uint32_t before) {
    return c->written[v] != UINT32_MAX && c->written[v] < before && c->read[v] >= before;
}

/* All ranks of a stage have the value; the first of them sends it. */
static void move_value(cutter *c, op_kind kind, value_id v) {
    op o = {.kind = kind, .layer = -1, .residual = NO_VALUE, .by = NO_VALUE};
    for (int i = 0; i < 3; i++) o.w[i] = o.bias[i] = NO_WEIGHT;
    o.in = o.out = NO_VALUE;
    if (kind == OP_SEND) {
        o.in = c->value[v];
        o.idle = c->part->rank > 0;
    } else {
        o.out = c->value[v] = add_value(c, v, c->from->values[v].cols);
    }
    add_op(c, &o);
}

static void move_values(cutter *c, op_kind kind, uint32_t border) {
    for (uint32_t v = 0; v < c->from->n_values; v++)
        if (crosses(c, v, border)) move_value(c, kind, (value_id)v);
}

/* OP_SAMPLE is rank 0's, wherever the logits are made. */
static void cut_sample(cutter *c, const op *of) {
    const uint32_t last = c->part->n_stages > 1 ? c->part->n_stages - 1 : 0;
    if (last && c->part->stage == last) move_value(c, OP_SEND, of->in);
    if (c->part->stage || c->part->rank) return;
    if (last) move_value(c, OP_RECV, of->in);
    repeat(c, of);
}

/* ---- the whole ---- */

static void find_heads(cutter *c) {
    for (uint32_t i = 0; i < c->from->n_ops; i++) {
        const op *o = &c->from->ops[i];
        if (o->kind == OP_ATTENTION) c->reads_heads[o->in] = o;
    }
}

/* The groups stay, since block tables are of groups; a rank has some heads of each, a stage some layers. */
static void cut_groups(cutter *c) {
    program *p = c->to;
    p->n_groups = c->from->n_groups;
    memcpy(p->group, c->from->group, sizeof p->group);
    memcpy(p->layer_group, c->from->layer_group, p->config.n_layers * sizeof *p->layer_group);
    for (uint32_t g = 0; g < p->n_groups; g++) p->group[g].n_layers = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if (o->kind != OP_ATTENTION || o->attention.bidirectional) continue;
        if (o->attention.kv_from) {
            p->layer_index[o->layer] = p->layer_index[o->attention.kv_from - 1];
            continue;
        }
        kv_group *g = &p->group[p->layer_group[o->layer]];
        g->n_kv_heads = o->heads.n_kv_heads;
        p->layer_index[o->layer] = (uint16_t)g->n_layers++;
    }
}

static status allocate(cutter *c) {
    const program *f = c->from;
    program *p = c->to;
    /* An operation has 8 weights at most, of which each may be a slice; a gather, and what is sent. */
    c->cap_weights = 8 * f->n_ops + f->n_weights;
    c->cap_values = 2 * f->n_values + 2 * f->n_ops + 1;
    c->cap_ops = 2 * f->n_ops + 2 * f->n_values;
    p->values = calloc(c->cap_values, sizeof *p->values);
    p->weights = calloc(c->cap_weights + 1, sizeof *p->weights);
    p->ops = calloc(c->cap_ops + 1, sizeof *p->ops);
    p->layer_group = calloc(p->config.n_layers, sizeof *p->layer_group);
    p->layer_index = calloc(p->config.n_layers, sizeof *p->layer_index);
    c->value = malloc((f->n_values + 1) * sizeof *c->value);
    c->reads_heads = calloc(f->n_values + 1, sizeof(op *));
    c->written = malloc((f->n_values + 1) * sizeof *c->written);
    c->read = calloc(f->n_values + 1, sizeof *c->read);
    c->copy = malloc((f->n_weights + 1) * sizeof *c->copy);
    c->other = malloc((c->cap_weights + 1) * sizeof *c->other);
    if (!p->values || !p->weights || !p->ops || !p->layer_group || !p->layer_index ||
        !c->value || !c->reads_heads || !c->written || !c->read || !c->copy || !c->other)
        return mem_exhausted(c->e, MEM_RUNTIME, "the program of a rank");
    memset(c->value, 0xff, (f->n_values + 1) * sizeof *c->value);
    memset(c->written, 0xff, (f->n_values + 1) * sizeof *c->written);
    memset(c->copy, 0xff, (f->n_weights + 1) * sizeof *c->copy);
    return OK;
}

static void release(cutter *c) {
    free(c->value);
    free(c->reads_heads);
    free(c->written);
    free(c->read);
    free(c->copy);
    free(c->other);
}

static status cut(cutter *c) {
    const uint32_t stage = c->part->stage;
    uint32_t *of = malloc((c->from->n_ops + 1) * sizeof *of);
    if (!of) return mem_exhausted(c->e, MEM_RUNTIME, "the program of a rank");
    find_heads(c);
    c->s = find_stages(c, of);
    if (c->s == OK && stage) move_values(c, OP_RECV, stage);
    for (uint32_t i = 0; i < c->from->n_ops && c->s == OK; i++)
        if (of[i] == stage && c->from->ops[i].kind != OP_SAMPLE) cut_op(c, &c->from->ops[i]);
    if (c->s == OK) move_values(c, OP_SEND, stage + 1);
    for (uint32_t i = 0; i < c->from->n_ops && c->s == OK; i++)
        if (c->from->ops[i].kind == OP_SAMPLE) cut_sample(c, &c->from->ops[i]);
    free(of);
    if (c->s == OK) cut_groups(c);
    return c->s;
}

status model_shard(model **out, const model *whole, const shard *part, err *e) {
    *out = NULL;
    CHECK(part->n_ranks <= SHARD_MAX_RANKS && part->n_stages <= SHARD_MAX_RANKS);
    CHECK(part->rank < (part->n_ranks ? part->n_ranks : 1));
    CHECK(part->stage < (part->n_stages ? part->n_stages : 1));
    model *m = calloc(1, sizeof *m);
    if (!m) return mem_exhausted(e, MEM_RUNTIME, "the program of a rank");
    const program *f = &whole->program;
    m->file = whole->file;
    m->program.config = f->config;
    m->program.part = *part;
    m->program.not_loaded_bytes = f->not_loaded_bytes;
    m->program.has_states = program_state_bytes(f) > 0;
    memcpy(m->program.rope, f->rope, sizeof f->rope);
    m->program.n_ropes = f->n_ropes;
    cutter c = {.from = f, .to = &m->program, .part = part, .e = e};
    status s = check_ops(&c);
    if (s == OK) s = allocate(&c);
    if (s == OK) s = cut(&c);
    release(&c);
    if (s == OK)
        *out = m;
    else
        model_close(m);
    return s;
}
