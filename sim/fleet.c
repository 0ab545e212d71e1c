/* One heap of events: when a replica's oldest step is done. Between them arrivals. */
#include "sim/fleet.h"
#include "scheduler/policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "scheduler/heap.h"
#include "sim/router.h"

enum { SAMPLE_STEPS = 16, PROGRESS_ARRIVALS = 256, FIRST_WIDTH_US = 1024, LEAST_NEAR = 64 };
static const double NEAR = 0.05;

typedef struct replica {
    void *mem;
    sched *s;
    const sched_step *flying[2]; /* the oldest first ... */
    uint64_t done_us[2], took_us[2];
    uint64_t busy_until_us, plan_us; /* plan_us: no plan before */
    bool planned;                    /* since the last commit */
    uint32_t n_flying;
    uint64_t n_steps;
} replica;

typedef struct request {
    uint64_t first_us, last_us;
    int32_t *prompt; /* its own; NULL: the common one */
    uint32_t n_output, replica;
} request;

typedef struct fleet {
    const fleet_config *cfg;
    const fleet_arrival *arrival;
    uint32_t n;
    fleet_result *out;
    replica *replica;
    request *request;
    router router;
    uint32_t *load; /* [n_replicas] requests that wait or run */
    int32_t *
        common; /* [max_model_len] a prompt that is shared by no two requests: each has a salt of its own */
    int32_t *zeroes; /* [max_seqs] what every step draws */
    heap due;        /* of replicas */
    uint64_t now_us, n_events, n_draws;
    bool observes;
    double kv_sum, n_kv;
} fleet;

static uint32_t bucket_of(uint64_t us) {
    if (us < TIMES_OCTAVE) return (uint32_t)us;
    const unsigned octave = 63 - (unsigned)__builtin_clzll(us) - 7; /* of 128: 0 */
    const uint64_t i = (octave + 1) * TIMES_OCTAVE + ((us >> octave) - TIMES_OCTAVE);
    return i < TIMES_BUCKETS ? (uint32_t)i : TIMES_BUCKETS - 1;
}

static void times_add(fleet_times *t, uint64_t us) {
    t->bucket[bucket_of(us)]++;
    t->n++;
    t->sum += (double)us;
    if (us > t->max) t->max = us;
}

double fleet_times_at(const fleet_times *t, double part) {
    uint64_t rank = (uint64_t)(part * (double)t->n), seen = 0;
    if (t->n == 0) return 0;
    if (rank >= t->n) rank = t->n - 1;
    for (uint32_t i = 0; i < TIMES_BUCKETS; i++) {
        seen += t->bucket[i];
        if (seen <= rank) continue;
        if (i < TIMES_OCTAVE) return i;
        const unsigned octave = i / TIMES_OCTAVE - 1;
        const double low = (double)((uint64_t)(i % TIMES_OCTAVE + TIMES_OCTAVE) << octave);
        const double middle = low + (double)(1ULL << octave) / 2;
        return middle < (double)t->max ? middle : (double)t->max;
    }
    return (double)t->max;
}

/* ---- events of the schedulers ---- */

static void take_tokens(fleet *f, const sched_event *e) {
    request *r = &f->request[e->user];
    if (r->first_us == 0) {
        r->first_us = f->now_us;
        times_add(&f->out->ttft, f->now_us - f->arrival[e->user].at_us);
    } else {
        times_add(&f->out->itl, f->now_us - r->last_us);
    }
    r->last_us = f->now_us;
    r->n_output += e->n_tokens;
}

static void take_end(fleet *f, const sched_event *e) {
    const fleet_config *c = f->cfg;
    fleet_result *o = f->out;
    request *r = &f->request[e->user];
    const uint64_t at = f->arrival[e->user].at_us, ttft = r->first_us - at;
    const uint64_t tpot = r->n_output > 1 ? (r->last_us - r->first_us) / (r->n_output - 1) : 0;
    CHECK(e->finish == FINISH_LENGTH);
    f->load[r->replica]--;
    o->n_ok++;
    o->cached_tokens += e->n_cached;
    times_add(&o->e2e, f->now_us - at);
    if (r->n_output > 1) times_add(&o->tpot, tpot);
    o->n_good += (!c->slo_ttft_us || ttft <= c->slo_ttft_us) &&
                 (!c->slo_itl_us || tpot <= c->slo_itl_us);
    free(r->prompt);
    r->prompt = NULL;
}

static void take_events(fleet *f, replica *x) {
    const sched_event *e;
    size_t n = sched_events(x->s, &e);
    for (; n > 0; n--, e++) {
        if (e->kind == EVENT_TOKEN) take_tokens(f, e);
        if (e->kind == EVENT_ENDED) take_end(f, e);
    }
    if (f->cfg->audit) sched_audit(x->s);
}

/* ---- steps ---- */

/* Of the timed steps, those predicted to take less than us. */
static uint32_t count_shorter(const fleet_config *c, double us) {
    uint32_t low = 0, high = c->n_scatter;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if ((double)c->scatter[middle].predicted_us < us)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The ratio of one of the timed steps whose predictions are near to us, or of the next ones in
 * order where few are. */
static double draw_ratio(fleet *f, double us) {
    const fleet_config *c = f->cfg;
    const uint32_t least = c->n_scatter < LEAST_NEAR ? c->n_scatter : LEAST_NEAR;
    uint32_t first = count_shorter(c, us * (1 - NEAR)),
             n = count_shorter(c, us * (1 + NEAR)) - first;
    if (n < least) {
        const uint32_t more = least - n;
        first -= first < more / 2 ? first : more / 2;
        if (first > c->n_scatter - least) first = c->n_scatter - least;
        n = least;
    }
    const uint64_t drawn = hash_mix(c->seed * 0x9e3779b97f4a7c15U + f->n_draws++);
    return (double)c->scatter[first + drawn % n].ratio;
}

static uint64_t step_us(fleet *f, const replica *x, const sched_step *st) {
    const double us = cost_predict(&f->cfg->cost, sched_work(x->s, st));
    return (uint64_t)(f->cfg->scatter ? us * draw_ratio(f, us) : us) + 1;
}

static uint64_t later(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* When the replica has something to do next. */
static void set_due(fleet *f, uint32_t i) {
    replica *x = &f->replica[i];
    uint64_t at = x->n_flying > 0 ? x->done_us[0] : UINT64_MAX;
    if (!x->planned && x->plan_us < at)
        at = later(x->plan_us, f->now_us);
    else if (x->n_flying == 0 && (at = sched_next_us(x->s)) != UINT64_MAX)
        at = later(at, f->now_us + 1);
    heap_remove(&f->due, i);
    if (at != UINT64_MAX) heap_add(&f->due, i, at, f->n_events++);
}

/* The cost model times a step from the commit before it, so the host's time is in it. */
static void fill(fleet *f, uint32_t i) {
    replica *x = &f->replica[i];
    while (x->n_flying < f->cfg->depth && f->now_us >= x->plan_us) {
        const sched_step *st = sched_plan(x->s, f->now_us);
        take_events(f, x);
        x->planned = true;
        if (!st) break;
        const uint64_t host = f->now_us < f->cfg->host_us ? f->now_us : f->cfg->host_us;
        const uint64_t start = later(x->busy_until_us, f->now_us - host);
        const uint64_t us = step_us(f, x, st);
        x->busy_until_us = later(start + us, f->now_us);
        x->done_us[x->n_flying] = x->busy_until_us;
        x->took_us[x->n_flying] = us;
        x->flying[x->n_flying++] = st;
    }
    set_due(f, i);
}

/* Twice as wide, where the run is longer than the intervals. */
static void widen(fleet_kv *k) {
    k->width_us *= 2;
    for (uint32_t i = 0; i < KV_INTERVALS; i++) {
        const bool has = 2 * i + 1 < KV_INTERVALS;
        k->sum[i] = has ? k->sum[2 * i] + k->sum[2 * i + 1] : 0;
        k->samples[i] = has ? k->samples[2 * i] + k->samples[2 * i + 1] : 0;
    }
}

static void sample_use(fleet *f, const replica *x) {
    sched_stats st;
    sched_read(x->s, &st);
    const double part = (double)st.blocks_used / st.blocks_all;
    f->kv_sum += part;
    f->n_kv++;
    fleet_kv *k = &f->out->kv;
    while (f->now_us / k->width_us >= KV_INTERVALS) widen(k);
    k->sum[f->now_us / k->width_us] += part;
    k->samples[f->now_us / k->width_us]++;
    if (part > f->out->kv_max) f->out->kv_max = part;
    const uint32_t states = st.state_live + st.state_checkpoints;
    if (states > f->out->state_most) f->out->state_most = states;
}

/* What the scheduler learns of times has a use with an objective or a policy by length alone. */
static void collect(fleet *f, uint32_t i) {
    replica *x = &f->replica[i];
    const sched_step *st = x->flying[0];
    const sched_step_tokens drawn = {.token = f->zeroes, .stride = 1};
    if (x->n_flying == 0 || x->done_us[0] > f->now_us) return;
    f->out->n_steps++;
    if (x->n_steps++ % SAMPLE_STEPS == 0) sample_use(f, x);
    if (f->observes) sched_observe(x->s, st, x->took_us[0]);
    sched_commit(x->s, st, &drawn);
    take_events(f, x);
    x->done_us[0] = x->done_us[1];
    x->took_us[0] = x->took_us[1];
    x->flying[0] = x->flying[1];
    x->n_flying--;
    x->plan_us = f->now_us + f->cfg->host_us;
    x->planned = false;
}

/* ---- requests ---- */

/* The tokens that the ids stand for. */
static int32_t *make_prompt(const fleet_arrival *a) {
    int32_t *p = malloc(a->n_prompt * sizeof *p);
    for (uint32_t i = 0; p && i < a->n_prompt; i++) {
        const uint32_t k = i / FLEET_ID_TOKENS;
        const uint64_t id = a->ids[k < a->n_ids ? k : a->n_ids - 1];
        p[i] = (int32_t)(hash_mix(id * FLEET_ID_TOKENS + i % FLEET_ID_TOKENS) & 0xffff);
    }
    return p;
}

static status arrive(fleet *f, uint32_t i, err *e) {
    const fleet_arrival *a = &f->arrival[i];
    request *r = &f->request[i];
    sched_id id;
    r->replica = router_choose(&f->router, a, f->now_us, f->load);
    replica *x = &f->replica[r->replica];
    if (a->n_ids > 0 && !(r->prompt = make_prompt(a)))
        return err_set(e, ERR_NO_MEMORY, "no memory for a prompt");
    const sched_spec spec = {.prompt = r->prompt ? r->prompt : f->common,
                             .n_prompt = a->n_prompt,
                             .max_tokens = a->n_output,
                             .ignore_eos = true,
                             .user = i,
                             .salt = r->prompt ? 0 : i + 1};
    f->out->prompt_tokens += a->n_prompt;
    f->out->output_tokens += a->n_output;
    if (a->n_prompt <= f->cfg->sched.max_model_len &&
        sched_submit(x->s, &spec, f->now_us, &id) == REJECT_NONE) {
        f->load[r->replica]++;
    } else {
        f->out->n_rejected++;
        f->out->prompt_tokens -= a->n_prompt;
        f->out->output_tokens -= a->n_output;
        free(r->prompt);
        r->prompt = NULL;
    }
    take_events(f, x);
    if (x->n_flying == 0) fill(f, r->replica);
    return OK;
}

static status run(fleet *f, err *e) {
    uint32_t next = 0;
    status s = OK;
    while (s == OK && (next < f->n || f->due.n > 0)) {
        const uint64_t due = f->due.n > 0 ? f->due.node[0].key : UINT64_MAX;
        if (next < f->n && f->arrival[next].at_us + f->cfg->http_us <= due) {
            f->now_us = f->arrival[next].at_us + f->cfg->http_us;
            if (f->cfg->progress && next % PROGRESS_ARRIVALS == 0)
                f->cfg->progress(f->cfg->progress_arg, (double)next / f->n);
            s = arrive(f, next++, e);
            continue;
        }
        const uint32_t i = f->due.node[0].item;
        f->now_us = due;
        collect(f, i);
        fill(f, i);
    }
    return s;
}

static void finish(fleet *f) {
    fleet_result *o = f->out;
    for (uint32_t i = 0; i < f->cfg->n_replicas; i++) {
        sched_stats st;
        sched_read(f->replica[i].s, &st);
        CHECK(st.n_waiting + st.n_running + st.n_preempted == 0 && st.blocks_used == 0);
        o->preemptions += st.count.preemptions;
        o->recomputed_tokens += st.count.recomputed_tokens;
        o->checkpoints_written += st.count.state_checkpoints_written;
        o->checkpoints_evicted += st.count.state_checkpoints_evicted;
        o->state_missed_tokens += st.count.prefix_cache_state_misses;
    }
    CHECK(o->n_ok + o->n_rejected == f->n);
    o->makespan_us = f->now_us;
    const uint64_t n_kv = f->now_us / o->kv.width_us + 1;
    o->kv.n = n_kv < KV_INTERVALS ? (uint32_t)n_kv : KV_INTERVALS;
    o->kv_mean = f->n_kv > 0 ? f->kv_sum / f->n_kv : 0;
}

static status open_fleet(fleet *f, err *e) {
    const fleet_config *c = f->cfg;
    const size_t bytes = sched_bytes(&c->sched);
    bool ok = true;
    if (bytes == 0 || c->depth < 1 || c->depth > 2 || c->n_replicas < 1 ||
        c->n_replicas > FLEET_MAX_REPLICAS)
        return err_set(e, ERR_INVALID, "the simulator's configuration is not valid");
    f->replica = calloc(c->n_replicas, sizeof *f->replica);
    f->load = calloc(c->n_replicas, sizeof *f->load);
    f->request = calloc((size_t)f->n + 1, sizeof *f->request);
    f->common = malloc(c->sched.max_model_len * sizeof *f->common);
    f->zeroes = calloc(c->sched.max_seqs, sizeof *f->zeroes);
    f->due = (heap){.n_items = c->n_replicas,
                    .node = calloc(c->n_replicas, sizeof *f->due.node),
                    .at = calloc(c->n_replicas, sizeof *f->due.at)};
    ok = f->replica && f->load && f->request && f->common && f->zeroes && f->due.node &&
         f->due.at && router_open(&f->router, c, f->arrival, f->n);
    for (uint32_t i = 0; ok && i < c->n_replicas; i++)
        ok = (f->replica[i].mem = aligned_alloc(64, (bytes + 63) / 64 * 64)) != NULL;
    if (!ok)
        return err_set(e, ERR_NO_MEMORY, "no memory for %u schedulers of %zu bytes",
                       c->n_replicas, bytes);
    for (uint32_t i = 0; i < c->sched.max_model_len; i++)
        f->common[i] = (int32_t)(hash_mix(i) & 0xffff);
    for (uint32_t i = 0; i < c->n_replicas; i++)
        f->replica[i].s = sched_init(f->replica[i].mem, &c->sched);
    heap_init(&f->due);
    return OK;
}

status fleet_run(const fleet_config *c, const fleet_arrival *arrivals, uint32_t n,
                 fleet_result *out, err *e) {
    fleet f = {.cfg = c, .arrival = arrivals, .n = n, .out = out};
    f.observes = c->sched.itl_slo_us || (c->sched.policy && c->sched.policy->by_length);
    memset(out, 0, sizeof *out);
    out->kv.width_us = FIRST_WIDTH_US;
    for (uint32_t i = 0; i < n; i++)
        if (arrivals[i].n_prompt == 0 || arrivals[i].n_output == 0 ||
            (i > 0 && arrivals[i].at_us < arrivals[i - 1].at_us))
            return err_set(e, ERR_INVALID, "arrival %u is empty, or earlier than the last", i);
    status s = open_fleet(&f, e);
    if (s == OK) s = run(&f, e);
    if (s == OK) finish(&f);
    for (uint32_t i = 0; f.request && i < n; i++) free(f.request[i].prompt);
    for (uint32_t i = 0; f.replica && i < c->n_replicas; i++) free(f.replica[i].mem);
    router_close(&f.router);
    free(f.replica);
    free(f.load);
    free(f.request);
    free(f.common);
    free(f.zeroes);
    free(f.due.node);
    free(f.due.at);
    return s;
}
