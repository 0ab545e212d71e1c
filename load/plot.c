/* Three panels. Owns scratch memory; one thread. */
#include "load/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "load/chart.h"
#include "load/report.h"

enum { MAX_BINS = 240 };

/* ---- over levels ---- */

enum { TOKENS, TTFT_50, TTFT_90, TTFT_99, ITL_50, ITL_90, ITL_99, N_CURVES };

static void plot_levels(buf *b, const load_run *run, const load_summary *m) {
    double x[LOAD_MAX_LEVELS], value[LOAD_MAX_LEVELS], y[N_CURVES][LOAD_MAX_LEVELS];
    size_t n = run->n;
    for (size_t i = 0; i < n; i++) {
        double none = m[i].n_ok ? 0 : NAN;
        x[i] = (double)i;
        value[i] = run->levels[i].value;
        y[TOKENS][i] = m[i].output_tokens_per_s;
        y[TTFT_50][i] = m[i].ttft.p50 + none, y[TTFT_90][i] = m[i].ttft.p90 + none;
        y[TTFT_99][i] = m[i].ttft.p99 + none, y[ITL_50][i] = m[i].itl.p50 + none;
        y[ITL_90][i] = m[i].itl.p90 + none, y[ITL_99][i] = m[i].itl.p99 + none;
    }
    chart_panel p = {.x_title = load_level_word(run->spec->mode),
                     .x_lo = -0.3,
                     .x_hi = (double)n - 0.7,
                     .tick_at = x,
                     .tick_value = value,
                     .n_ticks = n};
    p.title = "output tokens per second";
    chart_add(b, p, 0, &(chart_series){"all requests", CHART_BLUE, x, y[TOKENS], n, false}, 1);
    p.title = "time to first token, ms";
    chart_add(b, p, 1,
              (chart_series[]){{"p50", CHART_BLUE, x, y[TTFT_50], n, false},
                               {"p90", CHART_ORANGE, x, y[TTFT_90], n, false},
                               {"p99", CHART_RED, x, y[TTFT_99], n, false}},
              3);
    p.title = "inter-token latency, ms";
    chart_add(b, p, 2,
              (chart_series[]){{"p50", CHART_BLUE, x, y[ITL_50], n, false},
                               {"p90", CHART_ORANGE, x, y[ITL_90], n, false},
                               {"p99", CHART_RED, x, y[ITL_99], n, false}},
              3);
}

/* ---- over time ---- */

typedef struct gap {
    uint32_t bin;
    double ms;
} gap;

typedef struct timeline {
    double width_s; /* of a bin */
    size_t n_bins, n_gaps, n_ok;
    double x[MAX_BINS], tokens[MAX_BINS], itl_50[MAX_BINS], itl_99[MAX_BINS];
    gap *gaps;
    double *start, *ttft, *scratch;
} timeline;

static int by_bin(const void *a, const void *b) {
    uint32_t x = ((const gap *)a)->bin, y = ((const gap *)b)->bin;
    return (x > y) - (x < y);
}

static size_t bin_of(const timeline *t, uint64_t us) {
    size_t i = (size_t)((double)us / 1e6 / t->width_s);
    return i < t->n_bins ? i : t->n_bins - 1;
}

/* Pieces of text weigh as many tokens as the answer had for each. */
static void add_sample(timeline *t, const load_sample *s, const uint32_t *gaps, uint64_t zero) {
    uint64_t at = s->due_us - zero + s->ttft_us;
    double weight = (double)s->output_tokens / (s->n_gaps + 1);
    t->start[t->n_ok] = (double)(s->due_us - zero) / 1e6;
    t->ttft[t->n_ok++] = (double)s->ttft_us / 1e3;
    t->tokens[bin_of(t, at)] += weight;
    for (uint32_t i = 0; i < s->n_gaps; i++) {
        at += gaps[i];
        t->tokens[bin_of(t, at)] += weight;
        t->gaps[t->n_gaps++] = (gap){(uint32_t)bin_of(t, at), gaps[i] / 1e3};
    }
}

static void fill(timeline *t, const load_level *l, uint64_t first) {
    size_t at = 0;
    for (size_t i = 0; i < l->n; at += l->v[i++].n_gaps)
        if (l->v[i].fault == FAULT_NONE) add_sample(t, &l->v[i], l->gaps.v + at, first);
    for (size_t i = 0; i < t->n_bins; i++) {
        t->x[i] = ((double)i + 0.5) * t->width_s;
        t->tokens[i] /= t->width_s;
        t->itl_50[i] = t->itl_99[i] = NAN;
    }
    qsort(t->gaps, t->n_gaps, sizeof *t->gaps, by_bin);
    for (size_t i = 0, n; i < t->n_gaps; i += n) {
        for (n = 0; i + n < t->n_gaps && t->gaps[i + n].bin == t->gaps[i].bin; n++)
            t->scratch[n] = t->gaps[i + n].ms;
        load_dist d = load_dist_of(t->scratch, n);
        t->itl_50[t->gaps[i].bin] = d.p50;
        t->itl_99[t->gaps[i].bin] = d.p99;
    }
}

static void plot_timeline(buf *b, const timeline *t, double wall_s) {
    chart_panel p = {.x_title = "seconds", .x_hi = wall_s};
    p.title = "output tokens per second";
    chart_add(b, p, 0,
              &(chart_series){"all requests", CHART_BLUE, t->x, t->tokens, t->n_bins, false},
              1);
    p.title = "time to first token of each request, ms, by its start";
    chart_add(b, p, 1,
              &(chart_series){"requests", CHART_BLUE, t->start, t->ttft, t->n_ok, true}, 1);
    p.title = "inter-token latency, ms";
    chart_add(b, p, 2,
              (chart_series[]){{"p50", CHART_BLUE, t->x, t->itl_50, t->n_bins, false},
                               {"p99", CHART_RED, t->x, t->itl_99, t->n_bins, false}},
              2);
}

static status plot_time(buf *b, const load_level *l, const load_summary *m, err *e) {
    timeline *t = calloc(1, sizeof *t);
    double wall = m->wall_s > 0 ? m->wall_s : 1;
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i].due_us < first) first = l->v[i].due_us;
    if (t) {
        t->width_s = wall < 60 ? fmax(wall / 60, 0.05) : wall / MAX_BINS;
        t->n_bins = (size_t)fmin(MAX_BINS, ceil(wall / t->width_s));
        t->gaps = malloc((l->gaps.n + 1) * sizeof *t->gaps);
        t->scratch = malloc((l->gaps.n + 1) * sizeof *t->scratch);
        t->start = malloc((l->n + 1) * sizeof *t->start);
        t->ttft = malloc((l->n + 1) * sizeof *t->ttft);
    }
    bool ok = t && t->gaps && t->scratch && t->start && t->ttft;
    if (ok) {
        fill(t, l, first);
        plot_timeline(b, t, wall);
    }
    if (t) {
        free(t->gaps);
        free(t->scratch);
        free(t->start);
        free(t->ttft);
    }
    free(t);
    return ok ? OK : err_set(e, ERR_NO_MEMORY, "no memory for the plot");
}

status load_plot(buf *b, const load_run *run, const load_summary *m, err *e) {
    const load_spec *s = run->spec;
    buf title;
    buf_init(&title, NULL);
    buf_addf(&title, "vramd bench: %s", s->model);
    if (run->n == 1)
        buf_addf(&title, ", %s %g", load_level_word(s->mode), run->levels[0].value);
    chart_begin(b, buf_cstr(&title), "", 3);
    buf_clear(&title);
    status st = OK;
    if (run->n > 1)
        plot_levels(b, run, m);
    else if (run->n == 1)
        st = plot_time(b, &run->levels[0], &m[0], e);
    chart_end(b);
    if (st == OK && b->failed) st = err_set(e, ERR_NO_MEMORY, "no memory for the plot");
    return st;
}
