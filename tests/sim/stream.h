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
#include "base/hash.h"
#include "scheduler/policy.h"
#include "scheduler/resize.h"
#include "sim/fake.h"
#include "tests/scheduler/cells.h"

enum { STREAM_REQUESTS = 192, STREAM_LEN = 48, STREAM_VOCAB = 11, STREAM_SEQS = 6 };
enum { STREAM_CHUNKS = 64, STREAM_LOADS = 3, STREAM_CHUNK_BYTES = 1024, STREAM_PLACE = 150 };

/* What the tier has of a chunk, and who it was made for; free where bytes is 0. */
typedef struct stream_chunk {
    uint64_t hash[2], bytes;
    uint32_t groups;
    int32_t tokens[STREAM_LEN];
    unsigned char cells[SCHED_MAX_GROUPS][STREAM_CHUNK_BYTES];
} stream_chunk;

typedef struct stream_request {
    sched_id id;
    sched_spec spec;
    int32_t prompt[STREAM_LEN];
    bool live, admitted, cancelled, may_fail, paused;
    bool unknown;                    /* a row draws in flight */
    bool checkpoint[STREAM_LEN + 1]; /* one was written behind so many of its tokens */
    sched_finish cancel_why, want_finish;
    int32_t want_stop;
    uint32_t want_output, n_tokens, n_reported;
    int32_t text[2 * STREAM_LEN]; /* prompt and output so far */
    uint32_t leader;              /* + 1 */
    bool forgotten;               /* nothing that it has computed can be found */
    uint32_t n_steps;             /* committed, with rows of it */
    uint64_t past, ends_by;       /* ends_by: in committed steps */
    uint64_t key, ticket;         /* of the policy: order of admission, and seniority */
    uint64_t last_key;            /* at most; above key where it depends on a prediction */
    uint64_t submit_us;
    uint32_t n_passed; /* later ones that were admitted before it */
} stream_request;

typedef struct stream {
    const uint8_t *data;
    size_t n_data, at;
    sched_config cfg;
    uint32_t depth;
    void *mem;
    sched *s;
    fake_engine *engine;
    bool rows_once; /* set before it runs: windows whose rows are counted once */
    bool crowded;   /* set before it runs: hardly any blocks, windows everywhere, pauses */
    bool may_pause, pauses; /* pauses: somebody was paused once: no bounds then */
    uint64_t now_us, n_commits, n_ops;
    uint32_t n; /* requests so far */
    stream_request r[STREAM_REQUESTS];
    uint32_t senior[STREAM_SEQS], n_senior; /* admitted and live, the most senior first */
    bool aging;                             /* set before it runs: not the default policy */
    bool fair;                              /* likewise: sched_fair, with tenants and weights */
    bool priority;                          /* likewise: sched_aging, with hours that pass */
    bool shortest;                          /* likewise: sched_shortest, with tenants */
    bool timed;                             /* likewise: steps have an objective */
    bool stalls;     /* likewise, where timed: some steps take very long, or are not timed */
    bool ttft_first; /* likewise, where timed: prompts that have waited come first */
    sched_policy policy;
    uint64_t n_keys, n_admitted, n_overtakes;
    uint64_t n_preemptions, n_ended, n_found, n_forked; /* what happened at all, for the test */
    uint64_t n_lockstep, n_passes, n_predicted, n_timed, n_late;
    sched_step_tokens drawn; /* by the step committed last */
    sched_batching batching; /* set before it runs */
    bool drafts; /* set before it runs: guesses of next tokens, most of them right */
    uint64_t n_drafts, n_guessed, n_accepted;
    uint64_t n_cost_guessed, n_cost_accepted; /* as the costs of those that ended say */
    bool tier; /* set before it runs: chunks are stored and loaded, some late, some never */
    bool host; /* likewise, with tier: it is host memory: few places, always at once */
    stream_chunk chunk[STREAM_CHUNKS], storing;
    sched_chunk stored, loading[STREAM_LOADS]; /* as they were named */
    uint32_t n_loading;
    uint64_t n_loads, n_failed_loads, n_late_loads, n_stores, n_evictions, n_loaded;
    bool resizes;                        /* set before it runs: pools shrink and grow */
    uint32_t n_blocks[SCHED_MAX_GROUPS]; /* as set last */
    uint64_t n_resizes, n_moves;
    bool states; /* set before it runs: the model has recurrent states; then there is no tier */
    uint64_t n_written, n_stated; /* checkpoints; requests that began behind one ... */
    uint64_t n_left;              /* ... that no step has written */
    bool forgets; /* set before it runs: prefixes are forgotten, misses are explained */
    uint64_t n_forgotten, n_why[WHY_FIRST_SEEN + 1];
    uint64_t hash; /* of every field of every step and event, in order */
} stream;

static inline uint32_t stream_take(stream *m, uint32_t below) {
    uint8_t b = m->at < m->n_data ? m->data[m->at] : 0;
    m->at++;
    return b % below;
}

/* The tokens of an event. */
static inline const int32_t *stream_drawn(const stream *m, const sched_event *e) {
    return m->drawn.token + (size_t)e->entry * m->drawn.stride;
}

static inline void stream_hash(stream *m, uint64_t v) {
    m->hash = hash_mix(m->hash * 31 + v + 1);
}

/* Field by field: a field more in a struct is no other step. */
static inline void stream_hash_step(stream *m, const sched_step *st) {
    const uint64_t v[] = {st->number,       st->n_copies,      st->n_seqs,        st->n_rows,
                          st->n_logit_rows, st->n_decode_rows, st->n_prefill_rows};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) stream_hash(m, v[i]);
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        const sched_step_seq *e = &st->seq[i];
        const uint64_t w[] = {e->user,      e->slot,
                              e->first_row, e->n_rows,
                              e->first_pos, (uint32_t)e->input_from,
                              e->n_blocks,  e->n_logit_rows,
                              e->n_prompt,  (uint64_t)(e->sample * 2 + e->score)};
        for (size_t k = 0; k < sizeof w / sizeof *w; k++) stream_hash(m, w[k]);
    }
    for (uint32_t i = 0; i < st->n_copies; i++) {
        const sched_step_copy *c = &st->copy[i];
        stream_hash(m, (uint64_t)c->group << 62 | (uint64_t)c->from << 31 | (uint64_t)c->to);
    }
}

static inline void stream_hash_event(stream *m, const sched_event *e) {
    const uint64_t v[] = {e->kind,   e->id,        e->user,          e->entry,
                          e->finish, e->n_output,  e->n_cached,      (uint32_t)e->stop_id,
                          e->n_rows, e->first_pos, e->n_preemptions, e->peak_blocks};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) stream_hash(m, v[i]);
    for (uint32_t k = 0; k < e->n_tokens; k++) stream_hash(m, (uint32_t)stream_drawn(m, e)[k]);
}

/* What a request's text must be, whatever happens around it. */
static inline void stream_expect(stream_request *q) {
    const sched_spec *spec = &q->spec;
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

/* A policy that has all that one may have: what is urgent or short comes first, but nothing
 * waits for ever; tenants yield seniority to later admissions; shares beyond all bounds. */
static inline uint64_t stream_waiting_key(void *self, const sched_spec *spec, uint64_t arrival,
                                          uint64_t now_us) {
    ((stream *)self)->n_keys++;
    return arrival / 4 + now_us + 16 * (uint64_t)(spec->priority + 1) + spec->n_prompt / 4;
}
static inline uint64_t stream_ticket_key(void *self, const sched_spec *spec, uint64_t key,
                                         uint64_t n) {
    (void)key;
    (void)self;
    return n + 3 * spec->tenant;
}
static inline uint32_t stream_share(void *self, const sched_config *cfg, uint32_t n_left) {
    (void)self, (void)cfg;
    return n_left % 3 == 0 ? 0 : n_left % 3 == 1 ? UINT32_MAX : 2;
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
        if (k == i || o->forgotten || o->spec.salt != q->spec.salt) continue;
        while (n < len && n < q->spec.n_prompt && o->text[n] == q->text[n]) n++;
        if (n > most) most = n;
    }
    if (most >= q->spec.n_prompt) most = q->spec.n_prompt - 1;
    return most / bs * bs;
}

#include "tests/sim/stream_states.h"

/* Takes its place among the admitted ones. Those that it overtakes may have to begin again. */
static inline void stream_join(stream *m, uint32_t i) {
    stream_request *q = &m->r[i];
    CHECK(m->n_senior < m->cfg.max_seqs);
    q->ticket = ++m->n_admitted;
    if (m->aging) q->ticket = stream_ticket_key(m, &q->spec, q->key, m->n_admitted);
    uint32_t at = m->n_senior++;
    for (; at > 0 && m->r[m->senior[at - 1]].ticket > q->ticket; at--, m->n_overtakes++)
        m->senior[at] = m->senior[at - 1];
    m->senior[at] = i;
    uint64_t ends_by = m->n_commits;
    for (uint32_t k = 0; k < m->n_senior; k++) {
        stream_request *o = &m->r[m->senior[k]];
        ends_by += 3 * (uint64_t)(o->spec.n_prompt + o->spec.max_tokens) + 4;
        if (k >= at) o->ends_by = ends_by;
    }
}

/* q is admitted before o, which should have come first: seldom enough, and only because it needs
 * fewer blocks and is of the same tenant and as urgent. (Where o begins as a fork, it pins one.) */
static inline void stream_passed(stream *m, stream_request *o, const stream_request *q) {
    const uint32_t bs = m->cfg.block_tokens;
    const uint32_t n = q->spec.n_prompt + q->spec.max_tokens - (q->spec.max_tokens > 0);
    const uint32_t of = o->spec.n_prompt + o->spec.max_tokens - (o->spec.max_tokens > 0);
    CHECK(m->batching == BATCHING_CONTINUOUS && o->n_passed++ < 8);
    CHECK(o->spec.priority == q->spec.priority);
    CHECK(!m->fair || o->spec.tenant == q->spec.tenant);
    CHECK((of + bs - 1) / bs > (n + bs - 1) / bs || o->leader);
    m->n_passes++;
}

static inline void stream_admitted(stream *m, uint32_t i, uint32_t n_cached) {
    stream_request *q = &m->r[i];
    CHECK(!q->admitted && !stream_sleeps(m, q));
    if (q->leader && n_cached == q->spec.n_prompt - 1)
        m->n_forked++;
    else
        CHECK(n_cached <= stream_findable(m, i) && n_cached % m->cfg.block_tokens == 0 &&
              stream_stated(m, i, n_cached));
    CHECK(n_cached == 0 || !q->spec.score_prompt);
    m->n_found += n_cached > 0;
    q->admitted = true;
    for (uint32_t k = 0; k < m->n; k++) { /* nobody waits who should have come first */
        stream_request *o = &m->r[k];
        if (!o->live || o->admitted || stream_may_sleep(m, o)) continue;
        if (o->last_key > q->key ||
            (o->last_key == q->key && (k > i || (m->fair && o->spec.tenant != q->spec.tenant))))
            continue;
        stream_passed(m, o, q);
    }
    stream_join(m, i);
}

/* What the tier gave it was computed before, too. */
static inline void stream_loaded(stream *m, uint32_t i, const sched_event *e) {
    const stream_request *q = &m->r[i];
    CHECK(m->tier && q->admitted && !q->spec.no_tier && e->n_loaded <= e->n_cached);
    CHECK(e->n_cached <= stream_findable(m, i) && e->n_cached % m->cfg.block_tokens == 0);
    m->n_loaded += e->n_loaded > 0;
}

static inline void stream_ended(stream *m, uint32_t i, const sched_event *e) {
    stream_request *q = &m->r[i];
    const sched_spec *spec = &q->spec;
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
    m->n_predicted += m->shortest && q->admitted && spec->max_tokens > 0 &&
                      (e->finish == FINISH_STOP || e->finish == FINISH_LENGTH);
    CHECK(!q->admitted || e->cost);
    if (e->finish == FINISH_LENGTH) CHECK(e->cost->n_steps == q->n_steps);
    if (e->cost) {
        CHECK(e->cost->n_accepted <= e->cost->n_guessed && e->cost->n_accepted <= e->n_output);
        m->n_cost_guessed += e->cost->n_guessed;
        m->n_cost_accepted += e->cost->n_accepted;
    }
    if (e->cost && e->n_preemptions == 0 && !m->pauses) CHECK(e->cost->n_recomputed == 0);
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
    for (uint32_t k = 0; k < e->n_tokens; k++) {
        const int32_t token = stream_drawn(m, e)[k];
        CHECK(token == fake_next(q->past, STREAM_VOCAB));
        q->past = fake_extend(q->past, token);
        q->text[q->spec.n_prompt + q->n_tokens++] = token;
    }
    CHECK(e->n_tokens > 0 && e->n_output == q->n_tokens && q->n_tokens <= q->want_output);
    m->n_accepted += e->n_tokens - 1;
    bool last = q->want_finish == FINISH_LENGTH && q->n_tokens == q->want_output;
    if (e->finish == FINISH_STOP) /* its token ended the run */
        CHECK(q->want_finish == FINISH_STOP && q->n_tokens == q->want_output - 1);
    else
        CHECK(e->finish == (last ? FINISH_LENGTH : FINISH_NONE));
}

/* After every call. */
static inline void stream_check(stream *m) {
    const sched_event *e;
    sched_stats st;
    sched_read(m->s, &st);
    m->pauses |=
        st.n_loading > 0; /* a load takes as long as it takes: no bounds then, either */
    for (size_t n = sched_events(m->s, &e); n > 0; n--, e++) {
        uint32_t i = (uint32_t)e->user;
        stream_hash_event(m, e);
        CHECK(i < m->n);
        stream_request *q = &m->r[i];
        CHECK(q->live && q->id == e->id);
        CHECK(q->admitted || e->kind == EVENT_ADMITTED || e->kind == EVENT_ENDED);
        switch (e->kind) {
        case EVENT_ADMITTED: stream_admitted(m, i, e->n_cached); break;
        case EVENT_PREEMPTED:
            m->n_preemptions++;
            q->forgotten = false;                  /* it will compute it again */
            CHECK(m->pauses || m->senior[0] != i); /* nobody is senior to it */
            /* It may be back already where it finds its text in blocks of others. */
            CHECK(m->cfg.prefix_cache || sched_kv_blocks_of(m->s, q->id) == 0);
            break;
        case EVENT_PREFILLED:
            CHECK(e->first_pos == q->n_reported && e->n_rows > 0);
            q->n_reported += e->n_rows;
            CHECK(q->n_reported <= q->spec.n_prompt);
            break;
        case EVENT_LOADED: stream_loaded(m, i, e); break;
        case EVENT_TOKEN: stream_token(m, q, e); break;
        case EVENT_ENDED: stream_ended(m, i, e); break;
        }
    }
    sched_audit(m->s);
    cells_check(m->s, m->cfg.n_groups);
    uint32_t n_blocks = 0;
    for (uint32_t k = 0; k < m->cfg.n_groups; k++) n_blocks += m->n_blocks[k];
    CHECK(st.blocks_free + st.blocks_cached + st.blocks_used + st.blocks_fenced ==
          st.blocks_all);
    CHECK(sched_resized(m->s) ? st.blocks_all == n_blocks : m->resizes);
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
    CHECK(n_waiting == st.n_waiting && (m->aging || m->n_overtakes == 0));
    if (n_live == 0) CHECK(st.blocks_free + st.blocks_cached == st.blocks_all);
}

/* Blocks that a pool must have for the request: in the reference's own words. */
static inline uint32_t stream_needs(const stream *m, const sched_spec *spec, uint32_t k) {
    const uint32_t bs = m->cfg.block_tokens, w = m->cfg.group[k].window;
    const uint32_t positions = spec->n_prompt + spec->max_tokens - (spec->max_tokens > 0);
    const uint32_t n = (positions + bs - 1) / bs, rows = m->cfg.max_rows;
    const uint32_t sees = (w - 1 + m->cfg.depth * rows + bs - 1) / bs + 1;
    if (!w) return n;
    if (m->cfg.group[k].rows_once) {
        const uint32_t share = (w + bs - 1) / bs + 2, steps = m->cfg.depth == 1 ? 1 : 3;
        return (n > share ? share : n) + (steps * rows + bs - 1) / bs;
    }
    return n > sees ? sees : n;
}

static inline sched_reject stream_want_reject(const stream *m, const sched_spec *spec) {
    uint32_t n_waiting = 0, tokens = 0, total = spec->n_prompt + spec->max_tokens;
    for (uint32_t i = 0; i < m->n; i++) {
        if (!m->r[i].live || m->r[i].admitted) continue;
        n_waiting++;
        tokens += m->r[i].spec.n_prompt;
    }
    if (total > m->cfg.max_model_len) return REJECT_TOO_LONG;
    for (uint32_t k = 0; k < m->cfg.n_groups; k++)
        if (stream_needs(m, spec, k) > m->n_blocks[k]) return REJECT_NEVER_FITS;
    if (n_waiting == m->cfg.max_waiting) return REJECT_QUEUE_FULL;
    if (n_waiting > 0 && tokens + spec->n_prompt > m->cfg.max_waiting_tokens) {
        return REJECT_QUEUE_TOKENS;
    }
    return REJECT_NONE;
}

/* Now and then it forks the request before. */
static inline void stream_fork(stream *m, stream_request *q, sched_spec *spec) {
    uint32_t back = 1 + stream_take(m, 8);
    if (back > 3 || back > m->n) return;
    stream_request *l = &m->r[m->n - back];
    spec->n_prompt = l->spec.n_prompt;
    spec->salt = l->spec.salt;
    memcpy(q->prompt, l->text, spec->n_prompt * sizeof *q->prompt);
    spec->fork_of = l->id;
    if (!spec->score_prompt) q->leader = m->n - back + 1;
}

/* The larger of the times that the sequence may be put back by its predicted length: as if it took
 * all of max_tokens; n_output 0: the smaller one. */
static inline uint64_t stream_delay(const stream *m, const sched_spec *spec,
                                    uint32_t n_output) {
    sched_stats st;
    sched_read(m->s, &st);
    const cost_model *c = &st.cost;
    double us = 1000.0 * spec->n_prompt + 10000.0 * n_output;
    if (c->n >= COST_WARM_UP) {
        const double step = c->coef[0] + c->coef[1] + c->coef[3];
        us = c->coef[1] * spec->n_prompt + step * n_output;
    }
    return 4 * us < 120e6 ? (uint64_t)(4 * us) : 120000000;
}

/* The order of admission that its policy gives a request. */
static inline void stream_set_key(stream *m, stream_request *q) {
    const sched_spec *spec = &q->spec;
    q->submit_us = m->now_us;
    q->key = (uint64_t)(spec->priority + 1);
    if (m->priority || m->shortest) q->key = q->key * 30000000 + m->now_us; /* half a minute */
    if (m->aging) q->key = stream_waiting_key(m, spec, m->n + 1, m->now_us);
    q->last_key = q->key;
    if (!m->shortest) return;
    q->last_key += stream_delay(m, spec, spec->max_tokens) + 1; /* rounding */
    q->key += stream_delay(m, spec, 0);
}

static inline void stream_submit(stream *m) {
    if (m->n == STREAM_REQUESTS) return;
    stream_request *q = &m->r[m->n];
    *q = (stream_request){0};
    sched_spec *spec = &q->spec;
    spec->prompt = q->prompt;
    spec->n_prompt = 1 + stream_take(m, STREAM_LEN - 1);
    spec->max_tokens = stream_take(m, 24);
    uint32_t flags = stream_take(m, 256);
    spec->score_prompt = spec->max_tokens == 0 ? flags & 1 : (flags & 7) == 0;
    spec->ignore_eos = flags & 8;
    spec->n_stop_ids = (flags >> 4) & 1;
    spec->lockstep = flags & 128;
    spec->stop_ids[0] = 3;
    spec->min_tokens = (flags >> 5) & 3;
    spec->priority = (int32_t)stream_take(m, 3) - 1;
    uint32_t timeout = stream_take(m, 64);
    if (timeout >= 48) spec->deadline_us = m->now_us + timeout - 48;
    spec->user = m->n;
    if (m->aging || m->fair || m->shortest)
        spec->tenant = stream_take(m, 3) * (m->aging ? 1 : 2);
    if (m->fair) spec->weight = stream_take(m, 3);
    /* Prompts of few families, which part at some point. */
    uint32_t family = stream_take(m, 4), parts = stream_take(m, STREAM_LEN);
    spec->salt = stream_take(m, 4) == 0;
    spec->no_tier = spec->salt && family == 0;
    for (uint32_t i = 0; i < spec->n_prompt; i++)
        q->prompt[i] = (int32_t)((i * 7 + family + (i >= parts ? m->n : 0)) % 5);
    stream_fork(m, q, spec);
    if (m->tier && m->n > 0 && !q->leader && spec->fork_of == 0 && stream_take(m, 3) > 0) {
        const stream_request *old = &m->r[stream_take(m, m->n)]; /* somebody comes back */
        spec->n_prompt = old->spec.n_prompt;
        spec->salt = old->spec.salt;
        spec->no_tier = old->spec.no_tier;
        memcpy(q->prompt, old->text, spec->n_prompt * sizeof *q->prompt);
    }
    memcpy(q->text, q->prompt, spec->n_prompt * sizeof *q->text);
    stream_set_key(m, q);
    sched_reject want = stream_want_reject(m, spec);
    m->n_keys = 0;
    CHECK(sched_submit(m->s, spec, m->now_us, &q->id) == want);
    if (want == REJECT_NONE) {
        stream_expect(q);
        CHECK(m->n_keys == (m->aging ? 1u : 0u)); /* asked for once, at submit */
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

static inline void stream_resize(stream *m) {
    uint32_t n[SCHED_MAX_GROUPS] = {0};
    bool fits = true;
    const bool any = stream_take(m, 4) == 0; /* else what fits */
    for (uint32_t k = 0; k < m->cfg.n_groups; k++) {
        uint32_t least = 1;
        for (uint32_t i = 0; i < m->n; i++) {
            const uint32_t needs = m->r[i].live ? stream_needs(m, &m->r[i].spec, k) : 0;
            if (least < needs) least = needs;
        }
        n[k] = stream_take(m, m->cfg.group[k].max_blocks + 2);
        if (!any && n[k] < least) n[k] = least;
        fits &= n[k] >= least && n[k] <= m->cfg.group[k].max_blocks;
    }
    CHECK(sched_resize(m->s, n) == fits);
    m->n_resizes += fits;
    if (fits) memcpy(m->n_blocks, n, sizeof n);
    stream_check(m);
}

static inline bool stream_has(const sched_step *st, uint64_t user) {
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        if (st->seq[i].user == user) return true;
    }
    return false;
}

/* Some prompt has waited for half of the objective of the first token. */
static inline bool stream_is_late(const stream *m, const sched_step *st) {
    for (uint32_t i = 0; m->ttft_first && i < m->n; i++) {
        const stream_request *q = &m->r[i];
        bool prompt = !q->admitted || q->n_reported < q->spec.n_prompt;
        for (uint32_t k = st->n_decode_seqs; k < st->n_seqs; k++)
            prompt |= st->seq[k].user == i; /* it is computed again */
        if (q->live && prompt && m->now_us - q->submit_us > m->cfg.ttft_slo_us / 2) return true;
    }
    return false;
}

/* Beside sequences that decode, prompts have 16 rows at least, and more only if the step is then
 * predicted to keep the objective, or some prompt is late: without the positions attended to, which
 * make it no shorter. (Rows of drafts are no prompt's.) */
static inline void stream_check_time(stream *m, const sched_step *st, const cost_model *c) {
    if (st->n_decode_seqs == 0 || st->n_prefill_rows <= 16) return;
    const bool late = stream_is_late(m, st);
    m->n_late += late;
    m->n_timed++;
    if (late) return;
    const step_work w = {.rows = st->n_rows, .logit_rows = st->n_logit_rows};
    CHECK(c->n >= COST_WARM_UP && cost_predict(c, w) <= 1.0001 * (double)m->cfg.itl_slo_us + 1);
}

static inline bool stream_plan(stream *m) {
    bool settled = fake_in_flight(m->engine) == 0;
    if (fake_in_flight(m->engine) == m->depth) return false;
    const sched_step *st = sched_plan(m->s, m->now_us);
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
    sched_stats now;
    sched_read(m->s, &now);
    CHECK(now.count.length_predictions >= m->n_predicted);
    if (st && m->timed) stream_check_time(m, st, &now.cost);
    if (settled && (st || now.n_loading == 0)) { /* work is never left lying */
        const bool can = work || (waits && m->n_senior < m->cfg.max_seqs);
        const bool fills = !work && sched_next_us(m->s) > m->now_us; /* its batch may grow */
        CHECK(st ? can : !can || (m->batching == BATCHING_DYNAMIC && fills));
        if (st && !m->pauses) CHECK(stream_has(st, m->senior[0]));
    }
    if (!st) return false;
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        stream_request *q = &m->r[st->seq[i].user];
        const bool lockstep = q->spec.lockstep || m->cfg.apart;
        if (lockstep) CHECK(!q->unknown && st->seq[i].input_from < 0);
        m->n_lockstep += lockstep && i < st->n_decode_seqs;
        q->unknown = st->seq[i].sample;
        m->n_guessed += st->seq[i].n_draft;
    }
    m->n_moves += st->n_moves;
    stream_check_states(m, st);
    stream_hash_step(m, st);
    fake_submit(m->engine, m->s, st);
    return true;
}

/* Guesses up to 8 tokens of a text, each of them right but for one in eight. */
static inline void stream_draft(stream *m, stream_request *q) {
    int32_t guess[8];
    const uint32_t n = stream_take(m, 9), max = q->spec.max_tokens;
    uint64_t past = q->past;
    for (uint32_t i = 0; i < n; i++) {
        guess[i] = fake_next(past, STREAM_VOCAB);
        if (stream_take(m, 8) == 0) guess[i] = (guess[i] + 1) % STREAM_VOCAB;
        past = fake_extend(past, guess[i]);
    }
    const uint32_t most = sched_draft_space(m->s, q->id);
    const uint32_t kept = sched_draft(m->s, q->id, guess, n, n % 2);
    CHECK(kept == (n < most ? n : most) && (kept == 0 || q->n_tokens + kept < max));
    m->n_drafts += kept > 0;
    stream_check(m);
}

static inline void stream_observe(stream *m, const sched_step *st) {
    const uint32_t kind = m->stalls ? stream_take(m, 16) : 2;
    if (kind == 0) return;
    uint64_t us = 100 * st->n_rows + stream_take(m, 100);
    if (kind == 1) us *= stream_take(m, 256); /* or no time at all */
    /* More often than it ran, so that the model of times is ready before the stream ends. */
    for (int i = 0; i < 6; i++) sched_observe(m->s, st, us + (uint64_t)i);
}

static inline void stream_commit(stream *m, bool fails) {
    if (fake_in_flight(m->engine) == 0) return;
    const sched_step *st = fake_collect(m->engine, m->s, &m->drawn);
    for (uint32_t i = 0; fails && i < st->n_seqs; i++) m->r[st->seq[i].user].may_fail = true;
    for (uint32_t i = 0; fails && (st->n_moves || m->states) && i < m->n; i++)
        m->r[i].may_fail = true;
    if (!fails) stream_written(m, st);
    m->n_commits++;
    for (uint32_t i = 0; i < st->n_seqs; i++)
        if (st->seq[i].sample) m->r[st->seq[i].user].unknown = false;
    for (uint32_t i = 0; i < st->n_seqs; i++) m->r[st->seq[i].user].n_steps++;
    if (m->timed) stream_observe(m, st);
    sched_now(m->s, m->now_us);
    sched_commit(m->s, st, fails ? NULL : &m->drawn);
    stream_check(m);
    for (uint32_t i = 0; m->drafts && i < m->n; i++)
        if (m->r[i].live && m->r[i].admitted && stream_take(m, 4) > 0)
            stream_draft(m, &m->r[i]);
}

#include "tests/sim/stream_tier.h"

#include "tests/sim/stream_forget.h"

static inline void stream_operate(stream *m) {
    m->n_ops++;
    if (m->tier) stream_use_tier(m);
    if (m->resizes && stream_take(m, 8) == 0) stream_resize(m);
    if (m->forgets && stream_take(m, 24) == 0) stream_forget(m);
    if (m->forgets && stream_take(m, 4) == 0) stream_explain(m);
    switch (stream_take(m, 16)) {
    case 0:
    case 1:
    case 2: stream_submit(m); break;
    case 3: stream_cancel(m); break;
    case 4:
        m->now_us += stream_take(m, 16);
        if ((m->priority || m->shortest) && stream_take(m, 3) == 0) m->now_us += 10000000;
        break;
    case 5:
        if (stream_take(m, 256) < 8) stream_commit(m, true);
        break;
    case 6: stream_pause(m); break;
    case 7:
    case 8:
    case 9:
    case 10: stream_plan(m); break;
    default: stream_commit(m, false); break;
    }
}

#include "tests/sim/stream_open.h"

/* The whole life of a scheduler, ending idle. m: zeroed, but for what is set before
 * it runs. */
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
        stream_load(m);
        const uint64_t next_us = sched_next_us(m->s);
        if (!planned && m->n_loading > 0 && !moves_in_flight(m)) {
            stream_load_done(m, false);
            continue;
        }
        if (!planned && fake_in_flight(m->engine) == 0 && next_us != UINT64_MAX) {
            CHECK(next_us > m->now_us);
            m->now_us = next_us;
            continue;
        }
        if (!planned && fake_in_flight(m->engine) == 0) break;
        if (!planned || fake_in_flight(m->engine) == m->depth) stream_commit(m, false);
    }
    for (uint32_t i = 0; i < m->n; i++) CHECK(!m->r[i].live);
    sched_stats end;
    sched_read(m->s, &end);
    CHECK(end.count.length_predictions == m->n_predicted);
    CHECK(end.count.speculative_draft_tokens == m->n_cost_guessed &&
          m->n_cost_guessed <= m->n_guessed);
    CHECK(end.count.speculative_accepted_tokens == m->n_cost_accepted &&
          m->n_cost_accepted >= m->n_accepted);
    CHECK(sched_resized(m->s));
    fake_close(m->engine);
    free(m->mem);
}

#endif
