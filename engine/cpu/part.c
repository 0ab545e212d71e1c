/* See part.h. */
#include "engine/cpu/part.h"

#include "base/check.h"
#include "engine/cpu/cpu.h"

void cpu_part_begin(engine *head, const cpu_crossing *crossing, void *memory) {
    cpu_engine *e = (cpu_engine *)head;
    e->crossing = crossing;
    e->crossing_memory = memory;
}

void cpu_part_run(engine *head, uint32_t from, uint32_t to, uint32_t n_rows) {
    cpu_engine *e = (cpu_engine *)head;
    const batch rows = {.n_rows = n_rows};
    CHECK(e->crossing && n_rows <= e->opt.max_rows && to <= e->program->n_ops);
    e->step.batch = &rows;
    cpu_step_run(e, from, to);
    e->step.batch = NULL;
}
