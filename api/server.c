/* The front end as one object: HTTP below, endpoints above, the machine behind. Owns the app.
 * Loop thread only. */
#include "api/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/answer.h"
#include "api/cors.h"
#include "api/docs.h"
#include "api/live.h"
#include "api/proxies.h"
#include "base/clock.h"
#include "base/log.h"

struct server {
    app app;    /* first: callbacks get it */
    served one; /* app.served, where there is only one */
    void (*drained)(void *);
    void *drained_arg;
};

static bool has(const char *option) {
    return option && option[0];
}

void server_terms(const server_options *o, terms *out) {
    terms_add(out, MEM_HTTP, TERM_EXACT, (uint64_t)o->max_connections * HTTP_POOL_BYTES,
              "libmicrohttpd's pools, %u connections", o->max_connections);
    terms_add(out, MEM_HTTP, TERM_CALIBRATED, (uint64_t)o->max_connections * HTTP_RECORD_BYTES,
              "libmicrohttpd's records and responses");
    if (has(o->tls_cert))
        terms_add(out, MEM_HTTP, TERM_CALIBRATED, (uint64_t)o->max_connections * HTTP_TLS_BYTES,
                  "GnuTLS, %u connections", o->max_connections);
    terms_add(out, MEM_HTTP, TERM_EXACT, http_table_bytes(o->max_connections),
              "table of connections");
    if (has(o->api_keys_file))
        terms_add(out, MEM_HTTP, TERM_EXACT, keys_bytes(), "API keys, up to %d", KEYS_MAX);
    if (o->web_page)
        terms_add(out, MEM_HTTP, TERM_EXACT, live_bytes(), "the page: %d minutes, latest views",
                  HISTORY_S / 60);
}

/* ---- what http calls ---- */

static void on_begin(void *self, http_request *rq) {
    routes_begin(self, rq);
}
static void on_run(void *self, http_request *rq) {
    routes_run(self, rq);
}
static void on_gone(void *self, http_request *rq) {
    (void)self;
    live_gone(rq);
    if (!served_forget(rq, NULL) && rq->user) answer_gone(rq->user);
}
static void on_sent(void *self, http_request *rq) {
    (void)self;
    live_sent(rq);
    if (rq->user) answer_sent(rq->user);
}
static void on_abort(void *self, http_request *rq) {
    (void)self;
    failure f;
    failure_set(&f, API_UNAVAILABLE, "the server is shutting down");
    live_gone(rq);
    if (served_forget(rq, &f)) return;
    if (rq->user)
        answer_fail(rq->user, &f);
    else
        http_refuse(rq, &f);
}

enum { SHOWN_BYTES = 80 };

/* A path for the log: what would begin another field or line there is encoded again. */
static const char *shown(const char *path, char out[SHOWN_BYTES + 4]) {
    size_t n = 0;
    for (; *path && n < SHOWN_BYTES; path++) {
        unsigned char c = (unsigned char)*path;
        bool plain = c > ' ' && c != 0x7f && !strchr("%\"=", c);
        n += (size_t)sprintf(out + n, plain ? "%c" : "%%%02X", c);
    }
    out[n] = '\0';
    return out;
}

enum { REASON_BYTES = 200 };

/* ` why="..."`, or nothing: the message of a refusal, which may quote what the client sent; so
 * quotes and what would look like a field are changed. */
static const char *reason(const http_request *rq, char out[REASON_BYTES + 8]) {
    out[0] = '\0';
    if (!rq->refusal || rq->gone) return out;
    size_t n = (size_t)sprintf(out, " why=\"");
    for (const char *c = rq->refusal; *c && n + 2 < REASON_BYTES; c++) {
        if (*c == '=')
            n += (size_t)sprintf(out + n, "%%3D");
        else
            out[n++] = (unsigned char)*c < ' ' ? ' ' : *c == '"' ? '\'' : *c;
    }
    while (n && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
        n--; /* of a character cut in half */
    if (n && (unsigned char)out[n - 1] >= 0xc0) n--;
    strcpy(out + n, "\"");
    return out;
}

/* method path status prompt output ttft total finish id, as key=value after the first three */
static void log_request(const http_request *rq) {
    const answer *a = rq->user;
    double total = (double)(clock_us() - rq->began_us) / 1e3;
    int status = rq->gone && !rq->status ? 499 : rq->status; /* nginx's "client closed" */
    const char *key = rq->tenant ? " key=" : "", *name = rq->tenant ? rq->tenant->name : "";
    char path[SHOWN_BYTES + 4], why[REASON_BYTES + 8];
    if (!a || rq->lent) { /* lent: another thread still fills the prompts */
        log_line(routes_polled(rq->path) ? LOG_DEBUG : LOG_INFO,
                 "%.16s %s %d total_ms=%.1f%s%s%s id=%s", rq->method_name.ptr,
                 shown(rq->path.ptr, path), status, total, key, name, reason(rq, why), rq->id);
        return;
    }
    const char *finish = rq->gone ? "disconnect" : "error";
    uint64_t out = 0;
    for (uint32_t i = 0; i < a->n_choices; i++) {
        out += a->choices[i].n_output;
        if (!rq->gone && a->choices[i].finish) finish = a->choices[i].finish;
    }
    double ttft = a->first_token_us ? (double)(a->first_token_us - rq->began_us) / 1e3 : 0;
    log_info("%.16s %s %d prompt=%llu output=%llu cached=%llu ttft_ms=%.1f total_ms=%.1f "
             "finish=%s%s%s%s id=%s",
             rq->method_name.ptr, shown(rq->path.ptr, path), status,
             (unsigned long long)usage_prompt_tokens(a), (unsigned long long)out,
             (unsigned long long)usage_cached_tokens(a), ttft, total, finish, key, name,
             reason(rq, why), rq->id);
}

static void on_done(void *self, http_request *rq) {
    app *app = self;
    live_gone(rq);
    /* What is not supported, and a probe while the model loads, are no failures that should
     * wake anybody. */
    bool waits = rq->status == 503 && routes_polled(rq->path);
    app->answers[rq->gone ? 0 : rq->status == 501 ? 1 : waits ? 3 : rq->status / 100 % 6]++;
    if (app->opt.log_requests) log_request(rq);
}

/* The last reference is gone: what the tenant was charged and did not use goes back. */
static void on_freed(void *self, http_request *rq) {
    (void)self;
    if (rq->user) answer_settle(rq->user);
    if (rq->tenant) tenant_leave(rq->tenant);
    served_leave(rq);
}

static double on_retry_after(void *self) {
    app *app = self;
    return app->port->ops->retry_after_s(app->port);
}

static void on_tick(void *self) {
    live_tick(((app *)self)->live);
}

static void on_idle(void *self) {
    server *s = self;
    if (s->drained) s->drained(s->drained_arg);
}

/* ---- life ---- */

static status check_origins(const server_options *o, err *e) {
    const char *bad;
    if (!has(o->cors_origins) || cors_list_ok(o->cors_origins, &bad)) return OK;
    err_set(e, ERR_INVALID, "cors_origins: \"%.60s\" is no origin", bad);
    err_hint(e, "scheme://host or scheme://host:port without a path, localhost, or *");
    return err_field(e, "cors_origins");
}

static status check_proxies(const server_options *o, err *e) {
    const char *bad;
    if (!has(o->trusted_proxies) || proxies_list_ok(o->trusted_proxies, &bad)) return OK;
    err_set(e, ERR_INVALID, "trusted_proxies: \"%.60s\" is no address or network", bad);
    err_hint(e, "10.0.0.0/8, 192.168.1.7, fd00::/8, or unix");
    return err_field(e, "trusted_proxies");
}

static status check_options(const server_options *o, err *e) {
    if (check_origins(o, e) != OK || check_proxies(o, e) != OK) return e->code;
    if (has(o->tls_cert) == has(o->tls_key)) return OK;
    const char *missing = has(o->tls_cert) ? "tls_key" : "tls_cert";
    err_set(e, ERR_INVALID, "tls_cert and tls_key go together: %s is not set", missing);
    return err_field(e, "%s", missing);
}

static status open_keys(keys **out, const server_options *o, ledger *l, err *e) {
    return has(o->api_keys_file) ? keys_open(out, o->api_keys_file, l, clock_us(), e) : OK;
}

static status open_strip(line_filter **out, const server_options *o, err *e) {
    err why;
    const status s = line_filter_open(out, o->strip_prompt_lines, &why);
    if (s == OK) return OK;
    err_set(e, s, "strip_prompt_lines: %s", why.text);
    return err_field(e, "strip_prompt_lines");
}

static status open_docs(int *fd, const server_options *o, err *e) {
    *fd = -1;
    return o->web_page ? docs_open(fd, o->docs_dir, e) : OK;
}

static void close_docs(int fd) {
    if (fd >= 0) close(fd);
}

status server_check(const server_options *o, ledger *l, err *e) {
    keys *k = NULL;
    line_filter *strip;
    status s = check_options(o, e);
    if (s == OK) s = open_strip(&strip, o, e);
    if (s == OK) line_filter_free(strip);
    if (s == OK) s = open_keys(&k, o, l, e);
    if (s == OK) s = http_check(o, e);
    int docs = -1;
    if (s == OK) s = open_docs(&docs, o, e);
    close_docs(docs);
    keys_close(k, l);
    return s;
}

status server_open(server **out, uv_loop_t *loop, const server_options *o, port *p, err *e) {
    *out = NULL;
    server *s = calloc(1, sizeof *s);
    if (!s) return mem_exhausted(e, MEM_HTTP, "the front end");
    s->app.port = p;
    s->one = (served){.port = p, .grammars = {.pool = p->grammars}, .open = true};
    s->app.served = &s->one;
    s->app.n_served = 1;
    s->app.opt = *o;
    s->app.docs_fd = -1;
    memory_sample_take(p, &s->app.memory);
    const http_app callbacks = {.self = s,
                                .begin = on_begin,
                                .run = on_run,
                                .gone = on_gone,
                                .abort = on_abort,
                                .sent = on_sent,
                                .done = on_done,
                                .freed = on_freed,
                                .retry_after_s = on_retry_after,
                                .idle = on_idle,
                                .tick = on_tick};
    status st = check_options(o, e);
    if (st == OK) st = open_strip(&s->app.strip, o, e);
    if (st == OK) st = open_keys(&s->app.keys, o, p->ledger, e);
    if (st == OK) st = open_docs(&s->app.docs_fd, o, e);
    if (st == OK && o->web_page) st = live_open(&s->app.live, &s->app, e);
    if (st == OK) st = http_open(&s->app.http, loop, o, &callbacks, p->ledger, p->pool, e);
    if (st != OK) {
        live_close(s->app.live);
        close_docs(s->app.docs_fd);
        line_filter_free(s->app.strip);
        keys_close(s->app.keys, p->ledger);
        free(s);
        return st;
    }
    if (s->app.live) live_start(s->app.live);
    *out = s;
    return OK;
}

void server_serve(server *s, served *several, uint32_t n) {
    s->app.served = several;
    s->app.n_served = n;
}

void server_loaded(server *s) {
    http_accept(s->app.http);
    memory_sample_take(s->app.port, &s->app.memory);
}

static void told_at_reload(status s, const err *e) {
    if (s != OK) log_error("reload: what was read before stays in force: %s", e->text);
}

void server_reload(server *s) {
    err e;
    if (s->app.keys) {
        status st = keys_reload(s->app.keys, s->app.opt.api_keys_file, clock_us(), &e);
        told_at_reload(st, &e);
        if (s->app.live) live_end(s->app.live, "keys");
        if (st == OK)
            log_info("reload: %u tenants in %s", keys_n_tenants(s->app.keys),
                     s->app.opt.api_keys_file);
    }
    told_at_reload(http_reload(s->app.http, &e), &e);
}

uint16_t server_port(const server *s) {
    return http_port(s->app.http);
}

status server_configure(server *s, const server_options *o, err *e) {
    status st = check_origins(o, e);
    if (st == OK) s->app.opt = *o;
    return st;
}

void server_flush(server *s) {
    http_flush(s->app.http);
}

void server_leave(server *s) {
    s->app.leaving = true;
    http_leave(s->app.http);
}

void server_drain(server *s, void (*drained)(void *), void *arg) {
    s->drained = drained;
    s->drained_arg = arg;
    if (s->app.live) live_end(s->app.live, "draining");
    http_drain(s->app.http);
}

void server_abort(server *s) {
    http_abort(s->app.http);
}

void server_close(server *s) {
    http_close(s->app.http);
    live_close(s->app.live);
    close_docs(s->app.docs_fd);
    grammars_clear(&s->one.grammars);
    line_filter_free(s->app.strip);
    keys_close(s->app.keys, s->app.port->ledger);
    free(s);
}
