/* Times over the load at which they were reached, and the KV cache over the time of one run. */
#include "daemon/simulate/simulation_plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "load/chart.h"

/* Of the load asked for. */
static const double part_of_load[] = {0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2};
enum { N_LOADS = sizeof part_of_load / sizeof *part_of_load, FULL_LOAD = 6 };
enum { TTFT_50, TTFT_99, ITL_50, ITL_99, TOKENS, N_CURVES };

typedef struct curves {
    double x[N_LOADS], y[N_CURVES][N_LOADS];
    double kv_x[KV_INTERVALS], kv_y[KV_INTERVALS];
    size_t n_kv;
} curves;

static void keep_level(curves *c, size_t k, const fleet_result *r) {
    const double none = r->n_ok > 0 ? 0 : NAN;
    c->y[TTFT_50][k] = fleet_times_at(&r->ttft, 0.5) / 1e3 + none;
    c->y[TTFT_99][k] = fleet_times_at(&r->ttft, 0.99) / 1e3 + none;
    c->y[ITL_50][k] = fleet_times_at(&r->itl, 0.5) / 1e3 + none;
    c->y[ITL_99][k] = fleet_times_at(&r->itl, 0.99) / 1e3 + none;
    c->y[TOKENS][k] = (double)r->output_tokens / ((double)r->makespan_us / 1e6 + 1e-6);
}

static void keep_kv(curves *c, const fleet_kv *k) {
    for (uint32_t i = 0; i < k->n; i++) {
        c->kv_x[i] = ((double)i + 0.5) * (double)k->width_us / 1e6;
        c->kv_y[i] = k->samples[i] > 0 ? 100 * k->sum[i] / k->samples[i] : NAN;
    }
    c->n_kv = k->n;
}

static status run_levels(const simulation *s, double rate, curves *c, fleet_result *r, err *e) {
    status rc = OK;
    char doing[80];
    for (size_t k = 0; k < N_LOADS && rc == OK; k++) {
        simulation at = *s;
        at.speed *= part_of_load[k];
        c->x[k] = rate > 0 ? rate * part_of_load[k] : at.speed;
        snprintf(doing, sizeof doing, "picture: load %zu of %d", k + 1, N_LOADS);
        rc = simulation_run(&at, rate * part_of_load[k], s->seed, doing, r, e);
        if (rc != OK) return rc;
        keep_level(c, k, r);
        if (k == FULL_LOAD) keep_kv(c, &r->kv);
    }
    return rc;
}

static void draw(buf *b, const simulation *s, double rate, const curves *c) {
    char title[160], note[320];
    snprintf(title, sizeof title, "vramd simulate: simulated, seed %llu, %s",
             (unsigned long long)s->seed, s->tag);
    snprintf(note, sizeof note, "costs %s", s->source);
    chart_panel p = {.x_title = rate > 0 ? "requests/s" : "speed", .x_hi = c->x[N_LOADS - 1]};
    chart_begin(b, title, note, 4);
    p.title = "simulated time to first token, ms, over the load";
    chart_add(b, p, 0,
              (chart_series[]){{"p50", CHART_BLUE, c->x, c->y[TTFT_50], N_LOADS, false},
                               {"p99", CHART_RED, c->x, c->y[TTFT_99], N_LOADS, false}},
              2);
    p.title = "simulated inter-token latency, ms, over the load";
    chart_add(b, p, 1,
              (chart_series[]){{"p50", CHART_BLUE, c->x, c->y[ITL_50], N_LOADS, false},
                               {"p99", CHART_RED, c->x, c->y[ITL_99], N_LOADS, false}},
              2);
    p.title = "simulated output tokens per second, over the load";
    chart_add(b, p, 2,
              &(chart_series){"all requests", CHART_BLUE, c->x, c->y[TOKENS], N_LOADS, false},
              1);
    p = (chart_panel){.title = "simulated use of the KV cache, %, over time at the full load",
                      .x_title = "seconds",
                      .x_hi = c->n_kv > 0 ? c->kv_x[c->n_kv - 1] : 1};
    chart_add(b, p, 3, &(chart_series){"used", CHART_BLUE, c->kv_x, c->kv_y, c->n_kv, false},
              1);
    chart_end(b);
}

status simulation_plot(const simulation *s, double rate, buf *out, err *e) {
    curves *c = calloc(1, sizeof *c);
    fleet_result *r = malloc(sizeof *r);
    status rc = c && r ? run_levels(s, rate, c, r, e)
                       : err_set(e, ERR_NO_MEMORY, "no memory for the picture");
    if (rc == OK) draw(out, s, rate, c);
    if (rc == OK && out->failed) rc = err_set(e, ERR_NO_MEMORY, "no memory for the picture");
    free(c);
    free(r);
    return rc;
}
