/* Parameters: defaults, each range and type with the field it names, what is not supported. */
#include "tests/api/fake_one.h"

#include "api/param_table.h"

static arena mem;

static void setup(void) {
    fake_init(&f);
    fake_vocabulary(&f);
    arena_init(&mem, chunks_heap(), 0);
}
static void teardown(void) {
    arena_clear(&mem);
    chat_templates_close(&f.chat);
    tokenizer_close(f.tok);
    checkpoint_close(f.file);
}

static status read_params(params *p, const char *body, bool chat, err *e) {
    const json_t *o;
    ck_assert_msg(json_in_parse(&o, &mem, str_of(body), e) == OK, "%s: %s", body, e->text);
    return params_read(p, o, chat, f.port.defaults, f.tok, &mem, e);
}

static void good(params *p, const char *body, bool chat) {
    err e;
    ck_assert_msg(read_params(p, body, chat, &e) == OK, "%s: %s", body, e.text);
}

START_TEST(nothing_given_means_the_documented_defaults) {
    params p;
    for (int chat = 0; chat < 2; chat++) {
        good(&p, chat ? "{}" : JSON({"temperature":null,"n":null,"stop":null,"x":[1]}), chat);
        ck_assert(p.sampling.temperature == 1 && p.sampling.top_p == 1 &&
                  p.sampling.min_p == 0);
        ck_assert(p.sampling.repetition_penalty == 1 && p.sampling.presence_penalty == 0);
        ck_assert_int_eq(p.sampling.n_logprobs, -1);
        ck_assert_int_le(p.sampling.top_k, 0);
        ck_assert_int_eq(p.max_tokens, -1);
        ck_assert_uint_eq(p.n, 1);
        ck_assert(!p.stream && !p.echo && !p.ignore_eos && !p.logprobs && p.add_special_tokens);
        ck_assert_uint_eq(p.n_stop + p.n_stop_ids + p.sampling.n_bias, 0);
        ck_assert_uint_eq(p.timeout_us, 0);
    }
}
END_TEST

static bool allows(const params *p, int32_t id) {
    return !p->allowed || (p->allowed[id / 32] >> id % 32 & 1);
}
static uint32_t count_allowed(const params *p) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < tokenizer_n_vocab(f.tok); i++) n += allows(p, (int32_t)i);
    return n;
}

START_TEST(everything_given_is_taken) {
    params p;
    good(&p,
         "{\"model\":\"m\",\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.05,"
         "\"typical_p\":0.95,\"seed\":-3,\"stop\":[\"a\",\"\",\"bc\"],\"stop_token_ids\":[1,2],"
         "\"ignore_eos\":true,\"min_tokens\":2,\"max_tokens\":5,\"n\":3,\"best_of\":3,"
         "\"echo\":true,\"logprobs\":4,\"logit_bias\":{\"65\":-100,\"B\":3.5,\"QZ\":1},"
         "\"presence_penalty\":-2,\"frequency_penalty\":2,\"repetition_penalty\":1.1,"
         "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"priority\":-4,"
         "\"user\":\"u\",\"timeout\":1.5,\"return_memory\":true}",
         false);
    ck_assert(str_eqz(p.model, "m"));
    ck_assert(p.sampling.temperature == 0.5f && p.sampling.top_k == 40);
    ck_assert_uint_eq(p.sampling.seed, (uint64_t)-3);
    ck_assert(p.n_stop == 2 && str_eqz(p.stop[1], "bc"));
    ck_assert(p.n_stop_ids == 2 && p.stop_ids[1] == 2);
    ck_assert(p.ignore_eos && p.echo && p.stream && p.include_usage && p.return_memory);
    ck_assert(!p.continuous_usage);
    ck_assert(p.sampling.min_tokens == 2 && p.max_tokens == 5 && p.n == 3 && p.priority == -4);
    ck_assert_int_eq(p.sampling.n_logprobs, 4);
    ck_assert_uint_eq(p.timeout_us, 1500000);
    ck_assert_uint_eq(p.sampling.n_bias, 2); /* -100 is no bias but a ban */
    int found = 0;
    for (uint32_t i = 0; i < 2; i++) {
        const logit_bias *b = &p.sampling.bias[i];
        found +=
            (b->token == 'B' && b->bias == 3.5f) || (b->token == FAKE_MERGED && b->bias == 1);
    }
    ck_assert_int_eq(found, 2);
    ck_assert(!allows(&p, 65) && allows(&p, 64) && allows(&p, 'B'));
    good(&p, JSON({"max_completion_tokens":7,"max_tokens":9,"logprobs":true}), true);
    ck_assert_int_eq(p.max_tokens, 7);
    ck_assert(p.logprobs && p.sampling.n_logprobs == 0);
    good(&p, JSON({"logprobs":false,"top_logprobs":0,"tools":[],"tool_choice":"none"}), true);
    ck_assert(!p.logprobs);
}
END_TEST

START_TEST(every_range_error_names_its_field) {
    static const struct {
        const char *body, *field;
        bool chat;
    } t[] = {
        {"{\"temperature\":2.1}", "temperature", false},
        {"{\"temperature\":-0.1}", "temperature", false},
        {"{\"temperature\":\"hot\"}", "temperature", true},
        {"{\"user\":7}", "user", true},
        {"{\"top_p\":1.1}", "top_p", false},
        {"{\"top_k\":-2}", "top_k", false},
        {"{\"top_k\":1.5}", "top_k", false},
        {"{\"min_p\":-1}", "min_p", false},
        {"{\"typical_p\":2}", "typical_p", false},
        {"{\"repetition_penalty\":0}", "repetition_penalty", false},
        {"{\"presence_penalty\":2.5}", "presence_penalty", false},
        {"{\"frequency_penalty\":-2.5}", "frequency_penalty", false},
        {"{\"seed\":1.5}", "seed", false},
        {"{\"seed\":\"1\"}", "seed", false},
        {"{\"n\":0}", "n", false},
        {"{\"n\":129}", "n", false},
        {"{\"n\":true}", "n", false},
        {"{\"best_of\":1,\"n\":2}", "best_of", false},
        {"{\"max_tokens\":0}", "max_tokens", false},
        {"{\"max_tokens\":-1}", "max_tokens", true},
        {"{\"max_completion_tokens\":0}", "max_completion_tokens", true},
        {"{\"min_tokens\":-1}", "min_tokens", false},
        {"{\"min_tokens\":6,\"max_tokens\":5}", "min_tokens", false},
        {"{\"logprobs\":21}", "logprobs", false},
        {"{\"logprobs\":true}", "logprobs", false},
        {"{\"logprobs\":3}", "logprobs", true},
        {"{\"top_logprobs\":3}", "top_logprobs", true},
        {"{\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs", true},
        {"{\"stop\":5}", "stop", false},
        {"{\"stop\":[1]}", "stop", false},
        {"{\"prompt_logprobs\":-1}", "prompt_logprobs", false},
        {"{\"prompt_logprobs\":21}", "prompt_logprobs", true},
        {"{\"prompt_logprobs\":1,\"stream\":true}", "prompt_logprobs", false},
        {"{\"truncate_prompt_tokens\":0}", "truncate_prompt_tokens", true},
        {"{\"truncate_prompt_tokens\":-2}", "truncate_prompt_tokens", false},
        {"{\"continue_final_message\":true}", "continue_final_message", true},
        {"{\"best_of\":3,\"n\":2,\"stream\":true}", "best_of", false},
        {"{\"n_predict\":-1}", "n_predict", false},
        {"{\"skip_special_tokens\":1}", "skip_special_tokens", false},
        {"{\"seed\":18446744073709551615}", "seed", false},
        {"{\"max_tokens\":99999999999999999999999999}", "max_tokens", false},
        {"{\"stop_token_ids\":7}", "stop_token_ids", false},
        {"{\"stop_token_ids\":[-1]}", "stop_token_ids", false},
        {"{\"stop_token_ids\":[260]}", "stop_token_ids", false},
        {"{\"stop_token_ids\":[\"a\"]}", "stop_token_ids", false},
        {"{\"logit_bias\":[]}", "logit_bias", false},
        {"{\"logit_bias\":{\"1\":101}}", "logit_bias", false},
        {"{\"logit_bias\":{\"1\":\"x\"}}", "logit_bias", false},
        {"{\"logit_bias\":{\"99999\":1}}", "logit_bias", false},
        {"{\"logit_bias\":{\"two tokens\":1}}", "logit_bias", false},
        {"{\"logit_bias\":[[1]]}", "logit_bias", false},
        {"{\"logit_bias\":[[1,true]]}", "logit_bias", false},
        {"{\"logit_bias\":[[260,1]]}", "logit_bias", false},
        {"{\"logit_bias\":[[\"\",1]]}", "logit_bias", false},
        {"{\"allowed_token_ids\":[]}", "allowed_token_ids", false},
        {"{\"allowed_token_ids\":[]}", "allowed_token_ids", true},
        {"{\"allowed_token_ids\":5}", "allowed_token_ids", false},
        {"{\"allowed_token_ids\":[1,\"2\"]}", "allowed_token_ids", false},
        {"{\"allowed_token_ids\":[1,260]}", "allowed_token_ids", false},
        {"{\"allowed_token_ids\":[-1]}", "allowed_token_ids", false},
        {"{\"bad_words\":\"x\"}", "bad_words", true},
        {"{\"bad_words\":[1]}", "bad_words", false},
        {"{\"bad_words\":[\"x\",\"\"]}", "bad_words", false},
        {"{\"bad_words\":[\"  \"]}", "bad_words", false},
        {"{\"bad_words\":[\"123456789012345678901234567890123\"]}", "bad_words", false},
        {"{\"allowed_token_ids\":[65],\"logit_bias\":{\"65\":-100}}", "logit_bias", false},
        {"{\"allowed_token_ids\":[65],\"logit_bias\":{\"66\":100}}", "logit_bias", false},
        {"{\"allowed_token_ids\":[65],\"bad_words\":[\"A\"]}", "bad_words", false},
        {"{\"stream\":1}", "stream", false},
        {"{\"stream_options\":{}}", "stream_options", false},
        {"{\"stream\":true,\"stream_options\":1}", "stream_options", false},
        {"{\"stream\":true,\"stream_options\":{\"include_usage\":1}}",
         "stream_options.include_usage", false},
        {"{\"echo\":\"yes\"}", "echo", false},
        {"{\"ignore_eos\":1}", "ignore_eos", false},
        {"{\"priority\":3000000000}", "priority", false},
        {"{\"timeout\":0}", "timeout", false},
        {"{\"model\":1}", "model", false},
        {"{\"response_format\":\"text\"}", "response_format", true},
        {"{\"tools\":{}}", "tools", true},
        {"{\"tools\":[{}]}", "tools[0].function", true},
        {"{\"tool_choice\":\"required\"}", "tool_choice", true},
        {"{\"reasoning_format\":\"raw\"}", "reasoning_format", true},
    };
    params p;
    err e;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ck_assert_msg(read_params(&p, t[i].body, t[i].chat, &e) == ERR_INVALID, "%s",
                      t[i].body);
        ck_assert_msg(strcmp(e.field, t[i].field) == 0, "%s: %s", t[i].body, e.field);
    }
}
END_TEST

START_TEST(rules_about_tokens_become_a_mask_and_banned_sequences) {
    params p;
    good(&p, "{\"logit_bias\":{\"65\":99},\"bad_words\":[],\"allowed_token_ids\":null}", true);
    ck_assert(!p.allowed && p.n_banned == 0 && p.sampling.n_bias == 1);
    good(&p, "{\"allowed_token_ids\":[65,70,65,0]}", true);
    ck_assert(count_allowed(&p) == 3 && allows(&p, 65) && allows(&p, 70) && allows(&p, 0));
    /* Tokens of bias 100 exclude all others; they compete by their own logits. */
    good(&p, "{\"logit_bias\":{\"65\":100,\"66\":100,\"67\":5}}", false);
    ck_assert(count_allowed(&p) == 2 && allows(&p, 65) && allows(&p, 66));
    ck_assert_uint_eq(p.sampling.n_bias, 1);
    /* In a list the number is that of each token of a text; numbers of one token add up. */
    good(&p, "{\"logit_bias\":[[\"ABA\",1.5],[66,2],[67,-100],[68,false]]}", false);
    ck_assert_uint_eq(p.sampling.n_bias, 2);
    ck_assert(p.sampling.bias[0].token == 'A' && p.sampling.bias[0].bias == 3);
    ck_assert(p.sampling.bias[1].token == 'B' && p.sampling.bias[1].bias == 3.5f);
    ck_assert_uint_eq(count_allowed(&p), tokenizer_n_vocab(f.tok) - 2);
    good(&p,
         "{\"allowed_token_ids\":[65,66,67],\"bad_words\":[\"B\"],"
         "\"logit_bias\":{\"67\":-100}}",
         false);
    ck_assert(count_allowed(&p) == 1 && allows(&p, 65));
    /* With and without a leading space, whatever space was given. */
    good(&p, "{\"bad_words\":[\" B\",\"ab\"]}", false);
    ck_assert_uint_eq(count_allowed(&p), tokenizer_n_vocab(f.tok) - 1);
    ck_assert(!allows(&p, 'B') && allows(&p, ' '));
    ck_assert_uint_eq(p.n_banned, 3);
    static const char *const want[] = {" B", "ab", " ab"};
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(p.banned[i].n, strlen(want[i]));
        for (uint32_t k = 0; k < p.banned[i].n; k++)
            ck_assert_int_eq(p.banned[i].ids[k], want[i][k]);
    }
}
END_TEST

START_TEST(too_many_rules_about_tokens_are_refused_with_the_limit) {
    char *body = malloc(1 << 20), *at = body;
    params p;
    err e;
    at += sprintf(at, "{\"bad_words\":[\"x\"");
    for (int i = 0; i < PARAMS_MAX_BAD_WORDS; i++) at += sprintf(at, ",\"x\"");
    sprintf(at, "]}");
    ck_assert_int_eq(read_params(&p, body, false, &e), ERR_INVALID);
    ck_assert_str_eq(e.field, "bad_words");
    ck_assert_ptr_nonnull(strstr(e.text, "256"));
    ck_assert(e.hint[0]);
    at = body + sprintf(body, "{\"allowed_token_ids\":[1");
    for (int i = 0; i < PARAMS_MAX_ALLOWED; i++) at += sprintf(at, ",1");
    sprintf(at, "]}");
    ck_assert_int_eq(read_params(&p, body, false, &e), ERR_INVALID);
    ck_assert_str_eq(e.field, "allowed_token_ids");
    ck_assert_ptr_nonnull(strstr(e.text, "65536"));
    free(body);
}
END_TEST

START_TEST(what_is_not_supported_is_refused_rather_than_ignored) {
    static const struct {
        const char *body, *field;
        bool chat;
    } t[] = {
        {"{\"suffix\":\"x\"}", "suffix", false},
        {"{\"suffix\":1}", "suffix", false},
        {"{\"structured_outputs\":{\"json\":{},\"backend\":\"x\"}}",
         "structured_outputs.backend", true},
        {"{\"response_format\":{\"type\":\"lark\"}}", "response_format", true},
        {"{\"functions\":[]}", "functions", true},
    };
    params p;
    err e;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ck_assert_msg(read_params(&p, t[i].body, t[i].chat, &e) == ERR_UNSUPPORTED, "%s",
                      t[i].body);
        ck_assert_msg(strcmp(e.field, t[i].field) == 0, "%s: %s", t[i].body, e.field);
    }
    good(&p, JSON({"response_format":{"type":"text"},"suffix":"","grammar":null}), true);
}
END_TEST

START_TEST(a_form_is_demanded_once_and_equal_ones_have_equal_keys) {
    static const char *const bad[][2] = {
        {"{\"guided_regex\":\"x\",\"grammar\":\"root ::= x\"}", "grammar"},
        {"{\"response_format\":{\"type\":\"json_object\"},\"guided_json\":{}}", "guided_json"},
        {"{\"guided_choice\":[]}", "guided_choice"},
        {"{\"guided_choice\":[\"a\",\"\"]}", "guided_choice"},
        {"{\"structured_outputs\":{\"choice\":\"a\"}}", "structured_outputs.choice"},
        {"{\"structured_outputs\":[]}", "structured_outputs"},
        {"{\"json_schema\":\"{\"}", "json_schema"},
        {"{\"ebnf\":\"root ::= x\",\"structural_tag\":\"{}\"}", "structural_tag"},
        {"{\"structured_outputs\":{\"structural_tag\":5}}",
         "structured_outputs.structural_tag"},
        {"{\"structured_outputs\":{\"whitespace_pattern\":5}}",
         "structured_outputs.whitespace_pattern"},
        {"{\"guided_json\":5}", "guided_json"},
        {"{\"response_format\":{\"type\":\"json_schema\"}}", "response_format"},
        {"{\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}}",
         "response_format"},
    };
    params p, q;
    err e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(read_params(&p, bad[i][0], true, &e) == ERR_INVALID, "%s", bad[i][0]);
        ck_assert_msg(strcmp(e.field, bad[i][1]) == 0, "%s: %s", bad[i][0], e.field);
    }
    good(&p, JSON({"guided_json":{"type": "object"},"grammar":""}), true);
    good(&q, JSON({"response_format":{"type":"json_schema",
                   "json_schema":{"name":"n","schema":{"type":"object"}}}}),
                                      true);
    ck_assert(p.form.build && p.form.build == q.form.build);
    ck_assert(str_eq(p.form.key, q.form.key));
    good(&q, "{\"structured_outputs\":{\"json\":\"{\\\"type\\\":\\\"object\\\"}\"}}", true);
    ck_assert(str_eq(p.form.key, q.form.key));
    good(&q, JSON({"structured_outputs":{"json_object":true}}), true);
    ck_assert(!str_eq(p.form.key, q.form.key));
    good(&p, JSON({"structured_outputs":{"json_object":false}}), true);
    ck_assert(!p.form.build);
    good(&p, JSON({"structured_outputs":{"json":{"type": "object"}}}), true);
    good(&q,
         JSON({"structured_outputs":{"json":{"type": "object"},"disable_any_whitespace":true}}),
              true);
    ck_assert(q.form.compact && !str_eq(p.form.key, q.form.key));
    good(&q, JSON({"response_format":{"type":"structural_tag","format":{"type":"any_text"}}}),
                   true);
    ck_assert(q.form.build && q.form.build != p.form.build);
    good(&p, JSON({"ebnf":"root ::= \"x\""}), true);
    good(&q, JSON({"guided_grammar":"root ::= \"x\""}), true);
    ck_assert(p.form.build == q.form.build && str_eq(p.form.key, q.form.key));
}
END_TEST

/* Each refused row: any value but its neutral ones, and these and null pass. */
START_TEST(every_row_of_the_table_is_what_it_says) {
    params p, plain;
    err e;
    char body[256];
    for (size_t i = 0; i < param_table_rows; i++) {
        const param_row *r = &param_table[i];
        for (int chat = 0; chat < 2; chat++) {
            snprintf(body, sizeof body, "{\"%s\":null}", r->name);
            good(&p, body, chat);
            if (r->how == PARAM_HONOURED) continue;
            snprintf(body, sizeof body, "{\"%s\":[{\"x\":1}]}", r->name);
            status want =
                r->how == PARAM_REFUSED && param_is_for(r, chat) ? ERR_UNSUPPORTED : OK;
            ck_assert_msg(read_params(&p, body, chat, &e) == want, "%s", body);
            if (want != OK) ck_assert_str_eq(e.field, r->name);
            for (const char *at = r->values; *at;) {
                size_t n = strcspn(at, "|");
                snprintf(body, sizeof body, "{\"seed\":1,\"%s\":%.*s}", r->name, (int)n, at);
                good(&p, body, chat);
                good(&plain, "{\"seed\":1}", chat);
                ck_assert_int_eq(memcmp(&p, &plain, sizeof p), 0);
                at += n + (at[n] == '|');
            }
        }
    }
}
END_TEST

START_TEST(parameters_of_other_servers_are_honoured) {
    params p;
    good(&p, JSON({"include_stop_str_in_output":true,"skip_special_tokens":false,
                  "return_token_ids":true,"return_tokens_as_token_ids":true,
                  "spaces_between_special_tokens":true,"truncate_prompt_tokens":7,
                  "prompt_logprobs":3,"logprobs":1,"best_of":5,"n":2,"n_predict":9}),
                  false);
    ck_assert(p.include_stop && !p.skip_special && p.return_token_ids && p.tokens_as_ids);
    ck_assert(p.truncate_prompt == 7 && p.prompt_logprobs == 3 && p.n_top == 1);
    ck_assert_int_eq(p.sampling.n_logprobs, 3); /* the most of what is asked for */
    ck_assert(p.n == 5 && p.n_shown == 2 && p.max_tokens == 9);
    good(&p, JSON({"prompt_logprobs":0,"max_tokens":0}), false);
    ck_assert(p.prompt_logprobs == 0 && p.max_tokens == 0 && !p.logprobs);
    good(&p, JSON({"add_generation_prompt":false,"continue_final_message":true,"echo":true,
                  "no_stop_trim":true,"best_of":9}),
                  true);
    ck_assert(!p.add_generation_prompt && p.continue_final && p.echo && p.include_stop);
    ck_assert(p.n == 1 && p.n_shown == 1);
}
END_TEST

START_TEST(a_seed_of_minus_one_is_a_random_one) {
    params a, b;
    good(&a, JSON({"seed":-1}), false);
    good(&b, JSON({"seed":-1}), false);
    ck_assert(a.sampling.seed != b.sampling.seed && a.sampling.seed != UINT64_MAX);
    good(&a, JSON({"seed":-2}), false);
    ck_assert_uint_eq(a.sampling.seed, (uint64_t)-2);
}
END_TEST

START_TEST(hundreds_of_stop_strings_are_taken_and_their_bytes_are_bounded) {
    char *body = malloc(64 * 1024), *at;
    params p;
    err e;
    for (int n = 17; n <= PARAMS_MAX_STOPS + 1; n += n == 17 ? 239 : 1) {
        at = body + sprintf(body, "{\"stop\":[\"0\"");
        for (int i = 1; i < n; i++) at += sprintf(at, ",\"%d\"", i);
        strcpy(at, "]}");
        status s = read_params(&p, body, false, &e);
        ck_assert_int_eq(s, n <= PARAMS_MAX_STOPS ? OK : ERR_INVALID);
        if (s == OK) ck_assert(p.n_stop == (uint32_t)n && str_eqz(p.stop[16], "16"));
    }
    at = body + sprintf(body, "{\"stop\":[\"0\"");
    for (int i = 0; i < 17; i++) at += sprintf(at, ",\"%01000d\"", i);
    strcpy(at, "]}");
    ck_assert_int_eq(read_params(&p, body, false, &e), ERR_INVALID);
    ck_assert_str_eq(e.field, "stop");
    ck_assert_ptr_nonnull(strstr(e.text, "16384"));
    free(body);
}
END_TEST

int main(void) {
    Suite *s = suite_create("params");
    TCase *t = check_case(s, "params");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, nothing_given_means_the_documented_defaults);
    tcase_add_test(t, everything_given_is_taken);
    tcase_add_test(t, every_range_error_names_its_field);
    tcase_add_test(t, rules_about_tokens_become_a_mask_and_banned_sequences);
    tcase_add_test(t, too_many_rules_about_tokens_are_refused_with_the_limit);
    tcase_add_test(t, what_is_not_supported_is_refused_rather_than_ignored);
    tcase_add_test(t, a_form_is_demanded_once_and_equal_ones_have_equal_keys);
    tcase_add_test(t, every_row_of_the_table_is_what_it_says);
    tcase_add_test(t, parameters_of_other_servers_are_honoured);
    tcase_add_test(t, a_seed_of_minus_one_is_a_random_one);
    tcase_add_test(t, hundreds_of_stop_strings_are_taken_and_their_bytes_are_bounded);
    return check_run(s);
}
