/* All that api/ knows of the machine behind it. daemon/ implements it with the scheduler and an
 * engine; tests implement it with a few lines. Everything here happens on the loop thread;
 * calls never block, and no event or done callback comes from within a call: only later, from
 * the loop, followed by one server_flush for the batch.
 *
 * A generation's life: submit -> events (any number) -> one event with end set. What gen_spec
 * borrows must live until that last event, also after a cancel. The HTTP side answers the
 * client at once; the arena waits for the end. Within the callback of the last event the
 * generation can no longer be cancelled or credited. */
#ifndef VRAMD_API_PORT_H
#define VRAMD_API_PORT_H

#include "base/err.h"
#include "json/in.h"
#include "memory/ledger.h"
#include "memory/pool.h"
#include "model/bans.h"
#include "model/program.h"
#include "model/sampling.h"
#include "scheduler/stats.h"
#include "text/grammar/grammar.h"
#include "text/jinja/template.h"
#include "text/think.h"

typedef struct gen gen; /* one sequence in the machine */

typedef enum gen_finish {
    GEN_STOP,
    GEN_LENGTH,
    GEN_CANCELLED,
    GEN_TIMEOUT,
    GEN_ERROR
} gen_finish;

typedef struct gen_usage {
    uint32_t n_prompt, n_output, n_cached, n_preemptions, peak_blocks;
    uint32_t n_loaded; /* of n_cached, from the tier below memory */
    uint64_t kv_peak_bytes;
    sched_cost cost;
    double joules;                                /* with weigh; negative: not known */
    const sched_miss *miss;                       /* with explain; else NULL */
    uint64_t queued_us, first_token_us, ended_us; /* since submit */
} gen_usage;

/* Tokens of one step (one, unless several arrive together). */
typedef struct gen_event {
    const sampled *token; /* [n_tokens] */
    uint32_t n_tokens;
    /* [n_scored]: of prompt tokens first_scored ..., if the request has echo */
    const sampled *prompt_score;
    uint32_t n_scored, first_scored;
    uint32_t n_cached; /* with tokens: of the prompt, found in the prefix cache */
    bool end;          /* the last event: gen is gone when the callback returns */
    gen_finish finish;
    /* GEN_STOP by a token: its id, and the token is not among token[]; else -1 */
    int32_t stop_id;
    const gen_usage *usage; /* with end */
    const err *error;       /* GEN_ERROR */
} gen_event;

typedef void gen_callback(void *user, const gen_event *);

typedef struct gen_spec { /* pointers are borrowed until the last event */
    const int32_t *prompt;
    uint32_t n_prompt, max_tokens;
    uint32_t n_first;        /* tokens of the first of two texts; 0: it is one text */
    uint32_t n_choices;      /* of its request's n, for statistics: once a request, else 0 */
    sampling sampling;       /* end_tokens: filled by the machine */
    const uint32_t *allowed; /* tokens it may draw: [sampling_mask_words]; NULL: all */
    const banned_tokens *banned; /* what its output must not contain */
    uint32_t n_banned;
    /* What its output must be: end tokens are allowed where the grammar is satisfied, and where
     * nothing can follow the generation ends with GEN_STOP. NULL: anything. The state is the
     * generation's own, and at its start. */
    const grammar *grammar;
    grammar_state *grammar_state;
    const think_limit *think; /* on reasoning; NULL: none */
    bool ignore_eos;
    const int32_t *stop_ids;
    uint32_t n_stop_ids; /* at most 16 */
    bool score_prompt;   /* prompt_score events, with sampling.n_logprobs best; with pooled: all
                            rows are summed */
    /* Embeddings, with max_tokens 0: where the hidden states of the prompt's last row, or of
     * all rows, are added up, or an encoder's vector is; [n_embd], zeroed; read after the last
     * event. NULL: no. */
    double *pooled;
    int32_t priority;
    uint64_t tenant;     /* tenant_id of its key's; for the scheduler's policy */
    uint32_t weight;     /* of the tenant; 0: 1 */
    str cache_salt;      /* cached blocks are shared among equal salts only */
    str base_salt;       /* that of its tenant's requests which name none of their own */
    const char *request; /* its name; at most SCHED_REQUEST_BYTES - 1 bytes are kept */
    bool explain;        /* its usage says why its prefix was not found */
    bool weigh;          /* its usage says what energy its steps have taken */
    bool no_disk;        /* nothing of it goes to the disk tier */
    bool no_guesses;     /* where next tokens are guessed: not its own */
    gen *fork_of;        /* submitted just before, with the same prompt: it is computed once */
    uint64_t timeout_us; /* 0: none */
    uint32_t credits;    /* tokens that may be out and not yet credited back; 0: no limit */
    gen_callback *on_event;
    void *user;
} gen_spec;

typedef struct kv_group_view {
    uint32_t window; /* tokens that a position sees; 0: all */
    uint64_t block_bytes, blocks, free, used, cached;
    uint64_t fenced;    /* of the used ones: freed, but a step in flight may still read them */
    uint64_t peak;      /* most used at once, since the start */
    uint64_t watermark; /* that stay free when a request is admitted while others run */
    bool tail;          /* the newest tokens of another group in full precision */
} kv_group_view;

/* The tier below memory (kv_disk, kv_host_bytes); budget_bytes 0: there is none. */
typedef struct kv_tier_view {
    bool in_memory;               /* of the host: kv_host_bytes */
    uint64_t budget_bytes, bytes; /* bytes: of its files */
    uint32_t chunks, chunk_tokens;
    uint32_t loading; /* sequences whose prefix is being read */
    uint32_t storing; /* chunks that wait to be written */
    bool off;         /* after an error, for a while */
} kv_tier_view;

/* Experts of a mixture that are in slots, and read from the model's file when rows go to them; slots 0: all
 * are in memory. Hits and misses: of an expert that rows of a step go to. */
typedef struct expert_view {
    uint32_t slots, all; /* all: experts of all layers */
    uint64_t hits, misses, read_bytes, read_errors;
    double stalled_s; /* that steps waited for readings */
} expert_view;

typedef struct kv_view {
    dtype type_k, type_v;
    uint32_t block_tokens;
    uint64_t blocks, free, used, cached, bytes_per_token; /* of all groups */
    uint32_t n_groups;
    kv_group_view group[PLAN_MAX_GROUPS];
    kv_tier_view tier;
    /* Slots for states of recurrent layers, of sequences, of checkpoints; 0: there are none */
    uint32_t state_slots, state_live, state_checkpoints;
} kv_view;

/* The pools as cells, for people to look at: each a sched_cell, or CELL_SEQUENCE + the seq_view.id of the sequence
 * that holds it (modulo 2^32). */
enum { PICTURE_CELLS = 2048 };
typedef struct pool_picture {
    uint32_t n, stride; /* blocks, or slots; those of a cell, which is drawn as its first one */
    uint32_t cell[PICTURE_CELLS];
} pool_picture;
typedef struct kv_picture {
    uint32_t n_groups;
    pool_picture group[PLAN_MAX_GROUPS], states; /* states: n 0 where there are none */
} kv_picture;

typedef struct seq_view { /* one line of /v1/memory's "sequences" */
    uint64_t id;
    uint32_t n_tokens, n_blocks;
    uint64_t bytes;
    const char *state; /* "waiting", "running", "preempted" */
    uint64_t tenant;   /* as in gen_spec */
    uint32_t n_prompt; /* of its tokens */
    uint32_t n_cached; /* of its prompt, found in the prefix cache */
    uint64_t age_us;   /* since it was submitted */
    uint64_t itl_us;   /* mean time between its tokens; 0: fewer than two yet */
} seq_view;

/* Histograms with the fixed buckets of metrics.c; counts only. */
enum { PORT_MAX_BUCKETS = 24 };
typedef struct histogram {
    uint64_t bucket[PORT_MAX_BUCKETS + 1]; /* not cumulative; the last is +Inf */
    uint64_t n;
    double sum;
} histogram;

typedef enum histogram_id {
    HIST_TTFT,
    HIST_ITL,
    HIST_E2E,
    HIST_QUEUE,
    HIST_PREFILL,
    HIST_DECODE,
    HIST_STEP_TOKENS,
    HIST_INFERENCE,
    HIST_PROMPT_TOKENS,
    HIST_OUTPUT_TOKENS,
    HIST_MAX_TOKENS,
    HIST_PARAM_N,
    HIST_ITERATION,
    HIST_N
} histogram_id;

/* The budget, and what it is becoming. */
typedef struct budget_view {
    uint64_t target_bytes;   /* the budget, or the one that it will be */
    uint64_t smallest_bytes; /* less is refused */
    uint64_t most_bytes;     /* more is refused */
    bool resizing;           /* it is becoming so: pages come or go */
    uint64_t n_resizes;      /* changes that are in force */
    /* Less than full_bytes is used while the kernel reports memory pressure, or while idle: */
    uint64_t full_bytes;         /* the operator's budget */
    const char *pressure_source; /* the file that is watched; NULL: none */
    bool pressed, idle;
    uint32_t idle_after_s; /* 0: never */
    uint64_t n_pressure, pressure_bytes,
        idle_bytes; /* events; bytes given back since the start */
} budget_view;

/* Called once on the loop thread, within 2 s of the call of resize: OK: it is in force. ERR_BUSY:
 * it is on its way. ERR_NO_MEMORY: the system had less; what there was is in force. */
typedef void resize_done(void *arg, status, const err *);

/* Prefixes that the cache has forgotten. */
typedef struct cache_forgotten {
    uint64_t blocks, bytes;     /* KV blocks that no sequence holds */
    uint64_t files, file_bytes; /* of kv_disk */
} cache_forgotten;

/* Called once on the loop thread. ERR_IO: some files could not be removed; the rest has gone. */
typedef void forget_done(void *arg, status, const cache_forgotten *, const err *);
/* What the engine's steps are learned to take: seconds of a step, and of each row, position
 * attended to and row of logits in it; error: mean, relative to the prediction. */
typedef struct step_cost {
    double step_s, row_s, position_s, logits_s, error;
} step_cost;

typedef struct machine_stats {
    uint32_t n_waiting, n_running, n_preempted;
    uint64_t waiting_tokens;
    sched_counters count;             /* the scheduler's */
    uint64_t finished[GEN_ERROR + 1]; /* by gen_finish */
    uint64_t n_rejected;
    expert_view experts;
    kv_view kv;
    histogram hist[HIST_N];
    budget_view budget;
    step_cost cost;
} machine_stats;

typedef struct port port;

typedef struct port_ops {
    /* Errors: ERR_TOO_LONG, ERR_BUDGET (never fits; text has the bytes), ERR_BUSY (queue full),
     * ERR_UNAVAILABLE (draining). No event follows a refusal. */
    status (*submit)(port *, const gen_spec *, gen **out, err *);
    /* GEN_STOP: a stop string was found. Idempotent. */
    void (*cancel)(port *, gen *, gen_finish why);
    void (*credit)(port *, gen *, uint32_t n_tokens);
    void (*stats)(port *, machine_stats *out); /* an atomic snapshot, at most a step old */
    size_t (*sequences)(port *, seq_view *out, size_t cap);
    /* The picture that the last call asked for; asks for another one. False: it is not there (yet). With
     * server_options.web_page alone. */
    bool (*picture)(port *, kv_picture *out);
    /* KV cache that a request needs at most, in bytes. */
    uint64_t (*kv_bytes_needed)(port *, uint32_t n_prompt, uint32_t max_tokens);
    double (*retry_after_s)(port *); /* from the backlog and the recent rate */
    /* NULL when ready; else why not: "loading", "draining", "stalled" (work queued, no
     * progress). */
    const char *(*not_ready)(port *);
    /* Runs work on the pool of threads, then done on the loop thread. False: the pool is
     * full. */
    bool (*offload)(port *, void (*work)(void *), void (*done)(void *), void *arg);
    /* What the device's driver says; false before loading, or without a device. Any thread. */
    bool (*device_memory)(port *, device_memory *out);
    /* What each of several ranks holds, of max at most; how many there are, 0: the ledger is all. NULL: it is.
     * first_device >= 0: they have devices, from that number on, whose ledgers follow those of the host's memory.
     * Any thread. */
    uint32_t (*ranks)(port *, ledger_view *out, uint32_t max, int32_t *first_device);
    /* Another budget, while requests go on. done NULL: no request waits. Errors, after which all is as
     * before and done is not called: ERR_UNSUPPORTED (the engine cannot), ERR_INVALID (more than
     * most_bytes), ERR_BUDGET (less than smallest_bytes), ERR_BUSY (another caller waits),
     * ERR_UNAVAILABLE. */
    status (*resize)(port *, uint64_t budget_bytes, resize_done *, void *arg, err *);
    /* What vramd plan --json prints, for the model that is served and the options of body, an
     * object; into out, and its arena. Takes milliseconds; any thread. Errors: ERR_INVALID. */
    status (*plan)(port *, const json_t *body, buf *out, err *);
    /* Forgets cached prefixes, in memory and on disk: of requests with this gen_spec.cache_salt, or
     * all. Requests that run go on as they are. Errors, after which done is not called: ERR_BUSY
     * (another caller waits), ERR_UNAVAILABLE. */
    status (*forget)(port *, const str *salt, forget_done *, void *arg, err *);
} port_ops;

typedef struct model_card {
    const char *id;    /* served name, the first of several */
    const char *names; /* all of them, separated by commas; NULL: id alone */
    const model_config *config;
    uint64_t created; /* Unix time */
    uint64_t n_params, weight_bytes;
    uint32_t max_model_len;
    pooling_kind pooling; /* of /v1/embeddings; POOL_OFF: there are none */
    bool speculates;      /* next tokens are guessed, and several verified in one step */
} model_card;

/* Gives vectors or scores, and no text. */
static inline bool card_is_encoder(const model_card *c) {
    return c->config && c->config->bidirectional;
}

struct port {
    const port_ops *ops;
    model_card card;
    const sampling *defaults; /* of requests; NULL until loaded: those of OpenAI */
    const tokenizer *tok;
    const chat_templates *chat; /* with tok */
    ledger *ledger;             /* the host's */
    /* the device's; NULL when the engine computes in the host's memory */
    ledger *device_ledger;
    pool *pool;               /* memory of requests */
    const vocab_index *index; /* for grammars; NULL until loaded */
    pool *grammars;           /* memory of compiled grammars */
    uint64_t kv_bytes;        /* of the KV cache */
    uint32_t max_gens;        /* generations that may run and wait at once ... */
    uint32_t max_running;     /* ... and run */
    const char *device;       /* where the engine computes, for labels: "cpu", "cuda:0" */
};

/* Set by the fixed list in metrics.c; the machine counts with it. Index of v's bucket. */
size_t histogram_bucket(histogram_id, double v);

#endif
