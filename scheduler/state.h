/* The inside of the scheduler, included by its own files only. Engine thread.
 *
 * Every sequence has a record from submit to its last event, and a slot from admission on. The
 * record is cold: the spec, counters. The slot's hot record is one cache line: all that
 * planning and committing a decode row touch.
 *
 * Seniority: tickets are given at first admission and never change. The running list is in
 * ticket order, and so is the preempted list; every running sequence is senior to every
 * preempted one. Victims leave at the tail of the running list and enter at the head of the
 * preempted list; resuming takes the way back, and nothing new is admitted while a
 * sequence is preempted. So no list is ever searched, and no senior can be preempted by a
 * junior.
 *
 * Pausing is the exception: a paused sequence loses its blocks to any that needs them, and
 * comes back at the place of its ticket, which may be in front of running juniors. It then
 * waits as the first of the preempted until they leave it room; nothing new is admitted before
 * that, so they do. */
#ifndef VRAMD_SCHEDULER_STATE_H
#define VRAMD_SCHEDULER_STATE_H

#include "scheduler/sched.h"
#include "scheduler/blocks.h"
#include "scheduler/heap.h"
#include "scheduler/lengths.h"
#include "scheduler/policy.h"
#include "scheduler/prefix.h"
#include "scheduler/recent.h"
#include "scheduler/state_pool.h"
#include "scheduler/tier.h"
#include "scheduler/waiting.h"
#include "scheduler/resize.h"

#include "base/check.h"

#define NO_SLOT UINT32_MAX

typedef enum seq_state {
    SEQ_FREE,      /* an unused slot */
    SEQ_PREFILL,   /* running; more than the next sampled token is to be computed */
    SEQ_DECODE,    /* running; its rows sample, one a step */
    SEQ_LOADING,   /* running, but gets no rows: its blocks are being filled from the tier */
    SEQ_PREEMPTED, /* holds no blocks */
    SEQ_PAUSED,    /* gets no rows; parked while it holds blocks */
    SEQ_ENDED      /* holds no blocks, but is in an uncommitted step */
} seq_state;

/* Neighbours in a list of slots, or NO_SLOT. Without typedef: link is a function of POSIX. */
struct link {
    uint32_t prev, next;
};

/* Known tokens: [0, len). Planned positions: [0, next_pos). Uncommitted steps that sample:
 * pending, so that the sequence will have len + pending tokens once all are committed, or more
 * if drafts are accepted. */
typedef struct seq_hot {
    sched_id id;
    uint64_t user;
    struct link run;     /* in the running, preempted or parked list; free slots: next */
    struct link prefill; /* in the list of prefilling ones */
    uint32_t len, next_pos;
    uint32_t n_prompt, limit;  /* limit: n_prompt + max_tokens */
    uint32_t n_blocks;         /* of its table rows; groups with a window hold a part of them */
    uint32_t newest_entry;     /* its entry in the newest step that has it */
    uint8_t state;             /* seq_state */
    uint8_t inflight, pending; /* uncommitted steps that have it; of those, that sample */
    uint8_t newest_parity;     /* of the number of the newest step that has it */
    uint8_t n_draft; /* guesses behind its tokens: of its one uncommitted step, or, where
                        pending is 0, for the next */
    uint8_t score;   /* prompt rows yield logits */
    uint8_t checks_end : 1, checks_stop : 1; /* the model's end tokens, its own stop ids */
    uint8_t lockstep : 1;                    /* no row while one of its tokens is pending */
    uint8_t by_model : 1;                    /* its guesses are a draft model's */
    uint8_t prefilled;                       /* its last prompt row is planned */
} seq_hot;
_Static_assert(sizeof(seq_hot) == 64, "a hot record is one cache line");

typedef struct seq_record {
    sched_spec spec;
    uint32_t generation; /* odd while it is in use */
    uint32_t slot;       /* NO_SLOT while waiting; free records: the next free one */
    uint64_t arrival;    /* order of submission */
    uint64_t submit_us;
    uint64_t key; /* among the waiting ones */
    bool queued;  /* it is among them */
    uint32_t wait_prev, wait_next;
    uint32_t n_passed;                    /* sequences behind it that were admitted before it */
    uint32_t n_predicted;                 /* output tokens, by a policy by length */
    uint32_t n_charged, n_output_charged; /* tokens that its tenant was charged for */
    uint64_t ticket, n_admission; /* seniority: by ticket, then by admission; 0 before it */
    uint32_t n_reported;          /* prompt rows that PREFILLED events have reported */
    uint32_t n_lost;              /* positions thrown away by the last preemption */
    uint32_t n_computed;          /* committed positions, as far as prefill steps know */
    uint32_t n_cached, n_loaded;
    bool load_failed; /* what it found is counted again when it resumes */
    bool load_broke;  /* some load has failed */
    bool gap;         /* the chain group had more of it than all groups when it started ... */
    bool unstated;    /* ... and all groups more than there was a state for */
    uint32_t leader, fork_head, fork_next; /* records: members wait for their leader's prompt */
    uint32_t n_preemptions, peak_blocks;
    uint64_t peak_bytes;
    sched_cost cost;
    uint64_t held_us; /* when byte_seconds was last brought up to date */
    sched_finish finish;
    int32_t stop_id;
} seq_record;

/* How far a sequence's blocks are published, and where its chain goes on. */
typedef struct seq_chain {
    prefix_hash hash; /* of its last published block; of none: the salt */
    uint64_t serial;
    uint32_t n; /* blocks; CHAIN_BROKEN: it publishes no more */
} seq_chain;

#define CHAIN_BROKEN UINT32_MAX

/* The recurrent state of a sequence: state_use.c. */
typedef struct own_state {
    uint32_t slot; /* NO_STATE: no sequence is here */
    uint32_t kept; /* preempted: tokens that its state can still go on behind; 0: none */
    uint32_t
        parts; /* tokens that it has in common with a cached chain, and no checkpoint; 0: none */
    /* The last place of its text where a checkpoint could be: tokens, 0 for none; the block of the chain
     * group that ends there, and its serial. */
    uint32_t place;
    int32_t block;
    uint64_t serial;
    bool leaves; /* it has ended, and its state will stand there */
} own_state;

/* A sequence's chunks in the tier: [done, target) are to be loaded, those before named were named
 * to the caller. */
typedef struct seq_load {
    uint64_t serial;  /* of this load; never used again */
    prefix_hash hash; /* of the chunk before named; of none: the salt */
    uint32_t done, named, target;
    uint32_t n_found; /* blocks in front that need not be loaded */
    uint64_t since_us;
} seq_load;

/* A chunk that was left behind and may be stored: its blocks of the chain group, as they were. */
typedef struct store_item {
    prefix_hash hash, parent;
    uint64_t salt;
    uint32_t chunk;
    int32_t block[SCHED_MAX_CHUNK_BLOCKS];
    uint64_t serial[SCHED_MAX_CHUNK_BLOCKS];
} store_item;

/* Bounds what waits to be stored: chunks of 128 tokens of 8 contexts of 8,192. */
enum { STORE_QUEUE = 512 };

/* Entries [first, n) of a table row are held; release_at: committed positions from which on
 * the first of them is out of sight. */
typedef struct held {
    uint32_t first, n, release_at;
} held;

typedef struct seq_group {
    blocks kv;
    prefix index;
    uint32_t window, watermark;
    uint32_t target; /* what kv.limit is to be */
    uint64_t left;   /* newest step planned when the last block went out */
    uint32_t most;   /* blocks of a sequence at most: group_part */
    uint32_t rows; /* set aside for rows of uncommitted steps, where most does not count them */
    uint32_t reserved; /* with a window: sum of group_part of all that hold blocks, and pins */
    uint32_t parked;   /* sum of group_part of parked sequences */
    uint32_t n_pinned; /* sources of copies in uncommitted steps */
    int32_t *table;    /* [max_seqs][table_stride], blocks_per_seq in use */
    held *held;        /* [max_seqs], with a window */
} seq_group;

/* The blocks that a sequence begins behind, and what it needs besides. */
typedef struct start {
    uint32_t n_found; /* blocks in front that are there */
    uint32_t leader;  /* slot that holds them, and the last of the prompt; NO_SLOT: the cache */
    uint32_t n_probed; /* blocks that the cache knows */
    bool gap;          /* of which the chain group knows more */
    uint32_t state;    /* slot of which its state begins as a copy; NO_STATE: as none */
    uint32_t
        n_load; /* blocks in front that are there once the tier's are loaded; 0: none are */
    uint32_t want[SCHED_MAX_GROUPS];
} start;

/* The sequence that was looked up last: hashed once, and not looked up again while it cannot
 * have enough, though it may be tried at every step. */
typedef struct probe {
    sched_id id;
    uint32_t n_hashed, n_chain; /* n_chain: blocks that the chain group has */
    prefix_hash *hash;          /* [blocks_per_seq] */
    int32_t *block;             /* [blocks_per_seq] of the chain group */
    bool at_gap;         /* what was found ends where no block is known, or where it may end */
    uint64_t n_attached; /* checkpoints ever, when it was looked up */
    uint32_t want[SCHED_MAX_GROUPS]; /* blocks it needed; less only by gains */
    uint64_t n_gains;                /* cache_gains then */
} probe;

/* The batch that is being formed, or runs (batching.h). */
typedef struct batch_state {
    bool open;
    uint64_t newest; /* arrival of the last one that may join */
    uint64_t
        since_us; /* dynamic: since when something waits and nothing runs, + 1; 0: not so */
} batch_state;

typedef struct slot_list {
    uint32_t head, tail, n;
} slot_list;

struct sched {
    sched_config cfg;
    uint32_t n_records, blocks_per_seq, depth, n_groups;
    uint32_t tokens_stride, table_stride; /* entries from a slot's row to the next: odd_lines */
    uint32_t chain_group; /* see prefix.h: the first without a window, or the first */
    bool windows;         /* some group has one */
    bool resizing;        /* some pool has not the size that was set */
    uint32_t free_slot, n_free_slots, free_record;
    slot_list running, preempted, prefilling;
    slot_list parked;             /* paused ones that hold blocks, the newest last */
    uint32_t n_paused, n_dormant; /* dormant: members that wait for their leader */
    bool ever_paused;
    waiting waiting;
    heap deadlines; /* of records */
    seq_group group[SCHED_MAX_GROUPS];
    probe probe;
    batch_state batch;
    cost_model cost;
    length_class *lengths;        /* [LENGTH_CLASSES], with a policy by length */
    uint64_t n_serials, n_shared; /* blocks published; blocks that starting sequences share */
    uint64_t waiting_tokens, n_submitted, n_admissions, n_planned, n_committed;
    uint64_t now_us;
    sched_counters count;
    bool events_read;
    uint32_t n_ended;    /* slots in SEQ_ENDED */
    uint32_t n_drafting; /* slots with guesses for the next step */
    uint64_t spent_us;   /* of the next step's time, by sched_spend */
    size_t n_events, max_events;
    seq_hot *hot;             /* [max_seqs] */
    seq_record *record;       /* [n_records] */
    seq_chain *chain;         /* [max_seqs] */
    int32_t *tokens;          /* [max_seqs][tokens_stride], max_model_len in use */
    sched_step step[2];       /* by parity of the number */
    sched_step_seq *entry[2]; /* [max_seqs] */
    sched_step_copy *copy[2]; /* [sched_max_copies] */
    uint32_t n_copies;        /* of the step in planning */
    sched_event *event;       /* [max_events] */
    recent recent;
    /* Recurrent states: all of it only where cfg.state_slots > 0. */
    state_pool states;
    uint32_t state_stride;                /* tokens between places for checkpoints */
    uint32_t n_writing;                   /* checkpoints of uncommitted steps */
    own_state *own;                       /* [max_seqs] */
    sched_step_checkpoint *checkpoint[2]; /* [state_slots - max_seqs], by parity */
    /* The tier: all of it only where cfg.tier_chunks > 0. */
    tier tier;
    bool tier_off;
    uint32_t store_on; /* what the store under way hangs on, or NO_CHUNK */
    uint32_t n_loading;
    uint64_t n_loads;
    seq_load *load;    /* [max_seqs] */
    store_item *store; /* [STORE_QUEUE], a ring */
    uint32_t store_first, n_store;
    int32_t *store_tokens; /* [chunk_blocks * block_tokens] of the chunk named last */
    int32_t *store_block;  /* [n_groups][SCHED_MAX_CHUNK_BLOCKS] */
};

static inline uint32_t min_u32(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}
static inline uint32_t max_u32(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

static inline uint32_t record_of(sched_id id) {
    return (uint32_t)id;
}
static inline sched_id id_of(const sched *s, uint32_t record) {
    return (sched_id)s->record[record].generation << 32 | record;
}
/* The record of a live sequence, or NULL for an id that is stale or was never given. */
static inline seq_record *record_find(const sched *s, sched_id id) {
    if (record_of(id) >= s->n_records) return NULL;
    seq_record *r = &s->record[record_of(id)];
    return r->generation == (uint32_t)(id >> 32) && r->generation % 2 == 1 ? r : NULL;
}

/* Whether a is senior to b, another one. */
static inline bool is_senior(const seq_record *a, const seq_record *b) {
    if (a->ticket != b->ticket) return a->ticket < b->ticket;
    return a->n_admission < b->n_admission;
}

static inline uint32_t blocks_for(const sched *s, uint32_t n_tokens) {
    return (uint32_t)ceil_div(n_tokens, s->cfg.block_tokens);
}
/* KV positions that a sequence will ever need: the last token it generates is never input. */
static inline uint32_t positions_needed(uint32_t n_prompt, uint32_t limit) {
    return limit > n_prompt ? limit - 1 : n_prompt;
}

/* Forgets guesses that no step has yet. */
static inline void drop_drafts(sched *s, seq_hot *h) {
    if (h->pending > 0) return;
    s->n_drafting -= h->n_draft > 0;
    h->n_draft = 0;
}

/* Blocks that a sequence with n table entries holds of a group, at most; beside the group's rows,
 * where it has such. */
static inline uint32_t group_part(const seq_group *g, uint32_t n_blocks) {
    return min_u32(n_blocks, g->most);
}
/* Blocks that can be given away now. With a window, what a sequence may come to hold is set
 * aside when it starts, as if nothing was shared; so there is always one when it needs it. Without
 * one, those that are leaving have first claim on the free ones. */
static inline uint32_t group_space(const seq_group *g) {
    const uint32_t n = g->window ? min_u32(g->target, g->kv.limit) : g->kv.n_free;
    const uint32_t taken =
        g->window ? g->reserved + g->rows + blocks_fenced(&g->kv) : g->kv.n_leaving;
    return n > taken ? n - taken : 0;
}
static inline void group_set_target(sched *s, uint32_t k, uint32_t n) {
    seq_group *g = &s->group[k];
    /* A pool that holds all that can run is never short. */
    const bool ample = g->window && n >= g->rows && (n - g->rows) / g->most >= s->cfg.max_seqs;
    g->target = n;
    g->watermark =
        ample ? 0 : (uint32_t)ceil_div((uint64_t)n * s->cfg.watermark_permille, 1000);
}
static inline int32_t *table_of(const sched *s, const seq_group *g, uint32_t slot) {
    return g->table + (size_t)slot * s->table_stride;
}
static inline int32_t *tokens_of(const sched *s, uint32_t slot) {
    return s->tokens + (size_t)slot * s->tokens_stride;
}
/* First block that a row at position pos sees. */
static inline uint32_t first_seen(const sched *s, const seq_group *g, uint32_t pos) {
    return kv_first_seen(g->window, pos) / s->cfg.block_tokens;
}

/* Entries of a slot's table row that are held. Without table entries g->held is not to be read. */
static inline held held_of(const sched *s, const seq_group *g, uint32_t slot) {
    const uint32_t n = s->hot[slot].n_blocks;
    return g->window && n > 0 ? g->held[slot] : (held){.n = n};
}

/* Nothing is kept between steps: all rows of a text are in one. */
static inline bool takes_whole(const sched *s) {
    return s->n_groups == 0;
}
static inline bool has_states(const sched *s) {
    return s->cfg.state_slots > 0;
}
/* The chain of a sequence has n blocks that are found, of which the last is block. */
static inline void state_place(sched *s, uint32_t slot, uint32_t n, int32_t block) {
    own_state *own = &s->own[slot];
    if (n * s->cfg.block_tokens % s->state_stride) return;
    own->place = n * s->cfg.block_tokens;
    own->block = block;
    own->serial = s->group[s->chain_group].index.serial[block];
}

/* A cached block is not found any more. */
static inline void forget_cached(sched *s, seq_group *g, int32_t block) {
    prefix_forget(&g->index, block);
    if (has_states(s) && g == &s->group[s->chain_group]) state_pool_forget(&s->states, block);
}

/* Positions that the rows of an entry attend to, each by itself; in the group that confirms
 * prefixes, for groups with a window have less. */
static inline double row_pairs(const sched *s, const sched_step_seq *e) {
    const uint32_t window = s->group[s->chain_group].window;
    const double mean = e->first_pos + (e->n_rows + 1) / 2.0;
    return e->n_rows * (window && mean > window ? window : mean);
}

/* hold.c: a sequence and its blocks. */
uint32_t hold_count(const sched *, uint32_t slot); /* of all groups */
/* Begins with what start found, and sets aside n_blocks table entries. */
void hold_start(sched *, uint32_t slot, const start *, uint32_t n_blocks);
void hold_grow(sched *, uint32_t slot); /* one table entry more */
/* Table entries behind the first n are given back; no uncommitted step may have it. */
void hold_shrink(sched *, uint32_t slot, uint32_t n);
/* Blocks with a window, for positions up to end. */
void hold_cover(sched *, uint32_t slot, uint32_t end);
void hold_release(sched *, uint32_t slot); /* all of them */
/* Blocks that no row from position n_committed on sees. */
void hold_release_unseen(sched *, uint32_t slot, uint32_t n_committed);
void hold_unpin(sched *, const sched_step *); /* sources of its copies */

/* resize.c */
/* Before a step is planned: pools come nearer to their targets, by preemptions if need be. False:
 * blocks are to be moved, which an uncommitted step delays. */
bool resize_advance(sched *);
/* After the rows of a step are planned, while no other is uncommitted: adds the step's moves and
 * renames what they move. Returns their number. */
uint32_t resize_move(sched *);
/* No row could be planned and no step is uncommitted: who holds blocks that are leaving is paused
 * and loses them. */
void resize_unpark(sched *);
void resize_failed(sched *, const sched_step *); /* its moves may not have happened */

/* cache.c: the prefix cache. */
/* Looks up tokens [0, n) of a sequence: the number of blocks in front that every group has.
 * s->probe.block names them. */
uint32_t cache_probe(sched *, sched_id, uint64_t salt, const int32_t *tokens, uint32_t n);
/* Grows by one at least with each block less that a sequence at_gap may need. */
static inline uint64_t cache_gains(const sched *s) {
    return s->n_serials + s->n_shared;
}
/* The most blocks, up to n of those that were found, that every group has if the next row sees no more. */
uint32_t cache_cut(const sched *, uint32_t n);
/* The block of node i of the probe in a group: CHECKs that it is there. */
int32_t cache_probed(const sched *, uint32_t group, uint32_t i);
/* A chain that begins behind the first n blocks of the probe. */
void cache_begin(sched *, uint32_t slot, uint64_t salt, uint32_t n);
/* Positions [0, n) are committed: full blocks become findable. The block of the chain group that the
 * last of them is found by; -1: none was added. */
int32_t cache_publish(sched *, uint32_t slot, uint32_t n);

/* Hashes the first n blocks of the tokens that are being looked up. */
void cache_hash(sched *, uint64_t salt, const int32_t *tokens, uint32_t n);

/* tier_use.c: the tier. */
static inline uint32_t chunk_tokens(const sched *s) {
    return s->cfg.chunk_blocks * s->cfg.block_tokens;
}
static inline bool has_tier(const sched *s) {
    return s->cfg.tier_chunks > 0 && !s->tier_off;
}
/* The position that a loading sequence goes on from. */
static inline uint32_t load_end(const sched *s, uint32_t slot) {
    return s->load[slot].target * chunk_tokens(s);
}
/* Blocks in front, most at most, that are there if those behind the n_found of the probe are
 * loaded; 0: no more than n_found. */
uint32_t load_probe(sched *, uint64_t salt, const int32_t *tokens, uint32_t n_found,
                    uint32_t most);
void load_begin(sched *, uint32_t slot, const start *); /* before its blocks are taken */
void load_stop(sched *, uint32_t slot);   /* it is not loading any more: still in its list */
void load_use(sched *, uint32_t n_found); /* chunks of the probe that memory had */
/* What a sequence has computed may be stored; it still holds its blocks. */
void store_offer(sched *, uint32_t slot);
void load_audit(const sched *); /* load.c */

/* state_use.c: recurrent states; none of it is called without them. */
void state_init(sched *);
/* Of n blocks found, those in front that there is a state behind, too. slot: of a sequence that may
 * have kept its own, or NO_SLOT. *from: its slot, NO_STATE: its own, or there is none. */
uint32_t state_cut(const sched *, uint32_t slot, uint32_t n, uint32_t *from);
void state_begin(sched *, uint32_t slot, const start *);
void state_keep(sched *,
                uint32_t slot); /* it is preempted, and next_pos still says how far it is */
void state_moved(sched *, int32_t from, int32_t to); /* a block of the chain group */
/* It ends, and next_pos says how far it will be when its steps are committed. kept: its state is worth
 * keeping then. */
void state_end(sched *, uint32_t slot, bool kept);
void state_failed(sched *, uint32_t slot); /* a step of one that has ended may not have run */
/* Its state becomes a checkpoint where that is possible, without a copy. */
void state_retire(sched *, uint32_t slot);
/* Whether the state of a running sequence can go on behind n_tokens again. */
bool state_reaches(const sched *, uint32_t slot, uint32_t n_tokens);
/* Slots of the step in planning, whose rows are planned, and its checkpoints; their number. */
uint32_t state_plan(sched *, sched_step_seq *, uint32_t n_decode, uint32_t n);
/* Before its rows are committed: its checkpoints can be found. */
void state_commit(sched *, const sched_step *, bool done);
void state_audit(const sched *);

/* fork.c: members of a fork and their leader. */
/* True: the member sleeps until its leader's prompt is computed, or the leader ends. */
bool fork_wait(sched *, uint32_t record);
void fork_wake(sched *, uint32_t leader);   /* its members join the queue */
void fork_cancel(sched *, uint32_t record); /* a dormant member leaves its leader */
/* The slot of a running leader that has all a member needs, or NO_SLOT. */
uint32_t fork_leader(const sched *, uint32_t record);

/* One of the events that sched_events gives next. Here, since every token is one. */
static inline sched_event *event_push(sched *s, sched_event_kind kind, sched_id id,
                                      uint64_t user) {
    if (s->events_read) {
        s->events_read = false;
        s->n_events = 0;
    }
    CHECK(s->n_events < s->max_events); /* else the caller does not drain them */
    sched_event *e = &s->event[s->n_events++];
    *e = (sched_event){.kind = kind, .id = id, .user = user, .stop_id = -1};
    return e;
}

/* queue.c: where a sequence stands. Its state is set before it joins a list. */
void queue_run(sched *, uint32_t slot);       /* the running ones, and the prefilling ones */
void queue_prefill(sched *, uint32_t slot);   /* a running one joins the prefilling ones, too */
void queue_prefilled(sched *, uint32_t slot); /* leaves the prefilling ones */
void queue_preempted(sched *, uint32_t slot); /* joins the preempted ones */
void queue_park(sched *, uint32_t slot);      /* a paused one with blocks */
void queue_leave(sched *, uint32_t slot);     /* all lists that its state has it in */

/* seq.c: the transitions of one sequence. */
void seq_admit(sched *, uint32_t record, const start *); /* a waiting one; takes slot, blocks */
void seq_resume(sched *, uint32_t slot, const start *);  /* the head of preempted */
void seq_preempt(sched *, uint32_t slot); /* the tail of running, or a parked one */
/* A loading one has all its chunks: it prefills; or it lacks one: it starts again, as if it had been
 * preempted. */
void seq_loaded(sched *, uint32_t slot);
void seq_not_loaded(sched *, uint32_t slot);
void seq_prefilled(sched *, uint32_t slot); /* its last prompt row is planned: it decodes now */
void seq_pause(sched *, uint32_t slot);
void seq_unpause(sched *, uint32_t slot);
/* Takes it out of every list and frees its blocks; ENDED follows now, or by seq_retire. */
void seq_end(sched *, uint32_t slot, sched_finish, int32_t stop_id);
void seq_end_waiting(sched *, uint32_t record, sched_finish);
void seq_retire(sched *, uint32_t slot); /* ended and in no uncommitted step */

#endif
