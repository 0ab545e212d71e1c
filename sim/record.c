/* The fields of each kind stand once, for writing and for reading. Stateless. */
#include "sim/record.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "scheduler/policy.h"

enum { LENGTH_BYTES = 4, MAX_RUN = 1 + SCHED_MAX_DRAFT };

/* memory NULL: it writes. bad: too long, or what was read is no record. */
typedef struct wire {
    uint8_t *to;
    const uint8_t *from;
    size_t left;
    record_memory *memory;
    size_t n_token; /* of the memory, in use */
    bool bad, no_memory;
} wire;

static void put(wire *w, uint64_t v) {
    do {
        if (w->left == 0) {
            w->bad = true;
            return;
        }
        *w->to++ = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        w->left--;
        v >>= 7;
    } while (v > 0);
}

static uint64_t take(wire *w) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && w->left > 0; shift += 7) {
        const uint8_t b = *w->from++;
        w->left--;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) return v;
    }
    w->bad = true;
    return 0;
}

static void f64(wire *w, uint64_t *v) {
    if (w->memory)
        *v = take(w);
    else
        put(w, *v);
}

static void f32(wire *w, uint32_t *v) {
    uint64_t x = *v;
    f64(w, &x);
    if (!w->memory) return;
    if (x > UINT32_MAX) w->bad = true;
    *v = (uint32_t)x;
}

/* Of either sign: the lowest bit is the sign. */
static void signed32(wire *w, int32_t *v) {
    uint64_t x = (uint64_t)(uint32_t)*v << 1;
    if (*v < 0) x = (~x & 0x1ffffffffU) | 1;
    f64(w, &x);
    if (!w->memory) return;
    if (x >> 33) w->bad = true;
    *v = (int32_t)(uint32_t)(x & 1 ? ~x >> 1 : x >> 1);
}

static void flag(wire *w, bool *v) {
    uint64_t x = *v;
    f64(w, &x);
    if (!w->memory) return;
    if (x > 1) w->bad = true;
    *v = x == 1;
}

static bool grow(wire *w, void **v, size_t *cap, size_t need, size_t each) {
    if (need <= *cap) return true;
    void *p = realloc(*v, need * 2 * each);
    if (!p) {
        w->bad = w->no_memory = true;
        return false;
    }
    *v = p;
    *cap = need * 2;
    return true;
}

/* A list with its length. */
static void tokens(wire *w, const int32_t **v, uint32_t *n) {
    f32(w, n);
    if (!w->memory) {
        for (uint32_t i = 0; i < *n; i++) signed32(w, &(int32_t){(*v)[i]});
        return;
    }
    record_memory *m = w->memory;
    if (*n > w->left) w->bad = true; /* each takes a byte at least */
    if (w->bad || !grow(w, (void **)&m->token, &m->n_token, (size_t)*n + 1, sizeof *m->token)) {
        *n = 0;
        return;
    }
    for (uint32_t i = 0; i < *n; i++) signed32(w, &m->token[i]);
    *v = m->token;
}

/* The runs of a commit, read into rows of MAX_RUN. */
static void drawn(wire *w, record *r) {
    f32(w, &r->n_entries);
    record_memory *m = w->memory;
    if (m) {
        const size_t n = r->n_entries;
        if (n > w->left) w->bad = true;
        if (w->bad || !grow(w, (void **)&m->count, &m->n_count, n + 1, sizeof *m->count) ||
            !grow(w, (void **)&m->token, &m->n_token, (n + 1) * MAX_RUN, sizeof *m->token)) {
            r->n_entries = 0;
            return;
        }
        r->drawn = (sched_step_tokens){.token = m->token, .n = m->count, .stride = MAX_RUN};
    }
    for (uint32_t i = 0; i < r->n_entries && !w->bad; i++) {
        uint32_t n = m ? 0 : r->drawn.n[i];
        f32(w, &n);
        if (n > MAX_RUN) w->bad = true;
        if (m) m->count[i] = n;
        for (uint32_t k = 0; k < n && !w->bad; k++) {
            const size_t at = (size_t)i * r->drawn.stride + k;
            int32_t t = m ? 0 : r->drawn.token[at];
            signed32(w, &t);
            if (m) m->token[at] = t;
        }
    }
}

/* A field that is added to these must be recorded, too: then its size here changes. Left out are
 * recent_tokens and request, on which no plan depends. */
_Static_assert(sizeof(sched_group) == 24 && sizeof(sched_config) == 280 &&
                   sizeof(sched_spec) == 176,
               "every field of these is in the records");

static void config(wire *w, record *r) {
    sched_config *c = &r->config;
    uint32_t batching = (uint32_t)c->batching;
    for (uint32_t i = 0; i < N_SCHED_POLICIES && !w->memory; i++)
        if (c->policy == sched_policies[i]) r->policy = i;
    f32(w, &c->n_groups);
    if (c->n_groups > SCHED_MAX_GROUPS) w->bad = true;
    for (uint32_t k = 0; k < c->n_groups && !w->bad; k++) {
        sched_group *g = &c->group[k];
        f32(w, &g->n_blocks), f32(w, &g->max_blocks), f32(w, &g->window);
        f64(w, &g->block_bytes), flag(w, &g->rows_once);
    }
    f32(w, &c->block_tokens), f32(w, &c->max_seqs), f32(w, &c->max_waiting);
    f64(w, &c->max_waiting_tokens);
    f32(w, &c->max_model_len), f32(w, &c->max_rows), f32(w, &c->max_logit_rows);
    f32(w, &c->max_prefill_share), f32(w, &c->watermark_permille), f32(w, &c->depth);
    f32(w, &r->policy), f64(w, &c->itl_slo_us), f64(w, &c->ttft_slo_us);
    f32(w, &batching);
    f64(w, &c->batch_window_us), f32(w, &c->max_moves), flag(w, &c->prefix_cache);
    f32(w, &c->tier_chunks), f64(w, &c->tier_bytes), f32(w, &c->store_tokens);
    f32(w, &c->chunk_blocks), f64(w, &c->hash_key[0]), f64(w, &c->hash_key[1]);
    tokens(w, &c->end_tokens, &c->n_end_tokens);
    /* Behind all others, and only of a model that has states or stages: other logs are as before. */
    if (w->memory ? w->left > 0 : c->state_slots > 0 || c->apart)
        f32(w, &c->state_slots), f32(w, &c->state_chunk), f64(w, &c->state_bytes);
    if (w->memory ? w->left > 0 : c->apart) flag(w, &c->apart);
    if (r->policy >= N_SCHED_POLICIES || batching > BATCHING_STATIC) w->bad = true;
    if (w->bad || !w->memory) return;
    c->policy = sched_policies[r->policy];
    c->batching = (sched_batching)batching;
}

static void submit(wire *w, record *r) {
    sched_spec *s = &r->spec;
    f64(w, &r->now_us), f64(w, &r->id), f32(w, &r->code);
    f32(w, &s->max_tokens), f32(w, &s->min_tokens), flag(w, &s->ignore_eos);
    f32(w, &s->n_stop_ids);
    if (s->n_stop_ids > SCHED_MAX_STOP_IDS) w->bad = true;
    for (uint32_t i = 0; i < s->n_stop_ids && !w->bad; i++) signed32(w, &s->stop_ids[i]);
    flag(w, &s->lockstep), flag(w, &s->score_prompt), signed32(w, &s->priority);
    f64(w, &s->tenant), f32(w, &s->weight), f64(w, &s->deadline_us), f64(w, &s->user);
    f64(w, &s->salt), f64(w, &s->base_salt), flag(w, &s->no_tier), f64(w, &s->fork_of);
    tokens(w, &s->prompt, &s->n_prompt);
    if (s->n_prompt == 0) w->bad = true;
}

static void step(wire *w, record_step *s) {
    f64(w, &s->number);
    if (s->number == 0) return;
    f64(w, &s->hash), f32(w, &s->n_seqs), f32(w, &s->n_rows), f32(w, &s->n_logit_rows);
    f32(w, &s->n_decode_rows), f64(w, &s->kv);
}

static void tier_add(wire *w, record *r) {
    f64(w, &r->hash[0]), f64(w, &r->hash[1]), flag(w, &r->has_parent);
    f64(w, &r->parent[0]), f64(w, &r->parent[1]);
    f64(w, &r->salt), f32(w, &r->groups), f64(w, &r->value), flag(w, &r->yes);
}

static void fields(wire *w, record *r) {
    switch (r->kind) {
    case RECORD_CONFIG: config(w, r); break;
    case RECORD_SUBMIT: submit(w, r); break;
    case RECORD_CANCEL: f64(w, &r->id), f32(w, &r->code); break;
    case RECORD_PAUSE: f64(w, &r->id), flag(w, &r->yes); break;
    case RECORD_NOW: f64(w, &r->now_us); break;
    case RECORD_PLAN: f64(w, &r->now_us), step(w, &r->step); break;
    case RECORD_OBSERVE: f64(w, &r->step.number), f64(w, &r->value); break;
    case RECORD_COMMIT:
        f64(w, &r->step.number), flag(w, &r->yes);
        if (r->yes) drawn(w, r);
        break;
    case RECORD_RESIZE:
        for (int k = 0; k < SCHED_MAX_GROUPS; k++) f32(w, &r->n_blocks[k]);
        flag(w, &r->yes);
        break;
    case RECORD_TIER_ADD: tier_add(w, r); break;
    case RECORD_TIER_SWITCH:
    case RECORD_LOAD_NEXT:
    case RECORD_LOAD_DONE:
    case RECORD_STORE_NEXT: flag(w, &r->yes); break;
    case RECORD_STORE_DONE:
    case RECORD_SPEND:
    case RECORD_GAP: f64(w, &r->value); break;
    case RECORD_TIER_FORGET:
    case RECORD_FORGET:
        flag(w, &r->has_salt), f64(w, &r->salt), f64(w, &r->value), flag(w, &r->yes);
        break;
    case RECORD_TIER_EVICT: f64(w, &r->value), flag(w, &r->yes); break;
    case RECORD_DRAFT:
        f64(w, &r->id), f64(w, &r->value), flag(w, &r->yes);
        tokens(w, &r->guess, &r->n_guess);
        break;
    default: w->bad = true;
    }
}

size_t record_write(const record *r, uint8_t *out, size_t cap) {
    record copy = *r;
    if (cap <= LENGTH_BYTES) return 0;
    wire w = {.to = out + LENGTH_BYTES, .left = cap - LENGTH_BYTES};
    put(&w, (uint64_t)r->kind);
    fields(&w, &copy);
    const size_t n = (size_t)(w.to - out) - LENGTH_BYTES;
    if (w.bad || n > UINT32_MAX) return 0;
    for (int i = 0; i < LENGTH_BYTES; i++) out[i] = (uint8_t)(n >> (8 * i));
    return n + LENGTH_BYTES;
}

status record_read(record *r, str *text, record_memory *m, err *e) {
    const uint8_t *p = (const uint8_t *)text->ptr;
    size_t n = 0;
    *r = (record){0};
    if (text->len < LENGTH_BYTES)
        return err_set(e, ERR_FORMAT, "the last record of the step log is cut off");
    for (int i = 0; i < LENGTH_BYTES; i++) n |= (size_t)p[i] << (8 * i);
    if (n > text->len - LENGTH_BYTES)
        return err_set(e, ERR_FORMAT, "the last record of the step log is cut off");
    wire w = {.from = p + LENGTH_BYTES, .left = n, .memory = m};
    r->kind = (record_kind)take(&w);
    if (!w.bad) fields(&w, r);
    if (w.no_memory) return err_set(e, ERR_NO_MEMORY, "no memory for a record of the step log");
    if (w.bad || w.left > 0)
        return err_set(e, ERR_FORMAT, "a record of kind %d of the step log is malformed",
                       (int)r->kind);
    *text = (str){text->ptr + LENGTH_BYTES + n, text->len - LENGTH_BYTES - n};
    return OK;
}

void record_memory_clear(record_memory *m) {
    free(m->token);
    free(m->count);
    *m = (record_memory){0};
}

static uint64_t mix(uint64_t h, uint64_t v) {
    return hash_mix(h ^ v) + 0x9e3779b97f4a7c15u;
}

/* The blocks that hold the rows of an entry. */
static uint64_t mix_blocks(uint64_t h, const sched *s, const sched_config *c,
                           const sched_step_seq *q) {
    const uint32_t first = q->first_pos / c->block_tokens;
    for (uint32_t g = 0; g < c->n_groups; g++) {
        const int32_t *table = sched_blocks(s, q->slot, g);
        for (uint32_t i = first; i < q->n_blocks; i++) h = mix(h, (uint32_t)table[i]);
    }
    return h;
}

record_step record_step_of(const sched *s, const sched_config *c, const sched_step *st) {
    if (!st) return (record_step){0};
    record_step r = {.number = st->number,
                     .n_seqs = st->n_seqs,
                     .n_rows = st->n_rows,
                     .n_logit_rows = st->n_logit_rows,
                     .n_decode_rows = st->n_decode_rows,
                     .kv = (uint64_t)sched_work(s, st).kv};
    const uint64_t head[] = {st->number,        st->n_copies,       st->n_moves,
                             st->n_seqs,        st->n_rows,         st->n_logit_rows,
                             st->n_decode_rows, st->n_prefill_rows, st->n_decode_seqs};
    uint64_t h = hash64(head, sizeof head, 0);
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        const sched_step_seq *q = &st->seq[i];
        const uint64_t v[] = {q->user,         q->slot,      q->first_row,
                              q->n_rows,       q->first_pos, (uint32_t)q->input_from,
                              q->n_logit_rows, q->n_blocks,  q->n_prompt,
                              q->n_draft,      q->sample,    q->score};
        h = mix_blocks(hash64(v, sizeof v, h), s, c, q);
    }
    for (uint32_t i = 0; i < st->n_copies; i++) {
        const uint64_t v[] = {st->copy[i].group, (uint32_t)st->copy[i].from,
                              (uint32_t)st->copy[i].to};
        h = hash64(v, sizeof v, h);
    }
    for (uint32_t i = 0; i < st->n_seqs && c->state_slots > 0; i++)
        h = mix(h, st->seq[i].state);
    for (uint32_t i = 0; i < st->n_checkpoints; i++) {
        const sched_step_checkpoint *x = &st->checkpoint[i];
        const uint64_t v[] = {x->entry, x->n_tokens, x->state};
        h = hash64(v, sizeof v, h);
    }
    r.hash = h;
    return r;
}
