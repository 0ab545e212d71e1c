/* Charts of lines over numbers as one SVG picture of panels. Text goes in as it is but for title
 * and note, so it must have no XML. */
#ifndef VRAMD_LOAD_CHART_H
#define VRAMD_LOAD_CHART_H

#include <stdbool.h>

#include "base/buf.h"

typedef struct chart_series {
    const char *name, *colour;
    const double *x, *y; /* NaN in y: a hole */
    size_t n;
    bool dots; /* points alone */
} chart_series;

typedef struct chart_panel {
    const char *title, *x_title;
    double x_lo, x_hi, y_hi;            /* y_hi: at least; it grows with the values */
    const double *tick_at, *tick_value; /* x; NULL: round numbers */
    size_t n_ticks;
} chart_panel;

#define CHART_BLUE   "#1f5fa8"
#define CHART_ORANGE "#d9730d"
#define CHART_RED    "#b3261e"

/* note: below the title, small; "": none. */
void chart_begin(buf *, const char *title, const char *note, int n_panels);
/* Panel number at, from the top. */
void chart_add(buf *, chart_panel, int at, const chart_series *, size_t n);
void chart_end(buf *);

#endif
