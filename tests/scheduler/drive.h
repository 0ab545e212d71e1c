/* A scheduler driven by hand: each test says what the engine answers. Every call is followed by
 * an audit and by draining the events into a log. */
#ifndef TESTS_SCHEDULER_DRIVE_H
#define TESTS_SCHEDULER_DRIVE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/sched.h"
#include "tests/check_main.h"
#include "tests/scheduler/cells.h"

enum { DRIVE_EVENTS = 1 << 16, DRIVE_END_TOKEN = 2, DRIVE_WORD = 100 };

typedef struct drive {
    sched_config cfg;
    void *mem;
    sched *s;
    uint64_t now_us;
    int32_t prompt[4096]; /* shared by all sequences of the test */
    sched_event log[DRIVE_EVENTS];
    size_t n_log;
} drive;

/* 16 blocks of 4 tokens, 4 slots, 16 rows a step; no watermark, so that tests count exactly. */
static inline sched_config drive_config(void) {
    static const int32_t end_tokens[] = {DRIVE_END_TOKEN};
    return (sched_config){.group = {{.n_blocks = 16}},
                          .n_groups = 1,
                          .block_tokens = 4,
                          .max_seqs = 4,
                          .max_waiting = 64,
                          .max_waiting_tokens = 4096,
                          .max_model_len = 64,
                          .max_rows = 16,
                          .max_logit_rows = 16,
                          .n_end_tokens = 1,
                          .end_tokens = end_tokens};
}

static inline drive *drive_new(sched_config cfg) {
    drive *d = calloc(1, sizeof *d);
    size_t bytes = sched_bytes(&cfg);
    ck_assert_uint_gt(bytes, 0);
    d->cfg = cfg;
    d->mem = aligned_alloc(64, bytes);
    memset(d->mem, 0xa5, bytes); /* init must not rely on zeroes */
    d->s = sched_init(d->mem, &d->cfg);
    for (int i = 0; i < 4096; i++) d->prompt[i] = 1000 + i;
    sched_audit(d->s);
    return d;
}

static inline drive *drive_with_blocks(uint32_t n) {
    sched_config cfg = drive_config();
    cfg.group[0].n_blocks = n;
    return drive_new(cfg);
}

static inline void drive_free(drive *d) {
    free(d->mem);
    free(d);
}

static inline void drive_drain(drive *d) {
    const sched_event *e;
    size_t n = sched_events(d->s, &e);
    ck_assert_uint_le(d->n_log + n, DRIVE_EVENTS);
    if (n > 0) memcpy(d->log + d->n_log, e, n * sizeof *e);
    d->n_log += n;
    sched_audit(d->s);
    cells_check(d->s, d->cfg.n_groups);
}

static inline sched_spec drive_spec(drive *d, uint32_t n_prompt, uint32_t max_tokens) {
    return (sched_spec){.prompt = d->prompt, .n_prompt = n_prompt, .max_tokens = max_tokens};
}

static inline sched_reject drive_try(drive *d, const sched_spec *spec, sched_id *id) {
    sched_reject r = sched_submit(d->s, spec, d->now_us, id);
    drive_drain(d);
    return r;
}

static inline sched_id drive_submit(drive *d, uint32_t n_prompt, uint32_t max_tokens) {
    sched_spec spec = drive_spec(d, n_prompt, max_tokens);
    sched_id id = 0;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    return id;
}

static inline const sched_step *drive_plan(drive *d) {
    const sched_step *st = sched_plan(d->s, d->now_us);
    drive_drain(d);
    return st;
}

/* A step as text: "d0 d1 p2[0..14)s": a decode row of the sequence with user 0, one of 1, rows
 * 0 to 13 of 2's prompt, the last of which samples. d0+3: with three drafts. c: a copied block,
 * before the rows. "" for NULL. Valid until the next call. */
static inline const char *drive_trace(const sched_step *st) {
    static char text[1024];
    int n = 0;
    text[0] = 0;
    for (uint32_t i = 0; st && i < st->n_copies; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " c");
    for (uint32_t i = 0; st && i < st->n_seqs; i++) {
        const sched_step_seq *e = &st->seq[i];
        const unsigned user = (unsigned)e->user;
        if (i >= st->n_decode_seqs)
            n += snprintf(text + n, sizeof text - (size_t)n, " p%u[%u..%u)%s", user,
                          e->first_pos, e->first_pos + e->n_rows, e->sample ? "s" : "");
        else if (e->n_draft > 0)
            n += snprintf(text + n, sizeof text - (size_t)n, " d%u+%u", user, e->n_draft);
        else
            n += snprintf(text + n, sizeof text - (size_t)n, " d%u", user);
        ck_assert_int_lt(n, (int)sizeof text);
    }
    return text + (n > 0);
}

/* Every sampling row draws token. */
static inline void drive_commit(drive *d, const sched_step *st, int32_t token) {
    int32_t tokens[1024];
    for (uint32_t i = 0; i < st->n_seqs; i++) tokens[i] = token;
    const sched_step_tokens drawn = {.token = tokens, .stride = 1};
    sched_commit(d->s, st, &drawn);
    drive_drain(d);
}

static inline void drive_step(drive *d) {
    drive_commit(d, drive_plan(d), DRIVE_WORD);
}

static inline void drive_cancel(drive *d, sched_id id) {
    sched_cancel(d->s, id, FINISH_CANCELLED);
    drive_drain(d);
}

/* Plans and commits until nothing is left to do; the number of steps. */
static inline uint32_t drive_run(drive *d, uint32_t at_most) {
    const sched_step *st;
    uint32_t n = 0;
    while ((st = drive_plan(d))) {
        ck_assert_uint_lt(n++, at_most);
        drive_commit(d, st, DRIVE_WORD);
    }
    return n;
}

static inline sched_stats drive_stats(const drive *d) {
    sched_stats st;
    sched_read(d->s, &st);
    return st;
}

/* Events of one kind of one sequence, and the last of them. */
static inline uint32_t drive_count(const drive *d, sched_id id, sched_event_kind kind) {
    uint32_t n = 0;
    for (size_t i = 0; i < d->n_log; i++) n += d->log[i].id == id && d->log[i].kind == kind;
    return n;
}
static inline const sched_event *drive_last(const drive *d, sched_id id,
                                            sched_event_kind kind) {
    for (size_t i = d->n_log; i-- > 0;) {
        if (d->log[i].id == id && d->log[i].kind == kind) return &d->log[i];
    }
    return NULL;
}
static inline sched_finish drive_finish(const drive *d, sched_id id) {
    const sched_event *e = drive_last(d, id, EVENT_ENDED);
    return e ? e->finish : FINISH_NONE;
}

/* How many tokens of a prompt were found in the prefix cache. */
static inline uint32_t drive_cached(const drive *d, sched_id id) {
    const sched_event *e = drive_last(d, id, EVENT_ADMITTED);
    ck_assert_ptr_nonnull(e);
    return e->n_cached;
}
/* Runs a prompt to its first token; its tokens found in the prefix cache. */
static inline uint32_t drive_ask(drive *d, uint64_t salt, uint32_t n_prompt) {
    sched_spec spec = drive_spec(d, n_prompt, 1);
    sched_id id;
    spec.salt = salt;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    drive_run(d, 100);
    return drive_cached(d, id);
}

/* The entry of a sequence (by user) in a step, or NULL. */
static inline const sched_step_seq *drive_entry(const sched_step *st, uint64_t user) {
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        if (st->seq[i].user == user) return &st->seq[i];
    }
    return NULL;
}

#endif
