/* GET /v1/memory/stream: the account of memory as server-sent events, the whole first and then what changes, twice
 * a second; and the ten minutes before it. docs/web.md says what the events have.
 *
 * All streams have the same views: one that comes gets the latest whole, and then the same differences as the
 * others. One that is behind by more than LIVE_BEHIND_BYTES gets none until it has read them, and then a whole;
 * after LIVE_BEHIND_US its connection is cut. So a stream holds that much and one event, out of the pool of
 * requests, and all else is taken when the server opens. Loop thread. */
#ifndef VRAMD_API_LIVE_H
#define VRAMD_API_LIVE_H

#include "api/app.h"
#include "api/live_history.h"

enum {
    LIVE_STREAMS = 8,
    LIVE_STREAMS_OF_KEY = 4,
    LIVE_TICK_MS = 500,
    LIVE_BEHIND_BYTES = 64 * 1024,
    LIVE_BEHIND_US = 10 * 1000000,
    LIVE_RATE_S =
        2 * HISTORY_STEP_S, /* rates are of so long, and a point's time more at most */
    LIVE_WINDOWS = 2
};

typedef struct live live;

/* Percentiles in microseconds; n 0: there are none. */
typedef struct live_latency {
    uint64_t n, us[3];
} live_latency;

/* What is counted and derived beside the account itself. Rates in thousandths. */
typedef struct live_rates {
    const char *state; /* "loading", "ready", "stalled", "draining", "failed" */
    uint64_t prompt_tokens, generated_tokens, requests; /* a second */
    uint64_t finished;
    uint64_t answers[6]; /* as app.answers */
    live_latency ttft[LIVE_WINDOWS], itl[LIVE_WINDOWS];
} live_rates;

/* A moment. */
typedef struct live_view {
    uint64_t at_us;
    memory_view memory;
    live_rates rates;
    kv_picture picture; /* the latest that there is; n_groups 0: none */
} live_view;

typedef struct live_stream {
    http_request *rq; /* NULL: a free place */
    live *of;
    tenant *tenant;           /* until the keys are read again; NULL: no keys */
    bool all_keys;            /* may see the rows of all */
    bool may_resize;          /* of a page from here */
    bool has_history;         /* it was sent, or begun */
    bool stale;               /* its next event is a whole */
    uint64_t behind_since_us; /* 0: it is not */
    uint64_t keys_hash;       /* of the rows that were sent last */
} live_stream;

struct live {
    app *app;
    live_view view[2];
    unsigned now; /* of view: the latest, of which all streams know */
    live_history history;
    live_stream stream[LIVE_STREAMS];
    uint32_t n_streams;
    uint64_t recorded_us;
    uint64_t sample_from_us; /* not asking the system before: its answer takes a while */
    uint64_t start;          /* names the process */
    memory_sample sample;    /* being taken */
    http_request *sampler;   /* on whose behalf */
    bool ended;
};

uint64_t live_bytes(void); /* of class http */
status live_open(live **out, app *, err *);
void live_start(live *); /* once HTTP is there */
void live_close(live *); /* no stream may be open; NULL is ignored */
void live_tick(live *);  /* every LIVE_TICK_MS while there are streams */
void live_stream_run(app *, http_request *);
void live_gone(http_request *); /* of a stream: the client has left, or HTTP has done with it */
void live_sent(http_request *);
/* Ends all streams with an event that says why: "keys", after which others are taken, or "draining". */
void live_end(live *, const char *why);

/* live_write.c */
/* Rates of the last seconds, and percentiles of the last minutes. */
void live_rates_make(live_rates *, const app *, const live_history *, const memory_view *,
                     uint64_t now_us);
/* Appends the event "whole" with the latest view, or "delta" with what differs from the one before, or nothing
 * where nothing does. */
void live_write(buf *, const live *, live_stream *, bool whole);

#endif
