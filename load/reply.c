/* Raw replies to samples. Owns the bytes of a reply; any one thread at a time. */
#include "load/reply.h"

#include <stdlib.h>

#include "base/utf8.h"
#include "json/in.h"
#include "load/sse.h"

const char *load_fault_name(load_fault f) {
    static const char *const names[] = {
#define X(code, name) name,
        LOAD_FAULT_LIST(X)
#undef X
    };
    return names[f];
}

bool load_reply_add(load_reply *r, str piece, uint64_t t_us) {
    if (r->n_marks == r->cap_marks) {
        size_t cap = r->cap_marks ? r->cap_marks * 2 : 64;
        load_mark *m = realloc(r->marks, cap * sizeof *m);
        if (!m) return false;
        r->marks = m;
        r->cap_marks = cap;
    }
    if (!buf_add(&r->body, piece)) return false;
    r->marks[r->n_marks++] = (load_mark){r->body.len, t_us};
    return true;
}

void load_reply_free(load_reply *r) {
    if (!r) return;
    buf_clear(&r->body);
    free(r->marks);
    free(r);
}

bool load_times_push(load_times *t, uint64_t us) {
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 1024;
        uint32_t *v = realloc(t->v, cap * sizeof *v);
        if (!v) return false;
        t->v = v;
        t->cap = cap;
    }
    t->v[t->n++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
    return true;
}

typedef struct reading {
    load_sample *s;
    load_times *gaps;
    uint64_t due_us, last_us; /* last_us: of the last text, 0 before the first */
    uint32_t n_texts;
    bool done, no_memory, usage;
    arena mem; /* of one event */
} reading;

static void fault(load_sample *s, load_fault f, const char *why, str more) {
    if (s->fault != FAULT_NONE) return;
    err e;
    s->fault = f;
    err_set(&e, ERR_INVALID, "%s%.*s", why, (int)(more.len < 120 ? more.len : 120), more.ptr);
    size_t n = strlen(e.text);
    if (n >= sizeof s->why) n = sizeof s->why - 1;
    n = utf8_complete((str){e.text, n});
    memcpy(s->why, e.text, n);
    s->why[n] = 0;
}

static bool is_text(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_string_length(v) > 0 || json_array_size(v) > 0;
}

/* Whether a chunk brings something that a user sees: not a role, not a finish reason. */
static bool brings_text(const json_t *chunk) {
    const json_t *choices = json_object_get(chunk, "choices");
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const json_t *c = json_array_get(choices, i), *d = json_object_get(c, "delta");
        if (is_text(c, "text") || is_text(d, "content") || is_text(d, "reasoning_content") ||
            is_text(d, "reasoning") || is_text(d, "tool_calls"))
            return true;
    }
    return false;
}

static uint32_t count(const json_t *o, const char *key) {
    json_int_t n = json_integer_value(json_object_get(o, key));
    return n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void read_usage(reading *r, const json_t *chunk) {
    const json_t *u = json_object_get(chunk, "usage");
    if (!json_is_object(u)) return;
    r->usage = true;
    r->s->prompt_tokens = count(u, "prompt_tokens");
    r->s->output_tokens = count(u, "completion_tokens");
    r->s->cached_tokens = count(json_object_get(u, "prompt_tokens_details"), "cached_tokens");
}

static void read_error(load_sample *s, const json_t *error) {
    const json_t *m = json_is_object(error) ? json_object_get(error, "message") : error;
    fault(s, FAULT_SERVER, "", json_is_string(m) ? json_in_text(m) : STR("an error"));
}

static void on_text(reading *r, uint64_t t_us) {
    if (!r->n_texts++)
        r->s->ttft_us = t_us - r->due_us;
    else if (load_times_push(r->gaps, t_us - r->last_us))
        r->s->n_gaps++;
    else
        r->no_memory = true;
    r->last_us = t_us;
}

static void on_event(void *self, str data, uint64_t t_us) {
    reading *r = self;
    const json_t *chunk;
    err e;
    if (r->done || r->s->fault != FAULT_NONE) return;
    if (str_eqz(data, "[DONE]")) {
        r->done = true;
        return;
    }
    status s = json_in_parse(&chunk, &r->mem, data, &e);
    if (s == ERR_NO_MEMORY)
        r->no_memory = true;
    else if (s != OK || !json_is_object(chunk))
        fault(r->s, FAULT_MALFORMED, "an event is no JSON object: ", data);
    else if (json_in_has(chunk, "error"))
        read_error(r->s, json_object_get(chunk, "error"));
    else {
        if (brings_text(chunk)) on_text(r, t_us);
        read_usage(r, chunk);
    }
    arena_clear(&r->mem);
}

static void read_stream(const load_reply *p, reading *r) {
    load_sse sse;
    load_sse_init(&sse, on_event, r);
    size_t at = 0;
    for (size_t i = 0; i < p->n_marks; i++) {
        load_sse_feed(&sse, (str){p->body.ptr + at, p->marks[i].end - at}, p->marks[i].t_us);
        at = p->marks[i].end;
    }
    r->no_memory = r->no_memory || load_sse_failed(&sse);
    load_sse_clear(&sse);
}

/* What an answer that is not 200 says of itself: OpenAI's error, or its first bytes. */
static void read_refusal(const load_reply *p, load_sample *s) {
    arena mem;
    const json_t *o;
    err e;
    arena_init(&mem, chunks_heap(), 0);
    str text = buf_str(&p->body);
    if (json_in_parse(&o, &mem, text, &e) == OK) {
        const json_t *m = json_object_get(json_object_get(o, "error"), "message");
        if (json_is_string(m)) text = json_in_text(m);
    }
    fault(s, FAULT_STATUS, "", text);
    arena_clear(&mem);
}

static void judge(const load_reply *p, reading *r) {
    load_sample *s = r->s;
    if (p->fault != FAULT_NONE) {
        if (s->fault != FAULT_SERVER) s->fault = FAULT_NONE;
        fault(s, p->fault, p->why, STR(""));
    } else if (p->http != 200)
        read_refusal(p, s);
    else if (!p->sse)
        fault(s, FAULT_MALFORMED, "the answer is no event stream: ", buf_str(&p->body));
    else if (!r->done)
        fault(s, FAULT_MALFORMED, "the stream ended without [DONE]", STR(""));
    else if (!r->n_texts)
        fault(s, FAULT_MALFORMED, "the stream brought no text", STR(""));
    if (!r->usage) s->output_tokens = r->n_texts;
    s->last_us = r->n_texts ? r->last_us - p->due_us : 0;
    s->short_output = s->fault == FAULT_NONE && s->output_tokens < p->output_tokens;
}

status load_reply_read(const load_reply *p, load_sample *s, load_times *gaps, err *e) {
    *s = (load_sample){.due_us = p->due_us,
                       .e2e_us = p->end_us - p->due_us,
                       .delay_us = p->start_us - p->due_us,
                       .http = p->http};
    reading r = {.s = s, .gaps = gaps, .due_us = p->due_us};
    size_t before = gaps->n;
    arena_init(&r.mem, chunks_heap(), 0);
    if (p->http == 200 && p->sse) read_stream(p, &r);
    judge(p, &r);
    arena_clear(&r.mem);
    if (r.no_memory) return err_set(e, ERR_NO_MEMORY, "no memory for the times of a reply");
    if (s->fault != FAULT_NONE) { /* only whole answers count */
        gaps->n = before;
        s->n_gaps = 0;
    }
    return OK;
}
