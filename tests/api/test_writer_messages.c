/* The events and messages of /v1/messages, from parts that are filled by hand. */
#include "tests/api/answer_rig.h"

static rig r;

static void open_it(bool stream) {
    rig_open(&r, &writer_messages, stream, NULL);
}

/* The events since the last call are these: a type, and what follows it in the data. */
static void expect(const char *const (*want)[2]) {
    const char *text = rig_sent(&r);
    for (; (*want)[0]; want++) {
        char head[600];
        const char *end = strstr(text, "\n\n");
        snprintf(head, sizeof head, "event: %s\ndata: {\"type\":\"%s\"%s", (*want)[0],
                 (*want)[0], (*want)[1]);
        ck_assert_msg(end && strncmp(text, head, strlen(head)) == 0, "no %s but:\n%s", head,
                      text);
        const char *data = strstr(text, "data: ") + 6;
        json_t *v = json_loadb(data, (size_t)(end - data), 0, NULL);
        ck_assert_msg(v != NULL, "no JSON:\n%.*s", (int)(end - data), data);
        json_decref(v);
        text = end + 2;
    }
    ck_assert_msg(*text == '\0', "more:\n%s", text);
}
#define EXPECT(...) expect((const char *const[][2]){__VA_ARGS__, {NULL, NULL}})
#define BEGUN                                                                                  \
    {"message_start",                                                                          \
     ",\"message\":{\"id\":\"msg_000000000000000000000007\",\"type\":\"message\",\"role\":"    \
     "\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":"    \
     "null,\"usage\":{\"input_tokens\":7,\"cache_creation_input_tokens\":0,"                   \
     "\"cache_read_input_tokens\":0,\"output_tokens\":0}}}"},                                  \
    {                                                                                          \
        "ping", "}"                                                                            \
    }
#define END(reason)                                                                            \
    {"message_delta", ",\"delta\":{\"stop_reason\":\"" reason "\",\"stop_sequence\":"}, {      \
        "message_stop", "}"                                                                    \
    }

START_TEST(a_stream_of_text_is_one_block) {
    open_it(true);
    EXPECT(BEGUN);
    r.w->delta(r.c); /* a token that made no text */
    rig_text(&r, PART_TEXT, "Hel");
    r.w->delta(r.c);
    EXPECT({"content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":"
                                   "\"\"}}"},
           {"content_block_delta",
            ",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hel\"}}"});
    rig_text(&r, PART_TEXT, "lo");
    rig_end(&r, "stop");
    EXPECT({"content_block_delta",
            ",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"lo\"}}"},
           {"content_block_stop", ",\"index\":0}"},
           {"message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"
                             "\"usage\":{\"input_tokens\":7,\"cache_creation_input_tokens\":0,"
                             "\"cache_read_input_tokens\":0,\"output_tokens\":2}}"},
           {"message_stop", "}"});
    rig_close(&r);
}
END_TEST

START_TEST(thinking_text_and_tools_are_blocks_one_after_the_other) {
    open_it(true);
    EXPECT(BEGUN);
    rig_text(&r, PART_REASONING, "hm");
    r.w->delta(r.c);
    EXPECT({"content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"thinking\","
                                   "\"thinking\":\"\",\"signature\":\"\"}}"},
           {"content_block_delta",
            ",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}}"});
    rig_text(&r, PART_TEXT, "I ask");
    choice_call(r.c, STR("c1"), STR("f"));
    rig_arguments(&r, "{\"a\":");
    r.w->delta(r.c);
    EXPECT({"content_block_delta",
            ",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"msg_"},
           {"content_block_stop", ",\"index\":0}"}, {"content_block_start", ",\"index\":1,"},
           {"content_block_delta", ",\"index\":1,"}, {"content_block_stop", ",\"index\":1}"},
           {"content_block_start", ",\"index\":2,\"content_block\":{\"type\":\"tool_use\","
                                   "\"id\":\"c1\",\"name\":\"f\",\"input\":{}}}"},
           {"content_block_delta", ",\"index\":2,\"delta\":{\"type\":\"input_json_delta\","
                                   "\"partial_json\":\"{\\\"a\\\":\"}}"});
    rig_arguments(&r, "1}");
    choice_call(r.c, STR("c2"), STR("now")); /* without arguments */
    rig_end(&r, "tool_calls");
    EXPECT({"content_block_delta", ",\"index\":2,"}, {"content_block_stop", ",\"index\":2}"},
           {"content_block_start", ",\"index\":3,"},
           {"content_block_delta",
            ",\"index\":3,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}"},
           {"content_block_stop", ",\"index\":3}"}, END("tool_use"));
    rig_close(&r);
}
END_TEST

START_TEST(an_end_by_a_stop_string_or_the_length_is_named) {
    static str stops[] = {STR("a"), STR("E\"ND")};
    open_it(false);
    r.a.p.stop = stops;
    r.c->stop_index = 1;
    rig_text(&r, PART_TEXT, "x");
    rig_end(&r, "stop");
    rig_has(rig_sent(&r), "\"stop_reason\":\"stop_sequence\",\"stop_sequence\":\"E\\\"ND\"");
    rig_close(&r);
    open_it(false);
    rig_text(&r, PART_TEXT, "x");
    rig_end(&r, "length");
    rig_has(rig_sent(&r), "\"stop_reason\":\"max_tokens\",\"stop_sequence\":null");
    rig_close(&r);
    open_it(false);
    rig_text(&r, PART_TEXT, "x");
    r.c->n_output = 93; /* the context has 100 */
    rig_end(&r, "length");
    rig_has(rig_sent(&r), "\"stop_reason\":\"model_context_window_exceeded\"");
    rig_close(&r);
}
END_TEST

START_TEST(a_failure_within_a_stream_is_an_error_event) {
    open_it(true);
    EXPECT(BEGUN);
    failure f;
    failure_set(&f, API_UNAVAILABLE, "shutting down");
    r.w->error(&r.a, &f);
    EXPECT({"error", ",\"error\":{\"type\":\"overloaded_error\",\"message\":\"shutting down\"},"
                     "\"request_id\":\"request-1\"}"});
    ck_assert(r.rq.ended);
    rig_close(&r);
}
END_TEST

START_TEST(a_message_in_one_piece) {
    open_it(false);
    rig_text(&r, PART_REASONING, "hm");
    rig_text(&r, PART_TEXT, "Hi");
    choice_call(r.c, STR("c1"), STR("f"));
    rig_arguments(&r, "{\"a\":1}");
    choice_call(r.c, STR("c2"), STR("now"));
    choice_call(r.c, STR("c3"), STR("cut"));
    rig_arguments(&r, "{\"a\":\"b");
    rig_end(&r, "tool_calls");
    ck_assert_str_eq(
        rig_sent(&r),
        "{\"id\":\"msg_000000000000000000000007\",\"type\":\"message\",\"role\":\"assistant\","
        "\"model\":\"m\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":"
        "\"msg_000000000000000000000007\"},{\"type\":\"text\",\"text\":\"Hi\"},{\"type\":"
        "\"tool_use\",\"id\":\"c1\",\"name\":\"f\",\"input\":{\"a\":1}},{\"type\":\"tool_use\","
        "\"id\":\"c2\",\"name\":\"now\",\"input\":{}},{\"type\":\"tool_use\",\"id\":\"c3\","
        "\"name\":\"cut\",\"input\":{\"partial_json\":\"{\\\"a\\\":\\\"b\"}}],\"stop_reason\":"
        "\"tool_use\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":7,"
        "\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":4}"
        "}");
    rig_close(&r);
}
END_TEST

START_TEST(an_empty_answer_is_one_empty_block) {
    open_it(false);
    rig_end(&r, "stop");
    rig_has(rig_sent(&r), "\"content\":[{\"type\":\"text\",\"text\":\"\"}],");
    rig_close(&r);
    open_it(true);
    EXPECT(BEGUN);
    rig_end(&r, "stop");
    EXPECT({"content_block_start", ",\"index\":0,"}, {"content_block_stop", ",\"index\":0}"},
           END("end_turn"));
    rig_close(&r);
}
END_TEST

CHECK_MAIN("writer_messages", a_stream_of_text_is_one_block,
           thinking_text_and_tools_are_blocks_one_after_the_other,
           an_end_by_a_stop_string_or_the_length_is_named,
           a_failure_within_a_stream_is_an_error_event, a_message_in_one_piece,
           an_empty_answer_is_one_empty_block)
