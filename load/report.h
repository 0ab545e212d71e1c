/* A finished run for people and for programs. docs/bench.md describes the JSON. */
#ifndef VRAMD_LOAD_REPORT_H
#define VRAMD_LOAD_REPORT_H

#include <stdio.h>

#include "load/driver.h"

/* Both take one summary for each of run->n levels. */
void load_report_table(FILE *, const load_run *, const load_summary *);
/* started: when the run began, UTC, ISO 8601. */
void load_report_json(buf *, const load_run *, const load_summary *, const char *started);

const char *load_level_word(load_mode); /* "concurrency", "rate", "speed" */

#endif
