/* See gpu_layers.h. */
#include "daemon/gpu_layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/machine_budget.h"
#include "daemon/plan/rank_plan.h"

/* False: no number of digits alone. */
static bool read_number(const char *text, uint32_t *out) {
    char *end;
    if (text[0] < '0' || text[0] > '9') return false;
    const unsigned long long n = strtoull(text, &end, 10);
    *out = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    return *end == '\0';
}

/* Ranks divide what a device holds; none of them has layers on the host. */
static status check_ranks(const machine *m, err *e) {
    const engine_options *x = &m->engine_opt;
    const uint32_t n_ranks = rank_plan_count(&m->opt);
    if (n_ranks == 1 || !m->on_device || (!x->host_layers && !x->host_experts)) return OK;
    err_set(e, ERR_UNSUPPORTED, "layers on the host (gpu_layers, n_cpu_moe) with %u ranks",
            n_ranks);
    err_hint(e, "leave gpu_layers and n_cpu_moe out, or have one rank");
    return err_field(e, x->host_layers ? "gpu_layers" : "n_cpu_moe");
}

status gpu_layers_read(machine *m, err *e) {
    const char *text = m->opt.gpu_layers;
    const uint32_t n_layers = m->model->program.config.n_layers;
    uint32_t n = n_layers;
    m->layers_auto = strcmp(text, "auto") == 0;
    m->engine_opt.host_computes = m->opt.offload == OFFLOAD_COMPUTE;
    m->engine_opt.host_layers = 0;
    m->engine_opt.host_experts = m->opt.n_cpu_moe < n_layers ? m->opt.n_cpu_moe : n_layers;
    if (m->layers_auto || strcmp(text, "all") == 0) return OK;
    if (!read_number(text, &n)) {
        err_set(e, ERR_INVALID,
                "gpu_layers = \"%s\" is no number from 0 to %u, nor auto or all", text,
                n_layers);
        err_hint(e, "the model has %u layers; a larger number means all of them", n_layers);
        return err_field(e, "gpu_layers");
    }
    if (n < n_layers) m->engine_opt.host_layers = n_layers - n;
    return OK;
}

bool gpu_layers_computed(const machine *m) {
    const engine_options *x = &m->engine_opt;
    return m->on_device && x->host_computes && (x->host_layers || x->host_experts);
}

void gpu_layers_log(const machine *m) {
    const uint32_t n_layers = m->model->program.config.n_layers;
    uint32_t n = 0;
    const bool number = read_number(m->opt.gpu_layers, &n);
    if (!m->on_device && (number || m->opt.n_cpu_moe))
        log_info(
            "gpu_layers and n_cpu_moe are of the CUDA engine: the CPU computes all layers");
    else if (m->on_device && m->layers_auto && m->engine_opt.host_layers)
        log_info(
            "gpu_layers = auto: %u of %u layers are on the device, which does not hold all",
            n_layers - m->engine_opt.host_layers, n_layers);
    else if (m->on_device && number && n > n_layers)
        log_info("gpu_layers = %u: all %u layers of the model are on the device", n, n_layers);
}

void gpu_layers_fix(const machine *m, options *o) {
    const uint32_t n_layers = m->model->program.config.n_layers;
    snprintf(o->gpu_layers, sizeof o->gpu_layers, "%u", n_layers - m->engine_opt.host_layers);
}

void gpu_layers_keep(const machine *of, options *o) {
    const bool whole = of->plan.fits && of->engine_opt.host_layers == 0;
    if (of->on_device && of->layers_auto && whole && strcmp(o->gpu_layers, "auto") == 0)
        gpu_layers_fix(of, o);
}

/* ---- gpu_layers = auto ---- */

typedef struct search {
    machine *m;
    const machine_wish *w;
    machine_solver solve;
} search;

static status solve_with(const search *x, uint32_t host_layers, err *e) {
    machine *m = x->m;
    machine_unsolve(m);
    m->engine_opt.host_layers = host_layers;
    return x->solve(m, x->w, 0, e);
}

/* What is asked for of the KV cache comes before layers. */
static bool fits_with(const search *x, uint32_t host_layers) {
    const machine *m = x->m;
    err e;
    const uint64_t most = (uint64_t)m->opt.max_model_len * m->opt.max_num_seqs;
    const uint64_t want = m->opt.kv_cache_tokens < most ? m->opt.kv_cache_tokens : most;
    const status s = solve_with(x, host_layers, &e);
    return (s == OK || s == ERR_BUDGET) && m->plan.fits && m->plan.kv_tokens >= want;
}

/* 0: no number does. */
static uint32_t fewest_that_fit(const search *x) {
    uint32_t low = 1, high = x->m->model->program.config.n_layers;
    if (!fits_with(x, high)) return 0;
    while (low < high) {
        const uint32_t mid = low + (high - low) / 2;
        if (fits_with(x, mid))
            high = mid;
        else
            low = mid + 1;
    }
    return high;
}

status gpu_layers_solve(machine *m, const machine_wish *w, machine_solver solve, err *e) {
    status s = check_ranks(m, e);
    if (s == OK) s = solve(m, w, 0, e);
    if (s != ERR_BUDGET || !m->on_device || !m->layers_auto || m->plan.fits ||
        rank_plan_count(&m->opt) > 1)
        return s;
    const search x = {m, w, solve};
    const err why = *e;
    const uint32_t n = fewest_that_fit(&x);
    const status then = solve_with(&x, n, e);
    if (n == 0) *e = why;
    return then;
}
