/* Finds the format of a template by a round trip through it. Owns nothing; at open. */
#include "text/reply/reply_derive.h"

#include "json/in.h"
#include "text/reply/reply_guess.h"
#include "text/reply/reply_in.h"

enum { SCRATCH_BYTES = 8 << 20 };

/* No type but those that all templates know how to print. */
#define TOOLS                                                                                  \
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": "    \
    "\"d\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": "     \
    "\"string\", \"description\": \"d\"}, \"days\": {\"type\": \"integer\", \"description\": " \
    "\"d\"}, \"exact\": {\"type\": \"boolean\", \"description\": \"d\"}, \"area\": "           \
    "{\"type\": \"object\", \"description\": \"d\"}}, \"required\": [\"city\"]}}}, "           \
    "{\"type\": \"function\", \"function\": {\"name\": \"add\", \"description\": \"d\", "      \
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"x\": {\"type\": \"number\", "   \
    "\"description\": \"d\"}}, \"required\": []}}}]"
/* Two calls; messages end behind the first of them where the template takes one. */
#define CALL_1                                                                                 \
    "{\"type\": \"function\", \"id\": \"abcdefgh0\", \"function\": {\"name\": "                \
    "\"get_weather\", \"arguments\": {\"city\": \"L'Aquila\\n\\\"é\\\"\", \"days\": 3, "      \
    "\"exact\": true, \"none\": null, \"area\": {\"a\": [1, {\"b\": \"c\"}]}}}}"
#define CALL_2                                                                                 \
    "{\"type\": \"function\", \"id\": \"abcdefgh1\", \"function\": {\"name\": \"add\", "       \
    "\"arguments\": {\"x\": -1.5}}}"
#define USER "{\"role\": \"user\", \"content\": \"hi\"}"

/* The content beside calls: templates differ in which they take. */
static const char *const contents[] = {"\"content\": \"\", ", "\"content\": null, ", ""};

typedef struct trip { /* what came back */
    arena *mem;
    const json_t *want; /* the calls */
    size_t n_want, n;
    bool good, text_first;
    buf args;
} trip;

/* Of a call that has ended. */
static void compare_args(trip *t) {
    const json_t *call = json_array_get(t->want, t->n), *got;
    const json_t *want = json_object_get(json_object_get(call, "function"), "arguments");
    err e;
    const status s = json_in_parse(&got, t->mem, buf_str(&t->args), &e);
    if (s != OK || !json_equal(got, want)) t->good = false;
    t->n++;
}

static void take_event(void *user, const reply_event *ev) {
    trip *t = user;
    const json_t *call = json_array_get(t->want, t->n);
    const json_t *name = json_object_get(json_object_get(call, "function"), "name");
    if (ev->kind == REPLY_TEXT && t->n == 0) t->good = false;
    if (ev->kind == REPLY_CALL) {
        t->args.len = 0;
        if (t->n >= t->n_want || !str_eq(ev->text, json_in_text(name))) t->good = false;
    }
    if (ev->kind == REPLY_ARGS) buf_add(&t->args, ev->text);
    if (ev->kind == REPLY_CALL_END && t->good) compare_args(t);
}

static void push_rendered(reply_parser *r, const reply_plan *p, str s) {
    size_t from = 0;
    for (size_t i = 0; i < s.len;) {
        uint32_t best = REPLY_MAX_SPECIAL;
        for (uint32_t k = 0; k < p->n_special; k++) {
            const str t = p->special[k].text, at = {s.ptr + i, s.len - i};
            if (str_starts(at, t) &&
                (best == REPLY_MAX_SPECIAL || t.len > p->special[best].text.len))
                best = k;
        }
        if (best == REPLY_MAX_SPECIAL) {
            i++;
            continue;
        }
        reply_push(r, (str){s.ptr + from, i - from});
        reply_push_token(r, p->special[best].id);
        from = i += p->special[best].text.len;
    }
    reply_push(r, (str){s.ptr + from, s.len - from});
}

/* Whether the plan reads the output as the calls that were written. */
static bool reads(const reply_plan *p, arena *a, const json_t *tools, const json_t *calls,
                  str prompt, str output) {
    trip t = {.mem = a, .want = calls, .n_want = json_array_size(calls), .good = true};
    buf_init(&t.args, a);
    const reply_setup set = {
        .tools = tools, .reasoning = true, .prompt = prompt, .sink = take_event, .user = &t};
    reply_parser *r = reply_new(a, p, &set);
    if (!r) return false;
    push_rendered(r, p, output);
    reply_end(r);
    return t.good && t.n == t.n_want && !reply_unparsed(r) && !reply_failed(r);
}

/* Where reasoning begins at the end of the prompt: what templates write only for the model to go
 * on from, and not in the history. */
static size_t without_reasoning(const reply_plan *p, str prompt) {
    size_t at = SIZE_MAX;
    for (size_t i = 0; p->text[MARK_THINK].len; i = at + 1) {
        const size_t next = str_find(prompt, p->text[MARK_THINK], i);
        if (next == SIZE_MAX) break;
        at = next;
    }
    return at == SIZE_MAX || prompt.len - at > 64 ? prompt.len : at;
}

/* What the template has written behind the generation prompt. False: nothing. */
static bool output_of(const reply_plan *p, str *prompt, str whole, str *output) {
    if (!str_starts(whole, *prompt)) prompt->len = without_reasoning(p, *prompt);
    if (!str_starts(whole, *prompt)) return false;
    *output = (str){whole.ptr + prompt->len, whole.len - prompt->len};
    return output->len > 0;
}

typedef struct probe {
    const json_t *tools, *calls;
    str prompt, whole;
} probe;

/* A conversation with n calls. False: the template refuses it. */
static bool render(const reply_source *src, arena *a, int n, const char *content, probe *p) {
    const json_t *user, *all;
    buf b;
    err e;
    buf_init(&b, a);
    buf_addf(&b, "[%s, {\"role\": \"assistant\", %s\"tool_calls\": [%s%s]}]", USER, content,
             CALL_1, n == 2 ? ", " CALL_2 : "");
    if (json_in_parse(&p->tools, a, STR(TOOLS), &e) != OK ||
        json_in_parse(&user, a, STR("[" USER "]"), &e) != OK ||
        json_in_parse(&all, a, buf_str(&b), &e) != OK)
        return false;
    p->calls = json_object_get(json_array_get(all, 1), "tool_calls");
    return src->render(src->user, user, p->tools, true, a, &p->prompt) &&
           src->render(src->user, all, p->tools, false, a, &p->whole);
}

static bool plan_for(reply_plan *out, const reply_format *f, const reply_source *src) {
    return reply_plan_init(out, f, src->template, src->special, src->n_special);
}

static bool proves(const reply_source *src, arena *a, const probe *pr, const reply_format *f,
                   reply_plan *out) {
    str prompt = pr->prompt, output;
    return plan_for(out, f, src) && output_of(out, &prompt, pr->whole, &output) &&
           reads(out, a, pr->tools, pr->calls, prompt, output);
}

/* Some row reads a conversation with n calls. */
static bool find(reply_plan *out, const chunks *scratch, const reply_source *src, int n,
                 const char *content) {
    arena a;
    probe p;
    bool found = false;
    arena_init(&a, scratch, SCRATCH_BYTES);
    if (render(src, &a, n, content, &p))
        for (size_t k = 0; k < reply_n_formats && !found; k++)
            found = proves(src, &a, &p, &reply_formats[k], out);
    arena_clear(&a);
    out->single = n == 1;
    return found;
}

/* What stands behind an assistant's text at its end. */
static str message_end(const reply_source *src, arena *a, const json_t *tools) {
    static const char text[] = "Some text.";
    const json_t *talk;
    str whole;
    err e;
    if (json_in_parse(&talk, a,
                      STR("[" USER ", {\"role\": \"assistant\", \"content\": \"Some text.\"}]"),
                      &e) != OK ||
        !src->render(src->user, talk, tools, false, a, &whole))
        return STR("");
    const size_t at = str_find(whole, str_of(text), 0), from = at + sizeof text - 1;
    return at == SIZE_MAX ? STR("") : (str){whole.ptr + from, whole.len - from};
}

/* A format of no row, from one rendering with n calls, and one with the first call. */
static bool guess(reply_plan *out, const chunks *scratch, const reply_source *src, int n,
                  const char *content) {
    arena a;
    probe one, all;
    bool found = false;
    arena_init(&a, scratch, SCRATCH_BYTES);
    if (plan_for(out, NULL, src) && render(src, &a, 1, content, &one) &&
        render(src, &a, n, content, &all)) {
        guess_case c = {.calls = all.calls, .end = message_end(src, &a, all.tools)};
        str prompt = one.prompt;
        found = output_of(out, &prompt, one.whole, &c.one);
        prompt = all.prompt;
        found = found && (n == 1 || output_of(out, &prompt, all.whole, &c.two));
        found = found && reply_guess(out, &a, &c) && proves(src, &a, &all, &out->own, out);
    }
    arena_clear(&a);
    out->single = n == 1;
    return found;
}

typedef bool find_fn(reply_plan *, const chunks *, const reply_source *, int n,
                     const char *content);

static bool find_by(find_fn *fn, reply_plan *out, const chunks *scratch,
                    const reply_source *src) {
    for (int n = 2; n > 0; n--)
        for (size_t i = 0; i < sizeof contents / sizeof *contents; i++)
            if (fn(out, scratch, src, n, contents[i])) return true;
    return false;
}

bool reply_derive(reply_plan *out, const chunks *scratch, const reply_source *src) {
    return find_by(find, out, scratch, src) || find_by(guess, out, scratch, src) ||
           plan_for(out, NULL, src);
}
