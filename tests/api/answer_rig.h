/* A choice without a machine and without a socket: the test fills its parts by hand, calls the
 * writer, and reads the bytes. All functions are static. Use:
 *
 *     rig r;
 *     rig_open(&r, &writer_chat, true, NULL);    true: a stream
 *     rig_text(&r, PART_TEXT, "Hel");
 *     writer_chat.delta(choice);
 *     const char *new_bytes = rig_sent(&r);
 *     rig_end(&r, "stop");               finish and done, or whole
 *     rig_close(&r);
 */
#ifndef VRAMD_TESTS_API_ANSWER_RIG_H
#define VRAMD_TESTS_API_ANSWER_RIG_H

#define params params_of_gnutls /* its header has a union of the name of our struct */
#include "api/http_impl.h"
#undef params
#include "api/writer.h"
#include "tests/check_main.h"

#define RIG_UNUSED __attribute__((unused))

typedef struct rig {
    http h;
    http_conn conn;
    http_private rq;
    app app;
    port port;
    served served;
    answer a;
    prompt_in prompt;
    choice *c; /* [1] */
    const writer *w;
    size_t seen;
} rig;

/* body: the request as it came, for writers that repeat some of it. */
static RIG_UNUSED void rig_open(rig *r, const writer *w, bool stream, const json_t *body) {
    memset(r, 0, sizeof *r);
    r->rq.h = &r->h;
    r->rq.conn = &r->conn;
    r->rq.pub.priv = &r->rq;
    r->rq.pub.id = "request-1";
    r->rq.pub.json = body;
    arena_init(&r->rq.pub.mem, chunks_heap(), 0);
    buf_init(&r->rq.out, &r->rq.pub.mem);
    r->port.card = (model_card){.id = "m", .n_params = 1, .max_model_len = 100};
    r->app.port = &r->port;
    r->served.port = &r->port;
    r->app.served = &r->served;
    r->rq.pub.served = &r->served;
    r->w = w;
    r->c = arena_zalloc(&r->rq.pub.mem, sizeof *r->c);
    vec_i32_init(&r->prompt.ids, &r->rq.pub.mem);
    for (int32_t i = 0; i < 7; i++) vec_i32_push(&r->prompt.ids, i);
    r->a = (answer){
        .app = &r->app,
        .rq = &r->rq.pub,
        .writer = w,
        .chat = w->chat,
        .p = {.n = 1, .n_shown = 1, .stream = stream, .max_tokens = -1, .prompt_logprobs = -1},
        .prompts = &r->prompt,
        .n_prompts = 1,
        .choices = r->c,
        .n_choices = 1,
        .created = 1700000000};
    snprintf(r->a.id, sizeof r->a.id, "%s%024d", w->id_prefix, 7);
    *r->c = (choice){.a = &r->a, .stop_index = -1, .stop_id = -1, .usage.n_cached = 4};
    choice_parts_init(r->c);
    vec_i32_init(&r->c->ids, &r->rq.pub.mem);
    logprobs_init(&r->c->lp, false, w->chat, 0, NULL, &r->rq.pub.mem);
    if (stream) ck_assert(w->open(&r->a));
}

static RIG_UNUSED void rig_text(rig *r, part_kind kind, const char *text) {
    buf_add(&choice_part(r->c, kind)->text, str_of(text));
    r->c->n_output++;
}
static RIG_UNUSED void rig_arguments(rig *r, const char *text) {
    answer_part *p = &r->c->parts[r->c->n_parts - 1];
    ck_assert(p->kind == PART_CALL && !p->closed);
    buf_add(&p->text, str_of(text));
    r->c->n_output++;
}

/* What was written since the last call, NUL-terminated; valid until the next one. */
static RIG_UNUSED const char *rig_sent(rig *r) {
    const char *all = r->rq.pub.streaming ? buf_cstr(&r->rq.out) : r->rq.payload.ptr;
    const size_t n = r->rq.pub.streaming ? r->rq.out.len : r->rq.payload.len;
    const char *from = all + r->seen;
    r->seen = n;
    return from;
}

static RIG_UNUSED void rig_end(rig *r, const char *finish) {
    r->c->finish = finish;
    choice_close_part(r->c);
    if (!r->a.p.stream) {
        r->w->whole(&r->a);
        buf whole;
        buf_init(&whole, &r->rq.pub.mem); /* with a NUL behind it */
        buf_add(&whole, r->rq.payload);
        r->rq.payload = (str){buf_cstr(&whole), whole.len};
        return;
    }
    r->w->finish(r->c);
    r->w->done(&r->a);
    ck_assert(r->rq.ended);
}

static RIG_UNUSED void rig_close(rig *r) {
    arena mem = r->rq.pub.mem;
    arena_clear(&mem);
}

static RIG_UNUSED void rig_has(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) != NULL, "no <%s> in:\n%s", part, text);
}

#endif
