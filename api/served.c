/* Which model a request is for, and the requests that wait for one. Those are in the arenas of the
 * requests. Loop thread. */
#include "api/served.h"

#include <string.h>

#include "api/app.h"
#include "base/check.h"
#include "base/clock.h"

struct held_request {
    app *app;
    http_request *rq;
    endpoint *run;
    served *model;
    uint64_t since_us, until_us; /* until_us: its own deadline */
    held_request *next;
};

static bool is_named(const served *s, str name) {
    const char *at = s->port->card.names;
    if (str_eqz(name, s->port->card.id)) return true;
    for (str one; at && app_next_name(&at, &one);)
        if (str_eq(name, one)) return true;
    return false;
}

served *served_by_name(const app *app, str name) {
    for (uint32_t i = 0; i < app->n_served; i++)
        if (is_named(&app->served[i], name)) return &app->served[i];
    return NULL;
}

/* Clients of Ollama add a tag to the name. */
static str without_tag(str name) {
    const str tag = STR(":latest");
    if (name.len > tag.len && memcmp(name.ptr + name.len - tag.len, tag.ptr, tag.len) == 0)
        name.len -= tag.len;
    return name;
}

/* The member model, or name, of the body: what it is otherwise, the endpoint will say. */
static status name_in_body(http_request *rq, str *name, err *e) {
    status s = json_in_parse(&rq->json, &rq->mem, rq->body, e);
    if (s == OK && !json_is_object(rq->json))
        s = err_set(e, ERR_INVALID, "the body must be a JSON object, not %s",
                    json_in_kind(rq->json));
    if (s != OK) {
        rq->json = NULL;
        return s;
    }
    s = json_in_str(rq->json, "model", name, e);
    if (s == OK && name->len == 0 && json_is_string(json_object_get(rq->json, "name")))
        s = json_in_str(rq->json, "name", name, e);
    return s;
}

/* Whether the request's key is among those that may use the model. */
static bool allowed(const served *s, const http_request *rq) {
    const char *at = s->tenants;
    if (!at || !*at) return true;
    for (str one; rq->tenant && app_next_name(&at, &one);)
        if (str_eqz(one, rq->tenant->name)) return true;
    return false;
}

status served_find(app *app, http_request *rq, served **out, err *e) {
    str name = STR("");
    status s = OK;
    const char *query = http_query(rq, "model");
    if (rq->method == HTTP_POST)
        s = name_in_body(rq, &name, e);
    else if (query)
        name = str_of(query);
    if (s != OK) return s;
    *out = name.len ? served_by_name(app, name) : &app->served[0];
    if (!*out) *out = served_by_name(app, without_tag(name));
    if (*out && allowed(*out, rq)) return OK;
    err_set(e, ERR_NOT_FOUND, "the model %.*s does not exist; /v1/models lists those that do",
            name.len < 80 ? (int)name.len : 80, name.ptr);
    return err_field(e, "model");
}

/* Of the request itself, as of one that waits in the queue (answer.c); UINT64_MAX: none. */
static uint64_t deadline_us(const app *app, const http_request *rq) {
    const double most = app->opt.request_timeout_s;
    double t = 0;
    err e;
    if (json_in_real(rq->json, "timeout", 0.001, 86400, &t, &e) != OK) t = 0;
    if (most > 0 && (t == 0 || t > most)) t = most;
    return t > 0 ? rq->began_us + (uint64_t)(t * 1e6) : UINT64_MAX;
}

static bool hold(app *app, http_request *rq, served *s, endpoint *run) {
    failure f;
    held_request *h = arena_zalloc(&rq->mem, sizeof *h);
    if (s->n_held >= s->max_held) {
        failure_set(&f, API_BUSY, "%u requests wait for the model to be loaded", s->n_held);
        http_refuse(rq, &f);
        return false;
    }
    if (!h) {
        http_refuse_memory(rq);
        return false;
    }
    *h = (held_request){.app = app,
                        .rq = rq,
                        .run = run,
                        .model = s,
                        .since_us = clock_us(),
                        .until_us = deadline_us(app, rq)};
    if (s->last)
        s->last->next = h;
    else
        s->first = h;
    s->last = h;
    s->n_held++;
    rq->held = h;
    http_ref(rq);
    s->ops->changed(s);
    return false;
}

bool served_enter(app *app, http_request *rq, served *s, endpoint *run) {
    rq->served = s;
    s->used_us = clock_us();
    if (!s->open) return hold(app, rq, s, run);
    s->n_users++;
    rq->entered = true;
    return true;
}

void served_leave(http_request *rq) {
    served *s = rq->served;
    if (!rq->entered) return;
    CHECK(s->n_users > 0);
    rq->entered = false;
    if (--s->n_users == 0) s->ops->changed(s);
}

/* The caller has the reference now. */
static void unhold(held_request *h) {
    served *s = h->model;
    held_request *prev = NULL;
    for (held_request *i = s->first; i != h; i = i->next) prev = i;
    *(prev ? &prev->next : &s->first) = h->next;
    if (s->last == h) s->last = prev;
    s->n_held--;
    h->rq->held = NULL;
    h->rq->beats = false;
}

bool served_forget(http_request *rq, const failure *f) {
    held_request *h = rq->held;
    if (!h) return false;
    served *s = h->model;
    unhold(h);
    if (f) http_refuse(rq, f);
    s->ops->changed(s);
    http_unref(rq);
    return true;
}

void served_open(served *s, port *p) {
    s->port = p;
    s->grammars.pool = p->grammars;
    s->open = true;
    while (s->first && s->open) {
        const held_request h = *s->first;
        unhold(s->first);
        if (served_enter(h.app, h.rq, s, h.run)) h.run(h.app, h.rq);
        http_unref(h.rq);
    }
}

void served_close(served *s) {
    s->open = false;
}

void served_drop(served *s, port *refusing) {
    CHECK(!s->open && s->n_users == 0);
    grammars_clear(&s->grammars);
    s->grammars = (grammars){0};
    memset(s->reply_known, 0, sizeof s->reply_known);
    s->port = refusing;
}

static void refuse(held_request *h, const failure *f) {
    http_request *rq = h->rq;
    unhold(h);
    http_refuse(rq, f);
    http_unref(rq);
}

void served_refuse(served *s, const failure *f) {
    while (s->first) refuse(s->first, f);
}

uint64_t served_expire(served *s, uint64_t now_us, uint32_t limit_s) {
    const uint64_t limit_us = (uint64_t)limit_s * 1000000;
    uint64_t next = UINT64_MAX;
    failure late, slow;
    failure_set(&late, API_TIMEOUT, "the deadline passed before the model was loaded");
    failure_set(&slow, API_UNAVAILABLE, "the model was not loaded within %u s", limit_s);
    slow.retry_after_s = 10;
    for (held_request *h = s->first, *after; h; h = after) {
        const uint64_t loaded = h->since_us + limit_us;
        const uint64_t due = loaded < h->until_us ? loaded : h->until_us;
        after = h->next;
        if (due <= now_us)
            refuse(h, due == loaded ? &slow : &late);
        else if (due < next)
            next = due;
    }
    return next;
}

uint64_t served_oldest_us(const served *s) {
    return s->first ? s->first->since_us : 0;
}
