/* SVG by hand: panels one above the other. Stateless. */
#include "load/chart.h"

#include <math.h>
#include <stdio.h>

enum {
    WIDTH = 760,
    PANEL = 220, /* height with title and labels */
    LEFT = 72,
    RIGHT = 130, /* the legend's */
    TOP = 64,    /* of the first panel */
    PLOT_H = 150,
    PLOT_W = WIDTH - LEFT - RIGHT
};

/* The least of 1, 2, 5 times a power of ten that is >= v / 5. */
static double round_step(double v) {
    double p = pow(10, floor(log10(v / 5)));
    double f = v / 5 / p;
    return p * (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10);
}

static double x_of(const chart_panel *p, double x) {
    return LEFT + (x - p->x_lo) / (p->x_hi - p->x_lo) * PLOT_W;
}
static double y_of(const chart_panel *p, double y, int top) {
    return top + PLOT_H - y / p->y_hi * PLOT_H;
}

static void add_label(buf *b, double x, double y, const char *anchor, const char *text) {
    buf_addf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
             text);
}

static void add_axes(buf *b, const chart_panel *p, int top) {
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

static void add_line(buf *b, const chart_panel *p, const chart_series *s, int top) {
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

static void add_dots(buf *b, const chart_panel *p, const chart_series *s, int top) {
    size_t every = s->n / 4000 + 1; /* enough to see; a picture stays small */
    for (size_t i = 0; i < s->n; i += every)
        if (!isnan(s->y[i]))
            buf_addf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"%s\"/>\n",
                     x_of(p, s->x[i]), y_of(p, s->y[i], top), s->dots ? "2" : "3", s->colour);
}

void chart_add(buf *b, chart_panel p, int at, const chart_series *s, size_t n) {
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

/* Text of ours in XML. */
static void add_escaped(buf *b, const char *s) {
    for (; *s; s++) {
        if (*s == '<' || *s == '&')
            buf_add(b, *s == '<' ? STR("&lt;") : STR("&amp;"));
        else if ((unsigned char)*s >= 0x20)
            buf_addc(b, *s);
    }
}

void chart_begin(buf *b, const char *title, const char *note, int n_panels) {
    const int height = TOP + n_panels * PANEL;
    buf_addf(
        b,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 "
        "%d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<style>.t{font-weight:bold}.g{stroke:#ddd}</style>\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        WIDTH, height, WIDTH, height);
    buf_addf(b, "<text x=\"%d\" y=\"24\" font-size=\"15\">", LEFT);
    add_escaped(b, title);
    buf_addf(b, "</text>\n<text x=\"%d\" y=\"40\" font-size=\"10\">", LEFT);
    add_escaped(b, note);
    buf_add(b, STR("</text>\n"));
}

void chart_end(buf *b) {
    buf_add(b, STR("</svg>\n"));
}
