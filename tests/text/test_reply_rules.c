/* Grammars of calls: random outputs that they allow are read back as calls of the tools, and what
 * is no call is not allowed. */
#include "tests/check_main.h"
#include "tests/text/reply_rig.h"
#include "text/grammar/grammar.h"
#include "text/reply/reply_rules.h"

#include "tests/json.h"
#include "tests/text/tokenizer_rig.h"

static const char tools_text[] =
    JSON([
    {"type": "function", "function": {"name": "get_n", "parameters": {"type": "object",
        "properties": {"s": {"type": "string"}, "n": {"type": "integer"},
                       "w": {"enum": ["one", "two"]}}, "required": ["s", "n"]}}},
    {"type": "function", "function": {"name": "g"}}
]);

enum { CHANNEL_ENDS = 4 }; /* <|end|> */

/* In place of JSON schemas: an object with a number, or a number. */
static status plain_schema(rules *r, const json_t *schema, rule *out, err *e) {
    (void)e;
    const json_t *type = json_object_get(schema, "type");
    const rule digits = rules_repeat(r, rules_byte_range(r, '1', '9'), 1, 3);
    const rule object[] = {rules_bytes(r, STR("{\"k\": ")), digits, rules_bytes(r, STR("}"))};
    *out = json_is_string(type) && str_eqz(json_in_text(type), "integer")
               ? digits
               : rules_seq(r, object, 3);
    return OK;
}

typedef struct rig {
    tiny file;
    tokenizer *tok;
    void *mem;
    vocab_index *index;
    arena a;
    const json_t *tools;
    reply_plan plan;
    grammar *g;
} rig;

static void rig_open(rig *x, const char *format, const char *template) {
    err e;
    memset(x, 0, sizeof *x);
    tiny_init(&x->file);
    tiny_merge(&x->file, "a b", "ab");
    x->tok = tok_open(tiny_finish(&x->file, "gpt-2"));
    x->mem = aligned_alloc(64, (vocab_index_bytes(tokenizer_n_vocab(x->tok)) + 63) / 64 * 64);
    memset(x->mem, 0, vocab_index_bytes(tokenizer_n_vocab(x->tok)));
    x->index = vocab_index_init(x->mem, x->tok, tokenizer_n_vocab(x->tok));
    arena_init(&x->a, chunks_heap(), 0);
    ck_assert_int_eq(json_in_parse(&x->tools, &x->a, str_of(tools_text), &e), OK);
    ck_assert(reply_plan_init(&x->plan, format_named(format), str_of(template), NULL, 0));
}

static void rig_demand(rig *x, const reply_demand *d) {
    rules *r = rules_new(&x->a);
    rule root = RULE_NEVER;
    err e;
    ck_assert_int_eq(reply_rules(r, &x->plan, d, &root, &e), OK);
    grammar_free(x->g);
    x->g = NULL;
    ck_assert_msg(grammar_compile(&x->g, r, root, x->index, chunks_heap(), &e) == OK, "%s",
                  e.text);
}

static void rig_compile(rig *x, bool parallel, bool thinking) {
    const reply_demand d = {.tools = x->tools,
                            .parallel = parallel,
                            .thinking = thinking,
                            .opened = strcmp(x->plan.format->name, "functionary") == 0,
                            .schema = plain_schema};
    rig_demand(x, &d);
}

/* tool_choice auto. */
static void rig_text(rig *x, bool parallel, bool thinking) {
    const reply_demand d = {.tools = x->tools,
                            .parallel = parallel,
                            .thinking = thinking,
                            .text = true,
                            .schema = plain_schema};
    rig_demand(x, &d);
}

static void rig_close(rig *x) {
    grammar_free(x->g);
    arena_clear(&x->a);
    free(x->mem);
    tokenizer_close(x->tok);
    tiny_clear(&x->file);
}

/* A random text that the grammar allows, letters and blanks where anything may be. */
static void walk(const rig *x, unsigned *seed, buf *out) {
    static const char liked[] = "abc \n\"";
    const size_t n = grammar_state_bytes(x->g);
    grammar_state *s = malloc(n), *next = malloc(n);
    grammar_start(x->g, s);
    out->len = 0;
    while (out->len < 4000) {
        char may[256];
        size_t n_may = 0, n_liked = 0;
        if (grammar_accepts_end(x->g, s) &&
            (rand_r(seed) % 3 == 0 || !grammar_can_go_on(x->g, s)))
            break;
        for (int c = 1; c < 255; c++) {
            const char b = (char)c;
            memcpy(next, s, n);
            if (!grammar_take_bytes(x->g, next, (str){&b, 1})) continue;
            may[n_may++] = b;
        }
        ck_assert_msg(n_may > 0, "a dead end behind %s", buf_cstr(out));
        /* Where all is allowed: text, or the mark that ends it. */
        char c = may[(size_t)rand_r(seed) % n_may];
        n_liked = n_may > 100;
        if (n_liked) do
                c = liked[(size_t)rand_r(seed) % (sizeof liked - 1)];
            while (!memchr(may, c, n_may));
        if (n_liked && rand_r(seed) % 4 == 0) {
            for (int m = 0; m < MARK_N; m++) {
                if (m != MARK_VALUE_END && m != MARK_THINK_END && m != MARK_QUOTE &&
                    m != CHANNEL_ENDS)
                    continue;
                const str end = x->plan.mark[m];
                memcpy(next, s, n);
                if (!end.len || !grammar_take_bytes(x->g, next, end)) continue;
                memcpy(s, next, n);
                buf_add(out, end);
                break;
            }
            continue;
        }
        ck_assert(grammar_take_bytes(x->g, s, (str){&c, 1}));
        buf_addc(out, c);
    }
    free(s);
    free(next);
}

typedef struct seen {
    buf args;
    int n_calls, n_ended;
    bool text;
} seen;

static void take(void *user, const reply_event *ev) {
    seen *t = user;
    if (ev->kind == REPLY_TEXT) t->text = true;
    if (ev->kind == REPLY_CALL) {
        t->n_calls++;
        t->args.len = 0;
        ck_assert(str_eqz(ev->text, "get_n") || str_eqz(ev->text, "g"));
    }
    if (ev->kind == REPLY_ARGS) buf_add(&t->args, ev->text);
    if (ev->kind == REPLY_CALL_END) {
        arena a;
        const json_t *v;
        err e;
        arena_init(&a, chunks_heap(), 0);
        ck_assert_msg(json_in_parse(&v, &a, buf_str(&t->args), &e) == OK, "%s",
                      buf_cstr(&t->args));
        arena_clear(&a);
        t->n_ended++;
    }
}

static void check_walks(rig *x, bool parallel, bool thinking) {
    unsigned seed = 7;
    buf out = {0};
    rig_compile(x, parallel, thinking);
    for (int i = 0; i < 40; i++) {
        walk(x, &seed, &out);
        if (out.len >= 4000) continue;
        seen t = {0};
        const bool opened = strcmp(x->plan.format->name, "functionary") == 0;
        const reply_setup set = {.tools = x->tools,
                                 .reasoning = true,
                                 .prompt = thinking ? STR("<think>\n")
                                           : opened ? STR(">>>")
                                                    : STR(""),
                                 .sink = take,
                                 .user = &t};
        reply_parser *r = reply_new(&x->a, &x->plan, &set);
        reply_push(r, buf_str(&out));
        reply_end(r);
        ck_assert_msg(t.n_calls > 0 && t.n_calls == t.n_ended && !t.text &&
                          !reply_unparsed(r) && (parallel || t.n_calls == 1),
                      "%s: %d calls, %d ended, text %d in\n%s", x->plan.format->name, t.n_calls,
                      t.n_ended, t.text, buf_cstr(&out));
        buf_clear(&t.args);
    }
    buf_clear(&out);
}

START_TEST(what_the_grammar_of_a_format_allows_is_read_as_calls) {
    rig x;
    rig_open(&x, reply_formats[_i].name, "");
    check_walks(&x, true, false);
    check_walks(&x, false, false);
    rig_close(&x);
}
END_TEST

START_TEST(reasoning_may_come_before_the_calls) {
    rig x;
    rig_open(&x, "hermes", "</think>");
    check_walks(&x, true, false);
    check_walks(&x, true, true);
    rig_close(&x);
}
END_TEST

static bool takes(const rig *x, const char *text) {
    grammar_state *s = malloc(grammar_state_bytes(x->g));
    grammar_start(x->g, s);
    const bool ok = grammar_take_bytes(x->g, s, str_of(text)) && grammar_accepts_end(x->g, s);
    free(s);
    return ok;
}

START_TEST(only_calls_of_the_tools_are_allowed) {
    rig x;
    rig_open(&x, "hermes", "");
    rig_compile(&x, false, false);
    const char *one = "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"k\": 1}}\n</tool_call>";
    ck_assert(takes(&x, one));
    char two[200];
    snprintf(two, sizeof two, "%s\n%s", one, one);
    ck_assert(!takes(&x, two));
    ck_assert(!takes(&x, "Hello"));
    ck_assert(!takes(&x, ""));
    ck_assert(
        !takes(&x, "<tool_call>\n{\"name\": \"h\", \"arguments\": {\"k\": 1}}\n</tool_call>"));
    rig_compile(&x, true, false);
    ck_assert(takes(&x, two));
    rig_close(&x);
}
END_TEST

/* Calls of both tools in the form of each format, as the parser reads them. */
static const struct {
    const char *format, *good, *bad[3];
} calls[] = {
    {"hermes",
     "Hi <tool_call>\n{\"name\": \"g\", \"arguments\": {\"k\": 1}}\n</tool_call> Bye",
     {"Hi <tool_call>\n{\"name\": \"h", "<tool_call>{\"name\": \"g\", \"arguments\": {\"x",
      "<tool_call> so"}},
    {"qwen3-coder",
     "<tool_call>\n<function=get_n>\n<parameter=s>\nx < y\n</parameter>\n<parameter=n>\n12\n"
     "</parameter>\n</function>\n</tool_call>",
     {"<tool_call>\n<function=get_m", "<tool_call>\n<function=get_n>\n<parameter=n>",
      "<tool_call>\n<function=get_n>\n<parameter=s>\nx\n</parameter>\n<parameter=n>\na"}},
    {"glm", "<tool_call>g</tool_call>", {"<tool_call>h", "<tool_call>get_n</", "<tool_call>["}},
    {"deepseek-v3.1",
     "So: <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{\"k\": "
     "1}<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜>",
     {"<｜tool▁calls▁begin｜>g", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>h",
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>["}},
    {"mistral",
     "[TOOL_CALLS][{\"name\": \"g\", \"arguments\": {\"k\": 1}}]",
     {"[TOOL_CALLS]{", "[TOOL_CALLS][{\"name\": \"h", "[TOOL_CALLS][]"}},
    {"llama",
     "{\"name\": \"g\", \"parameters\": {\"k\": 1}}",
     {"{\"name\": \"g\", \"parameters\": [", "{\"name\": \"g\", \"parameters\": {\"k\": 1}]",
      "<|python_tag|>{\"name\": \"h"}},
    {"gpt-oss",
     "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
     "to=functions.g <|constrain|>json<|message|>{\"k\": 1}",
     {"<|channel|>commentary to=functions.h", "<|channel|>commentary to=functions.g x",
      "<|channel|>commentary to=functions.g<|message|>["}},
    {"gpt-oss",
     " to=functions.g<|channel|>commentary <|constrain|>json<|message|>{\"k\": 1}",
     {" to=functions.h", " to=functions.g<|channel|>final",
      "Hi<|start|>assistant to=functions.g<|channel|>commentary<|message|>["}},
    {"gpt-oss",
     "I write to=functions.x<|start|>assistant "
     "to=functions.g<|channel|>commentary<|message|>{\"k\": 1}",
     {"<|start|>assistant to=functions.h", "<|start|>assistant to=functions.g x",
      " to=functions. "}},
    {"lfm2",
     "<|tool_call_start|>[get_n(s='a', n=-3, w=\"one\"), g()]<|tool_call_end|>",
     {"<|tool_call_start|>[get_n(n=1", "<|tool_call_start|>[get_n(s=\"a\", n=\"",
      "<|tool_call_start|>[get_n(s=\"a\", n=1, w=\"three"}},
    {"gemma4",
     "<|tool_call>call:get_n{s:<|\"|>a\nb<|\"|>,n:1,w:<|\"|>two<|\"|>}<tool_call|>",
     {"<|tool_call>call:get_n{n:1", "<|tool_call>call:get_n{s:<|\"|>a<|\"|>,n:x",
      "<|tool_call>call:g("}},
    {"functionary", "all\nHi >>>g\n{\"k\": 1}", {">>>h", ">>>g\n[", ">>>x"}},
};

static bool begins(const rig *x, const char *text) {
    grammar_state *s = malloc(grammar_state_bytes(x->g));
    grammar_start(x->g, s);
    const bool ok = grammar_take_bytes(x->g, s, str_of(text));
    free(s);
    return ok;
}

START_TEST(text_is_free_until_a_mark_and_a_call_behind_it_is_one_of_the_tools) {
    rig x;
    rig_open(&x, calls[_i].format, "");
    rig_text(&x, true, false);
    ck_assert(takes(&x, calls[_i].good));
    ck_assert(takes(&x, ""));
    ck_assert(takes(&x, "Hello <b>{\"name\": [</b>"));
    for (int k = 0; k < 3; k++)
        ck_assert_msg(!begins(&x, calls[_i].bad[k]), "%s", calls[_i].bad[k]);
    rig_close(&x);
}
END_TEST

START_TEST(one_call_ends_the_text_where_there_may_be_one) {
    rig x;
    const char *call = "Hi <tool_call>{\"name\": \"g\", \"arguments\": {\"k\": 1}}</tool_call>";
    char more[200];
    snprintf(more, sizeof more, "%s!", call);
    rig_open(&x, "hermes", "");
    rig_text(&x, true, false);
    ck_assert(takes(&x, more));
    rig_text(&x, false, false);
    ck_assert(takes(&x, call));
    ck_assert(!begins(&x, more));
    rig_close(&x);
}
END_TEST

START_TEST(a_mark_within_reasoning_is_no_call) {
    rig x;
    rig_open(&x, "hermes", "</think>");
    rig_text(&x, true, false);
    ck_assert(takes(&x, "<think>I could <tool_call> now</think> Hi"));
    ck_assert(!begins(&x, "<think>Hm</think><tool_call>no"));
    ck_assert(!begins(&x, "<tool_call>no"));
    /* Also where one call ends the answer: reasoning is none. */
    rig_text(&x, false, false);
    ck_assert(takes(&x, "<think>I could <tool_call> now</think> Hi"));
    ck_assert(takes(&x, "<think>I could <tool_call> now</think><tool_call>{\"name\": \"g\", "
                        "\"arguments\": {\"k\": 1}}</tool_call>"));
    ck_assert(!begins(&x, "<think>Hm</think><tool_call>no"));
    ck_assert(!begins(&x,
                      "<think>Hm</think><tool_call>{\"name\": \"g\", \"arguments\": {\"k\": "
                      "1}}</tool_call>!"));
    rig_text(&x, true, true);
    ck_assert(takes(&x, "I could <tool_call> now"));
    ck_assert(takes(&x, "I could <tool_call> now</think> Hi"));
    ck_assert(!begins(&x, "Hm</think><tool_call>no"));
    const reply_demand opened = {
        .tools = x.tools, .text = true, .opened = true, .schema = plain_schema};
    rig_demand(&x, &opened);
    ck_assert(takes(&x, "\n{\"name\": \"g\", \"arguments\": {\"k\": 1}}</tool_call>"));
    ck_assert(!begins(&x, "\n<think>"));
    ck_assert(!begins(&x, "Hi"));
    rig_close(&x);
}
END_TEST

static status refusing_schema(rules *r, const json_t *schema, rule *out, err *e) {
    if (json_object_size(schema) > 1) return err_set(e, ERR_UNSUPPORTED, "not enforced");
    return plain_schema(r, schema, out, e);
}

START_TEST(a_schema_that_is_refused_allows_anything_unless_its_tool_is_strict) {
    rig x;
    err e;
    rig_open(&x, "hermes", "");
    reply_demand d = {
        .tools = x.tools, .text = true, .lenient = true, .schema = refusing_schema};
    rig_demand(&x, &d);
    const char *call =
        "<tool_call>{\"name\": \"get_n\", \"arguments\": {\"k\": 1}}</tool_call>";
    ck_assert(takes(&x, call));
    d.untyped = true;
    rig_demand(&x, &d);
    ck_assert(takes(&x, call));
    ck_assert(!begins(&x, "<tool_call>{\"name\": \"h"));
    d.untyped = false;
    json_t *f = json_object_get(json_array_get(x.tools, 0), "function");
    json_object_set_new(f, "strict", json_true());
    rule out;
    ck_assert_int_eq(reply_rules(rules_new(&x.a), &x.plan, &d, &out, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "tools (parameters of get_n)");
    rig_close(&x);
}
END_TEST

int main(void) {
    Suite *s = suite_create("reply_rules");
    TCase *t = check_case(s, "reply_rules");
    tcase_add_loop_test(t, what_the_grammar_of_a_format_allows_is_read_as_calls, 0,
                        (int)reply_n_formats);
    tcase_add_test(t, reasoning_may_come_before_the_calls);
    tcase_add_test(t, only_calls_of_the_tools_are_allowed);
    tcase_add_loop_test(t, text_is_free_until_a_mark_and_a_call_behind_it_is_one_of_the_tools,
                        0, (int)(sizeof calls / sizeof *calls));
    tcase_add_test(t, one_call_ends_the_text_where_there_may_be_one);
    tcase_add_test(t, a_mark_within_reasoning_is_no_call);
    tcase_add_test(t, a_schema_that_is_refused_allows_anything_unless_its_tool_is_strict);
    return check_run(s);
}
