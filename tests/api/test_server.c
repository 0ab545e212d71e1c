/* Endpoints over real sockets: completions, chat, streams, refusals, small documents. */
#include "tests/api/fake_one.h"

/* Joins the texts (or deltas) of choice index in an event stream; checks each event. */
static char *stream_text(const char *body, int index, const char **finish) {
    char *out = calloc(1, strlen(body) + 1), *line = strdup(body), *save;
    *finish = NULL;
    for (char *l = strtok_r(line, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        if (strncmp(l, "data: {", 7) != 0) continue;
        const json_t *v = parse(l + 6);
        const json_t *c = json_array_get(json_object_get(v, "choices"), 0);
        if (!c || int_of(at(c, "index")) != index) continue;
        const json_t *delta = json_object_get(c, "delta");
        const json_t *t = delta ? json_object_get(delta, "content") : at(c, "text");
        if (t) strcat(out, text_of(t));
        const json_t *fr = at(c, "finish_reason");
        if (json_is_string(fr)) *finish = text_of(fr);
    }
    free(line);
    return out;
}

START_TEST(a_completion_in_one_piece) {
    start();
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"abc","model":"fake"}));
    ck_assert_int_eq(r.status, 200);
    const json_t *v = parse(r.body);
    ck_assert_str_eq(text_of(at(v, "object")), "text_completion");
    ck_assert(strncmp(text_of(at(v, "id")), "cmpl-", 5) == 0);
    ck_assert_str_eq(text_of(at(v, "model")), "fake");
    const json_t *c = json_array_get(at(v, "choices"), 0);
    ck_assert_str_eq(text_of(at(c, "text")), "Hello, world");
    ck_assert_str_eq(text_of(at(c, "finish_reason")), "stop");
    ck_assert(json_is_null(at(c, "stop_reason")));
    ck_assert(json_is_null(at(c, "logprobs")));
    const json_t *u = at(v, "usage");
    ck_assert_int_eq(int_of(at(u, "prompt_tokens")), 3);
    ck_assert_int_eq(int_of(at(u, "completion_tokens")), 12);
    ck_assert_int_eq(int_of(at(u, "total_tokens")), 15);
    ck_assert_int_eq(int_of(at(at(u, "prompt_tokens_details"), "cached_tokens")), 0);
    assert_lacks(r.body, "\"memory\"");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_completion_as_a_stream) {
    start();
    reply r = fake_post(&f, "/v1/completions",
                        JSON({"prompt":"abc","stream":true,"max_tokens":5,
                             "stream_options":{"include_usage":true}}));
    ck_assert_int_eq(r.status, 200);
    assert_has(r.head, "Content-Type: text/event-stream");
    assert_has(r.head, "Cache-Control: no-cache");
    assert_has(r.head, "X-Accel-Buffering: no");
    assert_has(r.head, "X-Request-Id: ");
    const char *finish;
    char *text = stream_text(r.body, 0, &finish);
    ck_assert_str_eq(text, "Hello");
    ck_assert_str_eq(finish, "length");
    assert_has(r.body,
               "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,");
    ck_assert_str_eq(r.body + r.n_body - 14, "data: [DONE]\n\n");
    free(text);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_chat_as_a_stream_begins_with_the_role_and_ends_with_an_empty_delta) {
    start();
    reply r = fake_post(&f, "/v1/chat/completions",
                        JSON({"messages":[{"role":"user","content":"Hi"}],"stream":true}));
    ck_assert_int_eq(r.status, 200);
    const char *finish;
    char *text = stream_text(r.body, 0, &finish);
    ck_assert_str_eq(text, "Hello, world");
    ck_assert_str_eq(finish, "stop");
    char *first = strstr(r.body, "\"delta\":{");
    ck_assert(strncmp(first, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", 40) == 0);
    assert_has(r.body, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"");
    assert_has(r.body, "\"id\":\"chatcmpl-");
    assert_has(r.body, "\"object\":\"chat.completion.chunk\"");
    free(text);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_chat_in_one_piece_with_parts_of_text) {
    start();
    reply r =
        fake_post(&f, "/v1/chat/completions",
                  JSON({"messages":[{"role":"system","content":"S"},{"role":"user",
                       "content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
                       "max_completion_tokens":4,"return_memory":true}));
    ck_assert_int_eq(r.status, 200);
    const json_t *v = parse(r.body);
    const json_t *c = json_array_get(at(v, "choices"), 0);
    ck_assert_str_eq(text_of(at(v, "object")), "chat.completion");
    ck_assert_str_eq(text_of(at(at(c, "message"), "content")), "Hell");
    ck_assert_str_eq(text_of(at(at(c, "message"), "role")), "assistant");
    ck_assert_str_eq(text_of(at(c, "finish_reason")), "length");
    /* <|im_start|>system\nS<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n
     */
    ck_assert_int_eq(int_of(at(at(v, "usage"), "prompt_tokens")),
                     3 + 7 + 1 + 5 + 2 + 10 + 2 + 3);
    ck_assert_int_eq(int_of(at(at(v, "memory"), "kv_peak_blocks")), 3);
    ck_assert_int_eq(int_of(at(at(v, "memory"), "kv_peak_bytes")), 4800);
    ck_assert_int_eq(int_of(at(at(v, "memory"), "preemptions")), 0);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(prompts_come_in_four_forms_and_choices_are_numbered) {
    start();
    static const struct {
        const char *body;
        int choices, prompt_tokens;
    } t[] = {{"{\"prompt\":\"abc\"}", 1, 3},
             {"{\"prompt\":[\"abc\",\"de\"],\"n\":2}", 4, 5},
             {"{\"prompt\":[97,98,99,100]}", 1, 4},
             {"{\"prompt\":[[97,98],[99],[100,101,102]],\"max_tokens\":3}", 3, 6}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        reply r = fake_post(&f, "/v1/completions", t[i].body);
        ck_assert_msg(r.status == 200, "%s", r.body);
        const json_t *v = parse(r.body);
        ck_assert_int_eq((int)json_array_size(at(v, "choices")), t[i].choices);
        for (int k = 0; k < t[i].choices; k++)
            ck_assert_int_eq(int_of(at(json_array_get(at(v, "choices"), (size_t)k), "index")),
                             k);
        ck_assert_int_eq(int_of(at(at(v, "usage"), "prompt_tokens")), t[i].prompt_tokens);
        reply_free(&r);
    }
    stop();
}
END_TEST

START_TEST(several_choices_stream_side_by_side) {
    start();
    reply r = fake_post(&f, "/v1/completions",
                        JSON({"prompt":["a","b"],"n":2,"stream":true,"seed":7}));
    for (int i = 0; i < 4; i++) {
        const char *finish;
        char *text = stream_text(r.body, i, &finish);
        ck_assert_str_eq(text, "Hello, world");
        ck_assert_str_eq(finish, "stop");
        free(text);
    }
    for (int i = 0; i < 4; i++) ck_assert_uint_eq(f.last_seed[i], 7u + (unsigned)i % 2);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(without_a_seed_each_request_draws_its_own) {
    start();
    uint64_t seed[3];
    for (int i = 0; i < 3; i++) {
        reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"a","max_tokens":1}));
        ck_assert_int_eq(r.status, 200);
        seed[i] = f.last_seed[0];
        reply_free(&r);
    }
    ck_assert(seed[0] != seed[1] && seed[1] != seed[2]);
    stop();
}
END_TEST

START_TEST(a_stop_string_is_never_shown_not_even_half) {
    start();
    for (int stream = 0; stream < 2; stream++) {
        char body[200];
        snprintf(body, sizeof body,
                 JSON({"prompt":"a","stop":["lo, wa",", wo","zzz"],"stream":%s}),
                       stream ? "true" : "false");
        reply r = fake_post(&f, "/v1/completions", body);
        ck_assert_int_eq(r.status, 200);
        const char *finish;
        char *text =
            stream
                ? stream_text(r.body, 0, &finish)
                : strdup(text_of(at(json_array_get(at(parse(r.body), "choices"), 0), "text")));
        ck_assert_str_eq(text, "Hello");
        assert_has(r.body, "\"finish_reason\":\"stop\",\"stop_reason\":\", wo\"");
        free(text);
        reply_free(&r);
    }
    stop();
}
END_TEST

START_TEST(a_half_stop_string_at_the_end_is_shown) {
    start();
    reply r =
        fake_post(&f, "/v1/completions", JSON({"prompt":"a","stop":"world!","stream":true}));
    const char *finish;
    char *text = stream_text(r.body, 0, &finish);
    ck_assert_str_eq(text, "Hello, world");
    free(text);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_stop_id_ends_the_text_and_is_named) {
    start();
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"a","stop_token_ids":[44]}));
    assert_has(r.body, "\"text\":\"Hello\"");
    assert_has(r.body, "\"finish_reason\":\"stop\",\"stop_reason\":44");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(characters_are_never_split) {
    fake_init(&f);
    f.says = "h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80!\xff.";
    fake_start(&f);
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"a","stream":true}));
    ck_assert(utf8_valid((str){r.body, r.n_body}));
    const char *finish;
    char *text = stream_text(r.body, 0, &finish);
    ck_assert_str_eq(text, "h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80!\xef\xbf\xbd.");
    free(text);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(logprobs_of_completions_are_four_lists) {
    start();
    reply r = fake_post(&f, "/v1/completions",
                        JSON({"prompt":"ab","max_tokens":3,"logprobs":2,"echo":true}));
    ck_assert_msg(r.status == 200, "%s", r.body);
    const json_t *c = json_array_get(at(parse(r.body), "choices"), 0);
    ck_assert_str_eq(text_of(at(c, "text")), "abHel");
    const json_t *l = at(c, "logprobs");
    ck_assert_int_eq((int)json_array_size(at(l, "tokens")), 5);
    ck_assert(json_is_null(json_array_get(at(l, "token_logprobs"), 0)));
    ck_assert(json_is_null(json_array_get(at(l, "top_logprobs"), 0)));
    for (size_t i = 0; i < 5; i++) {
        ck_assert_int_eq(int_of(json_array_get(at(l, "text_offset"), i)), (int)i);
        char want[2] = {"abHel"[i], 0};
        ck_assert_str_eq(text_of(json_array_get(at(l, "tokens"), i)), want);
        if (i == 0) continue;
        double lp = json_real_value(json_array_get(at(l, "token_logprobs"), i));
        ck_assert_double_eq_tol(lp, -0.25 * (want[0] % 7 + 1), 1e-7);
        const json_t *top = json_array_get(at(l, "top_logprobs"), i);
        ck_assert_int_eq((int)json_object_size(top), 2);
        ck_assert(json_object_get(top, want) != NULL);
    }
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(logprobs_of_chat_carry_bytes) {
    start();
    for (int stream = 0; stream < 2; stream++) {
        char body[256];
        snprintf(body, sizeof body,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"logprobs\":true,"
                 "\"top_logprobs\":1,\"max_tokens\":2,\"stream\":%s}",
                 stream ? "true" : "false");
        reply r = fake_post(&f, "/v1/chat/completions", body);
        assert_has(r.body,
                   "{\"token\":\"H\",\"logprob\":-0.75,\"bytes\":[72],\"top_logprobs\":[{"
                   "\"token\":\"H\",\"logprob\":-0.75,\"bytes\":[72]}]}");
        assert_has(r.body, "{\"token\":\"e\",");
        reply_free(&r);
    }
    stop();
}
END_TEST

START_TEST(logprobs_die_with_the_stop_string_they_belong_to) {
    start();
    reply r = fake_post(&f, "/v1/completions",
                        JSON({"prompt":"a","stop":"lo","logprobs":0,"stream":true}));
    assert_has(r.body, "\"tokens\":[\"H\"]");
    assert_has(r.body, "\"tokens\":[\"l\"]"); /* the first l of Hello */
    assert_lacks(r.body, "\"o\"");
    reply_free(&r);
    r = fake_post(&f, "/v1/completions", JSON({"prompt":"a","stop":"lo","logprobs":0}));
    assert_has(r.body, "\"tokens\":[\"H\",\"e\",\"l\"],");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_prompt_alone_can_be_scored) {
    start();
    reply r = fake_post(&f, "/v1/completions",
                        JSON({"prompt":"abc","max_tokens":0,"echo":true,"logprobs":0}));
    ck_assert_msg(r.status == 200, "%s", r.body);
    const json_t *v = parse(r.body), *c = json_array_get(at(v, "choices"), 0);
    ck_assert_str_eq(text_of(at(c, "text")), "abc");
    ck_assert_int_eq((int)json_array_size(at(at(c, "logprobs"), "tokens")), 3);
    ck_assert_int_eq(int_of(at(at(v, "usage"), "completion_tokens")), 0);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(continuous_usage_is_on_each_chunk) {
    start();
    reply r = fake_post(
        &f, "/v1/completions",
        JSON({"prompt":"a","stream":true,"max_tokens":2,
                       "stream_options":{"continuous_usage_stats":true,"include_usage":true}}));
    assert_has(r.body, "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,");
    assert_has(r.body, "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_timeout_keeps_what_was_said) {
    fake_init(&f);
    f.step_ms = 20;
    fake_start(&f);
    reply r = fake_post(&f, "/v1/completions",
                        JSON({"prompt":"a","max_tokens":200,"ignore_eos":true,"timeout":0.2}));
    ck_assert_int_eq(r.status, 200);
    assert_has(r.body, "\"text\":\"H");
    assert_has(r.body, "\"finish_reason\":\"length\",\"stop_reason\":\"timeout\"");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_deadline_before_the_first_token_is_408_or_an_error_event) {
    static const char *const more[] = {"", ",\"n\":3"};
    fake_init(&f);
    f.prefill_ms = 60000;
    fake_start(&f);
    for (int i = 0; i < 2; i++) {
        char body[128];
        snprintf(body, sizeof body, JSON({"prompt":"a","timeout":0.05%s}), more[i]);
        reply r = fake_post(&f, "/v1/completions", body);
        ASSERT_ERROR(r, 408, "timeout_error", "null");
        assert_has(r.body, "deadline passed before the first token");
        reply_free(&r);
        snprintf(body, sizeof body,
                 JSON({"prompt":"a","timeout":0.05,"stream":true%s}), more[i]);
        r = fake_post(&f, "/v1/completions", body);
        ck_assert_int_eq(r.status, 200);
        ck_assert(strncmp(r.body, "data: {\"error\":{", 16) == 0);
        assert_has(r.body, "\"type\":\"timeout_error\",\"param\":null,\"code\":408}}\n\n"
                           "data: [DONE]\n\n");
        reply_free(&r);
    }
    stop();
}
END_TEST

START_TEST(the_server_has_a_deadline_of_its_own) {
    fake_init(&f);
    f.prefill_ms = 60000;
    f.opt.request_timeout_s = 1;
    fake_start(&f);
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"a"}));
    ASSERT_ERROR(r, 408, "timeout_error", "null");
    reply_free(&r);
    r = fake_post(&f, "/v1/completions", JSON({"prompt":"a","timeout":3600}));
    ASSERT_ERROR(r, 408, "timeout_error", "null");
    ck_assert(f.gens[0].spec.timeout_us <= 1000000);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(every_refusal_of_the_table) {
    fake_init(&f);
    f.capacity = 2;
    f.budget_tokens = 300000;
    fake_start(&f);
    static const struct {
        const char *path, *body;
        int status;
        const char *type, *param;
    } t[] = {
        {"/v1/completions", "{\"prompt\":", 400, "invalid_request_error", "null"},
        {"/v1/completions", "", 400, "invalid_request_error", "null"},
        {"/v1/completions", "[]", 400, "invalid_request_error", "null"},
        {"/v1/completions", "{}", 400, "invalid_request_error", "\"prompt\""},
        {"/v1/completions", "{\"prompt\":[]}", 400, "invalid_request_error", "\"prompt\""},
        {"/v1/completions", "{\"prompt\":\"\"}", 400, "invalid_request_error", "\"prompt\""},
        {"/v1/completions", "{\"prompt\":[1.5]}", 400, "invalid_request_error", "\"prompt\""},
        {"/v1/completions", "{\"prompt\":[99999]}", 400, "invalid_request_error", "\"prompt\""},
        {"/v1/completions", "{\"prompt\":[\"a\",3]}", 400, "invalid_request_error",
         "\"prompt\""},
        {"/v1/completions", "{\"prompt\":\"a\",\"temperature\":-1}", 400,
         "invalid_request_error", "\"temperature\""},
        {"/v1/completions", "{\"prompt\":\"a\",\"model\":\"other\"}", 404, "not_found_error",
         "\"model\""},
        {"/v1/completions", "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400, "unsupported",
         "\"suffix\""},
        {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":262144}", 400,
         "exceed_context_size_error", "\"prompt\""},
        {"/v1/completions", "{\"prompt\":\"a\",\"n\":3}", 429, "rate_limit_error", "null"},
        /* More than could ever run and wait: no retry would help. */
        {"/v1/completions", "{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":100}", 400,
         "invalid_request_error", "\"n\""},
        {"/v1/embeddings", "{\"input\":\"a\"}", 400, "unsupported", "null"},
        {"/v1/responses", "{}", 400, "invalid_request_error", "\"input\""},
        {"/v1/rerank", "{}", 400, "invalid_request_error", "\"model\""},
        {"/v1/chat/completions", "{}", 400, "invalid_request_error", "\"messages\""},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
         "\"image_url\"}]}]}",
         400, "invalid_request_error", "\"messages[0].content[0]\""},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
         "\"tools\":[{}]}",
         400, "invalid_request_error", "\"tools[0].function\""},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
         "\"tools\":[{\"function\":{\"name\":\"f\"}}]}",
         400, "unsupported", "\"tools\""},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
         "\"response_format\":{\"type\":\"lark\"}}",
         400, "unsupported", "\"response_format\""},
        {"/v1/completions", "{\"prompt\":\"a\",\"guided_choice\":[]}", 400,
         "invalid_request_error", "\"guided_choice\""},
        {"/v1/completions", "{\"prompt\":\"a\",\"stream_options\":{\"include_usage\":true}}",
         400, "invalid_request_error", "\"stream_options\""},
        {"/v1/nothing", "{}", 404, "not_found_error", "null"},
        {"/tokenize", "{\"prompt\":5}", 400, "invalid_request_error", "\"prompt\""},
        {"/v1/plan", "{\"bad\":5}", 400, "invalid_request_error", "\"bad\""},
        {"/v1/plan", "{\"model\":5}", 400, "invalid_request_error", "\"model\""},
        {"/detokenize", "{\"tokens\":[-4]}", 400, "invalid_request_error", "\"tokens\""},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        reply r = fake_post(&f, t[i].path, t[i].body);
        char want[160];
        ck_assert_msg(r.status == t[i].status, "%s: %d\n%s", t[i].body, r.status, r.body);
        if (strcmp(t[i].type, "unsupported") == 0)
            snprintf(want, sizeof want,
                     "\"type\":\"invalid_request_error\",\"param\":%s,\"code\":"
                     "\"unsupported_parameter\"",
                     t[i].param);
        else
            snprintf(want, sizeof want, "\"type\":\"%s\",\"param\":%s,\"code\":%d", t[i].type,
                     t[i].param, t[i].status);
        assert_has(r.body, want);
        assert_has(r.head, "Content-Type: application/json");
        if (t[i].status == 429) assert_has(r.head, "Retry-After: 3");
        reply_free(&r);
    }
    ck_assert(fake_await(&f.n_live, 0, 2000)); /* what was submitted before the refusal */
    stop();
}
END_TEST

START_TEST(a_refused_length_tells_its_numbers) {
    fake_init(&f);
    f.budget_tokens = 100;
    fake_start(&f);
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"abcd","max_tokens":300000}));
    ASSERT_ERROR(r, 400, "exceed_context_size_error", "\"prompt\"");
    assert_has(r.body, "maximum context length is 262144 tokens");
    assert_has(r.body, "\"n_prompt_tokens\":4,\"n_ctx\":262144");
    reply_free(&r);
    r = fake_post(&f, "/v1/completions", JSON({"prompt":"abcd","max_tokens":100}));
    ASSERT_ERROR(r, 400, "exceed_memory_budget_error", "null");
    assert_has(r.body, "\"bytes_needed\":11200,\"budget_bytes\":160000");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(what_is_not_ready_says_so) {
    start();
    atomic_store(&f.not_ready, "draining");
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"a"}));
    ASSERT_ERROR(r, 503, "unavailable_error", "null");
    assert_has(r.head, "Retry-After: 3");
    reply_free(&r);
    r = fake_get(&f, "/ready");
    ASSERT_ERROR(r, 503, "unavailable_error", "null");
    assert_has(r.body, "draining");
    reply_free(&r);
    r = fake_get(&f, "/health");
    ASSERT_ERROR(r, 503, "unavailable_error", "null");
    assert_has(r.body, "draining");
    reply_free(&r);
    r = fake_get(&f, "/livez");
    ck_assert_int_eq(r.status, 200);
    reply_free(&r);
    atomic_store(&f.not_ready, "loading");
    r = fake_get(&f, "/health"); /* as llama.cpp has it */
    ASSERT_ERROR(r, 503, "unavailable_error", "null");
    assert_has(r.body, "\"Loading model\"");
    reply_free(&r);
    atomic_store(&f.not_ready, NULL);
    static const char *const probes[] = {"/ready", "/health", "/ping"};
    for (int i = 0; i < 3; i++) {
        r = fake_get(&f, probes[i]);
        ck_assert_int_eq(r.status, 200);
        reply_free(&r);
    }
    stop();
}
END_TEST

START_TEST(an_error_in_mid_stream_is_an_event_and_then_done) {
    fake_init(&f);
    f.fail_after_first = true;
    fake_start(&f);
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"a","stream":true}));
    ck_assert_int_eq(r.status, 200);
    assert_has(r.body, "\"text\":\"H\"");
    assert_has(r.body, "data: {\"error\":{\"message\":\"the engine failed\",\"type\":"
                       "\"server_error\",\"param\":null,\"code\":500}}\n\ndata: [DONE]\n\n");
    reply_free(&r);
    r = fake_post(&f, "/v1/completions", JSON({"prompt":"a"}));
    ASSERT_ERROR(r, 500, "server_error", "null");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_model_whose_template_is_missing_or_does_not_parse_refuses_chat) {
    static const char *const templates[] = {NULL, "{{ messages }}\n{% include 'x' %}"};
    static const char *const why[] = {"the model has no chat template", "include"};
    for (int i = 0; i < 2; i++) {
        fake_init(&f);
        f.chat_template = templates[i];
        fake_start(&f);
        reply r = fake_post(&f, "/v1/chat/completions",
                            JSON({"messages":[{"role":"user","content":"a"}]}));
        ASSERT_ERROR(r, 400, "invalid_request_error", "\"chat_template\"");
        assert_has(r.body, why[i]);
        reply_free(&r);
        r = fake_post(&f, "/v1/completions", JSON({"prompt":"a"}));
        ck_assert_int_eq(r.status, 200);
        reply_free(&r);
        stop();
    }
}
END_TEST

START_TEST(long_prompts_are_tokenised_off_the_loop) {
    start();
    size_t n = 20000;
    char *body = malloc(n + 200);
    int k = sprintf(body, "{\"max_tokens\":2,\"prompt\":\"");
    memset(body + k, 'x', n);
    strcpy(body + k + n, "\"}");
    reply r = fake_post(&f, "/v1/completions", body);
    ck_assert_int_eq(r.status, 200);
    assert_has(r.body, "\"prompt_tokens\":20000");
    ck_assert_uint_eq(atomic_load(&f.n_offloaded), 1);
    reply_free(&r);
    /* A client that leaves meanwhile takes nothing with it. */
    for (int i = 0; i < 20; i++) {
        int fd = fake_connect(&f);
        char *text = fake_post_text("/v1/completions", body);
        fake_send(fd, text, strlen(text));
        if (i % 2) usleep(300);
        close(fd);
        free(text);
    }
    free(body);
    stop();
}
END_TEST

START_TEST(small_documents) {
    start();
    reply r = fake_get(&f, "/v1/models");
    const json_t *m = json_array_get(at(parse(r.body), "data"), 0);
    ck_assert_str_eq(text_of(at(m, "id")), "fake");
    ck_assert_int_eq(int_of(at(m, "max_model_len")), 262144);
    ck_assert_int_eq(int_of(at(at(m, "meta"), "n_params")), 1000);
    reply_free(&r);
    r = fake_get(&f, "/v1/models/fake");
    ck_assert_str_eq(text_of(at(parse(r.body), "id")), "fake");
    reply_free(&r);
    r = fake_get(&f, "/v1/models/none");
    ASSERT_ERROR(r, 404, "not_found_error", "\"model\"");
    reply_free(&r);
    r = fake_post(&f, "/tokenize", JSON({"prompt":"ab<|im_end|>"}));
    assert_has(r.body, JSON({"count":3,"max_model_len":262144,"tokens":[97,98,257]}));
    reply_free(&r);
    r = fake_post(&f, "/v1/plan", JSON({"max_num_seqs":8,"model":"fake"}));
    assert_has(r.body, "\"members\":2");
    reply_free(&r);
    r = fake_post(&f, "/tokenize", JSON({"content":"ab","return_token_strs":true}));
    assert_has(r.body, "\"tokens\":[97,98],\"token_strs\":[\"a\",\"b\"]");
    reply_free(&r);
    r = fake_post(&f, "/detokenize", JSON({"tokens":[72,105,257]}));
    ck_assert_str_eq(r.body, JSON({"prompt":"Hi<|im_end|>","content":"Hi<|im_end|>"}));
    reply_free(&r);
    r = fake_get(&f, "/");
    ck_assert_int_eq(r.status, 200);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(the_memory_account_adds_up) {
    start();
    reply r = fake_get(&f, "/v1/memory");
    ck_assert_int_eq(r.status, 200);
    const json_t *v = parse(r.body), *c;
    size_t i;
    long long sum = 0, http = 0;
    json_array_foreach(at(v, "classes"), i, c) {
        sum += int_of(at(c, "ledger_bytes"));
        if (strcmp(text_of(at(c, "class")), "http") == 0) http = int_of(at(c, "ledger_bytes"));
    }
    /* one connection, ours, and the table */
    ck_assert_int_eq(http, (long long)(HTTP_CONN_BYTES + http_table_bytes(64)));
    ck_assert_int_eq(int_of(at(at(v, "kv"), "blocks")), 100);
    ck_assert_str_eq(text_of(at(at(v, "kv"), "type_k")), "F32");
    ck_assert_str_eq(text_of(at(at(v, "kv"), "type_v")), "F16");
    long long unaccounted = int_of(at(v, "unaccounted_bytes"));
    ck_assert_int_eq(int_of(at(at(v, "process"), "anonymous_bytes")) - sum, unaccounted);
    ck_assert(json_is_array(at(v, "sequences")));
    reply_free(&r);
    r = fake_text(&f, "GET /v1/memory HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n"
                      "Connection: close\r\n\r\n");
    assert_has(r.head, "text/plain");
    assert_has(r.body, "requests");
    assert_has(r.body,
               "kv: K F32, V F16, 100 blocks of 16 tokens: 60 free, 30 used, 10 cached");
    reply_free(&r);
    stop();
}
END_TEST

int main(void) {
    Suite *s = suite_create("server");
    TCase *t = check_case(s, "server");
    tcase_add_test(t, a_completion_in_one_piece);
    tcase_add_test(t, a_completion_as_a_stream);
    tcase_add_test(t, a_chat_as_a_stream_begins_with_the_role_and_ends_with_an_empty_delta);
    tcase_add_test(t, a_chat_in_one_piece_with_parts_of_text);
    tcase_add_test(t, prompts_come_in_four_forms_and_choices_are_numbered);
    tcase_add_test(t, several_choices_stream_side_by_side);
    tcase_add_test(t, without_a_seed_each_request_draws_its_own);
    tcase_add_test(t, a_stop_string_is_never_shown_not_even_half);
    tcase_add_test(t, a_half_stop_string_at_the_end_is_shown);
    tcase_add_test(t, a_stop_id_ends_the_text_and_is_named);
    tcase_add_test(t, characters_are_never_split);
    tcase_add_test(t, logprobs_of_completions_are_four_lists);
    tcase_add_test(t, logprobs_of_chat_carry_bytes);
    tcase_add_test(t, logprobs_die_with_the_stop_string_they_belong_to);
    tcase_add_test(t, a_prompt_alone_can_be_scored);
    tcase_add_test(t, continuous_usage_is_on_each_chunk);
    tcase_add_test(t, a_timeout_keeps_what_was_said);
    tcase_add_test(t, a_deadline_before_the_first_token_is_408_or_an_error_event);
    tcase_add_test(t, the_server_has_a_deadline_of_its_own);
    tcase_add_test(t, every_refusal_of_the_table);
    tcase_add_test(t, a_refused_length_tells_its_numbers);
    tcase_add_test(t, what_is_not_ready_says_so);
    tcase_add_test(t, an_error_in_mid_stream_is_an_event_and_then_done);
    tcase_add_test(t, a_model_whose_template_is_missing_or_does_not_parse_refuses_chat);
    tcase_add_test(t, long_prompts_are_tokenised_off_the_loop);
    tcase_add_test(t, small_documents);
    tcase_add_test(t, the_memory_account_adds_up);
    return check_run(s);
}
