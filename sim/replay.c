/* Replays a step log. What comes out of a file is checked before the scheduler gets it: its own
 * CHECKs are for its callers' mistakes. */
#include "sim/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/resize.h"

enum { MAX_LOADS = 64 };

/* A prompt is borrowed by the scheduler until its sequence ends. */
typedef struct live {
    sched_id id;
    int32_t *prompt;
    uint32_t n_prompt;
    uint64_t salt;
} live;

typedef struct replay {
    sched_config cfg;
    int32_t *end_tokens;
    void *mem;
    sched *s;
    const sched_step *step[2]; /* uncommitted, the oldest first */
    uint32_t n_steps;
    live *live;
    uint32_t n_live, max_live;
    sched_chunk load[MAX_LOADS], store; /* named, not done; the oldest first */
    uint32_t n_loads;
    bool storing, audit;
    size_t most_bytes;
    replay_result *out;
} replay;

static status start(str *text, err *e) {
    if (text->len < RECORD_MAGIC_BYTES ||
        memcmp(text->ptr, RECORD_MAGIC, RECORD_MAGIC_BYTES) != 0) {
        err_set(e, ERR_FORMAT, "the file is no step log of this version");
        return err_hint(e, "vramd serve --step-log FILE writes one");
    }
    *text = (str){text->ptr + RECORD_MAGIC_BYTES, text->len - RECORD_MAGIC_BYTES};
    return OK;
}

static status malformed(const replay *p, const char *what, err *e) {
    return err_set(e, ERR_FORMAT, "record %llu of the step log: %s",
                   (unsigned long long)p->out->n_records, what);
}

static void differs(replay *p, const char *what, uint64_t was, uint64_t is) {
    if (p->out->different) return;
    p->out->different = p->out->n_records;
    snprintf(p->out->what, sizeof p->out->what, "%s was %llx, now %llx", what,
             (unsigned long long)was, (unsigned long long)is);
}

static void compare(replay *p, const char *what, uint64_t was, uint64_t is) {
    if (was != is) differs(p, what, was, is);
}

static status open_sched(replay *p, const record *r, err *e) {
    p->cfg = r->config;
    const size_t n_end = p->cfg.n_end_tokens * sizeof *p->end_tokens;
    const size_t bytes = p->cfg.block_tokens ? sched_bytes(&r->config) : 0;
    if (p->s || bytes == 0) return malformed(p, "no valid configuration", e);
    if (bytes > p->most_bytes)
        return err_set(e, ERR_TOO_LONG, "the step log's scheduler has %zu bytes, at most %zu",
                       bytes, p->most_bytes);
    p->max_live = p->cfg.max_seqs + p->cfg.max_waiting;
    p->end_tokens = malloc(n_end + 1);
    p->mem = aligned_alloc(64, (bytes + 63) / 64 * 64);
    p->live = malloc((p->max_live + 1) * sizeof *p->live);
    if (!p->end_tokens || !p->mem || !p->live)
        return err_set(e, ERR_NO_MEMORY, "no memory for a scheduler of %zu bytes", bytes);
    memcpy(p->end_tokens, p->cfg.end_tokens, n_end);
    p->cfg.end_tokens = p->end_tokens;
    p->s = sched_init(p->mem, &p->cfg);
    return OK;
}

static void forget(replay *p, sched_id id) {
    for (uint32_t i = 0; i < p->n_live; i++) {
        if (p->live[i].id != id) continue;
        free(p->live[i].prompt);
        p->live[i] = p->live[--p->n_live];
        return;
    }
}

static void take_events(replay *p) {
    const sched_event *e;
    size_t n = sched_events(p->s, &e);
    for (; n > 0; n--, e++)
        if (e->kind == EVENT_ENDED) forget(p, e->id);
}

/* The leader of a fork has the same prompt, or has ended. */
static bool is_fork(const replay *p, const sched_spec *spec) {
    for (uint32_t i = 0; i < p->n_live && spec->fork_of; i++)
        if (p->live[i].id == spec->fork_of)
            return p->live[i].n_prompt == spec->n_prompt &&
                   (p->live[i].salt ^ spec->salt) << 1 == 0;
    return true;
}

static status submit(replay *p, const record *r, err *e) {
    sched_spec spec = r->spec;
    sched_id id = 0;
    const size_t bytes = spec.n_prompt * sizeof *spec.prompt;
    if (!is_fork(p, &spec)) return malformed(p, "a fork of another prompt", e);
    int32_t *prompt = malloc(bytes);
    if (!prompt) return err_set(e, ERR_NO_MEMORY, "no memory for a prompt");
    memcpy(prompt, spec.prompt, bytes);
    spec.prompt = prompt;
    const sched_reject why = sched_submit(p->s, &spec, r->now_us, &id);
    compare(p, "the answer to a request", r->code, (uint64_t)why);
    compare(p, "the id of a request", r->id, id);
    if (why != REJECT_NONE) {
        free(prompt);
        return OK;
    }
    p->out->n_requests++;
    if (p->n_live == p->max_live) return malformed(p, "too many requests", e);
    p->live[p->n_live++] = (live){id, prompt, spec.n_prompt, spec.salt};
    return OK;
}

static status plan_step(replay *p, const record *r) {
    const sched_step *st = sched_plan(p->s, r->now_us);
    const record_step is = record_step_of(p->s, &p->cfg, st), was = r->step;
    compare(p, "the number of a step", was.number, is.number);
    compare(p, "the rows of a step", was.n_rows, is.n_rows);
    compare(p, "the plan of a step", was.hash, is.hash);
    if (st) p->step[p->n_steps++] = st, p->out->n_steps++;
    return OK;
}

static status commit(replay *p, const record *r, err *e) {
    if (p->n_steps == 0 || p->step[0]->number != r->step.number)
        return malformed(p, "a commit without its step", e);
    const sched_step *st = p->step[0];
    if (r->yes && r->n_entries != st->n_seqs) return malformed(p, "a commit of others", e);
    for (uint32_t i = 0; i < r->n_entries; i++)
        if (st->seq[i].sample && (r->drawn.n[i] < 1 || r->drawn.n[i] > 1U + st->seq[i].n_draft))
            return malformed(p, "a commit of too many tokens", e);
    sched_commit(p->s, st, r->yes ? &r->drawn : NULL);
    p->step[0] = p->step[1];
    p->n_steps--;
    return OK;
}

/* Loads end in the order in which their chunks were named, as the daemon does it. */
static status load_done(replay *p, const record *r, err *e) {
    if (p->n_loads == 0) return malformed(p, "a load that was not begun", e);
    sched_load_done(p->s, &p->load[0], r->yes);
    memmove(&p->load[0], &p->load[1], --p->n_loads * sizeof p->load[0]);
    return OK;
}

static status tier(replay *p, const record *r, err *e) {
    uint64_t hash[2];
    if (p->cfg.tier_chunks == 0) return malformed(p, "a tier that is not there", e);
    switch (r->kind) {
    case RECORD_TIER_ADD:
        if (r->value == 0) return malformed(p, "a chunk of no bytes", e);
        compare(p, "a chunk of the tier", r->yes,
                sched_tier_add(p->s, r->hash, r->has_parent ? r->parent : NULL, r->salt,
                               r->groups, r->value));
        return OK;
    case RECORD_TIER_SWITCH: sched_tier_switch(p->s, r->yes); return OK;
    case RECORD_LOAD_NEXT:
        if (p->n_loads == MAX_LOADS) return malformed(p, "too many loads", e);
        if (sched_load_next(p->s, &p->load[p->n_loads]) != r->yes)
            differs(p, "a load", r->yes, !r->yes);
        else
            p->n_loads += r->yes;
        return OK;
    case RECORD_LOAD_DONE: return load_done(p, r, e);
    case RECORD_STORE_NEXT:
        p->storing = sched_store_next(p->s, &p->store);
        compare(p, "a store", r->yes, p->storing);
        return OK;
    case RECORD_STORE_DONE:
        if (!p->storing) return malformed(p, "a store that was not begun", e);
        sched_store_done(p->s, &p->store, r->value);
        p->storing = false;
        return OK;
    default:
        compare(p, "an eviction", r->yes, sched_tier_evict(p->s, r->value, hash));
        return OK;
    }
}

static status tier_forget(replay *p, const record *r, err *e) {
    uint32_t at = (uint32_t)r->value;
    uint64_t hash[2], bytes;
    if (p->cfg.tier_chunks == 0 || r->value > p->cfg.tier_chunks)
        return malformed(p, "a tier that is not there", e);
    compare(p, "what is forgotten", r->yes,
            sched_tier_forget(p->s, r->has_salt ? &r->salt : NULL, &at, hash, &bytes));
    return OK;
}

static status apply(replay *p, const record *r, err *e) {
    switch (r->kind) {
    case RECORD_CONFIG: return open_sched(p, r, e);
    case RECORD_SUBMIT: return submit(p, r, e);
    case RECORD_CANCEL:
        if (r->code != FINISH_CANCELLED && r->code != FINISH_STOP)
            return malformed(p, "a cancel for no reason", e);
        sched_cancel(p->s, r->id, (sched_finish)r->code);
        return OK;
    case RECORD_PAUSE: sched_pause(p->s, r->id, r->yes); return OK;
    case RECORD_NOW: sched_now(p->s, r->now_us); return OK;
    case RECORD_PLAN: return plan_step(p, r);
    case RECORD_OBSERVE:
        if (p->n_steps == 0 || p->step[0]->number != r->step.number)
            return malformed(p, "the time of another step", e);
        sched_observe(p->s, p->step[0], r->value);
        return OK;
    case RECORD_TIER_FORGET: return tier_forget(p, r, e);
    case RECORD_DRAFT:
        compare(p, "the guesses of a sequence", r->value,
                sched_draft(p->s, r->id, r->guess, r->n_guess, r->yes));
        return OK;
    case RECORD_SPEND: sched_spend(p->s, r->value); return OK;
    case RECORD_FORGET:
        compare(p, "the blocks forgotten", r->value,
                sched_forget(p->s, r->has_salt ? &r->salt : NULL).blocks);
        return OK;
    case RECORD_COMMIT: return commit(p, r, e);
    case RECORD_RESIZE:
        compare(p, "a resize", r->yes, sched_resize(p->s, r->n_blocks));
        return OK;
    default: return tier(p, r, e);
    }
}

static status run(replay *p, str text, err *e) {
    record_memory memory = {0};
    record r;
    status s = start(&text, e);
    while (s == OK && text.len > 0 && !p->out->different) {
        s = record_read(&r, &text, &memory, e);
        if (s != OK) break;
        if (r.kind == RECORD_GAP) {
            p->out->n_lost = r.value;
            break;
        }
        p->out->n_records++;
        if (!p->s && r.kind != RECORD_CONFIG) s = malformed(p, "no configuration before it", e);
        if (s == OK) s = apply(p, &r, e);
        if (s == OK) take_events(p);
        if (s == OK && p->audit) sched_audit(p->s);
    }
    record_memory_clear(&memory);
    return s;
}

status replay_run(str text, size_t most_bytes, bool audit, replay_result *out, err *e) {
    replay p = {.most_bytes = most_bytes, .audit = audit, .out = out};
    *out = (replay_result){0};
    status s = run(&p, text, e);
    for (uint32_t i = 0; i < p.n_live; i++) free(p.live[i].prompt);
    free(p.live);
    free(p.mem);
    free(p.end_tokens);
    return s;
}

status replay_steps(str text, replay_timed *timed, void *arg, err *e) {
    record_memory memory = {0};
    record_step newest[2] = {{0}}; /* by the number's parity */
    record r;
    status s = start(&text, e), more = s;
    while (more == OK && text.len > 0 && (more = record_read(&r, &text, &memory, e)) == OK) {
        const unsigned at = r.step.number & 1;
        if (r.kind == RECORD_PLAN && r.step.number) newest[at] = r.step;
        if (r.kind == RECORD_OBSERVE && newest[at].number == r.step.number)
            timed(arg, &newest[at], r.value);
    }
    record_memory_clear(&memory);
    return more == ERR_NO_MEMORY ? more : s;
}

/* A log says at each commit when it is; a plan that finds nothing ends the wait for one. */
status replay_host_us(str text, double *out, err *e) {
    record_memory memory = {0};
    record r;
    uint64_t now_us = 0, commit_us = 0, n = 0;
    double sum = 0;
    status s = start(&text, e), more = s;
    while (more == OK && text.len > 0 && (more = record_read(&r, &text, &memory, e)) == OK) {
        if (r.kind == RECORD_NOW) now_us = r.now_us;
        if (r.kind == RECORD_COMMIT) commit_us = now_us;
        if (r.kind != RECORD_PLAN) continue;
        if (r.step.number && commit_us && r.now_us >= commit_us)
            sum += (double)(r.now_us - commit_us), n++;
        commit_us = 0;
    }
    record_memory_clear(&memory);
    *out = n > 0 ? sum / (double)n : 0;
    return more == ERR_NO_MEMORY ? more : s;
}

status replay_config(str text, sched_config *out, err *e) {
    record_memory memory = {0};
    record r;
    status s = start(&text, e);
    if (s == OK) s = record_read(&r, &text, &memory, e);
    if (s == OK && r.kind != RECORD_CONFIG)
        s = err_set(e, ERR_FORMAT, "the step log does not begin with a configuration");
    if (s == OK) *out = r.config, out->end_tokens = NULL, out->n_end_tokens = 0;
    record_memory_clear(&memory);
    return s;
}
