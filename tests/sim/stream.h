/* A stream of bytes becomes a stream of operations on a scheduler with a tiny pool and the fake
 * engine; a naive reference says what must hold after each. The fuzzer feeds it libFuzzer's
 * bytes, test_stream.c a generator's.
 *
 * The reference knows no blocks, slots or steps. It computes each text on its own, keeps the
 * queue as a plain array, remembers whose next token is still being computed, and bounds how
 * many steps an admitted request may take: the most senior one gets a row at least every third
 * step (it may wait for the fences of two), never loses its rows, and needs at most limit rows;
 * whoever is admitted after it waits for it. Of the prefix cache it knows what may be found:
 * blocks that an earlier request of the same salt has computed, or, in a fork, the leader's
 * prompt. */
#ifndef TESTS_SIM_STREAM_H
#define TESTS_SIM_STREAM_H

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "scheduler/sched.h"
#include "sim/fake.h"

enum { STREAM_REQUESTS = 192, STREAM_LEN = 48, STREAM_VOCAB = 11, STREAM_SEQS = 6 };

typedef struct stream_request {
    seq_id id;
    seq_spec spec;
    int32_t prompt[STREAM_LEN];
    bool live, admitted, cancelled, may_fail, paused,
        unknown; /* unknown: a row draws in flight */
    finish cancel_why, want_finish;
    int32_t want_stop;
    uint32_t want_output, n_tokens, n_reported;
    int32_t text[2 * STREAM_LEN]; /* prompt and output so far */
    uint32_t leader;              /* + 1 */
    uint64_t past, ends_by;       /* ends_by: in committed steps */
} stream_request;

typedef struct stream {
    const uint8_t *data;
    size_t n_data, at;
    sched_config cfg;
    uint32_t depth;
    void *mem;
    sched *s;
    fake_engine *engine;
    bool crowded; /* set before it runs: hardly any blocks, windows everywhere, pauses */
    bool draining, may_pause, pauses; /* pauses: somebody was paused once: no bounds then */
    uint64_t now_us, n_commits;
    uint32_t n; /* requests so far */
    stream_request r[STREAM_REQUESTS];
    uint32_t senior[STREAM_SEQS], n_senior; /* admitted and live, in order of admission */
    uint64_t n_preemptions, n_ended, n_found, n_forked,
        n_lockstep; /* what happened at all, for the test */
} stream;

static inline uint32_t stream_take(stream *m, uint32_t below) {
    uint8_t b = m->at < m->n_data ? m->data[m->at] : 0;
    m->at++;
    return b % below;
}

/* What a request's text must be, whatever happens around it. */
static inline void stream_expect(stream_request *q) {
    const seq_spec *spec = &q->spec;
    uint64_t past = fake_start(spec->prompt, spec->n_prompt);
    q->past = past;
    q->want_finish = FINISH_LENGTH;
    q->want_stop = -1;
    q->want_output = spec->max_tokens;
    for (uint32_t i = 0; i < spec->max_tokens; i++) {
        int32_t token = fake_next(past, STREAM_VOCAB);
        bool ends = token == 0 && !spec->ignore_eos;
        for (uint32_t k = 0; k < spec->n_stop_ids; k++) ends |= token == spec->stop_ids[k];
        if (ends && i >= spec->min_tokens) {
            q->want_finish = FINISH_STOP;
            q->want_stop = token;
            q->want_output = i + 1;
            return;
        }
        past = fake_extend(past, token);
    }
}

/* A member may wait for its leader's prompt, and delays nobody then; it must while the leader
 * lives on for sure. */
static inline bool stream_may_sleep(const stream *m, const stream_request *q) {
    const stream_request *l = q->leader ? &m->r[q->leader - 1] : NULL;
    return l && l->live && l->n_reported < l->spec.n_prompt;
}

static inline bool stream_sleeps(const stream *m, const stream_request *q) {
    const stream_request *l = q->leader ? &m->r[q->leader - 1] : NULL;
    return stream_may_sleep(m, q) && !l->cancelled && !l->may_fail && !m->pauses &&
           (l->spec.deadline_us == 0 || l->spec.deadline_us > m->now_us);
}

/* The longest prefix that another request could have left behind. */
static inline uint32_t stream_findable(const stream *m, uint32_t i) {
    const stream_request *q = &m->r[i];
    uint32_t most = 0, bs = m->cfg.block_tokens;
    for (uint32_t k = 0; m->cfg.prefix_cache && k < m->n; k++) {
        const stream_request *o = &m->r[k];
        uint32_t n = 0, len = o->n_reported < o->spec.n_prompt ? o->n_reported
                                                               : o->spec.n_prompt + o->n_tokens;
        if (k == i || o->spec.salt != q->spec.salt) continue;
        while (n < len && n < q->spec.n_prompt && o->text[n] == q->text[n]) n++;
        if (n > most) most = n;
    }
    if (most >= q->spec.n_prompt) most = q->spec.n_prompt - 1;
    return most / bs * bs;
}

static inline void stream_admitted(stream *m, uint32_t i, uint32_t n_cached) {
    stream_request *q = &m->r[i];
    CHECK(!q->admitted && !stream_sleeps(m, q));
    if (q->leader && n_cached == q->spec.n_prompt - 1)
        m->n_forked++;
    else
        CHECK(n_cached <= stream_findable(m, i) && n_cached % m->cfg.block_tokens == 0);
    CHECK(n_cached == 0 || !q->spec.score_prompt);
    m->n_found += n_cached > 0;
    q->admitted = true;
    for (uint32_t k = 0; k < m->n; k++) { /* nobody waits who should have come first */
        const stream_request *o = &m->r[k];
        if (!o->live || o->admitted || stream_may_sleep(m, o)) continue;
        CHECK(o->spec.priority > q->spec.priority ||
              (o->spec.priority == q->spec.priority && k > i));
    }
    CHECK(m->n_senior < m->cfg.max_seqs);
    m->senior[m->n_senior++] = i;
    q->ends_by = m->n_commits;
    for (uint32_t k = 0; k < m->n_senior; k++) {
        const seq_spec *spec = &m->r[m->senior[k]].spec;
        q->ends_by += 3 * (uint64_t)(spec->n_prompt + spec->max_tokens) + 4;
    }
}

static inline void stream_ended(stream *m, uint32_t i, const sched_event *e) {
    stream_request *q = &m->r[i];
    const seq_spec *spec = &q->spec;
    if (e->finish == FINISH_STOP && e->stop_id >= 0) {
        CHECK(q->want_finish == FINISH_STOP && e->stop_id == q->want_stop);
        CHECK(e->n_output == q->want_output && q->n_tokens == q->want_output - 1);
    } else if (e->finish == FINISH_LENGTH) {
        CHECK(q->want_finish == FINISH_LENGTH && e->n_output == q->want_output);
        CHECK(q->n_tokens == q->want_output && q->n_reported == spec->n_prompt);
    } else {
        CHECK(e->n_output == q->n_tokens);
        CHECK((q->cancelled && e->finish == q->cancel_why) ||
              (e->finish == FINISH_TIMEOUT && spec->deadline_us > 0 &&
               spec->deadline_us <= m->now_us) ||
              (e->finish == FINISH_ERROR && q->may_fail));
    }
    CHECK(e->n_cached <= spec->n_prompt && (q->admitted || e->n_cached == 0));
    q->live = false;
    m->n_ended++;
    memset(q->prompt, 0x5a, sizeof q->prompt); /* no longer borrowed */
    for (uint32_t k = 0; k < m->n_senior; k++) {
        if (m->senior[k] != i) continue;
        memmove(&m->senior[k], &m->senior[k + 1], (--m->n_senior - k) * sizeof *m->senior);
        break;
    }
}

static inline void stream_token(stream *m, stream_request *q, const sched_event *e) {
    CHECK(!q->cancelled && q->n_reported == q->spec.n_prompt);
    CHECK(e->token == fake_next(q->past, STREAM_VOCAB));
    q->past = fake_extend(q->past, e->token);
    q->text[q->spec.n_prompt + q->n_tokens] = e->token;
    CHECK(e->n_output == ++q->n_tokens && q->n_tokens <= q->want_output);
    bool last = q->want_finish == FINISH_LENGTH && q->n_tokens == q->want_output;
    CHECK(e->finish == (last ? FINISH_LENGTH : FINISH_NONE));
    (void)m;
}

/* After every call. */
static inline void stream_check(stream *m) {
    const sched_event *e;
    for (size_t n = sched_events(m->s, &e); n > 0; n--, e++) {
        uint32_t i = (uint32_t)e->user;
        CHECK(i < m->n);
        stream_request *q = &m->r[i];
        CHECK(q->live && q->id == e->id);
        CHECK(q->admitted || e->kind == EVENT_ADMITTED || e->kind == EVENT_ENDED);
        switch (e->kind) {
        case EVENT_ADMITTED: stream_admitted(m, i, e->n_cached); break;
        case EVENT_PREEMPTED:
            m->n_preemptions++;
            CHECK(m->pauses || m->senior[0] != i); /* nobody is senior to it */
            /* It may be back already where it finds its text in blocks of others. */
            CHECK(m->cfg.prefix_cache || sched_kv_blocks_of(m->s, q->id) == 0);
            break;
        case EVENT_PREFILLED:
            CHECK(e->first_pos == q->n_reported && e->n_rows > 0);
            q->n_reported += e->n_rows;
            CHECK(q->n_reported <= q->spec.n_prompt);
            break;
        case EVENT_TOKEN: stream_token(m, q, e); break;
        case EVENT_ENDED: stream_ended(m, i, e); break;
        }
    }
    sched_audit(m->s);
    sched_stats st;
    sched_read(m->s, &st);
    uint32_t n_blocks = 0;
    for (uint32_t k = 0; k < m->cfg.n_groups; k++) n_blocks += m->cfg.group[k].n_blocks;
    CHECK(st.blocks_free + st.blocks_cached + st.blocks_used + st.blocks_fenced == n_blocks);
    uint32_t n_live = 0, n_waiting = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        const stream_request *q = &m->r[i];
        if (!q->live) continue;
        n_live++;
        n_waiting += !q->admitted;
        if (!q->admitted) CHECK(sched_kv_blocks_of(m->s, q->id) == 0);
        if (q->admitted && !m->pauses)
            CHECK(m->n_commits <= q->ends_by); /* guaranteed progress */
    }
    CHECK(n_waiting == st.n_waiting);
    if (n_live == 0) CHECK(st.blocks_free + st.blocks_cached == n_blocks);
}

static inline reject stream_want_reject(const stream *m, const seq_spec *spec) {
    uint32_t n_waiting = 0, tokens = 0, total = spec->n_prompt + spec->max_tokens;
    for (uint32_t i = 0; i < m->n; i++) {
        if (!m->r[i].live || m->r[i].admitted) continue;
        n_waiting++;
        tokens += m->r[i].spec.n_prompt;
    }
    uint32_t positions = total - (spec->max_tokens > 0);
    if (m->draining) return REJECT_DRAINING;
    if (total > m->cfg.max_model_len) return REJECT_TOO_LONG;
    for (uint32_t k = 0; k < m->cfg.n_groups; k++) {
        uint32_t bs = m->cfg.block_tokens, n = (positions + bs - 1) / bs,
                 w = m->cfg.group[k].window;
        uint32_t sees = (w - 1 + m->cfg.depth * m->cfg.max_rows + bs - 1) / bs + 1;
        if (w && n > sees) n = sees;
        if (n > m->cfg.group[k].n_blocks) return REJECT_NEVER_FITS;
    }
    if (n_waiting == m->cfg.max_waiting) return REJECT_QUEUE_FULL;
    if (n_waiting > 0 && tokens + spec->n_prompt > m->cfg.max_waiting_tokens) {
        return REJECT_QUEUE_TOKENS;
    }
    return REJECT_NONE;
}

/* Now and then it forks the request before. */
static inline void stream_fork(stream *m, stream_request *q, seq_spec *spec) {
    uint32_t back = 1 + stream_take(m, 8);
    if (back > 3 || back > m->n) return;
    stream_request *l = &m->r[m->n - back];
    spec->n_prompt = l->spec.n_prompt;
    spec->salt = l->spec.salt;
    memcpy(q->prompt, l->text, spec->n_prompt * sizeof *q->prompt);
    spec->fork_of = l->id;
    if (!spec->score_prompt) q->leader = m->n - back + 1;
}

static inline void stream_submit(stream *m) {
    if (m->n == STREAM_REQUESTS) return;
    stream_request *q = &m->r[m->n];
    *q = (stream_request){0};
    seq_spec *spec = &q->spec;
    spec->prompt = q->prompt;
    spec->n_prompt = 1 + stream_take(m, STREAM_LEN - 1);
    spec->max_tokens = stream_take(m, 24);
    uint32_t flags = stream_take(m, 256);
    spec->score_prompt = spec->max_tokens == 0 || (flags & 7) == 0;
    spec->ignore_eos = flags & 8;
    spec->n_stop_ids = (flags >> 4) & 1;
    spec->lockstep = flags & 128;
    spec->stop_ids[0] = 3;
    spec->min_tokens = (flags >> 5) & 3;
    spec->priority = (int32_t)stream_take(m, 3) - 1;
    uint32_t timeout = stream_take(m, 64);
    if (timeout >= 48) spec->deadline_us = m->now_us + timeout - 48;
    spec->user = m->n;
    /* Prompts of few families, which part at some point. */
    uint32_t family = stream_take(m, 4), parts = stream_take(m, STREAM_LEN);
    spec->salt = stream_take(m, 4) == 0;
    for (uint32_t i = 0; i < spec->n_prompt; i++)
        q->prompt[i] = (int32_t)((i * 7 + family + (i >= parts ? m->n : 0)) % 5);
    stream_fork(m, q, spec);
    memcpy(q->text, q->prompt, spec->n_prompt * sizeof *q->text);
    reject want = stream_want_reject(m, spec);
    CHECK(sched_submit(m->s, spec, m->now_us, &q->id) == want);
    if (want == REJECT_NONE) {
        stream_expect(q);
        q->live = true;
        m->n++;
    }
    stream_check(m);
}

static inline void stream_cancel(stream *m) {
    if (m->n == 0) return;
    stream_request *q = &m->r[stream_take(m, m->n)];
    bool again = !q->live || q->cancelled;
    if (!again) {
        q->cancelled = true;
        q->cancel_why = stream_take(m, 2) ? FINISH_CANCELLED : FINISH_STOP;
    }
    sched_cancel(m->s, q->id, q->cancel_why ? q->cancel_why : FINISH_CANCELLED);
    CHECK(sched_kv_blocks_of(m->s, q->id) == 0);
    stream_check(m);
    if (fake_in_flight(m->engine) == 0) CHECK(!q->live);
}

static inline void stream_pause(stream *m) {
    if (m->n == 0 || !m->may_pause) return;
    stream_request *q = &m->r[stream_take(m, m->n)];
    bool pause = !q->paused;
    sched_pause(m->s, q->id, pause);
    if (q->live && q->admitted) {
        q->paused = pause;
        m->pauses = true;
    }
    stream_check(m);
}

static inline bool stream_has(const step *st, uint64_t user) {
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        if (st->seq[i].user == user) return true;
    }
    return false;
}

static inline bool stream_plan(stream *m) {
    bool settled = fake_in_flight(m->engine) == 0;
    if (fake_in_flight(m->engine) == m->depth) return false;
    const step *st = sched_plan(m->s, m->now_us);
    stream_check(m);
    bool work = false, waits = false;
    for (uint32_t i = 0; i < m->n; i++) {
        const stream_request *q = &m->r[i];
        if (!q->live) continue;
        if (q->paused && st) CHECK(!stream_has(st, i));
        work |= q->admitted && !q->paused;
        waits |= !q->admitted;
        if (settled) CHECK(q->spec.deadline_us == 0 || q->spec.deadline_us > m->now_us);
    }
    if (settled) { /* work is never left lying */
        CHECK((st != NULL) == (work || (waits && m->n_senior < m->cfg.max_seqs)));
        if (st && !m->pauses) CHECK(stream_has(st, m->senior[0]));
    }
    for (uint32_t i = 0; st && i < st->n_seqs; i++) {
        stream_request *q = &m->r[st->seq[i].user];
        if (q->spec.lockstep) CHECK(!q->unknown && st->seq[i].input_from < 0);
        m->n_lockstep += q->spec.lockstep && i < st->n_decode_rows;
        q->unknown = st->seq[i].sample;
    }
    if (st) fake_submit(m->engine, m->s, st);
    return st != NULL;
}

static inline void stream_commit(stream *m, bool fails) {
    if (fake_in_flight(m->engine) == 0) return;
    int32_t tokens[STREAM_SEQS];
    const step *st = fake_collect(m->engine, m->s, tokens);
    for (uint32_t i = 0; fails && i < st->n_seqs; i++) m->r[st->seq[i].user].may_fail = true;
    m->n_commits++;
    for (uint32_t i = 0; i < st->n_seqs; i++)
        if (st->seq[i].sample) m->r[st->seq[i].user].unknown = false;
    sched_commit(m->s, st, fails ? NULL : tokens, m->now_us);
    stream_check(m);
}

static inline void stream_operate(stream *m) {
    switch (stream_take(m, 16)) {
    case 0:
    case 1:
    case 2: stream_submit(m); break;
    case 3: stream_cancel(m); break;
    case 4: m->now_us += stream_take(m, 16); break;
    case 5: {
        uint32_t rare = stream_take(m, 256);
        if (rare < 8) stream_commit(m, true);
        if (rare == 255) sched_drain(m->s), m->draining = true;
        break;
    }
    case 6: stream_pause(m); break;
    case 7:
    case 8:
    case 9:
    case 10: stream_plan(m); break;
    default: stream_commit(m, false); break;
    }
}

static inline void stream_open(stream *m) {
    static const int32_t end_tokens[] = {0};
    m->cfg = (sched_config){.n_groups = 1,
                            .block_tokens = 1 + stream_take(m, 4),
                            .max_seqs = 1 + stream_take(m, STREAM_SEQS),
                            .max_waiting = 1 + stream_take(m, 12),
                            .max_waiting_tokens = 1 + stream_take(m, 200),
                            .max_model_len = 8 + stream_take(m, STREAM_LEN - 7),
                            .watermark_permille = stream_take(m, 4) * 50,
                            .n_end_tokens = 1,
                            .end_tokens = end_tokens};
    m->cfg.max_rows = m->cfg.max_seqs + stream_take(m, 16);
    m->cfg.max_logit_rows = m->cfg.max_seqs + stream_take(m, 8);
    m->cfg.max_prefill_share = stream_take(m, 8);
    m->depth = 1 + stream_take(m, 2);
    m->cfg.depth = m->depth;
    m->cfg.prefix_cache = stream_take(m, 4) > 0;
    m->cfg.n_groups = 1 + stream_take(m, 3);
    for (uint32_t k = 0; k < m->cfg.n_groups; k++) {
        m->cfg.group[k].n_blocks = 1 + stream_take(m, 24);
        bool window = stream_take(m, 8) < (k ? 7 : 2);
        if (m->crowded) m->cfg.group[k].n_blocks = 1 + m->cfg.group[k].n_blocks % 6;
        m->cfg.group[k].window = window || m->crowded ? 1 + stream_take(m, 12) : 0;
    }
    m->may_pause = stream_take(m, 4) == 0 || m->crowded;
    err e;
    size_t bytes = sched_bytes(&m->cfg);
    CHECK(bytes > 0);
    m->mem = aligned_alloc(64, bytes);
    CHECK(m->mem && fake_open(&m->engine, &m->cfg, STREAM_VOCAB, &e) == OK);
    memset(m->mem, 0xa5, bytes);
    m->s = sched_init(m->mem, &m->cfg);
}

/* The whole life of a scheduler, ending idle. m: zeroed, but for crowded. */
static inline void stream_run(stream *m, const uint8_t *data, size_t n) {
    m->data = data;
    m->n_data = n;
    stream_open(m);
    while (m->at < m->n_data) stream_operate(m);
    uint64_t at_most = m->n_commits;
    for (uint32_t i = 0; i < m->n; i++) {
        stream_request *q = &m->r[i];
        if (q->paused) sched_pause(m->s, q->id, q->paused = false);
        at_most += 3 * (uint64_t)(q->spec.n_prompt + q->spec.max_tokens) + 4;
    }
    for (;;) {
        CHECK(m->n_commits <= at_most);
        bool planned = stream_plan(m);
        if (!planned && fake_in_flight(m->engine) == 0) break;
        if (!planned || fake_in_flight(m->engine) == m->depth) stream_commit(m, false);
    }
    for (uint32_t i = 0; i < m->n; i++) CHECK(!m->r[i].live);
    fake_close(m->engine);
    free(m->mem);
}

#endif
