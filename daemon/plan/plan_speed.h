/* How fast a plan can decode at most: bytes that a step reads, over the bandwidth of the memory.
 * An estimate: nothing but reading is counted. Pure. */
#ifndef VRAMD_DAEMON_PLAN_SPEED_H
#define VRAMD_DAEMON_PLAN_SPEED_H

#include "daemon/machine.h"

/* "300GB/s", "1.2TB/s", decimal. */
bool plan_parse_bandwidth(str word, double *bytes_per_s);

typedef struct plan_bandwidth {
    double bytes_per_s;      /* 0: not known */
    char source[72];         /* "datasheet of NVIDIA H200", "--bandwidth", ... */
    double link_bytes_per_s; /* from the host's memory to a device; 0: there is none */
    char link_source[72];
    double host_bytes_per_s; /* of the host's memory beside a device; 0: there is none */
    char host_source[72];
} plan_bandwidth;

/* given: of --bandwidth; 0: the card's by its datasheet, for a CPU an assumed one. link: of --link; 0: a share
 * of the card's peak, or an assumed one. host: of --host-bandwidth; 0: an assumed one. */
plan_bandwidth plan_bandwidth_of(const machine *, double given, double link, double host);
/* What a step copies from the host's memory to the device: of layers that lie there. */
double plan_link_bytes(const machine *);
/* What of a model lies in the host's memory beside a device, as stored, by the engine's options. */
double plan_host_bytes(const machine *);
/* What the CPU reads of such layers, in a step of n sequences, where it computes them. */
double plan_computed_bytes(const machine *, uint32_t n);

/* Bytes that a decode step of n sequences reads which hold tokens each: the weights once (of
 * experts, those that n tokens are routed to at most), and each sequence's KV and recurrent state. */
double plan_step_bytes(const machine *, uint32_t n, double tokens);
/* The same and what a step copies, or what the CPU reads: seconds, times the memory's bandwidth. Copies and reading
 * overlap; the CPU and the device take turns. */
double plan_step_cost(const machine *, const plan_bandwidth *, uint32_t n, double tokens);
/* Tokens per second of each of them; 0 where the bandwidth is not known. */
double plan_tokens_per_s(const machine *, const plan_bandwidth *, uint32_t n, double tokens);

#endif
