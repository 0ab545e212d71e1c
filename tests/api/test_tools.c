/* Tools and reasoning at the endpoint: what is read of a request, and what becomes of an output
 * that a machine says. The machine says one byte a token. */
#include "tests/api/fake_one.h"

#include "api/tools.h"

#define TEMPLATE                                                                               \
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ "      \
    "m.role "                                                                                  \
    "}}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif "  \
    "%}{{ m.content or '' }}{% for c in m.tool_calls or [] %}\n<tool_call>\n{\"name\": \"{{ "  \
    "c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson "                   \
    "}}}\n</tool_call>{% "                                                                     \
    "endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "                            \
    "%}<|im_start|>assistant\n{% "                                                             \
    "endif %}"
#define SAYS                                                                                   \
    "<think>\nHm, END?\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": "   \
    "{\"x\": \"END\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": "          \
    "{}}\n</tool_call>"
#define TOOLS                                                                                  \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":" \
    "\"object\"}}},{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"
#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]"

static void with_calls(void) {
    start_as(TEMPLATE, SAYS);
}

static char *ask(const char *more) {
    char body[2048];
    snprintf(body, sizeof body, "{" ASK "%s%s}", *more ? "," : "", more);
    reply r = fake_post(&f, "/v1/chat/completions", body);
    char *text = strdup(r.body);
    reply_free(&r);
    return text;
}

static void has(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) != NULL, "no <%s> in:\n%s", part, text);
}
static void has_not(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) == NULL, "<%s> in:\n%s", part, text);
}

START_TEST(calls_and_reasoning_are_members_of_the_message) {
    char *r = ask(TOOLS);
    has(r, "\"content\":\"I look.\"");
    has(r, "\"reasoning_content\":\"Hm, END?\",\"reasoning\":\"Hm, END?\"");
    has(r, "\"tool_calls\":[{\"id\":\"call_");
    has(r, "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\": "
           "\\\"END\\\"}\"}}");
    has(r, "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]");
    has(r, "\"finish_reason\":\"tool_calls\"");
    has(r, "\"completion_tokens_details\":{\"reasoning_tokens\":");
    free(r);
}
END_TEST

START_TEST(stop_strings_do_not_apply_to_reasoning_and_calls) {
    char *r = ask(TOOLS ",\"stop\":\"END\"");
    has(r, "\"reasoning_content\":\"Hm, END?\"");
    has(r, "\\\"END\\\"");
    has(r, "\"finish_reason\":\"tool_calls\"");
    free(r);
    r = ask(TOOLS ",\"stop\":\"look\"");
    has(r, "\"content\":\"I \"");
    has_not(r, "tool_calls");
    has(r, "\"finish_reason\":\"stop\"");
    free(r);
}
END_TEST

START_TEST(without_tools_or_with_none_of_them_calls_are_text) {
    static const char *const more[] = {"", TOOLS ",\"tool_choice\":\"none\""};
    for (int i = 0; i < 2; i++) {
        char *r = ask(more[i]);
        has(r, "\"content\":\"I look.\\n<tool_call>\\n{");
        has(r, "\"reasoning_content\":\"Hm, END?\"");
        has(r, "\"finish_reason\":\"stop\"");
        has_not(r, "tool_calls\":");
        free(r);
    }
}
END_TEST

START_TEST(reasoning_can_stay_in_the_text_or_be_left_out) {
    char *r = ask("\"reasoning_format\":\"none\"");
    has(r, "\"content\":\"<think>\\nHm, END?\\n</think>\\n\\nI look.");
    has_not(r, "reasoning_content");
    has_not(r, "\"reasoning\":");
    free(r);
    r = ask("\"include_reasoning\":false");
    has(r, "\"content\":\"I look.");
    has_not(r, "Hm");
    free(r);
}
END_TEST

START_TEST(one_call_ends_the_answer_where_several_are_not_allowed) {
    char *r = ask(TOOLS ",\"parallel_tool_calls\":false");
    has(r, "\"name\":\"f\"");
    has_not(r, "\"name\":\"g\"");
    has(r, "\"finish_reason\":\"tool_calls\"");
    free(r);
}
END_TEST

START_TEST(a_call_that_breaks_off_is_sent_as_far_as_it_came) {
    char *r = ask(TOOLS ",\"max_tokens\":90");
    has(r, "\"arguments\":\"{\\\"x\\\": ");
    has(r, "\"finish_reason\":\"length\"");
    free(r);
}
END_TEST

/* The values of a member in the events of a stream, joined. */
static char *joined(const char *stream, const char *member) {
    char *out = calloc(1, strlen(stream) + 1);
    const size_t n = strlen(member);
    for (const char *at = stream; (at = strstr(at, member));) {
        const char *end = at += n;
        while (*end && *end != '"') end += *end == '\\' ? 2 : 1;
        strncat(out, at, (size_t)(end - at));
    }
    return out;
}

START_TEST(a_stream_has_the_same_in_deltas) {
    char *r = ask(TOOLS ",\"stream\":true");
    static const struct {
        const char *member, *text;
    } t[] = {{"\"reasoning_content\":\"", "Hm, END?"},
             {"\"content\":\"", "I look."},
             {"\"arguments\":\"", "{\\\"x\\\": \\\"END\\\"}{}"},
             {"\"name\":\"", "fg"},
             {"\"finish_reason\":\"", "tool_calls"}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char *s = joined(r, t[i].member);
        ck_assert_str_eq(s, t[i].text);
        free(s);
    }
    has(r, "{\"tool_calls\":[{\"index\":0,\"id\":\"call_");
    has(r, "{\"tool_calls\":[{\"index\":1,\"id\":\"call_");
    free(r);
}
END_TEST

START_TEST(ids_of_calls_differ_and_have_24_characters) {
    char *r = ask(TOOLS ",\"n\":2");
    char *id[4], *at = r;
    for (int i = 0; i < 4; i++) {
        at = strstr(at, "\"id\":\"call_");
        ck_assert_ptr_nonnull(at);
        id[i] = at += strlen("\"id\":\"");
        ck_assert_uint_eq(strcspn(id[i], "\""), 5 + 24);
        for (int k = 0; k < i; k++) ck_assert(strncmp(id[i], id[k], 29) != 0);
    }
    free(r);
}
END_TEST

START_TEST(a_template_without_calls_takes_no_tools) {
    fake_init(&f);
    f.chat_template =
        "{{ messages[0].content }}{{ tools }}{% if messages[0].tool_calls %}?{% endif %}";
    fake_start(&f);
    char *r = ask(TOOLS);
    has(r, "this model's template has no tool format that could be verified");
    has(r, "\"param\":\"tools\"");
    free(r);
    fake_stop(&f);
}
END_TEST

START_TEST(marks_that_no_call_followed_are_counted) {
    fake_init(&f);
    f.chat_template = TEMPLATE;
    f.says = "The tag <tool_call> begins a call.";
    fake_start(&f);
    char *r = ask(TOOLS);
    has(r, "\"content\":\"The tag <tool_call> begins a call.\"");
    has(r, "\"finish_reason\":\"stop\"");
    free(r);
    reply m = fake_get(&f, "/metrics");
    has(m.body, "\nvramd_reply_unparsed_total{");
    has(strstr(m.body, "\nvramd_reply_unparsed_total{"), "} 1\n");
    reply_free(&m);
    fake_stop(&f);
}
END_TEST

/* ---- what a request says of tools ---- */

static status read_tools(tool_params *p, const char *body, arena *a, err *e) {
    const json_t *v;
    ck_assert_int_eq(json_in_parse(&v, a, str_of(body), e), OK);
    return tools_read(p, v, a, e);
}

START_TEST(a_choice_narrows_the_tools) {
    static const struct {
        const char *choice;
        tools_mode mode;
        size_t n;
        bool parallel;
    } t[] = {{"", TOOLS_AUTO, 2, true},
             {",\"tool_choice\":null", TOOLS_AUTO, 2, true},
             {",\"tool_choice\":\"none\"", TOOLS_OFF, 2, true},
             {",\"tool_choice\":\"auto\",\"parallel_tool_calls\":false", TOOLS_AUTO, 2, false},
             {",\"tool_choice\":\"required\"", TOOLS_REQUIRED, 2, true},
             {",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}",
              TOOLS_REQUIRED, 1, false},
             {",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":"
              "\"required\","
              "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]}}",
              TOOLS_REQUIRED, 1, true}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char body[1024];
        tool_params p;
        arena a;
        err e;
        arena_init(&a, chunks_heap(), 0);
        snprintf(body, sizeof body, "{" TOOLS "%s}", t[i].choice);
        ck_assert_int_eq(read_tools(&p, body, &a, &e), OK);
        ck_assert_int_eq(p.mode, t[i].mode);
        ck_assert_uint_eq(json_array_size(p.list), t[i].n);
        ck_assert_int_eq(p.parallel, t[i].parallel);
        arena_clear(&a);
    }
}
END_TEST

START_TEST(tools_that_cannot_be_are_refused_by_name) {
    static const struct {
        const char *body, *field;
    } t[] = {
        {"{\"tools\":1}", "tools"},
        {"{\"tools\":[1]}", "tools[0]"},
        {"{\"tools\":[{\"type\":\"web_search\"}]}", "tools[0].type"},
        {"{\"tools\":[{\"type\":\"function\"}]}", "tools[0].function"},
        {"{\"tools\":[{\"function\":{\"name\":\"a b\"}}]}", "tools[0].function.name"},
        {"{\"tools\":[{\"function\":{\"name\":\"\"}}]}", "tools[0].function.name"},
        {"{\"tools\":[{\"function\":{\"name\":\"a\"}},{\"function\":{\"name\":\"a\"}}]}",
         "tools[1].function.name"},
        {"{\"tools\":[{\"function\":{\"name\":\"a\",\"parameters\":7}}]}",
         "tools[0].function.parameters"},
        {"{\"tool_choice\":\"required\"}", "tool_choice"},
        {"{" TOOLS ",\"tool_choice\":\"sometimes\"}", "tool_choice"},
        {"{" TOOLS ",\"tool_choice\":7}", "tool_choice"},
        {"{" TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"h\"}}}",
         "tool_choice"},
        {"{" TOOLS ",\"tool_choice\":{\"type\":\"function\"}}", "tool_choice"},
        {"{" TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"tools\":[]}}",
         "tool_choice"},
        {"{" TOOLS ",\"parallel_tool_calls\":1}", "parallel_tool_calls"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        tool_params p;
        arena a;
        err e;
        arena_init(&a, chunks_heap(), 0);
        ck_assert_msg(read_tools(&p, t[i].body, &a, &e) == ERR_INVALID, "%s", t[i].body);
        ck_assert_str_eq(e.field, t[i].field);
        arena_clear(&a);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("tools");
    TCase *c = check_case(s, "server"), *plain = check_case(s, "params");
    tcase_add_checked_fixture(c, with_calls, stop);
    tcase_add_test(c, calls_and_reasoning_are_members_of_the_message);
    tcase_add_test(c, stop_strings_do_not_apply_to_reasoning_and_calls);
    tcase_add_test(c, without_tools_or_with_none_of_them_calls_are_text);
    tcase_add_test(c, reasoning_can_stay_in_the_text_or_be_left_out);
    tcase_add_test(c, one_call_ends_the_answer_where_several_are_not_allowed);
    tcase_add_test(c, a_call_that_breaks_off_is_sent_as_far_as_it_came);
    tcase_add_test(c, a_stream_has_the_same_in_deltas);
    tcase_add_test(c, ids_of_calls_differ_and_have_24_characters);
    tcase_add_test(plain, a_template_without_calls_takes_no_tools);
    tcase_add_test(plain, marks_that_no_call_followed_are_counted);
    tcase_add_test(plain, a_choice_narrows_the_tools);
    tcase_add_test(plain, tools_that_cannot_be_are_refused_by_name);
    return check_run(s);
}
