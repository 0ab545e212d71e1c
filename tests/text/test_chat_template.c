/* Chat templates against jinja2: tests/golden/chat.json, made by make_chat_golden.py. Those of
 * published models are compared where the folder with their templates is. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "text/chat_template.h"
#include "tests/check_main.h"

#define FOLDER "../shared/data/templates/"

static char *read_file(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    char *p = calloc(1, 1 << 20);
    size_t n = fread(p, 1, (1 << 20) - 1, f);
    p[n] = '\0';
    fclose(f);
    return p;
}

static json_t *golden(void) {
    json_error_t e;
    json_t *g = json_load_file("tests/golden/chat.json", 0, &e);
    ck_assert_msg(g != NULL, "tests/golden/chat.json: %s", e.text);
    return g;
}

static char *source_of(const json_t *t) {
    const json_t *s = json_object_get(t, "source");
    if (s) return strdup(json_string_value(s));
    char path[300];
    snprintf(path, sizeof path, FOLDER "%s", json_string_value(json_object_get(t, "file")));
    return read_file(path);
}

static void compare(const char *name, const chat_template *t, const json_t *talk, bool answer) {
    const json_t *list = json_object_get(talk, "messages"),
                 *want = json_object_get(talk, answer ? "want" : "bare");
    chat_message m[16];
    size_t n = json_array_size(list);
    err e;
    buf b;
    buf_init(&b, NULL);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(list, i);
        m[i].role = str_of(json_string_value(json_object_get(x, "role")));
        m[i].content = str_of(json_string_value(json_object_get(x, "content")));
    }
    status s = chat_template_render(t, m, n, answer, &b, &e);
    if (json_is_null(want)) {
        ck_assert_msg(s == ERR_INVALID, "%s: not refused: %s", name, buf_cstr(&b));
        ck_assert_str_eq(e.field, "messages");
    } else {
        ck_assert_msg(s == OK, "%s: %s, wanted %s", name, e.text, json_string_value(want));
        ck_assert_msg(strcmp(buf_cstr(&b), json_string_value(want)) == 0, "%s:\n<%s>\n<%s>",
                      name, buf_cstr(&b), json_string_value(want));
    }
    buf_clear(&b);
}

START_TEST(prompts_are_what_jinja_makes_of_the_published_templates) {
    json_t *g = golden();
    const json_t *list = json_object_get(g, "templates");
    int compared = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(t, "name"));
        char *source = source_of(t);
        if (!source) continue;
        chat_template c;
        err e;
        ck_assert_msg(chat_template_open(&c, str_of(source), STR("<s>"), STR("</s>"), &e) == OK,
                      "%s: %s", name, e.text);
        const json_t *talks = json_object_get(t, "talks");
        for (size_t k = 0; k < json_array_size(talks); k++, compared++)
            for (int answer = 0; answer < 2; answer++)
                compare(name, &c, json_array_get(talks, k), answer);
        free(source);
    }
    ck_assert_int_ge(compared, 13 * 12);
    json_decref(g);
}
END_TEST

START_TEST(families_are_told_by_their_markers) {
    static const struct {
        const char *source;
        chat_family family;
    } t[] = {{"x <|im_start|> y", CHAT_CHATML},
             {"<|start_header_id|>", CHAT_LLAMA3},
             {"<start_of_turn>", CHAT_GEMMA},
             {"[INST] <<SYS>>", CHAT_LLAMA2},
             {"<|user|> <|end|> <|assistant|>", CHAT_PHI3},
             {"'<|im_start|>system<|im_sep|>' + message", CHAT_PHI4},
             {"[INST]", CHAT_MISTRAL}};
    chat_template c;
    err e;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ck_assert(chat_template_open(&c, str_of(t[i].source), STR(""), STR(""), &e) == OK);
        ck_assert_int_eq(c.family, t[i].family);
    }
}
END_TEST

START_TEST(a_template_that_asks_for_the_date_gets_todays) {
    static const char source[] =
        "<|start_header_id|> Cutting Knowledge Date: December 2023 strftime_now";
    const chat_message m = {STR("user"), STR("Hi")};
    char date[32], want[64];
    chat_template c;
    err e;
    buf b;
    buf_init(&b, NULL);
    ck_assert(chat_template_open(&c, str_of(source), STR(""), STR(""), &e) == OK);
    bool found = false;
    for (int i = 0; i < 2 && !found; i++) { /* midnight may lie between */
        time_t now = time(NULL);
        strftime(date, sizeof date, "%d %b %Y", localtime(&now));
        snprintf(want, sizeof want, "\nToday Date: %s\n\n", date);
        b.len = 0;
        ck_assert(chat_template_render(&c, &m, 1, true, &b, &e) == OK);
        found = strstr(buf_cstr(&b), want) != NULL;
    }
    ck_assert(found);
    buf_clear(&b);
}
END_TEST

START_TEST(none_and_unknown_templates_are_refused_by_name) {
    static const char *const source[] = {"",
                                         "{{ messages }}",
                                         "<|user|> <|end|>",
                                         "<|im_start|> reasoning_mode",
                                         "[INST] [SYSTEM_PROMPT]",
                                         "'<|im_start|>system<|im_sep|>You are Phi'",
                                         "'<|im_start|>assistant\\n<think>\\n'"};
    chat_template c;
    err e;
    for (size_t i = 0; i < sizeof source / sizeof *source; i++) {
        ck_assert(chat_template_open(&c, str_of(source[i]), STR(""), STR(""), &e) ==
                  ERR_INVALID);
        ck_assert_str_eq(e.field, "chat_template");
    }
}
END_TEST

CHECK_MAIN("chat_template", prompts_are_what_jinja_makes_of_the_published_templates,
           families_are_told_by_their_markers, a_template_that_asks_for_the_date_gets_todays,
           none_and_unknown_templates_are_refused_by_name)
