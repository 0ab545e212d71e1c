/* The gate in front of admission. Owns sched.batch. Engine thread. */
#include "scheduler/batching.h"

static bool nothing_runs(const sched *s) {
    return s->running.n + s->preempted.n == 0;
}

/* A dynamic batch is not formed yet: it could grow, and there is time. */
static bool waits_for_more(sched *s, uint64_t now_us) {
    if (s->cfg.batching != BATCHING_DYNAMIC) return false;
    if (s->batch.since_us == 0) s->batch.since_us = now_us + 1; /* 0: nothing waits */
    return s->waiting.n < s->cfg.max_seqs &&
           now_us + 1 - s->batch.since_us < s->cfg.batch_window_us;
}

void batching_plan(sched *s, uint64_t now_us) {
    batch_state *b = &s->batch;
    if (s->cfg.batching == BATCHING_CONTINUOUS) return;
    if (!nothing_runs(s)) {
        /* Those that came later wait for the next one. */
        const uint32_t next = waiting_next(s);
        if (next == NO_SLOT || s->record[next].arrival > b->newest) b->open = false;
        return;
    }
    b->open = s->waiting.n > 0 && !waits_for_more(s, now_us);
    if (s->waiting.n == 0 || b->open) b->since_us = 0;
    if (b->open) b->newest = s->n_submitted;
}

bool batching_admits(const sched *s, uint32_t record) {
    if (s->cfg.batching == BATCHING_CONTINUOUS) return true;
    if (fork_leader(s, record) != NO_SLOT) return true;
    return s->batch.open && s->record[record].arrival <= s->batch.newest;
}

void batching_full(sched *s) {
    if (!nothing_runs(s)) s->batch.open = false;
}

uint64_t sched_next_us(const sched *s) {
    if (s->batch.since_us == 0) return UINT64_MAX;
    return s->batch.since_us - 1 + s->cfg.batch_window_us;
}
