/* The plan as JSON, and GET /v1/memory as JSON or as a table. Loop thread, but for plan_json,
 * which any thread may call, and the work of taking a sample, which runs on the pool. */
#include "api/memory_view.h"

#include "base/clock.h"
#include "json/out.h"

static void member(buf *b, const char *name, uint64_t v) {
    buf_addf(b, ",\"%s\":", name);
    json_u64(b, v);
}

/* ---- the plan ---- */

static void write_model(buf *b, const model_config *c, uint64_t n_params) {
    buf_add(b, STR("\"model\":{\"name\":"));
    json_str_lossy(b, str_of(c->name));
    buf_add(b, STR(",\"arch\":"));
    json_str_lossy(b, str_of(c->arch));
    member(b, "n_params", n_params);
    member(b, "n_layers", c->n_layers);
    member(b, "n_embd", c->n_embd);
    member(b, "n_heads", c->n_heads);
    member(b, "n_kv_heads", c->n_kv_heads);
    member(b, "head_dim", c->head_dim);
    member(b, "n_ff", c->n_ff);
    member(b, "n_vocab", c->n_vocab);
    member(b, "n_ctx_train", c->n_ctx_train);
    buf_addc(b, '}');
}

static void write_term(buf *b, const term *t) {
    buf_addf(b, "{\"class\":\"%s\"", mem_class_name(t->cls));
    member(b, "bytes", t->bytes);
    buf_addf(b, ",\"kind\":\"%s\",\"what\":", term_kind_name(t->kind));
    json_str_lossy(b, str_of(t->what));
    if (t->while_loading) buf_add(b, STR(",\"while_loading\":true"));
    buf_addc(b, '}');
}

/* The members of one plan, without braces. */
static void write_plan(buf *b, const plan *p) {
    buf_add(b, STR("\"budget_bytes\":"));
    json_u64(b, p->budget_bytes);
    buf_addf(b, ",\"fits\":%s", p->fits ? "true" : "false");
    member(b, "load_peak_bytes", p->load_peak_bytes);
    member(b, "total_bytes", p->total_bytes);
    member(b, "smallest_budget_bytes", p->smallest_budget_bytes);
    buf_add(b, STR(",\"terms\":["));
    for (size_t i = 0; i < p->terms.n; i++) {
        if (i) buf_addc(b, ',');
        write_term(b, &p->terms.v[i]);
    }
    buf_addc(b, ']');
}

/* The first members of "kv": the types of K and of V. */
static void write_kv_types(buf *b, dtype k, dtype v) {
    buf_addf(b, "\"type_k\":\"%s\",\"type_v\":\"%s\",", dtype_name(k), dtype_name(v));
}

void plan_json(buf *b, const plan *p, const plan *host, const model_config *c,
               uint64_t n_params, dtype kv_k, dtype kv_v, const char *device, str more) {
    buf_addf(b, "{\"schema\":\"vramd.plan\",\"version\":%d,", PLAN_JSON_VERSION);
    write_model(b, c, n_params);
    buf_add(b, STR(",\"device\":"));
    json_str_lossy(b, str_of(device));
    buf_addc(b, ',');
    write_plan(b, p);
    if (host) {
        buf_add(b, STR(",\"host\":{"));
        write_plan(b, host);
        buf_addc(b, '}');
    }
    buf_add(b, STR(",\"kv\":{"));
    write_kv_types(b, kv_k, kv_v);
    buf_add(b, STR("\"bytes_per_token\":"));
    json_u64(b, p->kv_bytes_per_token);
    member(b, "block_tokens", p->block_tokens);
    uint64_t blocks = 0;
    for (uint32_t g = 0; g < p->n_groups; g++) blocks += p->group_blocks[g];
    member(b, "blocks", blocks);
    member(b, "tokens", p->kv_tokens);
    buf_add(b, STR(",\"groups\":["));
    for (uint32_t g = 0; g < p->n_groups; g++) {
        buf_add(b, g ? STR(",{\"blocks\":") : STR("{\"blocks\":"));
        json_u64(b, p->group_blocks[g]);
        member(b, "block_bytes", p->group_block_bytes[g]);
        buf_addc(b, '}');
    }
    buf_add(b, STR("]}"));
    buf_add(b, more);
    buf_addc(b, '}');
}

/* ---- the live account ---- */

void memory_sample_take(port *p, memory_sample *s) {
    enum { TRIES = 4 };
    ledger_view v;
    ledger_read(p->ledger, &v);
    /* Of one moment: again if KV blocks came or went while the kernel counted. */
    for (int i = 0; i < TRIES; i++) {
        const uint64_t kv = v.cls[MEM_KV].ledger_bytes;
        s->known = process_memory_read(&s->process);
        ledger_read(p->ledger, &v);
        if (kv == v.cls[MEM_KV].ledger_bytes) break;
    }
    s->ledger_bytes = v.ledger_bytes;
    for (int i = 0; p->device_ledger && i < TRIES; i++) {
        ledger_read(p->device_ledger, &v);
        const uint64_t kv = v.cls[MEM_KV].ledger_bytes;
        s->device_known = p->ops->device_memory(p, &s->device);
        ledger_read(p->device_ledger, &v);
        s->device_arena_bytes = v.ledger_bytes - v.cls[MEM_CONTEXT].ledger_bytes;
        if (kv == v.cls[MEM_KV].ledger_bytes) break;
    }
    s->at_us = clock_us();
}

typedef struct memory_job {
    app *app;
    http_request *rq;
    memory_sample sample;
    bool text;
} memory_job;

static void row(buf *b, const char *name, uint64_t plan, uint64_t ledger, uint64_t peak) {
    char t[4][32];
    buf_addf(b, "%-14s %18s %18s %18s %12s\n", name, bytes_grouped(plan, t[0]),
             bytes_grouped(ledger, t[1]), bytes_grouped(peak, t[2]), bytes_human(plan, t[3]));
}

static void ledger_table(buf *b, const ledger *l) {
    ledger_view v;
    char t[2][32];
    ledger_read(l, &v);
    buf_addf(b, "%-14s %18s %18s %18s %12s\n", "bytes of", "planned", "allocated", "peak",
             "planned");
    for (int i = 0; i < MEM_N_CLASSES; i++)
        if (v.cls[i].plan_bytes || v.cls[i].peak_bytes)
            row(b, mem_class_name((mem_class)i), v.cls[i].plan_bytes, v.cls[i].ledger_bytes,
                v.cls[i].peak_bytes);
    row(b, "total", v.plan_bytes, v.ledger_bytes, v.peak_bytes);
    buf_addf(b, "%-14s %18s %50s\n", "budget", bytes_grouped(v.budget_bytes, t[0]),
             bytes_human(v.budget_bytes, t[1]));
}

/* What the outside has in use, and how far that is from the ledger. */
static void outside_lines(buf *b, const char *what, uint64_t used, int64_t d) {
    char t[33] = "-";
    buf_addf(b, "%-14s %37s\n", what, bytes_grouped(used, t + 1));
    bytes_grouped((uint64_t)(d < 0 ? -d : d), t + 1);
    buf_addf(b, "%-14s %37s\n", "unaccounted", d < 0 ? t : t + 1);
}

static void write_table(buf *b, port *p, const memory_sample *s) {
    machine_stats st;
    char types[32], budget[32];
    p->ops->stats(p, &st);
    if (p->device_ledger) {
        char t[32];
        buf_addf(b, "%s\n", p->device);
        ledger_table(b, p->device_ledger);
        if (s->device_known) {
            buf_addf(b, "%-14s %37s\n", "context, libs",
                     bytes_grouped(s->device.outside_bytes, t));
            outside_lines(b, "driver: used", s->device.used_bytes,
                          memory_device_unaccounted(s));
        }
        buf_add(b, STR("\nhost\n"));
    }
    ledger_table(b, p->ledger);
    if (s->known)
        outside_lines(b, "anonymous", s->process.anonymous_bytes, memory_unaccounted(s));
    buf_addf(
        b,
        "kv: %s, %llu blocks of %u tokens: %llu free, %llu used, %llu cached; %llu bytes per "
        "token\n",
        dtype_kv_name(st.kv.type_k, st.kv.type_v, types), (unsigned long long)st.kv.blocks,
        st.kv.block_tokens, (unsigned long long)st.kv.free, (unsigned long long)st.kv.used,
        (unsigned long long)st.kv.cached, (unsigned long long)st.kv.bytes_per_token);
    if (st.budget.target_bytes < st.budget.full_bytes)
        buf_addf(b, "the whole budget: %s bytes, less while %s\n",
                 bytes_grouped(st.budget.full_bytes, types),
                 st.budget.idle ? "idle" : "memory is short");
    const kv_tier_view *d = &st.kv.tier;
    if (d->budget_bytes)
        buf_addf(b, "%s: %s of %s bytes, %u chunks of %u tokens%s\n",
                 d->in_memory ? "kv_host_bytes" : "kv_disk", bytes_grouped(d->bytes, types),
                 bytes_grouped(d->budget_bytes, budget), d->chunks, d->chunk_tokens,
                 d->off ? "; off after an error" : "");
}

static void write_json(buf *b, const app *app) {
    memory_view v;
    json_diff o = {b, true};
    memory_view_read(app, &v);
    const size_t at = json_diff_open(&o, NULL);
    memory_view_write(&o, &v, &v);
    json_diff_close(&o, at);
}

static void work(void *arg) {
    memory_job *j = arg;
    memory_sample_take(j->app->port, &j->sample);
}

static void answer(void *arg) {
    memory_job *j = arg;
    http_request *rq = j->rq;
    buf b;
    buf_init(&b, &rq->mem);
    if (j->text)
        write_table(&b, j->app->port, &j->sample);
    else
        write_json(&b, j->app);
    if (b.failed)
        http_refuse_memory(rq);
    else
        http_answer(rq, 200, j->text ? "text/plain; charset=utf-8" : "application/json",
                    buf_str(&b));
}

static void done(void *arg) {
    memory_job *j = arg;
    j->app->memory = j->sample;
    http_take_back(j->rq, answer, j);
}

void memory_run(app *app, http_request *rq) {
    if (rq->method == HTTP_PUT) {
        memory_resize_run(app, rq);
        return;
    }
    memory_job *j = arena_zalloc(&rq->mem, sizeof *j);
    if (!j) {
        http_refuse_memory(rq);
        return;
    }
    const char *accept = http_header(rq, "Accept");
    *j = (memory_job){.app = app, .rq = rq, .text = accept && strstr(accept, "text/plain")};
    if (app_lend(rq, app->port, work, done, j)) return;
    work(j); /* the pool is busy: a few milliseconds of the loop's time */
    app->memory = j->sample;
    answer(j);
}
