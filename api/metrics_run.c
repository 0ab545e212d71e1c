/* GET /metrics. Reads snapshots only, so that it answers in the middle of a step; what the
 * operating system says is read on the pool of threads, and may be SAMPLE_MAX_AGE_US and a scrape
 * old. Of several models each has samples of its own. Owns nothing. Loop thread. */
#include <string.h>

#include "api/metrics.h"
#include "base/clock.h"

enum { SAMPLE_MAX_AGE_US = 5000000, TEXT_BYTES = 60 * 1024 };

static void write_of(buf *b, const app *a, port *p) {
    machine_stats s;
    app of = *a;
    of.port = p;
    p->ops->stats(p, &s);
    metrics_write(b, &of, &s);
}

/* ---- several models ---- */

/* Of a text, one family after the other: its two lines of comments, and its samples. */
typedef struct family {
    str comments, samples;
} family;

static bool next_family(str *text, family *out) {
    const str begin = STR("# HELP ");
    if (text->len == 0) return false;
    size_t end = str_find(*text, begin, 1), line = str_find(*text, STR("\n"), 0) + 1;
    if (end == SIZE_MAX) end = text->len;
    line += str_find((str){text->ptr + line, text->len - line}, STR("\n"), 0) + 1;
    out->comments = (str){text->ptr, line};
    out->samples = (str){text->ptr + line, end - line};
    text->ptr += end;
    text->len -= end;
    return true;
}

/* What the process has once, and no model for itself. */
static bool is_of_whole(str comments) {
    static const char *const prefix[] = {"vramd_http_",      "vramd_log_",   "vramd_reply_",
                                         "vramd_ready",      "vramd_key_",   "vramd_memory_",
                                         "vramd_build_info", "vramd_energy_"};
    comments.ptr += strlen("# HELP ");
    comments.len -= strlen("# HELP ");
    for (size_t i = 0; i < sizeof prefix / sizeof *prefix; i++)
        if (str_starts(comments, str_of(prefix[i]))) return true;
    return false;
}

static void write_states(buf *b, const app *a) {
    static const char *const name[] = {"vramd_model_loaded", "vramd_model_bytes",
                                       "vramd_model_requests_held", "vramd_model_loads_total",
                                       "vramd_model_load_seconds"};
    static const char *const help[] = {"1 while the model is in memory and serves.",
                                       "Bytes of the budget that the model holds.",
                                       "Requests that wait for the model to be loaded.",
                                       "Loads of the model since the start.",
                                       "Time that its latest load took."};
    for (int k = 0; k < 5; k++) {
        buf_addf(b, "# HELP %s %s\n# TYPE %s %s\n", name[k], help[k], name[k],
                 k == 3 ? "counter" : "gauge");
        for (uint32_t i = 0; i < a->n_served; i++) {
            const served *s = &a->served[i];
            served_view v;
            s->ops->view(s, &v);
            const double value[] = {s->open, (double)v.bytes_now, s->n_held, (double)v.n_loads,
                                    v.load_s};
            metrics_write_sample(b, name[k], s->port->card.id, value[k]);
        }
    }
}

/* The families of the process from its own text, those of a model from the texts of all. */
static void write_models(buf *b, const app *a) {
    enum { MOST = 17 };
    buf part[MOST];
    str text[MOST];
    family f[MOST];
    const uint32_t n = a->n_served + 1 < MOST ? a->n_served + 1 : MOST;
    for (uint32_t i = 0; i < n; i++) {
        buf_init(&part[i], b->in);
        if (!buf_reserve(&part[i], TEXT_BYTES)) b->failed = true;
        write_of(&part[i], a, i ? a->served[i - 1].port : a->port);
        text[i] = buf_str(&part[i]);
        b->failed |= part[i].failed;
    }
    while (!b->failed && next_family(&text[0], &f[0])) {
        buf_add(b, f[0].comments);
        const bool whole = is_of_whole(f[0].comments);
        if (whole) buf_add(b, f[0].samples);
        for (uint32_t i = 1; i < n; i++)
            if (next_family(&text[i], &f[i]) && !whole) buf_add(b, f[i].samples);
    }
    write_states(b, a);
}

/* ---- the endpoint ---- */

typedef struct sample_job {
    app *app;
    http_request *rq; /* holds the server open until the sample is there */
    memory_sample sample;
} sample_job;

static void work(void *arg) {
    sample_job *j = arg;
    memory_sample_take(j->app->port, &j->sample);
}

static void done(void *arg) {
    sample_job *j = arg;
    app *a = j->app;
    if (j->sample.at_us > a->memory.at_us) a->memory = j->sample;
    a->sampling = false;
    http_unref(j->rq);
    http_flush(a->http);
}

/* For the scrape after this one: reading smaps_rollup takes milliseconds. */
static void refresh(app *a, http_request *rq) {
    if (a->sampling || clock_us() - a->memory.at_us < SAMPLE_MAX_AGE_US) return;
    sample_job *j = arena_zalloc(&rq->mem, sizeof *j);
    if (!j) return;
    *j = (sample_job){.app = a, .rq = rq};
    http_ref(rq);
    a->sampling = a->port->ops->offload(a->port, work, done, j);
    if (!a->sampling) http_unref(rq);
}

void metrics_run(app *a, http_request *rq) {
    buf b;
    buf_init(&b, &rq->mem);
    if (!buf_reserve(&b, TEXT_BYTES)) {
    } else if (a->served[0].ops) {
        write_models(&b, a);
    } else {
        write_of(&b, a, a->port);
    }
    refresh(a, rq);
    if (b.failed)
        http_refuse_memory(rq);
    else
        http_answer(rq, 200, "text/plain; version=0.0.4; charset=utf-8", buf_str(&b));
}
