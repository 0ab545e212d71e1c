/* SVG by hand: three panels, one above the other. Owns scratch memory; one thread. */
#include "load/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "load/report.h"

enum {
    WIDTH = 760,
    PANEL = 220, /* height with title and labels */
    LEFT = 72,
    RIGHT = 130, /* the legend's */
    TOP = 64,    /* of the first panel */
    PLOT_H = 150,
    PLOT_W = WIDTH - LEFT - RIGHT,
    MAX_BINS = 240
};

typedef struct series {
    const char *name, *colour;
    const double *x, *y; /* NaN in y: a hole */
    size_t n;
    bool dots; /* points alone */
} series;

typedef struct panel {
    const char *title, *x_title;
    double x_lo, x_hi, y_hi;
    const double *tick_at, *tick_value; /* x; NULL: round numbers */
    size_t n_ticks;
} panel;

static const char blue[] = "#1f5fa8", orange[] = "#d9730d", red[] = "#b3261e";

/* The least of 1, 2, 5 times a power of ten that is >= v / 5. */
static double round_step(double v) {
    double p = pow(10, floor(log10(v / 5)));
    double f = v / 5 / p;
    return p * (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10);
}

static double x_of(const panel *p, double x) {
    return LEFT + (x - p->x_lo) / (p->x_hi - p->x_lo) * PLOT_W;
}
static double y_of(const panel *p, double y, int top) {
    return top + PLOT_H - y / p->y_hi * PLOT_H;
}

static void add_label(buf *b, double x, double y, const char *anchor, const char *text) {
    buf_addf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
             text);
}

static void add_axes(buf *b, const panel *p, int top) {
    char text[32];
    buf_addf(b, "<text x=\"%d\" y=\"%d\" class=\"t\">%s</text>\n", LEFT, top - 10, p->title);
    double step = round_step(p->y_hi);
    /* NOLINTNEXTLINE(cert-flp30-c): the margin of 0.0001 is for the rounding of the sum */
    for (double v = 0; v <= p->y_hi * 1.0001; v += step) {
        double y = y_of(p, v, top);
        buf_addf(b, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"g\"/>\n", LEFT,
                 y, LEFT + PLOT_W, y);
        snprintf(text, sizeof text, "%g", v);
        add_label(b, LEFT - 8, y + 4, "end", text);
    }
    step = round_step(p->x_hi - p->x_lo);
    size_t n = p->tick_at ? p->n_ticks : (size_t)((p->x_hi - p->x_lo) / step * 1.0001) + 1;
    for (size_t i = 0; i < n; i++) {
        double at = p->tick_at ? p->tick_at[i] : p->x_lo + (double)i * step;
        snprintf(text, sizeof text, "%g", p->tick_at ? p->tick_value[i] : at);
        add_label(b, x_of(p, at), top + PLOT_H + 16, "middle", text);
    }
    add_label(b, LEFT + PLOT_W + 10, top + PLOT_H + 16, "start", p->x_title);
}

static void add_line(buf *b, const panel *p, const series *s, int top) {
    bool down = false;
    buf_addf(b, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" d=\"", s->colour);
    for (size_t i = 0; i < s->n; i++) {
        if (!isnan(s->y[i]))
            buf_addf(b, "%c%.1f %.1f ", down ? 'L' : 'M', x_of(p, s->x[i]),
                     y_of(p, s->y[i], top));
        down = !isnan(s->y[i]);
    }
    buf_add(b, STR("\"/>\n"));
}

static void add_dots(buf *b, const panel *p, const series *s, int top) {
    size_t every = s->n / 4000 + 1; /* enough to see; a picture stays small */
    for (size_t i = 0; i < s->n; i += every)
        if (!isnan(s->y[i]))
            buf_addf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"%s\"/>\n",
                     x_of(p, s->x[i]), y_of(p, s->y[i], top), s->dots ? "2" : "3", s->colour);
}

/* Panel number at, from the top. */
static void add_panel(buf *b, panel p, int at, const series *s, size_t n) {
    int top = TOP + at * PANEL;
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < s[k].n; i++)
            if (s[k].y[i] > p.y_hi) p.y_hi = s[k].y[i];
    if (!(p.y_hi > 0)) p.y_hi = 1;
    double step = round_step(p.y_hi);
    p.y_hi = ceil(p.y_hi / step) * step;
    add_axes(b, &p, top);
    for (size_t k = 0; k < n; k++) {
        if (!s[k].dots) add_line(b, &p, &s[k], top);
        if (s[k].dots || p.tick_at) add_dots(b, &p, &s[k], top);
        buf_addf(b, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>\n",
                 LEFT + PLOT_W + 14, top + 4 + 20 * (int)k, s[k].colour);
        add_label(b, LEFT + PLOT_W + 32, top + 14 + 20 * (int)k, "start", s[k].name);
    }
}

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
    panel p = {.x_title = load_level_word(run->spec->mode),
               .x_lo = -0.3,
               .x_hi = (double)n - 0.7,
               .tick_at = x,
               .tick_value = value,
               .n_ticks = n};
    p.title = "output tokens per second";
    add_panel(b, p, 0, &(series){"all requests", blue, x, y[TOKENS], n, false}, 1);
    p.title = "time to first token, ms";
    add_panel(b, p, 1,
              (series[]){{"p50", blue, x, y[TTFT_50], n, false},
                         {"p90", orange, x, y[TTFT_90], n, false},
                         {"p99", red, x, y[TTFT_99], n, false}},
              3);
    p.title = "inter-token latency, ms";
    add_panel(b, p, 2,
              (series[]){{"p50", blue, x, y[ITL_50], n, false},
                         {"p90", orange, x, y[ITL_90], n, false},
                         {"p99", red, x, y[ITL_99], n, false}},
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
    panel p = {.x_title = "seconds", .x_hi = wall_s};
    p.title = "output tokens per second";
    add_panel(b, p, 0, &(series){"all requests", blue, t->x, t->tokens, t->n_bins, false}, 1);
    p.title = "time to first token of each request, ms, by its start";
    add_panel(b, p, 1, &(series){"requests", blue, t->start, t->ttft, t->n_ok, true}, 1);
    p.title = "inter-token latency, ms";
    add_panel(b, p, 2,
              (series[]){{"p50", blue, t->x, t->itl_50, t->n_bins, false},
                         {"p99", red, t->x, t->itl_99, t->n_bins, false}},
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

/* Text of ours in XML. */
static void add_escaped(buf *b, const char *s) {
    for (; *s; s++) {
        if (*s == '<' || *s == '&')
            buf_add(b, *s == '<' ? STR("&lt;") : STR("&amp;"));
        else if ((unsigned char)*s >= 0x20)
            buf_addc(b, *s);
    }
}

status load_plot(buf *b, const load_run *run, const load_summary *m, err *e) {
    const load_spec *s = run->spec;
    int height = TOP + 3 * PANEL;
    buf_addf(
        b,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 "
        "%d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<style>.t{font-weight:bold}.g{stroke:#ddd}</style>\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        WIDTH, height, WIDTH, height);
    buf_addf(b, "<text x=\"%d\" y=\"24\" font-size=\"15\">vramd bench: ", LEFT);
    add_escaped(b, s->model);
    if (run->n == 1) buf_addf(b, ", %s %g", load_level_word(s->mode), run->levels[0].value);
    buf_add(b, STR("</text>\n"));
    status st = OK;
    if (run->n > 1)
        plot_levels(b, run, m);
    else if (run->n == 1)
        st = plot_time(b, &run->levels[0], &m[0], e);
    buf_add(b, STR("</svg>\n"));
    if (st == OK && b->failed) st = err_set(e, ERR_NO_MEMORY, "no memory for the plot");
    return st;
}
