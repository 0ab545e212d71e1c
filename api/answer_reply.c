/* From the events of the reply parser to the parts of a choice. Owns nothing; loop thread. */
#include "api/answer_reply.h"

#include <stdio.h>

#include "base/hash.h"

/* ---- the plan of a template ---- */

const reply_plan *reply_plan_of(app *app, const chat_template *t, arena *mem) {
    const chat_templates *all = app->port->chat;
    const int k = t == &all->chat ? 0 : t == &all->tool_use ? 1 : -1;
    reply_plan *p = k < 0 ? arena_alloc(mem, sizeof *p) : &app->replies[k];
    if (!p || (k >= 0 && app->reply_known[k])) return p;
    if (!reply_plan_of_template(p, t, app->port->tok, mem->src)) return NULL;
    if (k >= 0) app->reply_known[k] = true;
    return p;
}

status answer_reads(answer *a, const chat_template *t, str prompt, err *e) {
    const reply_plan *p = reply_plan_of(a->app, t, &a->rq->mem);
    if (!p) return err_set(e, ERR_NO_MEMORY, "no memory for the format of calls");
    const bool calls = a->p.tools.mode != TOOLS_OFF;
    if (calls && !p->format) {
        err_set(e, ERR_UNSUPPORTED,
                "this model's template has no tool format that could be verified");
        return err_field(e, "tools");
    }
    const bool thinks =
        p->mark[MARK_THINK_END].len || (p->format && p->format->shape == SHAPE_CHANNELS);
    if (!calls && !(thinks && a->p.split_reasoning)) return OK;
    a->reply_plan = p;
    a->reply_prompt = prompt;
    return OK;
}

/* ---- events ---- */

/* The id of a call: from the answer's and the call's place, so that none repeats. */
static str call_id(choice *c) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const reply_format *f = c->a->reply_plan->format;
    const bool nine = f && f->ids == IDS_NINE;
    char id[32] = "call_";
    size_t at = nine ? 0 : 5;
    uint64_t h = hash64(c->a->id, strlen(c->a->id), ((uint64_t)c->index << 32) | c->n_calls);
    for (size_t n = nine ? 9 : 24; n > 0; n--) {
        id[at++] = letters[h % 36];
        h = hash_mix(h + n);
    }
    return arena_str(&c->a->rq->mem, (str){id, at});
}

static void take_call(choice *c, const reply_event *ev) {
    arena *mem = &c->a->rq->mem;
    const str name = arena_str(mem, ev->text);
    const str id = ev->id.len ? arena_str(mem, ev->id) : call_id(c);
    if (!name.ptr || !id.ptr)
        choice_part(c, PART_TEXT)->text.failed = true;
    else
        choice_call(c, id, name);
}

static void take(void *user, const reply_event *ev) {
    choice *c = user;
    if (c->complete) return;
    if (ev->kind != REPLY_TEXT) choice_flush_text(c);
    switch (ev->kind) {
    case REPLY_TEXT: c->complete = choice_take_text(c, ev->text); break;
    case REPLY_REASONING:
        if (c->a->p.include_reasoning) buf_add(&choice_part(c, PART_REASONING)->text, ev->text);
        break;
    case REPLY_CALL: take_call(c, ev); break;
    case REPLY_ARGS: buf_add(&c->parts[c->n_parts - 1].text, ev->text); break;
    case REPLY_CALL_END:
        choice_close_part(c);
        c->complete = !c->a->p.tools.parallel;
        break;
    }
}

bool choice_reads(choice *c) {
    answer *a = c->a;
    if (!a->reply_plan) return true;
    const reply_setup set = {.tools = a->p.tools.mode == TOOLS_OFF ? NULL : a->p.tools.list,
                             .reasoning = a->p.split_reasoning,
                             .loose = true,
                             .prompt = a->reply_prompt,
                             .sink = take,
                             .user = c};
    c->reply = reply_new(&a->rq->mem, a->reply_plan, &set);
    return c->reply != NULL;
}

static bool after(choice *c) {
    logprobs_release(&c->lp, c->shown_bytes, c->stop.held == 0);
    if (reply_failed(c->reply)) choice_part(c, PART_TEXT)->text.failed = true;
    return c->complete;
}

bool choice_read(choice *c, int32_t token) {
    const bool thought = reply_in_reasoning(c->reply);
    buf *piece = &c->a->piece;
    piece->len = 0;
    if (reply_has_token(c->reply, token)) {
        detok_finish(&c->detok, piece); /* what the mark cuts off */
        reply_push(c->reply, buf_str(piece));
        reply_push_token(c->reply, token);
    } else {
        detok_push(&c->detok, token, piece);
        reply_push(c->reply, buf_str(piece));
    }
    if (thought && reply_in_reasoning(c->reply)) c->n_reasoning++;
    return after(c);
}

bool choice_read_end(choice *c) {
    reply_push(c->reply, buf_str(&c->a->piece));
    if (!c->complete) reply_end(c->reply);
    c->a->app->n_unparsed += reply_unparsed(c->reply);
    return after(c);
}
