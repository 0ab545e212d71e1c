/* What requests of other servers' clients ask for, and the answers that they rely on. */
#include "tests/api/fake_one.h"

START_TEST(logprobs_have_one_key_a_token_whatever_its_bytes) {
    start_as(NULL, "\xc3\xa9");
    EXPECT("/v1/completions",
           JSON({"prompt":"a","logprobs":2}), 200,
                "\"tokens\":[\"bytes:\\\\xc3\",\"bytes:\\\\xa9\"]",
                "\"top_logprobs\":[{\"C\":-1.75,\"D\":-2.25,\"bytes:\\\\xc3\":-1.75}");
    /* 0: the chosen one alone */
    EXPECT("/v1/completions",
           JSON({"prompt":"a","logprobs":0}), 200,
                "\"top_logprobs\":[{\"bytes:\\\\xc3\":-1.75},{\"bytes:\\\\xa9\":");
    EXPECT("/v1/completions",
           JSON({"prompt":"a","logprobs":1,"return_tokens_as_token_ids":true}), 200,
                "\"tokens\":[\"token_id:195\",\"token_id:169\"]",
                "{\"token_id:67\":-1.75,\"token_id:195\":-1.75}");
    EXPECT("/v1/chat/completions",
           "{" MESSAGES ",\"logprobs\":true,\"top_logprobs\":1,"
           "\"return_tokens_as_token_ids\":true}",
           200, "{\"token\":\"token_id:195\",\"logprob\":-1.75,\"bytes\":[195]",
           "{\"token\":\"token_id:67\"");
    stop();
}
END_TEST

START_TEST(offsets_of_an_echoed_prompt_count_its_special_tokens) {
    start_as(NULL, "x");
    EXPECT("/v1/completions",
           JSON({"prompt":"<|im_start|>us","echo":true,"logprobs":0,"max_tokens":0}), 200,
                "\"text\":\"<|im_start|>us\"", "\"text_offset\":[0,12,13]");
    /* Ids are shown without them, unless they are wanted. */
    EXPECT("/v1/completions", JSON({"prompt":[256,97],"echo":true,"max_tokens":0}), 200,
                                   "\"text\":\"a\"");
    EXPECT("/v1/completions",
           JSON({"prompt":[256,97],"echo":true,"max_tokens":0,"skip_special_tokens":false}),
                200, "\"text\":\"<|im_start|>a\"");
    stop();
}
END_TEST

START_TEST(usage_of_a_stream_starts_at_0_and_comes_only_where_it_is_included) {
    start_as(NULL, "Hey");
    reply r = fake_post(&f, "/v1/chat/completions",
                        "{" MESSAGES ",\"stream\":true,\"stream_options\":{"
                        "\"include_usage\":true,\"continuous_usage_stats\":true}}");
    char *role = strstr(r.body, "\"role\":\"assistant\"");
    assert_has(role, "\"completion_tokens\":");
    ck_assert_int_eq(atoi(strstr(role, "\"completion_tokens\":") + 20), 0);
    assert_has(r.body, "\"completion_tokens\":3");
    reply_free(&r);
    r = fake_post(&f, "/v1/chat/completions",
                  "{" MESSAGES ",\"stream\":true,\"stream_options\":{"
                  "\"include_usage\":false,\"continuous_usage_stats\":true}}");
    assert_lacks(r.body, "\"usage\"");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(the_end_of_a_stream_is_in_the_chunk_of_the_last_text) {
    start_as(NULL, "Hello");
    EXPECT("/v1/chat/completions", "{" MESSAGES ",\"stream\":true,\"max_tokens\":2}", 200,
           "\"delta\":{\"content\":\"e\"},\"logprobs\":null,\"finish_reason\":\"length\"");
    EXPECT("/v1/completions", JSON({"prompt":"a","stream":true,"max_tokens":2,"logprobs":0}),
                                   200, "\"text\":\"e\",\"logprobs\":{\"tokens\":[\"e\"]");
    EXPECT("/v1/completions",
           JSON({"prompt":"a","stream":true,"stop":"lo","include_stop_str_in_output":true}),
                200, "\"text\":\"lo\",\"logprobs\":null,\"finish_reason\":\"stop\"");
    stop();
}
END_TEST

START_TEST(a_stop_string_or_token_is_shown_where_it_is_wanted) {
    start_as(NULL, "Hello, world");
    EXPECT("/v1/completions", JSON({"prompt":"a","stop":"lo","logprobs":0}), 200,
                                   "\"text\":\"Hel\"", "\"tokens\":[\"H\",\"e\",\"l\"]");
    EXPECT("/v1/completions",
           JSON({"prompt":"a","stop":"lo","logprobs":0,"include_stop_str_in_output":true}), 200,
                "\"text\":\"Hello\"", "\"tokens\":[\"H\",\"e\",\"l\",\"l\",\"o\"]",
                "\"stop_reason\":\"lo\"");
    EXPECT("/v1/completions",
           JSON({"prompt":"a","stop_token_ids":[111],"include_stop_str_in_output":true}), 200,
                 "\"text\":\"Hello\"", "\"stop_reason\":111");
    EXPECT("/v1/completions",
           JSON({"prompt":"a","stop":["0","1","2","3","4","5","6","7","8","9","A","B","C","D",
                "E","F","G","w"]}),
                 200, "\"text\":\"Hello, \"", "\"stop_reason\":\"w\"");
    stop();
}
END_TEST

START_TEST(token_ids_of_prompt_and_output_are_returned) {
    start_as(NULL, "Hey");
    EXPECT("/v1/completions",
           JSON({"prompt":"ab","return_token_ids":true}), 200,
                "\"prompt_token_ids\":[97,98],\"token_ids\":[72,101,121,258]}");
    EXPECT("/v1/chat/completions", "{" MESSAGES ",\"return_token_ids\":true,\"max_tokens\":2}",
           200, "\"token_ids\":[72,101]}],\"prompt_token_ids\":[256,117,115,");
    reply r = fake_post(
        &f, "/v1/completions",
        JSON({"prompt":["ab","c"],"stream":true,"max_tokens":2,"return_token_ids":true}));
    assert_has(r.body, "\"prompt_token_ids\":[97,98],\"token_ids\":[72]");
    assert_has(r.body, "\"prompt_token_ids\":[99],\"token_ids\":[72]");
    assert_has(r.body, "\"logprobs\":null,\"token_ids\":[101],\"finish_reason\":\"length\"");
    reply_free(&r);
    r = fake_post(&f, "/v1/chat/completions",
                  "{" MESSAGES ",\"return_token_ids\":true,\"stream\":true}");
    assert_has(r.body, "\"finish_reason\":null}],\"prompt_token_ids\":[256,117,115,");
    assert_has(r.body, "\"delta\":{},\"logprobs\":null,\"token_ids\":[258],\"finish_reason\"");
    reply_free(&r);
    r = fake_post(&f, "/v1/completions", JSON({"prompt":"ab"}));
    assert_lacks(r.body, "token_ids");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(prompt_logprobs_are_by_token_id_with_ranks) {
    static const char scores[] =
        "\"prompt_logprobs\":[null,{\"98\":{\"logprob\":-0.25,\"rank\":1,"
        "\"decoded_token\":\"b\"},\"99\":{\"logprob\":-0.75,\"rank\":2,\"decoded_token\":\"c\"}"
        "}]";
    start_as(NULL, "Hey");
    EXPECT("/v1/completions", JSON({"prompt":"ab","prompt_logprobs":2}), 200,
                                   "\"logprobs\":null", scores);
    EXPECT("/v1/completions", JSON({"prompt":"ab","prompt_logprobs":2,"logprobs":1,"n":2}), 200,
                                   "\"index\":1", "\"top_logprobs\":[{\"H\":-0.75},", scores);
    EXPECT("/v1/completions",
           JSON({"prompt":"ab","prompt_logprobs":0,"max_tokens":0}), 200,
                "\"prompt_logprobs\":[null,{\"98\":{\"logprob\":-0.25,\"rank\":null,");
    EXPECT("/v1/chat/completions", "{" MESSAGES ",\"prompt_logprobs\":1}", 200,
           "],\"prompt_logprobs\":[null,{\"117\":");
    stop();
}
END_TEST

START_TEST(a_long_prompt_is_cut_from_its_beginning) {
    fake_init(&f);
    f.says = "Hey";
    f.pool_want = 128 << 20;
    fake_start(&f);
    EXPECT("/v1/completions",
           JSON({"prompt":"abcdefgh","truncate_prompt_tokens":3,"echo":true}), 200,
                "\"text\":\"fghHey\"", "\"prompt_tokens\":3");
    EXPECT("/v1/completions", JSON({"prompt":[1,2,3,4],"truncate_prompt_tokens":9}), 200,
                                   "\"prompt_tokens\":4");
    EXPECT("/v1/completions", JSON({"prompt":"a","truncate_prompt_tokens":300000}), 400,
                                   "\"param\":\"truncate_prompt_tokens\"");
    char *body = malloc(300100);
    int n = sprintf(body, "{\"truncate_prompt_tokens\":-1,\"max_tokens\":144,\"prompt\":\"");
    memset(body + n, 'x', 300000);
    strcpy(body + n + 300000, "\"}");
    EXPECT("/v1/completions", body, 200, "\"prompt_tokens\":262000");
    free(body);
    stop();
}
END_TEST

START_TEST(of_best_of_choices_n_are_returned_and_all_are_counted) {
    start_as(NULL, "Hey");
    EXPECT("/v1/completions", JSON({"prompt":"ab","best_of":4,"n":2,"max_tokens":2}), 200,
                                   "\"index\":1", "\"completion_tokens\":8");
    reply r = fake_post(&f, "/v1/completions",
                        JSON({"prompt":["ab","c"],"best_of":4,"max_tokens":2}));
    assert_has(r.body, "\"index\":1");
    assert_lacks(r.body, "\"index\":2");
    assert_lacks(r.body, "\"tokens\"");
    reply_free(&r);
    stop();
}
END_TEST

/* What the prompt of a chat is, as text. */
static void expect_prompt(const char *body, const char *text) {
    reply r = fake_post(&f, "/tokenize", body);
    ck_assert_msg(r.status == 200, "%s", r.body);
    char *list = strstr(r.body, "\"tokens\":"), *both;
    list[strcspn(list, "]") + 1] = '\0';
    ck_assert(asprintf(&both, "{%s}", list) > 0);
    reply d = fake_post(&f, "/detokenize", both);
    assert_has(d.body, text);
    free(both);
    reply_free(&r);
    reply_free(&d);
}

#define USER "{\"role\":\"user\",\"content\":\"Hi\"}"
#define LAST "{\"role\":\"assistant\",\"content\":\" I am \"}"

START_TEST(a_last_message_is_continued) {
    start_as(NULL, "Hey");
    expect_prompt("{\"messages\":[" USER "]}",
                  "\"<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n\"");
    expect_prompt("{\"messages\":[" USER "],\"add_generation_prompt\":false}",
                  "\"<|im_start|>user\\nHi<|im_end|>\\n\"");
    expect_prompt("{\"messages\":[" USER "," LAST
                  "],\"add_generation_prompt\":false,\"continue_final_message\":true}",
                  "<|im_start|>assistant\\n I am \"");
    EXPECT("/v1/chat/completions",
           "{\"messages\":[" USER "," LAST "],\"add_generation_prompt\":false,"
           "\"continue_final_message\":true,\"echo\":true}",
           200, "\"content\":\" I am Hey\"");
    EXPECT("/v1/chat/completions",
           "{\"messages\":[" USER "," LAST "],\"add_generation_prompt\":false,"
           "\"continue_final_message\":true,\"return_token_ids\":true}",
           200, "\"content\":\"Hey\"", "10,32,73,32,97,109,32]");
    EXPECT("/v1/chat/completions", "{" MESSAGES ",\"echo\":true}", 200, "\"content\":\"Hey\"");
    EXPECT("/v1/chat/completions", "{" MESSAGES ",\"continue_final_message\":true}", 400,
           "\"param\":\"continue_final_message\"");
    stop();
}
END_TEST

START_TEST(the_history_of_an_assistant_is_taken_or_refused_by_name) {
    start_as(NULL, "Hey");
    EXPECT("/v1/chat/completions",
           JSON({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[
                {"type":"refusal","refusal":"no"}]},{"role":"user","content":"b"}]}),
                              200, "Hey");
    EXPECT("/v1/chat/completions",
           JSON({"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{}]}]}), 400,
                  "\"param\":\"messages[1].tool_calls\",\"code\":\"unsupported_parameter\"");
    EXPECT("/v1/chat/completions",
           JSON({"messages":[{"role":"user","content":"a"},{"role":"assistant","function_call":{}}]}), 400,
                  "\"param\":\"messages[1].function_call\",\"code\":\"unsupported_parameter\"");
    /* Any role is the template's to show or to refuse. */
    EXPECT("/v1/chat/completions",
           JSON({"messages":[{"role":"tool","content":"a","tool_call_id":"x"}]}), 200, "Hey");
    stop();
}
END_TEST

START_TEST(paths_have_aliases) {
    start_as(NULL, "Hey");
    static const char *const gets[] = {"/v1/models",  "/models",         "/v1/models/",
                                       "//v1/models", "/v1/models/fake", "//models/fake/"};
    for (size_t i = 0; i < sizeof gets / sizeof *gets; i++) {
        reply r = fake_get(&f, gets[i]);
        ck_assert_msg(r.status == 200, "%s: %d", gets[i], r.status);
        assert_has(r.body, "\"id\":\"fake\"");
        reply_free(&r);
    }
    static const char *const posts[] = {"/completions", "/v1/completions/", "//v1/completions",
                                        "/completions/"};
    for (size_t i = 0; i < sizeof posts / sizeof *posts; i++)
        EXPECT(posts[i], JSON({"prompt":"a"}), 200, "\"text\":\"Hey\"");
    EXPECT("/chat/completions", "{" MESSAGES "}", 200, "\"content\":\"Hey\"");
    EXPECT("/embeddings", "{}", 400, "unsupported_parameter");
    reply r = fake_get(&f, "/memory");
    ck_assert_int_eq(r.status, 404);
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(a_model_has_the_names_that_it_is_given_and_no_path) {
    fake_init(&f);
    f.model_names = "fake, other ,third";
    fake_start(&f);
    reply r = fake_get(&f, "/v1/models");
    assert_has(r.body, "{\"id\":\"fake\"");
    assert_has(r.body, "{\"id\":\"other\"");
    assert_has(r.body, "{\"id\":\"third\"");
    assert_has(r.body, "\"root\":\"fake\"");
    assert_lacks(r.body, "/models/");
    reply_free(&r);
    EXPECT("/v1/completions", JSON({"prompt":"a","model":"other"}), 200, "\"model\":\"other\"",
                                   "\"system_fingerprint\":\"fp_");
    EXPECT("/v1/completions", JSON({"prompt":"a","model":"third","stream":true}), 200,
                                   "\"model\":\"third\",\"system_fingerprint\":\"fp_");
    EXPECT("/v1/completions", JSON({"prompt":"a"}), 200, "\"model\":\"fake\"");
    EXPECT("/v1/completions", JSON({"prompt":"a","model":"fake, other"}), 404, "\"model\"");
    r = fake_get(&f, "/v1/models/other");
    assert_has(r.body, "\"id\":\"other\"");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(small_endpoints_of_other_servers) {
    start_as(NULL, "Hey");
    static const struct {
        const char *path, *text;
    } t[] = {{"/version", "{\"version\":\"" VRAMD_VERSION "\"}"},
             {"/ping", "ok"},
             {"/load", "{\"server_load\":0}"},
             {"/tokenizer_info", "\"eos_token\":\"<|endoftext|>\",\"chat_template\":\"{%"}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        reply r = fake_get(&f, t[i].path);
        ck_assert_msg(r.status == 200, "%s", t[i].path);
        assert_has(r.body, t[i].text);
        reply_free(&r);
    }
    EXPECT("/ping", "{}", 200, "ok");
    EXPECT("/tokenize",
           JSON({"content":"a\u00e9","with_pieces":true}), 200,
                "\"tokens\":[{\"id\":97,\"piece\":\"a\"},{\"id\":195,\"piece\":[195]}");
    EXPECT("/tokenize", "{" MESSAGES ",\"return_token_strs\":true}", 200,
           "\"token_strs\":[\"<|im_start|>\",\"u\"");
    stop();
}
END_TEST

START_TEST(a_form_is_no_json) {
    start_as(NULL, "Hey");
    reply r = fake_text(&f, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                            "Content-Type: application/x-www-form-urlencoded\r\n"
                            "Content-Length: 14\r\n\r\n{\"prompt\":\"a\"}");
    ASSERT_ERROR(r, 415, "invalid_request_error", "null");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(numbers_without_end_are_named_where_they_are_read) {
    start_as(NULL, "Hey");
    EXPECT(
        "/v1/completions",
        "{\"prompt\":\"a\",\"x\":123456789012345678901234567890,\"y\":1e400,\"a\\u0000b\":1}",
        200, "Hey");
    EXPECT("/v1/completions", "{\"prompt\":\"a\",\"seed\":18446744073709551615}", 400,
           "\"param\":\"seed\"");
    EXPECT("/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":1e400}", 400,
           "\"param\":\"max_tokens\"");
    stop();
}
END_TEST

CHECK_MAIN("requests", logprobs_have_one_key_a_token_whatever_its_bytes,
           offsets_of_an_echoed_prompt_count_its_special_tokens,
           usage_of_a_stream_starts_at_0_and_comes_only_where_it_is_included,
           the_end_of_a_stream_is_in_the_chunk_of_the_last_text,
           a_stop_string_or_token_is_shown_where_it_is_wanted,
           token_ids_of_prompt_and_output_are_returned,
           prompt_logprobs_are_by_token_id_with_ranks, a_long_prompt_is_cut_from_its_beginning,
           of_best_of_choices_n_are_returned_and_all_are_counted, a_last_message_is_continued,
           the_history_of_an_assistant_is_taken_or_refused_by_name, paths_have_aliases,
           a_model_has_the_names_that_it_is_given_and_no_path, small_endpoints_of_other_servers,
           a_form_is_no_json, numbers_without_end_are_named_where_they_are_read)
