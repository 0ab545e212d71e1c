/* All that vramd plan and POST /v1/plan answer of one plan. Any thread. */
#ifndef VRAMD_DAEMON_PLAN_ANSWER_H
#define VRAMD_DAEMON_PLAN_ANSWER_H

#include "daemon/plan/plan_choose.h"
#include "daemon/plan/plan_grid.h"
#include "json/in.h"

/* What is answered beside the plan itself. */
typedef struct plan_asked {
    double bandwidth; /* bytes/s; 0: the card's, or assumed */
    double link;      /* the same, of the way from the host's memory to a device */
    double host;      /* the same, of the host's memory beside a device */
    uint64_t fit;     /* bytes; 0: no types of weights */
    bool grid, rule_of_thumb;
} plan_asked;

typedef struct plan_answer {
    plan_verdict verdict;
    plan_bandwidth bandwidth;
    plan_choice choice[PLAN_GOALS];
    plan_grid grid;
    plan_fit fit;
} plan_answer;

/* m: planned, OK or ERR_BUDGET, of the question's options. */
void plan_answer_make(plan_answer *, const machine *m, const plan_question *,
                      const plan_asked *);
/* One object: docs/plan.schema.json. more: its memory. */
void plan_answer_json(buf *, buf *more, const plan_answer *, const machine *,
                      const plan_question *, const plan_asked *);

/* POST /v1/plan: the plan of a machine that is loaded, with the options of the body in place of
 * its own; body: an object of options that change bytes, "memory" in bytes, and "bandwidth",
 * "fit", "grid". Allocates in out's arena, and terms on the heap while it runs. Errors:
 * ERR_INVALID (field). */
status plan_answer_request(buf *out, const machine *of, const json_t *body, err *);

#endif
