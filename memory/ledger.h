/* The ledger: every byte that vramd holds, by class. The terms of the plan become limits here;
 * an arena is allocated against them, populated (its pages exist before READY), and counted.
 * What libraries hold is reserved and released as they take and give it.
 *
 * Threads: alloc and free before READY and after the drain, by one thread; resize at any time, by
 * the one thread that uses the arena; reserve, release and read by any thread at any time (atomic
 * counters). */
#ifndef VRAMD_MEMORY_LEDGER_H
#define VRAMD_MEMORY_LEDGER_H

#include "memory/plan.h"

typedef struct ledger ledger;

/* The limits are the plan's totals by class. Errors: ERR_NO_MEMORY. */
status ledger_open(ledger **out, const plan *, err *);
/* One budget for several ledgers: limits and counters by class are the sums of theirs. What is
 * allocated in it itself counts against limits that one of them claimed. */
status ledger_open_shared(ledger **out, uint64_t budget_bytes, err *);
/* The same as ledger_open under a shared one: ledger_claim(plan) bytes of its budget are taken until
 * ledger_close. Errors: ERR_BUDGET where that exceeds what the others left. What all of them hold
 * never exceeds the budget: CHECKed whenever a byte is counted. */
uint64_t ledger_claim(const plan *); /* the sum of its limits */
status ledger_open_under(ledger **out, const plan *, ledger *shared, err *);
/* Another name of a ledger, for a module that is not the only one of its kind: what it counts is counted there, in
 * class cls, but for the classes kv and loading. Close it before that ledger. Errors: ERR_NO_MEMORY. */
status ledger_open_as(ledger **out, ledger *of, mem_class cls, err *);
/* A ledger without limits: for tools and tests. */
status ledger_open_unlimited(ledger **out, err *);
/* Everything must have been freed and released: CHECKs that all counters are zero. */
void ledger_close(ledger *);

/* bytes of zeroed memory, 64-byte aligned (page-aligned from 64 KiB), populated, huge pages
 * requested from 2 MiB. what: for messages. Errors: ERR_BUDGET when the class would exceed its
 * plan (field: the class), ERR_NO_MEMORY. Never returns NULL on OK. */
status ledger_alloc(ledger *, void **out, mem_class, uint64_t bytes, const char *what, err *);
/* The same, but what is in it is undefined: for memory that is written before it is read. */
status ledger_alloc_raw(ledger *, void **out, mem_class, uint64_t bytes, const char *what,
                        err *);
void ledger_free(ledger *, void *p); /* p as returned; NULL is ignored */
/* Of a shared one: whether the pages of large arenas that are freed stay, for those that are allocated
 * next. They count as class "loading" until then, and go to the system where the budget needs them,
 * and all of them with false. */
void ledger_keep_pages(ledger *shared, bool);

/* As ledger_alloc_raw, page-aligned, at the start of `most` bytes of addresses: ledger_resize
 * populates more of them, or gives pages back, while the arena is in use. Addresses behind bytes
 * are not to be touched. */
status ledger_alloc_within(ledger *, void **out, mem_class, uint64_t bytes, uint64_t most,
                           const char *what, err *);
/* Makes an arena of ledger_alloc_within so many bytes large, at most its `most`. What stays is
 * unchanged, what comes is zeroed. The count falls after pages are the system's again, and rises
 * before they are populated. Errors, after which all is as before: ERR_BUDGET, ERR_NO_MEMORY. */
status ledger_resize(ledger *, void *p, uint64_t bytes, err *);
/* Another budget, of which a class has so many bytes from now on. */
void ledger_set_budget(ledger *, uint64_t budget_bytes, mem_class, uint64_t class_bytes);

/* Counts memory that another library allocates. False when the class would exceed its plan. */
bool ledger_reserve(ledger *, mem_class, uint64_t bytes);
void ledger_release(ledger *, mem_class, uint64_t bytes);

typedef struct ledger_class {
    term_kind kind; /* the weakest of the class's terms */
    uint64_t plan_bytes, ledger_bytes, peak_bytes;
} ledger_class;

typedef struct ledger_view {
    ledger_class cls[MEM_N_CLASSES];
    /* plan_bytes: without class "loading", but with the pages that a shared one keeps */
    uint64_t budget_bytes, plan_bytes, ledger_bytes, peak_bytes;
} ledger_view;

/* A snapshot; counters of different classes may be a moment apart. */
void ledger_read(const ledger *, ledger_view *out);

/* What a device's driver reports, in bytes. */
typedef struct device_memory {
    uint64_t total_bytes, used_bytes; /* of the whole device, other processes included */
    uint64_t outside_bytes; /* measured, ours, and not in arenas: context, libraries, graphs */
    /* Weights that lie in the host's memory: what a step copies of them, what steps have copied, how long
     * they waited for it, and the rate of the link, measured; 0: there are none. */
    uint64_t step_bytes, staged_bytes, stall_us, link_bytes_per_s;
    /* What of the model's weights the CPU computes with in place of the device, as stored, and how long it has
     * computed; 0: nothing. */
    uint64_t computed_bytes, computed_us;
} device_memory;

#endif
