/* The option threads. */
#include "daemon/ranks/rank_threads.h"

#include <sched.h>

#include "daemon/plan/rank_plan.h"
#include "daemon/ranks/launch.h"

static uint32_t cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : (uint32_t)n;
}

static uint32_t share(uint32_t n, uint32_t of) {
    return n / of ? n / of : 1;
}

uint32_t rank_threads_default(const machine *m) {
    return share(cpus(), m->launch && m->launch->link ? m->launch->wire.n_beside : 1);
}

uint32_t rank_threads(const options *o) {
    return rank_plan_by_messages(o) ? o->threads : share(o->threads, rank_plan_count(o));
}

uint32_t rank_threads_of_all(const options *o) {
    return rank_plan_by_messages(o) ? o->threads * rank_plan_count(o) : o->threads;
}
