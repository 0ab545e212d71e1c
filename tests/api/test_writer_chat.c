/* The chunks and answers of chat, from parts that are filled by hand. */
#include "tests/api/answer_rig.h"

static rig r;

static void open_it(bool stream) {
    rig_open(&r, &writer_chat, stream, NULL);
}

/* The chunks since the last call hold each of the deltas, in this order, and no other. */
static void expect(const char *const *delta) {
    const char *text = rig_sent(&r), *chunk;
    for (; (chunk = strstr(text, "\"delta\":")); text = chunk + 1) {
        ck_assert_msg(*delta != NULL, "one more:\n%s", chunk);
        ck_assert_msg(strncmp(chunk + 8, *delta, strlen(*delta)) == 0, "no <%s> but:\n%s",
                      *delta, chunk);
        delta++;
    }
    ck_assert_msg(*delta == NULL, "missing: %s", *delta);
}
#define EXPECT(...) expect((const char *const[]){__VA_ARGS__, NULL})
#define ROLE                                                                                   \
    "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}"

START_TEST(plain_text_is_one_part_and_its_chunks) {
    open_it(true);
    r.w->delta(r.c); /* a token that made no text yet */
    EXPECT(ROLE);
    rig_text(&r, PART_TEXT, "Hel");
    r.w->delta(r.c);
    EXPECT("{\"content\":\"Hel\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    rig_text(&r, PART_TEXT, "lo");
    rig_end(&r, "stop");
    EXPECT("{\"content\":\"lo\"},\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":"
           "null}]}\n\ndata: [DONE]\n\n");
    ck_assert_uint_eq(r.c->n_parts, 1);
    rig_close(&r);
}
END_TEST

START_TEST(a_stream_of_reasoning_text_and_two_calls) {
    open_it(true);
    rig_text(&r, PART_REASONING, "Let me");
    r.w->delta(r.c);
    EXPECT(ROLE, "{\"reasoning_content\":\"Let me\",\"reasoning\":\"Let me\"}");
    rig_text(&r, PART_REASONING, " see"); /* all in one step */
    rig_text(&r, PART_TEXT, "I ask \"it\"");
    choice_call(r.c, STR("call_1"), STR("get"));
    r.w->delta(r.c);
    EXPECT("{\"reasoning_content\":\" see\",\"reasoning\":\" see\"}",
           "{\"content\":\"I ask \\\"it\\\"\"}",
           "{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\","
           "\"function\":{\"name\":\"get\",\"arguments\":\"\"}}]},\"logprobs\":null,"
           "\"finish_reason\":null}");
    r.w->delta(r.c); /* nothing new */
    EXPECT(NULL);
    rig_arguments(&r, "{\"a\":");
    r.w->delta(r.c);
    EXPECT("{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":\"}}]},");
    rig_arguments(&r, "1}");
    choice_call(r.c, STR("call_2"), STR("put"));
    rig_arguments(&r, "{}");
    r.w->delta(r.c);
    EXPECT("{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1}\"}}]},",
           "{\"tool_calls\":[{\"index\":1,\"id\":\"call_2\",",
           "{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{}\"}}]},");
    rig_end(&r, "tool_calls");
    EXPECT("{},\"logprobs\":null,\"finish_reason\":\"tool_calls\",\"stop_reason\":null}]}");
    rig_close(&r);
}
END_TEST

START_TEST(the_last_chunk_has_the_end_and_what_came_with_it) {
    open_it(true);
    choice_call(r.c, STR("a"), STR("f"));
    rig_arguments(&r, "{}");
    rig_end(&r, "tool_calls");
    EXPECT(ROLE, "{\"tool_calls\":[{\"index\":0,\"id\":\"a\",",
           "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]},\"logprobs\":"
           "null,\"finish_reason\":\"tool_calls\"");
    rig_close(&r);
}
END_TEST

START_TEST(an_answer_in_one_piece_joins_the_parts_of_a_kind) {
    open_it(false);
    rig_text(&r, PART_REASONING, "Hm. ");
    rig_text(&r, PART_TEXT, "One ");
    rig_text(&r, PART_REASONING, "Hm!");
    rig_text(&r, PART_TEXT, "two");
    rig_end(&r, "stop");
    rig_has(rig_sent(&r),
            "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
            "\"One two\",\"reasoning_content\":\"Hm. Hm!\",\"reasoning\":\"Hm. Hm!\"},"
            "\"logprobs\":null,"
            "\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":7,"
            "\"completion_tokens\":4,");
    rig_close(&r);
}
END_TEST

START_TEST(content_is_null_beside_calls_alone_and_empty_where_nothing_was_said) {
    open_it(false);
    choice_call(r.c, STR("a"), STR("f"));
    rig_arguments(&r, "{\"x\":\"y\"}");
    choice_call(r.c, STR("b"), STR("g"));
    rig_end(&r, "tool_calls");
    rig_has(
        rig_sent(&r),
        "\"message\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"a\","
        "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":"
        "\\\"y\\\"}\"}},{\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\","
        "\"arguments\":\"\"}}]},\"logprobs\"");
    rig_close(&r);
    open_it(false);
    rig_end(&r, "stop");
    rig_has(rig_sent(&r), "{\"role\":\"assistant\",\"content\":\"\"},");
    rig_close(&r);
}
END_TEST

START_TEST(a_part_that_no_client_has_seen_becomes_the_next_kind) {
    open_it(true);
    ck_assert(choice_part(r.c, PART_TEXT) == choice_part(r.c, PART_REASONING));
    ck_assert_uint_eq(r.c->n_parts, 1);
    rig_text(&r, PART_REASONING, "x");
    r.w->delta(r.c);
    choice_part(r.c, PART_TEXT); /* sent, so it stays */
    ck_assert_uint_eq(r.c->n_parts, 2);
    ck_assert(r.c->parts[0].closed && r.c->parts[0].kind == PART_REASONING);
    choice_close_part(r.c);
    rig_text(&r, PART_TEXT, "y"); /* equal kinds, but closed between */
    ck_assert_uint_eq(r.c->n_parts, 3);
    for (int i = 0; i < 100; i++) choice_call(r.c, STR("c"), STR("f"));
    ck_assert_uint_eq(r.c->n_calls, 100);
    ck_assert_uint_eq(r.c->parts[r.c->n_parts - 1].index, 99);
    ck_assert(!choice_failed(r.c));
    rig_close(&r);
}
END_TEST

START_TEST(without_memory_for_a_part_the_choice_has_failed) {
    open_it(false);
    rig_text(&r, PART_TEXT, "x");
    r.rq.pub.mem.limit = r.rq.pub.mem.total;
    r.rq.pub.mem.at = r.rq.pub.mem.end;
    choice_call(r.c, STR("c"), STR("f"));
    ck_assert(choice_failed(r.c));
    rig_close(&r);
}
END_TEST

CHECK_MAIN("writer_chat", plain_text_is_one_part_and_its_chunks,
           a_stream_of_reasoning_text_and_two_calls,
           the_last_chunk_has_the_end_and_what_came_with_it,
           an_answer_in_one_piece_joins_the_parts_of_a_kind,
           content_is_null_beside_calls_alone_and_empty_where_nothing_was_said,
           a_part_that_no_client_has_seen_becomes_the_next_kind,
           without_memory_for_a_part_the_choice_has_failed)
