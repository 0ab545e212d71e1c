/* Structural tags: what each form takes and does not; what is refused and how that is said. */
#include "text/grammar/tags.h"

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

START_TEST(forms_that_repeat) {
    static const sample t[] = {{"{\"format\":{\"type\":\"optional\",\"content\":{\"type\":"
                                "\"const_string\",\"value\":\"a\"}}}",
                                {"", "a"},
                                {"aa", "b"}},
                               {"{\"format\":{\"type\":\"plus\",\"content\":{\"type\":"
                                "\"regex\",\"pattern\":\"[ab]\"}}}",
                                {"a", "abba"},
                                {"", "c"}},
                               {"{\"format\":{\"type\":\"tag\",\"begin\":\"<\",\"end\":\">\","
                                "\"content\":{\"type\":\"star\","
                                "\"content\":{\"type\":\"sequence\",\"elements\":[{\"type\":"
                                "\"any_text\"},{\"type\":\"const_string\","
                                "\"value\":\";\"}]}}}}",
                                {"<>", "<;>", "<a;b c;>"},
                                {"<a>", "<a;b>", "<a>;>", "<a;"}},
                               {"{\"format\":{\"type\":\"repeat\",\"min\":2,\"max\":3,"
                                "\"content\":{\"type\":\"const_string\","
                                "\"value\":\"ab\"}}}",
                                {"abab", "ababab"},
                                {"", "ab", "abababab"}},
                               {"{\"format\":{\"type\":\"repeat\",\"min\":1,\"max\":-1,"
                                "\"content\":{\"type\":\"const_string\","
                                "\"value\":\"x\"}}}",
                                {"x", "xxxxxxxxxx"},
                                {""}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(free_text_without_what_is_excluded) {
    static const sample t[] = {
        {"{\"format\":{\"type\":\"any_text\",\"excludes\":[\"ab\",\"<x\"]}}",
         {"", "a", "a b <", "ba"},
         {"ab", "cab", "<x", "<<x>"}},
        /* What is excluded may be the end's own begin. */
        {"{\"format\":{\"type\":\"tag\",\"begin\":\"(\",\"end\":\"</"
         "t>\",\"content\":{\"type\":\"any_text\","
         "\"excludes\":[\"<\"]}}}",
         {"(</t>", "(a b</t>"},
         {"(<</t>", "(a<b</t>", "(</t>x", "(a"}},
        {"{\"format\":{\"type\":\"triggered_tags\",\"triggers\":[\"<f\"],\"excludes\":[\"no\"],"
         "\"tags\":["
         "{\"begin\":\"<f>\",\"content\":{\"type\":\"const_string\",\"value\":\"no\"},\"end\":"
         "\";\"}]}}",
         {"", "yes", "a <f>no; n o"},
         {"no", "a no", "<f>no; no"}},
        /* Triggers within a tag, up to its end. */
        {"{\"format\":{\"type\":\"tag\",\"begin\":\"<r>\",\"end\":\"</"
         "r>\",\"content\":{\"type\":"
         "\"triggered_tags\",\"triggers\":[\"<f\"],\"at_least_one\":true,\"tags\":[{\"begin\":"
         "\"<f>\","
         "\"content\":{\"type\":\"regex\",\"pattern\":\"[0-9]\"},\"end\":\";\"}]}}}",
         {"<r>x<f>1;y</r>", "<r><f>1;<f>2;</r>"},
         {"<r>x</r>", "<r><f>a;</r>", "<r><f>1;</r></r>", "<r><f>1;"}},
        {"{\"format\":{\"type\":\"sequence\",\"elements\":[{\"type\":\"dispatch\",\"excludes\":"
         "[\"!\"],"
         "\"rules\":[[\"<a\",{\"type\":\"const_string\",\"value\":\"1\"}],[\"<b\",{\"type\":"
         "\"const_string\","
         "\"value\":\"2!\"}]]},{\"type\":\"const_string\",\"value\":\"!\"},{\"type\":\"regex\","
         "\"pattern\":"
         "\"[0-9]+\"}]}}",
         {"!7", "x<a1<b2!y!42", "<a1!0"},
         {"x", "<a2!7", "<b2!", "x!y!7"}},
        {"{\"format\":{\"type\":\"dispatch\",\"loop\":false,\"rules\":[[\"<a\",{\"type\":"
         "\"const_string\","
         "\"value\":\"1\"}]]}}",
         {"", "x", "x<a1"},
         {"<a1 ", "<a2"}},
        {"{\"format\":{\"type\":\"sequence\",\"elements\":[{\"type\":\"any_text\"},{\"type\":"
         "\"tag\",\"begin\":"
         "[\"<a>\",\"<b>\"],\"content\":{\"type\":\"any_text\"},\"end\":\"#\"}]}}",
         {"x<a>y#", "<b>#"},
         {"x", "<a>#<b>#", "<a>"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(members_as_tags) {
#define MEMBERS                                                                                \
    "{\"type\":\"object\",\"properties\":{\"q\":{\"type\":\"string\"},\"n\":{\"type\":"        \
    "\"integer\"}},\"required\":[\"q\"]}"
    static const sample t[] = {
        {"{\"format\":{\"type\":\"qwen_xml_parameter\",\"json_schema\":" MEMBERS "}}",
         {"<parameter=q>\na b\n</parameter>",
          "<parameter=q>\n1</parameter>\n<parameter=n>\n-3\n</parameter>"},
         {"", "<parameter=n>\n3\n</parameter>",
          "<parameter=q>\nx\n</parameter><parameter=n>\nx\n</parameter>"}},
        {"{\"format\":{\"type\":\"json_schema\",\"style\":\"minimax_xml\",\"json_"
         "schema\":" MEMBERS "}}",
         {"<parameter name=\"q\">x</parameter>"},
         {"<parameter=q>x</parameter>", "{\"q\":\"x\"}"}},
        {"{\"format\":{\"type\":\"tag\",\"begin\":\"<c>\",\"end\":\"</"
         "c>\",\"content\":{\"type\":\"json_schema\","
         "\"style\":\"glm_xml\",\"json_schema\":" MEMBERS "}}}",
         {"<c><arg_key>q</arg_key><arg_value>x</arg_value></c>",
          "<c><arg_key>q</arg_key><arg_value>x</arg_value><arg_key>n</arg_key><arg_value>1</"
          "arg_value></c>"},
         {"<c></c>", "<c><arg_key>n</arg_key><arg_value>1</arg_value></c>"}},
        {"{\"format\":{\"type\":\"json_schema\",\"style\":\"json\",\"any_order\":true,\"json_"
         "schema\":" MEMBERS "}}",
         {"{\"q\":\"x\",\"n\":1}"},
         {"{}"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(members_that_name_their_types) {
#define TYPED                                                                                  \
    "{\"type\":\"object\",\"properties\":{\"q&\":{\"type\":\"string\"},\"n\":{\"type\":"       \
    "\"integer\"},\"l\":{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1}," \
    "\"o\":{\"type\":\"object\",\"properties\":{\"w\":{\"enum\":[\"x\",\"y\"]}}}},"            \
    "\"required\":["                                                                           \
    "\"q&\"]}"
#define COFL(name, type, value) "<cofl:value" name " type=\"" type "\">" value "</cofl:value>"
#define KIMI(name, type, value)                                                                \
    "<|open|>argument key=\"" name "\" type=\"" type "\"<|sep|>" value                         \
    "<|close|>argument<|sep|>"
    static const sample t[] = {
        {"{\"format\":{\"type\":\"json_schema\",\"style\":\"cohere_xml\",\"json_schema\":" TYPED
         "}}",
         {COFL(" name=\"q&amp;\"", "raw", "a \"b\" <c"),
          COFL(" name=\"q&amp;\"", "raw", "") COFL(" name=\"n\"", "json", "-3")
              COFL(" name=\"l\"", "list", COFL("", "json", "true") COFL("", "json", "false"))
                  COFL(" name=\"o\"", "dict", COFL(" name=\"w\"", "raw", "y"))},
         {"", COFL(" name=\"q&\"", "raw", "a"), COFL(" name=\"q&amp;\"", "json", "\"a\""),
          COFL(" name=\"q&amp;\"", "raw", "") COFL(" name=\"n\"", "json", "x"),
          COFL(" name=\"q&amp;\"", "raw", "") COFL(" name=\"l\"", "list", ""),
          COFL(" name=\"q&amp;\"", "raw", "")
              COFL(" name=\"o\"", "dict", COFL(" name=\"w\"", "raw", "z"))}},
        {"{\"format\":{\"type\":\"tag\",\"begin\":\"<c>\",\"end\":\"</"
         "c>\",\"content\":{\"type\":"
         "\"json_schema\",\"style\":\"kimi_k3_xml\",\"json_schema\":" TYPED "}}}",
         {"<c>" KIMI("q&amp;", "string", "</c>") "</c>",
          "<c>" KIMI("q&amp;", "string", "") KIMI("n", "number", "12")
              KIMI("l", "array", "[true]") KIMI("o", "object", "{\"w\":\"x\"}") "</c>"},
         {"<c></c>", "<c>" KIMI("q&amp;", "number", "1") "</c>",
          "<c>" KIMI("q&amp;", "string", "") KIMI("n", "integer", "1") "</c>",
          "<c>" KIMI("q&amp;", "string", "") KIMI("l", "array", "[]") "</c>"}},
    };
    CHECK_ALL(t);
}
END_TEST

START_TEST(texts_without_quotes_are_what_their_schema_says) {
#define ONE(schema)                                                                            \
    "{\"format\":{\"type\":\"json_schema\",\"style\":\"glm_xml\",\"json_schema\":{\"type\":"   \
    "\"object\",\"properties\":{\"a\":" schema "},\"required\":[\"a\"],\"$defs\":{\"s\":{"     \
    "\"type\":\"string\",\"maxLength\":2}}}}}"
#define GLM(value) "<arg_key>a</arg_key><arg_value>" value "</arg_value>"
    static const sample t[] = {
        {ONE("{\"type\":\"string\",\"pattern\":\"^[a-c]+$\",\"minLength\":2}"),
         {GLM("ab"), GLM("abcabc")},
         {GLM("a"), GLM("abd"), GLM("\"ab\""), GLM("")}},
        {ONE("{\"type\":\"string\",\"maxLength\":15}"),
         {GLM(""), GLM("\"<a\""), GLM("é12345678901234")},
         {GLM("1234567890123456"), GLM("x</arg_value>"), GLM("</arg_value>")}},
        {ONE("{\"const\":\"a\"}"), {GLM("a")}, {GLM("\"a\""), GLM("b")}},
        {ONE("{\"type\":\"string\",\"enum\":[\"a\",\"bcd\"],\"maxLength\":1}"),
         {GLM("a")},
         {GLM("bcd")}},
        {ONE("{\"$ref\":\"#/$defs/s\"}"), {GLM("ab")}, {GLM("abc"), GLM("\"abc\"")}},
    };
    CHECK_ALL(t);
}
END_TEST

START_TEST(texts_of_a_limited_number_of_characters) {
    static const sample t[] = {
        {"{\"format\":{\"type\":\"any_text\",\"max_chars\":3}}",
         {"", "abc", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
         {"abcd", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z", "\xc3"}},
        {"{\"format\":{\"type\":\"any_text\",\"max_chars\":0}}", {""}, {"a"}},
        {"{\"format\":{\"type\":\"tag\",\"begin\":\"<t>\",\"end\":\"</"
         "t>\",\"content\":{\"type\":"
         "\"any_text\",\"max_chars\":4,\"excludes\":[\"no\"]}}}",
         {"<t></t>", "<t>abcd</t>", "<t></t</t>", "<t>n o<</t>"},
         {"<t>abcde</t>", "<t></t></t>", "<t>no</t>", "<t>abcd", "<t></t ></t>"}},
    };
    CHECK_ALL(t);
}
END_TEST

/* The next token is allowed, and is taken; the mask says so, too. */
static void take(words *w, rig *x, int32_t token, bool allowed) {
    check_mask(w, x);
    grammar_state next = *x->s;
    ck_assert_int_eq(grammar_take(x->g, &next, token), allowed);
    if (allowed) *x->s = next;
}

/* One token of the vocabulary. */
static int32_t named(const words *w, const char *text) {
    vec_i32 ids;
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 0);
    vec_i32_init(&ids, &a);
    ck_assert(tokenizer_encode(w->tok, str_of(text), 0, &ids, &e) == OK && ids.n == 1);
    const int32_t id = ids.v[0];
    arena_clear(&a);
    return id;
}

START_TEST(texts_of_a_limited_number_of_tokens) {
    words w;
    rig x;
    err e = {0};
    words_tiny(&w, 1 << 20);
    const int32_t a = named(&w, "a"), ab = named(&w, "ab"), less = named(&w, "<"),
                  more = named(&w, ">");
    ck_assert(open_tag(&x, &w,
                       "{\"format\":{\"type\":\"tag\",\"begin\":\"a\",\"end\":\"<>\","
                       "\"content\":{\"type\":\"any_text\",\"max_tokens\":2}}}",
                       &e) == OK);
    take(&w, &x, ab, true); /* the rest of a token counts as one */
    take(&w, &x, w.special[0], true);
    take(&w, &x, a, false);
    take(&w, &x, more, false);
    ck_assert(!grammar_accepts_end(x.g, x.s));
    take(&w, &x, less, true);
    take(&w, &x, less, false);
    take(&w, &x, more, true);
    ck_assert(grammar_accepts_end(x.g, x.s) && !grammar_can_go_on(x.g, x.s));
    grammar_start(x.g, x.s); /* what looked like the end was text */
    take(&w, &x, a, true);
    take(&w, &x, less, true);
    take(&w, &x, a, true);
    take(&w, &x, a, false);
    take(&w, &x, less, true);
    take(&w, &x, more, true);
    ck_assert(grammar_accepts_end(x.g, x.s));
    grammar_start(x.g, x.s);
    take(&w, &x, a, true);
    take(&w, &x, less, true);
    take(&w, &x, less, true);
    take(&w, &x, less, true);
    take(&w, &x, a, false);
    take(&w, &x, more, true);
    rig_clear(&x);
    ck_assert(open_tag(&x, &w, "{\"format\":{\"type\":\"any_tokens\",\"max_tokens\":1}}", &e) ==
              OK);
    take(&w, &x, ab, true);
    ck_assert(grammar_accepts_end(x.g, x.s) && !grammar_can_go_on(x.g, x.s));
    take(&w, &x, a, false);
    rig_clear(&x);
    for (int chars = 0; chars < 2; chars++) { /* as many as the manual says */
        char tag[200];
        snprintf(tag, sizeof tag,
                 "{\"format\":{\"type\":\"tag\",\"begin\":\"<think>\",\"end\":\"</think>\","
                 "\"content\":{\"type\":\"any_text\",\"max_%s\":1600}}}",
                 chars ? "chars" : "tokens");
        ck_assert_msg(open_tag(&x, &w, tag, &e) == OK, "%s", e.text);
        rig_clear(&x);
    }
    words_close(&w);
}
END_TEST

START_TEST(one_token_that_is_none_of_those_excluded) {
    words w;
    rig x;
    err e = {0};
    words_tiny(&w, 1 << 20);
    const int32_t a = named(&w, "a"), ab = named(&w, "ab"), semicolon = named(&w, ";");
    ck_assert(open_tag(&x, &w,
                       "{\"format\":{\"type\":\"sequence\",\"elements\":[{\"type\":\"repeat\","
                       "\"min\":1,\"max\":2,\"content\":{\"type\":\"exclude_token\","
                       "\"exclude_tokens\":[\"<call>\"]}},{\"type\":\"const_string\",\"value\":"
                       "\";\"}]}}",
                       &e) == OK);
    take(&w, &x, w.special[0], false);
    take(&w, &x, ab, true);
    ck_assert(!grammar_accepts_end(x.g, x.s));
    take(&w, &x, w.special[0], false);
    take(&w, &x, w.special[1], true);
    take(&w, &x, a, false);
    take(&w, &x, semicolon, true);
    ck_assert(grammar_accepts_end(x.g, x.s));
    rig_clear(&x);
    /* The token that ends the tag around it. */
    ck_assert(
        open_tag(&x, &w,
                 "{\"format\":{\"type\":\"tag\",\"begin\":\"a\",\"end\":{\"type\":"
                 "\"token\",\"token\":\"<end>\"},\"content\":{\"type\":\"exclude_token\"}}}",
                 &e) == OK);
    take(&w, &x, a, true);
    take(&w, &x, w.special[1], false);
    take(&w, &x, w.special[0], true);
    take(&w, &x, w.special[1], true);
    ck_assert(grammar_accepts_end(x.g, x.s));
    rig_clear(&x);
    /* Free text without a token has none of it. */
    ck_assert(open_tag(&x, &w,
                       "{\"format\":{\"type\":\"any_tokens\",\"exclude_tokens\":[\"<call>\"]}}",
                       &e) == OK);
    take(&w, &x, w.special[0], false);
    take(&w, &x, w.special[1], true);
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(special_tokens_by_name_and_by_number) {
    words w;
    rig x;
    err e = {0};
    char tag[700];
    words_tiny(&w, 1 << 16);
    snprintf(
        tag, sizeof tag,
        "{\"format\":{\"type\":\"sequence\",\"elements\":[{\"type\":\"token_triggered_tags\","
        "\"trigger_tokens\":[%d],\"exclude_tokens\":[\"<end>\"],\"tags\":[{\"begin\":{\"type\":"
        "\"token\",\"token\":\"<call>\"},\"content\":{\"type\":\"const_string\",\"value\":"
        "\"a\"},"
        "\"end\":\";\"}]},{\"type\":\"token\",\"token\":\"<end>\"},{\"type\":\"const_string\","
        "\"value\":\"b\"}]}}",
        (int)w.special[0]);
    ck_assert_msg(open_tag(&x, &w, tag, &e) == OK, "%s", e.text);
    check_mask(&w, &x);
    ck_assert(grammar_take_bytes(x.g, x.s, STR("x")));
    ck_assert(grammar_take(x.g, x.s, w.special[0]));
    check_mask(&w, &x);
    grammar_state before = *x.s;
    ck_assert(!grammar_take_bytes(x.g, &before, STR("b")));
    ck_assert(grammar_take_bytes(x.g, x.s, STR("a;y")));
    check_mask(&w, &x);
    ck_assert(!grammar_accepts_end(x.g, x.s));
    ck_assert(grammar_take(x.g, x.s, w.special[1]));
    check_mask(&w, &x);
    ck_assert(grammar_take_bytes(x.g, x.s, STR("b")));
    ck_assert(grammar_accepts_end(x.g, x.s));
    rig_clear(&x);
    ck_assert_msg(
        open_tag(&x, &w,
                 "{\"format\":{\"type\":\"tag\",\"begin\":\"t\",\"end\":{\"type\":\"token\","
                 "\"token\":\"<end>\"},\"content\":{\"type\":\"any_tokens\"}}}",
                 &e) == OK,
        "%s", e.text);
    ck_assert(grammar_take_bytes(x.g, x.s, STR("tab<end>")));
    ck_assert(grammar_take(x.g, x.s, w.special[0]));
    ck_assert(!grammar_accepts_end(x.g, x.s));
    ck_assert(grammar_take(x.g, x.s, w.special[1]));
    ck_assert(grammar_accepts_end(x.g, x.s));
    rig_clear(&x);
    words_close(&w);
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
        {"{\"format\":{\"type\":\"any_thing\"}}", ERR_UNSUPPORTED, "of this type"},
        {"{\"format\":{\"type\":\"exclude_token\",\"exclude_tokens\":[5]}}", ERR_UNSUPPORTED,
         "not special"},
        {"{\"format\":{\"type\":\"qwen_xml_parameter\",\"json_schema\":true}}", ERR_UNSUPPORTED,
         "a style without"},
        {"{\"format\":{\"type\":\"json_schema\",\"style\":\"other_xml\",\"json_schema\":{}}}",
         ERR_UNSUPPORTED, "a style of this name"},
        {"{\"format\":{\"type\":\"json_schema\",\"style\":\"cohere_xml\",\"json_schema\":{}}}",
         ERR_UNSUPPORTED, "without properties"},
        {"{\"format\":{\"type\":\"json_schema\",\"style\":\"kimi_k3_xml\",\"json_schema\":"
         "{\"properties\":{\"a\":{}}}}}",
         ERR_UNSUPPORTED, "several types"},
        {"{\"format\":{\"type\":\"json_schema\",\"style\":\"kimi_k3_xml\",\"json_schema\":"
         "{\"properties\":{},\"minProperties\":1}}}",
         ERR_UNSUPPORTED, "minProperties"},
        {"{\"format\":{\"type\":\"any_text\",\"max_tokens\":-1}}", ERR_INVALID, "max_tokens"},
        {"{\"format\":{\"type\":\"any_text\",\"max_tokens\":3,\"max_chars\":3}}",
         ERR_UNSUPPORTED, "max_tokens beside max_chars"},
        {"{\"format\":{\"type\":\"any_text\",\"max_chars\":2147483647}}", ERR_INVALID,
         "max_chars is too large"},
        {"{\"format\":{\"type\":\"any_text\",\"excludes\":\"a\"}}", ERR_INVALID, "excludes"},
        {"{\"format\":{\"type\":\"token\",\"token\":\"ab\"}}", ERR_UNSUPPORTED, "not special"},
        {"{\"format\":{\"type\":\"token\",\"token\":-5}}", ERR_UNSUPPORTED, "not special"},
        {"{\"format\":{\"type\":\"token\"}}", ERR_INVALID, "id or a text"},
        {"{\"format\":{\"type\":\"repeat\",\"min\":2,\"max\":1,\"content\":{\"type\":\"any_"
         "text\"}}}",
         ERR_INVALID, "min not above max"},
        {"{\"format\":{\"type\":\"dispatch\",\"rules\":[[\"a\"]]}}", ERR_INVALID, "pairs"},
        {"{\"format\":{\"type\":\"dispatch\",\"rules\":[[\"\",{\"type\":\"any_text\"}]]}}",
         ERR_INVALID, "begins with a string"},
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
         ERR_UNSUPPORTED, "free text without excludes"},
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
           forms_that_repeat, free_text_without_what_is_excluded, members_as_tags,
           members_that_name_their_types, texts_without_quotes_are_what_their_schema_says,
           texts_of_a_limited_number_of_characters, texts_of_a_limited_number_of_tokens,
           one_token_that_is_none_of_those_excluded, special_tokens_in_tags_are_tokens,
           special_tokens_by_name_and_by_number, what_is_refused_is_named)
