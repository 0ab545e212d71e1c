/* The best combination of options for a goal: type of the KV cache, sequences, context length and
 * rows of a step, among those whose plan fits. Every candidate is planned; bytes are exact, tokens
 * per second are estimated by bandwidth (daemon/plan/plan_speed.h). Any thread; owns nothing. */
#ifndef VRAMD_DAEMON_PLAN_CHOOSE_H
#define VRAMD_DAEMON_PLAN_CHOOSE_H

#include "base/buf.h"
#include "daemon/plan/plan_report.h"
#include "daemon/plan/plan_speed.h"
#include "daemon/plan/quality_table.h"

typedef enum plan_goal {
    GOAL_LATENCY,    /* tokens per second of one request */
    GOAL_THROUGHPUT, /* of all requests together */
    GOAL_CONTEXT,    /* tokens of the longest sequence */
    PLAN_GOALS
} plan_goal;

const char *plan_goal_name(plan_goal);                 /* "latency", "throughput", "context" */
bool plan_goal_by_name(plan_goal *, const char *name); /* false: no such name */

typedef struct plan_choice {
    bool found;  /* false: no combination fits; nothing else is set */
    options opt; /* as the user gave them, and what was chosen */
    dtype kv_k, kv_v;
    const quality_row *quality; /* of that KV type; NULL: not measured */
    uint64_t bytes;             /* of the memory that holds the KV cache: option memory */
    uint64_t host_bytes;        /* of the host's memory; the same without a device */
    uint64_t kv_bytes;
    uint32_t max_num_batched_tokens; /* what opt comes to */
    double tokens_per_sequence;      /* for which the speeds are */
    double speed_one;                /* tokens per second of one request alone; 0: not known */
    double speed_each;               /* of each of max_num_seqs */
    uint32_t cpus;
} plan_choice;

/* Options that differ from the usual ones are kept as they were given; only the others are
 * chosen. A smaller type of KV is taken where it gains more than a tenth and costs no more than
 * KL 0.001 or what the type of the weights costs.
 * m: planned, OK or ERR_BUDGET, of the question's options. */
void plan_choose(plan_choice *, plan_goal, const machine *m, const plan_question *,
                 const plan_bandwidth *);

/* The limit on the host's memory that a choice runs under: 2 % and 64 MiB more for what the
 * kernel charges, and for each device PLAN_DRIVER_MIB, assumed, for what its driver and libraries
 * hold on the host. In whole MiB. */
enum { PLAN_DRIVER_MIB = 1024 };
uint64_t plan_limit_mib(const plan_choice *, uint32_t n_devices);
/* One for each rank; 0: the CPU computes. */
uint32_t plan_devices(const machine *);

/* The three goals side by side, then what to paste for one: what differs from the usual options.
 * On stdout. */
void plan_choices_print(const plan_choice all[PLAN_GOALS], plan_goal paste, const machine *,
                        const plan_question *, const plan_bandwidth *);
/* A member of the plan's JSON object, with a comma in front. */
void plan_choices_json(buf *, const plan_choice all[PLAN_GOALS], const machine *,
                       const plan_question *, const plan_bandwidth *);

#endif
