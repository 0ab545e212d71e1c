/* The only user of libcurl: single requests that wait, and a loop that keeps many in flight.
 * HTTP/1.1, connections are kept alive, redirects are not followed. */
#ifndef VRAMD_LOAD_CLIENT_H
#define VRAMD_LOAD_CLIENT_H

#include <stdatomic.h>

#include "load/prompt.h"
#include "load/reply.h"

typedef struct load_client load_client;

/* spec: url, key, chat and timeout_s count. */
status load_client_open(load_client **, const load_spec *, err *);
void load_client_close(load_client *);

/* GET, or POST of body if it is not NULL, and the answer's body. ERR_UNAVAILABLE when there is
 * none. Not while the loop runs. */
status load_client_ask(load_client *, const char *path, const buf *body, int *http, buf *out,
                       err *);

typedef enum load_word { LOAD_GO, LOAD_WAIT, LOAD_END } load_word;

/* Who feeds the loop. Both are called on the loop's thread. */
typedef struct load_feed {
    void *self;
    /* GO: *job is to be sent now, and its body is the loop's. WAIT: call again at *wake_us
     * (monotonic; UINT64_MAX: when woken or when a request ends). END: no more will come. */
    load_word (*next)(void *self, load_job *job, uint64_t *wake_us);
    void (*done)(void *self, load_reply *taken);
    const atomic_bool *stop; /* seen within 100 ms: what is in flight is dropped */
} load_feed;

/* Runs until the feed has ended and all is answered; at most max_open (1..LOAD_MAX_OPEN) at
 * once. zero_us: what due_us of open-loop jobs counts from.
 * ERR_NO_MEMORY, ERR_IO. */
status load_client_run(load_client *, const load_feed *, size_t max_open, uint64_t zero_us,
                       err *);
void load_client_wake(load_client *); /* from any thread */

#endif
