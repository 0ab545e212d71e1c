/* The plan of a machine, solved at start and again for another budget while it serves. Main
 * thread. */
#ifndef VRAMD_DAEMON_MACHINE_BUDGET_H
#define VRAMD_DAEMON_MACHINE_BUDGET_H

#include "daemon/machine.h"

/* Solves m->plan (and host_plan on a device) for the budgets. t: all terms but the KV cache and
 * the scheduler's; taken apart. Where memory_max is given, addresses, lists and tables are for that
 * many blocks. Errors: those of plan_solve; ERR_INVALID (memory_max). */
status machine_solve(machine *, terms *t, kv_request *, err *);
/* Forgets the plan, so that another can be solved. */
void machine_unsolve(machine *);
/* The plan that another budget would have; the terms besides the KV cache are those in force.
 * Errors: ERR_UNSUPPORTED (the engine cannot), ERR_INVALID (beyond machine_memory_max), ERR_BUDGET
 * (out->smallest_budget_bytes is filled in). plan_clear in any case. */
status machine_replan(const machine *, uint64_t budget_bytes, plan *out, err *);
/* The largest budget that machine_replan takes. */
uint64_t machine_memory_max(const machine *);
/* Bytes of a new value of the option memory. Errors: those of budget_parse. */
status machine_memory_bytes(const machine *, const char *word, uint64_t *out, err *);

#endif
