/* Ollama's lines and answers, and llama.cpp's events, from parts that are filled by hand. */
#include "api/native.h"
#include "api/ollama.h"
#include "tests/api/answer_rig.h"

static rig r;

/* The lines since the last call, of which the n-th has the n-th part, and no other line. */
static void expect(const char *const *part) {
    const char *line = rig_sent(&r), *end;
    for (; *line; line = end + 1) {
        char one[2048];
        end = strchr(line, '\n');
        ck_assert_msg(end != NULL && end - line < (long)sizeof one, "no line: %s", line);
        memcpy(one, line, (size_t)(end - line));
        one[end - line] = '\0';
        ck_assert_msg(*part != NULL, "one more: %s", one);
        rig_has(one, *part++);
        rig_has(one, "{\"model\":\"m\",\"created_at\":\"20");
    }
    ck_assert_msg(*part == NULL, "missing: %s", *part);
}
#define EXPECT(...) expect((const char *const[]){__VA_ARGS__, NULL})
#define CALL(id, index, name, arguments)                                                       \
    "{\"id\":\"" id "\",\"function\":{\"index\":" index ",\"name\":\"" name                    \
    "\",\"arguments\":" arguments "}}"

START_TEST(a_call_is_sent_when_it_is_whole_and_what_is_behind_it_waits) {
    rig_open(&r, &writer_ollama_chat, true, NULL);
    r.w->delta(r.c);
    EXPECT(NULL);
    rig_text(&r, PART_REASONING, "Let me");
    r.w->delta(r.c);
    EXPECT("\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"Let "
           "me\"},\"done\":"
           "false}");
    rig_text(&r, PART_REASONING, " see"); /* all in one step */
    rig_text(&r, PART_TEXT, "I ask \"it\"");
    choice_call(r.c, STR("c1"), STR("get"));
    r.w->delta(r.c);
    EXPECT("\"content\":\"I ask \\\"it\\\"\",\"thinking\":\" see\"},\"done\":false}");
    rig_arguments(&r, "{\"a\":");
    r.w->delta(r.c);
    EXPECT(NULL);
    rig_arguments(&r, "1}");
    choice_call(r.c, STR("c2"), STR("put"));
    r.w->delta(r.c);
    EXPECT("\"content\":\"\",\"tool_calls\":[" CALL("c1", "0", "get", "{\"a\":1}") "]},");
    rig_arguments(&r, "{\"b\":[]}");
    choice_close_part(r.c);
    rig_text(&r, PART_TEXT, "so");
    rig_end(&r, "tool_calls");
    EXPECT("\"content\":\"so\",\"tool_calls\":[" CALL("c2", "1", "put", "{\"b\":[]}") "]},",
           "\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":");
    rig_close(&r);
}
END_TEST

START_TEST(a_call_that_was_cut_off_is_text) {
    rig_open(&r, &writer_ollama_chat, false, NULL);
    choice_call(r.c, STR("c1"), STR("get"));
    rig_arguments(&r, "{}");
    choice_call(r.c, STR("c2"), STR("put"));
    rig_arguments(&r, "{\"b\":");
    r.c->usage = (gen_usage){.queued_us = 1, .first_token_us = 3, .ended_us = 10};
    r.c->spec.n_prompt = 7;
    rig_end(&r, "length");
    const char *text = rig_sent(&r);
    rig_has(text,
            "\"content\":\"{\\\"b\\\":\",\"tool_calls\":[" CALL("c1", "0", "get", "{}") "]}");
    rig_has(
        text,
        "\"done\":true,\"done_reason\":\"length\",\"total_duration\":10000,\"load_duration\":"
        "1000,\"prompt_eval_count\":7,\"prompt_eval_duration\":2000,\"eval_count\":2,"
        "\"eval_duration\":7000}");
    rig_close(&r);
}
END_TEST

START_TEST(generate_has_the_text_as_response) {
    rig_open(&r, &writer_ollama_generate, true, NULL);
    rig_text(&r, PART_TEXT, "Hel");
    r.w->delta(r.c);
    EXPECT(",\"response\":\"Hel\",\"done\":false}");
    rig_text(&r, PART_TEXT, "lo");
    rig_end(&r, "stop");
    EXPECT(",\"response\":\"lo\",\"done\":false}", ",\"response\":\"\",\"done\":true");
    rig_close(&r);
}
END_TEST

START_TEST(an_error_in_a_stream_is_a_line) {
    failure f;
    failure_set(&f, API_INTERNAL, "it \"broke\"");
    rig_open(&r, &writer_ollama_chat, true, NULL);
    r.w->error(&r.a, &f);
    ck_assert_str_eq(rig_sent(&r), "{\"error\":\"it \\\"broke\\\"\"}\n");
    rig_close(&r);
}
END_TEST

START_TEST(a_native_stream_remembers_a_newline_that_is_sent) {
    rig_open(&r, &writer_native, true, NULL);
    r.c->spec.n_prompt = 7;
    rig_text(&r, PART_TEXT, "a\n");
    vec_i32_push(&r.c->ids, 5);
    r.w->delta(r.c);
    ck_assert_str_eq(rig_sent(&r),
                     "data: {\"index\":0,\"content\":\"a\\n\",\"tokens\":[5],\"id_slot\":-1,"
                     "\"tokens_predicted\":1,\"tokens_evaluated\":7,\"stop\":false}\n\n");
    rig_end(&r, "stop");
    const char *text = rig_sent(&r);
    rig_has(text, "\"stop\":true");
    rig_has(text, "\"has_new_line\":true,\"truncated\":false,\"stop_type\":\"eos\"");
    ck_assert(strstr(text, "[DONE]") == NULL);
    rig_close(&r);
}
END_TEST

CHECK_MAIN("writer_ollama", a_call_is_sent_when_it_is_whole_and_what_is_behind_it_waits,
           a_call_that_was_cut_off_is_text, generate_has_the_text_as_response,
           an_error_in_a_stream_is_a_line, a_native_stream_remembers_a_newline_that_is_sent)
