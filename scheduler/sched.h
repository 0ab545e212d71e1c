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
 * Tier: what memory lacks of a beginning may be in a tier below it. Then a sequence that starts is
 * loading: it holds its blocks and its seniority, and gets no rows until the caller has filled
 * them. What sequences leave behind in full chunks of blocks is offered to be stored.
 *
 * Prefix cache: full, committed blocks stay findable until they are taken for something else;
 * a sequence that starts, or starts again, begins behind what is found. At least its last
 * token is always computed, so that there are logits.
 *
 * States: a model with recurrent layers has a state of fixed size for each sequence, in a slot that it
 * has from its admission to its end. A state stands behind one number of tokens, so what is found of a
 * prompt must end at a checkpoint: a copy of the state behind a cached block, in a slot of its own. A
 * step says which checkpoints its rows write.
 *
 * Forks: several texts from one prompt. Members wait until their leader's prompt is computed,
 * then share its full blocks and copy its last one.
 *
 * Objective: with itl_slo_us the rows of prompts in a step are bounded by the time that the step
 * is predicted to take, which is learned from the steps before it (cost.h).
 *
 * Apart: steps overlap in an engine of several stages, so that a sequence that decodes is in one of them
 * alone, and a step has no more than its share of those that decode.
 *
 * Two planned steps may be uncommitted: the second assumes that each sampling row of the first
 * yields one token, but for sequences in lockstep, which wait for it. Drafts: a decoding sequence
 * may have rows that verify guesses of its next tokens (speculative decoding); such a step yields
 * a run of 1 to n_draft + 1 tokens, so the sequence is in no other step until it is committed.
 * Positions of rejected guesses are given back then.
 *
 * Blocks freed while a step is uncommitted stay fenced until every step that
 * may touch them is committed. */
#ifndef VRAMD_SCHEDULER_SCHED_H
#define VRAMD_SCHEDULER_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/plan.h"
#include "scheduler/cost.h"
#include "scheduler/stats.h"

typedef struct sched sched;

/* slot or queue index in the low half, generation in the high half: an id is never used
 * again, so calls with the id of an ended sequence do nothing. */
typedef uint64_t sched_id;

/* Rows of prompts that a step has whatever its objective: they must advance, too. */
enum { SCHED_LEAST_PROMPT_ROWS = 16 };

enum { SCHED_MAX_GROUPS = 4, SCHED_MAX_CHUNK_BLOCKS = 16 };

/* In place of a group: the copy is of a state. */
enum { SCHED_COPY_STATE = SCHED_MAX_GROUPS };

typedef struct sched_group {
    uint32_t n_blocks;
    uint32_t max_blocks; /* that sched_resize may give it; 0: n_blocks */
    uint32_t window;     /* tokens that a position sees, itself included; 0: all */
    bool
        rows_once; /* with a window: blocks for the rows of uncommitted steps are set aside once
                       for all sequences, not for each (kv_window_share) */
    uint64_t block_bytes; /* for the account of a sequence; 0 is fine */
} sched_group;

typedef struct sched_policy sched_policy; /* scheduler/policy.h */

/* scheduler/batching.h says what they mean. */
typedef enum sched_batching {
    BATCHING_CONTINUOUS,
    BATCHING_DYNAMIC,
    BATCHING_STATIC
} sched_batching;

typedef struct sched_config {
    sched_group group[SCHED_MAX_GROUPS]; /* layers whose blocks are allocated together */
    /* n_groups 0: nothing of a text is kept between steps (an encoder). Then all rows of a prompt are in
     * one step, so that max_rows >= max_model_len, and nothing is drawn: max_tokens is 0. Not with a
     * prefix cache, a tier or states. */
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
    bool apart;                  /* every sequence is in lockstep; see above */
    const sched_policy *policy;  /* borrowed; NULL: sched_fcfs */
    uint64_t itl_slo_us;  /* steps in which sequences decode are to take no longer: prompts get
                            rows as far as the cost model allows; 0: as many as there are */
    uint64_t ttft_slo_us; /* not so while a prompt has waited for half of this; 0: ever */
    sched_batching batching;
    uint64_t batch_window_us; /* BATCHING_DYNAMIC: how long a batch waits to fill */
    uint32_t max_moves;       /* blocks that a step may move for sched_resize; 0: no resizing */
    bool prefix_cache;
    /* Chunks that a tier below memory may have; 0: there is none. With prefix_cache, and a group
     * without a window: its blocks confirm what is found. */
    uint32_t tier_chunks;
    uint64_t tier_bytes;    /* and their bytes */
    uint32_t store_tokens;  /* a sequence's tokens that the tier lacks, to be worth storing */
    uint32_t chunk_blocks;  /* of a chunk, 1 to SCHED_MAX_CHUNK_BLOCKS */
    uint64_t hash_key[2];   /* of the prefix cache; secret where clients are not trusted */
    uint32_t recent_tokens; /* of texts of late, for sched_explain; 0: none */
    /* Slots for recurrent states: max_seqs, and as many more as checkpoints may be in uncommitted
     * steps; 0: the model has no states. Not together with a tier, which has none. */
    uint32_t state_slots;
    uint32_t
        state_chunk; /* tokens: a state is whole at its multiples, and behind other positions
                             goes back to the last of them and no further */
    uint64_t state_bytes;  /* of a slot, for whoever reports them; 0 is fine */
    uint32_t n_end_tokens; /* end-of-generation ids of the model, borrowed */
    const int32_t *end_tokens;
} sched_config;

enum { SCHED_MAX_STOP_IDS = 16, SCHED_MAX_DRAFT = 15 };

typedef struct sched_spec {
    const int32_t *prompt; /* borrowed until the sequence ends */
    uint32_t n_prompt;     /* >= 1 */
    uint32_t
        max_tokens; /* 0: nothing is drawn; the prompt's last row has logits all the same */
    uint32_t min_tokens; /* end tokens do not end it before (the sampler forbids them too) */
    bool ignore_eos;     /* the model's end tokens do not end it; its own stop ids do */
    int32_t stop_ids[SCHED_MAX_STOP_IDS];
    uint32_t n_stop_ids;
    bool lockstep; /* the next row is planned only after its input token is committed: what may
                      follow depends on that token; so it gets a row in every second step */
    bool score_prompt;    /* every prompt row yields logits (echo with logprobs) */
    int32_t priority;     /* lower is sooner, as in vLLM; order of admission only */
    uint64_t tenant;      /* whose request it is, for policies; 0: unknown */
    uint32_t weight;      /* of the tenant; 0: 1 */
    uint64_t deadline_us; /* 0: none */
    uint64_t user;        /* handed back in events and steps */
    uint64_t salt;       /* blocks are shared only among equal salts; the high bit is ignored */
    uint64_t base_salt;  /* that of its tenant's requests which name none of their own */
    const char *request; /* its name in sched_miss, borrowed until the sequence ends; or NULL */
    bool no_tier;        /* nothing of it goes to the tier, or comes from there */
    sched_id fork_of;    /* leader with the same prompt and salt; 0, or a stale id: none */
} sched_spec;

typedef enum sched_reject {
    REJECT_NONE,
    REJECT_TOO_LONG,   /* prompt + max_tokens > max_model_len */
    REJECT_NEVER_FITS, /* more blocks than there are */
    REJECT_QUEUE_FULL,
    REJECT_QUEUE_TOKENS
} sched_reject;

typedef struct sched_step_seq {
    uint64_t user;
    uint32_t slot;
    uint32_t first_row, n_rows, first_pos;
    int32_t input_from; /* >= 0: entry of the previous (uncommitted) step that makes the input
                           token; -1: history */
    uint32_t
        n_logit_rows;  /* rows with logits, the last ones: 0; 1; or with score up to n_rows */
    uint32_t n_blocks; /* entries of the block tables, from which this step may touch those
                          that its rows see */
    uint32_t n_prompt;
    uint32_t state; /* slot of its state: of no tokens where first_pos is 0, else what rows from
                        first_pos on did to it is undone; without states 0 */
    uint8_t n_draft; /* of its rows, the last ones, for drafts: their inputs are guesses, which
                        stand in the history behind the known tokens; all rows have logits */
    bool sample;     /* the last row draws a token; with drafts each row does */
    bool score;      /* its logit rows are the prompt rows that were not scored before */
} sched_step_seq;

typedef struct
    sched_step_copy { /* of a block or a state, before the rows of the step, in order */
    uint32_t group;   /* or SCHED_COPY_STATE: from and to are slots of states */
    int32_t from, to;
} sched_step_copy;

/* The state behind the first n_tokens of an entry's text, a multiple of state_chunk that its rows
 * reach or pass, is to be written to a slot of its own. */
typedef struct sched_step_checkpoint {
    uint32_t entry, n_tokens, state;
} sched_step_checkpoint;

typedef struct sched_step {
    uint64_t number;            /* from 1 on */
    uint32_t n_copies, n_moves; /* moves: of the copies, the last ones; of forks: the others */
    uint32_t n_seqs, n_rows, n_logit_rows, n_decode_rows, n_prefill_rows;
    uint32_t n_decode_seqs;    /* entries of decoding sequences, which have n_decode_rows */
    const sched_step_seq *seq; /* decode rows first */
    const sched_step_copy *copy;
    uint32_t n_checkpoints;
    const sched_step_checkpoint *checkpoint; /* by entry, then by n_tokens */
} sched_step;                                /* valid until committed */

/* What the rows of a step drew. The run of entry i: token[i * stride ...], n[i] tokens, from 1
 * to n_draft + 1, all of which but the last are accepted drafts; of no meaning where sample is
 * not set. n NULL: one token each. */
typedef struct sched_step_tokens {
    const int32_t *token;
    const uint32_t *n;
    uint32_t stride;
} sched_step_tokens;

typedef enum sched_finish {
    FINISH_NONE,
    FINISH_STOP,
    FINISH_LENGTH,
    FINISH_CANCELLED,
    FINISH_TIMEOUT,
    FINISH_ERROR,
    FINISH_NO_TOKEN,  /* the sampler was allowed none */
    FINISH_NOT_FINITE /* the logits were not numbers */
} sched_finish;

typedef enum sched_event_kind {
    EVENT_ADMITTED, /* first got a slot */
    EVENT_PREEMPTED,
    EVENT_PREFILLED, /* rows [first_pos, first_pos + n_rows) of the prompt are done (progress,
                        scores); after a start: they were found, and have no scores */
    EVENT_TOKEN,     /* n_tokens were generated, without one that stops by its id */
    EVENT_ENDED,     /* the last event of a sequence: it is in no uncommitted step, and nothing
                        of its spec is borrowed any more */
    EVENT_LOADED     /* what it found in the tier is there: n_cached has grown */
} sched_event_kind;

typedef struct sched_event {
    sched_event_kind kind;
    uint32_t n_tokens; /* TOKEN: tokens of the run of its entry, from the first on; >= 1 */
    sched_id id;
    uint64_t user;
    uint32_t entry;      /* TOKEN, PREFILLED: entry in the committed step (for logprobs) */
    sched_finish finish; /* ENDED; and in the TOKEN that will be followed by ENDED */
    int32_t stop_id;     /* ENDED by FINISH_STOP: the id, which is not part of the text */
    uint32_t n_output;   /* tokens generated so far, with one that stopped by its id */
    uint32_t n_cached; /* ADMITTED, LOADED, ENDED: prompt tokens found at first admission ... */
    uint32_t n_loaded; /* LOADED, ENDED: ... and how many of them in the tier */
    uint32_t n_preemptions, peak_blocks; /* PREEMPTED, ENDED; blocks of all groups */
    uint64_t peak_bytes;                 /* of those blocks, where the config knows */
    uint32_t first_pos, n_rows;          /* PREFILLED */
    const sched_cost *cost; /* ENDED: borrowed until the next call that changes the scheduler */
} sched_event;

/* Blocks of one group. free: without content; cached: free, too, but with content that may be
 * found; the four add up to all blocks. peak: used or fenced at once, since the start. */
typedef struct sched_blocks_view {
    uint32_t free, used, fenced, cached, peak;
    uint32_t watermark; /* stay free at admission while others run */
} sched_blocks_view;

typedef struct sched_stats {
    uint32_t n_waiting, n_running, n_preempted, n_paused;
    uint64_t waiting_tokens;
    /* blocks_all: what the others add up to, which sched_resize changes */
    uint32_t blocks_all, blocks_free, blocks_used, blocks_fenced,
        blocks_cached;     /* of all groups */
    uint32_t n_loading;    /* of the running ones */
    uint32_t n_prefilling; /* likewise */
    /* By sched_read_work alone: */
    uint64_t prefill_tokens;         /* that those have still to compute */
    uint64_t decode_positions;       /* that the decode rows of a step attend to */
    uint32_t tier_chunks, n_storing; /* n_storing: chunks that wait to be stored */
    uint64_t tier_bytes;
    uint32_t state_slots, state_live, state_checkpoints; /* live: of sequences */
    sched_counters count;                                /* since the start */
    sched_blocks_view group[SCHED_MAX_GROUPS];
    cost_model cost;
} sched_stats;

/* Copies that a step may have: of sequences that start, and moves for sched_resize. */
static inline uint64_t sched_max_copies(const sched_config *c) {
    return (uint64_t)c->max_seqs * (c->n_groups + (c->state_slots > 0)) + c->max_moves;
}
/* Exact bytes of a scheduler, or 0 when the config is not valid (every count >= 1, max_rows >=
 * max_seqs, max_logit_rows >= max_seqs, ...). */
size_t sched_bytes(const sched_config *);
/* mem: sched_bytes bytes, 64-byte aligned, owned by the caller. CHECKs a valid config. */
sched *sched_init(void *mem, const sched_config *);

/* What follows happens now, for the cost of sequences alone: submit and plan say so themselves. */
void sched_now(sched *, uint64_t now_us);
sched_reject sched_submit(sched *, const sched_spec *, uint64_t now_us, sched_id *out);
/* Idempotent; ENDED follows: at once, or with the commit of the newest step it is in, and no
 * TOKEN before it. Its blocks are free after that commit. finish: FINISH_CANCELLED, or
 * FINISH_STOP when a stop string was found. */
void sched_cancel(sched *, sched_id, sched_finish);
/* A paused sequence gets no rows: its reader is too slow. It keeps its slot and its ticket, and
 * its blocks until another sequence, senior or junior, needs them; so it delays no other while
 * there are slots, and a reader that never comes back must be ended by its connection's time
 * limit. Rows in
 * uncommitted steps still yield their tokens. Deadlines and cancels end it as ever. Idempotent;
 * does nothing to a stale id, or to a waiting sequence, which has nothing to read yet. */
void sched_pause(sched *, sched_id, bool paused);
/* The next step, or NULL when there is nothing to do, when all that could be done waits for a
 * commit, or when two are uncommitted. Expired deadlines end here in any case. NULL with none
 * uncommitted means idle: no sequence runs or is preempted but those that are loading, and none
 * waits but for their slots and those of paused ones (BATCHING_DYNAMIC: or until
 * sched_next_us). */
const sched_step *sched_plan(sched *, uint64_t now_us);
/* When a plan would find more to do than now though nothing else happens, for a caller that sleeps
 * while there is nothing to do; UINT64_MAX: never. Deadlines do not count. */
uint64_t sched_next_us(const sched *);
/* How many guesses of a sequence the next call of sched_draft would take. */
uint32_t sched_draft_space(const sched *, sched_id);
/* What a step is predicted to take. */
const cost_model *sched_step_cost(const sched *);
/* What a step may take by itl_slo_us, less the margin of that prediction; 0: there is no objective. */
double sched_objective_us(const sched *);
/* Of the next step's time so much is over before it is planned: a draft model has guessed. It counts against
 * itl_slo_us. */
void sched_spend(sched *, uint64_t us);
/* Guesses of the n tokens that follow the known ones of a sequence, by its text or by a draft model; copied,
 * and instead of earlier ones. The next step that has its row has rows to verify them, too, as far as other
 * rows, free blocks and itl_slo_us leave rows for them. Returns how many may be verified: at most
 * SCHED_MAX_DRAFT, fewer before max_tokens, and 0 unless the sequence decodes and is in no
 * uncommitted step that samples. Forgotten when the sequence is preempted or paused. */
uint32_t sched_draft(sched *, sched_id, const int32_t *guess, uint32_t n, bool by_model);
/* Commits the oldest uncommitted step. A run ends early at a stop id or at max_tokens; a
 * negative token ends its sequence with FINISH_NO_TOKEN, one below -1 with FINISH_NOT_FINITE.
 * An engine failure commits with tokens NULL: every sequence of the step ends with
 * FINISH_ERROR, and so does each that holds a block which the step was to move. */
void sched_commit(sched *, const sched_step *, const sched_step_tokens *tokens);
/* What an uncommitted step took: from the end of the step before it, or from its own start if
 * there was none. An input like any other: what is planned later depends on it. */
void sched_observe(sched *, const sched_step *, uint64_t us);
/* What an uncommitted step does, as its predicted time depends on it. */
step_work sched_work(const sched *, const sched_step *);
/* Events since the last call, in order; valid until the next call that changes the scheduler.
 * Must be drained after each submit, cancel, plan and commit. */
size_t sched_events(sched *, const sched_event **out);

/* For the bridge: history and block table of a slot that a step names. */
const int32_t *sched_tokens(const sched *, uint32_t slot);
const int32_t *sched_blocks(const sched *, uint32_t slot, uint32_t group);
/* Entries of that table, of a group without a window, whose blocks the slot holds now. */
uint32_t sched_n_blocks(const sched *, uint32_t slot);
void sched_read(const sched *, sched_stats *out);
/* Adds the work of those that run, for a forecast; visits each of them. */
void sched_read_work(const sched *, sched_stats *);
/* Why so little of a prompt was found, of a running sequence: from its ADMITTED on, or, where it
 * loads, its LOADED, until its first row is committed. Compares its prompt with all others: up to
 * milliseconds for long ones. */
void sched_explain(const sched *, sched_id, sched_miss *out);
uint64_t sched_kv_blocks_of(const sched *, sched_id); /* held now, of all groups; 0: stale id */
/* Blocks of a group that prompt + max_tokens needs at most: the last token is never input, so
 * it needs no place; with a window it is never more than kv_window_blocks, or, beside the
 * kv_rows_blocks of all sequences, than kv_window_share. */
uint64_t sched_blocks_needed(const sched_config *, uint32_t group, uint64_t n_prompt,
                             uint64_t max_tokens);
/* Blocks of a group that are set aside once for all sequences (sched_group.rows_once). */
uint32_t sched_blocks_aside(const sched_config *, uint32_t group);

/* ---- the tier below memory: load.c, tier_use.c ----
 *
 * The caller moves the bytes; here is decided which. A load: sched_load_next names a chunk, the
 * caller reads it, asks sched_load_blocks where it goes, fills those blocks while no step that
 * touches or moves them is uncommitted, and says sched_load_done; chunks of a sequence in the order in
 * which they were named. A store: sched_store_next names a chunk whose blocks are in memory; the
 * caller copies them before its next call, writes them, and says sched_store_done. One store at
 * a time. */
typedef struct sched_chunk {
    sched_id id; /* of a load */
    uint64_t serial;
    uint64_t hash[2], parent[2], salt; /* the parent of a text's first chunk: the salt twice */
    uint32_t slot, chunk;              /* chunk: its number in the text */
    uint32_t groups; /* bit g: blocks of group g are to be loaded, or stored */
    uint32_t
        first[SCHED_MAX_GROUPS]; /* of a load: blocks of the chunk before it are not needed */
    const int32_t *tokens;       /* [chunk_blocks * block_tokens], until the next call */
    const int32_t *block[SCHED_MAX_GROUPS]; /* [chunk_blocks], until the next call */
} sched_chunk;

/* A chunk that the tier has: at start, chunks of a text in order. parent NULL: its first. False:
 * the parent is not there, or there is no place. */
bool sched_tier_add(sched *, const uint64_t hash[2], const uint64_t parent[2], uint64_t salt,
                    uint32_t groups, uint64_t bytes);
/* Off: nothing is looked up, loaded or stored; loads that run still end with sched_load_done. */
void sched_tier_switch(sched *, bool on);
/* The next chunk to read. False: none. */
bool sched_load_next(sched *, sched_chunk *out);
/* Sets block. False: no sequence needs it any more. */
bool sched_load_blocks(const sched *, sched_chunk *);
/* Its blocks are filled; or not, then the chunk is not in the tier any more. Whether a
 * sequence needs it or not. */
void sched_load_done(sched *, const sched_chunk *, bool filled);
/* The next chunk to write. False: none. */
bool sched_store_next(sched *, sched_chunk *out);
/* bytes: what it takes in the tier; 0: it could not be written. False: the tier does not have it, and
 * what was written is to be removed. */
bool sched_store_done(sched *, const sched_chunk *, uint64_t bytes);
/* True: the chunk to remove, so that there is a place for so many bytes more. Never the one that the
 * store under way hangs on. */
bool sched_tier_evict(sched *, uint64_t bytes, uint64_t hash[2]);
/* Whether there is a place for so many bytes more. */
bool sched_tier_fits(const sched *, uint64_t bytes);

/* The next chunk to remove for good, from entry *at of the index on, which starts as 0 and moves
 * behind it: those of a salt, or all. False: none is left. Meanwhile the tier must be off, and no store
 * of such a chunk may be done. */
bool sched_tier_forget(sched *, const uint64_t *salt, uint32_t *at, uint64_t hash[2],
                       uint64_t *bytes);

/* ---- forget.c ---- */

/* Blocks that no sequence holds, of all groups. */
typedef struct sched_forgotten {
    uint64_t blocks, bytes;
} sched_forgotten;

/* Cached prefixes of a salt, or all: none is found any more, nor compared with (sched_explain), nor
 * stored, and the blocks of those that no sequence holds are free without content. Running sequences
 * go on as they are, and publish nothing more. Any time. */
sched_forgotten sched_forget(sched *, const uint64_t *salt);

/* ---- picture.c: who holds what, for people to look at ----
 *
 * A pool as cells: cell i is what place i * stride of it is for, a sched_cell, or CELL_SEQUENCE + the slot of
 * the sequence that holds it. stride: the least power of two with which there are at most `most` cells. */
typedef struct sched_cells {
    uint32_t n, stride; /* places of the pool; those of a cell */
} sched_cells;

/* Linear in the blocks of a group, and in those that are held. */
sched_cells sched_block_cells(const sched *, uint32_t group, uint32_t *cell, uint32_t most);
sched_cells sched_state_cells(const sched *, uint32_t *cell,
                              uint32_t most);         /* n 0: no states */
uint64_t sched_user_of(const sched *, uint32_t slot); /* sched_spec.user */

/* Aborts on a broken invariant. */
void sched_audit(const sched *);

#endif
