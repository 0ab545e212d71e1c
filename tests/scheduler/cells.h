/* The picture of a scheduler's blocks and states agrees with its counts. */
#ifndef TESTS_SCHEDULER_CELLS_H
#define TESTS_SCHEDULER_CELLS_H

#include <stdlib.h>

#include "base/check.h"
#include "scheduler/sched.h"

enum { CELLS_MOST = 1 << 16 };

static inline void cells_count(const uint32_t *cell, sched_cells c, uint32_t n[]) {
    CHECK(c.stride == 1);
    for (uint32_t i = 0; i <= CELL_SEQUENCE; i++) n[i] = 0;
    for (uint32_t i = 0; i < c.n; i++) n[cell[i] < CELL_SEQUENCE ? cell[i] : CELL_SEQUENCE]++;
}

static inline void cells_check(const sched *s, uint32_t n_groups) {
    static uint32_t cell[CELLS_MOST];
    uint32_t n[CELL_SEQUENCE + 1];
    sched_stats st;
    sched_read(s, &st);
    for (uint32_t k = 0; k < n_groups; k++) {
        const sched_blocks_view *g = &st.group[k];
        const sched_cells c = sched_block_cells(s, k, cell, CELLS_MOST);
        cells_count(cell, c, n);
        CHECK(n[CELL_FREE] == g->free && n[CELL_CACHED] == g->cached);
        CHECK(n[CELL_FENCED] == g->fenced);
        CHECK(n[CELL_USED] + n[CELL_SHARED] + n[CELL_SEQUENCE] == g->used);
        CHECK(n[CELL_OUT] == c.n - g->free - g->cached - g->fenced - g->used);
    }
    const sched_cells c = sched_state_cells(s, cell, CELLS_MOST);
    cells_count(cell, c, n);
    CHECK(c.n == st.state_slots && n[CELL_CACHED] == st.state_checkpoints);
    CHECK(c.n == 0 || n[CELL_SEQUENCE] == st.state_live);
}

#endif
