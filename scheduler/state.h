/* The inside of the scheduler, shared by its files and nobody else. Engine thread.
 *
 * Every sequence has a record from submit to its last event, and a slot from admission on. The
 * record is cold: the spec, counters. The slot's hot record is one cache line: all that
 * planning and committing a decode row touch.
 *
 * Seniority: tickets are given at first admission and rise. The running list is in ticket
 * order, and so is the preempted list; every running sequence is senior to every preempted
 * one. Victims leave at the tail of the running list and enter at the head of the preempted
 * list; resuming takes the way back, and nothing new is admitted while anybody is preempted.
 * So no list is ever searched, and no senior can be preempted by a junior.
 *
 * Pausing is the exception: a paused sequence loses its blocks to anybody who needs them, and
 * comes back at the place of its ticket, which may be in front of running juniors. It then
 * waits as the first of the preempted until they leave it room; nothing new is admitted before
 * that, so they do. */
#ifndef VRAMD_SCHEDULER_STATE_H
#define VRAMD_SCHEDULER_STATE_H

#include "scheduler/sched.h"
#include "scheduler/blocks.h"
#include "scheduler/heap.h"

#include "base/check.h"

#define NO_SLOT UINT32_MAX

typedef enum seq_state {
    SEQ_FREE,      /* nobody has the slot */
    SEQ_PREFILL,   /* running; more than the next sampled token is to be computed */
    SEQ_DECODE,    /* running; its rows sample, one a step */
    SEQ_PREEMPTED, /* holds no blocks */
    SEQ_PAUSED,    /* gets no rows; parked while it holds blocks */
    SEQ_ENDED      /* holds no blocks, but is in an uncommitted step */
} seq_state;

/* Known tokens: [0, len). Planned positions: [0, next_pos). Uncommitted sampling rows: pending,
 * so that the sequence will have len + pending tokens once all steps are committed. */
typedef struct seq_hot {
    seq_id id;
    uint64_t user;
    uint32_t prev, next;                 /* running or preempted list; free slots: next */
    uint32_t prefill_prev, prefill_next; /* list of prefilling ones */
    uint32_t len, next_pos;
    uint32_t n_prompt, limit;        /* limit: n_prompt + max_tokens */
    uint32_t n_blocks;               /* of its table row */
    uint32_t newest_entry;           /* its entry in the newest step that has it */
    uint8_t state;                   /* seq_state */
    uint8_t inflight, pending;       /* uncommitted steps that have it; of those, that sample */
    uint8_t newest_parity;           /* of the number of the newest step that has it */
    uint8_t score;                   /* prompt rows yield logits */
    uint8_t checks_end, checks_stop; /* the model's end tokens, its own stop ids */
    uint8_t prefilled;               /* its last prompt row is planned */
} seq_hot;
_Static_assert(sizeof(seq_hot) == 64, "a hot record is one cache line");

typedef struct seq_record {
    seq_spec spec;
    uint32_t generation; /* odd while somebody has it */
    uint32_t slot;       /* NO_SLOT while waiting; free records: the next free one */
    uint64_t arrival;    /* order of submission */
    uint64_t ticket;     /* 0 until first admission */
    uint32_t n_reported; /* prompt rows that PREFILLED events have told */
    uint32_t n_lost;     /* positions thrown away by the last preemption */
    uint32_t n_preemptions, peak_blocks;
    finish finish;
    int32_t stop_id;
} seq_record;

typedef struct slot_list {
    uint32_t head, tail, n;
} slot_list;

struct sched {
    sched_config cfg;
    uint32_t n_records, blocks_per_seq, watermark_blocks, prefill_share;
    uint32_t free_slot, n_free_slots, free_record;
    slot_list running, preempted, prefilling;
    slot_list parked; /* paused ones that hold blocks, the newest last */
    uint32_t n_paused, parked_blocks;
    bool ever_paused;
    heap waiting, deadlines; /* of records */
    blocks kv;
    uint64_t waiting_tokens, n_submitted, n_tickets, n_planned, n_committed;
    uint64_t n_preemptions, n_recomputed_tokens, n_prompt_tokens, n_output_tokens;
    bool draining, events_read;
    uint32_t n_ended; /* slots in SEQ_ENDED */
    size_t n_events, max_events;
    seq_hot *hot;       /* [max_seqs] */
    seq_record *record; /* [n_records] */
    int32_t *table;     /* [max_seqs][blocks_per_seq] */
    int32_t *tokens;    /* [max_seqs][max_model_len] */
    step step[2];       /* by parity of the number */
    step_seq *entry[2]; /* [max_seqs] */
    sched_event *event; /* [max_events] */
};

static inline uint32_t min_u32(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}
static inline uint32_t max_u32(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

static inline uint32_t record_of(seq_id id) {
    return (uint32_t)id;
}
/* The record of a live sequence, or NULL for an id that is stale or was never given. */
static inline seq_record *record_find(const sched *s, seq_id id) {
    if (record_of(id) >= s->n_records) return NULL;
    seq_record *r = &s->record[record_of(id)];
    return r->generation == (uint32_t)(id >> 32) && r->generation % 2 == 1 ? r : NULL;
}

static inline uint32_t blocks_for(const sched *s, uint32_t n_tokens) {
    return (uint32_t)ceil_div(n_tokens, s->cfg.block_tokens);
}
/* KV positions that a sequence will ever need: the last token it generates is never input. */
static inline uint32_t positions_needed(uint32_t n_prompt, uint32_t limit) {
    return limit > n_prompt ? limit - 1 : n_prompt;
}

/* seq.c: the transitions of one sequence. */
sched_event *event_push(sched *, event_kind, seq_id, uint64_t user);
void seq_admit(sched *, uint32_t record);   /* a waiting one; takes slot and blocks */
void seq_resume(sched *, uint32_t slot);    /* the head of preempted; takes blocks */
void seq_preempt(sched *, uint32_t slot);   /* the tail of running, or a parked one */
void seq_grow(sched *, uint32_t slot);      /* one more block; CHECKs that one is free */
void seq_prefilled(sched *, uint32_t slot); /* its last prompt row is planned: it decodes now */
void seq_pause(sched *, uint32_t slot);
void seq_unpause(sched *, uint32_t slot);
/* Takes it out of every list and frees its blocks; ENDED follows now, or by seq_retire. */
void seq_end(sched *, uint32_t slot, finish, int32_t stop_id);
void seq_end_waiting(sched *, uint32_t record, finish);
void seq_retire(sched *, uint32_t slot); /* ended and in no uncommitted step */

#endif
