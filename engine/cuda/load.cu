/* Loading: rows of the weights are read by bounded reads into pinned buffers of the host,
 * copied to where the step's values will lie, and stored from there as the engine computes with
 * them, while the next rows are read. Owns two events for the call; the thread that opens. */
#include "engine/cuda/cuda.h"
#include "engine/cuda/upload.h"

#include <string.h>

typedef struct loader {
    cuda_engine *e;
    cudaEvent_t free_[CUDA_BOUNCES]; /* buffer i is free again */
    uint32_t next;
} loader;

static unsigned char *host_bounce(const loader *g, uint32_t i) {
    return (unsigned char *)g->e->host->bounce + i * g->e->l->bounce_bytes;
}
static unsigned char *device_bounce(const loader *g, uint32_t i) {
    return (unsigned char *)cuda_at(g->e, g->e->l->values_at + i * g->e->l->bounce_bytes);
}

/* Waits until the next buffer's last copy and kernel are done. */
static status take_bounce(loader *g, uint32_t *i, err *er) {
    *i = g->next++ % CUDA_BOUNCES;
    return cuda_check(g->e->host, cudaEventSynchronize(g->free_[*i]), "loading weights", er);
}

static status give_bounce(loader *g, uint32_t i, err *er) {
    return cuda_check(g->e->host, cudaEventRecord(g->free_[i], g->e->stream), "loading weights",
                      er);
}

static cu_matrix matrix_of(const cuda_engine *e, const cuda_place *x, uint32_t expert) {
    cu_matrix m;
    m.data = cuda_at(e, x->at + x->bytes / x->n_experts * expert);
    m.type = x->type, m.n_out = x->n_out, m.n_in = x->n_in;
    return m;
}

static status load_vector(loader *g, weight_id id, err *er) {
    const cuda_engine *e = g->e;
    const cuda_weight *at = &e->l->weights[id];
    const weight *w = &e->p->weights[id];
    const uint64_t bytes = (uint64_t)w->rows * w->cols * 4;
    uint32_t i = 0;
    status s = take_bounce(g, &i, er);
    if (s == OK) s = e->host->read_vector(e->host->model, id, (float *)host_bounce(g, i), er);
    if (s != OK) return s;
    float *to = (float *)cuda_at(e, e->l->places[at->place].at) + at->row;
    cudaError_t ce =
        cudaMemcpyAsync(to, host_bounce(g, i), bytes, cudaMemcpyHostToDevice, e->stream);
    s = cuda_check(e->host, ce, "loading weights", er);
    return s == OK ? give_bounce(g, i, er) : s;
}

/* Rows [row, row + n) of an expert's matrix. */
static status load_rows(loader *g, weight_id id, uint32_t expert, uint32_t row, uint32_t n,
                        err *er) {
    const cuda_engine *e = g->e;
    const cuda_weight *at = &e->l->weights[id];
    const cu_matrix m = matrix_of(e, &e->l->places[at->place], expert);
    const uint32_t first = expert * e->p->weights[id].rows + row;
    const uint64_t row_bytes = at->row_bytes;
    uint32_t i = 0;
    status s = take_bounce(g, &i, er);
    if (s == OK) s = e->host->read_rows(e->host->model, id, first, n, host_bounce(g, i), er);
    if (s != OK) return s;
    cudaError_t ce = cudaMemcpyAsync(device_bounce(g, i), host_bounce(g, i), n * row_bytes,
                                     cudaMemcpyHostToDevice, e->stream);
    if (ce == cudaSuccess)
        ce = cu_matrix_store(e->stream, &m, cu_upload_type(e->p->weights[id].type),
                             at->row + row, n, device_bounce(g, i));
    s = cuda_check(e->host, ce, "loading weights", er);
    return s == OK ? give_bounce(g, i, er) : s;
}

static status load_matrix(loader *g, weight_id id, err *er) {
    const weight *w = &g->e->p->weights[id];
    const uint64_t row_bytes = g->e->l->weights[id].row_bytes;
    uint64_t step = g->e->l->bounce_rows / row_bytes / CU_STORE_ROWS * CU_STORE_ROWS;
    if (step > w->rows) step = w->rows;
    status s = OK;
    for (uint32_t i = 0; i < (w->n_experts ? w->n_experts : 1) && s == OK; i++)
        for (uint32_t row = 0; row < w->rows && s == OK; row += (uint32_t)step) {
            uint32_t n = w->rows - row < step ? w->rows - row : (uint32_t)step;
            s = load_rows(g, id, i, row, n, er);
        }
    return s;
}

/* Measurements have no file: a place is filled at its first weight. */
static status load_random(const cuda_engine *e, weight_id id, err *er) {
    const cuda_place *x = &e->l->places[e->l->weights[id].place];
    if (x->first != id) return OK;
    cudaError_t ce = cudaSuccess;
    for (uint32_t i = 0; i < x->n_experts && ce == cudaSuccess; i++) {
        const cu_matrix m = matrix_of(e, x, i);
        ce = cu_matrix_random(e->stream, &m, id + 1 + (uint64_t)i * e->p->n_weights);
    }
    return cuda_check(e->host, ce, "random weights", er);
}

static status load_one(loader *g, weight_id id, err *er) {
    if (g->e->p->weights[id].role == WEIGHT_VECTOR) return load_vector(g, id, er);
    return g->e->host->read_rows ? load_matrix(g, id, er) : load_random(g->e, id, er);
}

/* Those of one staged layer, or those that stay. */
static status load_some(loader *g, uint32_t staged, err *er) {
    const cuda_layout *l = g->e->l;
    status s = OK;
    for (weight_id id = 0; id < g->e->p->n_weights && s == OK; id++)
        if (l->places[l->weights[id].place].staged == staged) s = load_one(g, id, er);
    return s;
}

static status load_all(loader *g, err *er) {
    status s = load_some(g, CUDA_RESIDENT, er);
    for (uint32_t i = 0; i < g->e->l->n_staged && s == OK; i++) {
        s = load_some(g, i, er);
        if (s == OK)
            s = cuda_check(g->e->host, cuda_stage_store(g->e, i), "loading weights", er);
    }
    return s;
}

/* ---- the weights of each operation ---- */

static const float *vector_of(const cuda_engine *e, weight_id id) {
    const cuda_weight *w = &e->l->weights[id];
    return (const float *)cuda_at(e, e->l->places[w->place].at) + w->row;
}

static void resolve_op(cuda_engine *e, cuda_op *c, const op *o) {
    uint32_t col = 0, last = UINT32_MAX, row = 0;
    memset(c, 0, sizeof *c);
    c->o = o;
    if (e->l->aside[o - e->p->ops].on_host) return;
    for (uint32_t i = 0; i < o->n_weights; i++) {
        if (o->w[i] == NO_WEIGHT) continue;
        const cuda_weight *w = &e->l->weights[o->w[i]];
        const cuda_place *x = &e->l->places[w->place];
        if (x->is_vector) {
            c->vec[i] = (const float *)cuda_at(e, x->at) + w->row;
            if (i == 0 && o->bias[0] != NO_WEIGHT) c->bias = vector_of(e, o->bias[0]);
            continue;
        }
        if (w->place != last || w->row != row) { /* else: within the part before */
            cuda_part *part = &c->part[c->n_parts++];
            part->w = matrix_of(e, x, 0);
            part->first_col = col;
            part->stride = x->bytes / x->n_experts;
            if (o->bias[i] != NO_WEIGHT) {
                part->bias = vector_of(e, o->bias[i]);
            }
        }
        last = w->place;
        row = w->row + e->p->weights[o->w[i]].rows;
        col += e->p->weights[o->w[i]].rows;
    }
}

static bool reads(const op *o, value_id v) {
    return o->in == v || o->by == v || o->residual == v;
}

static bool feeds_codes(const cuda_engine *e, uint32_t i) {
    const uint32_t n = e->p->n_ops;
    const value_id out = e->p->ops[i].out;
    if (out == NO_VALUE || i + 1 == n || e->l->aside[i].on_host || e->l->aside[i + 1].on_host)
        return false;
    const cuda_op *next = &e->op[i + 1];
    const op_kind k = next->o->kind;
    if (next->o->in != out || (k != OP_LINEAR && k != OP_GATE_UP && k != OP_LOGITS))
        return false;
    for (uint32_t j = 0; j < next->n_parts; j++)
        if (!cu_matrix_is_coded(next->part[j].w.type)) return false;
    for (uint32_t j = i + 2; j < n; j++)
        if (reads(&e->p->ops[j], out)) return false;
    return true;
}

status cuda_load(cuda_engine *e, err *er) {
    loader g = {e, {NULL}, 0};
    status s = OK;
    const uint64_t bytes = CUDA_BOUNCES * e->l->bounce_bytes;
    s = cuda_check(e->host, cudaHostRegister(e->host->bounce, bytes, cudaHostRegisterDefault),
                   "pinning the loader's buffers", er);
    if (s != OK) return s;
    for (uint32_t i = 0; i < CUDA_BOUNCES && s == OK; i++)
        s = cuda_check(e->host, cudaEventCreateWithFlags(&g.free_[i], cudaEventDisableTiming),
                       "events", er);
    if (s == OK) s = load_all(&g, er);
    cudaError_t ce = cudaStreamSynchronize(e->stream);
    if (s == OK) s = cuda_check(e->host, ce, "loading weights", er);
    for (uint32_t i = 0; i < CUDA_BOUNCES; i++)
        if (g.free_[i]) cudaEventDestroy(g.free_[i]);
    cudaHostUnregister(e->host->bounce);
    for (uint32_t i = 0; i < e->p->n_ops && s == OK; i++)
        resolve_op(e, &e->op[i], &e->p->ops[i]);
    for (uint32_t i = 0; i < e->p->n_ops && s == OK; i++)
        e->op[i].feeds_codes = feeds_codes(e, i);
    return s;
}
