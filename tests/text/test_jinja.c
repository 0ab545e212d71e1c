/* The template engine: one case per rule that published templates depend on, and
 * tests/golden/jinja.json, which jinja2 has rendered (make_jinja_golden.py).
 * VRAMD_JINJA_GOLDEN names another such file that is compared as well. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/jinja.h"
#include "tests/check_main.h"

static const jinja_settings fixed = {.now = {.tm_year = 126,
                                             .tm_mon = 2,
                                             .tm_mday = 4,
                                             .tm_hour = 5,
                                             .tm_min = 6,
                                             .tm_sec = 7,
                                             .tm_wday = 3,
                                             .tm_yday = 62},
                                     .max_bytes = 1 << 20};

/* Renders with the members of a JSON object as variables; bos_token is trusted. */
static status render(arena *a, const char *source, const json_t *context,
                     const jinja_settings *set, jinja_text *out, err *e) {
    const jinja_tree *t;
    jinja_var vars[32];
    size_t n = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)context, key, v) {
        vars[n++] = (jinja_var){str_of(key), v, strcmp(key, "bos_token") == 0};
    }
    if (jinja_parse(&t, a, str_of(source), e) != OK) return e->code;
    return jinja_render(t, vars, n, set, a, out, e);
}

static status run(arena *a, const char *source, const char *json, jinja_text *out, err *e) {
    const json_t *context;
    arena_init(a, chunks_heap(), 64 << 20);
    ck_assert_msg(json_in_parse(&context, a, str_of(json ? json : "{}"), e) == OK, "%s",
                  e->text);
    return render(a, source, context, &fixed, out, e);
}

static void gives_in(const char *source, const char *json, const char *want) {
    arena a;
    err e;
    jinja_text out;
    status s = run(&a, source, json, &out, &e);
    ck_assert_msg(s == OK, "%s: %s", source, e.text);
    ck_assert_msg(str_eq(out.text, str_of(want)), "%s:\n<" STR_FMT ">\n<%s>", source,
                  STR_ARG(out.text), want);
    arena_clear(&a);
}
static void gives(const char *source, const char *want) {
    gives_in(source, NULL, want);
}
static void fails(const char *source, status want, const char *part) {
    arena a;
    err e = {0};
    jinja_text out;
    status s = run(&a, source, NULL, &out, &e);
    ck_assert_msg(s == want && strstr(e.text, part), "%s: %d %s", source, s, e.text);
    arena_clear(&a);
}

START_TEST(white_space_of_the_text) {
    gives("a\r\nb\rc\n", "a\nb\nc");
    gives("a\n\n", "a\n");
    gives("{% if true %}\nx\n{% endif %}\ny", "x\ny");
    gives("  {% if true %}x{% endif %}", "x");
    gives("  {{ 1 }}\n", "  1");
    gives("  {%+ if true %}x{% endif %}", "  x");
    gives("{{ 1 }}\n{{ 2 }}", "1\n2");
    gives("a  {#- c -#}  b", "ab");
    gives("a {#c#}\nb", "a b");
    gives("x\n  {# c #}\nb", "x\nb");
    gives("{{- 0.0 -}}  b", "0.0b");
    gives("a  {{-0.0}}", "a0.0");
    gives("{% raw %}{{ x }}{% y %}{% endraw %}", "{{ x }}{% y %}");
    gives("{{ {'a': {}} }}", "{'a': {}}");
}
END_TEST

START_TEST(printing_as_python_does) {
    gives("{{ true }} {{ none }} {{ 1.0 }} {{ 1e22 }} {{ 1e-7 }} {{ 0.1 + 0.2 }}",
          "True None 1.0 1e+22 1e-07 0.30000000000000004");
    gives("{{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 123456.75 }}",
          "1e+16 1000000000000000.0 0.0001 1e-05 123456.75");
    gives("{{ 12345678901234567890123 }}{{ missing }}", "12345678901234567890123");
    gives("{{ ['a\"', \"it's\", true, none] }}", "['a\"', \"it's\", True, None]");
    gives("{{ {'k': [1.5]} }} {{ ('a', 'b') }} {{ ('a',) }}", "{'k': [1.5]} ('a', 'b') ('a',)");
    gives("{{ ['\\n\\x07\\u2028é'] }}", "['\\n\\x07\\u2028é']");
    gives("{{ {'a': 1}.items() }}", "dict_items([('a', 1)])");
}
END_TEST

START_TEST(json_as_transformers_prints_it) {
    gives("{{ {'a': [1.0, true, none], 'b': {}}|tojson }}",
          "{\"a\": [1.0, true, null], \"b\": {}}");
    gives("{{ {'a': [1], 'b': []}|tojson(indent=2) }}",
          "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}");
    gives("{{ ['é\\u2028\\x7f\\x1f\"\\\\\\n']|tojson }}",
          "[\"é\u2028\x7f\\u001f\\\"\\\\\\n\"]");
    gives("{{ 'é😀'|tojson(ensure_ascii=true) }}", "\"\\u00e9\\ud83d\\ude00\"");
    gives("{{ {'a': 1}|tojson(separators=(',', ':')) }}", "{\"a\":1}");
    gives_in("{{ x|tojson }}", "{\"x\": {\"z\": 1, \"a\": {\"c\": 1e-7, \"b\": -0.0}}}",
             "{\"z\": 1, \"a\": {\"c\": 1e-07, \"b\": -0.0}}");
    fails("{{ missing|tojson }}", ERR_INVALID, "not JSON serializable");
}
END_TEST

START_TEST(attributes_before_keys_and_keys_before_attributes) {
    gives_in("{{ s.items is callable }}{{ s['items'] }}", "{\"s\": {\"items\": 1}}", "True1");
    gives_in("{{ s.name }}{{ s.none }}", "{\"s\": {\"name\": \"n\"}}", "n");
    fails("{% set x = [1].append(2) %}", ERR_INVALID, "append");
    fails("{{ {'a': 1}.update({}) }}", ERR_INVALID, "update");
    fails("{{ '[]'|from_json }}", ERR_INVALID, "from_json");
    gives("{{ '[]'|from_json if false }}", "");
}
END_TEST

START_TEST(undefined_values) {
    gives("{{ x }}{% for i in x %}i{% endfor %}{{ x|length }}{{ x|default('d') }}", "0d");
    gives("{{ none|default('d') }}{{ none|default('d', true) }}{{ ''|d('e', true) }}",
          "Nonede");
    gives("{{ ('&'|safe) + '<' }}{{ 1 + 2 }}{{ 'a' + 'b' + 'c' }}{{ 1 ~ none ~ x }}",
          "&&lt;3abc1None");
    gives("{{ [1][5] is undefined }}{{ {}.k is undefined }}{{ [1][5:] }}{{ 1 if false }}",
          "TrueTrue[]");
    fails("a\n{{ x.y }}", ERR_INVALID, "'x' is undefined, line 2");
    fails("{{ x.y.z }}", ERR_INVALID, "'x' is undefined");
    fails("{{ {}.a.b }}", ERR_INVALID, "'dict object' has no attribute 'a'");
    fails("{{ {}['a'].b }}", ERR_INVALID, "'dict object' has no attribute 'a'");
    fails("{{ {}['a' ~ 1] < 2 }}", ERR_INVALID, "'dict object' has no attribute 'a1'");
    fails("{{ [1][5] + 1 }}", ERR_INVALID, "'list object' has no such element");
    fails("{{ 'a' + x }}", ERR_INVALID, "'x' is undefined");
}
END_TEST

START_TEST(types_and_operators) {
    gives("{{ 'a' is sequence }}{{ {} is sequence }}{{ {} is iterable }}{{ 1 is iterable }}"
          "{{ none is sequence }}",
          "TrueTrueTrueFalseFalse");
    gives("{{ true is number }}{{ true is integer }}{{ 1 == true }}{{ '1' == 1 }}",
          "TrueFalseTrueFalse");
    gives("{{ 'a' ~ 1 ~ none }}{{ 0 or 'x' }}{{ 1 and '' }}|{{ 'aé'|length }}{{ 'éab'[:2] }}",
          "a1Nonex|2éa");
    gives("{{ 7 % 3 }}{{ -7 % 3 }}{{ 7 / 2 }}{{ -2.5|round }}{{ 'ab' * 2 }}", "123.5-2.0abab");
    gives("{{ 'abc'[::-1] }}{{ [1, 2, 3][::-1] }}{{ 'abc'[-2:] }}{{ 'abcd'[1:-1] }}",
          "cba[3, 2, 1]bcbc");
    fails("{{ 1 < 'a' }}", ERR_INVALID,
          "'<' not supported between instances of 'int' and 'str'");
    fails("{{ 'a' + 1 }}", ERR_INVALID, "can only concatenate str (not \"int\") to str");
    fails("{{ 'a' + none }}", ERR_INVALID, "NoneType");
    fails("{{ 'a' in none }}", ERR_INVALID, "not iterable");
    fails("{{ none|length }}", ERR_INVALID, "has no len()");
}
END_TEST

START_TEST(scopes_of_names) {
    gives("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "21");
    gives("{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "2");
    gives("{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "2");
    gives("{% for i in [7] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "7");
    gives("{% set n = namespace(v=1) %}{% for i in [1, 2] %}{% set n.v = n.v + i %}{% endfor "
          "%}{{ n.v }}",
          "4");
    gives("{% generation %}{% set x = 1 %}a{% endgeneration %}{{ x }}", "a");
    gives("{% set x %} a {% endset %}[{{ x }}]", "[ a ]");
    gives("{% set x | trim %} a {% endset %}[{{ x }}]", "[a]");
    gives("{% set a, b = 1, 'x' %}{{ a }}{{ b }}", "1x");
    fails("{{ m() }}{% macro m() %}{% endmacro %}", ERR_INVALID, "'m' is undefined");
}
END_TEST

START_TEST(macros_and_their_arguments) {
    gives("{% macro m(a, b=a ~ 1) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, b=2) }}",
          "111 12");
    gives("{% macro m(a) %}{{ a is defined }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m() }}"
          "{{ m(1, 2, k=3) }}",
          "False(){}True(2,){'k': 3}");
    fails("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", ERR_INVALID,
          "not more than 1 argument");
    fails("{% macro m(a) %}{% endmacro %}{{ m(x=2) }}", ERR_INVALID, "no keyword argument 'x'");
    gives("{% macro f(n) %}{{ n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(3) }}", "3210");
    /* A call that is printed, and one whose value is used. */
    gives("{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}"
          "{% set v %}<{{ f(2) }}>{% endset %}{{ v|length }}{{ f(1) ~ f(0)|length }}",
          "32105101");
    gives("{% macro f(c) %}{% for i in c %}{% if i == 2 %}{% break %}{% endif %}{{ i }}"
          "{% endfor %}{% endmacro %}{% for k in [1, 2] %}{{ f([1, 2, 3]) }}{% endfor %}",
          "11");
}
END_TEST

START_TEST(loops) {
    gives("{% for i in 'abc' %}{{ loop.index }}{{ loop.last }}{{ loop.previtem }}{{ "
          "loop.nextitem }} "
          "{% endfor %}",
          "1Falseb 2Falseac 3Trueb ");
    gives("{% for i in [1, 2, 3, 4] if i % 2 == 0 %}{{ loop.index0 }}{{ loop.length }}"
          "{{ loop.revindex }} {% endfor %}",
          "022 121 ");
    gives("{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% "
          "break %}"
          "{% endif %}{{ i }}{% else %}no{% endfor %}",
          "02");
    gives("{% for i in [] %}x{% else %}no{% endfor %}", "no");
    gives("{% for k, v in {'a': 1}|items %}{{ k }}{{ v }}{% endfor %}", "a1");
    /* The condition is evaluated when its item is reached. */
    gives("{% set n = namespace(s=0) %}{% for i in [1, 2, 3] if n.s < 2 %}{{ i }}"
          "{% set n.s = n.s + 1 %}{% endfor %}",
          "12");
    gives("{% for i in 'ab' %}{{ loop['in' ~ 'dex'] }}{{ loop['last'] }}{% endfor %}",
          "1False2True");
    fails("{% for i in 'a' %}{{ loop.name.x }}{% endfor %}", ERR_INVALID,
          "'LoopContext' object has no attribute 'name'");
    fails("{% for a, b in [1] %}{% endfor %}", ERR_INVALID, "not iterable");
    fails("{% for a, b in [[1]] %}{% endfor %}", ERR_INVALID, "not enough values");
    fails("{% for i in none %}{% endfor %}", ERR_INVALID, "'NoneType' object is not iterable");
    fails("{{ range(100001) }}", ERR_INVALID, "Range too big");
}
END_TEST

START_TEST(filters_of_strings) {
    gives("{{ 'straße'|upper }}{{ 'ÉA'|lower }}{{ '\u00a0a\u2003'|trim }}{{ 'xax'|trim('x') }}",
          "STRASSEéaaa");
    gives("{{ 'aXb'|capitalize }} {{ 'a b-c(d'|title }} {{ 'aaa'|replace('a', 'b', 2) }}",
          "Axb A B-C(D bba");
    gives("{{ 'a\nb\n\nc'|indent(2) }}|{{ 'a'|indent(2, true) }}", "a\n  b\n\n  c|  a");
    gives("{{ '%s=%d %.2f %%'|format('a', 3, 1.5) }} {{ '%03d' % 7 }}", "a=3 1.50 % 007");
    gives("{{ ['a', 1, none]|join('-') }}{{ [{'n': 1}, {'n': 2}]|join(',', attribute='n') }}",
          "a-1-None1,2");
    gives("{{ ' 12 '|int + 1 }} {{ '1.9'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 5|string ~ 1 "
          "}}",
          "13 1 0 7 51");
    gives("{{ ('<a>'|safe) + '<b>' }}{{ '<a>'|safe ~ '<b>' }}", "<a>&lt;b&gt;<a><b>");
}
END_TEST

START_TEST(filters_of_sequences) {
    gives("{{ {'b': 1, 'A': 2}|dictsort }} {{ {'b': 1}|first }} {{ 'xyz'|last }}",
          "[('A', 2), ('b', 1)] b z");
    gives(
        "{{ [{'r': 'a'}, {'r': 'b'}, {}]|selectattr('r', 'defined')|map(attribute='r')|list }}",
        "['a', 'b']");
    gives("{{ [{'r': 'a'}, {'r': 'b'}]|rejectattr('r', 'equalto', 'a')|list|length }}", "1");
    gives("{{ [{'r': 'a'}]|selectattr('r', 'in', ['a'])|list }}{{ [0, 1, 2]|reject('==', "
          "1)|list }}",
          "[{'r': 'a'}][0, 2]");
    gives("{{ ['b', 'A', 'a']|sort }}{{ ['b', 'A', 'a']|unique|list }}{{ [2, 1]|min }}{{ [2, "
          "1]|max }}",
          "['A', 'a', 'b']['b', 'A']12");
    gives("{{ ['a']|map('upper')|list }}{{ [1, 2]|map('string')|join }}", "['A']12");
    /* A generator is true and is read once. */
    gives("{% set g = []|select %}{{ 'yes' if g }}{% set g = [1]|select %}{{ g|list }}{{ "
          "g|list }}",
          "yes[1][]");
    gives("{{ none|selectattr('a')|list }}{{ none|map('upper')|list }}", "[][]");
    fails("{{ [1]|select|length }}", ERR_INVALID, "has no len()");
    fails("{{ [1]|indent }}", ERR_INVALID, "indent of a 'list'");
    fails("{{ [1, 'a']|sort }}", ERR_INVALID, "not supported between");
}
END_TEST

START_TEST(methods_of_strings) {
    gives("{{ ' a b  c '.split() }}{{ 'a,,b'.split(',') }}{{ 'a,b,c'.split(',', 1) }}",
          "['a', 'b', 'c']['a', '', 'b']['a', 'b,c']");
    gives("{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b c '.split(none, 1) }}{{ ' a b c '.rsplit(none, "
          "1) }}",
          "['a,b', 'c']['a', 'b c '][' a b', 'c']");
    gives("{{ 'xxa'.lstrip('x') }}{{ 'a\n'.rstrip() }}{{ 'ab'.startswith(('x', 'a')) }}"
          "{{ 'ab'.endswith('b') }}",
          "aaTrueTrue");
    gives("{{ 'éab'.find('b') }}{{ 'ab'.find('x') }}{{ 'banana'.count('an') }}{{ "
          "'a\nb\n'.splitlines() }}",
          "2-12['a', 'b']");
    gives("{{ \"they're\".title() }}{{ '{} {n}'.format(1, n=2) }}{{ '-'.join(['a', 'b']) }}",
          "They'Re1 2a-b");
    gives("{{ {'a': none}.get('a', 1) }}{{ {}.get('a', 1) }}{{ {'a': 1}.keys()|list }}",
          "None1['a']");
}
END_TEST

START_TEST(functions_of_the_environment) {
    gives("{{ strftime_now('%d %b %Y') }}{{ dict(a=1) }}{{ range(2, 9, 3)|list }}",
          "04 Mar 2026{'a': 1}[2, 5, 8]");
    fails("{{ raise_exception('as \"it\" is') }}", ERR_INVALID, "as \"it\" is");
    arena a;
    err e;
    jinja_text out;
    ck_assert_int_eq(run(&a, "{{ raise_exception('m') }}", NULL, &out, &e), ERR_INVALID);
    ck_assert_str_eq(e.text, "m");
    ck_assert_str_eq(e.field, "messages");
    arena_clear(&a);
}
END_TEST

START_TEST(what_is_not_supported_is_refused_by_name) {
    static const char *const source[] = {"{% include 'a' %}",
                                         "{% call m() %}{% endcall %}",
                                         "{% block a %}{% endblock %}",
                                         "{% do x %}",
                                         "{{ x|groupby('a') }}",
                                         "{{ x is sameas y }}",
                                         "{% for i in x recursive %}{% endfor %}",
                                         "{{ 2 ** 3 }}",
                                         "{{ 2 // 3 }}",
                                         "{{ m(*a) }}",
                                         "{% for i in x %}{{ loop.cycle(1) }}{% endfor %}",
                                         "{{ 1 < 2 < 3 }}"};
    static const char *const word[] = {"include", "call",   "block",      "\"do\"",
                                       "groupby", "sameas", "recursive",  "**",
                                       "//",      "*",      "loop.cycle", "chained"};
    for (size_t i = 0; i < sizeof source / sizeof *source; i++)
        fails(source[i], ERR_INVALID, word[i]);
    fails("a\n{{ 1", ERR_INVALID, "line 2");
    fails("{% if x %}", ERR_INVALID, "endif");
    fails("{% break %}", ERR_INVALID, "break");
    fails("{{ 'a }}", ERR_INVALID, "string");
}
END_TEST

START_TEST(limits_end_a_template) {
    fails("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
          ERR_TOO_LONG, "steps");
    fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ERR_TOO_LONG, "macros");
    fails(
        "{% set n = namespace(s='a' * 1000) %}{% for i in range(18) %}{% set n.s = n.s + n.s %}"
        "{% endfor %}",
        ERR_NO_MEMORY, "memory");
    fails("{{ 'a' * 1000 * 2000 }}", ERR_TOO_LONG, "prompt is too long");
    fails("{{ 'a' * 9000000000000 }}", ERR_TOO_LONG, "steps");
    fails("{% set n = namespace(l=[]) %}{% for i in range(300) %}{% set n.l = [n.l] %}{% "
          "endfor %}"
          "{{ n.l }}",
          ERR_TOO_LONG, "nested");
    char deep[800] = "{{ ";
    memset(deep + 3, '(', 300);
    fails(deep, ERR_INVALID, "deep");
    char wide[300] = "{% macro m() %}{{ ";
    for (int i = 0; i < 40; i++) strcat(wide, "[");
    strcat(wide, "m()");
    for (int i = 0; i < 40; i++) strcat(wide, "]");
    fails(strcat(wide, " }}{% endmacro %}{{ m() }}"), ERR_TOO_LONG, "nested too deeply");
    /* jinja2 runs 150 macros within each other. */
    gives("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% else %}end{% endif %}{% endmacro %}{{ "
          "m(149) }}",
          "end");
    static char large[JINJA_MAX_SOURCE + 2];
    memset(large, 'a', JINJA_MAX_SOURCE + 1);
    fails(large, ERR_INVALID, "larger than 256 KiB");
}
END_TEST

/* "t" for bytes of the template and what is trusted, "d" for data. */
static void marks(const char *source, const char *json, const char *want) {
    arena a;
    err e;
    jinja_text out;
    char got[256] = "";
    ck_assert_msg(run(&a, source, json, &out, &e) == OK, "%s: %s", source, e.text);
    size_t at = 0;
    for (size_t r = 0; r < out.n_runs; r++)
        for (; at < out.runs[r].end; at++) got[at] = out.runs[r].data ? 'd' : 't';
    ck_assert_uint_eq(at, out.text.len);
    ck_assert_msg(strcmp(got, want) == 0, "%s: %s, not %s", source, got, want);
    arena_clear(&a);
}

START_TEST(every_byte_has_an_origin) {
    const char *v = "{\"m\": {\"c\": \" Ab \", \"n\": [1, \"q\"]}, \"bos_token\": \"<s>\"}";
    marks("a{{ m.c }}b", v, "tddddt");
    marks("{{ bos_token + m.c|trim ~ '<|x|>' }}", v, "tttddttttt");
    marks("{{ ('<' + m.c + '>')|upper }}", v, "tddddt");
    marks("{{ ('<' + m.c + '>')[2:] }}", v, "dddt");
    marks("{{ ('<' + m.c + '>').split('b')[1] }}", v, "dt");
    marks("{{ 'a-b'|replace('-', m.c) }}", v, "tddddt");
    marks("{{ ['x', m.c]|join('+') }}", v, "ttdddd");
    marks("{{ m.n|tojson }}", v,
          "ddddddd"
          "d");
    marks("{{ '%s:' % m.c }}{% for c in m.c.strip() %}{{ c }}.{% endfor %}", v, "ddddtdtdt");
    marks("{% set x %}<{{ m.c }}>{% endset %}{{ x }}", v, "tddddt");
}
END_TEST

/* Every count of allocations until it succeeds: an error each time, never a fault. */
static void *stingy_take(void *self, size_t bytes, size_t *got) {
    size_t *left = self;
    if (*left == 0) return NULL;
    --*left;
    *got = bytes;
    return malloc(bytes);
}
static void stingy_give(void *self, void *p, size_t got) {
    (void)self, (void)got;
    free(p);
}
START_TEST(without_memory_it_fails_cleanly) {
    static const char source[] =
        "{% macro m(a, b={'k': [1]}) %}{{ a|upper }}{{ b|tojson(indent=1) }}{% endmacro %}"
        "{% for i in range(300) %}{% set s %}{{ m('x' * i) }}{% endset %}{{ s.split('X')|sort "
        "}}"
        "{{ [s, 'é']|map('title')|unique|join }}{{ '%s' % s }}{% endfor %}";
    status s = ERR_NO_MEMORY;
    for (size_t n = 0; s == ERR_NO_MEMORY; n++) {
        size_t left = n;
        chunks few = {&left, stingy_take, stingy_give};
        arena a;
        err e = {0};
        jinja_text out;
        const jinja_tree *t;
        ck_assert_uint_lt(n, 1000);
        arena_init(&a, &few, 0);
        s = jinja_parse(&t, &a, STR(source), &e);
        if (s == OK) s = jinja_render(t, NULL, 0, &fixed, &a, &out, &e);
        arena_clear(&a);
    }
    ck_assert(s == OK || s == ERR_TOO_LONG);
}
END_TEST

/* Returns how many of the file's renderings have other bytes; prints them where verbose. */
static size_t compare_file(const char *path, bool verbose, size_t *n_all) {
    json_error_t je;
    json_t *g = json_load_file(path, JSON_ALLOW_NUL, &je);
    ck_assert_msg(g != NULL, "%s: %s", path, je.text);
    const json_t *sources = json_object_get(g, "sources"),
                 *contexts = json_object_get(g, "contexts");
    size_t bad = 0;
    for (size_t t = 0; t < json_array_size(sources); t++)
        for (size_t c = 0; c < json_array_size(contexts); c++, ++*n_all) {
            const json_t *want =
                json_array_get(json_array_get(json_object_get(g, "wants"), t), c);
            const json_t *why =
                json_array_get(json_array_get(json_object_get(g, "errors"), t), c);
            arena a;
            err e = {0};
            jinja_text out = {0};
            arena_init(&a, chunks_heap(), 64 << 20);
            status s = render(&a, json_string_value(json_array_get(sources, t)),
                              json_array_get(contexts, c), &fixed, &out, &e);
            bool refused = s == ERR_INVALID || s == ERR_TOO_LONG;
            bool same =
                json_is_null(want) ? refused : s == OK && str_eq(out.text, json_in_text(want));
            bad += !same;
            if (!same && verbose)
                printf("%s, conversation %zu: %s; jinja2: %s\n<" STR_FMT ">\n<%s>\n",
                       json_string_value(json_array_get(json_object_get(g, "names"), t)), c,
                       e.text, json_is_null(why) ? "" : json_string_value(why),
                       STR_ARG(out.text), json_is_null(want) ? "" : json_string_value(want));
            arena_clear(&a);
        }
    json_decref(g);
    return bad;
}

START_TEST(same_bytes_as_jinja2) {
    size_t n = 0;
    ck_assert_uint_eq(compare_file("tests/golden/jinja.json", true, &n), 0);
    ck_assert_uint_ge(n, 200);
    const char *more = getenv("VRAMD_JINJA_GOLDEN");
    if (!more) return;
    n = 0;
    size_t bad = compare_file(more, true, &n);
    printf("%s: %zu of %zu have jinja2's bytes\n", more, n - bad, n);
    ck_assert_uint_eq(bad, 0);
}
END_TEST

CHECK_MAIN("jinja", white_space_of_the_text, printing_as_python_does,
           json_as_transformers_prints_it, attributes_before_keys_and_keys_before_attributes,
           undefined_values, types_and_operators, scopes_of_names, macros_and_their_arguments,
           loops, filters_of_strings, filters_of_sequences, methods_of_strings,
           functions_of_the_environment, what_is_not_supported_is_refused_by_name,
           limits_end_a_template, every_byte_has_an_origin, without_memory_it_fails_cleanly,
           same_bytes_as_jinja2)
