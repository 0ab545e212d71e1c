/* Chat templates: published ones against jinja2 (tests/golden/chat.json, made by
 * make_chat_golden.py; those without a source are compared where the folder with their templates
 * is), what is found out about a template, and which of a model's is taken. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/template.h"
#include "text/jinja/template_probe.h"
#include "tests/check_main.h"
#include "tests/model/fake_checkpoint.h"

#define FOLDER "../shared/data/templates/"

static const template_tokens tokens = {{STR("<s>"), STR("</s>")}};

static char *read_file(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    char *p = calloc(1, 1 << 20);
    size_t n = fread(p, 1, (1 << 20) - 1, f);
    p[n] = '\0';
    fclose(f);
    return p;
}

static char *source_of(const json_t *t) {
    const json_t *s = json_object_get(t, "source");
    if (s) return strdup(json_string_value(s));
    char path[300];
    snprintf(path, sizeof path, FOLDER "%s", json_string_value(json_object_get(t, "file")));
    return read_file(path);
}

static void compare(const char *name, const chat_template *t, const json_t *talk, bool answer) {
    const json_t *want = json_object_get(talk, answer ? "want" : "bare");
    template_args args = {.messages = json_object_get(talk, "messages"),
                          .add_generation_prompt = answer,
                          .now = {.tm_year = 126, .tm_mday = 1}};
    jinja_text out;
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 0);
    status s = template_render(t, &args, &a, &out, &e);
    if (json_is_null(want)) {
        ck_assert_msg(s == ERR_INVALID, "%s: not refused", name);
        ck_assert_str_eq(e.field, "messages");
    } else {
        ck_assert_msg(s == OK, "%s: %s, wanted %s", name, e.text, json_string_value(want));
        ck_assert_msg(str_eqz(out.text, json_string_value(want)), "%s:\n<" STR_FMT ">\n<%s>",
                      name, STR_ARG(out.text), json_string_value(want));
    }
    arena_clear(&a);
}

START_TEST(prompts_are_what_jinja_makes_of_the_published_templates) {
    json_error_t je;
    json_t *g = json_load_file("tests/golden/chat.json", 0, &je);
    ck_assert_msg(g != NULL, "tests/golden/chat.json: %s", je.text);
    const json_t *list = json_object_get(g, "templates");
    int compared = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(t, "name"));
        char *source = source_of(t);
        if (!source) continue;
        chat_template c;
        arena a;
        err e;
        arena_init(&a, chunks_heap(), 0);
        ck_assert_msg(template_open(&c, str_of(source), &tokens, &a, chunks_heap(), &e) == OK,
                      "%s: %s", name, e.text);
        const json_t *talks = json_object_get(t, "talks");
        for (size_t k = 0; k < json_array_size(talks); k++, compared++)
            for (int answer = 0; answer < 2; answer++)
                compare(name, &c, json_array_get(talks, k), answer);
        arena_clear(&a);
        free(source);
    }
    ck_assert_int_ge(compared, 13 * 12);
    json_decref(g);
}
END_TEST

/* ---- one template ---- */

static arena mem;

static chat_template opened(const char *source) {
    chat_template t;
    err e;
    arena_init(&mem, chunks_heap(), 0);
    ck_assert_msg(template_open(&t, str_of(source), &tokens, &mem, chunks_heap(), &e) == OK,
                  "%s: %s", source, e.text);
    return t;
}

START_TEST(content_is_given_in_parts_to_templates_that_go_through_it) {
    static const char *const takes[] = {
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
        "{% for m in messages %}{% for p in m['content']|list %}{{ p.text }}{% endfor %}{% "
        "endfor "
        "%}",
        "{% for m in messages %}{% set c = m['content'] %}{% if c is not string %}{% for p in "
        "c "
        "%}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
        "{% macro show(content) %}{% for p in content %}{{ p.text }}{% endfor %}{% endmacro %}"
        "{% for m in messages %}{{ show(m.content) }}{% endfor %}",
        "{% for m in messages %}{{ show(x, m.content) }}{% endfor %}{% macro show(a, b) %}"
        "{% for p in b %}{{ p.text }}{% endfor %}{% endmacro %}"};
    static const char *const not [] = {
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% for c in m.tool_calls %}{{ c }}{% endfor %}{% endfor %}",
        ("{% macro show(a, b) %}{% for p in a %}{{ p }}{% endfor %}{{ b }}{% endmacro %}"
         "{% for m in messages %}{{ show(m.tool_calls, m.content) }}{% endfor %}")};
    for (size_t i = 0; i < sizeof takes / sizeof *takes; i++) {
        ck_assert_msg(opened(takes[i]).takes_parts, "%s", takes[i]);
        arena_clear(&mem);
    }
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++) {
        ck_assert_msg(!opened(not [i]).takes_parts, "%s", not [i]);
        arena_clear(&mem);
    }
}
END_TEST

START_TEST(variables_are_what_the_template_reads_and_nobody_sets) {
    const chat_template t = opened(
        "{% macro show(a, b=dim) %}{{ a }}{{ b }}{% endmacro %}{% set own = 1 %}"
        "{% if enable_thinking is defined and enable_thinking %}{{ own }}{% endif %}"
        "{% if not day is defined %}{% set day = strftime_now('%d') %}{% endif %}{{ day }}"
        "{% for m, n in messages %}{{ show(m, x=effort) }}{{ loop.index }}{{ bos_token }}{% "
        "endfor "
        "%}{{ tools | map(attribute='name') | list }}");
    static const char *const want[] = {"day", "dim", "effort", "enable_thinking"};
    const str *v;
    size_t n;
    ck_assert(template_variables(&t, &mem, &v, &n));
    ck_assert_uint_eq(n, 4);
    for (size_t k = 0; k < 4; k++) {
        size_t i = 0;
        while (i < n && !str_eqz(v[i], want[k])) i++;
        ck_assert_msg(i < n, "%s", want[k]);
    }
    arena_clear(&mem);
}
END_TEST

START_TEST(what_a_template_reads_is_found_out) {
    chat_template t = opened("{{ tools }}{{ messages[0].tool_calls }}{{ messages[0].role == "
                             "'developer' }}{{ messages[0].reasoning_content }}");
    ck_assert(t.takes_tools && t.takes_calls && t.takes_developer && t.takes_reasoning);
    arena_clear(&mem);
    t = opened("{{ messages[0].tools }}{{ reasoning_effort }}");
    ck_assert(!t.takes_tools && !t.takes_calls && !t.takes_developer && !t.takes_reasoning);
    arena_clear(&mem);
    ck_assert(opened("{{ messages[1].content or '' }}").takes_none);
    arena_clear(&mem);
    ck_assert(!opened("{{ messages[1].content }}").takes_none);
    arena_clear(&mem);
    ck_assert(!opened("{{ messages[1].content + '!' }}").takes_none);
    arena_clear(&mem);
}
END_TEST

static void gives(const char *source, const char *json, const char *want) {
    chat_template t = opened(source);
    const json_t *v;
    jinja_text out;
    err e;
    ck_assert_int_eq(json_in_parse(&v, &mem, str_of(json), &e), OK);
    template_args args = {.messages = json_object_get(v, "messages"),
                          .tools = json_object_get(v, "tools"),
                          .kwargs = json_object_get(v, "kwargs"),
                          .add_generation_prompt = true,
                          .now = {.tm_year = 126, .tm_mon = 10, .tm_mday = 28}};
    ck_assert_msg(template_render(&t, &args, &mem, &out, &e) == OK, "%s: %s", source, e.text);
    ck_assert_msg(str_eqz(out.text, want), "%s: <" STR_FMT ">, wanted <%s>", source,
                  STR_ARG(out.text), want);
    arena_clear(&mem);
}

START_TEST(variables_are_those_of_transformers) {
    gives("{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ tools }}{{ documents is none }}"
          "{{ add_generation_prompt }}",
          "{\"messages\": []}", "<s></s>NoneTrueTrue");
    gives("{{ bos_token }}{{ tools }}{{ add_generation_prompt }}{{ x }}{{ messages }}",
          "{\"messages\": [], \"kwargs\": {\"bos_token\": \"B\", \"tools\": 1, "
          "\"add_generation_prompt\": 2, \"x\": 3, \"messages\": 4}}",
          "B123[]");
    gives("{{ strftime_now('%d %b %Y') }}", "{\"messages\": []}", "28 Nov 2026");
}
END_TEST

/* Where the bytes of a prompt come from: upper case is the template's. */
static void marks(const char *source, const char *messages, const char *want) {
    chat_template t = opened(source);
    template_args args = {0};
    jinja_text out;
    err e;
    ck_assert_int_eq(json_in_parse(&args.messages, &mem, str_of(messages), &e), OK);
    ck_assert_int_eq(template_render(&t, &args, &mem, &out, &e), OK);
    for (size_t i = 0, from = 0; i < out.n_runs; from = out.runs[i++].end)
        for (size_t k = from; k < out.runs[i].end; k++)
            ck_assert_msg(out.runs[i].data == (want[k] == '.'), "%s: byte %zu of " STR_FMT,
                          source, k, STR_ARG(out.text));
    ck_assert_uint_eq(out.text.len, strlen(want));
    for (size_t i = 1; i < out.n_runs; i++) ck_assert(out.runs[i].data != out.runs[i - 1].data);
    arena_clear(&mem);
}

START_TEST(roles_within_tokens_of_the_template_are_its_own) {
    marks("{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}",
          "[{\"role\": \"user\", \"content\": \"hi\"}]", "########..");
    /* What is no role, or has another form, is the user's. */
    marks("{{ '<|' + messages[0].content + '|>' }}",
          "[{\"role\": \"user\", \"content\": \"end\"}]", "##...##");
    marks("{{ '<|' + messages[0].role + '|>' }}", "[{\"role\": \"us|er\", \"content\": \"\"}]",
          "##.....##");
    /* At an end of the prompt no token can have it inside. */
    marks("{{ messages[0].role }}", "[{\"role\": \"user\", \"content\": \"\"}]", "....");
}
END_TEST

START_TEST(a_template_that_does_not_parse_says_so) {
    chat_template t;
    template_args args = {0};
    jinja_text out;
    err e;
    arena_init(&mem, chunks_heap(), 0);
    ck_assert_int_eq(
        template_open(&t, STR("a\n{% include 'x' %}"), &tokens, &mem, chunks_heap(), &e),
        ERR_INVALID);
    ck_assert_str_eq(e.field, "chat_template");
    ck_assert_ptr_nonnull(strstr(e.text, "line 2"));
    ck_assert_ptr_null(t.tree);
    e = (err){0};
    ck_assert_int_eq(template_render(&t, &args, &mem, &out, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "include"));
    ck_assert_int_eq(template_open(&t, STR(""), &tokens, &mem, chunks_heap(), &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "no chat template"));
    arena_clear(&mem);
}
END_TEST

/* ---- those of a model ---- */

START_TEST(the_template_of_a_model_is_chosen) {
    fake_checkpoint f;
    template_sources from;
    chat_templates t;
    uint64_t bytes = 0;
    err e;
    fake_init(&f);
    fake_str(&f, "tokenizer.chat_template", "plain");
    fake_str(&f, "tokenizer.chat_template.tool_use", "with tools");
    fake_str(&f, "tokenizer.chat_template.rag", "rag");
    ck_assert_int_eq(template_sources_of(&from, &f.base, STR(""), &e), OK);
    from.kwargs = STR("{\"enable_thinking\": false}");
    ck_assert_int_eq(chat_templates_plan(&from, &bytes, &e), OK);
    ck_assert_int_eq(chat_templates_open(&t, &from, &tokens, chunks_heap(), &e), OK);
    ck_assert_uint_eq(t.mem.total, bytes);
    ck_assert(str_eqz(chat_templates_pick(&t, false)->source, "plain"));
    ck_assert(str_eqz(chat_templates_pick(&t, true)->source, "with tools"));
    ck_assert(json_is_false(json_object_get(t.kwargs, "enable_thinking")));
    chat_templates_close(&t);

    ck_assert(template_is_named(&f.base, STR("rag")));
    ck_assert(!template_is_named(&f.base, STR("other")));
    ck_assert_int_eq(template_sources_of(&from, &f.base, STR("rag"), &e), OK);
    ck_assert_int_eq(chat_templates_open(&t, &from, &tokens, chunks_heap(), &e), OK);
    ck_assert(str_eqz(chat_templates_pick(&t, true)->source, "rag"));
    chat_templates_close(&t);
    ck_assert_int_eq(template_sources_of(&from, &f.base, STR("other"), &e), ERR_INVALID);

    from = (template_sources){STR("x"), STR(""), STR("[1]")};
    ck_assert_int_eq(chat_templates_plan(&from, &bytes, &e), ERR_INVALID);
    ck_assert_str_eq(e.field, "chat_template_kwargs");
}
END_TEST

START_TEST(a_model_whose_template_does_not_parse_opens) {
    const template_sources from = {STR("{% x %}"), STR(""), STR("")};
    chat_templates t;
    err e;
    ck_assert_int_eq(chat_templates_open(&t, &from, &tokens, chunks_heap(), &e), OK);
    ck_assert_ptr_null(chat_templates_pick(&t, false)->tree);
    ck_assert(str_eqz(chat_templates_pick(&t, false)->source, "{% x %}"));
    chat_templates_close(&t);
}
END_TEST

CHECK_MAIN("template", prompts_are_what_jinja_makes_of_the_published_templates,
           content_is_given_in_parts_to_templates_that_go_through_it,
           what_a_template_reads_is_found_out,
           variables_are_what_the_template_reads_and_nobody_sets,
           variables_are_those_of_transformers, roles_within_tokens_of_the_template_are_its_own,
           a_template_that_does_not_parse_says_so, the_template_of_a_model_is_chosen,
           a_model_whose_template_does_not_parse_opens)
