/* The reply parser: for each format an output and its events, the same however it is cut; what is
 * no call, or breaks off, comes back as text. */
#include "tests/check_main.h"
#include "tests/json.h"
#include "tests/text/reply_rig.h"

static const char tools_text[] = JSON([
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object",
        "properties": {"s": {"type": "string"}, "n": {"type": "integer"},
                       "b": {"type": "boolean"}, "o": {"type": "object"},
                       "e": {"$ref": "#/$defs/word"},
                       "m": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "$defs": {"word": {"enum": ["1", "two"]}}}}},
    {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}}
]);

typedef struct reply_case {
    const char *format;   /* NULL: none */
    const char *template; /* for the marks of reasoning */
    const char *special;  /* texts of special tokens, separated by blanks */
    const char *prompt;
    const char *output, *events;
    bool loose;
} reply_case;

static size_t specials_of(const char *list, reply_special *out) {
    size_t n = 0;
    for (const char *at = list; at && *at;) {
        const size_t len = strcspn(at, " ");
        out[n] = (reply_special){{at, len}, (int32_t)(1000 + n)};
        n++;
        at += len + (at[len] == ' ');
    }
    return n;
}

static uint32_t run_cut(const reply_case *c, size_t cut, bool with_tools, transcript *t) {
    reply_special special[16];
    reply_plan plan;
    const json_t *tools;
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 0);
    ck_assert_int_eq(json_in_parse(&tools, &a, str_of(tools_text), &e), OK);
    ck_assert(reply_plan_init(&plan, c->format ? format_named(c->format) : NULL,
                              str_of(c->template ? c->template : ""), special,
                              specials_of(c->special, special)));
    const reply_setup set = {.tools = with_tools ? tools : NULL,
                             .reasoning = true,
                             .loose = c->loose,
                             .prompt = str_of(c->prompt ? c->prompt : ""),
                             .sink = transcript_take,
                             .user = t};
    reply_parser *r = reply_new(&a, &plan, &set);
    ck_assert_ptr_nonnull(r);
    t->text.len = 0;
    t->last = -1;
    push_cut(r, &plan, str_of(c->output), cut);
    reply_end(r);
    ck_assert(!reply_failed(r));
    const uint32_t n = reply_unparsed(r);
    arena_clear(&a);
    return n;
}

static uint32_t check_cuts(const reply_case *c) {
    transcript t = {0};
    const uint32_t n = run_cut(c, 0, true, &t);
    ck_assert_str_eq(buf_cstr(&t.text), c->events);
    for (size_t cut = 1; cut <= strlen(c->output); cut++) {
        run_cut(c, cut == strlen(c->output) ? SIZE_MAX : cut, true, &t);
        ck_assert_msg(strcmp(buf_cstr(&t.text), c->events) == 0, "cut at %zu of %s:\n%s\n%s",
                      cut, c->output, buf_cstr(&t.text), c->events);
    }
    buf_clear(&t.text);
    return n;
}

#define DS_SPECIAL                                                                                                   \
    "<｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜> " \
    "<｜tool▁sep｜>"
#define OSS_SPECIAL                                                                            \
    "<|start|> <|channel|> <|constrain|> <|message|> <|end|> <|call|> <|return|>"

static const reply_case cases[] = {
    {.format = "hermes",
     .output =
         "I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"a\\n\\\"b\\\"\", "
         "\"n\":1}}\n</tool_call>\n<tool_call>\n{\"arguments\": {\"x\": [1, 2.5e3]}, "
         "\"name\": \"g\"}\n</tool_call>",
     .events = "T:I look.|C:f|A:{\"s\": \"a\\n\\\"b\\\"\", \"n\": 1}|E:|C:g|A:{\"x\": [1, "
               "2.5e3]}|E:"},
    {.format = "hermes",
     .special = "<tool_call> </tool_call>",
     .output = "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"</tool_call\", \"o\": "
               "{\"a\": true,}}}</tool_call>",
     .events = "C:f|A:{\"s\": \"</tool_call\", \"o\": {\"a\": true}}|E:"},
    {.format = "hermes",
     .output = "<tool_call>{\"name\": \"g\"}</tool_call> and {\"id\": 1}",
     .events = "C:g|A:{}|E:|T:and {\"id\": 1}"},
    {.format = "qwen3-coder",
     .output =
         "<tool_call>\n<function=f>\n<parameter=s>\nline 1\nline \"2\"\n</parameter>\n"
         "<parameter=n>\n12\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n"
         "<parameter=e>\n1\n</parameter>\n<parameter=m>\nnull\n</parameter>\n"
         "<parameter=o>\n{\"a\": [1]}\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n"
         "<function=g>\n</function>\n</tool_call>",
     .events =
         "C:f|A:{\"s\": \"line 1\\nline \\\"2\\\"\", \"n\": 12, \"b\": true, \"e\": \"1\", "
         "\"m\": null, \"o\": {\"a\": [1]}}|E:|C:g|A:{}|E:"},
    {.format = "qwen3-coder",
     .output = "<tool_call><function=f><parameter=m>5</parameter><parameter=n>five</parameter>"
               "<parameter=s>\n\n</parameter></function></tool_call>",
     .events = "C:f|A:{\"m\": \"5\", \"n\": \"five\", \"s\": \"\"}|E:"},
    {.format = "seed-oss",
     .output = "<seed:think>hm</seed:think>\n<seed:tool_call>\n<function=f>\n<parameter=s>x"
               "</parameter>\n</function>\n</seed:tool_call>",
     .events = "R:hm|C:f|A:{\"s\": \"x\"}|E:"},
    {.format = "glm",
     .output =
         "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>a b</arg_value>\n<arg_key>n</arg_key>"
         "\n<arg_value>3</arg_value>\n</tool_call><tool_call>g</tool_call>",
     .events = "C:f|A:{\"s\": \"a b\", \"n\": 3}|E:|C:g|A:{}|E:"},
    {.format = "minimax",
     .output =
         "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"s\">a\nb</parameter>\n"
         "<parameter name=\"o\">{\"k\": 1.0}</parameter>\n</invoke>\n<invoke name=\"g\">\n"
         "</invoke>\n</minimax:tool_call>",
     .events = "C:f|A:{\"s\": \"a\\nb\", \"o\": {\"k\": 1.0}}|E:|C:g|A:{}|E:"},
    {.format = "deepseek-v3.2",
     .special = "｜DSML｜",
     .output =
         "Hm.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"g\">\n<｜DSML｜parameter "
         "name=\"a\" string=\"true\">1</｜DSML｜parameter>\n<｜DSML｜parameter name=\"b\" "
         "string=\"false\">[1, true]</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
         "</｜DSML｜function_calls>",
     .events = "T:Hm.|C:g|A:{\"a\": \"1\", \"b\": [1, true]}|E:"},
    {.format = "deepseek-v3",
     .special = DS_SPECIAL,
     .template = "</think>",
     .prompt = "<｜Assistant｜><think>\n",
     .output =
         "First.\n</"
         "think>\n\nGo.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n"
         "```json\n{\"n\": "
         "-1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n"
         "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     .events = "R:First.|T:Go.|C:f|A:{\"n\": -1}|E:|C:g|A:{}|E:"},
    {.format = "deepseek-v3.1",
     .special = DS_SPECIAL,
     .output = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"s\": "
               "\"é\"}<｜tool▁call▁end｜>"
               "<｜tool▁calls▁end｜>",
     .events = "C:f|A:{\"s\": \"é\"}|E:"},
    {.format = "kimi-k2",
     .output = "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
               "<|tool_call_argument_begin|>{\"n\": "
               "0}<|tool_call_end|><|tool_call_begin|>functions.g:1"
               "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
     .events = "C:f#functions.f:0|A:{\"n\": 0}|E:|C:g#functions.g:1|A:{}|E:"},
    {.format = "mistral",
     .special = "[TOOL_CALLS]",
     .output =
         "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"n\": 1}, \"id\": \"abcdefghi\"}, "
         "{\"name\": \"g\", \"arguments\": {}, \"id\": \"abcdefghj\"}]",
     .events = "C:f|A:{\"n\": 1}|E:|C:g|A:{}|E:"},
    {.format = "mistral-v11",
     .special = "[TOOL_CALLS] [ARGS] [CALL_ID] [THINK] [/THINK]",
     .template = "[/THINK]",
     .output = "[THINK]a[/THINK]b[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{\"n\": "
               "1}[TOOL_CALLS]g[ARGS]{}",
     .events = "R:a|T:b|C:f#abcdefghi|A:{\"n\": 1}|E:|C:g|A:{}|E:"},
    {.format = "gpt-oss",
     .special = OSS_SPECIAL,
     .output =
         "<|channel|>analysis<|message|>Need f.<|end|><|start|>assistant<|channel|>commentary "
         "to=functions.f <|constrain|>json<|message|>{\"n\":2}<|call|>",
     .events = "R:Need f.|C:f|A:{\"n\": 2}|E:"},
    {.format = "gpt-oss",
     .special = OSS_SPECIAL,
     .output =
         " to=functions.g<|channel|>commentary json<|message|>{}<|call|><|start|>assistant"
         "<|channel|>final<|message|>Done <|end|>",
     .events = "C:g|A:{}|E:|T:Done "},
    {.format = "gpt-oss", /* cut off in a header */
     .special = OSS_SPECIAL,
     .output = "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>fin",
     .events = "R:Hm"},
    {.format = "gpt-oss", .special = OSS_SPECIAL, .output = "<|channel|>", .events = ""},
    {.format = "gemma4",
     .special = "<|tool_call> <tool_call|> <|\"|>",
     .output =
         "<|tool_call>call:f{s:<|\"|>a {b}, \"c\"<|\"|>,n:1,o:{k:[true,null]}}<tool_call|>"
         "<|tool_call>call:g{}<tool_call|>",
     .events =
         "C:f|A:{\"s\": \"a {b}, \\\"c\\\"\", \"n\": 1, \"o\": {\"k\": [true, null]}}|E:|C:g|"
         "A:{}|E:"},
    {.format = "functiongemma",
     .output = "<start_function_call>call:f{s:<escape>a<b\\n<escape>}<end_function_call>",
     .events = "C:f|A:{\"s\": \"a<b\\\\n\"}|E:"},
    {.format = "lfm2",
     .output = "<|tool_call_start|>[f(s='it\\'s \"x\"', n=1, o={'a': None, 'b': (1, 2)}), g()]"
               "<|tool_call_end|>Done",
     .events =
         "C:f|A:{\"s\": \"it's \\\"x\\\"\", \"n\": 1, \"o\": {\"a\": null, \"b\": [1, 2]}}|E:|"
         "C:g|A:{}|E:|T:Done"},
    {.format = "olmo3",
     .output = "<function_calls>f(b=True)\ng()</function_calls>",
     .events = "C:f|A:{\"b\": true}|E:|C:g|A:{}|E:"},
    {.format = "command-r",
     .output =
         "<|START_THINKING|>I will.<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": "
         "\"0\", \"tool_name\": \"f\", \"parameters\": {\"n\": 1}}\n]<|END_ACTION|>",
     .events = "R:I will.|C:f|A:{\"n\": 1}|E:"},
    {.format = "command-r",
     .output = "<|START_RESPONSE|>Hello.<|END_RESPONSE|>",
     .events = "T:Hello."},
    {.format = "granite",
     .special = "<|tool_call|>",
     .output = "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"n\": 1}}]",
     .events = "C:f|A:{\"n\": 1}|E:"},
    {.format = "phi-4-mini",
     .output = "functools[{\"name\": \"f\", \"arguments\": {\"n\": 1}}]",
     .events = "C:f|A:{\"n\": 1}|E:"},
    {.format = "jamba",
     .output = "<tool_calls>[\n{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n]</tool_calls>",
     .events = "C:f|A:{\"n\": 1}|E:"},
    {.format = "internlm",
     .special = "<|action_start|> <|plugin|> <|action_end|>",
     .output = "Hm<|action_start|><|plugin|>\n{\"name\": \"f\", \"parameters\": {\"n\": 1}}"
               "<|action_end|>",
     .events = "T:Hm|C:f|A:{\"n\": 1}|E:"},
    {.format = "functionary",
     .prompt = "assistant\n>>>",
     .output = "f\n{\"n\": 1}",
     .events = "C:f|A:{\"n\": 1}|E:"},
    {.format = "functionary",
     .prompt = "assistant\n>>>",
     .output = "all\nHi.>>>g\n{}",
     .events = "T:Hi.|C:g|A:{}|E:"},
    {.format = "llama",
     .output = "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"n\": \"1\"}}; "
               "{\"name\": "
               "\"g\", \"parameters\": null}",
     .events = "C:f|A:{\"n\": \"1\"}|E:|C:g|A:{}|E:"},
    {.format = "llama",
     .special = "<|python_tag|>",
     .output = "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}",
     .events = "C:f|A:{}|E:"},
    {.format = "pythonic",
     .output = "[f(n=1.5, s=\"[x](y)\"), g()]",
     .events = "C:f|A:{\"n\": 1.5, \"s\": \"[x](y)\"}|E:|C:g|A:{}|E:"},
    {.format = "hermes",
     .loose = true,
     .output =
         "{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n{\"name\": \"g\", \"arguments\": {}}",
     .events = "C:f|A:{\"n\": 1}|E:|C:g|A:{}|E:"},
    {.format = "hermes",
     .loose = true,
     .output = "{\"name\": \"Ann\", \"arguments\": {}}",
     .events = "T:{\"name\": \"Ann\", \"arguments\": {}}"},
    {.format = "hermes",
     .output = "{\"name\": \"f\", \"arguments\": {}}",
     .events = "T:{\"name\": \"f\", \"arguments\": {}}"},
    {.template = "</think>",
     .output = "\n<think>\n\nLet me see.\n1 < 2\n</think>\n\nYes, <think> is a tag.\n",
     .events = "R:Let me see.\n1 < 2|T:Yes, <think> is a tag.\n"},
    {.template = "</think>", .output = "<think>\n\n</think>\n\nHi", .events = "T:Hi"},
    {.template = "</think>",
     .prompt = "<think>\n\n</think>\n\n",
     .output = "\nHi",
     .events = "T:Hi"},
    {.template = "</think>", .output = "  plain\n\n", .events = "T:  plain\n\n"},
    {.template = "</think>", .prompt = "<think>\n", .output = "cut off", .events = "R:cut off"},
};

START_TEST(each_format_gives_the_same_events_however_it_is_cut) {
    ck_assert_uint_eq(check_cuts(&cases[_i]), 0);
}
END_TEST

START_TEST(each_format_has_a_case) {
    for (size_t k = 0; k < reply_n_formats; k++) {
        bool some = false;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            some |= cases[i].format && strcmp(cases[i].format, reply_formats[k].name) == 0;
        ck_assert_msg(some, "%s has none", reply_formats[k].name);
    }
}
END_TEST

/* What is no call. n: marks that no valid call followed. */
static const struct {
    reply_case c;
    uint32_t n;
} broken[] = {
    {{.format = "hermes", .output = "<tool_call> is a tag", .events = "T:<tool_call> is a tag"},
     1},
    {{.format = "hermes", .output = "a \n<tool_cal", .events = "T:a \n<tool_cal"}, 0},
    {{.format = "hermes",
      .output = "x\n <tool_call>{\"nome\": \"f\"}</tool_call>\n",
      .events = "T:x\n <tool_call>{\"nome\": \"f\"}</tool_call>\n"},
     1},
    {{.format = "hermes",
      .output = "<tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
      .events = "T:<tool_call>|C:f|A:{}|E:"},
     1},
    {{.format = "hermes",
      .output =
          "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1, \"b\": oops}}</tool_call>",
      .events = "C:f|A:{\"a\": 1, \"b\": |E:|T:oops}}</tool_call>"},
     1},
    {{.format = "hermes",
      .output = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"half",
      .events = "C:f|A:{\"a\": \"half|E:"},
     0},
    {{.format = "hermes",
      .output = "<tool_call>{\"name\": \"f\", \"arguments\": {}} and more",
      .events = "C:f|A:{}|E:|T:and more"},
     0},
    {{.format = "hermes",
      .special = "<tool_call> </tool_call>",
      .output = "a </tool_call> b",
      .events = "T:a </tool_call> b"},
     0},
    {{.format = "qwen3-coder",
      .output = "<tool_call><function=f> no",
      .events = "T:<tool_call><function=f> no"},
     1},
    {{.format = "qwen3-coder",
      .output = "<tool_call><function=f><parameter=s>a</parameter>b",
      .events = "C:f|A:{\"s\": \"a\"|E:|T:b"},
     1},
    {{.format = "qwen3-coder",
      .output = "<tool_call><function=f><parameter=s>a</para",
      .events = "C:f|A:{\"s\": \"a</para|E:"},
     0},
    {{.format = "llama",
      .output = "{\"answer\": [1, {}]}",
      .events = "T:{\"answer\": [1, {}]}"},
     0},
    {{.format = "llama",
      .output = "{\"name\": \"Ann\", \"parameters\": {}}",
      .events = "T:{\"name\": \"Ann\", \"parameters\": {}}"},
     0},
    {{.format = "llama",
      .output = "{\"name\": \"f\", \"age\": 3}",
      .events = "T:{\"name\": \"f\", \"age\": 3}"},
     0},
    {{.format = "pythonic", .output = "[1, 2]", .events = "T:[1, 2]"}, 0},
    {{.format = "pythonic", .output = "[link](x) f(n=1)", .events = "T:[link](x) f(n=1)"}, 0},
    {{.format = "lfm2",
      .output = "<|tool_call_start|>[f(n=x)]<|tool_call_end|>",
      .events = "C:f|A:{\"n\": |E:|T:x)]<|tool_call_end|>"},
     1},
    {{.format = "gpt-oss", .special = OSS_SPECIAL, .output = "Hello", .events = "T:Hello"}, 1},
    {{.format = "mistral",
      .special = "[TOOL_CALLS]",
      .output = "[TOOL_CALLS]nothing",
      .events = "T:[TOOL_CALLS]nothing"},
     1},
    {{.format = "gemma4",
      .special = "<|tool_call> <tool_call|> <|\"|>",
      .output = "<|tool_call>call:f{s:<|\"|>a<tool_call|>",
      .events = "C:f|A:{\"s\": \"a|E:|T:<tool_call|>"},
     1},
};

START_TEST(broken_output_comes_back_as_text) {
    ck_assert_uint_eq(check_cuts(&broken[_i].c), broken[_i].n);
}
END_TEST

START_TEST(without_tools_calls_are_text) {
    transcript t = {0};
    const reply_case c = {.format = "hermes",
                          .output = "a\n<tool_call>{\"name\": \"f\", \"arguments\": {}}"};
    run_cut(&c, SIZE_MAX, false, &t);
    ck_assert_str_eq(buf_cstr(&t.text), "T:a\n<tool_call>{\"name\": \"f\", \"arguments\": {}}");
    buf_clear(&t.text);
}
END_TEST

START_TEST(a_mark_that_is_a_token_is_not_matched_as_text) {
    reply_plan p;
    arena a;
    transcript t = {.last = -1};
    const reply_special special = {STR("<tool_call>"), 7};
    json_t *tools = json_array();
    arena_init(&a, chunks_heap(), 0);
    ck_assert(reply_plan_init(&p, format_named("hermes"), STR(""), &special, 1));
    const reply_setup set = {.tools = tools, .sink = transcript_take, .user = &t};
    reply_parser *r = reply_new(&a, &p, &set);
    reply_push(r, STR("<tool_call>{\"name\": \"f\", \"arguments\": {}}"));
    ck_assert(!reply_push_token(r, 8));
    ck_assert_uint_eq(reply_held(r), 0);
    ck_assert(reply_push_token(r, 7));
    reply_push(r, STR("{\"name\": \"f\", \"arguments\": {}}"));
    reply_end(r);
    ck_assert_str_eq(buf_cstr(&t.text),
                     "T:<tool_call>{\"name\": \"f\", \"arguments\": {}}|C:f|A:{}|E:");
    arena_clear(&a);
    json_decref(tools);
    buf_clear(&t.text);
}
END_TEST

/* Only what may begin a mark is kept back. */
START_TEST(text_leaves_at_once) {
    reply_plan p;
    arena a;
    transcript t = {.last = -1};
    json_t *tools = json_array();
    arena_init(&a, chunks_heap(), 0);
    ck_assert(reply_plan_init(&p, format_named("hermes"), STR("</think>"), NULL, 0));
    const reply_setup set = {
        .tools = tools, .reasoning = true, .sink = transcript_take, .user = &t};
    reply_parser *r = reply_new(&a, &p, &set);
    reply_push(r, STR("word"));
    ck_assert_uint_eq(reply_held(r), 0);
    reply_push(r, STR(" a < b"));
    ck_assert_uint_eq(reply_held(r), 0);
    reply_push(r, STR(" <tool"));
    ck_assert_uint_eq(reply_held(r), 6);
    reply_push(r, STR("box>"));
    ck_assert_uint_eq(reply_held(r), 0);
    reply_push(r, STR("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b"));
    ck_assert_uint_eq(reply_held(r), 0);
    ck_assert_str_eq(buf_cstr(&t.text), "T:word a < b <toolbox>|C:f|A:{\"a\": \"b");
    arena_clear(&a);
    json_decref(tools);
    buf_clear(&t.text);
}
END_TEST

/* Memory that runs out at any place is reported. */
START_TEST(no_memory_is_reported) {
    const reply_case *c = &cases[0];
    for (size_t limit = 1 << 10; limit < 1 << 16; limit += 1 << 10) {
        reply_plan p;
        arena a;
        transcript t = {.last = -1};
        arena_init(&a, chunks_heap(), limit);
        if (reply_plan_init(&p, format_named(c->format), STR(""), NULL, 0)) {
            const reply_setup set = {.sink = transcript_take, .user = &t};
            reply_parser *r = reply_new(&a, &p, &set);
            if (r) {
                for (int i = 0; i < 50; i++) reply_push(r, str_of(c->output));
                reply_end(r);
                ck_assert(reply_failed(r) || t.text.len > 50 * 100);
            }
        }
        buf_clear(&t.text);
        arena_clear(&a);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("reply");
    TCase *t = check_case(s, "reply");
    tcase_add_loop_test(t, each_format_gives_the_same_events_however_it_is_cut, 0,
                        sizeof cases / sizeof *cases);
    tcase_add_test(t, each_format_has_a_case);
    tcase_add_loop_test(t, broken_output_comes_back_as_text, 0, sizeof broken / sizeof *broken);
    tcase_add_test(t, without_tools_calls_are_text);
    tcase_add_test(t, a_mark_that_is_a_token_is_not_matched_as_text);
    tcase_add_test(t, text_leaves_at_once);
    tcase_add_test(t, no_memory_is_reported);
    return check_run(s);
}
