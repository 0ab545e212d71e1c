/* What came back for one request: first raw, with the time of each piece, then read. The
 * network's thread only notes bytes and times; JSON is parsed elsewhere and later. */
#ifndef VRAMD_LOAD_REPLY_H
#define VRAMD_LOAD_REPLY_H

#include "base/buf.h"
#include "base/err.h"

/* X(code, name in the JSON report) */
#define LOAD_FAULT_LIST(X)                                                                     \
    X(FAULT_NONE, "none")                                                                      \
    X(FAULT_STATUS, "status")         /* answered, but not with 200 */                         \
    X(FAULT_TIMEOUT, "timeout")       /* not done in time */                                   \
    X(FAULT_CONNECTION, "connection") /* refused, reset, ended early */                        \
    X(FAULT_MALFORMED, "malformed")   /* 200, and then no whole event stream of completions */ \
    X(FAULT_SERVER, "server")         /* an error within the stream */                         \
    X(FAULT_ABORTED, "aborted")       /* by us, interrupted; counts as no error */

typedef enum load_fault {
#define X(code, name) code,
    LOAD_FAULT_LIST(X)
#undef X
        N_FAULTS
} load_fault;
const char *load_fault_name(load_fault);

typedef struct load_mark {
    size_t end; /* of the piece, in bytes of the body */
    uint64_t t_us;
} load_mark;

typedef struct load_reply {
    struct load_reply *next;
    uint64_t due_us, start_us, end_us; /* monotonic; due: when it should have started */
    uint32_t output_tokens;            /* requested */
    int http;                          /* 0: no answer */
    bool sse;                          /* Content-Type: text/event-stream */
    load_fault fault;                  /* of the transport: NONE, TIMEOUT, CONNECTION, ... */
    char why[160];
    buf body;
    load_mark *marks;
    size_t n_marks, cap_marks;
} load_reply;

bool load_reply_add(load_reply *, str piece, uint64_t t_us); /* false: no memory */
void load_reply_free(load_reply *);

/* The request's figures. Times are from due_us, so that a request which had to wait for its
 * turn is not faster for it. */
typedef struct load_sample {
    uint64_t due_us, ttft_us, e2e_us, delay_us;           /* delay: from due to the start */
    uint64_t last_us;                                     /* the last token, from due */
    uint32_t prompt_tokens, cached_tokens, output_tokens; /* as the server counts them */
    uint32_t n_gaps;                                      /* between pieces of text */
    bool short_output;                                    /* fewer tokens than requested */
    load_fault fault;
    int http;
    char why[160];
} load_sample;

/* Growable microseconds. */
typedef struct load_times {
    uint32_t *v;
    size_t n, cap;
} load_times;
bool load_times_push(load_times *, uint64_t us);

/* Parses the body, appends the gaps. Without usage in the stream each piece of text counts as a
 * token. ERR_NO_MEMORY; all other trouble is the sample's fault and why. */
status load_reply_read(const load_reply *, load_sample *, load_times *gaps, err *);

#endif
