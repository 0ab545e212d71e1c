/* See computer.h. */
#include "engine/cuda/computer.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/cpu/part.h"
#include "engine/cuda/hosting.h"

struct computer {
    model part; /* its program is the layout's */
    const cuda_layout *layout;
    engine *engine;
    unsigned char *memory;
    atomic_ullong ran_us;
};

status computer_open(computer **out, const cuda_layout *l, const model *m,
                     const engine_options *o, void *memory, ledger *host, err *e) {
    const engine_options own = hosting_options(o);
    computer *c = calloc(1, sizeof *c);
    *out = c;
    if (!c) return err_set(e, ERR_NO_MEMORY, "no memory for the engine");
    c->part = (model){.program = *l->host_program, .file = m->file};
    c->layout = l;
    c->memory = memory;
    const status s = engine_open(&c->engine, &backend_cpu, &c->part, &own, host, NULL, e);
    if (s == OK) cpu_part_begin(c->engine, l->host_io, memory);
    return s;
}

void computer_close(computer *c) {
    if (c) engine_close(c->engine);
    free(c);
}

void computer_run(void *arg, uint32_t run, uint32_t n_rows) {
    computer *c = arg;
    const cuda_host_run *r = &c->layout->host_runs[run];
    const uint64_t since = clock_us();
    cpu_part_run(c->engine, r->from, r->to, n_rows);
    atomic_fetch_add_explicit(&c->ran_us, clock_us() - since, memory_order_relaxed);
}

/* A row of zeros, routed to the first experts. */
static void give_row(const computer *c, const cuda_host_run *r) {
    const program *p = c->layout->host_program;
    memset(c->memory, 0, c->layout->crossing_bytes);
    for (uint32_t i = r->from; i < r->to; i++) {
        const cpu_crossing *x = &c->layout->host_io[i];
        if (p->ops[i].kind != OP_RECV || !x->n_experts) continue;
        int32_t *expert = (int32_t *)(void *)(c->memory + x->at);
        for (int32_t k = 0; k < (int32_t)p->values[p->ops[i].out].cols / 2; k++) expert[k] = k;
    }
}

uint64_t computer_measure(computer *c) {
    uint64_t best = UINT64_MAX;
    for (int k = 0; k < 3; k++) {
        uint64_t us = 0;
        for (uint32_t i = 0; i < c->layout->n_host_runs; i++) {
            const cuda_host_run *r = &c->layout->host_runs[i];
            give_row(c, r);
            const uint64_t since = clock_us();
            cpu_part_run(c->engine, r->from, r->to, 1);
            us += clock_us() - since;
        }
        if (us < best) best = us;
    }
    return best;
}

uint64_t computer_us(const computer *c) {
    return c ? atomic_load_explicit(&c->ran_us, memory_order_relaxed) : 0;
}

void computer_info(const computer *c, engine_info *out) {
    engine_describe(c->engine, out);
}
