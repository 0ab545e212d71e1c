/* The CPU engine as a part of another one: of a model that has a device's engine it computes some operations.
 * Its program is made of runs, each of which begins with OP_RECV for what it reads and ends with OP_SEND for
 * what it gives: to and from memory of the other engine, where every value has a place. There is no batch:
 * rows are rows. The engine is opened as any with backend_cpu, and closed so; in between these two calls
 * are all, by one thread at a time. */
#ifndef VRAMD_ENGINE_CPU_PART_H
#define VRAMD_ENGINE_CPU_PART_H

#include "engine/engine.h"

/* Of an OP_RECV or OP_SEND: where its value lies in that memory, [n_rows][cols] of F32, F16 or BF16. Of a
 * value of OP_ROUTE: the experts of all rows, int32, then their weights, float32, [n_rows][top_k] each. */
typedef struct cpu_crossing {
    uint64_t at;
    dtype type;
    uint32_t n_experts; /* of OP_ROUTE's value; else 0 */
} cpu_crossing;

/* Both are borrowed. crossing: [n_ops] of the program; what belongs to other operations is not looked at. */
void cpu_part_begin(engine *, const cpu_crossing *, void *memory);
/* Operations [from, to), whole runs, for so many rows, at most max_rows. */
void cpu_part_run(engine *, uint32_t from, uint32_t to, uint32_t n_rows);

#endif
