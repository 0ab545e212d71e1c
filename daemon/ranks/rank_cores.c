/* From sysfs to a set of cores. Owns nothing; any thread. */
#include "daemon/ranks/rank_cores.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* "0-3,8,10-11"; what is not understood ends the list. */
static void add_list(cpu_set_t *set, const char *list) {
    unsigned from, to;
    int n;
    while (sscanf(list, "%u%n", &from, &n) == 1) {
        list += n;
        to = from;
        if (sscanf(list, "-%u%n", &to, &n) == 1) list += n;
        for (unsigned i = from; i <= to && i < CPU_SETSIZE; i++) CPU_SET(i, set);
        if (*list++ != ',') return;
    }
}

void rank_nodes_read(rank_nodes *out, const char *dir, const cpu_set_t *allowed) {
    char path[256], list[4096];
    out->n = 0;
    for (int i = 0; i < RANK_MAX_NODES; i++) {
        cpu_set_t *node = &out->node[out->n];
        snprintf(path, sizeof path, "%s/node%d/cpulist", dir, i);
        FILE *f = fopen(path, "re");
        if (!f) continue; /* numbers of nodes may have gaps */
        CPU_ZERO(node);
        if (fgets(list, sizeof list, f)) add_list(node, list);
        fclose(f);
        CPU_AND(node, node, allowed);
        out->n += CPU_COUNT(node) > 0;
    }
}

static uint32_t node_of(const rank_nodes *m, uint32_t rank, uint32_t n_ranks) {
    return (uint32_t)((uint64_t)rank * m->n / n_ranks);
}

bool rank_cores(const rank_nodes *m, uint32_t rank, uint32_t n_ranks, uint32_t n_threads,
                cpu_set_t *out) {
    uint32_t beside = 0;
    if (m->n < 2) return false;
    const uint32_t node = node_of(m, rank, n_ranks);
    for (uint32_t i = 0; i < n_ranks; i++) beside += node_of(m, i, n_ranks) == node;
    if ((uint64_t)beside * n_threads > (uint64_t)CPU_COUNT(&m->node[node])) return false;
    *out = m->node[node];
    return true;
}

void rank_stay(uint32_t rank, uint32_t n_ranks, uint32_t n_threads) {
    rank_nodes nodes;
    cpu_set_t allowed, own;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    rank_nodes_read(&nodes, RANK_NODES_DIR, &allowed);
    if (!rank_cores(&nodes, rank, n_ranks, n_threads, &own)) return;
    if (sched_setaffinity(0, sizeof own, &own) == 0)
        log_info("rank %u runs on %d cores of one of %u NUMA nodes", rank, CPU_COUNT(&own),
                 nodes.n);
}
