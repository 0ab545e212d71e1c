/* On which cores a rank runs: on a machine of several NUMA nodes on those of one of them, so that what it
 * writes first, its weights and its KV cache, lies in the memory beside them. */
#ifndef VRAMD_DAEMON_RANK_CORES_H
#define VRAMD_DAEMON_RANK_CORES_H

#include <sched.h> /* with _GNU_SOURCE: cpu_set_t */
#include <stdbool.h>
#include <stdint.h>

enum { RANK_MAX_NODES = 64 };
#define RANK_NODES_DIR "/sys/devices/system/node"

/* Cores by node, of the nodes that have any. */
typedef struct rank_nodes {
    cpu_set_t node[RANK_MAX_NODES];
    uint32_t n;
} rank_nodes;

/* Those of a folder like RANK_NODES_DIR that are allowed; n 0: nothing can be read there. */
void rank_nodes_read(rank_nodes *, const char *dir, const cpu_set_t *allowed);
/* The cores of a rank, all of one node: ranks that follow one another are on one node as far as they are more
 * than the nodes. False: it stays where it is, since there is one node, or since the threads of its ranks are
 * more than the node has cores. Pure. */
bool rank_cores(const rank_nodes *, uint32_t rank, uint32_t n_ranks, uint32_t n_threads,
                cpu_set_t *out);
/* Keeps the calling thread and those that it starts from then on to the cores of a rank. */
void rank_stay(uint32_t rank, uint32_t n_ranks, uint32_t n_threads);

#endif
