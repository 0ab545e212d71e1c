/* Figures. Owns nothing but scratch memory; one thread. */
#include "load/stats.h"

#include <math.h>
#include <stdlib.h>

void load_level_clear(load_level *l) {
    free(l->v);
    free(l->gaps.v);
    *l = (load_level){0};
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double rank(const double *v, size_t n, double q) {
    double at = q * (double)(n - 1), low = floor(at);
    size_t i = (size_t)low;
    return i + 1 < n ? v[i] + (v[i + 1] - v[i]) * (at - low) : v[i];
}

load_dist load_dist_of(double *v, size_t n) {
    load_dist d = {.n = n};
    if (n == 0) return d;
    qsort(v, n, sizeof *v, by_value);
    for (size_t i = 0; i < n; i++) d.mean += v[i];
    d.mean /= (double)n;
    d.p50 = rank(v, n, 0.5);
    d.p90 = rank(v, n, 0.9);
    d.p99 = rank(v, n, 0.99);
    d.max = v[n - 1];
    return d;
}

double load_tpot_ms(const load_sample *s) {
    if (s->output_tokens < 2) return 0;
    return (double)(s->last_us - s->ttft_us) / 1e3 / (s->output_tokens - 1);
}

static bool is_good(const load_sample *s, const load_spec *spec) {
    return (spec->slo_ttft_ms <= 0 || (double)s->ttft_us / 1e3 <= spec->slo_ttft_ms) &&
           (spec->slo_itl_ms <= 0 || load_tpot_ms(s) <= spec->slo_itl_ms);
}

static void count_status(load_summary *m, int http) {
    for (size_t i = 0; i < LOAD_MAX_STATUSES; i++) {
        if (m->statuses[i].n && m->statuses[i].http != http) continue;
        m->statuses[i].http = http;
        m->statuses[i].n++;
        return;
    }
}

static void count(load_summary *m, const load_level *l, const load_spec *spec) {
    uint64_t first = UINT64_MAX, last = 0;
    m->n_sent = l->n;
    m->first_error = "";
    for (size_t i = 0; i < l->n; i++) {
        const load_sample *s = &l->v[i];
        if (s->due_us < first) first = s->due_us;
        if (s->due_us + s->e2e_us > last) last = s->due_us + s->e2e_us;
        m->faults[s->fault]++;
        if (s->fault == FAULT_STATUS) count_status(m, s->http);
        if (s->fault == FAULT_NONE) {
            m->n_ok++;
            m->n_short += s->short_output;
            m->prompt_tokens += s->prompt_tokens;
            m->cached_tokens += s->cached_tokens;
            m->output_tokens += s->output_tokens;
            m->n_good += is_good(s, spec);
        } else if (s->fault != FAULT_ABORTED) {
            m->n_failed++;
            if (!*m->first_error) m->first_error = s->why;
        }
    }
    m->wall_s = l->n ? (double)(last - first) / 1e6 : 0;
    if (m->wall_s <= 0) return;
    m->requests_per_s = (double)m->n_ok / m->wall_s;
    m->prompt_tokens_per_s = (double)m->prompt_tokens / m->wall_s;
    m->output_tokens_per_s = (double)m->output_tokens / m->wall_s;
}

typedef double (*figure)(const load_sample *);
static double ttft_ms(const load_sample *s) {
    return (double)s->ttft_us / 1e3;
}
static double e2e_ms(const load_sample *s) {
    return (double)s->e2e_us / 1e3;
}
static double delay_ms(const load_sample *s) {
    return (double)s->delay_us / 1e3;
}

static load_dist spread(const load_level *l, figure f, bool whole, bool pairs,
                        double *scratch) {
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        const load_sample *s = &l->v[i];
        if (whole && s->fault != FAULT_NONE) continue;
        if (pairs && s->output_tokens < 2) continue;
        scratch[n++] = f(s);
    }
    return load_dist_of(scratch, n);
}

status load_summarise(load_summary *m, const load_level *l, const load_spec *spec, err *e) {
    size_t most = l->n > l->gaps.n ? l->n : l->gaps.n;
    double *scratch = malloc((most ? most : 1) * sizeof *scratch);
    *m = (load_summary){0};
    if (!scratch) return err_set(e, ERR_NO_MEMORY, "no memory for the figures");
    count(m, l, spec);
    m->ttft = spread(l, ttft_ms, true, false, scratch);
    m->tpot = spread(l, load_tpot_ms, true, true, scratch);
    m->e2e = spread(l, e2e_ms, true, false, scratch);
    m->delay = spread(l, delay_ms, false, false, scratch);
    for (size_t i = 0; i < l->gaps.n; i++) scratch[i] = l->gaps.v[i] / 1e3;
    m->itl = load_dist_of(scratch, l->gaps.n);
    free(scratch);
    return OK;
}
