/* Tables of plans: context lengths by numbers of sequences, and types of weights within a budget.
 * Any thread, but for what prints; owns nothing. */
#ifndef VRAMD_DAEMON_PLAN_GRID_H
#define VRAMD_DAEMON_PLAN_GRID_H

#include "base/buf.h"
#include "daemon/plan/plan_report.h"
#include "daemon/plan/quality_table.h"

enum { GRID_LENGTHS = 6, GRID_SEQS = 6 };

/* Bytes of the memory that holds the KV cache, with all sequences at full length. */
typedef struct plan_grid {
    uint32_t length[GRID_LENGTHS], seqs[GRID_SEQS];
    uint32_t n_lengths;
    uint64_t bytes[GRID_LENGTHS][GRID_SEQS];
    bool fits[GRID_LENGTHS][GRID_SEQS];
} plan_grid;

/* m: planned, OK or ERR_BUDGET, of the question's options. */
void plan_grid_make(plan_grid *, const machine *m, const plan_question *);
void plan_grid_print(const plan_grid *, const machine *);
void plan_grid_json(buf *, const plan_grid *);

enum { FIT_TYPES = 6 };

typedef struct plan_fit_row {
    const char *type;
    const quality_row *quality; /* NULL: none is needed */
    bool planned;               /* false: it cannot be; nothing below is set */
    bool fits;
    uint64_t weight_bytes, least_bytes; /* the least: the smallest budget that works */
    double sequences;                   /* of max_model_len tokens; where it fits */
} plan_fit_row;

typedef struct plan_fit {
    uint64_t budget;
    plan_fit_row row[FIT_TYPES];
} plan_fit;

/* The model with its weights in other types, within a budget of its own. */
void plan_fit_make(plan_fit *, uint64_t budget, const machine *m, const plan_question *);
void plan_fit_print(const plan_fit *, const machine *);
void plan_fit_json(buf *, const plan_fit *);

#endif
