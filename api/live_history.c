/* Points, differences of them, and their columns as JSON (api/live_history.h). Loop thread. */
#include "api/live_history.h"

#include <math.h>

#include "api/metrics.h"
#include "json/out.h"

static void copy_buckets(uint32_t *to, const histogram *from) {
    for (int i = 0; i <= PORT_MAX_BUCKETS; i++) to[i] = (uint32_t)from->bucket[i];
}

live_counts live_counts_of(const machine_stats *s) {
    live_counts c = {.prompt_tokens = s->count.prompt_tokens,
                     .generated_tokens = s->count.generated_tokens,
                     .preemptions = s->count.preemptions,
                     .queries = s->count.prefix_cache_queries,
                     .hits = s->count.prefix_cache_hits};
    for (int i = 0; i <= GEN_ERROR; i++) c.finished += s->finished[i];
    copy_buckets(c.ttft, &s->hist[HIST_TTFT]);
    copy_buckets(c.itl, &s->hist[HIST_ITL]);
    return c;
}

void live_history_add(live_history *h, const memory_view *v, uint64_t now_us) {
    const ledger_view *l = v->has_device ? &v->device : &v->host;
    const memory_sample *s = &v->sample;
    const uint64_t fresh_us = (uint64_t)HISTORY_S * 100000; /* a tenth of the whole */
    live_point p = {.at_us = now_us,
                    .budget = l->budget_bytes,
                    .plan = l->plan_bytes,
                    .accounted = (v->has_device ? s->device_known : s->known) &&
                                 now_us - s->at_us < fresh_us,
                    .kv_free = (uint32_t)v->stats.kv.free,
                    .kv_used = (uint32_t)v->stats.kv.used,
                    .kv_cached = (uint32_t)v->stats.kv.cached,
                    .n_running = v->stats.n_running,
                    .n_waiting = v->stats.n_waiting,
                    .n_preempted = v->stats.n_preempted,
                    .counts = live_counts_of(&v->stats)};
    p.unaccounted = v->has_device ? memory_device_unaccounted(s) : memory_unaccounted(s);
    for (int i = 0; i < MEM_N_CLASSES; i++) p.bytes[i] = l->cls[i].ledger_bytes;
    h->point[h->next] = p;
    h->next = (h->next + 1) % HISTORY_POINTS;
    if (h->n < HISTORY_POINTS) h->n++;
}

const live_point *live_history_at(const live_history *h, uint32_t i) {
    return &h->point[(h->next + HISTORY_POINTS - h->n + i) % HISTORY_POINTS];
}

const live_point *live_history_before(const live_history *h, uint64_t now_us, double seconds) {
    uint32_t i = h->n - 1;
    while (i > 0 && (double)(now_us - live_history_at(h, i)->at_us) < seconds * 1e6) i--;
    return live_history_at(h, i);
}

/* Modulo 2^32. Of several models one that is unloaded takes its counts along: then none came. */
static uint32_t came(uint32_t now, uint32_t was) {
    const uint32_t n = now - was;
    return n <= INT32_MAX ? n : 0;
}

double live_quantile(histogram_id id, const uint32_t *now, const uint32_t *was, double q,
                     uint64_t *n) {
    const size_t bounds = metrics_n_bounds(id);
    uint64_t all = 0, sum = 0;
    for (size_t i = 0; i <= bounds; i++) all += came(now[i], was[i]);
    *n = all;
    if (all == 0) return NAN;
    const double rank = q * (double)all;
    for (size_t i = 0; i < bounds; i++) {
        const uint32_t here = came(now[i], was[i]);
        if (here > 0 && (double)(sum + here) >= rank) {
            const double low = i ? metrics_bound(id, i - 1) : 0, high = metrics_bound(id, i);
            return low + (high - low) * (rank - (double)sum) / here;
        }
        sum += here;
    }
    return metrics_bound(id, bounds - 1);
}

/* ---- columns ---- */

/* What a column has at point i; NAN: null. what: a column of several may need to know which. */
typedef double value_of(const live_history *, uint32_t i, int what);

static double at_s(const live_history *h, uint32_t i, int what) {
    (void)what;
    return (double)((live_history_at(h, i)->at_us - h->start_us) / 1000) / 1e3;
}

static double class_bytes(const live_history *h, uint32_t i, int what) {
    return (double)live_history_at(h, i)->bytes[what];
}

static double ledger_bytes(const live_history *h, uint32_t i, int what) {
    double sum = 0;
    (void)what;
    for (int c = 0; c < MEM_N_CLASSES; c++) sum += (double)live_history_at(h, i)->bytes[c];
    return sum;
}

enum { BUDGET, PLAN, KV_FREE, KV_USED, KV_CACHED, RUNNING, WAITING, PREEMPTED };

static double state(const live_history *h, uint32_t i, int what) {
    const live_point *p = live_history_at(h, i);
    switch (what) {
    case BUDGET: return (double)p->budget;
    case PLAN: return (double)p->plan;
    case KV_FREE: return p->kv_free;
    case KV_USED: return p->kv_used;
    case KV_CACHED: return p->kv_cached;
    case RUNNING: return p->n_running;
    case WAITING: return p->n_waiting;
    default: return p->n_preempted;
    }
}

static double unaccounted(const live_history *h, uint32_t i, int what) {
    const live_point *p = live_history_at(h, i);
    (void)what;
    return p->accounted ? (double)p->unaccounted : NAN;
}

static double rise(uint64_t now, uint64_t was) {
    return now > was ? (double)(now - was) : 0;
}

static double tenths(double v) {
    return round(v * 10) / 10;
}

enum { PROMPT, GENERATED, FINISHED, HIT_RATIO, PREEMPTIONS };

/* Since the point before: the oldest has none. */
static double change(const live_history *h, uint32_t i, int what) {
    if (i == 0) return NAN;
    const live_point *p = live_history_at(h, i), *before = live_history_at(h, i - 1);
    const live_counts *now = &p->counts, *was = &before->counts;
    const double s = (double)(p->at_us - before->at_us) / 1e6;
    const double queries = rise(now->queries, was->queries);
    switch (what) {
    case PROMPT: return tenths(rise(now->prompt_tokens, was->prompt_tokens) / s);
    case GENERATED: return tenths(rise(now->generated_tokens, was->generated_tokens) / s);
    case FINISHED: return tenths(rise(now->finished, was->finished) / s);
    case PREEMPTIONS: return rise(now->preemptions, was->preemptions);
    default: return queries > 0 ? round(rise(now->hits, was->hits) / queries * 1e3) / 1e3 : NAN;
    }
}

/* what: the percentile; of the time to the first token where it is positive, else of gaps. */
static double latency_ms(const live_history *h, uint32_t i, int what) {
    uint64_t n;
    if (i == 0) return NAN;
    const live_counts *now = &live_history_at(h, i)->counts;
    const live_counts *was = &live_history_at(h, i - 1)->counts;
    const double s = what > 0 ? live_quantile(HIST_TTFT, now->ttft, was->ttft, what / 1e2, &n)
                              : live_quantile(HIST_ITL, now->itl, was->itl, -what / 1e2, &n);
    return n > 0 ? tenths(s * 1e3) : NAN;
}

static const struct {
    const char *name;
    value_of *value;
    int what;
} columns[] = {{"budget_bytes", state, BUDGET},
               {"plan_bytes", state, PLAN},
               {"ledger_bytes", ledger_bytes, 0},
               {"unaccounted_bytes", unaccounted, 0},
               {"kv_free", state, KV_FREE},
               {"kv_used", state, KV_USED},
               {"kv_cached", state, KV_CACHED},
               {"running", state, RUNNING},
               {"waiting", state, WAITING},
               {"preempted", state, PREEMPTED},
               {"prompt_tokens_per_s", change, PROMPT},
               {"generated_tokens_per_s", change, GENERATED},
               {"requests_per_s", change, FINISHED},
               {"prefix_hit_ratio", change, HIT_RATIO},
               {"preemptions", change, PREEMPTIONS},
               {"ttft_p50_ms", latency_ms, 50},
               {"ttft_p99_ms", latency_ms, 99},
               {"itl_p50_ms", latency_ms, -50},
               {"itl_p99_ms", latency_ms, -99}};

static void write_number(buf *b, double v) {
    if (isnan(v))
        buf_add(b, STR("null"));
    else if (v == round(v) && fabs(v) < 1e15)
        json_i64(b, (int64_t)v);
    else
        buf_addf(b, "%.12g", v);
}

static bool same(double a, double b) {
    return a == b || (isnan(a) && isnan(b));
}

/* A value that is everywhere stands for all. */
static void write_column(buf *b, const char *name, const live_history *h, value_of *value,
                         int what, bool always_list) {
    bool constant = !always_list;
    for (uint32_t i = 1; constant && i < h->n; i++)
        constant = same(value(h, i, what), value(h, 0, what));
    buf_addf(b, "%s\"%s\":", b->ptr[b->len - 1] == '{' ? "" : ",", name);
    if (constant) {
        write_number(b, value(h, 0, what));
        return;
    }
    buf_addc(b, '[');
    for (uint32_t i = 0; i < h->n; i++) {
        if (i) buf_addc(b, ',');
        write_number(b, value(h, i, what));
    }
    buf_addc(b, ']');
}

static bool is_used(const live_history *h, int class) {
    for (uint32_t i = 0; i < h->n; i++)
        if (live_history_at(h, i)->bytes[class] > 0) return true;
    return false;
}

void live_history_write(buf *b, const live_history *h, const char *name, uint64_t now_us) {
    buf_addf(b, "{\"t\":%.3f,\"interval_s\":%d,\"n\":%u,\"of\":\"%s\"",
             (double)(now_us - h->start_us) / 1e6, HISTORY_STEP_S, h->n, name);
    if (b->failed) return;
    write_column(b, "at", h, at_s, 0, true);
    buf_add(b, STR(",\"classes\":{"));
    for (int i = 0; i < MEM_N_CLASSES && !b->failed; i++)
        if (is_used(h, i))
            write_column(b, mem_class_name((mem_class)i), h, class_bytes, i, false);
    buf_addc(b, '}');
    for (size_t i = 0; i < sizeof columns / sizeof *columns && !b->failed; i++)
        write_column(b, columns[i].name, h, columns[i].value, columns[i].what, false);
    buf_addc(b, '}');
}
