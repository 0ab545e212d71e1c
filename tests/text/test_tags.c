/* Structural tags: what each form takes and does not; what is refused and how that is said. */
#include "text/tags.h"

#include "tests/text/grammar_rig.h"

enum { MAX_TEXTS = 8 };
typedef struct sample {
    const char *tag, *yes[MAX_TEXTS], *no[MAX_TEXTS];
} sample;

static status open_tag(rig *x, const words *w, const char *tag, err *e) {
    const tags_options o = {.tok = w->tok, .schema = {.closed = true}};
    const json_t *v;
    rule root;
    rig_init(x);
    ck_assert_msg(json_in_parse(&v, &x->mem, str_of(tag), e) == OK, "%s", tag);
    status st = rules_tags(x->r, v, &o, &root, e);
    return st == OK ? rig_try(x, root, w->v, e) : st;
}

static void check(const sample *s, size_t n) {
    words w;
    words_tiny(&w, 1 << 16);
    for (; n-- > 0; s++) {
        rig x;
        err e = {0};
        ck_assert_msg(open_tag(&x, &w, s->tag, &e) == OK, "%s: %s", s->tag, e.text);
        check_mask(&w, &x);
        for (int i = 0; i < MAX_TEXTS && s->yes[i]; i++)
            ck_assert_msg(takes(&x, s->yes[i]), "%s: %s is not taken", s->tag, s->yes[i]);
        for (int i = 0; i < MAX_TEXTS && s->no[i]; i++)
            ck_assert_msg(!takes(&x, s->no[i]), "%s: %s is taken", s->tag, s->no[i]);
        rig_clear(&x);
    }
    words_close(&w);
}
#define CHECK_ALL(t) check(t, sizeof(t) / sizeof *(t))

START_TEST(structures_and_triggers_as_in_vllm) {
    static const sample t[] = {
        {"{\"type\":\"structural_tag\",\"triggers\":[\"<f=\"],\"structures\":["
         "{\"begin\":\"<f=a>\",\"schema\":{\"type\":\"object\",\"properties\":{\"n\":"
         "{\"type\":\"integer\"}},\"required\":[\"n\"]},\"end\":\"</f>\"},"
         "{\"begin\":\"<f=b>\",\"schema\":{\"type\":\"boolean\"},\"end\":\"</f>\"}]}",
         {"", "free <f", "x <f=a>{\"n\":1}</f> y <f=b>true</f>", "<f=b>false</f>"},
         {"<f=", "<f=c>", "<f=a>{}</f>", "<f=b>true", "<f=a>true</f>", "<f=b>1</f>"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(formats_as_in_xgrammar) {
    static const sample t[] = {
        {"{\"format\":{\"type\":\"const_string\",\"value\":\"ab\"}}", {"ab"}, {"", "abc", "a"}},
        {"{\"format\":{\"type\":\"json_schema\",\"json_schema\":{\"enum\":[1,2]}}}",
         {"1", "2"},
         {"3", ""}},
        {"{\"format\":{\"type\":\"regex\",\"pattern\":\"a+\"}}", {"a", "aa"}, {"", "ab"}},
        {"{\"format\":{\"type\":\"grammar\",\"grammar\":\"root ::= \\\"a\\\" | \\\"b\\\"\"}}",
         {"a", "b"},
         {"ab"}},
        {"{\"format\":{\"type\":\"any_text\"}}", {"", "anything <a> {"}, {NULL}},
        {"{\"format\":{\"type\":\"or\",\"elements\":[{\"type\":\"const_string\",\"value\":"
         "\"a\"},"
         "{\"type\":\"const_string\",\"value\":\"bc\"}]}}",
         {"a", "bc"},
         {"", "b", "abc"}},
        {"{\"format\":{\"type\":\"sequence\",\"elements\":[{\"type\":\"tag\",\"begin\":\"<t>\","
         "\"content\":{\"type\":\"any_text\"},\"end\":\"</t>\"},{\"type\":\"any_text\"},"
         "{\"type\":\"const_string\",\"value\":\"!\"},{\"type\":\"json_schema\","
         "\"json_schema\":{\"type\":\"null\"}}]}}",
         {"<t>a <b </t</t>so!null", "<t></t>!null"},
         {"so!null", "<t></t>null", "<t></t>!nul", "<t></t>!!null"}},
        {"{\"format\":{\"type\":\"triggered_tags\",\"triggers\":[\"<\"],\"tags\":["
         "{\"begin\":\"<a>\",\"content\":{\"type\":\"any_text\"},\"end\":[\"</a>\",\"#\"]}],"
         "\"at_least_one\":true}}",
         {"x <a>y</a> z", "<a>#<a></a>"},
         {"", "x", "x <", "<b>"}},
        {"{\"format\":{\"type\":\"triggered_tags\",\"triggers\":[\"<\"],\"tags\":["
         "{\"type\":\"tag\",\"begin\":\"<a>\",\"content\":{\"type\":\"const_string\",\"value\":"
         "\"1\"},\"end\":\"</a>\"}],\"stop_after_first\":true}}",
         {"x", "x <a>1</a>"},
         {"<a>1</a> ", "<a>1</a><a>1</a>"}},
        {"{\"format\":{\"type\":\"tags_with_separator\",\"separator\":\",\",\"at_least_one\":"
         "true,"
         "\"tags\":[{\"type\":\"tag\",\"begin\":\"(\",\"content\":{\"type\":\"regex\","
         "\"pattern\":\"[0-9]\"},\"end\":\")\"}]}}",
         {"(1)", "(1),(2),(3)"},
         {"", "(1),", "(1)(2)", "(12)"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(special_tokens_in_tags_are_tokens) {
    words w;
    rig x;
    err e = {0};
    words_tiny(&w, 1 << 16);
    ck_assert(open_tag(&x, &w,
                       "{\"triggers\":[\"<call>\"],\"structures\":[{\"begin\":\"<call>a\","
                       "\"schema\":{\"type\":\"boolean\"},\"end\":\"<end>\"}]}",
                       &e) == OK);
    ck_assert(takes(&x, "<call>b")); /* the text of the token is text */
    ck_assert(grammar_take(x.g, x.s, w.special[0]));
    ck_assert(!grammar_accepts_end(x.g, x.s));
    check_mask(&w, &x);
    ck_assert(grammar_take_bytes(x.g, x.s, STR("atrue")));
    check_mask(&w, &x);
    grammar_state text = *x.s;
    ck_assert(!grammar_take_bytes(x.g, &text, STR("<end>")));
    ck_assert(grammar_take(x.g, x.s, w.special[1]));
    ck_assert(grammar_accepts_end(x.g, x.s));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(what_is_refused_is_named) {
    static const struct {
        const char *tag;
        status st;
        const char *text;
    } t[] = {
        {"{}", ERR_INVALID, "needs format"},
        {"{\"format\":{}}", ERR_INVALID, "type"},
        {"{\"format\":{\"type\":\"qwen_xml_parameter\"}}", ERR_UNSUPPORTED, "of this type"},
        {"{\"structures\":[{\"begin\":\"<a>\",\"end\":\"\",\"schema\":{}}],\"triggers\":[\"<"
         "b\"]}",
         ERR_INVALID, "none of the triggers"},
        {"{\"structures\":[{\"begin\":\"<a>\",\"schema\":{}}],\"triggers\":[\"<a\"]}",
         ERR_INVALID, "needs an end"},
        {"{\"structures\":[{\"begin\":\"<a>\",\"end\":\"\",\"schema\":{}}],\"triggers\":[\"\"]"
         "}",
         ERR_INVALID, "empty"},
        {"{\"structures\":[{\"begin\":\"<a>\",\"end\":\"\",\"schema\":{\"$ref\":\"x\"}}],"
         "\"triggers\":[\"<a\"]}",
         ERR_UNSUPPORTED, "another document"},
        {"{\"format\":{\"type\":\"sequence\",\"elements\":[{\"type\":\"any_text\"},"
         "{\"type\":\"regex\",\"pattern\":\"a\"}]}}",
         ERR_UNSUPPORTED, "any_text before"},
    };
    words w;
    words_tiny(&w, 1 << 16);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        rig x;
        err e = {0};
        ck_assert_msg(open_tag(&x, &w, t[i].tag, &e) == t[i].st, "%s: %s", t[i].tag, e.text);
        ck_assert_msg(strstr(e.text, t[i].text), "%s: %s", t[i].tag, e.text);
        rig_clear(&x);
    }
    words_close(&w);
}
END_TEST

CHECK_MAIN("tags", structures_and_triggers_as_in_vllm, formats_as_in_xgrammar,
           special_tokens_in_tags_are_tokens, what_is_refused_is_named)
