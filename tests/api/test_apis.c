/* /v1/responses and /v1/messages over real sockets: answers, streams, counts, refusals. */
#include "tests/api/fake_port.h"

static fake f;

static void start(void) {
    fake_init(&f);
    fake_start(&f);
}
static void stop(void) {
    fake_stop(&f);
}

/* Posts, checks the status, and that the answer has each of the texts. */
static void expect(const char *path, const char *body, int status, const char *const *texts) {
    reply r = fake_post(&f, path, body);
    ck_assert_msg(r.status == status, "%.200s: %d\n%.300s", body, r.status, r.body);
    for (; *texts; texts++) assert_has(r.body, *texts);
    reply_free(&r);
}
#define EXPECT(path, body, status, ...)                                                        \
    expect(path, body, status, (const char *const[]){__VA_ARGS__, NULL})
#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

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
    ck_assert_int_eq(r.status, 529);
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

CHECK_MAIN("apis", a_response_whole_and_as_a_stream, a_message_whole_and_as_a_stream,
           counts_are_those_of_the_usage_and_nothing_is_computed,
           an_answer_is_continued_where_the_client_has_begun_it,
           refusals_have_the_form_of_the_api, overload_and_failure_have_the_form_of_the_api)
