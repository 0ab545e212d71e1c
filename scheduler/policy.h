/* How sequences are ordered. A policy gives keys and nothing else: it moves no sequence, takes
 * no block and sees no list, so whatever it returns, the proof of progress (plan.c) stands:
 *
 *   - A key is asked for once and never changes, so no queue is ever sorted again.
 *   - Admitted sequences. The most senior one gets a row, so it ends, then the next one is the
 *     most senior. A ticket key is at most SCHED_MAX_YIELD above the number of the admission,
 *     so at most that many sequences that are admitted later become senior to a given one; all
 *     that are senior to it are finitely many, each ends, and so does it.
 *   - Waiting sequences. The one with the smallest key is admitted as soon as it fits, and it
 *     does fit once those before it have ended. Whether each one becomes the first is up to the
 *     policy: it does where keys grow with arrival or time (aging); with strict priorities an
 *     endless stream of urgent requests keeps the others waiting.
 *   - The share of one prompt is cut to what is there and is one row at least, so every prefill
 *     that has a turn advances.
 *
 * Pure like the scheduler: what self points to, if anything, is memory of the caller. */
#ifndef VRAMD_SCHEDULER_POLICY_H
#define VRAMD_SCHEDULER_POLICY_H

#include "scheduler/sched.h"

enum { SCHED_MAX_YIELD = 1 << 16 };

struct sched_policy {
    const char *name; /* of sched_policies: the word of the option scheduler_policy */
    void *self;       /* first argument of every call */
    bool by_tenant;   /* of equal keys the least served tenant's is first, not the oldest */
    bool by_length;   /* to the key is added what lengths.h predicts */
    /* Order of admission, smallest first; equal keys in order of arrival. Called at submit.
     * arrival: number of the submission, from 1 on. */
    uint64_t (*waiting_key)(void *self, const sched_spec *, uint64_t arrival, uint64_t now_us);
    /* Seniority: of two running sequences the one with the larger key loses its blocks first;
     * equal keys in order of admission. Called at first admission, the n-th, with the key that
     * it waited with. Returns n .. n + SCHED_MAX_YIELD (CHECKed). */
    uint64_t (*ticket_key)(void *self, const sched_spec *, uint64_t waiting_key, uint64_t n);
    /* Rows of a step that one prompt may have while another one waits for some. n_left: rows
     * that decoding leaves, >= 1. The result is cut to 1 .. n_left. */
    uint32_t (*prefill_share)(void *self, const sched_config *, uint32_t n_left);
};

/* First come, first served, within a priority. Seniority is the order of admission. One prompt
 * gets max_prefill_share, and half of what is left at most. */
extern const sched_policy sched_fcfs;

/* As sched_fcfs, but a priority is no more than a head start of SCHED_AGING_US each: a sequence is
 * overtaken by more urgent ones only if they come within that time. */
enum { SCHED_AGING_US = 30000000 };
extern const sched_policy sched_aging;

/* As sched_fcfs, but within a priority the tenant that was served least is next (waiting.h). */
extern const sched_policy sched_fair;

/* As sched_aging, but each sequence is treated as if it had come SCHED_SHORTEST_ALPHA of its predicted
 * times of service later, at most SCHED_SHORTEST_MOST_US: short ones first, and one is overtaken only
 * by those that come within its own delay. */
enum { SCHED_SHORTEST_ALPHA = 4, SCHED_SHORTEST_MOST_US = 120000000 };
extern const sched_policy sched_shortest;

/* Those four. A step log has their numbers here: new ones go to the end. */
enum { N_SCHED_POLICIES = 4 };
extern const sched_policy *const sched_policies[N_SCHED_POLICIES];

#endif
