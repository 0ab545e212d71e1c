/* How fast a plan can decode at most: bytes that a step reads, over the bandwidth of the memory.
 * An estimate: nothing but reading is counted. Pure. */
#ifndef VRAMD_DAEMON_PLAN_SPEED_H
#define VRAMD_DAEMON_PLAN_SPEED_H

#include "daemon/machine.h"

/* "300GB/s", "1.2TB/s", decimal. */
bool plan_parse_bandwidth(str word, double *bytes_per_s);

typedef struct plan_bandwidth {
    double bytes_per_s; /* 0: not known */
    char source[72];    /* "datasheet of NVIDIA H200", "--bandwidth", ... */
} plan_bandwidth;

/* given: of --bandwidth; 0: the card's by its datasheet, for a CPU an assumed one. */
plan_bandwidth plan_bandwidth_of(const machine *, double given);

/* Bytes that a decode step of n sequences reads which hold tokens each: the weights once (of
 * experts, those that n tokens are routed to at most), and each sequence's KV and recurrent state. */
double plan_step_bytes(const machine *, uint32_t n, double tokens);
/* Tokens per second of each of them; 0 where the bandwidth is not known. */
double plan_tokens_per_s(const machine *, const plan_bandwidth *, uint32_t n, double tokens);

#endif
