/* Requests of /v1/responses and /v1/messages as bodies of chat. */
#include "api/convert.h"
#include "json/out.h"
#include "tests/check_main.h"
#include "tests/json.h"

typedef struct job {
    conversion c;
    status status;
    err error;
} job;

/* Converts the text; the arena holds all of it. */
static job converted(convert_fn *fn, const char *text, arena *a) {
    job j = {.c.mem = a};
    arena_init(a, chunks_heap(), 0);
    ck_assert_msg(json_in_parse(&j.c.in, a, str_of(text), &j.error) == OK, "%s", text);
    ck_assert_int_eq(line_filter_open(&j.c.strip, "^x-anthropic-[a-z-]+:", &j.error), OK);
    j.status = convert_body(&j.c, fn, &j.error);
    ck_assert_int_ne(j.status, ERR_NO_MEMORY);
    line_filter_free(j.c.strip);
    return j;
}

/* The body of chat is this one, members and messages in the same order. */
static void expect(convert_fn *fn, const char *text, const char *want) {
    arena a;
    const json_t *v;
    err e;
    buf got, expected;
    job j = converted(fn, text, &a);
    ck_assert_msg(j.status == OK, "%s: %s %s", text, j.error.field, j.error.text);
    buf_init(&got, &a);
    buf_init(&expected, &a);
    ck_assert_msg(json_in_parse(&v, &a, str_of(want), &e) == OK, "%s", want);
    json_use_arena(&a);
    json_value(&got, j.c.out);
    json_value(&expected, v);
    json_use_arena(NULL);
    ck_assert_str_eq(buf_cstr(&got), buf_cstr(&expected));
    arena_clear(&a);
}

static void refused(convert_fn *fn, const char *text, status s, const char *field) {
    arena a;
    job j = converted(fn, text, &a);
    ck_assert_msg(j.status == s, "%s: %d %s", text, (int)j.status, j.error.text);
    ck_assert_str_eq(j.error.field, field);
    arena_clear(&a);
}

/* ---- /v1/responses ---- */

START_TEST(a_string_and_instructions_are_two_messages) {
    expect(convert_responses,
           JSON({"model":"m","input":"Hi","instructions":"Be brief","max_output_tokens":5,
                "temperature":0.5,"store":true,"include":["reasoning.encrypted_content"],
                "truncation":"auto","previous_response_id":null,"background":false}),
                 JSON({"messages":[{"role":"system","content":"Be brief"},
                             {"role":"user","content":"Hi"}],
                "model":"m","temperature":0.5,"store":true,"max_completion_tokens":5}));
}
END_TEST

START_TEST(items_are_turns_and_calls_go_to_the_turn_before_them) {
    expect(
        convert_responses,
        JSON({"input":[
               {"role":"developer","content":"D"},
               {"type":"message","role":"user","content":[
                   {"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},
               {"type":"reasoning","id":"rs_1","summary":[],"content":[
                   {"type":"reasoning_text","text":"think "},
                   {"type":"reasoning_text","text":"more"}]},
               {"type":"message","role":"assistant","id":"msg_1","content":[
                   {"type":"output_text","text":"I look","annotations":[]}]},
               {"type":"function_call","call_id":"c1","name":"f","arguments":"{\"x\":1}"},
               {"type":"custom_tool_call","call_id":"c2","name":"g","input":"ls"},
               {"type":"function_call_output","call_id":"c1","output":"one"},
               {"type":"custom_tool_call_output","call_id":"c2","output":[
                   {"type":"input_text","text":"two"}]},
               {"type":"function_call","call_id":"c3","name":"f","arguments":"{}"},
               {"role":"assistant","content":[{"type":"refusal","refusal":"No"}]}]}),
                                              JSON({"messages":[
               {"role":"developer","content":"D"},
               {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
               {"role":"assistant","reasoning_content":"think more",
                "content":[{"type":"text","text":"I look"}],
                "tool_calls":[
                    {"id":"c1","type":"function",
                     "function":{"name":"f","arguments":"{\"x\":1}"}},
                    {"id":"c2","type":"function",
                     "function":{"name":"g","arguments":"{\"input\":\"ls\"}"}}]},
               {"role":"tool","tool_call_id":"c1","content":"one"},
               {"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"two"}]},
               {"role":"assistant","tool_calls":[
                    {"id":"c3","type":"function","function":{"name":"f","arguments":"{}"}}]},
               {"role":"assistant","content":[{"type":"text","text":"No"}]}]}));
}
END_TEST

START_TEST(tools_of_known_kinds_are_functions_and_others_are_passed_over) {
    expect(convert_responses,
           JSON({"input":"x","parallel_tool_calls":false,"tools":[
               {"type":"function","name":"f","description":"d","strict":true,
                "parameters":{"type":"object","properties":{}}},
               {"type":"web_search"},
               {"type":"namespace","name":"n","tools":[]},
               {"type":"custom","name":"g","format":{"type":"text"}}],
               "tool_choice":{"type":"function","name":"f"}}),
                                  JSON({"messages":[{"role":"user","content":"x"}],"parallel_tool_calls":false,"tools":[
               {"type":"function","function":{"name":"f","description":"d",
                "parameters":{"type":"object","properties":{}},"strict":true}},
               {"type":"function","function":{"name":"g","parameters":{"type":"object",
                "properties":{"input":{"type":"string"}},"required":["input"],
                "additionalProperties":false}}}],
               "tool_choice":{"type":"function","function":{"name":"f"}}}));
    expect(convert_responses,
           JSON({"input":"x","tool_choice":{"type":"allowed_tools","mode":"required",
                "tools":[{"type":"function","name":"f"}]}}),
                 JSON({"messages":[{"role":"user","content":"x"}],"tool_choice":{
                "type":"allowed_tools","allowed_tools":{"mode":"required",
                "tools":[{"type":"function","function":{"name":"f"}}]}}}));
    expect(convert_responses,
           JSON({"input":"x","tool_choice":"required"}),
                JSON({"messages":[{"role":"user","content":"x"}],"tool_choice":"required"}));
}
END_TEST

START_TEST(format_effort_and_logprobs_have_other_names_in_chat) {
    expect(convert_responses,
           JSON({"input":"x","text":{"verbosity":"low","format":{"type":"json_schema",
                "name":"n","strict":true,"schema":{"type":"object"}}},
                "reasoning":{"effort":"low","summary":"auto"},"top_logprobs":2,
                "include":["message.output_text.logprobs"]}),
                             JSON({"messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":2,
                "verbosity":"low","response_format":{"type":"json_schema","json_schema":{
                "type":"json_schema","name":"n","strict":true,"schema":{"type":"object"}}},
                "reasoning_effort":"low"}));
    expect(convert_responses,
           JSON({"input":"x","text":{"format":{"type":"json_object"}}}),
                 JSON({"messages":[{"role":"user","content":"x"}],
                "response_format":{"type":"json_object"}}));
}
END_TEST

START_TEST(what_a_response_cannot_have_is_refused_by_name) {
    static const struct {
        const char *text;
        status s;
        const char *field;
    } t[] = {
        {"{}", ERR_INVALID, "input"},
        {"{\"input\":[]}", ERR_INVALID, "input"},
        {"{\"input\":7}", ERR_INVALID, "input"},
        {"{\"input\":[7]}", ERR_INVALID, "input[0]"},
        {"{\"input\":[{\"content\":\"x\"}]}", ERR_INVALID, "input[0].role"},
        {"{\"input\":[{\"role\":\"user\"}]}", ERR_INVALID, "input[0]"},
        {"{\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}", ERR_UNSUPPORTED,
         "input[0]"},
        {"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]}",
         ERR_UNSUPPORTED, "input[0].content[0]"},
        {"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\"}]}]}",
         ERR_INVALID, "input[0].content[0]"},
        {"{\"input\":[{\"type\":\"function_call\",\"name\":\"f\"}]}", ERR_INVALID, "input[0]"},
        {"{\"input\":[{\"type\":\"function_call_output\",\"output\":\"x\"}]}", ERR_INVALID,
         "input[0].call_id"},
        {"{\"input\":\"x\",\"previous_response_id\":\"resp_1\"}", ERR_UNSUPPORTED,
         "previous_response_id"},
        {"{\"input\":\"x\",\"conversation\":{\"id\":\"c\"}}", ERR_UNSUPPORTED, "conversation"},
        {"{\"input\":\"x\",\"background\":true}", ERR_UNSUPPORTED, "background"},
        {"{\"input\":\"x\",\"n\":2}", ERR_UNSUPPORTED, "n"},
        {"{\"input\":\"x\",\"tools\":{}}", ERR_INVALID, "tools"},
        {"{\"input\":\"x\",\"tools\":[1]}", ERR_INVALID, "tools[0]"},
        {"{\"input\":\"x\",\"tool_choice\":{\"type\":\"web_search\"}}", ERR_UNSUPPORTED,
         "tool_choice"},
        {"{\"input\":\"x\",\"tool_choice\":7}", ERR_INVALID, "tool_choice"},
        {"{\"input\":\"x\",\"text\":\"json\"}", ERR_INVALID, "text"},
        {"{\"input\":\"x\",\"reasoning\":\"low\"}", ERR_INVALID, "reasoning"},
        {"{\"input\":\"x\",\"instructions\":[]}", ERR_INVALID, "instructions"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        refused(convert_responses, t[i].text, t[i].s, t[i].field);
}
END_TEST

/* ---- /v1/messages ---- */

/* Lines of the system prompt alone, wherever they stand in it. */
START_TEST(lines_about_the_client_are_left_out_of_the_system_prompt) {
    static const struct {
        const char *system, *left;
        uint32_t n;
    } t[] = {
        {JSON("x-anthropic-billing-header: cch=1\nYou are"), JSON("You are"), 1},
         {JSON([{"type":"text","text":"A\nx-anthropic-billing-header: cch=1\nB","cache_control":{}},
              {"type":"text","text":"x-anthropic-b: 1\nx-anthropic-c: 2"},
              {"type":"text","text":"C"}]),
                 JSON([{"type":"text","text":"A\nB"},{"type":"text","text":"C"}]), 3},
                 {JSON("Say x-anthropic-b: 1"), JSON("Say x-anthropic-b: 1"), 0},
         };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[512], want[512];
        arena a;
        snprintf(text, sizeof text,
                 "{\"system\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"x-anthropic-b: "
                 "1\"}]}",
                 t[i].system);
        snprintf(want, sizeof want,
                 "{\"messages\":[{\"role\":\"system\",\"content\":%s},{\"role\":\"user\","
                 "\"content\":\"x-anthropic-b: 1\"}]}",
                 t[i].left);
        expect(convert_messages, text, want);
        job j = converted(convert_messages, text, &a);
        ck_assert_uint_eq(j.c.n_stripped, t[i].n);
        arena_clear(&a);
    }
    /* Nothing is left: there is no system prompt. */
    expect(convert_messages,
           JSON({"system":"x-anthropic-b: 1","messages":[{"role":"user","content":"a"}]}),
                 JSON({"messages":[{"role":"user","content":"a"}]}));
}
END_TEST

START_TEST(system_and_blocks_are_messages_of_chat) {
    expect(convert_messages,
           JSON({"model":"m","max_tokens":9,"top_k":3,"stop_sequences":["END"],
                "metadata":{"user_id":"u"},"system":[
                    {"type":"text","text":"x-anthropic-billing-header: cch=1"},
                    {"type":"text","text":"S","cache_control":{"type":"ephemeral"}}],
                "messages":[{"role":"user","content":"Hi"},
                    {"role":"assistant","content":[
                        {"type":"thinking","thinking":"hm","signature":"s"},
                        {"type":"thinking","thinking":"!","signature":"s"},
                        {"type":"redacted_thinking","data":"x"},
                        {"type":"text","text":"I call"},
                        {"type":"tool_use","id":"t1","name":"f","input":{"b":1.0,"a":[]}},
                        {"type":"tool_use","id":"t2","name":"g"}]},
                    {"role":"user","content":[
                        {"type":"tool_result","tool_use_id":"t1","content":"one"},
                        {"type":"tool_result","tool_use_id":"t2","is_error":true,"content":[
                            {"type":"text","text":"two"}]},
                        {"type":"text","text":"go","cache_control":{"type":"ephemeral"}},
                        {"type":"text","text":"on"}]}]}),
                                             JSON({"messages":[{"role":"system","content":[{"type":"text","text":"S"}]},
                {"role":"user","content":"Hi"},
                {"role":"assistant","reasoning_content":"hm!",
                 "content":[{"type":"text","text":"I call"}],
                 "tool_calls":[{"id":"t1","type":"function","function":{"name":"f",
                    "arguments":"{\"b\":1.0,\"a\":[]}"}},
                    {"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}}]},
                {"role":"tool","tool_call_id":"t1","content":"one"},
                {"role":"tool","tool_call_id":"t2","content":[{"type":"text","text":"two"}]},
                {"role":"user","content":[{"type":"text","text":"go"},
                                          {"type":"text","text":"on"}]}],
                "model":"m","max_tokens":9,"top_k":3,"metadata":{"user_id":"u"},
                "stop":["END"]}));
}
END_TEST

START_TEST(an_answer_that_is_begun_is_continued) {
    expect(convert_messages,
           JSON({"messages":[{"role":"user","content":"Hi"},
                             {"role":"assistant","content":"The answer is"}]}),
                 JSON({"messages":[{"role":"user","content":"Hi"},
                             {"role":"assistant","content":"The answer is"}],
                "continue_final_message":true,"add_generation_prompt":false}));
}
END_TEST

START_TEST(tools_choice_thinking_and_format_have_other_names_in_chat) {
    expect(
        convert_messages,
        JSON({"messages":[{"role":"user","content":"x"}],
                "tools":[{"name":"f","description":"d","input_schema":{"type":"object"},
                          "cache_control":{"type":"ephemeral"}},
                         {"type":"web_search_20250305","name":"web_search"},
                         {"type":"custom","name":"g","input_schema":{"type":"object"}}],
                "tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true},
                "thinking":{"type":"enabled","budget_tokens":1024},
                "output_config":{"effort":"low",
                                 "format":{"type":"json_schema","schema":{"type":"object"}}}}),
                                     JSON({"messages":[{"role":"user","content":"x"}],
                "tools":[{"type":"function","function":{"name":"f","description":"d",
                          "parameters":{"type":"object"}}},
                         {"type":"function","function":{"name":"g",
                          "parameters":{"type":"object"}}}],
                "tool_choice":{"type":"function","function":{"name":"f"}},
                "parallel_tool_calls":false,"chat_template_kwargs":{"enable_thinking":true},
                "thinking_token_budget":1024,"reasoning_effort":"low","response_format":{"type":"json_schema",
                "json_schema":{"name":"output","schema":{"type":"object"}}}}));
    expect(
        convert_messages,
        JSON({"messages":[{"role":"user","content":"x"}],"tool_choice":{"type":"any"},
                "thinking":{"type":"disabled"}}),
                          JSON({"messages":[{"role":"user","content":"x"}],"tool_choice":"required",
                "chat_template_kwargs":{"enable_thinking":false}}));
}
END_TEST

START_TEST(what_a_message_cannot_have_is_refused_by_name) {
    static const struct {
        const char *text;
        status s;
        const char *field;
    } t[] = {
        {"{}", ERR_INVALID, "messages"},
        {"{\"messages\":[]}", ERR_INVALID, "messages"},
        {"{\"messages\":7}", ERR_INVALID, "messages"},
        {"{\"messages\":[7]}", ERR_INVALID, "messages[0]"},
        {"{\"messages\":[{\"content\":\"x\"}]}", ERR_INVALID, "messages[0].role"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":7}]}", ERR_INVALID,
         "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
         ERR_UNSUPPORTED, "messages[0].content[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", ERR_INVALID,
         "messages[0].content[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\"}]}]}",
         ERR_INVALID, "messages[0].content[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
         "\"tool_use_id\":\"a\",\"content\":[{\"type\":\"image\"}]}]}]}",
         ERR_UNSUPPORTED, "messages[0].content[0]"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\","
         "\"id\":\"a\",\"name\":\"f\",\"input\":[]}]}]}",
         ERR_INVALID, "messages[0].content[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"system\":7}", ERR_INVALID,
         "system"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":7}", ERR_INVALID,
         "tools"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tool_choice\":\"auto\"}",
         ERR_INVALID, "tool_choice"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"thinking\":true}",
         ERR_INVALID, "thinking"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"mcp_servers\":[1]}",
         ERR_UNSUPPORTED, "mcp_servers"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        refused(convert_messages, t[i].text, t[i].s, t[i].field);
}
END_TEST

/* However little memory there is, a conversion ends, and says so. */
START_TEST(without_memory_a_conversion_is_left) {
    const char *text =
        JSON({"input":[{"role":"user","content":[
        {"type":"input_text","text":"a"}]},{"type":"reasoning","content":[
        {"type":"reasoning_text","text":"b"}]}],"tools":[{"type":"custom","name":"g"}]});
    bool left = false, whole = false;
    for (size_t limit = 0; limit < 1 << 20 && !whole; limit += 64) {
        job j = {0};
        arena a;
        arena_init(&a, chunks_heap(), 0);
        j.c.mem = &a;
        ck_assert(json_in_parse(&j.c.in, &a, str_of(text), &j.error) == OK);
        const bool less = limit < (size_t)(a.end - a.at);
        if (less) a.end = a.at + limit;
        if (less) a.limit = a.total;
        whole = convert_body(&j.c, convert_responses, &j.error) != ERR_NO_MEMORY;
        left |= !whole;
        arena_clear(&a);
    }
    ck_assert(left && whole);
}
END_TEST

CHECK_MAIN("conversations", a_string_and_instructions_are_two_messages,
           items_are_turns_and_calls_go_to_the_turn_before_them,
           tools_of_known_kinds_are_functions_and_others_are_passed_over,
           format_effort_and_logprobs_have_other_names_in_chat,
           what_a_response_cannot_have_is_refused_by_name,
           lines_about_the_client_are_left_out_of_the_system_prompt,
           system_and_blocks_are_messages_of_chat, an_answer_that_is_begun_is_continued,
           tools_choice_thinking_and_format_have_other_names_in_chat,
           what_a_message_cannot_have_is_refused_by_name, without_memory_a_conversion_is_left)
