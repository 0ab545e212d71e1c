/* What vramd eval prints. Main thread. */
#ifndef VRAMD_DAEMON_EVAL_REPORT_H
#define VRAMD_DAEMON_EVAL_REPORT_H

#include "daemon/eval/eval_run.h"

enum { EVAL_JSON_VERSION = 1 };

typedef struct eval_report {
    const machine *m;
    const eval_job *job;
    const eval_summary *sum;
    engine_info engine;
    double
        seconds; /* of the evaluation: only in the table, since JSON is the same in each run */
} eval_report;

/* Bytes of the KV cache that a token takes, in all layers. */
uint64_t eval_kv_token_bytes(const machine *);
void eval_print_table(const eval_report *);
/* One object, docs/eval.md; a figure that there is not, is null. */
void eval_print_json(const eval_report *, buf *out);

#endif
