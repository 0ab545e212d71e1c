/* Values that come from another engine, and go there (part.h). All threads of the step, each with numbers of
 * its own. */
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "engine/cpu/part.h"
#include "engine/cpu/step.h"

static void take(dtype type, const void *from, size_t n, float *to) {
    const uint16_t *half = from;
    if (type == DT_F32)
        memcpy(to, from, n * sizeof *to);
    else if (type == DT_F16)
        for (size_t i = 0; i < n; i++) to[i] = half_to_float(half[i]);
    else
        for (size_t i = 0; i < n; i++) to[i] = bf16_to_float(half[i]);
}

static void give(dtype type, const float *from, size_t n, void *to) {
    uint16_t *half = to;
    if (type == DT_F32)
        memcpy(to, from, n * sizeof *from);
    else if (type == DT_F16)
        for (size_t i = 0; i < n; i++) half[i] = half_of_float(from[i]);
    else
        for (size_t i = 0; i < n; i++) half[i] = bf16_of_float(from[i]);
}

/* What a thread takes or gives of a value, all of whose rows are one run of numbers; and where it lies in the
 * memory. */
typedef struct share {
    size_t from, n;
    unsigned char *at;
} share;

static share share_of(const cpu_engine *e, const cpu_op *c, const act *a, uint32_t thread) {
    const cpu_crossing *x = &e->crossing[c - e->op];
    const size_t n = (size_t)a->n_rows * a->n_in, threads = e->step.n_threads;
    const size_t from = n * thread / threads, to = n * (thread + 1) / threads;
    return (share){from, to - from,
                   e->crossing_memory + x->at + from * (x->type == DT_F32 ? 4 : 2)};
}

/* What a router gave: as OP_ROUTE of this engine leaves it. */
static void recv_routed(cpu_engine *e, const cpu_op *c, const cpu_crossing *x,
                        uint32_t thread) {
    const uint32_t n_rows = e->step.batch->n_rows, k = e->program->values[c->op->out].cols / 2;
    const int32_t *expert = (const int32_t *)(const void *)(e->crossing_memory + x->at);
    const float *weight = (const float *)(const void *)(expert + (size_t)n_rows * k);
    route_word *chosen = (route_word *)value_f(e, c->op->out);
    if (thread) return;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < k; i++) {
            const uint32_t at = (uint32_t)expert[r * k + i];
            CHECK(at < x->n_experts);
            chosen[r * 2 * k + i].expert = at;
            chosen[r * 2 * k + k + i].weight = weight[r * k + i];
        }
    route_sort(&e->step.routed, chosen, n_rows, k, x->n_experts);
    e->step.routed.by = c->op->out;
}

void part_recv(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const cpu_crossing *x = &e->crossing[c - e->op];
    if (x->n_experts) {
        recv_routed(e, c, x, thread);
        return;
    }
    const act out = value_act(e, c->op->out);
    const share s = share_of(e, c, &out, thread);
    take(x->type, s.at, s.n, out.f + s.from);
    quantise_written(e, c->op->out, thread);
}

void part_send(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act in = value_act(e, c->op->in);
    const share s = share_of(e, c, &in, thread);
    give(e->crossing[c - e->op].type, in.f + s.from, s.n, s.at);
}
