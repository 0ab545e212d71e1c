/* One evaluation: the windows of a text as scored prompts through the scheduler, the runner and
 * the engine of the daemon, so that what is measured is what is served. Main thread. */
#ifndef VRAMD_DAEMON_EVAL_RUN_H
#define VRAMD_DAEMON_EVAL_RUN_H

#include <signal.h>

#include "daemon/eval/eval_file.h"
#include "daemon/eval/eval_stats.h"
#include "daemon/eval/eval_text.h"
#include "daemon/machine.h"

typedef struct eval_job {
    const eval_text *text;
    const eval_file *reference; /* compared with; NULL: nothing is */
    eval_file *written;         /* records go there; NULL: nowhere */
    uint64_t weights[2];        /* eval_hash_weights */
    bool progress;              /* a bar on stderr */
    const volatile sig_atomic_t *interrupted;
    eval_point *point; /* [text->n_scored], taken by eval_reserve and filled by eval_run */
    void *scratch;     /* likewise */
} eval_job;

/* Whether rows of logits are needed: not for the perplexity alone. */
static inline bool eval_needs_logits(const eval_job *j) {
    return j->reference || j->written;
}

/* What an evaluation holds beside the machine: exact. */
void eval_terms(const eval_job *, uint32_t n_vocab, terms *);
/* Takes that from the ledger of m, after machine_reserve. */
status eval_reserve(eval_job *, machine *m, err *);
void eval_release(eval_job *, machine *m);
/* Errors: those of engine and file; ERR_INVALID when it was interrupted; ERR_UNSUPPORTED where
 * the model's logits are not finite. */
status eval_run(eval_job *, machine *m, err *);

#endif
