/* The format of calls is found by rendering them with the model's template, and only a row that
 * gives them back is used. */
#include "tests/check_main.h"
#include "base/check.h"
#include "tests/json.h"
#include "text/jinja/jinja.h"
#include "text/reply/reply_derive.h"

#include <dirent.h>
#include <stdio.h>

typedef struct rig {
    const jinja_tree *tree;
} rig;

static bool render(void *user, const json_t *messages, const json_t *tools, bool generation,
                   arena *a, str *out) {
    const rig *r = user;
    const jinja_settings set = {.now = {.tm_year = 126, .tm_mday = 1}, .max_bytes = 1 << 20};
    const jinja_var vars[] = {{STR("messages"), messages, false},
                              {STR("tools"), tools, false},
                              {STR("add_generation_prompt"), json_boolean(generation), false},
                              {STR("bos_token"), json_string("<s>"), true},
                              {STR("eos_token"), json_string("</s>"), true}};
    jinja_text text;
    err e;
    arena *before = json_use_arena(a);
    const bool ok = jinja_render(r->tree, vars, 5, &set, a, &text, &e) == OK;
    json_use_arena(before);
    *out = ok ? text.text : (str){0};
    return ok;
}

static status derive(str source, arena *a, reply_plan *p, err *e) {
    rig r;
    const status s = jinja_parse(&r.tree, a, source, e);
    const reply_source src = {.template = source, .render = render, .user = &r};
    if (s == OK) CHECK(reply_derive(p, chunks_heap(), &src));
    return s;
}

#define CALLS(body)                                                                            \
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}{% if m.tool_calls %}" body   \
    "{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
#define EACH "{% for c in m.tool_calls %}{% set f = c.function %}"

static const struct {
    const char *source, *format; /* NULL: none */
    bool single;
} templates[] = {
    {CALLS(EACH
           "\n<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson "
           "}}}\n</tool_call>{% endfor %}"),
     "hermes", false},
    /* values lose their quotes: strings cannot come back */
    {CALLS(
         EACH
         "<tool_call>{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments }}}</tool_call>"
         "{% endfor %}"),
     NULL, false},
    /* the name is not written */
    {CALLS(EACH
           "<tool_call>{\"arguments\": {{ f.arguments | tojson }}}</tool_call>{% endfor %}"),
     NULL, false},
    {CALLS(
         "{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}{\"name\": "
         "\"{{ m.tool_calls[0].function.name }}\", \"parameters\": {{ "
         "m.tool_calls[0].function.arguments | tojson }}}"),
     "llama", true},
    {CALLS(
         EACH
         "<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments | items %}"
         "<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor "
         "%}</function>\n</tool_call>\n{% endfor %}"),
     "qwen3-coder", false},
    {CALLS("[TOOL_CALLS]" EACH
           "{{ '[' if loop.first }}{\"name\": \"{{ f.name }}\", \"arguments\": "
           "{{ f.arguments | tojson }}, \"id\": \"{{ c.id }}\"}{{ ', ' if not loop.last else "
           "']' }}"
           "{% endfor %}"),
     "mistral", false},
    {CALLS(EACH "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}{% endfor %}"),
     "mistral-v11", false},
    {CALLS(
         "<|tool_calls_section_begin|>" EACH "<|tool_call_begin|>functions.{{ f.name }}:{{ "
         "loop.index0 }}<|tool_call_argument_begin|>{{ f.arguments | tojson }}<|tool_call_end|>"
         "{% endfor %}<|tool_calls_section_end|>"),
     "kimi-k2", false},
    {CALLS(
         EACH
         "<tool_call>{{ f.name }}\n{% for k, v in f.arguments | items %}<arg_key>{{ k }}"
         "</arg_key>\n<arg_value>{{ v if v is string else v | tojson }}</arg_value>\n{% endfor "
         "%}</tool_call>{% endfor %}"),
     "glm", false},
    {CALLS("no calls at all"), NULL, false},
    /* of no row: derived */
    {CALLS(EACH
           "\n<call>\n{\"tool\": \"{{ f.name }}\", \"input\": {{ f.arguments | tojson }}}\n"
           "</call>{% endfor %}"),
     "derived", false},
    {CALLS("<calls>\n" EACH
           "<call>{{ f.name }} => {{ f.arguments | tojson }}</call>\n{% endfor %}"
           "</calls>"),
     "derived", false},
    {CALLS("@tools[" EACH "{{ ', ' if not loop.first }}{\"args\": {{ f.arguments | tojson }}, "
           "\"fn\": \"{{ f.name }}\"}{% endfor %}]@"),
     "derived", false},
    {CALLS("{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}"
           "!use {{ m.tool_calls[0].function.name }} with {{ "
           "m.tool_calls[0].function.arguments | tojson }}!"),
     "derived", true},
    /* the id stands in the frame: no mark is constant */
    {CALLS(EACH
           "<call id={{ c.id }}>{{ f.name }} {{ f.arguments | tojson }}</call>{% endfor %}"),
     NULL, false},
    /* nothing marks a call */
    {CALLS(EACH "{{ f.name }} {{ f.arguments | tojson }}{% endfor %}"), NULL, false},
};

START_TEST(a_row_is_used_that_gives_back_what_the_template_writes) {
    arena a;
    reply_plan p;
    err e;
    arena_init(&a, chunks_heap(), 0);
    ck_assert_int_eq(derive(str_of(templates[_i].source), &a, &p, &e), OK);
    if (templates[_i].format) {
        ck_assert_ptr_nonnull(p.format);
        ck_assert_str_eq(p.format->name, templates[_i].format);
    } else {
        ck_assert_ptr_null(p.format);
    }
    ck_assert_int_eq(p.single, templates[_i].single);
    arena_clear(&a);
}
END_TEST

START_TEST(reasoning_is_found_in_a_template_without_calls) {
    arena a;
    reply_plan p;
    err e;
    arena_init(&a, chunks_heap(), 0);
    const str source = STR("{{ messages[0].content.split('</think>')[-1] }}");
    ck_assert_int_eq(derive(source, &a, &p, &e), OK);
    ck_assert_ptr_null(p.format);
    ck_assert(str_eqz(p.text[MARK_THINK], "<think>"));
    arena_clear(&a);
}
END_TEST

/* VRAMD_TEMPLATES: a folder of published templates; prints a line for each. */
static int report(const char *folder) {
    DIR *d = opendir(folder);
    for (struct dirent *f; d && (f = readdir(d));) {
        static char text[1 << 18];
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
        FILE *in = f->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (!in) continue;
        arena a;
        reply_plan p;
        err e;
        arena_init(&a, chunks_heap(), 0);
        const status s = derive((str){text, fread(text, 1, sizeof text, in)}, &a, &p, &e);
        fclose(in);
        if (s != OK)
            printf("%-56s %s\n", f->d_name, e.text);
        else
            printf("%-56s %-14s %s reasoning " STR_FMT "\n", f->d_name,
                   p.format ? p.format->name : "none", p.single ? "one call," : "",
                   STR_ARG(p.text[MARK_THINK].len ? p.text[MARK_THINK] : STR("none")));
        arena_clear(&a);
    }
    if (d) closedir(d);
    return 0;
}

int main(void) {
    if (getenv("VRAMD_TEMPLATES")) return report(getenv("VRAMD_TEMPLATES"));
    Suite *s = suite_create("reply_derive");
    TCase *t = check_case(s, "reply_derive");
    tcase_add_loop_test(t, a_row_is_used_that_gives_back_what_the_template_writes, 0,
                        sizeof templates / sizeof *templates);
    tcase_add_test(t, reasoning_is_found_in_a_template_without_calls);
    return check_run(s);
}
