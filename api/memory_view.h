/* What is said about memory: the plan as JSON, /v1/memory as JSON and as a table. */
#ifndef VRAMD_API_MEMORY_VIEW_H
#define VRAMD_API_MEMORY_VIEW_H

#include "api/port.h"

/* The operating system's view, read at most once a second: the kernel walks every page of the
 * process to answer, which takes milliseconds where the process is large. Zero-initialise. */
typedef struct memory_probe {
    process_memory last;
    uint64_t read_us;
} memory_probe;
const process_memory *memory_probe_read(memory_probe *);

/* One JSON object, without a newline. */
void memory_view_json(buf *, port *, memory_probe *);
void memory_view_text(buf *, port *, memory_probe *); /* a table for a terminal */
void plan_json(buf *, const plan *, const model_config *, const char *device);

#endif
