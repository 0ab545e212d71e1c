/* What streams of the account say: rates, and the events "whole" and "delta". Owns nothing. Loop thread. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "api/live.h"
#include "base/check.h"
#include "base/hash.h"
#include "json/out.h"

/* ---- rates ---- */

static const double quantile[] = {0.5, 0.9, 0.99};
static const char *const quantile_name[] = {"p50", "p90", "p99"};
enum { QUANTILES = 3 };

static const double window_s[LIVE_WINDOWS] = {60, 600};

static uint64_t a_second(uint64_t now, uint64_t was, uint64_t ms) {
    return now > was && ms ? (now - was) * 1000000 / ms : 0;
}

static live_latency latency_of(histogram_id id, const uint32_t *now, const uint32_t *was) {
    live_latency l = {0};
    for (int i = 0; i < QUANTILES; i++) {
        const double s = live_quantile(id, now, was, quantile[i], &l.n);
        l.us[i] = l.n ? (uint64_t)llround(s * 1e6) : 0;
    }
    return l;
}

void live_rates_make(live_rates *r, const app *a, const live_history *h, const memory_view *v,
                     uint64_t now_us) {
    static const live_counts none;
    const live_counts now = live_counts_of(&v->stats), *was = &none;
    uint64_t ms = 0;
    const char *why = a->leaving ? "draining" : a->port->ops->not_ready(a->port);
    *r = (live_rates){.state = why ? why : "ready", .finished = now.finished};
    memcpy(r->answers, a->answers, sizeof r->answers);
    if (h->n) {
        const live_point *p = live_history_before(h, now_us, LIVE_RATE_S);
        ms = (now_us - p->at_us) / 1000;
        was = &p->counts;
    }
    r->prompt_tokens = a_second(now.prompt_tokens, was->prompt_tokens, ms);
    r->generated_tokens = a_second(now.generated_tokens, was->generated_tokens, ms);
    r->requests = a_second(now.finished, was->finished, ms);
    for (int i = 0; i < LIVE_WINDOWS; i++) {
        const live_counts *from =
            h->n ? &live_history_before(h, now_us, window_s[i])->counts : &none;
        r->ttft[i] = latency_of(HIST_TTFT, now.ttft, from->ttft);
        r->itl[i] = latency_of(HIST_ITL, now.itl, from->itl);
    }
}

#define U64(name, field) json_diff_u64(o, name, now->field, was->field)

static void write_counts(json_diff *o, const live_view *now, const live_view *was,
                         bool speculates) {
    const size_t at = json_diff_open(o, "counts");
    U64("prompt_tokens", memory.stats.count.prompt_tokens);
    U64("generated_tokens", memory.stats.count.generated_tokens);
    U64("preemptions", memory.stats.count.preemptions);
    U64("recomputed_tokens", memory.stats.count.recomputed_tokens);
    U64("prefix_cache_queries", memory.stats.count.prefix_cache_queries);
    U64("prefix_cache_hits", memory.stats.count.prefix_cache_hits);
    U64("prefix_cache_evictions", memory.stats.count.prefix_cache_evictions);
    U64("finished", rates.finished);
    U64("rejected", memory.stats.n_rejected);
    U64("http_4xx", rates.answers[4]);
    U64("http_5xx", rates.answers[5]);
    U64("client_left", rates.answers[0]);
    if (speculates) {
        U64("drafted_tokens", memory.stats.count.speculative_draft_tokens);
        U64("accepted_tokens", memory.stats.count.speculative_accepted_tokens);
    }
    json_diff_close(o, at);
}

static void write_rates(json_diff *o, const live_view *now, const live_view *was,
                        bool speculates) {
    const size_t at = json_diff_open(o, "rates");
    json_diff_u64(o, "window_s", LIVE_RATE_S, LIVE_RATE_S);
    json_diff_milli(o, "prompt_tokens_per_s", now->rates.prompt_tokens,
                    was->rates.prompt_tokens);
    json_diff_milli(o, "generated_tokens_per_s", now->rates.generated_tokens,
                    was->rates.generated_tokens);
    json_diff_milli(o, "requests_per_s", now->rates.requests, was->rates.requests);
    U64("running", memory.stats.n_running);
    U64("waiting", memory.stats.n_waiting);
    U64("preempted", memory.stats.n_preempted);
    write_counts(o, now, was, speculates);
    json_diff_close(o, at);
}

/* ---- percentiles ---- */

static void write_latency(buf *b, const char *name, const live_latency *l) {
    buf_addf(b, ",\"%s\":{\"n\":%" PRIu64, name, l->n);
    for (int i = 0; i < QUANTILES; i++) {
        if (l->n)
            buf_addf(b, ",\"%s\":%" PRIu64 ".%03u", quantile_name[i], l->us[i] / 1000,
                     (unsigned)(l->us[i] % 1000));
        else
            buf_addf(b, ",\"%s\":null", quantile_name[i]);
    }
    buf_addc(b, '}');
}

static void write_latencies(json_diff *o, const live_rates *now, const live_rates *was) {
    buf *b = o->out;
    if (!o->whole && memcmp(now->ttft, was->ttft, sizeof now->ttft) == 0 &&
        memcmp(now->itl, was->itl, sizeof now->itl) == 0)
        return;
    json_diff_name(o, "latency");
    for (int i = 0; i < LIVE_WINDOWS; i++) {
        buf_addf(b, "%s{\"window_s\":%.0f", i ? "," : "[", window_s[i]);
        write_latency(b, "ttft_ms", &now->ttft[i]);
        write_latency(b, "itl_ms", &now->itl[i]);
        buf_addc(b, '}');
    }
    buf_addc(b, ']');
}

/* ---- keys ---- */

static void write_key(void *arg, const tenant *t) {
    json_diff *o = arg;
    const size_t at = json_diff_open(o, NULL);
    json_diff_str(o, "name", t->name, NULL);
    json_diff_u64(o, "open", t->n_open, 0);
    json_diff_u64(o, "requests", t->counts.n_requests, 0);
    json_diff_u64(o, "limited", t->counts.n_limited, 0);
    json_diff_u64(o, "prompt_tokens", t->counts.n_prompt_tokens, 0);
    json_diff_u64(o, "generated_tokens", t->counts.n_output_tokens, 0);
    json_diff_close(o, at);
}

/* The rows that the stream's key may see: all, or its own. */
static void write_keys(json_diff *o, live_stream *s) {
    buf *b = o->out;
    const size_t before = b->len;
    if (!s->tenant) return;
    json_diff_name(o, "keys");
    buf_addc(b, '[');
    json_diff all = {b, true};
    if (s->all_keys)
        keys_each(s->of->app->keys, write_key, &all);
    else
        write_key(&all, s->tenant);
    buf_addc(b, ']');
    if (b->failed) return;
    const uint64_t hash = hash64(b->ptr + before, b->len - before, 1);
    if (!o->whole && hash == s->keys_hash) b->len = before;
    s->keys_hash = hash;
}

/* ---- sequences ---- */

/* Mostly where it was. NULL: it was not there. */
static const seq_view *find(const memory_view *v, uint64_t id, size_t hint) {
    for (size_t i = 0; i < v->n_sequences; i++) {
        const seq_view *s = &v->sequence[(hint + i) % v->n_sequences];
        if (s->id == id) return s;
    }
    return NULL;
}

static bool differs(const seq_view *a, const seq_view *b) {
    return a->n_tokens != b->n_tokens || a->n_blocks != b->n_blocks || a->bytes != b->bytes ||
           a->n_cached != b->n_cached || a->itl_us != b->itl_us ||
           strcmp(a->state, b->state) != 0;
}

static void write_changed(json_diff *o, const memory_view *now, const memory_view *was) {
    const size_t list = json_diff_open_array(o, "set");
    for (size_t i = 0; i < now->n_sequences; i++) {
        const seq_view *s = &now->sequence[i], *old = find(was, s->id, i);
        if (old && !differs(s, old)) continue;
        json_diff one = {o->out, !old};
        const size_t at = json_diff_open(&one, NULL);
        memory_sequence_write(&one, s, old ? old : s);
        json_diff_close(&one, at);
    }
    json_diff_close_array(o, list);
}

static void write_gone(json_diff *o, const memory_view *now, const memory_view *was) {
    const size_t list = json_diff_open_array(o, "gone");
    for (size_t i = 0; i < was->n_sequences; i++) {
        if (find(now, was->sequence[i].id, i)) continue;
        json_diff_name(o, NULL);
        json_u64(o->out, was->sequence[i].id);
    }
    json_diff_close_array(o, list);
}

static void write_sequences(json_diff *o, const memory_view *now, const memory_view *was) {
    const size_t at = json_diff_open(o, "sequences");
    write_changed(o, now, was);
    write_gone(o, now, was);
    json_diff_close(o, at);
}

/* ---- blocks ---- */

static void write_cell(buf *b, uint32_t cell) {
#define CELL_WORD(name, word) "\"" word "\"",
    static const char *const word[] = {SCHED_CELL_LIST(CELL_WORD)};
#undef CELL_WORD
    if (cell < CELL_SEQUENCE)
        buf_add(b, str_of(word[cell]));
    else
        json_u64(b, cell - CELL_SEQUENCE);
}

/* Runs of cells that are not as they were; before the first, all are free. */
static void write_runs(buf *b, const pool_picture *now, const pool_picture *was) {
    const uint32_t n = (uint32_t)ceil_div(now->n, now->stride ? now->stride : 1);
    const char *comma = "";
    for (uint32_t i = 0, to; i < n; i = to) {
        const uint32_t cell = now->cell[i];
        to = i + 1;
        if (cell == (was ? was->cell[i] : (uint32_t)CELL_FREE)) continue;
        while (to < n && now->cell[to] == cell &&
               cell != (was ? was->cell[to] : (uint32_t)CELL_FREE))
            to++;
        buf_addf(b, "%s[%" PRIu32 ",%" PRIu32 ",", comma, i, to - i);
        write_cell(b, cell);
        buf_addc(b, ']');
        comma = ",";
    }
}

static bool same_pool(const pool_picture *a, const pool_picture *b) {
    return a->n == b->n && a->stride == b->stride &&
           memcmp(a->cell, b->cell, sizeof *a->cell * ceil_div(a->n, a->stride)) == 0;
}

/* Its members, from the first on, which follows begin. was NULL: there was none. */
static void write_pool(buf *b, const pool_picture *now, const pool_picture *was) {
    const bool anew = !was || was->n != now->n || was->stride != now->stride;
    if (anew) buf_addf(b, "\"n\":%" PRIu32 ",\"stride\":%" PRIu32 ",", now->n, now->stride);
    buf_add(b, STR("\"cells\":["));
    write_runs(b, now, anew ? NULL : was);
    buf_add(b, STR("]}"));
}

static void write_blocks(json_diff *o, const kv_picture *now, const kv_picture *was) {
    const size_t list = json_diff_open_array(o, "blocks");
    for (uint32_t i = 0; i < now->n_groups; i++) {
        const pool_picture *old = o->whole || i >= was->n_groups ? NULL : &was->group[i];
        if (old && same_pool(&now->group[i], old)) continue;
        json_diff_name(o, NULL);
        buf_addf(o->out, "{\"group\":%" PRIu32 ",", i);
        write_pool(o->out, &now->group[i], old);
    }
    json_diff_close_array(o, list);
}

static void write_states(json_diff *o, const pool_picture *now, const pool_picture *was) {
    const pool_picture *old = o->whole || was->n == 0 ? NULL : was;
    if (now->n == 0 || (old && same_pool(now, old))) return;
    json_diff_name(o, "states");
    buf_addc(o->out, '{');
    write_pool(o->out, now, old);
}

/* ---- events ---- */

static void write_head(json_diff *o, const live *l, const live_stream *s) {
    buf *b = o->out;
    buf_addf(b, ",\"start\":\"%016" PRIx64 "\",\"time\":%lld,\"version\":\"" VRAMD_VERSION "\"",
             l->start, (long long)time(NULL));
    buf_addf(b, ",\"may\":{\"resize\":%s,\"keys\":\"%s\"},\"docs\":%s,\"interval_s\":%.1f",
             s->may_resize ? "true" : "false",
             !s->tenant    ? "none"
             : s->all_keys ? "all"
                           : "own",
             l->app->docs_fd < 0 ? "false" : "true", LIVE_TICK_MS / 1e3);
}

void live_write(buf *b, const live *l, live_stream *s, bool whole) {
    const live_view *now = &l->view[l->now], *was = whole ? now : &l->view[l->now ^ 1];
    json_diff diff = {b, whole}, *o = &diff;
    const size_t before = b->len;
    buf_addf(b, "event: %s\ndata: {\"t\":%.3f", whole ? "whole" : "delta",
             (double)(now->at_us - l->history.start_us) / 1e6);
    const size_t empty = b->len;
    if (whole) write_head(o, l, s);
    json_diff_str(o, "state", now->rates.state, was->rates.state);
    const size_t at = json_diff_open(o, "memory");
    memory_view_write(o, &now->memory, &was->memory);
    json_diff_close(o, at);
    if (!whole) write_sequences(o, &now->memory, &was->memory);
    write_rates(o, now, was, l->app->port->card.speculates);
    write_latencies(o, &now->rates, &was->rates);
    write_keys(o, s);
    write_blocks(o, &now->picture, &was->picture);
    write_states(o, &now->picture.states, &was->picture.states);
    if (b->len == empty)
        b->len = before;
    else
        buf_add(b, STR("}\n\n"));
}
