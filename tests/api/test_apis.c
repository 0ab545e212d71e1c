/* /v1/responses and /v1/messages over real sockets: answers, streams, counts, refusals. */
#include "tests/api/fake_one.h"

/* The number behind a member's name in the text. */
static int number(const char *text, const char *name) {
    const char *at = strstr(text, name);
    ck_assert_msg(at != NULL, "no %s in %s", name, text);
    return atoi(at + strlen(name));
}

START_TEST(a_response_whole_and_as_a_stream) {
    start();
    EXPECT("/v1/responses", JSON({"input":"Hi","max_output_tokens":5}), 200, "{\"id\":\"resp_",
                                 "\"status\":\"incomplete\"", "\"text\":\"Hello\"",
                                 "\"max_output_tokens\":5", "\"output_tokens\":5");
    EXPECT("/responses", JSON({"input":[{"role":"user","content":"Hi"}]}), 200,
                              "\"status\":\"completed\"", "\"text\":\"Hello, world\"");
    reply r = fake_post(&f, "/v1/responses", JSON({"input":"Hi","stream":true}));
    ck_assert_int_eq(r.status, 200);
    assert_has(r.head, "Content-Type: text/event-stream");
    ck_assert(strncmp(r.body, "event: response.created\n", 24) == 0);
    assert_has(r.body, "\"delta\":\"w\"");
    assert_has(r.body, "event: response.completed\n");
    assert_lacks(r.body, "[DONE]");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_message_whole_and_as_a_stream) {
    start();
    EXPECT("/v1/messages", "{" MESSAGES ",\"max_tokens\":5}", 200, "{\"id\":\"msg_",
           "\"text\":\"Hello\"", "\"stop_reason\":\"max_tokens\"");
    EXPECT("/v1/messages", "{" MESSAGES ",\"max_tokens\":50,\"stop_sequences\":[\"lo\"]}", 200,
           "\"text\":\"Hel\"", "\"stop_reason\":\"stop_sequence\",\"stop_sequence\":\"lo\"");
    reply r = fake_post(&f, "/v1/messages?beta=true",
                        "{" MESSAGES ",\"max_tokens\":50,\"stream\":true}");
    ck_assert_int_eq(r.status, 200);
    assert_has(r.head, "Request-Id: ");
    ck_assert(strncmp(r.body, "event: message_start\n", 21) == 0);
    assert_has(r.body, "{\"type\":\"text_delta\",\"text\":\"w\"}");
    ck_assert_str_eq(strstr(r.body, "event: message_stop"),
                     "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(counts_are_those_of_the_usage_and_nothing_is_computed) {
    static const char body[] =
        JSON({"system":"Be brief","max_tokens":2,"messages":[{"role":"user","content":[
            {"type":"text","text":"Hi"}]}]});
    start();
    reply one = fake_post(&f, "/v1/messages/count_tokens", body);
    ck_assert_int_eq(one.status, 200);
    ck_assert_uint_eq(atomic_load(&f.n_submitted), 0);
    reply two = fake_post(&f, "/v1/messages", body);
    ck_assert_int_gt(number(one.body, "{\"input_tokens\":"), 10);
    ck_assert_int_eq(number(one.body, "{\"input_tokens\":"),
                     number(two.body, "{\"input_tokens\":"));
    reply_free(&one);
    reply_free(&two);
    one = fake_post(&f, "/v1/responses/input_tokens", JSON({"input":"Hi","stream":true}));
    two = fake_post(&f, "/v1/responses", JSON({"input":"Hi","max_output_tokens":1}));
    assert_has(one.body, "{\"object\":\"response.input_tokens\",");
    ck_assert_int_eq(number(one.body, "\"input_tokens\":"),
                     number(two.body, "\"input_tokens\":"));
    reply_free(&one);
    reply_free(&two);
    static const char chat[] =
        JSON({"max_tokens":1,"messages":[{"role":"user","content":"Hi"}]});
    one = fake_post(&f, "/chat/completions/input_tokens", chat);
    two = fake_post(&f, "/v1/chat/completions", chat);
    assert_has(one.body, "{\"object\":\"chat.completion.input_tokens\",");
    ck_assert_int_gt(number(one.body, "\"input_tokens\":"), 10);
    ck_assert_int_eq(number(one.body, "\"input_tokens\":"),
                     number(two.body, "\"prompt_tokens\":"));
    reply_free(&one);
    reply_free(&two);
    stop();
}
END_TEST

START_TEST(an_answer_is_continued_where_the_client_has_begun_it) {
    start();
    reply a = fake_post(&f, "/v1/messages/count_tokens",
                        JSON({"messages":[{"role":"user","content":"Hi"},
                                          {"role":"assistant","content":"The"}]}));
    /* <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nThe */
    ck_assert_int_eq(number(a.body, "{\"input_tokens\":"), 1 + 7 + 1 + 1 + 1 + 10 + 3);
    reply_free(&a);
    stop();
}
END_TEST

START_TEST(refusals_have_the_form_of_the_api) {
    start();
    EXPECT("/v1/messages", "{\"model\":\"none\"," MESSAGES "}", 404,
           "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"model: ",
           "\"request_id\":\"");
    EXPECT("/v1/messages", "{" MESSAGES ",\"temperature\":9}", 400,
           "{\"type\":\"invalid_request_error\",\"message\":\"temperature must");
    EXPECT("/v1/messages", "{", 400, "{\"type\":\"invalid_request_error\"");
    EXPECT("/v1/messages", "{}", 400, "\"message\":\"messages: the list is missing\"");
    EXPECT("/v1/responses", JSON({"input":[]}), 400, "\"param\":\"input\"");
    EXPECT("/v1/responses", JSON({"input":"x","background":true}), 400,
                                 "\"code\":\"unsupported_parameter\"",
                                 "\"param\":\"background\"");
    EXPECT("/v1/responses", JSON({"input":"x","max_output_tokens":0}), 400,
                                 "\"param\":\"max_output_tokens\"");
    reply r = fake_get(&f, "/v1/messages");
    ck_assert_int_eq(r.status, 405);
    assert_has(r.body, "{\"type\":\"error\",");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(overload_and_failure_have_the_form_of_the_api) {
    start();
    atomic_store(&f.not_ready, "draining");
    reply r = fake_post(&f, "/v1/messages", "{" MESSAGES "}");
    ck_assert_int_eq(r.status, 503); /* 529 is Anthropic's, and no proxy repeats it */
    assert_has(r.body, "\"overloaded_error\"");
    assert_has(r.head, "Retry-After: ");
    reply_free(&r);
    atomic_store(&f.not_ready, NULL);
    stop();
    fake_init(&f);
    f.capacity = 0;
    fake_start(&f);
    EXPECT("/v1/messages", "{" MESSAGES "}", 429, "\"rate_limit_error\"");
    stop();
    fake_init(&f);
    f.fail_after_first = true;
    fake_start(&f);
    EXPECT("/v1/messages", "{" MESSAGES ",\"stream\":true}", 200,
           "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"");
    EXPECT("/v1/responses", JSON({"input":"x","stream":true}), 200, "event: response.failed\n",
                                 "\"status\":\"failed\"");
    EXPECT("/v1/messages", "{" MESSAGES "}", 500, "\"api_error\"");
    stop();
}
END_TEST

/* ---- calls and reasoning ---- */

/* A template in which the reply parser finds reasoning and calls. */
#define TEMPLATE                                                                               \
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>"         \
    "{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>"   \
    "\n{% endif %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}\n<tool_call>\n"       \
    "{\"name\": \"{{ c.function.name }}\", \"arguments\": "                                    \
    "{{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"   \
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

static void start_with_tools(void) {
    fake_init(&f);
    f.chat_template = TEMPLATE;
    f.says = "<think>\nHm.\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
             "{\"x\": \"y\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"sh\", \"arguments\": "
             "{\"input\": \"ls\"}}\n</tool_call>";
    fake_start(&f);
}

/* The values of a member in the events of a stream, joined; free it. */
static char *joined(const char *stream, const char *member) {
    char *out = calloc(1, strlen(stream) + 1);
    for (const char *at = stream; (at = strstr(at, member));) {
        const char *end = at += strlen(member);
        while (*end && *end != '"') end += *end == '\\' ? 2 : 1;
        strncat(out, at, (size_t)(end - at));
    }
    return out;
}
static void expect_joined(const char *stream, const char *member, const char *want) {
    char *text = joined(stream, member);
    ck_assert_str_eq(text, want);
    free(text);
}

#define RESPONSES_TOOLS                                                                        \
    "\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{\"type\":\"object\"}},{" \
    "\"type\":\"web_search\"},{\"type\":\"custom\",\"name\":\"sh\"}]"

START_TEST(a_response_has_reasoning_text_and_calls_as_items) {
    start_with_tools();
    EXPECT("/v1/responses", "{\"input\":\"Hi\"," RESPONSES_TOOLS "}", 200,
           "\"output\":[{\"id\":\"rs_", "\"reasoning_text\",\"text\":\"Hm.\"",
           "\"type\":\"output_text\",\"text\":\"I look.\"", "\"type\":\"function_call\",",
           "\"name\":\"f\",\"arguments\":\"{\\\"x\\\": \\\"y\\\"}\"",
           "\"type\":\"custom_tool_call\",", "\"name\":\"sh\",\"input\":\"ls\"",
           "\"status\":\"completed\"");
    reply r = fake_post(&f, "/v1/responses",
                        "{\"stream\":true,\"input\":\"Hi\"," RESPONSES_TOOLS "}");
    ck_assert_int_eq(r.status, 200);
    expect_joined(r.body, "\"content_index\":0,\"delta\":\"", "Hm.I look.");
    assert_has(r.body, "event: response.function_call_arguments.delta\n");
    assert_has(r.body, "\"arguments\":\"{\\\"x\\\": \\\"y\\\"}\",\"name\":\"f\"}");
    assert_has(r.body, "event: response.custom_tool_call_input.done\n");
    assert_has(r.body, "event: response.completed\n");
    reply_free(&r);
    stop();
}
END_TEST

#define ANTHROPIC_TOOLS                                                                        \
    "\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}},{\"name\":\"sh\","     \
    "\"input_schema\":{\"type\":\"object\"}}]"

START_TEST(a_message_has_thinking_text_and_tools_as_blocks) {
    start_with_tools();
    EXPECT("/v1/messages", "{" MESSAGES ",\"max_tokens\":500," ANTHROPIC_TOOLS "}", 200,
           "\"content\":[{\"type\":\"thinking\",\"thinking\":\"Hm.\",\"signature\":\"msg_",
           "{\"type\":\"text\",\"text\":\"I look.\"},{\"type\":\"tool_use\",\"id\":\"call_",
           "\"name\":\"f\",\"input\":{\"x\": \"y\"}}", "\"stop_reason\":\"tool_use\"");
    reply r =
        fake_post(&f, "/v1/messages",
                  "{\"stream\":true," MESSAGES ",\"max_tokens\":500," ANTHROPIC_TOOLS "}");
    ck_assert_int_eq(r.status, 200);
    expect_joined(r.body, "\"thinking_delta\",\"thinking\":\"", "Hm.");
    expect_joined(r.body, "\"text_delta\",\"text\":\"", "I look.");
    expect_joined(r.body, "\"partial_json\":\"",
                  "{\\\"x\\\": \\\"y\\\"}{\\\"input\\\": \\\"ls\\\"}");
    assert_has(r.body, "\"stop_reason\":\"tool_use\"");
    for (int i = 0; i < 4; i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"type\":\"content_block_stop\",\"index\":%d}", i);
        assert_has(r.body, text);
    }
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(calls_and_results_of_earlier_turns_are_in_the_prompt) {
    static const char turns[] =
        "\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
        "\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"t\","
        "\"name\":\"f\",\"input\":{\"x\":1}}]},{\"role\":\"user\","
        "\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t\","
        "\"content\":\"R\"}]}]";
    static const char items[] = "\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"type\":"
                                "\"function_call\",\"call_id\":"
                                "\"t\",\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"},{"
                                "\"type\":\"function_call_output\","
                                "\"call_id\":\"t\",\"output\":\"R\"}]";
    static const char prompt[] =
        "<user\na>\n<assistant\n<tool_call>\n{\"name\": \"f\", "
        "\"arguments\": {\"x\": 1}}\n</tool_call>>\n<tool\nR>\n<assistant\n";
    char body[1024];
    start_with_tools();
    snprintf(body, sizeof body, "{%s}", turns);
    reply a = fake_post(&f, "/v1/messages/count_tokens", body);
    snprintf(body, sizeof body, "{%s}", items);
    reply b = fake_post(&f, "/v1/responses/input_tokens", body);
    /* A newline behind a tag of the template is no part of it. One token a byte; each < and > of the text above is one of <|im_start|> and <|im_end|>,
     * but for those of the tags. */
    ck_assert_int_eq(number(a.body, "{\"input_tokens\":"), (int)sizeof prompt - 1);
    ck_assert_int_eq(number(b.body, "\"input_tokens\":"), (int)sizeof prompt - 1);
    reply_free(&a);
    reply_free(&b);
    stop();
}
END_TEST

CHECK_MAIN("apis", a_response_whole_and_as_a_stream, a_message_whole_and_as_a_stream,
           counts_are_those_of_the_usage_and_nothing_is_computed,
           an_answer_is_continued_where_the_client_has_begun_it,
           refusals_have_the_form_of_the_api, a_response_has_reasoning_text_and_calls_as_items,
           a_message_has_thinking_text_and_tools_as_blocks,
           calls_and_results_of_earlier_turns_are_in_the_prompt,
           overload_and_failure_have_the_form_of_the_api)
