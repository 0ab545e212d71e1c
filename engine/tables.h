/* A step, flat: one buffer without pointers that says all a step computes: what each row reads,
 * what each entry samples. A device gets it by one copy; another process or machine may get it
 * through shared memory or a network. Little-endian, fields of fixed width, every table at a
 * multiple of 64 bytes. Pure C; also read by CUDA.
 *
 *   0          head       tables_head: sizes, and what of them is real
 *              sampling   [n_seqs]            tables_sampling  ---------------------+ offsets
 *              token      [n_rows]            int32: input id; 0 where from >= 0    | in words
 *              from       [n_rows]            int32: entry of the step before whose | of lists
 *                                             token is the input; -1: token is it   |
 *              pos        [n_rows]            int32: absolute position; -1: padding |
 *              entry      [n_rows]            int32: whose row it is                |
 *              first_row  [n_seqs]            int32                                 |
 *              n_rows     [n_seqs]            int32; 0: padding                     |
 *              first_pos  [n_seqs]            int32                                 |
 *              state      [n_seqs]            int32: slot of its recurrent state;   |
 *                                             -1: padding, or the model has none    |
 *              gathered   [n_logit_rows]      int32: its row; by entry, ascending   |
 *              scores     [n_scores]          tables_score                          |
 *              tiles      [n_tiles][2]        int32: entry, first of its rows (for  |
 *                                             the engine that computes the step)    |
 *              copies     [n_copies][2]       int32: from, to; by group, then those |
 *                                             of states                             |
 *              checkpoints [n_checkpoints][3] int32: entry, tokens, slot; by entry; |
 *                                             entry -1: padding                     |
 *              blocks[g]  [n_seqs][stride]    int32, for each group; -1: none       |
 *   lists      words      [n_words]           int32, to the end  <------------------+
 *
 * All offsets but the end follow from the shape, so that a captured graph finds its tables. A
 * shape may be larger than the step: entries and rows past the real ones are padding.
 *
 * Example: one entry of one row in one group with a stride of 3 has its head at 0, sampling at
 * 128, token at 256, from at 320, pos at 384, ..., gathered at 768, blocks[0] at 832, lists at
 * 896. */
#ifndef VRAMD_ENGINE_TABLES_H
#define VRAMD_ENGINE_TABLES_H

#include "engine/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TABLES_MAGIC = 0x50545356 /* "VSTP" */, TABLES_VERSION = 2 };

/* Parameters of one entry. Lists are words of `lists`, at given indexes. */
typedef struct tables_sampling {
    int32_t logit_row; /* index in gathered; -1: the entry draws nothing */
    uint32_t position; /* of the new token */
    uint32_t seed[2];  /* low, high */
    float temperature;
    int32_t top_k;
    float top_p, min_p, typical_p;
    float repetition_penalty, presence_penalty, frequency_penalty;
    uint32_t min_tokens;
    uint32_t end_at, n_end;         /* int32 ids; none once min_tokens are reached */
    uint32_t bias_at, n_bias;       /* pairs (int32 id, float bias) */
    uint32_t allowed_at, n_allowed; /* words of the mask of allowed tokens; 0: all are */
    uint32_t history_at, n_history; /* int32 ids from position 0 on; 0 without penalties */
    uint32_t n_prompt;              /* also of entries that draw nothing */
    int32_t history_from;           /* >= 0: previous[...] is one more token of the history */
    int32_t n_logprobs;             /* as in sampling */
    int32_t n_score;                /* as in batch_seq; of the entry, whether it draws or not */
} tables_sampling;

/* Scores one row: log-probability of a given token and the n best. */
typedef struct tables_score {
    int32_t logit_row, token, n_top;
} tables_score;

/* What the tables hold, in numbers: all that offsets depend on. */
typedef struct tables_shape {
    uint32_t n_rows, n_seqs, n_logit_rows;
    uint32_t n_scores, n_tiles, n_copies; /* 0 in a graph */
    uint32_t n_checkpoints;               /* of recurrent states */
    uint32_t stride;                      /* of block tables: blocks of the longest sequence */
} tables_shape;

typedef struct tables_head {
    uint32_t magic, version;
    uint64_t bytes; /* of the whole */
    tables_shape shape;
    uint32_t n_groups, block_tokens;
    uint32_t n_seqs, n_rows, n_logit_rows;    /* that are no padding */
    uint32_t n_copies[ENGINE_COPY_STATE + 1]; /* of each group; the last: of states */
} tables_head;

/* Offsets in bytes. */
typedef struct tables_at {
    uint64_t sampling, token, from, pos, entry, first_row, n_rows, first_pos, state, gathered,
        scores, tiles, copies, checkpoints, blocks[PLAN_MAX_GROUPS], lists;
} tables_at;

static inline uint64_t tables_place(uint64_t *at, uint64_t n, uint64_t bytes) {
    uint64_t here = *at;
    *at += (n * bytes + 63) & ~(uint64_t)63;
    return here;
}

static inline tables_at tables_lay(uint32_t n_groups, const tables_shape *s) {
    tables_at t;
    uint64_t at = 0;
    tables_place(&at, 1, sizeof(tables_head));
    t.sampling = tables_place(&at, s->n_seqs, sizeof(tables_sampling));
    t.token = tables_place(&at, s->n_rows, 4);
    t.from = tables_place(&at, s->n_rows, 4);
    t.pos = tables_place(&at, s->n_rows, 4);
    t.entry = tables_place(&at, s->n_rows, 4);
    t.first_row = tables_place(&at, s->n_seqs, 4);
    t.n_rows = tables_place(&at, s->n_seqs, 4);
    t.first_pos = tables_place(&at, s->n_seqs, 4);
    t.state = tables_place(&at, s->n_seqs, 4);
    t.gathered = tables_place(&at, s->n_logit_rows, 4);
    t.scores = tables_place(&at, s->n_scores, sizeof(tables_score));
    t.tiles = tables_place(&at, s->n_tiles, 8);
    t.copies = tables_place(&at, s->n_copies, 8);
    t.checkpoints = tables_place(&at, s->n_checkpoints, 12);
    for (uint32_t g = 0; g < PLAN_MAX_GROUPS; g++)
        t.blocks[g] = tables_place(&at, g < n_groups ? s->n_seqs : 0, (uint64_t)s->stride * 4);
    t.lists = at;
    return t;
}

/* What both sides know of the model and of its cache. */
typedef struct tables_model {
    uint32_t n_vocab, n_groups, block_tokens;
    uint32_t n_states; /* slots for recurrent states; 0: the model has none */
} tables_model;

/* Rows of an entry that score the token after them: those whose next token is of the prompt.
 * They are its first logit rows. */
uint32_t tables_scores_of(const batch_seq *);

/* The shape of a batch that was checked (engine/batch.h), without tiles and padding. */
tables_shape tables_measure(const tables_model *, const batch *);

/* Writes such a batch as tables of this shape, which may be padded: all but tiles and padding,
 * which are left as they are. to: 64-byte aligned. Returns the bytes used, head.bytes. */
uint64_t tables_fill(void *to, const tables_model *, const tables_shape *, const batch *);

/* The entry as ranks get it that draw nothing. */
static inline batch_seq tables_plain(const batch_seq *s) {
    batch_seq x = *s;
    x.sample = false;
    x.n_draft = 0;
    x.params = NULL;
    x.allowed = NULL;
    x.n_score = -1;
    return x;
}

/* Memory that tables_read fills in. */
typedef struct tables_store {
    batch_seq *seq;     /* [max_seqs] */
    sampling *params;   /* [max_seqs] */
    int32_t *tokens;    /* [max_seqs][max_model_len] */
    block_copy *copies; /* [max_seqs * (n_groups + 1)] */
    batch_checkpoint
        *checkpoints; /* [tables_most_checkpoints]; NULL: the model has no states */
} tables_store;

/* Checkpoints of a step at most: one where an entry's rows reach a multiple of STATE_CHUNK. */
static inline uint32_t tables_most_checkpoints(const engine_options *o) {
    return o->max_seqs + o->max_rows / STATE_CHUNK;
}

/* The batch of such a buffer of n bytes, 64-byte aligned, from an untrusted source. The batch
 * points into buffer and store. It computes what the written one did; what a step does not need
 * was not carried: history without penalties, end tokens (and min_tokens) once reached, blocks
 * past its rows, n_prompt is whole. Tiles and padding are checked and else ignored. What
 * depends on the program, that blocks exist, that input comes from an entry that drew, is up to
 * batch_check.
 * Errors: ERR_INVALID (field "tables"): truncated, of another version or model, more than the
 * options allow, or its parts contradict each other. */
status tables_read(batch *out, const void *buffer, uint64_t n, const tables_model *,
                   const engine_options *, const tables_store *, err *);

#ifdef __cplusplus
}
#endif
#endif
