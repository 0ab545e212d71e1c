/* The iteration-level scheduler: which rows of which sequences make the next step, against an
 * exact number of KV blocks. Pure: no clock, no I/O, no threads, no malloc after init; time is
 * passed in and only ever grows. The same calls with the same arguments give the same steps,
 * byte for byte.
 *
 * Life of a sequence: waiting -> running (-> preempted -> running) -> ended. Waiting ones hold
 * no blocks and no slot. Preempted ones keep slot, ticket and history, and hold no blocks.
 *
 * KV blocks come from one pool for each group of layers. In a group with a window a sequence
 * holds only the blocks that its next rows can see: those before are released when a step is
 * committed, and their table entries become -1.
 *
 * Prefix cache: full, committed blocks stay findable until they are taken for something else;
 * a sequence that starts, or starts again, begins behind what is found. At least its last
 * token is always computed, so that there are logits.
 *
 * Forks: several texts from one prompt. Members wait until their leader's prompt is computed,
 * then share its full blocks and copy its last one.
 *
 * Two planned steps may be uncommitted: the second assumes that each sampling row of the first
 * yields one token, but for sequences in lockstep, which wait for it. Blocks freed while a step
 * is uncommitted stay fenced until every step that may touch them is committed. */
#ifndef VRAMD_SCHEDULER_SCHED_H
#define VRAMD_SCHEDULER_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/plan.h"

typedef struct sched sched;

/* slot or queue index in the low half, generation in the high half: an id is never reused
 * while somebody may hold it; calls with a stale id do nothing. */
typedef uint64_t seq_id;

enum { SCHED_MAX_GROUPS = 4 };

typedef struct sched_group {
    uint32_t n_blocks;
    uint32_t window;      /* tokens that a position sees, itself included; 0: all */
    uint64_t block_bytes; /* for the account of a sequence; 0 is fine */
} sched_group;

typedef struct sched_config {
    sched_group group[SCHED_MAX_GROUPS]; /* layers whose blocks are allocated together */
    uint32_t n_groups, block_tokens;
    uint32_t max_seqs;           /* slots: running and preempted sequences */
    uint32_t max_waiting;        /* queue limit in sequences ... */
    uint64_t max_waiting_tokens; /* ... and in prompt tokens; an empty queue takes any */
    uint32_t max_model_len;
    uint32_t max_rows;           /* token budget of a step */
    uint32_t max_logit_rows;     /* of a step */
    uint32_t max_prefill_share;  /* rows one prompt may take when another waits, and never more
                                  than half of what decoding leaves; 0: max_rows / 2 */
    uint32_t watermark_permille; /* blocks kept free at admission; 50 */
    uint32_t depth;              /* steps that may be uncommitted: 1, or 2, or 0, which is 2 */
    bool prefix_cache;
    uint64_t hash_key[2];  /* of the prefix cache; secret where clients are not trusted */
    uint32_t n_end_tokens; /* end-of-generation ids of the model, borrowed */
    const int32_t *end_tokens;
} sched_config;

enum { SCHED_MAX_STOP_IDS = 16 };

typedef struct seq_spec {
    const int32_t *prompt; /* borrowed until the sequence ends */
    uint32_t n_prompt;     /* >= 1 */
    uint32_t max_tokens;   /* >= 1 unless score_prompt, then >= 0 */
    uint32_t min_tokens;   /* end tokens do not end it before (the sampler forbids them too) */
    bool ignore_eos;       /* the model's end tokens do not end it; its own stop ids do */
    int32_t stop_ids[SCHED_MAX_STOP_IDS];
    uint32_t n_stop_ids;
    bool lockstep; /* the next row is planned only after its input token is committed: what may
                      follow depends on that token; so it gets a row in every second step */
    bool score_prompt;    /* every prompt row yields logits (echo with logprobs) */
    int32_t priority;     /* lower is sooner, as in vLLM; order of admission only */
    uint64_t deadline_us; /* 0: none */
    uint64_t user;        /* handed back in events and steps */
    uint64_t salt;  /* blocks are shared only among equal salts; the high bit is ignored */
    seq_id fork_of; /* leader with the same prompt and salt; 0, or a stale id: none */
} seq_spec;

typedef enum reject {
    REJECT_NONE,
    REJECT_TOO_LONG,   /* prompt + max_tokens > max_model_len */
    REJECT_NEVER_FITS, /* more blocks than there are */
    REJECT_QUEUE_FULL,
    REJECT_QUEUE_TOKENS,
    REJECT_DRAINING
} reject;

typedef struct step_seq {
    uint64_t user;
    uint32_t slot;
    uint32_t first_row, n_rows, first_pos;
    int32_t input_from; /* >= 0: entry of the previous (uncommitted) step that makes the input
                           token; -1: history */
    uint32_t n_logit_rows; /* the last so many rows: 0; 1; or with score up to n_rows */
    uint32_t n_blocks;     /* entries of the block tables, from which this step may touch those
                              that its rows see */
    uint32_t n_prompt;
    bool sample; /* the last row draws a token */
    bool score;  /* its logit rows are the prompt rows that were not scored before */
} step_seq;

typedef struct step_copy { /* of a block, before the rows of the step */
    uint32_t group;
    int32_t from, to;
} step_copy;

typedef struct step {
    uint64_t number; /* from 1 on */
    uint32_t n_copies;
    uint32_t n_seqs, n_rows, n_logit_rows, n_decode_rows, n_prefill_rows;
    const step_seq *seq; /* decode rows first */
    const step_copy *copy;
} step; /* valid until committed */

typedef enum finish {
    FINISH_NONE,
    FINISH_STOP,
    FINISH_LENGTH,
    FINISH_CANCELLED,
    FINISH_TIMEOUT,
    FINISH_ERROR,
    FINISH_NO_TOKEN /* the sampler was allowed none */
} finish;

typedef enum event_kind {
    EVENT_ADMITTED, /* first got a slot */
    EVENT_PREEMPTED,
    EVENT_PREFILLED, /* rows [first_pos, first_pos + n_rows) of the prompt are done (progress,
                        scores); after a start: they were found, and have no scores */
    EVENT_TOKEN,     /* one token was generated; not for one that stops by its id */
    EVENT_ENDED      /* the last event of a sequence: it is in no uncommitted step, and nothing
                        of its spec is borrowed any more */
} event_kind;

typedef struct sched_event {
    event_kind kind;
    seq_id id;
    uint64_t user;
    uint32_t entry;    /* TOKEN, PREFILLED: entry in the committed step (for logprobs) */
    int32_t token;     /* TOKEN */
    finish finish;     /* ENDED; and in the TOKEN that will be followed by ENDED */
    int32_t stop_id;   /* ENDED by FINISH_STOP: the id, which is not part of the text */
    uint32_t n_output; /* tokens generated so far, with one that stopped by its id */
    uint32_t n_cached; /* ADMITTED, ENDED: prompt tokens that were found at first admission */
    uint32_t n_preemptions, peak_blocks; /* PREEMPTED, ENDED; blocks of all groups */
    uint64_t peak_bytes;                 /* of those blocks, where the config knows */
    uint32_t first_pos, n_rows;          /* PREFILLED */
} sched_event;

typedef struct sched_stats {
    uint32_t n_waiting, n_running, n_preempted, n_paused;
    uint64_t waiting_tokens;
    /* Of all groups. free: without content; cached: free, too, but with content that may be
     * found; the four add up to all blocks. */
    uint32_t blocks_free, blocks_used, blocks_fenced, blocks_cached;
    uint64_t n_prefix_queries, n_prefix_hits; /* prompt tokens looked up, and found */
    uint64_t n_steps, n_preemptions, n_recomputed_tokens, n_prompt_tokens, n_output_tokens;
} sched_stats;

/* Exact bytes of a scheduler, or 0 when the config is not valid (every count >= 1, max_rows >=
 * max_seqs, max_logit_rows >= max_seqs, ...). */
size_t sched_bytes(const sched_config *);
/* mem: sched_bytes bytes, 64-byte aligned, owned by the caller. CHECKs a valid config. */
sched *sched_init(void *mem, const sched_config *);

reject sched_submit(sched *, const seq_spec *, uint64_t now_us, seq_id *out);
/* Idempotent; ENDED follows: at once, or with the commit of the newest step it is in, and no
 * TOKEN before it. Its blocks are free after that commit. finish: FINISH_CANCELLED, or
 * FINISH_STOP when a stop string was found. */
void sched_cancel(sched *, seq_id, finish);
/* A paused sequence gets no rows: its reader is too slow. It keeps its slot and its ticket, and
 * its blocks until anybody, senior or junior, needs them; so it delays nobody while slots last,
 * and a reader that never comes back must be ended by its connection's time limit. Rows in
 * uncommitted steps still yield their tokens. Deadlines and cancels end it as ever. Idempotent;
 * does nothing to a stale id, or to a waiting sequence, which has nothing to read yet. */
void sched_pause(sched *, seq_id, bool paused);
/* The next step, or NULL when there is nothing to do, when all that could be done waits for a
 * commit, or when two are uncommitted. Expired deadlines end here in any case. NULL with none
 * uncommitted means idle: no sequence runs or is preempted, and none waits but for the slots of
 * paused ones. */
const step *sched_plan(sched *, uint64_t now_us);
/* Commits the oldest uncommitted step. tokens: [n_seqs], meaningful where sample is set; a
 * negative one ends its sequence with FINISH_NO_TOKEN.
 * An engine failure commits with tokens NULL: every sequence of the step ends with
 * FINISH_ERROR. */
void sched_commit(sched *, const step *, const int32_t *tokens, uint64_t now_us);
/* Events since the last call, in order; valid until the next call that changes the scheduler.
 * Must be drained after each submit, cancel, plan and commit. */
size_t sched_events(sched *, const sched_event **out);

/* From now on submit answers REJECT_DRAINING. */
void sched_drain(sched *);

/* For the bridge: history and block table of a slot that a step names. */
const int32_t *sched_tokens(const sched *, uint32_t slot);
const int32_t *sched_blocks(const sched *, uint32_t slot, uint32_t group);
void sched_read(const sched *, sched_stats *out);
uint64_t sched_kv_blocks_of(const sched *, seq_id); /* held now, of all groups; 0: stale id */
/* Blocks of a group that prompt + max_tokens needs at most: the last token is never input, so
 * it needs no place; with a window it is never more than kv_window_blocks. */
uint64_t sched_blocks_needed(const sched_config *, uint32_t group, uint64_t n_prompt,
                             uint64_t max_tokens);

/* Aborts on a broken invariant. */
void sched_audit(const sched *);

#endif
