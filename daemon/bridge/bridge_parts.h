/* What the parts of the bridge share: bridge.c (the loop's half), bridge_engine.c (the engine
 * thread's half), bridge_view.c (what the loop may ask). The inbox and the outbox have a mutex
 * each, held for a few instructions; nothing is called with one held but uv_async_send. */
#ifndef VRAMD_DAEMON_BRIDGE_PARTS_H
#define VRAMD_DAEMON_BRIDGE_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/hash.h"
#include "daemon/bridge/bridge.h"
#include "daemon/bridge/bridge_forget.h"
#include "daemon/bridge/bridge_release.h"
#include "daemon/bridge/bridge_resize.h"
#include "daemon/grammar_memory.h"
#include "daemon/offload.h"
#include "daemon/models/turns.h"

enum { BRIDGE_SUBMIT = 1, BRIDGE_CANCEL = 2, BRIDGE_CREDIT = 4, MAX_END_TOKENS = 64 };

/* The engine thread says LOADED or FAILED; the loop thread opens for requests with READY. */
typedef enum load_state { LOADING, LOADED, FAILED, READY } load_state;

typedef enum gen_state { STATE_FREE, STATE_WAITING, STATE_RUNNING, STATE_PREEMPTED } gen_state;

/* Of a generation: what its output was, for what may follow. The state of its grammar is behind it. */
typedef struct said {
    bans bans;
    think_state think;
} said;
_Static_assert(sizeof(said) % 8 == 0, "the state of a grammar stands behind it");

struct gen {
    runner_job job; /* first: sched_spec.user is its address; read by the engine thread */
    bans bans;
    think_state think;    /* with spec.think; engine thread */
    const tokenizer *tok; /* for it */
    mask_cache *masks;    /* with spec.grammar; engine thread */
    said *said;           /* the bridge's; engine thread */
    int32_t end_tokens[MAX_END_TOKENS];
    gen_spec spec;
    uint64_t salt, base_salt, leader_number;
    /* Under the inbox's mutex: a leader may have ended, and its place be another's. */
    sched_id id;
    uint64_t number;
    struct gen *next_in;
    unsigned ops;
    gen_finish why;
    uint32_t credited; /* with BRIDGE_CREDIT: tokens that the reader has taken since */
    /* Engine thread, until its ENDED record; it is the one that makes tokens, so it stops at
     * the limit itself, however far behind the loop is. */
    uint32_t unread; /* tokens handed over and not credited */
    bool paused;
    sched_cost cost; /* this, joules and miss: the loop's from its ENDED record on */
    double joules;   /* with spec.weigh */
    sched_miss miss; /* with spec.explain */
    /* Loop thread. */
    struct gen *next_free;
    gen_state state;
    bool cancelled, first_seen;
    uint32_t n_output, n_cached;
    uint64_t submit_us, admitted_us, first_us, last_us;
};

typedef struct out_record {
    gen *g;
    sampled token; /* TOKEN: one of the event's, which follow one another; or one scored one */
    sched_event ev;
    uint64_t now_us;
    uint32_t scored_pos; /* PREFILLED with a score: its position; UINT32_MAX: none */
} out_record;

struct bridge {
    port port; /* first: port_ops get it */
    machine *m;
    uv_loop_t *loop;
    uv_async_t async;
    pthread_t thread;
    bool started;
    turns *turns; /* NULL: no other engine thread computes */
    uint32_t who;
    void (*flushed)(void *);
    void (*loaded)(void *, status, const err *);
    void *arg;

    pthread_mutex_t in_lock;
    pthread_cond_t in_wake;
    gen *in_head, *in_tail;
    bool quit;

    pthread_mutex_t out_lock;
    pthread_cond_t out_space;
    out_record *out[2]; /* [out_cap] each; the engine fills out[filling] */
    uint32_t filling, n_out, out_cap;

    pthread_mutex_t stats_lock;
    sched_stats stats;
    histogram step_rows, step_tokens;
    uint64_t last_step_us; /* of a committed step, or of idleness */

    atomic_int load_state; /* a load_state */
    status load_status;
    err load_error;
    runner *runner; /* engine thread */
    sched_id *full; /* [max_num_seqs]: engine thread; at their limit since this step */
    uint32_t n_full;
    said *said;         /* engine thread: while guesses of a sequence are looked at */
    sched_id *complete; /* [max_num_seqs]: engine thread; their grammar is at its end since */
    uint32_t n_complete;
    grammar_memory grammar;
    resizing resize;
    forgetting forget;
    releasing release;
    kv_picture *picture; /* with web_page; whose it is: picture_state */
    atomic_int picture_state;

    /* Loop thread. */
    gen *free, *all;
    uint32_t n_gens, n_live;
    offloads offloads;
    uint64_t waiting_tokens, next_number;
    bool draining;
    machine_stats counts; /* what the loop counts: finished, rejected, histograms */
    double mean_run_s;    /* from admission to the end, of late; 0: unknown */
    double mean_cached;   /* part of the prompts that the prefix cache had, of late */
};

static inline void histogram_add(histogram *h, histogram_id id, double v) {
    h->bucket[histogram_bucket(id, v)]++;
    h->n++;
    h->sum += v;
}

/* The engine thread: loads the model, then steps until told to quit. arg: the bridge. */
void *bridge_engine_main(void *arg);

/* Of a text, as sched_spec has it; "": 0. */
static inline uint64_t bridge_salt(const bridge *b, str salt) {
    uint64_t h[2] = {0, 0};
    if (salt.len > 0)
        siphash_bytes(b->m->sched_conf.hash_key, salt.ptr, salt.len, SIPHASH_2_4, h);
    return h[0];
}
/* Seconds until a request that comes now would get its first token; 0 before the cost of steps is
 * known. */
double bridge_forecast_ttft_s(bridge *, uint32_t n_prompt);
/* ERR_BUSY: that is later than ttft_slo_ms. */
status bridge_check_ttft(bridge *, const gen_spec *, err *);

/* Engine thread: makes the picture if one is asked for. */
void bridge_draw(bridge *);

/* Of port_ops. */
void bridge_stats(port *, machine_stats *);
size_t bridge_sequences(port *, seq_view *out, size_t cap);
double bridge_retry_after(port *);
const char *bridge_not_ready(port *);
bool bridge_device_memory(port *, device_memory *);
uint32_t bridge_ranks(port *, ledger_view *out, uint32_t max, int32_t *first_device);
bool bridge_picture(port *, kv_picture *);

#endif
