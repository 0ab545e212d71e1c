/* Who is admitted next. Waiting sequences stand in a queue for each tenant, by the policy's key and
 * then by arrival; the first of some queue is next: the one with the smallest key, of equal keys
 * the one whose tenant has been served least, of equals the one that came first. With a policy
 * that does not order by tenant there is one queue.
 *
 * Service is counted as it is given, not as it was announced: WAITING_PROMPT for each prompt
 * token that is to be computed, at admission (what a cancelled sequence did not use is given
 * back), WAITING_OUTPUT for each token generated, divided by the tenant's weight (virtual token
 * counters: Sheng et al., Fairness in Serving Large Language Models, OSDI 2024). A tenant that
 * comes back to the queue is lifted to the least served tenant in it, so that no tenant
 * saves up what it did not use. Between two tenants that both have sequences waiting, the services given to them since
 * differ by at most twice the larger of WAITING_PROMPT times the longest prompt and
 * WAITING_OUTPUT times the tokens that run at once (tests/sim/test_fair.c asserts it).
 *
 * Progress: of equal keys the counter of a tenant that waits does not move, and that of one that is
 * served grows with each of its sequences, so each tenant's first one becomes the next one.
 *
 * Skip-ahead. While the next one has no room, smaller ones behind it in its queue, of the same
 * priority, are admitted if they have. Each sequence is passed at most SCHED_MAX_PASSES times: then
 * nothing is admitted before it, those that run end, and it has room at the latest when they have,
 * because alone it fits. A tenant's counter is charged for those that pass, so they cost other
 * tenants nothing. */
#ifndef VRAMD_SCHEDULER_WAITING_H
#define VRAMD_SCHEDULER_WAITING_H

#include <stdbool.h>
#include <stdint.h>

/* Tenants whose numbers agree in the low bits share a queue and what they are served. */
enum { WAITING_TENANTS = 1024, WAITING_PROMPT = 1, WAITING_OUTPUT = 2 };

/* SCHED_LOOK_AHEAD: sequences behind the next one that are looked at in a step. */
enum { SCHED_MAX_PASSES = 8, SCHED_LOOK_AHEAD = 16 };

typedef struct waiting_queue {
    uint64_t served;     /* per weight, in units of 1 / WAITING_SCALE */
    uint32_t weight;     /* of the tenant's newest submission */
    uint32_t head, tail; /* records; NO_SLOT: empty */
    uint32_t prev, next; /* queues that are not empty */
} waiting_queue;

enum { WAITING_SCALE = 1 << 16, WAITING_MAX_WEIGHT = 1 << 10 };

/* A next one that had no room when those behind it were looked at, and none of them had. */
typedef struct blocked {
    uint64_t id, n_changes; /* as they were then */
    uint32_t least;         /* blocks without which none of them has room */
} blocked;

typedef struct waiting {
    uint32_t n; /* sequences */
    uint32_t n_queues, first;
    uint64_t least;     /* served, of the tenant that was admitted last */
    uint64_t n_changes; /* sequences that joined or left */
    blocked blocked;
    waiting_queue *queue;
} waiting;

struct sched;

void waiting_init(struct sched *);
void waiting_add(struct sched *, uint32_t record);    /* CHECKs that it is not there */
bool waiting_remove(struct sched *, uint32_t record); /* false: it was not there */
uint32_t waiting_next(const struct sched *);          /* a record; NO_SLOT: none waits */
/* The record and those behind it are passed by another one of their queue, which is admitted. */
void waiting_passed(struct sched *, uint32_t record, uint32_t by);
/* Service of the record's tenant, with a policy by tenant. Its prompt is to be computed from
 * n_cached on; what a running sequence has generated since the last call; it has ended. */
void waiting_admitted(struct sched *, uint32_t record, uint32_t n_cached);
void waiting_generated(struct sched *, uint32_t record, uint32_t n_output);
void waiting_ended(struct sched *, uint32_t record, uint32_t n_output);
void waiting_audit(const struct sched *);

#endif
