/* What `vramd top` shows: a frame of lines made of samples. Pure: the same arguments give the
 * same bytes. One thread. */
#ifndef VRAMD_DAEMON_TOP_DRAW_H
#define VRAMD_DAEMON_TOP_DRAW_H

#include "base/buf.h"
#include "daemon/top/top_read.h"

typedef struct top_view {
    const char *url;
    const char *problem; /* why the sample is old; NULL: it is not */
    const top_sample *now;
    const top_rates *rates;  /* NULL: unknown yet */
    uint32_t columns, lines; /* no line is longer; lines 0: as many as there are */
    bool terminal;           /* colours, and each line erases the rest of its own */
} top_view;

/* Appends the frame: at most `lines` lines, each ended by a newline but the last one on a
 * terminal. */
void top_draw(buf *, const top_view *);

/* The map of a group's blocks: counts of cells that add up to n, in the proportion of the
 * blocks; what there is has one cell at least, as long as there are enough of them. Blocks
 * fewer than cells: one cell each. Returns the number of cells used. */
typedef struct top_cells {
    uint32_t used, fenced, cached, free;
} top_cells;
uint32_t top_map(const top_group *, uint32_t n, top_cells *out);

#endif
