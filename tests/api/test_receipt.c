/* Receipts over real sockets: what requests took, why prefixes were not found; and forgetting those. */
#include "tests/api/fake_one.h"

static double real_at(const json_t *o, const char *name) {
    return json_number_value(at(o, name));
}

/* Two prompts of 40 tokens, two choices each: sums of all, found tokens of each prompt once. */
START_TEST(a_receipt_sums_up_all_sequences) {
    start();
    f.joules = 0.5;
    char body[512];
    snprintf(body, sizeof body,
             "{\"prompt\":[\"%040d\",\"%040d\"],\"n\":2,\"max_tokens\":4,\"receipt\":true}", 0,
             1);
    reply r = fake_post(&f, "/v1/completions", body);
    ck_assert_msg(r.status == 200, "%s", r.body);
    const json_t *m = at(at(parse(r.body), "usage"), "memory"), *kv = at(m, "kv");
    ck_assert_int_eq(int_of(at(kv, "peak_blocks")), 4 * 3);
    ck_assert_int_eq(int_of(at(kv, "peak_bytes")), 4 * 3 * 1600);
    ck_assert(real_at(kv, "byte_seconds") > 0.99 && real_at(kv, "byte_seconds") < 1.01);
    ck_assert_str_eq(text_of(at(kv, "type_k")), "F32");
    ck_assert_int_eq(int_of(at(at(m, "cached_tokens"), "memory")), 2 * 16);
    ck_assert_int_eq(int_of(at(at(m, "cached_tokens"), "disk")), 2 * 16);
    ck_assert_int_eq(int_of(at(at(m, "loaded"), "bytes")), 4 * 4096);
    ck_assert(real_at(at(m, "loaded"), "ms") > 1.49 && real_at(at(m, "loaded"), "ms") < 1.51);
    ck_assert_int_eq(int_of(at(m, "recomputed_tokens")), 8);
    ck_assert_int_eq(int_of(at(m, "steps")), 4 * 5);
    ck_assert(real_at(m, "queue_ms") > 0.99 && real_at(m, "queue_ms") < 1.01);
    ck_assert(real_at(m, "prefill_ms") > 2.49 && real_at(m, "prefill_ms") < 2.51);
    ck_assert(real_at(m, "decode_ms") > 6.49 && real_at(m, "decode_ms") < 6.51);
    ck_assert(real_at(m, "energy_joules") > 1.99 && real_at(m, "energy_joules") < 2.01);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_receipt_says_which_tier_had_tokens) {
    fake_init(&f);
    f.tier = (kv_tier_view){.in_memory = true, .budget_bytes = 4096};
    fake_start(&f);
    reply r = fake_post_with(&f, "/v1/completions",
                             "{\"prompt\":\"0123456789012345678901234567890123456789\"}",
                             "X-Vramd-Receipt: 1\r\n");
    assert_has(r.body, "\"cached_tokens\":{\"memory\":16,\"host\":16,\"disk\":0}");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

/* Where "memory" stands in an answer, and that no request gets one that did not ask for it. */
START_TEST(every_api_has_a_receipt_in_its_usage) {
    start();
    static const struct {
        const char *path, *body, *usage;
    } t[] = {{"/v1/completions", "\"prompt\":\"a\"", "\"usage\":{\"prompt_tokens\":1,"},
             {"/v1/chat/completions", "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]",
              "\"usage\":{\"prompt_tokens\":"},
             {"/v1/responses", "\"input\":\"a\"", "\"usage\":{\"input_tokens\":"},
             {"/v1/messages",
              "\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]",
              "\"usage\":{\"input_tokens\":"}};
    for (size_t i = 0; i < 2 * sizeof t / sizeof *t; i++) {
        char body[256];
        const bool stream = i % 2;
        snprintf(body, sizeof body, "{%s,\"stream\":%s}", t[i / 2].body,
                 stream ? "true" : "false");
        reply r = fake_post(&f, t[i / 2].path, body);
        ck_assert_msg(r.status == 200 && !strstr(r.body, "\"memory\""), "%s", r.body);
        reply_free(&r);
        r = fake_post_with(&f, t[i / 2].path, body, "X-Vramd-Receipt: 1\r\n");
        ck_assert_msg(r.status == 200, "%s", r.body);
        const char *at = strstr(r.body, ",\"memory\":{\"kv\":{\"type_k\"");
        ck_assert_msg(at && !strstr(at + 2, "\"memory\":{\"kv\""), "%s", r.body);
        const char *usage = NULL;
        for (const char *next = r.body; (next = strstr(next, t[i / 2].usage)) && next < at;
             next++)
            usage = next;
        ck_assert_msg(usage && !memchr(usage, '\n', (size_t)(at - usage)), "%s", r.body);
        reply_free(&r);
    }
    stop();
}
END_TEST

/* Tokens are characters, and marks: <|im_start|> system \n S <|im_end|> \n, 11 in all; then 6 before
 * the text of the user, and so on. */
START_TEST(a_receipt_says_where_a_prompt_differs) {
    static const struct {
        uint32_t at_token;
        int index;
        const char *in, *role;
    } t[] = {{0, 0, "template", "system"},    {7, 0, "template", "system"},
             {8, 0, "content", "system"},     {9, 1, "template", "user"},
             {16, 1, "template", "user"},     {17, 1, "content", "user"},
             {19, 1, "content", "user"},      {20, 2, "template", "assistant"},
             {33, 2, "content", "assistant"}, {36, 3, "template", "user"},
             {43, 3, "template", "user"},     {44, 3, "content", "user"},
             {46, 3, "content", "user"},      {47, 3, "template", "user"}};
    start();
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        f.miss = (sched_miss){.why = WHY_TOKENS_DIFFER,
                              .at_token = t[i].at_token,
                              .n_old = 3,
                              .old = {'x', 'y', 'z'},
                              .nearest = "chatcmpl-1"};
        reply r =
            fake_post(&f, "/v1/chat/completions",
                      JSON({"messages":[{"role":"system","content":"S"},
                 {"role":"user","content":[{"type":"text","text":"s"},{"type":"text","text":"t"}]},
                 {"role":"assistant","content":" a "},{"role":"user","content":"u\u00e9"}],
                 "receipt":true}));
        ck_assert_msg(r.status == 200, "%s", r.body);
        const json_t *p = at(at(at(parse(r.body), "usage"), "memory"), "prefix");
        ck_assert_str_eq(text_of(at(p, "why")), "tokens_differ");
        ck_assert_msg(int_of(at(at(p, "message"), "index")) == t[i].index, "%zu: %s", i,
                      r.body);
        ck_assert_msg(strcmp(text_of(at(at(p, "message"), "in")), t[i].in) == 0, "%zu: %s", i,
                      r.body);
        ck_assert_str_eq(text_of(at(at(p, "message"), "role")), t[i].role);
        ck_assert_str_eq(text_of(at(p, "old")), "xyz");
        ck_assert_str_eq(text_of(at(p, "nearest_request")), "chatcmpl-1");
        reply_free(&r);
    }
    f.miss = (sched_miss){.why = WHY_EVICTED, .at_token = 16, .nearest = "chatcmpl-2"};
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"abc","receipt":true}));
    const json_t *p = at(at(at(parse(r.body), "usage"), "memory"), "prefix");
    ck_assert_str_eq(text_of(at(p, "why")), "evicted");
    ck_assert(!json_object_get(p, "message") && !json_object_get(p, "old"));
    reply_free(&r);
    /* Who comes through a proxy may be anyone. */
    r = fake_post_with(&f, "/v1/completions",
                       JSON({"prompt":"abc","receipt":true}), "Forwarded: for=192.0.2.1\r\n");
    assert_has(r.body, "\"prefix\":{\"cached_tokens\":0,\"of\":3,\"why\":\"evicted\"}");
    reply_free(&r);
    stop();
}
END_TEST

static reply send_delete(const char *target, const char *header) {
    char text[256];
    snprintf(text, sizeof text, "DELETE %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n",
             target, header);
    return fake_text(&f, text);
}

START_TEST(prefixes_are_forgotten_for_those_who_may) {
    static const struct {
        const char *target, *header;
        int status;
        const char *salt, *body;
    } t[] = {
        {"/v1/cache", "", 200, "*",
         "{\"blocks\":3,\"bytes\":300,\"files\":2,\"file_bytes\":8192}"},
        {"/v1/cache/?salt=a%20b&x=1", "", 200, "a b", "\"blocks\":3"},
        {"/v1/cache?salt=", "", 200, "", "\"blocks\":3"},
        {"/v1/cache?salt", "", 200, "", "\"blocks\":3"},
        {"/v1/cache?tenant=alice", "", 400, "-", "\"param\":\"tenant\""},
        {"/v1/cache", "X-Forwarded-For: 192.0.2.1\r\n", 403, "-", "may remove cached prefixes"},
        {"/v1/cache", "Origin: http://a.example\r\n", 403, "-", "may remove cached prefixes"},
    };
    start();
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        strcpy(f.forgot, "-");
        f.n_forgot = 1;
        reply r = send_delete(t[i].target, t[i].header);
        ck_assert_msg(r.status == t[i].status, "%zu: %d %s", i, r.status, r.body);
        assert_has(r.body, t[i].body);
        ck_assert_uint_eq(f.n_forgot, strlen(t[i].salt));
        ck_assert_str_eq(f.forgot, t[i].salt);
        reply_free(&r);
    }
    f.forget_fails = true;
    reply r = send_delete("/v1/cache", "");
    ck_assert_int_eq(r.status, 500);
    reply_free(&r);
    r = fake_get(&f, "/v1/cache");
    ck_assert_int_eq(r.status, 405);
    assert_has(r.head, "Allow: DELETE, OPTIONS");
    reply_free(&r);
    r = send_delete("/v1/models", "");
    ck_assert_int_eq(r.status, 405);
    reply_free(&r);
    stop();
}
END_TEST

CHECK_MAIN("receipt", a_receipt_says_which_tier_had_tokens, a_receipt_sums_up_all_sequences,
           every_api_has_a_receipt_in_its_usage, a_receipt_says_where_a_prompt_differs,
           prefixes_are_forgotten_for_those_who_may)
