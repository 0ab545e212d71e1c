/* JSON Schemas as rules, by the matcher of rules_match.h: what each takes, what it does not, what is
 * refused and how that is said, and that hostile ones end. The official suite is run by
 * tests/text/schema_suite.py. */
#include "text/grammar/schema.h"

#include <time.h>

#include "base/buf.h"
#include "json/in.h"
#include "tests/check_main.h"
#include "tests/text/rules_match.h"
#include "text/grammar/schema_in.h"

typedef struct lang {
    arena mem;
    rules *r;
    rule root;
} lang;

static status open_with(lang *l, const char *schema, const schema_options *o, err *e) {
    const json_t *v;
    arena_init(&l->mem, chunks_heap(), 512 << 20);
    l->r = rules_new(&l->mem);
    ck_assert_msg(json_in_parse(&v, &l->mem, str_of(schema), e) == OK, "%.200s", schema);
    return rules_json_schema(l->r, v, o, &l->root, e);
}

static status open_lang(lang *l, const char *schema, err *e) {
    static const schema_options plain;
    return open_with(l, schema, &plain, e);
}

enum { MAX_TEXTS = 8 };
typedef struct sample {
    const char *schema, *yes[MAX_TEXTS], *no[MAX_TEXTS];
} sample;

static void check(const sample *s, size_t n) {
    for (; n-- > 0; s++) {
        lang l;
        err e = {0};
        ck_assert_msg(open_lang(&l, s->schema, &e) == OK, "%s: %s", s->schema, e.text);
        for (int i = 0; i < MAX_TEXTS && s->yes[i]; i++)
            ck_assert_msg(rules_match(l.r, l.root, str_of(s->yes[i])), "%s: %s is not taken",
                          s->schema, s->yes[i]);
        for (int i = 0; i < MAX_TEXTS && s->no[i]; i++)
            ck_assert_msg(!rules_match(l.r, l.root, str_of(s->no[i])), "%s: %s is taken",
                          s->schema, s->no[i]);
        arena_clear(&l.mem);
    }
}
#define CHECK_ALL(t) check(t, sizeof(t) / sizeof *(t))

START_TEST(white_space_is_bounded) {
    static const sample t[] = {
        {"{\"type\": \"array\", \"items\": {\"type\": \"null\"}}",
         {"[]", "[null,null]", "[ null, null ]", "[\n    null,\n    null\n]"},
         {" []", "[] ", "[ ]", "[null ,null]", "[null,  null]", "[null,\tnull]", "[\n\nnull]",
          "[\n                     null]"}},
        {"{\"properties\": {\"a\": {\"type\": \"null\"}}, \"type\": \"object\", "
         "\"additionalProperties\": false}",
         {"{}", "{\"a\":null}", "{ \"a\": null }", "{\n  \"a\": null\n}"},
         {"{ }", "{\"a\" :null}", "{\"a\":  null}", "{\"a\":\nnull}", "{\"a\":null},"}}};
    CHECK_ALL(t);
}
END_TEST

static bool takes_with(const char *schema, const schema_options *o, const char *text) {
    lang l;
    err e = {0};
    ck_assert_msg(open_with(&l, schema, o, &e) == OK, "%s: %s", schema, e.text);
    bool yes = rules_match(l.r, l.root, str_of(text));
    arena_clear(&l.mem);
    return yes;
}

START_TEST(white_space_is_chosen) {
    static const char schema[] = "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": "
                                 "\"array\"}}, \"required\": [\"a\"]}";
    const schema_options compact = {.compact = true},
                         tabs = {.white_space = STR("[\t\n]{0,2}")};
    ck_assert(takes_with(schema, &compact, "{\"a\":[1,2],\"b\":{}}"));
    ck_assert(!takes_with(schema, &compact, "{\"a\": [1,2]}"));
    ck_assert(!takes_with(schema, &compact, "{\"a\":[1, 2]}"));
    ck_assert(takes_with(schema, &tabs, "{\n\t\"a\":\t[1,\n\n2\t]}"));
    ck_assert(!takes_with(schema, &tabs, "{\"a\": [1,2]}"));
    const schema_options bad = {.white_space = STR("[ a]*")};
    lang l;
    err e = {0};
    ck_assert_int_eq(open_with(&l, schema, &bad, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "no white space"));
    arena_clear(&l.mem);
}
END_TEST

START_TEST(closed_objects_are_those_that_say_so) {
    const schema_options closed = {.closed = true};
    const char *listed = "{\"type\": \"object\", \"properties\": {\"a\": {}}}";
    ck_assert(takes_with(listed, &closed, "{\"a\":1}"));
    ck_assert(!takes_with(listed, &closed, "{\"a\":1,\"b\":1}"));
    const char *nullable = "{\"type\": [\"object\", \"null\"], \"properties\": {\"a\": {}}}";
    ck_assert(!takes_with(nullable, &closed, "{\"b\":1}"));
    ck_assert(takes_with("{\"properties\": {\"a\": {}}}", &closed, "{\"a\":1,\"b\":1}"));
    ck_assert(takes_with("{\"type\": \"object\"}", &closed, "{\"b\":1}"));
}
END_TEST

START_TEST(strings_by_their_characters) {
    static const sample t[] = {
        {"{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}",
         {"\"ab\"", "\"日本語\"", "\"\\n\\u00e9\"", "\"\\ud83d\\ude00x\"", "\"😀😀😀\""},
         {"\"a\"", "\"abcd\"", "\"\\n\"", "\"\\ud83d\\ude00\"", "\"\\ud83dx\"", "\"a\nb\"",
          "\"a\\q\"", "\"ab"}},
        {"{\"type\": \"string\", \"minLength\": 900, \"maxLength\": 1000000}",
         {NULL},
         {"\"a\""}},
        {"{\"type\": \"string\", \"pattern\": \"b+$\", \"maxLength\": 4}",
         {"\"b\"", "\"xbb\"", "\"\\\"b\"", "\"\\nb\""},
         {"\"bx\"", "\"\"", "\"xxxxb\"", "\"\\u0062\""}},
        {"{\"type\": \"string\", \"pattern\": \"^a\", \"not\": {\"pattern\": \"z$\"}}",
         {"\"a\"", "\"azb\""},
         {"\"az\"", "\"b\"", "\"ba\""}},
        {"{\"type\": \"string\", \"not\": {\"enum\": [\"no\", \"never\", 1]}}",
         {"\"yes\"", "\"nono\"", "\"n\"", "\"\""},
         {"\"no\"", "\"never\"", "\"n\\u006f\""}},
        {"{\"enum\": [0.1, 1e22, -2.0, 1e-7, 0.5]}",
         {"0.1", "1e+22", "-2", "-2.0", "1e-07", "0.5"},
         {"0.10000000000000001", "2", "-2.", "1"}},
        {"{\"enum\": [\"a\", \"b\\n\\\"\", 1, null, [1, {\"x\": true}]]}",
         {"\"a\"", "\"b\\n\\\"\"", "1", "null", "[1,{\"x\":true}]", "[ 1, {\n  \"x\": true}]"},
         {"\"b\"", "1.5", "[1]", "true", "nul"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(formats) {
    static const sample t[] = {
        {"{\"type\": \"string\", \"format\": \"date\"}",
         {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"",
          "\"23-1-1\""}},
        {"{\"type\": \"string\", \"format\": \"date-time\"}",
         {"\"2024-02-29T23:59:59Z\"", "\"1999-12-31T00:00:00.5+01:30\""},
         {"\"2024-02-29\"", "\"2024-02-29T24:00:00Z\"", "\"2024-02-29T23:59:59\""}},
        {"{\"type\": \"string\", \"format\": \"uuid\"}",
         {"\"2eb8aa08-aa98-11ea-b4aa-73b441d16380\""},
         {"\"2eb8aa08-aa98-11ea-b4aa-73b441d1638\"",
          "\"2eb8aa08aa98-11ea-b4aa-73b441d16380\""}},
        {"{\"type\": \"string\", \"format\": \"ipv4\"}",
         {"\"127.0.0.1\"", "\"255.255.255.255\""},
         {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
        {"{\"type\": \"string\", \"format\": \"ipv6\"}",
         {"\"::1\"", "\"2001:db8::ff00:42:8329\"", "\"::ffff:1.2.3.4\"", "\"1:2:3:4:5:6:7:8\""},
         {"\":1\"", "\"1:2:3:4:5:6:7\"", "\"1::2::3\"", "\"12345::\""}},
        {"{\"type\": \"string\", \"format\": \"email\"}",
         {"\"a.b+c@example.org\""},
         {"\"a\"", "\"@x\"", "\"a@\"", "\"a@-x.org\"", "\".a@x.org\""}},
        {"{\"type\": \"string\", \"format\": \"duration\"}",
         {"\"P1Y2M3DT4H5M6S\"", "\"PT36H\"", "\"P2W\""},
         {"\"P\"", "\"PT\"", "\"P1D2Y\"", "\"P1Y2W\""}},
        {"{\"type\": \"string\", \"format\": \"unheard-of\"}", {"\"\"", "\"x\""}, {"1"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(numbers_within_bounds) {
    static const sample t[] = {
        {"{\"type\": \"integer\"}",
         {"0", "-7", "120"},
         {"-0", "01", "1.0", "1e2", "+1", "-", "1."}},
        {"{\"type\": \"number\"}",
         {"0", "-7", "1.50", "1e2", "1E-2", "-0.5"},
         {".5", "1.", "1e", "00", "NaN", "0x1"}},
        {"{\"type\": \"integer\", \"minimum\": -3, \"maximum\": 12}",
         {"-3", "-1", "0", "7", "9", "10", "12"},
         {"-4", "13", "-10", "20", "100", "-12"}},
        {"{\"type\": \"number\", \"exclusiveMinimum\": 0.5, \"maximum\": 10.25}",
         {"0.51", "0.500001", "1", "10.25", "10.250", "9.99", "10"},
         {"0.5", "0.50", "0.49", "10.26", "10.2500001", "-1", "11"}},
        {"{\"type\": \"number\", \"minimum\": -1.5, \"exclusiveMaximum\": 0}",
         {"-1.5", "-0.1", "-1", "-1.49"},
         {"0", "0.0", "-1.51", "-2", "1"}},
        {"{\"type\": \"integer\", \"multipleOf\": 7, \"minimum\": 1}",
         {"7", "14", "70", "77", "700007"},
         {"0", "1", "8", "71", "-7"}},
        {"{\"type\": \"number\", \"multipleOf\": 0.25}",
         {"0.25", "1.5", "2", "0.750", "-0.5"},
         {"0.2", "0.26", "1.3", "0.255"}},
        {"{\"type\": \"integer\", \"not\": {\"enum\": [3, 5]}, \"minimum\": 3}",
         {"4", "6", "33", "55"},
         {"3", "5", "2"}},
        {"{\"minimum\": 5}", {"5", "\"x\"", "null", "[1]"}, {"4", "-9"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(arrays) {
    static const sample t[] = {
        {"{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"minItems\": 1, "
         "\"maxItems\": 3}",
         {"[1]", "[1,2]", "[1, 2, 3]"},
         {"[]", "[1,2,3,4]", "[true]", "[1,]", "[,1]"}},
        {"{\"type\": \"array\", \"prefixItems\": [{\"const\": 1}, {\"type\": \"null\"}], "
         "\"items\": false}",
         {"[]", "[1]", "[1,null]"},
         {"[2]", "[1,2]", "[1,null,1]"}},
        {"{\"type\": \"array\", \"prefixItems\": [{\"const\": 1}], \"items\": {\"const\": 2}, "
         "\"minItems\": 2}",
         {"[1,2]", "[1,2,2]"},
         {"[1]", "[1,1]", "[2]"}},
        {"{\"type\": \"array\", \"items\": {\"enum\": [1, 2]}, \"contains\": {\"const\": 2}}",
         {"[2]", "[1,2,1]"},
         {"[]", "[1]", "[1,1]", "[3]"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(objects) {
    static const sample t[] = {
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"null\"}, \"b\": "
         "{\"const\": "
         "1}, \"c\": {}}, \"required\": [\"b\"], \"additionalProperties\": false}",
         {"{\"b\":1}", "{\"a\":null,\"b\":1}", "{\"b\":1,\"c\":[{}]}",
          "{\"a\":null,\"b\":1,\"c\":\"\"}"},
         {"{}", "{\"a\":null}", "{\"b\":2}", "{\"b\":1,\"a\":null}", "{\"b\":1,\"b\":1}",
          "{\"b\":1,\"d\":1}", "{\"b\":1,}", "{,\"b\":1}"}},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"null\"}}, "
         "\"additionalProperties\": {\"type\": \"integer\"}}",
         {"{}", "{\"a\":null}", "{\"x\":1}", "{\"a\":null,\"x\":1}"},
         {"{\"a\":1}", "{\"x\":null}", "{\"\\u0061\":1}"}},
        {"{\"type\": \"object\", \"patternProperties\": {\"^n_\": {\"type\": \"integer\"}}, "
         "\"additionalProperties\": false}",
         {"{\"n_1\":5}", "{}"},
         {"{\"n_1\":\"5\"}", "{\"m\":5}"}},
        {"{\"type\": \"object\", \"propertyNames\": {\"enum\": [\"x\", \"yy\"]}}",
         {"{\"x\":1}", "{\"yy\":[]}"},
         {"{\"y\":1}", "{\"xx\":1}", "{\"\":1}"}},
        {"{\"type\": \"object\", \"properties\": {\"a\": {}, \"b\": {}, \"c\": {}}, "
         "\"additionalProperties\": false, \"minProperties\": 1, \"maxProperties\": 2}",
         {"{\"a\":1}", "{\"a\":1,\"c\":2}", "{\"b\":1,\"c\":2}"},
         {"{}", "{\"a\":1,\"b\":1,\"c\":1}"}},
        {"{\"type\": \"object\", \"properties\": {\"card\": {\"type\": \"integer\"}, \"code\": "
         "{\"type\": \"integer\"}}, \"dependentRequired\": {\"card\": [\"code\"]}, "
         "\"additionalProperties\": false}",
         {"{}", "{\"code\":1}", "{\"card\":1,\"code\":2}"},
         {"{\"card\":1}"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(combinations_and_references) {
    static const sample t[] = {
        {"{\"$ref\": \"#/$defs/t%20r~1e~0e\", \"$defs\": {\"t r/e~e\": {\"type\": \"array\", "
         "\"items\": {\"$ref\": \"#\"}}}}",
         {"[]", "[[],[[]]]"},
         {"[1]", "{}", "[[]"}},
        {"{\"allOf\": [{\"properties\": {\"b\": {\"type\": \"null\"}}, \"required\": [\"b\"]}, "
         "{\"properties\": {\"a\": {\"type\": \"null\"}}, \"required\": [\"a\"]}], \"type\": "
         "\"object\"}",
         {"{\"b\":null,\"a\":null}"},
         {"{\"b\":null}", "{\"a\":null}", "{\"b\":1,\"a\":null}", "{}"}},
        {"{\"anyOf\": [{\"type\": \"integer\", \"minimum\": 5}, {\"type\": \"string\"}]}",
         {"5", "\"\""},
         {"4", "null"}},
        {"{\"oneOf\": [{\"type\": \"integer\", \"multipleOf\": 2}, {\"type\": \"null\"}]}",
         {"4", "null"},
         {"3", "true"}},
        {"{\"oneOf\": [{\"minimum\": 2}, {\"maximum\": 5}], \"type\": \"integer\"}",
         {"1", "6"},
         {"2", "3", "5"}},
        {"{\"oneOf\": [{\"properties\": {\"k\": {\"const\": \"a\"}, \"v\": {\"type\": "
         "\"null\"}}, \"required\": [\"k\", \"v\"]}, {\"properties\": {\"k\": {\"const\": "
         "\"b\"}}, \"required\": [\"k\"]}], \"type\": \"object\", \"unevaluatedProperties\": "
         "false}",
         {"{\"k\":\"a\",\"v\":null}", "{\"k\":\"b\"}"},
         {"{\"k\":\"a\"}", "{\"k\":\"b\",\"v\":null}", "{\"k\":\"c\"}"}},
        {"{\"if\": {\"minimum\": 10}, \"then\": {\"multipleOf\": 10}, \"else\": "
         "{\"multipleOf\": "
         "3}, \"type\": \"integer\"}",
         {"20", "9", "-3"},
         {"11", "12", "7"}},
        {"{\"not\": {\"type\": [\"string\", \"number\"]}}",
         {"null", "[]", "{}"},
         {"1", "\"\""}},
        {"{\"type\": [\"string\", \"null\"], \"nullable\": true}", {"null", "\"a\""}, {"1"}},
        {"{}", {"1", "{\"a\":[true,false,null]}"}, {"", "nul"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(elements_that_are_unique) {
    static const sample t[] = {
        {"{\"type\": \"array\", \"items\": {\"enum\": [\"a\", \"ab\", 1, 1.0, true]}, "
         "\"uniqueItems\": true}",
         {"[]", "[\"a\"]", "[\"ab\",\"a\"]", "[true,1]", "[ 1, \"a\", true, \"ab\"]"},
         {"[\"a\",\"a\"]", "[1,1]", "[\"a\",\"ab\",\"a\"]", "[\"b\"]", "[1,]"}},
        {"{\"type\": \"array\", \"items\": {\"type\": [\"boolean\", \"null\"]}, "
         "\"uniqueItems\": true, \"minItems\": 2, \"maxItems\": 2}",
         {"[true,false]", "[null,true]"},
         {"[true]", "[true,true]", "[true,false,null]", "[]"}},
        {"{\"type\": \"array\", \"items\": {\"type\": \"integer\", \"minimum\": 1, "
         "\"exclusiveMaximum\": 7, \"multipleOf\": 2}, \"uniqueItems\": true}",
         {"[2,4,6]", "[6,2]"},
         {"[2,2]", "[3]", "[2,4,6,2]", "[8]"}},
        /* Elements without number, where none of their types comes twice. */
        {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"string\"}, {\"enum\": [1, 2]}, "
         "{\"enum\": [2, 3, null]}], \"items\": false, \"uniqueItems\": true}",
         {"[\"x\",2,3]", "[\"x\",1,2]", "[\"x\",2,null]", "[\"x\"]"},
         {"[\"x\",2,2]", "[1]", "[\"x\",1,2,null]"}},
        /* Twenty values, of which three stand. */
        {"{\"type\": \"array\", \"items\": {\"type\": \"integer\", \"minimum\": 0, "
         "\"maximum\": 19}, \"uniqueItems\": true, \"maxItems\": 2}",
         {"[19,0]", "[1,19]"},
         {"[19,19]", "[0,1,2]", "[20]"}},
        {"{\"type\": \"array\", \"uniqueItems\": true, \"enum\": [[1, 2], [3, 3], [1, 1.0]]}",
         {"[1,2]"},
         {"[3,3]", "[1,1]", "[1,1.0]"}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(references_by_identifier) {
    static const sample t[] = {
        {"{\"$id\": \"http://a.test/root.json\", \"$ref\": \"item.json#/$defs/n\", "
         "\"$defs\": {\"n\": {\"const\": 1}, \"x\": {\"$id\": \"item.json\", "
         "\"$defs\": {\"n\": {\"const\": 2}}}}}",
         {"2"},
         {"1"}},
        {"{\"$defs\": {\"n\": {\"const\": 1}, \"x\": {\"$id\": \"sub/\", \"allOf\": "
         "[{\"$ref\": \"#/$defs/n\"}], \"$defs\": {\"n\": {\"const\": 2}}}}, \"anyOf\": "
         "[{\"$ref\": \"#/$defs/x\"}, {\"$ref\": \"#/$defs/n\"}]}",
         {"1", "2"},
         {"3"}},
        {"{\"$id\": \"urn:uuid:1\", \"anyOf\": [{\"$ref\": \"urn:uuid:1#k\"}, {\"$ref\": "
         "\"urn:uuid:2#k\"}], \"$defs\": {\"a\": {\"$anchor\": \"k\", \"const\": 1}, \"b\": "
         "{\"$id\": \"urn:uuid:2\", \"$defs\": {\"a\": {\"$anchor\": \"k\", \"const\": 2}}}}}",
         {"1", "2"},
         {"3"}},
        /* Names of properties, and data, are no identifiers. */
        {"{\"properties\": {\"$id\": {\"const\": 1}, \"e\": {\"enum\": [{\"$id\": \"x\"}]}, "
         "\"r\": {\"$ref\": \"#/properties/$id\"}}, \"type\": \"object\"}",
         {"{\"$id\":1,\"r\":1}"},
         {"{\"r\":2}"}},
        {"{\"not\": {\"$id\": \"n\", \"$ref\": \"#/$defs/s\", \"$defs\": {\"s\": {\"type\": "
         "[\"string\", \"object\", \"array\", \"number\"]}}}}",
         {"true", "null"},
         {"1", "\"\""}}};
    CHECK_ALL(t);
}
END_TEST

START_TEST(uris_resolve_as_rfc_3986_says) {
    static const char *const t[][2] = {{"g", "http://a/b/c/g"},
                                       {"./g", "http://a/b/c/g"},
                                       {"g/", "http://a/b/c/g/"},
                                       {"/g", "http://a/g"},
                                       {"//g", "http://g"},
                                       {"?y", "http://a/b/c/d;p?y"},
                                       {"g?y", "http://a/b/c/g?y"},
                                       {";x", "http://a/b/c/;x"},
                                       {"", "http://a/b/c/d;p?q"},
                                       {".", "http://a/b/c/"},
                                       {"..", "http://a/b/"},
                                       {"../g", "http://a/b/g"},
                                       {"../..", "http://a/"},
                                       {"../../g", "http://a/g"},
                                       {"../../../g", "http://a/g"},
                                       {"/./g", "http://a/g"},
                                       {"/../g", "http://a/g"},
                                       {"g.", "http://a/b/c/g."},
                                       {"..g", "http://a/b/c/..g"},
                                       {"./../g", "http://a/b/g"},
                                       {"g/./h", "http://a/b/c/g/h"},
                                       {"g/../h", "http://a/b/c/h"},
                                       {"g;x=1/../y", "http://a/b/c/y"},
                                       {"g:h", "g:h"}};
    arena a;
    arena_init(&a, chunks_heap(), 0);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        str got = schema_uri(&a, STR("http://a/b/c/d;p?q"), str_of(t[i][0]));
        ck_assert_msg(str_eq(got, str_of(t[i][1])), "%s: " STR_FMT, t[i][0], STR_ARG(got));
    }
    ck_assert(str_eq(schema_uri(&a, STR("http://a"), STR("x")), STR("http://a/x")));
    ck_assert(str_eq(schema_uri(&a, STR(""), STR("x/../y")), STR("y")) ||
              str_eq(schema_uri(&a, STR(""), STR("x/../y")), STR("/y")));
    arena_clear(&a);
}
END_TEST

START_TEST(what_is_refused_is_named) {
    static const struct {
        const char *schema, *word, *place;
    } t[] = {
        {"{\"properties\": {\"a/b\": {\"type\": \"array\", \"uniqueItems\": true}}}",
         "uniqueItems", "#/properties/a~1b"},
        {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"type\": \"number\", "
         "\"minimum\": 0, \"maximum\": 1}}",
         "uniqueItems", "#"},
        {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"type\": \"integer\", "
         "\"minimum\": 0, \"maximum\": 30}}",
         "uniqueItems", "#"},
        {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": false, \"prefixItems\": "
         "[{\"type\": \"string\"}, {\"enum\": [1, \"a\"]}]}",
         "uniqueItems", "#"},
        {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"type\": \"null\"}, "
         "\"contains\": {\"type\": \"null\"}}",
         "uniqueItems", "#"},
        {"{\"$defs\": {\"a\": {\"$id\": \"x\"}, \"b\": {\"$id\": \"x\"}}, \"$ref\": \"x\"}",
         "$id", "#"},
        {"{\"items\": {\"$ref\": \"http://example.org/x\"}}", "$ref", "#/items"},
        {"{\"$ref\": \"#/nowhere\"}", "$ref", "#"},
        {"{\"type\": \"strin\"}", "type", "#"},
        {"{\"type\": \"string\", \"pattern\": \"(?=a)\"}", "pattern", "(?=a)"},
        {"{\"anyOf\": []}", "anyOf", "#"},
        {"{\"minLength\": -1}", "minLength", "#"},
        {"{\"multipleOf\": 0}", "multipleOf", "#"},
        {"{\"properties\": []}", "properties", "#/properties"},
        {"{\"items\": 3}", "no schema", "#/items"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        lang l;
        err e = {0};
        status st = open_lang(&l, t[i].schema, &e);
        ck_assert_msg(st == ERR_UNSUPPORTED || st == ERR_INVALID, "%s", t[i].schema);
        ck_assert_msg(strstr(e.text, t[i].word) && strstr(e.text, t[i].place), "%s: %s",
                      t[i].schema, e.text);
        arena_clear(&l.mem);
    }
}
END_TEST

/* ---- hostile schemas ---- */

static void repeat(buf *b, const char *s, int n) {
    while (n-- > 0) buf_addf(b, "%s", s);
}

static void ends(buf *schema, bool must_fail) {
    lang l;
    err e = {0};
    struct timespec from, to;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    status st = open_lang(&l, buf_cstr(schema), &e);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    ck_assert_msg(to.tv_sec - from.tv_sec < 3 * CHECK_SLOWNESS, "%.200s", schema->ptr);
    ck_assert_msg(st == OK ? !must_fail : e.text[0] != 0, "%.200s", schema->ptr);
    arena_clear(&l.mem);
    buf_clear(schema);
}

START_TEST(hostile_schemas_end) {
    buf b;
    static const char *const circle[] = {"{\"$ref\": \"#\"}",
                                         "{\"allOf\": [{\"$ref\": \"#\"}]}",
                                         "{\"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": "
                                         "{\"anyOf\": [{\"$ref\": \"#/$defs/b\"}]}, "
                                         "\"b\": {\"$ref\": \"#/$defs/a\"}}}",
                                         "{\"not\": {\"$ref\": \"#\"}}"};
    for (size_t i = 0; i < sizeof circle / sizeof *circle; i++) {
        buf_init(&b, NULL);
        buf_addf(&b, "%s", circle[i]);
        ends(&b, true);
    }
    buf_init(&b, NULL); /* deep */
    repeat(&b, "{\"items\":", 1000);
    repeat(&b, "{}", 1);
    repeat(&b, "}", 1000);
    ends(&b, true);
    buf_init(&b, NULL); /* 4^20 alternatives */
    buf_addf(&b, "{\"allOf\": [{}");
    for (int i = 0; i < 20; i++)
        buf_addf(&b,
                 ",{\"anyOf\": [{\"minimum\": %d}, {\"maximum\": %d}, {\"minLength\": %d}, "
                 "{\"pattern\": \"^%d\"}]}",
                 i, i, i, i);
    buf_addf(&b, "]}");
    ends(&b, true);
    buf_init(&b, NULL); /* each of 40 definitions twice the one before */
    buf_addf(&b, "{\"$ref\": \"#/$defs/d39\", \"$defs\": {\"d0\": {\"minimum\": 1}");
    for (int i = 1; i < 40; i++)
        buf_addf(&b,
                 ",\"d%d\": {\"oneOf\": [{\"$ref\": \"#/$defs/d%d\"}, {\"allOf\": [{\"$ref\": "
                 "\"#/$defs/d%d\"}, {\"maximum\": %d}]}]}",
                 i, i - 1, i - 1, i);
    buf_addf(&b, "}}");
    ends(&b, true);
    buf_init(&b, NULL); /* 20,000 values, of which each is compared with 20,000 */
    buf_addf(&b, "{\"enum\": [0");
    for (int i = 1; i < 20000; i++) buf_addf(&b, ",%d", i);
    buf_addf(&b, "], \"allOf\": [{\"enum\": [0");
    for (int i = 1; i < 20000; i++) buf_addf(&b, ",%d", -i);
    buf_addf(&b, "]}]}");
    ends(&b, true);
    buf_init(&b, NULL);
    buf_addf(&b, "{\"pattern\": \"((a{1,1000}){1,1000}){1,1000}\"}");
    ends(&b, true);
    buf_init(&b, NULL);
    buf_addf(&b, "{\"pattern\": \"(x+x+)+y(a|b)*a(a|b){14}\"}");
    ends(&b, false);
}
END_TEST

START_TEST(many_properties_are_quick) {
    buf b;
    buf_init(&b, NULL);
    buf_addf(&b, "{\"type\": \"object\", \"properties\": {");
    for (int i = 0; i < 1000; i++)
        buf_addf(&b, "%s\"p%d\": {\"type\": \"integer\", \"minimum\": %d}", i ? "," : "", i, i);
    buf_addf(&b, "}}");
    ends(&b, false);
}
END_TEST

CHECK_MAIN("schema", elements_that_are_unique, references_by_identifier,
           uris_resolve_as_rfc_3986_says, white_space_is_bounded, white_space_is_chosen,
           closed_objects_are_those_that_say_so, strings_by_their_characters, formats,
           numbers_within_bounds, arrays, objects, combinations_and_references,
           what_is_refused_is_named, hostile_schemas_end, many_properties_are_quick)
