/* Loading: all threads of the team read rows of the weights by bounded preads into a buffer of
 * their own and pack them into the arena. Owns nothing beyond the call; engine thread and
 * workers. */
#include "engine/cpu/step.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "engine/cpu/experts.h"
#include "memory/term.h"

typedef struct loading {
    cpu_engine *e;
    unsigned char *bounce;
    atomic_bool failed;
    err *errs; /* [threads] */
    status *status;
} loading;

/* Rows of w that one reading takes: multiples of 32. */
static uint32_t rows_at_once(const cpu_layout *l, const weight *w) {
    uint64_t row;
    CHECK(dtype_bytes(w->type, 1, w->cols, &row));
    uint64_t n = l->bounce_bytes / row / 32 * 32;
    return n < w->rows ? (uint32_t)n : w->rows;
}

/* Of one expert, or of a whole matrix. */
static uint32_t pieces_of_one(const cpu_layout *l, const weight *w) {
    return (uint32_t)ceil_div(w->rows, rows_at_once(l, w));
}

/* A row of the tensor as column col of the matrix. */
static void turn_row(const weight *w, const float *row, uint32_t col, unsigned char *out) {
    for (uint32_t i = 0; i < w->rows; i++) {
        const size_t at = (size_t)i * w->cols + col;
        if (w->type == DT_F32)
            memcpy(out + 4 * at, &row[i], 4);
        else
            ((uint16_t *)(void *)out)[at] =
                w->type == DT_F16 ? half_of_float(row[i]) : bf16_of_float(row[i]);
    }
}

/* Pieces of a matrix that is turned are whole experts: TURNED_ROWS rows at a time become columns. */
static status load_turned(loading *g, weight_id id, uint32_t expert, unsigned char *bounce,
                          err *er) {
    cpu_engine *e = g->e;
    const weight *w = &e->program->weights[id];
    const turned_place at = layout_turned(w);
    const uint64_t bytes = packed_bytes(w->type, w->rows, w->cols);
    unsigned char *to = e->weights + e->layout.weights[id].at + expert * bytes;
    float *row = (float *)(void *)(bounce + at.row);
    for (uint32_t i = 0, n; i < w->cols; i += n) {
        n = w->cols - i < TURNED_ROWS ? w->cols - i : TURNED_ROWS;
        status s =
            model_read_turned(e->model, id, expert * w->cols + i, n, bounce + at.raw, er);
        if (s != OK) return s;
        packed_store(bounce + at.tiles, w->stored, n, w->rows, 0, n, bounce + at.raw);
        const packed p = {bounce + at.tiles, w->stored, n, w->rows, NULL};
        for (uint32_t k = 0; k < n; k++) {
            packed_row(&p, k, row);
            turn_row(w, row, i + k, bounce + at.out);
        }
    }
    packed_store(to, w->type, w->rows, w->cols, 0, w->rows, bounce + at.out);
    return OK;
}

static uint32_t pieces_of(const cpu_layout *l, const program *p, weight_id id) {
    const weight *w = &p->weights[id];
    if (id == l->table || l->weights[id].in_slots) return 0;
    if (w->turned) return w->n_experts;
    return weight_is_matrix(w) ? pieces_of_one(l, w) * (w->n_experts ? w->n_experts : 1) : 1;
}

static status load_piece(loading *g, weight_id id, uint32_t piece, void *bounce, err *er) {
    cpu_engine *e = g->e;
    const weight *w = &e->program->weights[id];
    unsigned char *to = e->weights + e->layout.weights[id].at;
    if (w->role == WEIGHT_VECTOR) return model_read_vector(e->model, id, (float *)to, er);
    if (w->role == WEIGHT_ORDER) return model_read_rows(e->model, id, 0, 1, to, er);
    if (w->turned) return load_turned(g, id, piece, bounce, er);
    const uint32_t each = pieces_of_one(&e->layout, w), expert = piece / each;
    uint32_t step = rows_at_once(&e->layout, w), row = piece % each * step;
    uint32_t n = w->rows - row < step ? w->rows - row : step;
    status s = model_read_rows(e->model, id, expert * w->rows + row, n, bounce, er);
    to += expert * packed_bytes(w->type, w->rows, w->cols);
    if (s == OK) packed_store(to, w->type, w->rows, w->cols, row, n, bounce);
    return s;
}

static void load_thread(void *arg, uint32_t thread) {
    loading *g = arg;
    cpu_engine *e = g->e;
    void *bounce = g->bounce + thread * e->layout.bounce_bytes;
    uint32_t next = team_next(e->team, 1), seen = 0;
    for (weight_id id = 0; id < e->program->n_weights; id++) {
        uint32_t n = pieces_of(&e->layout, e->program, id);
        for (; next < seen + n; next = team_next(e->team, 1)) {
            if (atomic_load_explicit(&g->failed, memory_order_relaxed)) return;
            g->status[thread] = load_piece(g, id, next - seen, bounce, &g->errs[thread]);
            if (g->status[thread] == OK) continue;
            atomic_store_explicit(&g->failed, true, memory_order_relaxed);
            return;
        }
        seen += n;
    }
}

static bool follows(const packed *a, const packed *b) {
    return a->type == b->type && a->n_in == b->n_in && a->scale == b->scale &&
           a->n_out % 16 == 0 &&
           (const unsigned char *)a->tiles + packed_bytes(a->type, a->n_out, a->n_in) ==
               b->tiles;
}

static bool bias_follows(const float *a, uint32_t n, const float *b) {
    return a ? b == a + n : b == NULL;
}

static bool has_experts(const op *o) {
    return o->kind == OP_EXPERTS_GATE_UP || o->kind == OP_EXPERTS_DOWN;
}

/* Gives each operation its weights. */
static void resolve_op(cpu_engine *e, cpu_op *c, const op *o) {
    const program *p = e->program;
    *c = (cpu_op){.op = o, .experts = has_experts(o) ? e->experts : NULL};
    uint32_t col = 0;
    for (uint32_t i = 0; i < o->n_weights; i++) {
        if (o->w[i] == NO_WEIGHT) continue;
        const weight *w = &p->weights[o->w[i]];
        const unsigned char *at = e->weights + e->layout.weights[o->w[i]].at;
        const float *bias = NULL;
        if (o->bias[i] != NO_WEIGHT)
            bias = (const float *)(e->weights + e->layout.weights[o->bias[i]].at);
        if (w->role == WEIGHT_VECTOR) {
            c->vec[i] = (const float *)at;
            c->bias[i] = bias;
            continue;
        }
        if (w->role == WEIGHT_ORDER) {
            c->order = (const uint32_t *)at;
            continue;
        }
        packed m = {at, w->type, w->rows, w->cols, NULL};
        if (w->scale != NO_WEIGHT)
            m.scale = (const float *)(e->weights + e->layout.weights[w->scale].at);
        uint32_t k = c->n_parts;
        if (o->kind == OP_LINEAR && k && follows(&c->part[k - 1], &m) &&
            bias_follows(c->bias[k - 1], c->part[k - 1].n_out, bias)) {
            c->part[k - 1].n_out += m.n_out;
        } else {
            c->part[k] = m;
            c->bias[k] = bias;
            c->first_col[k] = col;
            c->n_parts++;
        }
        col += w->rows;
    }
}

/* Layers with experts count from 0. */
static void place_experts(cpu_engine *e, cpu_op *c) {
    if (!c->experts) return;
    const bool down = c->op->kind == OP_EXPERTS_DOWN;
    const op *up = down ? c->op - 1 : c->op;
    const expert_parts x = layout_expert_parts(e->program, up);
    for (const op *o = e->program->ops; o < up; o++)
        c->expert_layer += o->kind == OP_EXPERTS_GATE_UP;
    for (uint32_t i = 0; i < c->n_parts; i++) c->slot_at[i] = x.at[down ? x.n - 1 : i];
}

static void arrange_kernel(cpu_engine *e, const op *o) {
    if (o->kind != OP_CONV) return;
    conv_arrange((float *)(e->weights + e->layout.weights[o->w[0]].at),
                 e->program->values[o->out].cols, o->conv.width);
}

status cpu_load(cpu_engine *e, err *er) {
    loading g = {.e = e};
    void *bounce = NULL;
    status s = ledger_alloc(e->ledger, &bounce, MEM_LOADING,
                            e->layout.bounce_bytes * e->opt.n_threads, "reading buffers", er);
    if (s != OK) return s;
    g.bounce = bounce;
    g.errs = calloc(e->opt.n_threads, sizeof *g.errs);
    g.status = calloc(e->opt.n_threads, sizeof *g.status);
    if (!g.errs || !g.status) {
        s = mem_exhausted(er, MEM_LOADING, "loading");
        goto done;
    }
    team_run(e->team, load_thread, &g);
    for (uint32_t i = 0; i < e->opt.n_threads && s == OK; i++) {
        s = g.status[i];
        if (s != OK) *er = g.errs[i];
    }
    if (e->layout.experts.n_layers && s == OK) s = experts_open(&e->experts, e, er);
    for (uint32_t i = 0; i < e->program->n_ops && s == OK; i++) {
        resolve_op(e, &e->op[i], &e->program->ops[i]);
        place_experts(e, &e->op[i]);
        arrange_kernel(e, &e->program->ops[i]);
    }
    if (e->layout.table != NO_WEIGHT && s == OK)
        s = model_keep_rows(e->model, e->layout.table, &e->table, er);
done:
    free(g.errs);
    free(g.status);
    ledger_free(e->ledger, bounce);
    return s;
}
