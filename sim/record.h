/* A step log: every input of a scheduler, in the order of the calls, and what each step was to do.
 * The same calls on the same scheduler give the same plans, so a log can be replayed (replay.h).
 *
 * A file is RECORD_MAGIC, then records: a length of 4 bytes, little-endian, of what follows; the
 * kind, a byte; the fields of the kind, as numbers of 7 bits a byte, lowest first (LEB128). The
 * first record is RECORD_CONFIG. Prompts are in it, as tokens. */
#ifndef VRAMD_SIM_RECORD_H
#define VRAMD_SIM_RECORD_H

#include "base/err.h"
#include "base/str.h"
#include "scheduler/sched.h"

#define RECORD_MAGIC "VRAMDSL3"
enum { RECORD_MAGIC_BYTES = 8 };

typedef enum record_kind {
    RECORD_CONFIG = 1,
    RECORD_SUBMIT,
    RECORD_CANCEL,
    RECORD_PAUSE,
    RECORD_NOW,
    RECORD_PLAN,
    RECORD_OBSERVE,
    RECORD_COMMIT,
    RECORD_RESIZE,
    RECORD_TIER_ADD,
    RECORD_TIER_SWITCH,
    RECORD_LOAD_NEXT,
    RECORD_LOAD_DONE, /* of the oldest chunk that was named */
    RECORD_STORE_NEXT,
    RECORD_STORE_DONE,
    RECORD_TIER_EVICT,
    RECORD_TIER_FORGET,
    RECORD_FORGET,
    RECORD_GAP,   /* records that the writer lost here: what follows cannot be replayed */
    RECORD_DRAFT, /* of a server that speculates ... */
    RECORD_SPEND  /* ... with a draft model */
} record_kind;

/* A planned step. number 0: there was none. */
typedef struct record_step {
    uint64_t number, hash; /* hash: of all that the plan says, with the blocks that it writes */
    uint32_t n_seqs, n_rows, n_logit_rows, n_decode_rows;
    uint64_t kv; /* of step_work, rounded */
} record_step;

/* One call. Which fields mean something depends on the kind. */
typedef struct record {
    record_kind kind;
    /* PAUSE, RECORD_TIER_SWITCH, RECORD_LOAD_DONE: the argument; RESIZE, RECORD_TIER_ADD,
     * RECORD_LOAD_NEXT, RECORD_STORE_NEXT, RECORD_TIER_EVICT, RECORD_TIER_FORGET: the
     * result; COMMIT: there are tokens; RECORD_DRAFT: a draft model guessed. */
    bool yes;
    bool has_parent;    /* RECORD_TIER_ADD */
    bool has_salt;      /* RECORD_TIER_FORGET, RECORD_FORGET: of that salt alone */
    uint32_t code;      /* SUBMIT: sched_reject; CANCEL: sched_finish */
    uint32_t policy;    /* CONFIG: of sched_policies */
    uint32_t groups;    /* RECORD_TIER_ADD */
    uint32_t n_entries; /* COMMIT: of drawn */
    uint64_t now_us;    /* SUBMIT, NOW, PLAN */
    /* OBSERVE, RECORD_SPEND: us; RECORD_TIER_ADD, RECORD_STORE_DONE, RECORD_TIER_EVICT: bytes; RECORD_GAP:
     * records; RECORD_TIER_FORGET: the entry before; RECORD_FORGET: blocks that became free;
     * RECORD_DRAFT: guesses that may be verified. */
    uint64_t value;
    sched_id id;          /* CANCEL, PAUSE, RECORD_DRAFT; SUBMIT: as it was given out */
    const int32_t *guess; /* RECORD_DRAFT */
    uint32_t n_guess;
    record_step step;                    /* PLAN; OBSERVE, COMMIT: its number */
    uint64_t hash[2], parent[2];         /* RECORD_TIER_ADD */
    uint64_t salt;                       /* and RECORD_TIER_FORGET, RECORD_FORGET */
    uint32_t n_blocks[SCHED_MAX_GROUPS]; /* RESIZE */
    sched_spec spec;                     /* SUBMIT */
    sched_config config;                 /* CONFIG */
    sched_step_tokens drawn;             /* COMMIT; n is set */
} record;

/* Writes a record with its length. Returns its bytes, 0: there are more than cap. */
size_t record_write(const record *, uint8_t *out, size_t cap);

/* Memory that a record which was read borrows from; zero-initialise. */
typedef struct record_memory {
    int32_t *token;
    uint32_t *count;
    size_t n_token, n_count;
} record_memory;
void record_memory_clear(record_memory *);

/* Takes the next record off the front of text; arrays lie in the memory until the next call.
 * Errors: ERR_FORMAT (also a record that is cut off), ERR_NO_MEMORY. */
status record_read(record *, str *text, record_memory *, err *);

/* Of a step that sched_plan returned; NULL is fine. */
record_step record_step_of(const sched *, const sched_config *, const sched_step *);

#endif
