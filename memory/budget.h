/* How much memory there is (the machine's, the cgroup's, this process's), and the budget that
 * an option means. Reads /proc and /sys; any thread. */
#ifndef VRAMD_MEMORY_BUDGET_H
#define VRAMD_MEMORY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct budget {
    uint64_t bytes;  /* one number for everything */
    char source[96]; /* "memory = 6GiB", "the cgroup's memory.max", ...: for messages */
    bool automatic;  /* nobody gave a number: the plan takes what is wanted, within bytes, and
                        that becomes the budget */
    const char *option; /* its name; NULL is "memory" */
} budget;

/* Memory that a budget can be a share of: the machine's, its cgroup's, a device's. */
typedef struct memory_capacity {
    char name[64];             /* "the machine", "the cgroup", "NVIDIA H200" */
    char available_name[64];   /* what bounds available: for messages */
    uint64_t total, available; /* available now: what "auto" may take at most */
} memory_capacity;

memory_capacity memory_capacity_host(void);
/* The host's capacity by the lowest limit of a cgroup (UINT64_MAX: none), the machine's memory, and
 * what is available of it. A cgroup's limit counts less what the kernel needs for us, which it
 * charges too (page tables, sockets): a budget and 2% are within the limit. */
memory_capacity memory_capacity_within(uint64_t limit, uint64_t total, uint64_t available);
/* The budget that an option of that name (a literal) and value means. word: bytes with a unit,
 * a percentage ("75%") or a fraction ("0.75") of the capacity, or "auto": what is wanted, within
 * what is available now. Errors: ERR_INVALID, ERR_BUDGET (more than there is). */
status budget_parse(budget *out, const char *option, const char *word, const memory_capacity *,
                    err *);
/* One that no plan reaches, and of which two can be added; the plan takes what is wanted. */
budget budget_unlimited(void);
/* memory.max of our cgroup (v2) or its v1 twin, the lowest up the tree; UINT64_MAX when
 * unlimited. Physical memory, and what of it could be had now (MemAvailable). */
uint64_t machine_cgroup_limit(void);
uint64_t machine_total_bytes(void);
uint64_t machine_available_bytes(void);

/* What the operating system says of this process, in bytes, from /proc/self/smaps_rollup, and
 * what malloc has given out (mallinfo2): the part of the anonymous memory that is no waste of
 * the heap. False when it cannot be read. */
typedef struct process_memory {
    uint64_t anonymous_bytes, file_bytes, rss_bytes;
    uint64_t heap_bytes;
} process_memory;
bool process_memory_read(process_memory *out);

#endif
