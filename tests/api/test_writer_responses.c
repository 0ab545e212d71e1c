/* The events and responses of /v1/responses, from parts that are filled by hand. */
#include "tests/api/answer_rig.h"
#include "tests/json.h"

static rig r;
static unsigned n_events; /* of the stream so far */

static const char request[] =
    JSON({"tools":[{"type":"function","name":"f"},{"type":"custom","name":"sh"}],
         "instructions":"Be brief","metadata":{"k":"v"}});

static void open_it(bool stream, bool with_tools) {
    static arena a;
    const json_t *body = NULL;
    err e;
    if (a.src) arena_clear(&a);
    arena_init(&a, chunks_heap(), 0);
    if (with_tools) ck_assert(json_in_parse(&body, &a, str_of(request), &e) == OK);
    n_events = 0;
    rig_open(&r, &writer_responses, stream, body);
}

/* The events since the last call are these: each a type and a part of its data, which is JSON
 * with the type and the next number. */
static void expect(const char *const (*want)[2]) {
    const char *text = rig_sent(&r);
    for (; (*want)[0]; want++) {
        char head[200];
        const char *end = strstr(text, "\n\n");
        ck_assert_msg(end != NULL, "missing: %s", (*want)[0]);
        snprintf(head, sizeof head, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%u,",
                 (*want)[0], (*want)[0], n_events++);
        ck_assert_msg(strncmp(text, head, strlen(head)) == 0, "no %s but:\n%s", head, text);
        const char *data = strstr(text, "data: ") + 6;
        json_t *v = json_loadb(data, (size_t)(end - data), 0, NULL);
        ck_assert_msg(v != NULL, "no JSON:\n%.*s", (int)(end - data), data);
        json_decref(v);
        char *one = strndup(text, (size_t)(end - text));
        rig_has(one, (*want)[1]);
        free(one);
        text = end + 2;
    }
    ck_assert_msg(*text == '\0', "more:\n%s", text);
}
#define EXPECT(...) expect((const char *const[][2]){__VA_ARGS__, {NULL, NULL}})
#define BEGUN                                                                                  \
    {"response.created", "\"status\":\"in_progress\""}, {                                      \
        "response.in_progress", "\"output\":[],\"usage\":null"                                 \
    }
#define MSG "msg_00000000000000000000000700"

START_TEST(a_stream_of_text_has_an_item_with_one_part) {
    open_it(true, false);
    EXPECT(BEGUN);
    r.w->delta(r.c); /* a token that made no text */
    rig_text(&r, PART_TEXT, "Hel");
    r.w->delta(r.c);
    EXPECT({"response.output_item.added",
            "\"output_index\":0,\"item\":{\"id\":\"" MSG "\",\"type\":\"message\",\"role\":"
            "\"assistant\",\"content\":[],\"status\":\"in_progress\"}"},
           {"response.content_part.added",
            "\"output_index\":0,\"item_id\":\"" MSG "\",\"content_index\":0,\"part\":{\"type\":"
            "\"output_text\",\"text\":\"\",\"annotations\":[],\"logprobs\":[]}"},
           {"response.output_text.delta",
            "\"output_index\":0,\"item_id\":\"" MSG "\",\"content_index\":0,\"delta\":\"Hel\","
            "\"logprobs\":[]"});
    rig_text(&r, PART_TEXT, "lo");
    rig_end(&r, "stop");
    EXPECT(
        {"response.output_text.delta", "\"delta\":\"lo\""},
        {"response.output_text.done", "\"text\":\"Hello\",\"logprobs\":[]"},
        {"response.content_part.done", "\"part\":{\"type\":\"output_text\",\"text\":\"Hello\""},
        {"response.output_item.done",
         "\"content\":[{\"type\":\"output_text\",\"text\":\"Hello\",\"annotations\":[],"
         "\"logprobs\":[]}],\"status\":\"completed\"}"},
        {"response.completed",
         "\"usage\":{\"input_tokens\":7,\"input_tokens_details\":{\"cached_tokens\":4,"
         "\"cache_write_tokens\":0},\"output_tokens\":2,\"output_tokens_details\":{"
         "\"reasoning_tokens\":0},\"total_tokens\":9}"});
    rig_close(&r);
}
END_TEST

START_TEST(reasoning_text_and_calls_are_items_in_order) {
    open_it(true, true);
    EXPECT({"response.created", "\"instructions\":\"Be brief\",\"max_output_tokens\":null"},
           {"response.in_progress", "\"metadata\":{\"k\":\"v\"}"});
    rig_text(&r, PART_REASONING, "hm");
    r.c->n_reasoning = 1;
    r.w->delta(r.c);
    EXPECT(
        {"response.output_item.added", "\"type\":\"reasoning\",\"summary\":[],\"content\":[]"},
        {"response.content_part.added", "{\"type\":\"reasoning_text\",\"text\":\"\"}"},
        {"response.reasoning_text.delta", "\"content_index\":0,\"delta\":\"hm\"}"});
    rig_text(&r, PART_TEXT, "I ask");
    choice_call(r.c, STR("c1"), STR("f"));
    rig_arguments(&r, "{\"a\":");
    r.w->delta(r.c);
    EXPECT({"response.reasoning_text.done", "\"text\":\"hm\"}"},
           {"response.content_part.done", "{\"type\":\"reasoning_text\",\"text\":\"hm\"}"},
           {"response.output_item.done", "\"output_index\":0"},
           {"response.output_item.added", "\"output_index\":1,\"item\":{\"id\":\"msg_"},
           {"response.content_part.added", "\"output_index\":1"},
           {"response.output_text.delta", "\"delta\":\"I ask\""},
           {"response.output_text.done", "\"text\":\"I ask\""},
           {"response.content_part.done", "\"text\":\"I ask\""},
           {"response.output_item.done", "\"output_index\":1"},
           {"response.output_item.added",
            "\"output_index\":2,\"item\":{\"id\":\"fc_00000000000000000000000702\",\"type\":"
            "\"function_call\",\"call_id\":\"c1\",\"name\":\"f\",\"arguments\":\"\",\"status\":"
            "\"in_progress\"}"},
           {"response.function_call_arguments.delta",
            "\"item_id\":\"fc_00000000000000000000000702\",\"delta\":\"{\\\"a\\\":\"}"});
    rig_arguments(&r, "1}");
    choice_close_part(r.c);
    r.w->delta(r.c);
    EXPECT({"response.function_call_arguments.delta", "\"delta\":\"1}\"}"},
           {"response.function_call_arguments.done",
            "\"arguments\":\"{\\\"a\\\":1}\",\"name\":\"f\"}"},
           {"response.output_item.done",
            "\"arguments\":\"{\\\"a\\\":1}\",\"status\":\"completed\"}"});
    r.w->delta(r.c); /* nothing is closed twice */
    rig_end(&r, "tool_calls");
    EXPECT({"response.completed", "\"output_tokens_details\":{\"reasoning_tokens\":1}"});
    rig_close(&r);
}
END_TEST

START_TEST(the_input_of_a_custom_tool_comes_as_text_at_its_end) {
    open_it(true, true);
    EXPECT({"response.created", "\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{"},
           {"response.in_progress", "\"tool_choice\":\"auto\""});
    choice_call(r.c, STR("c1"), STR("sh"));
    rig_arguments(&r, "{\"input\":\"ls\\n");
    r.w->delta(r.c);
    EXPECT({"response.output_item.added",
            "\"item\":{\"id\":\"ctc_00000000000000000000000700\",\"type\":\"custom_tool_call\","
            "\"call_id\":\"c1\",\"name\":\"sh\",\"input\":\"\",\"status\":\"in_progress\"}"});
    rig_arguments(&r, "-l\"}");
    rig_end(&r, "tool_calls");
    EXPECT({"response.custom_tool_call_input.delta", "\"delta\":\"ls\\n-l\"}"},
           {"response.custom_tool_call_input.done", "\"input\":\"ls\\n-l\""},
           {"response.output_item.done", "\"input\":\"ls\\n-l\",\"status\":\"completed\""},
           {"response.completed", "\"type\":\"custom_tool_call\""});
    rig_close(&r);
}
END_TEST

START_TEST(a_cut_answer_is_incomplete_and_a_failed_one_failed) {
    open_it(true, false);
    EXPECT(BEGUN);
    rig_text(&r, PART_TEXT, "x");
    rig_end(&r, "length");
    EXPECT({"response.output_item.added", ""}, {"response.content_part.added", ""},
           {"response.output_text.delta", ""}, {"response.output_text.done", ""},
           {"response.content_part.done", ""},
           {"response.output_item.done", "\"status\":\"incomplete\"}"},
           {"response.incomplete",
            "\"status\":\"incomplete\",\"model\":\"m\",\"system_fingerprint\":"});
    rig_close(&r);
    open_it(true, false);
    EXPECT(BEGUN);
    rig_text(&r, PART_TEXT, "x");
    failure f;
    failure_set(&f, API_INTERNAL, "the engine \"x\" failed");
    r.w->error(&r.a, &f);
    EXPECT({"response.failed",
            "\"error\":{\"code\":\"server_error\",\"message\":\"the engine \\\"x\\\" failed\"},"
            "\"incomplete_details\":null,\"output\":[{\"id\":\"" MSG "\""});
    ck_assert(r.rq.ended);
    rig_close(&r);
}
END_TEST

START_TEST(an_empty_answer_is_one_empty_message) {
    open_it(true, false);
    EXPECT(BEGUN);
    rig_end(&r, "stop");
    EXPECT({"response.output_item.added", "\"type\":\"message\""},
           {"response.content_part.added", ""}, {"response.output_text.done", "\"text\":\"\""},
           {"response.content_part.done", ""}, {"response.output_item.done", ""},
           {"response.completed", "\"text\":\"\""});
    rig_close(&r);
}
END_TEST

START_TEST(a_response_in_one_piece) {
    open_it(false, true);
    rig_text(&r, PART_REASONING, "hm");
    rig_text(&r, PART_TEXT, "Hi");
    choice_call(r.c, STR("c1"), STR("f"));
    rig_end(&r, "tool_calls");
    const char *text = rig_sent(&r);
    json_t *v = json_loads(text, 0, NULL);
    ck_assert_msg(v != NULL, "%s", text);
    json_decref(v);
    rig_has(text, "{\"id\":\"resp_000000000000000000000007\",\"object\":\"response\",");
    rig_has(text,
            "\"output\":[{\"id\":\"rs_00000000000000000000000700\",\"type\":\"reasoning\",");
    rig_has(text, "\"content\":[{\"type\":\"reasoning_text\",\"text\":\"hm\"}],\"status\":"
                  "\"completed\"},{\"id\":\"msg_00000000000000000000000701\"");
    rig_has(text, "\"name\":\"f\",\"arguments\":\"\",\"status\":\"completed\"}],\"usage\"");
    rig_close(&r);
}
END_TEST

CHECK_MAIN("writer_responses", a_stream_of_text_has_an_item_with_one_part,
           reasoning_text_and_calls_are_items_in_order,
           the_input_of_a_custom_tool_comes_as_text_at_its_end,
           a_cut_answer_is_incomplete_and_a_failed_one_failed,
           an_empty_answer_is_one_empty_message, a_response_in_one_piece)
