/* Values of a step: where they lie, as float32 and as quantised activations, and who computes
 * which part of them. No state of its own; any thread of the step. */
#include "engine/cpu/step.h"

#include <string.h>

#include "base/check.h"
#include "engine/cpu/bf16.h"

span step_share(uint32_t n, uint32_t threads, uint32_t thread) {
    uint32_t unit = n >= 16 * threads ? ACT_GROUP : 1;
    uint64_t units = ceil_div(n, unit);
    uint64_t a = units * thread / threads * unit, b = units * (thread + 1) / threads * unit;
    return (span){a < n ? (uint32_t)a : n, b < n ? (uint32_t)b : n};
}

static uint32_t rows_of(const cpu_engine *e, value_id v) {
    const batch *b = e->step.batch;
    return (uint32_t)value_rows(&e->program->values[v], b->n_rows, b->n_logit_rows);
}

float *value_f(const cpu_engine *e, value_id v) {
    const value_place *p = &e->layout.values[v];
    if (p->is_logits) return e->logits;
    if (p->is_shared) return (float *)(e->shared + p->f);
    return p->forms & FORM_F ? (float *)(e->activations + p->f) : NULL;
}

act value_act(const cpu_engine *e, value_id v) {
    const value_place *p = &e->layout.values[v];
    return (act){.family = e->layout.family,
                 .n_in = e->program->values[v].cols,
                 .n_rows = rows_of(e, v),
                 .f = value_f(e, v),
                 .q = p->forms & FORM_Q ? e->activations + p->q : NULL};
}

/* By a view of that part of the row's group as an act. */
void quantise_part(const cpu_engine *e, const act *a, uint32_t row, uint32_t k0, uint32_t n,
                   const float *x) {
    act part = {.family = a->family, .n_in = n, .n_rows = act_rows(a->family)};
    part.q = act_part(a, row, k0);
    e->linear->quantise(x, &part, row % part.n_rows);
}

act value_rest(const cpu_engine *e, value_id v) {
    const value_place *p = &e->layout.values[v];
    act a = value_act(e, v);
    a.f = NULL;
    a.q = p->forms & FORM_REST ? e->activations + p->rest : NULL;
    return a;
}

void quantise_row(const cpu_engine *e, const act *a, const act *rest, uint32_t r,
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

void quantise_written(cpu_engine *e, value_id v, uint32_t thread) {
    const act a = value_act(e, v), rest = value_rest(e, v);
    if (!a.q) return;
    team_barrier(e->team, thread);
    const span s = step_share(a.n_rows, e->step.n_threads, thread);
    for (uint32_t r = s.from; r < s.to; r++)
        quantise_row(e, &a, &rest, r, a.f + (size_t)r * a.n_in, thread);
}

static void copy_codes(const act *in, uint32_t from, const act *out, uint32_t to) {
    const uint32_t i = from % act_rows(in->family), j = to % act_rows(in->family);
    if (in->family == ACTIVATION_BF16) {
        const bf16_block *a = bf16_group(in, from);
        bf16_block *b = act_part(out, to, 0);
        for (uint32_t k = 0; k < in->n_in; k += 32, a++, b++)
            memcpy(b->x[j], a->x[i], sizeof b->x[j]);
        return;
    }
    for (uint32_t k = 0; k < in->n_in / 32; k++) {
        const act_block *a = act_group(in, from) + k;
        act_block *b = act_group(out, to) + k;
        memcpy(b->q[j], a->q[i], sizeof b->q[j]);
        b->d[j] = a->d[i], b->s[j] = a->s[i], b->neg8[j] = a->neg8[i];
        memcpy(b->half[j], a->half[i], sizeof b->half[j]);
    }
}

void row_copy(const act *in, uint32_t from, const act *out, uint32_t to) {
    if (out->f)
        memcpy(out->f + (size_t)to * out->n_in, in->f + (size_t)from * in->n_in,
               sizeof(float) * in->n_in);
    if (out->q) copy_codes(in, from, out, to);
}
