/* Builds a program: values, weights (looked up in the file and checked), operations. Owns the
 * program's arrays while it grows them; model_close frees them. One thread. */
#include "model/recorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "memory/term.h"

/* Room for one more; false (and the error set) when there is no memory. */
static bool grow(recorder *r, void **v, uint32_t *cap, uint32_t n, size_t size) {
    if (r->s != OK) return false;
    if (n < *cap) return true;
    uint32_t want = *cap ? *cap * 2 : 64;
    void *p = realloc(*v, want * size);
    if (!p) {
        r->s = mem_exhausted(r->e, MEM_RUNTIME, "the program of the model");
        return false;
    }
    *v = p;
    *cap = want;
    return true;
}

static value_id add_value(recorder *r, value v) {
    program *p = r->p;
    if (!grow(r, (void **)&p->values, &r->cap_values, p->n_values, sizeof *p->values))
        return NO_VALUE;
    CHECK(p->n_values < NO_VALUE); /* MODEL_MAX_LAYERS sees to it */
    p->values[p->n_values] = v;
    return (value_id)p->n_values++;
}

value_id rec_value(recorder *r, const char *name, row_set rows, uint32_t cols) {
    return add_value(r, (value){name, rows, cols, 1});
}

value_id rec_value_routed(recorder *r, const char *name, uint32_t top_k, uint32_t cols) {
    return add_value(r, (value){name, ROWS_ROUTED, cols, top_k});
}

op *rec_op(recorder *r, op_kind kind, int layer, value_id in, value_id out) {
    static _Thread_local op lost; /* written and forgotten once there is an error */
    program *p = r->p;
    op *o = &lost;
    if (grow(r, (void **)&p->ops, &r->cap_ops, p->n_ops, sizeof *p->ops))
        o = &p->ops[p->n_ops++];
    *o = (op){.kind = kind,
              .layer = (int16_t)layer,
              .in = in,
              .out = out,
              .residual = NO_VALUE,
              .by = NO_VALUE};
    for (int i = 0; i < 3; i++) o->w[i] = o->bias[i] = NO_WEIGHT;
    return o;
}

bool rec_has(const recorder *r, const char *name) {
    return r->file && checkpoint_find(r->file, name, NULL) >= 0;
}

static void unsupported_type(recorder *r, const tensor_info *t, const char *want) {
    err_set(r->e, ERR_UNSUPPORTED, "architecture %s: tensor %s has type %s, wanted %s",
            r->p->config.arch, t->name, dtype_name(t->type), want);
    r->s = err_field(r->e, "%s", t->name);
}

static void wrong_shape(recorder *r, const tensor_info *t, const uint32_t want[3]) {
    err_set(r->e, ERR_FORMAT,
            "architecture %s: tensor %s has shape [%llu, %llu, %llu, %llu], wanted [%u, %u",
            r->p->config.arch, t->name, (unsigned long long)t->ne[0],
            (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
            (unsigned long long)t->ne[3], want[0], want[1]);
    const size_t n = strlen(r->e->text);
    if (want[2] > 1)
        snprintf(r->e->text + n, sizeof r->e->text - n, ", %u]", want[2]);
    else
        snprintf(r->e->text + n, sizeof r->e->text - n, "]");
    r->s = err_field(r->e, "%s", t->name);
}

/* want: columns, rows, experts of the whole tensor. */
static void check_tensor(recorder *r, const weight *w, const uint32_t want[3],
                         const tensor_info *t) {
    const bool vector = w->role == WEIGHT_VECTOR, order = w->role == WEIGHT_ORDER;
    if (t->ne[0] != want[0] || t->ne[1] != want[1] || t->ne[2] != want[2] || t->ne[3] != 1)
        wrong_shape(r, t, want);
    else if (vector && t->type != DT_F32 && t->type != DT_F16 && t->type != DT_BF16)
        unsupported_type(r, t, "F32, F16 or BF16 for a vector");
    else if (order && t->type != DT_I32)
        unsupported_type(r, t, "I32 for an order");
    else if (!order && t->type >= DT_I8 &&
             t->type <= DT_F64) /* I8, I16, I32, I64, F64: no weights */
        unsupported_type(r, t, "a type of weights");
}

static void find_tensor(recorder *r, weight *w, const uint32_t want[3]) {
    tensor_info t;
    w->tensor = checkpoint_find(r->file, w->name, &t);
    if (w->tensor < 0) {
        err_set(r->e, ERR_FORMAT, "architecture %s: the tensor %s is missing",
                r->p->config.arch, w->name);
        r->s = err_field(r->e, "%s", w->name);
        return;
    }
    check_tensor(r, w, want, &t);
    w->type = t.type;
    r->claimed[w->tensor] = true;
}

/* Columns are cut where a block of the type ends; rows of all experts are counted in 32 bits.
 */
static void check_slice(recorder *r, const weight *w) {
    const uint32_t block = dtype_block_of(w->type).elems;
    uint64_t n;
    if (r->s != OK) return;
    if (w->first_col % block || w->cols % block)
        err_set(r->e, ERR_UNSUPPORTED,
                "architecture %s: columns %u to %u of tensor %s: a block of %s has %u",
                r->p->config.arch, w->first_col, w->first_col + w->cols, w->name,
                dtype_name(w->type), block);
    else if (w->n_experts && (!mul_u64(w->rows, w->n_experts, &n) || n > UINT32_MAX))
        err_set(r->e, ERR_UNSUPPORTED, "architecture %s: tensor %s has too many rows",
                r->p->config.arch, w->name);
    else
        return;
    r->s = err_field(r->e, "%s", w->name);
}

/* The scale of a matrix of NVFP4, the tensor NAME.scale beside NAME.weight. name: without its layer. */
static weight_id add_scale(recorder *r, const weight *w, const char *name) {
    char scale[sizeof w->name];
    const char *end = strstr(name, ".weight");
    const int n = end ? (int)(end - name) : (int)strlen(name);
    if (r->s != OK) return NO_WEIGHT;
    snprintf(scale, sizeof scale, "%.*s.scale", n, name);
    const weight_id id =
        rec_weight(r, WEIGHT_VECTOR, w->layer, scale, 1, w->n_experts ? w->n_experts : 1);
    if (r->s != OK) err_hint(r->e, "%s is of NVFP4, which needs it", w->name);
    return id;
}

/* Numbers of 16 bits can be turned as they are. */
static void turn(recorder *r, weight *w) {
    w->stored = w->type;
    if (w->type != DT_F16 && w->type != DT_BF16) w->type = DT_F32;
    if (r->s != OK || w->stored != DT_NVFP4) return;
    err_set(r->e, ERR_UNSUPPORTED, "architecture %s: tensor %s of NVFP4 cannot be turned",
            r->p->config.arch, w->name);
    r->s = err_field(r->e, "%s", w->name);
}

/* all_rows, all_cols: of the tensor, or of one expert in it. */
static weight_id add_weight(recorder *r, weight w, const char *name, uint32_t all_rows,
                            uint32_t all_cols) {
    program *p = r->p;
    if (!grow(r, (void **)&p->weights, &r->cap_weights, p->n_weights, sizeof *p->weights))
        return NO_WEIGHT;
    w.tensor = -1;
    w.scale = NO_WEIGHT;
    if (w.layer < 0)
        snprintf(w.name, sizeof w.name, "%s", name);
    else
        snprintf(w.name, sizeof w.name, "blk.%d.%s", w.layer, name);
    const bool three = w.n_experts && !w.run; /* else heads in one matrix */
    if (r->file)
        find_tensor(r, &w, (uint32_t[]){all_cols, all_rows, three ? w.n_experts : 1});
    else
        w.type = w.role == WEIGHT_VECTOR
                     ? DT_F32
                     : weight_mix_type(&r->planned, &p->config, name, w.layer, all_cols);
    if (w.turned) turn(r, &w);
    check_slice(r, &w);
    const weight_id id = p->n_weights++;
    p->weights[id] = w;
    if (w.type == DT_NVFP4 && w.role <= WEIGHT_LINEAR) {
        const weight_id scale = add_scale(r, &w, name);
        p->weights[id].scale = scale;
    }
    return id;
}

weight_id rec_weight(recorder *r, weight_role role, int layer, const char *name, uint32_t rows,
                     uint32_t cols) {
    return add_weight(r, (weight){.role = role, .rows = rows, .cols = cols, .layer = layer},
                      name, rows, cols);
}

weight_id rec_weight_slice(recorder *r, int layer, const char *name, slice rows, slice cols) {
    const weight w = {.role = WEIGHT_LINEAR,
                      .rows = rows.n,
                      .cols = cols.n,
                      .layer = layer,
                      .first_row = rows.first,
                      .first_col = cols.first};
    return add_weight(r, w, name, rows.all, cols.all);
}

weight_id rec_weight_half_heads(recorder *r, int layer, const char *name, bool second,
                                uint32_t n, uint32_t head_dim, uint32_t cols) {
    const weight w = {.role = WEIGHT_LINEAR,
                      .rows = n * head_dim,
                      .cols = cols,
                      .layer = layer,
                      .first_row = second ? head_dim : 0,
                      .run = head_dim,
                      .run_step = 2 * head_dim};
    return add_weight(r, w, name, 2 * w.rows, cols);
}

weight_id rec_weight_experts_slice(recorder *r, int layer, const char *name, uint32_t n_experts,
                                   slice rows, uint32_t cols) {
    const weight w = {.role = WEIGHT_LINEAR,
                      .rows = rows.n,
                      .cols = cols,
                      .n_experts = n_experts,
                      .layer = layer,
                      .first_row = rows.first};
    return add_weight(r, w, name, rows.all, cols);
}

weight_id rec_weight_heads(recorder *r, int layer, const char *name, uint32_t n, slice rows,
                           uint32_t cols, bool turned) {
    const weight w = {.role = WEIGHT_LINEAR,
                      .rows = turned ? cols : rows.n,
                      .cols = turned ? rows.n : cols,
                      .n_experts = n,
                      .layer = layer,
                      .first_row = rows.first,
                      .run = rows.n,
                      .run_step = rows.all,
                      .turned = turned};
    return add_weight(r, w, name, n * rows.all, cols);
}

weight_id rec_weight_experts(recorder *r, int layer, const char *name, uint32_t n_experts,
                             uint32_t rows, uint32_t cols) {
    return rec_weight_experts_slice(r, layer, name, n_experts, (slice){0, rows, rows}, cols);
}

weight_id rec_vector_experts(recorder *r, bool wanted, int layer, const char *name,
                             uint32_t n_experts, uint32_t n) {
    return wanted ? rec_weight(r, WEIGHT_VECTOR, layer, name, n_experts, n) : NO_WEIGHT;
}

weight_id rec_vector(recorder *r, bool wanted, int layer, const char *name, uint32_t n) {
    return wanted ? rec_weight(r, WEIGHT_VECTOR, layer, name, 1, n) : NO_WEIGHT;
}

/* ---- orders of inputs ---- */

static void order_name(char out[72], int layer, const char *matrix) {
    if (layer < 0)
        snprintf(out, 72, "%s.order", matrix);
    else
        snprintf(out, 72, "blk.%d.%s.order", layer, matrix);
}

static status bad_order(recorder *r, const weight *w, status code, const char *what) {
    err_set(r->e, code, "architecture %s: tensor %s %s", r->p->config.arch, w->name, what);
    return err_field(r->e, "%s", w->name);
}

/* Reads an order of n inputs; each of them is there once. */
static status read_order(recorder *r, const weight *w, int32_t *order) {
    const uint32_t n = w->cols;
    bool *seen = calloc(n + 1, sizeof *seen), good = true;
    if (!seen) return mem_exhausted(r->e, MEM_RUNTIME, "the program of the model");
    status s = checkpoint_read_rows(r->file, (size_t)w->tensor, 0, 1, order, r->e);
    for (uint32_t i = 0; i < n && good && s == OK; i++) {
        good = order[i] >= 0 && (uint32_t)order[i] < n && !seen[order[i]];
        if (good) seen[order[i]] = true;
    }
    free(seen);
    return s == OK && !good ? bad_order(r, w, ERR_FORMAT, "is no order of its inputs") : s;
}

/* Whether the other matrices have the inputs in the order of the first one, w. */
static status same_orders(recorder *r, weight *w, int layer, const char *const names[],
                          uint32_t n, int32_t *order) {
    int32_t *other = order + w->cols;
    status s = read_order(r, w, order);
    for (uint32_t i = 1; i < n && s == OK; i++) {
        order_name(w->name, layer, names[i]);
        tensor_info t;
        w->tensor = checkpoint_find(r->file, w->name, &t);
        if (w->tensor < 0 || t.type != DT_I32 || t.ne[0] != w->cols || t.ne[1] != 1)
            return bad_order(r, w, ERR_UNSUPPORTED,
                             "is missing, where a matrix that shares its inputs has one");
        r->claimed[w->tensor] = true;
        s = read_order(r, w, other);
        if (s == OK && memcmp(order, other, 4 * (size_t)w->cols) != 0)
            s = bad_order(r, w, ERR_UNSUPPORTED,
                          "has another order of inputs than the matrix beside it");
    }
    return s;
}

value_id rec_ordered(recorder *r, int layer, const char *const names[], uint32_t n,
                     value_id in) {
    char name[72];
    bool any = false;
    for (uint32_t i = 0; i < n && r->s == OK; i++) {
        order_name(name, layer, names[i]);
        any |= rec_has(r, name);
    }
    if (!any) return in;
    const value from = r->p->values[in];
    snprintf(name, sizeof name, "%s.order", names[0]);
    const weight_id id = rec_weight(r, WEIGHT_ORDER, layer, name, 1, from.cols);
    if (r->s != OK) return in;
    int32_t *order = malloc(8 * (size_t)from.cols);
    weight first = r->p->weights[id];
    r->s = order ? same_orders(r, &first, layer, names, n, order)
                 : mem_exhausted(r->e, MEM_RUNTIME, "the program of the model");
    free(order);
    op *o = rec_op(r, OP_PERMUTE, layer, in, rec_value(r, "ordered", from.rows, from.cols));
    o->n_weights = 1;
    o->w[0] = id;
    return r->s == OK ? o->out : in;
}

op *rec_conv(recorder *r, int layer, const char *name, uint32_t width, uint32_t channels,
             value_id in) {
    op *o = rec_op(r, OP_CONV, layer, in, rec_value(r, "conv", ROWS_STEP, channels));
    o->conv.width = width;
    o->n_weights = 1;
    o->w[0] = rec_vector_experts(r, true, layer, name, channels, width);
    o->state_floats = (uint64_t)conv_state_rows(width) * channels;
    return o;
}

static bool same_group(const kv_group *a, const kv_group *b) {
    return a->window == b->window && a->n_kv_heads == b->n_kv_heads &&
           a->head_dim == b->head_dim && a->latent == b->latent;
}

static void join_group(recorder *r, const op *o) {
    program *p = r->p;
    const kv_group like = {o->attention.window, o->heads.n_kv_heads, o->heads.head_dim, 0,
                           o->attention.latent};
    uint32_t k = 0;
    if (o->attention.kv_from) {
        p->layer_group[o->layer] = p->layer_group[o->attention.kv_from - 1];
        p->layer_index[o->layer] = p->layer_index[o->attention.kv_from - 1];
        return;
    }
    while (k < p->n_groups && !same_group(&p->group[k], &like)) k++;
    if (k == PROGRAM_MAX_GROUPS) {
        r->s = err_set(r->e, ERR_UNSUPPORTED,
                       "architecture %s: more than %d kinds of KV cache among its layers",
                       p->config.arch, PROGRAM_MAX_GROUPS);
        return;
    }
    if (k == p->n_groups) p->group[p->n_groups++] = like;
    p->layer_group[o->layer] = (uint16_t)k;
    p->layer_index[o->layer] = (uint16_t)p->group[k].n_layers++;
}

void rec_kv_groups(recorder *r) {
    program *p = r->p;
    const uint32_t n = p->config.n_layers;
    if (r->s != OK) return;
    p->layer_group = calloc(n, sizeof *p->layer_group);
    p->layer_index = calloc(n, sizeof *p->layer_index);
    if (!p->layer_group || !p->layer_index) {
        r->s = mem_exhausted(r->e, MEM_RUNTIME, "the program of the model");
        return;
    }
    for (uint32_t i = 0; i < p->n_ops && r->s == OK; i++)
        if (p->ops[i].kind == OP_ATTENTION && !p->ops[i].attention.bidirectional)
            join_group(r, &p->ops[i]);
}

static bool same_rope(const rope_config *a, const rope_config *b) {
    return a->n_dims == b->n_dims && a->n_live == b->n_live && a->pairing == b->pairing &&
           a->theta == b->theta && a->scaling == b->scaling && a->factor == b->factor;
}

uint32_t rec_rope(recorder *r, int layer) {
    program *p = r->p;
    const rope_config want = model_config_rope(&p->config, (uint32_t)layer);
    uint32_t k = 0;
    while (k < p->n_ropes && !same_rope(&p->rope[k], &want)) k++;
    CHECK(k < PROGRAM_MAX_ROPES); /* layers with a window, and others */
    if (k == p->n_ropes) p->rope[p->n_ropes++] = want;
    return k;
}
