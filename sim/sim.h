/* The scheduler under a virtual clock: a list of arrivals, a model of how long a step takes,
 * and the fake engine in place of a real one. The same scheduler objects as in the daemon, so
 * what is measured here is its policy; times are simulated, never measured. One thread. */
#ifndef VRAMD_SIM_SIM_H
#define VRAMD_SIM_SIM_H

#include "scheduler/sched.h"

/* Microseconds of a step of n_rows rows in n_seqs sequences that read n_kv cached tokens in
 * all: max(a, b * n_rows) + c * n_kv + d * n_seqs. */
typedef struct step_time {
    double a, b, c, d;
} step_time;

double step_time_us(const step_time *, const sched_step *);

typedef struct sim_arrival {
    uint64_t at_us;
    uint32_t n_prompt, max_tokens;
    int32_t priority;
    uint32_t
        text; /* prompts of one text begin alike, up to the shorter one's end; 0: its own */
    uint32_t
        fork_of; /* 1 + index of an earlier arrival, whose n_prompt, text and salt it has; 0 */
    uint64_t salt, tenant;                /* as in sched_spec */
    uint64_t timeout_us, cancel_after_us; /* after arrival; 0: never */
} sim_arrival;

typedef struct sim_config {
    sched_config sched;
    step_time time;
    uint32_t depth;   /* steps in flight: 1 or 2 */
    uint32_t n_vocab; /* 0: 32,000 */
    bool verify;      /* run the fake engine and compare every token; else tokens are zeroes */
    bool audit;       /* after every call of the scheduler */
} sim_config;

typedef struct sim_request {
    sched_reject rejected;
    sched_finish finish;
    uint64_t admitted_us, first_token_us, ended_us; /* 0: not reached */
    uint64_t admitted_step, ended_step;             /* steps committed until then */
    uint64_t max_gap_us;                            /* between two of its tokens */
    uint32_t n_output, n_cached, n_preemptions, peak_blocks;
} sim_request;

typedef struct sim_totals {
    uint64_t makespan_us, n_steps, n_rows, n_decode_rows;
    uint64_t n_ended, n_rejected, n_preemptions, n_recomputed_tokens, n_prompt_tokens,
        n_output_tokens;
    uint64_t plan_hash; /* over every step, byte for byte */
} sim_totals;

/* arrivals: in order of at_us. requests: [n]. Runs until everything has ended; CHECKs that all
 * blocks are free then. Errors: ERR_INVALID (config, order, forks), ERR_NO_MEMORY. */
status sim_run(const sim_config *, const sim_arrival *arrivals, uint32_t n,
               sim_request *requests, sim_totals *totals, err *);

#endif
