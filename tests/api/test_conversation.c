/* What a template is given of a chat (api/conversation.h), seen through POST /apply-template with
 * templates that print it, and the tokens that a prompt becomes. */
#include "tests/api/fake_one.h"
#include "tests/check_main.h"

/* The prompt that the body is rendered to; a refusal in full. */
static void gives(const char *body, const char *want) {
    reply r = fake_post(&f, "/apply-template", body);
    json_error_t je;
    const char *at = strstr(r.body, "\r\n\r\n");
    json_t *v = json_loads(at ? at + 4 : r.body, 0, &je);
    const char *prompt = json_string_value(json_object_get(v, "prompt"));
    ck_assert_msg(prompt && strcmp(prompt, want) == 0, "%s:\n<%s>, wanted\n<%s>", body,
                  prompt ? prompt : r.body, want);
    ck_assert_uint_eq(atomic_load(&f.n_submitted), 0);
    json_decref(v);
    reply_free(&r);
}

static void refused(const char *body, const char *param, const char *why) {
    reply r = fake_post(&f, "/apply-template", body);
    char text[100];
    snprintf(text, sizeof text, "\"param\":\"%s\"", param);
    ck_assert_msg(r.status == 400 && strstr(r.body, text) && strstr(r.body, why), "%s: %d %s",
                  body, r.status, r.body);
    reply_free(&r);
}

#define ALL "{{ messages|tojson }}"

START_TEST(members_of_messages) {
    start_as(ALL, NULL);
    gives(JSON({"messages":[{"role":"user","content":"a","name":null,"x":[1.0]}]}),
                "[{\"role\": \"user\", \"content\": \"a\", \"x\": [1.0]}]");
    gives(
        JSON({"messages":[{"role":"developer","content":"a"},{"role":"critic","content":"b"}]}),
              "[{\"role\": \"system\", \"content\": \"a\"}, {\"role\": \"critic\", "
              "\"content\": \"b\"}]");
    gives(JSON({"messages":[{"role":"assistant"},{"role":"assistant","content":null}]}),
                "[{\"role\": \"assistant\", \"content\": \"\"}, {\"role\": \"assistant\", "
                "\"content\": \"\"}]");
    refused(JSON({"messages":[{"role":"user"}]}), "messages[0].content", "string or a list");
    refused(JSON({"messages":[{"role":"user","content":1}]}), "messages[0].content", "string");
    refused(JSON({"messages":[{"content":"a"}]}), "messages[0].role", "needs a role");
    refused(JSON({"messages":["a"]}), "messages[0]", "an object");
    refused(JSON({"messages":[]}), "messages", "empty");
    refused(JSON({"messages":[{"role":"assistant","function_call":{"name":"f"}}]}),
                  "messages[0].function_call", "tool_calls");
    refused(JSON({"messages":[{"role":"assistant","tool_calls":[{}]}]}),
                  "messages[0].tool_calls", "shows no tool_calls");
    stop();
}
END_TEST

START_TEST(content_in_parts) {
    start_as(ALL, NULL);
    gives(JSON({"messages":[{"role":"user","content":[{"type":"text","text":"a"},
                {"type":"text","text":"b"}]},{"role":"assistant","content":[
                {"type":"refusal","refusal":"no"}]},{"role":"user","content":[]}]}),
                                  "[{\"role\": \"user\", \"content\": \"a\\nb\"}, {\"role\": "
                                  "\"assistant\", \"content\": "
                                  "\"no\"}, {\"role\": \"user\", \"content\": \"\"}]");
    refused(
        JSON({"messages":[{"role":"user","content":[{"type":"image_url","image_url":"x"}]}]}),
              "messages[0].content[0]", "only parts");
    stop();
    start_as(ALL "{% for p in messages[0].content %}{% endfor %}", NULL);
    gives(JSON({"messages":[{"role":"user","content":[{"type":"text","text":"a"},
                {"type":"text","text":"b"}]},{"role":"user","content":"c"}]}),
        "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": "
        "\"text\", \"text\": \"b\"}]}, {\"role\": \"user\", \"content\": \"c\"}]");
    stop();
}
END_TEST

START_TEST(null_is_passed_on_to_templates_that_show_nothing_for_it) {
    start_as("{{ messages[1].content or '' }}{{ messages[0].content is none }}", NULL);
    gives(
        JSON({"messages":[{"role":"assistant","content":null},{"role":"user","content":"a"}]}),
              "aTrue");
    stop();
    start_as("{{ messages[0].content is none }}{{ messages[1].content }}", NULL);
    gives(
        JSON({"messages":[{"role":"assistant","content":null},{"role":"user","content":"a"}]}),
              "Falsea");
    stop();
    start_as("{{ 'developer' }}{{ messages[0].role }}", NULL);
    gives(JSON({"messages":[{"role":"developer","content":"a"}]}), "developerdeveloper");
    stop();
}
END_TEST

START_TEST(calls_and_reasoning_of_the_history) {
    start_as("{{ messages[0].tool_calls|tojson }}", NULL);
    gives(JSON({"messages":[{"role":"assistant","tool_calls":[
        {"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\": 1.0, \"y\": \"z\"}"}},
        {"id":"2","function":{"name":"g","arguments":"[1]"}},
        {"id":"3","function":{"name":"h","arguments":""}},
        {"id":"4","function":{"name":"i","arguments":{"k":[]}}},
        {"id":"5","function":{"name":"j"}}]}]}),
              "[{\"id\": \"1\", \"type\": \"function\", \"function\": {\"name\": \"f\", "
              "\"arguments\": "
              "{\"x\": 1.0, \"y\": \"z\"}}}, {\"id\": \"2\", \"function\": {\"name\": \"g\", "
              "\"arguments\": \"[1]\"}}, {\"id\": \"3\", \"function\": {\"name\": \"h\", "
              "\"arguments\": "
              "{}}}, {\"id\": \"4\", \"function\": {\"name\": \"i\", \"arguments\": {\"k\": "
              "[]}}}, "
              "{\"id\": \"5\", \"function\": {\"name\": \"j\", \"arguments\": {}}}]");
    refused(JSON({"messages":[{"role":"assistant","tool_calls":{}}]}), "messages[0].tool_calls",
                  "a list");
    refused(JSON({"messages":[{"role":"assistant","tool_calls":[1]}]}),
                  "messages[0].tool_calls[0]", "an object");
    stop();
    start_as(
        "{% for m in messages %}{{ m.reasoning_content }}/{{ m.reasoning }}/{{ m.content }};"
        "{% endfor %}",
        NULL);
    gives(JSON({"messages":[{"role":"assistant","content":"a","reasoning":"r"},
                {"role":"assistant","content":"<think>x</think>a","reasoning_content":"r"},
                {"role":"assistant","content":"<think>\nx\n</think>\n\na"},
                {"role":"user","content":"<think>x</think>a"}]}),
                             "r/r/a;r/r/<think>x</think>a;x/x/a;//<think>x</think>a;");
    stop();
    /* A template that does not read it shows what the client sent. */
    start_as("{{ messages[0].content }}", NULL);
    gives(JSON({"messages":[{"role":"assistant","content":"<think>x</think>a"}]}),
               "<think>x</think>a");
    stop();
}
END_TEST

START_TEST(what_stands_beside_messages) {
    start_as(
        "{{ tools|tojson }}{{ documents|tojson }}{{ reasoning_effort }}|{{ enable_thinking }}|"
        "{{ thinking }}|{{ add_generation_prompt }}|{{ x }}",
        NULL);
#define M "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]"
    gives("{" M "}", "nullnull|||True|");
    gives("{" M ",\"tools\":[{\"type\":\"function\"}],\"documents\":[{\"b\":1,\"a\":2}],"
          "\"reasoning_effort\":\"high\",\"add_generation_prompt\":false}",
          "[{\"type\": \"function\"}][{\"b\": 1, \"a\": 2}]high|||False|");
    gives("{" M ",\"tools\":[],\"reasoning_effort\":\"none\",\"chat_template_kwargs\":"
          "{\"x\":5,\"thinking\":1}}",
          "nullnullnone|False|1|True|5");
    refused("{" M ",\"tools\":{}}", "tools", "a list");
    refused("{" M ",\"documents\":1}", "documents", "a list");
    refused("{" M ",\"chat_template_kwargs\":[]}", "chat_template_kwargs", "an object");
    refused("{" M ",\"reasoning_effort\":1}", "reasoning_effort", "a string");
    refused("{" M ",\"chat_template\":\"x\"}", "chat_template", "not allowed");
    stop();
    start_as("plain", NULL);
    refused("{" M ",\"tools\":[{}]}", "tools", "takes no tools");
    gives("{" M ",\"tools\":[{}],\"tool_choice\":\"none\"}", "plain");
    stop();
    fake_init(&f);
    f.opt.trust_request_chat_template = true;
    fake_start(&f);
    gives("{" M ",\"chat_template\":\"own {{ messages[0].content }}\"}", "own a");
    refused("{" M ",\"chat_template\":\"{% x %}\"}", "chat_template", "does not parse");
    refused("{" M ",\"chat_template\":\"{{ raise_exception('no') }}\"}", "messages", "\"no\"");
    stop();
}
END_TEST

START_TEST(the_last_message_is_continued) {
#define BODY(content)                                                                          \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","            \
    "\"content\":" content                                                                     \
    "}],\"add_generation_prompt\":false,\"continue_final_message\":true}"
    start_as(FAKE_CHATML, NULL);
    gives(BODY("\" ab \""), "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n ab ");
    refused(BODY("\"\""), "continue_final_message", "empty");
    stop();
    start_as("{% for m in messages %}{{ m.role }}:{{ m.content|trim }};{% endfor %}", NULL);
    gives(BODY("\" ab \""), "user:q;assistant:ab");
    stop();
    start_as(
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}",
        NULL);
    gives(BODY("[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]"),
          ";ab");
    stop();
    start_as("{{ messages[0].content }}", NULL);
    refused(BODY("\"a\""), "continue_final_message", "does not show");
    stop();
}
END_TEST

START_TEST(special_tokens_are_the_templates_alone) {
    /* <|im_start|> is 256 and <|im_end|> 257 where the template has them. */
    start_as("<|im_start|>{{ messages[0].content }}<|im_end|>", NULL);
    reply r =
        fake_post(&f, "/apply-template",
                  JSON({"messages":[{"role":"user","content":"<|im_end|>"}],"tokens":true}));
    assert_has(r.body,
               "{\"prompt\":\"<|im_start|><|im_end|><|im_end|>\",\"tokens\":[256,60,124,105,"
               "109,95,101,110,100,124,62,257]}");
    reply_free(&r);
    stop();
    /* Assembled of template and role it is one; of a content never. */
    start_as("{{ '<|' + messages[0].role + '|>' }}{{ '<|' + messages[0].content + '|>' }}",
             NULL);
    r = fake_post(&f, "/tokenize", JSON({"messages":[{"role":"im_start","content":"im_end"}]}));
    assert_has(r.body, "\"count\":11,");
    assert_has(r.body, "\"tokens\":[256,60,124,");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(long_conversations_are_rendered_off_the_loop) {
    static const char *const paths[] = {"/v1/chat/completions", "/apply-template", "/tokenize"};
    enum { TURNS = 1000 };
    start_as(FAKE_CHATML, NULL);
    buf body;
    buf_init(&body, NULL);
    buf_add(&body, STR("{\"max_tokens\":2,\"messages\":["));
    for (int i = 0; i < TURNS; i++)
        buf_addf(&body, "%s{\"role\":\"user\",\"content\":\"turn %d\"}", i ? "," : "", i);
    buf_add(&body, STR("]}"));
    unsigned offloaded[] = {2, 3, 4}; /* chat: rendered, then tokenised */
    for (int i = 0; i < 3; i++) {
        reply r = fake_post(&f, paths[i], buf_cstr(&body));
        ck_assert_msg(r.status == 200, "%s: %d %.200s", paths[i], r.status, r.body);
        reply_free(&r);
        ck_assert_uint_eq(atomic_load(&f.n_offloaded), offloaded[i]);
    }
    const size_t whole = body.len;
    body.len -= 2;
    buf_add(&body, STR(",{}]}"));
    for (int i = 0; i < 3; i++) {
        reply r = fake_post(&f, paths[i], buf_cstr(&body));
        ASSERT_ERROR(r, 400, "invalid_request_error", "\"messages[1000].role\"");
        reply_free(&r);
    }
    body.len = whole - 2;
    buf_add(&body, STR("]}"));
    /* A client that leaves meanwhile takes nothing with it. */
    for (int i = 0; i < 30; i++) {
        int fd = fake_connect(&f);
        char *text = fake_post_text(paths[i % 3], buf_cstr(&body));
        fake_send(fd, text, strlen(text));
        if (i % 2) usleep(300);
        close(fd);
        free(text);
    }
    buf_clear(&body);
    stop();
}
END_TEST

CHECK_MAIN("conversation", members_of_messages, content_in_parts,
           null_is_passed_on_to_templates_that_show_nothing_for_it,
           calls_and_reasoning_of_the_history, what_stands_beside_messages,
           the_last_message_is_continued, special_tokens_are_the_templates_alone,
           long_conversations_are_rendered_off_the_loop)
