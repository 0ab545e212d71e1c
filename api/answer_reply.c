/* From the events of the reply parser to the parts of a choice. Owns nothing; loop thread. */
#include "api/answer_reply.h"

#include <stdio.h>

#include "base/hash.h"
#include "json/out.h"
#include "text/reply/reply_rules.h"
#include "text/grammar/schema.h"

/* ---- the plan of a template ---- */

const reply_plan *reply_plan_of(served *of, const chat_template *t, arena *mem) {
    const chat_templates *all = of->port->chat;
    const int k = t == &all->chat ? 0 : t == &all->tool_use ? 1 : -1;
    reply_plan *p = k < 0 ? arena_alloc(mem, sizeof *p) : &of->replies[k];
    if (!p || (k >= 0 && of->reply_known[k])) return p;
    if (!reply_plan_of_template(p, t, of->port->tok, mem->src)) return NULL;
    if (k >= 0) of->reply_known[k] = true;
    return p;
}

/* ---- what calls may be ---- */

typedef struct tool_form {
    const reply_plan *plan;
    reply_demand demand;
    constraint instead; /* build NULL: only calls, or text with calls */
    constraint weaker;
} tool_form;

static status any_schema(rules *r, const json_t *schema, rule *out, err *e) {
    static const schema_options plain = {0};
    return rules_json_schema(r, schema, &plain, out, e);
}

static status build_calls(const constraint *c, rules *r, rule *out, err *e) {
    const tool_form *f = c->own;
    reply_demand d = f->demand;
    if (f->instead.build && f->instead.build(&f->instead, r, &d.instead, e) != OK)
        return e->field[0] ? e->code : err_field(e, "%s", f->instead.field);
    return reply_rules(r, f->plan, &d, out, e);
}

/* What is left of a grammar that is too large: text in which nothing is constrained. */
static status build_text(const constraint *c, rules *r, rule *out, err *e) {
    (void)c, (void)e;
    *out = rules_triggered(r, NULL, 0, 0);
    return OK;
}

static bool has_strict(const json_t *tools) {
    size_t i;
    const json_t *t;
    json_array_foreach(tools, i, t) {
        if (json_is_true(json_object_get(json_object_get(t, "function"), "strict")))
            return true;
    }
    return false;
}

/* The output is constrained to calls where they are required; else to text, or the form that the
 * request demands of it, in which what follows the mark of a call is a call. */
static status constrain_calls(answer *a, err *e) {
    const reply_plan *p = a->reply_plan;
    const tool_params *t = &a->p.tools;
    const bool needed = t->mode == TOOLS_REQUIRED;
    const reply_setup probe = {.tools = t->list, .reasoning = true, .prompt = a->reply_prompt};
    reply_parser *r = reply_new(&a->rq->mem, p, &probe);
    tool_form *f = arena_zalloc(&a->rq->mem, 2 * sizeof *f);
    buf key;
    /* The form of the text: where calls are required there is none. */
    if (needed && a->p.form.build &&
        str_starts(str_of(a->p.form.field), STR("response_format")))
        a->p.form = (constraint){0};
    if (a->p.form.build && needed) {
        err_set(e, ERR_INVALID, "tool_choice and %s exclude each other", a->p.form.field);
        return err_field(e, "tool_choice");
    }
    if (!r || !f) return err_set(e, ERR_NO_MEMORY, "no memory for tools");
    *f = (tool_form){.plan = p,
                     .instead = a->p.form,
                     .demand = {.tools = t->list,
                                .parallel = t->parallel,
                                .thinking = reply_in_reasoning(r),
                                .opened = reply_is_prompted(r),
                                .text = !needed && !a->p.form.build,
                                .lenient = !needed,
                                .schema = any_schema}};
    buf_init(&key, &a->rq->mem);
    buf_addf(&key, "t%s%d%d%d%d%d", p->format->name, f->demand.parallel, f->demand.thinking,
             f->demand.opened, f->demand.text, f->demand.lenient);
    buf_add(&key, (str){p->bytes, p->n_bytes}); /* formats that are derived have one name */
    json_value(&key, t->list);
    if (a->p.form.build) buf_add(&key, a->p.form.key);
    if (key.failed) return err_set(e, ERR_NO_MEMORY, "no memory for tools");
    a->p.form =
        (constraint){.build = build_calls, .key = buf_str(&key), .field = "tools", .own = f};
    if (needed || has_strict(t->list)) return OK;
    /* Schemas that are too large for a grammar do not keep a model from calling tools: then
     * only names are constrained, and where those are too many or no mark stands before a call
     * nothing is, as wherever calls are found in free text. */
    f[1] = f[0];
    f[1].demand.untyped = true;
    f->weaker = (constraint){.build = build_calls, .field = "tools", .own = &f[1]};
    a->p.form.weaker = &f->weaker;
    f[1].weaker = (constraint){.build = build_text, .field = "tools"};
    if (f->demand.text) f->weaker.weaker = &f[1].weaker;
    return OK;
}

/* ---- a limit on reasoning ---- */

static status limit_reasoning(answer *a, err *e) {
    const reply_plan *p = a->reply_plan;
    const bool channels = p->format && p->format->shape == SHAPE_CHANNELS;
    const str text = p->text[MARK_THINK_END];
    if (a->p.think_budget < 0 || !(channels || text.len)) return OK;
    const reply_setup probe = {.reasoning = true, .prompt = a->reply_prompt};
    reply_parser *r = reply_new(&a->rq->mem, p, &probe);
    think_limit *l = arena_alloc(&a->rq->mem, sizeof *l);
    vec_i32 ids;
    buf b;
    buf_init(&b, &a->rq->mem);
    vec_i32_init(&ids, &a->rq->mem);
    if (channels)
        buf_add(&b, STR("<|end|><|start|>assistant<|channel|>final<|message|>"));
    else
        buf_addf(&b, "\n" STR_FMT "\n\n", STR_ARG(text));
    if (!r || !l || b.failed) return err_set(e, ERR_NO_MEMORY, "no memory for the request");
    status s =
        tokenizer_encode(a->rq->served->port->tok, buf_str(&b), TOK_PARSE_SPECIAL, &ids, e);
    if (s != OK || ids.n == 0) return s;
    *l = (think_limit){.begin = channels ? STR("analysis<|message|>") : p->text[MARK_THINK],
                       .end = channels ? STR("<|end|>") : text,
                       .open = reply_in_reasoning(r),
                       .most = (uint32_t)a->p.think_budget,
                       .forced = ids.v,
                       .n_forced = (uint32_t)ids.n};
    a->think = l;
    return OK;
}

status answer_reads(answer *a, const chat_template *t, str prompt, err *e) {
    const reply_plan *p = reply_plan_of(a->rq->served, t, &a->rq->mem);
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
    status s = limit_reasoning(a, e);
    return s == OK && calls ? constrain_calls(a, e) : s;
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
