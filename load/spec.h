/* What one run of the load generator is to do. Plain data: strings are borrowed and
 * outlive the run. */
#ifndef VRAMD_LOAD_SPEC_H
#define VRAMD_LOAD_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load/trace.h"

enum {
    LOAD_MAX_LEVELS = 32,
    LOAD_MAX_OPEN = 4096,        /* requests in flight */
    LOAD_MAX_REQUESTS = 1000000, /* of a level */
    LOAD_MAX_SECONDS = 86400,
    LOAD_MAX_TOKENS = 1 << 20 /* of a prompt or of an output */
};
#define LOAD_MAX_RATE 100000.0 /* requests a second */

/* closed: a number of requests in flight, the next starts when one ends. open: requests start
 * at times that do not depend on the server. trace: at the times of a file. */
typedef enum load_mode { LOAD_CLOSED, LOAD_OPEN, LOAD_TRACE } load_mode;
typedef enum load_prompts { PROMPTS_AUTO, PROMPTS_IDS, PROMPTS_TEXT } load_prompts;

typedef struct load_spec {
    const char *url;    /* scheme, host and port; no path, no slash at the end */
    const char *socket; /* path of the Unix socket to connect to instead; NULL: TCP */
    const char *model;
    const char *key;     /* NULL: none */
    bool chat, keep_eos; /* keep_eos: ignore_eos is not sent */
    load_prompts prompts;
    load_mode mode;
    double levels[LOAD_MAX_LEVELS]; /* requests in flight, requests/s, or the trace's speed */
    size_t n_levels;
    bool constant;             /* open loop: even gaps; otherwise exponential ones (Poisson) */
    load_trace trace;          /* with LOAD_TRACE */
    uint64_t requests, warmup; /* requests: of each level; 0: no limit but duration_s */
    double duration_s;         /* requests start for this long; 0: no limit */
    uint32_t prompt_tokens, prompt_stddev, output_tokens;
    bool cap_prompt, cap_output; /* given: with a trace, no prompt or output is longer */
    double prefix_share;         /* of each prompt, the same in all; 0..1 */
    uint64_t seed;
    double timeout_s;
    double slo_ttft_ms, slo_itl_ms; /* 0: no objective */
} load_spec;

#endif
