/* Rows from a checkpoint to a file of other types, by threads, in a bounded amount of memory. */
#ifndef VRAMD_DAEMON_QUANTIZE_CONVERT_H
#define VRAMD_DAEMON_QUANTIZE_CONVERT_H

#include <signal.h>

#include "base/err.h"
#include "quant/job.h"

/* What a method may do beside rounding; members may be NULL. */
typedef struct quant_hooks {
    void *arg;
    /* Before the first row of a tensor is read; tensors come in the order of the job, one at a time, and
     * no other hook runs meanwhile. */
    status (*begin)(void *arg, const char *tensor, dtype to, err *);
    /* Changes rows that were read, before they are stored. Any thread, different rows at once. */
    void (*values)(void *arg, const char *tensor, uint64_t first_row, uint64_t n_rows,
                   uint64_t n_cols, float *rows);
    /* true: out has the rows; false: they are encoded here. thread: 0 .. n_threads - 1. */
    bool (*encode)(void *arg, const char *tensor, dtype to, const float *rows,
                   uint64_t first_row, uint64_t n_rows, uint64_t n_cols, void *out,
                   uint32_t thread);
    /* The weights of a tensor's inputs, out: [n_cols], for choosing types. *found false: there are none of it.
     * Any thread. */
    status (*importance)(void *arg, const char *tensor, uint64_t n_cols, float *out,
                         bool *found, err *);
} quant_hooks;

typedef struct conversion {
    const quant_job *job;     /* finished */
    const quant_hooks *hooks; /* NULL: none */
    uint64_t salt; /* of the method and its statistics: part of the file's identity */
    const char *out;
    uint32_t n_threads;
    bool force, progress;
    const volatile sig_atomic_t *interrupted;
    uint64_t
        method_bytes; /* that the method holds meanwhile, rows included; 0: none. For the report */
    uint64_t resumed_bytes; /* filled in: of the file, not computed again */
    double seconds;         /* likewise */
} conversion;

/* Bytes that a thread holds: rows as read, as numbers, as stored. A type that is not chosen yet counts as F32. */
uint64_t convert_bytes_of_thread(const quant_job *);
/* Errors: those of journal.h and of reading; ERR_UNSUPPORTED (numbers that are not finite, or whose scale
 * 16 bits do not hold; field: the tensor); ERR_INVALID (interrupted: the same command continues);
 * ERR_NO_MEMORY. */
status convert(conversion *, err *);

#endif
