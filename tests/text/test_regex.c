/* Regular expressions and GBNF: against PCRE2 and by hand. */
#include "text/grammar/regex.h"

#include <stdio.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/buf.h"
#include "tests/check_main.h"
#include "text/grammar/automaton.h"
#include "text/grammar/gbnf.h"

typedef struct lang {
    arena mem;
    dfa d;
} lang;

static status open_lang(lang *l, const char *pattern, bool search, err *e) {
    uint64_t work = 4000000;
    dfa_limits lim = {4000, &work};
    rule root;
    dfa d, any;
    arena_init(&l->mem, chunks_heap(), 0);
    rules *r = rules_new(&l->mem);
    status s = search ? rules_regex_search(r, str_of(pattern), &root, e)
                      : rules_regex(r, str_of(pattern), &root, e);
    if (s == OK) s = dfa_build(&l->d, r, root, NULL, &lim, &l->mem, e);
    if (s != OK || !search) return s;
    s = dfa_strip(&d, &l->d, &l->mem, e);
    if (s == OK) s = dfa_any(&any, 0, RULE_UNBOUNDED, &lim, &l->mem, e);
    if (s == OK) s = dfa_combine(&l->d, &d, DFA_AND, &any, &lim, &l->mem, e);
    return s;
}

static void check(const char *pattern, bool search, const char *yes, const char *no) {
    lang l;
    err e;
    ck_assert_msg(open_lang(&l, pattern, search, &e) == OK, "%s: %s", pattern, e.text);
    char text[200], *save = NULL;
    for (int k = 0; k < 2; k++) { /* words apart by commas; an empty one is "-" */
        snprintf(text, sizeof text, "%s", k ? no : yes);
        for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
            str s = str_of(strcmp(w, "-") == 0 ? "" : w);
            ck_assert_msg(dfa_takes(&l.d, s) == !k, "%s: %s", pattern, w);
        }
    }
    arena_clear(&l.mem);
}

START_TEST(what_patterns_mean) {
    check("a|bc*", false, "a,b,bcc", "-,c,ab,bca");
    check("(a|b){2,3}x?", false, "ab,abax,bbb", "a,abab,abaxx");
    check("[^a-c\\d]+", false, "xyz,é日", "-,xa,x1");
    check("\\u00e9\\x41\\u{1F600}", false, "éA😀", "eA😀");
    check("\\ud83d\\ude00", false, "😀", "x");
    check("a{b}", false, "a{b}", "aa");
    check("a\\.b\\/\\-", false, "a.b/-", "axb/-");
    check("(?:a(?<n>b))+?", false, "ab,abab", "a,-");
    check("^a.b$", false, "axb,aéb", "ab,a\nb");
    check("b", true, "b,abc,b\nb", "-,ac");
    check("^b", true, "b,bc", "ab,-");
    check("b$", true, "ab,b", "bc,-");
    check("^a|b$", true, "ax,xb,a,b", "xa,bx");
    check("^(a|bb)$", true, "a,bb", "b,ab,abb");
    check("^", true, "-,a", "");
    check("^$", true, "-", "a");
    check("\\s\\S", true, "a bc, x", "abc,a ");
}
END_TEST

START_TEST(what_is_refused) {
    static const struct {
        const char *pattern;
        status code;
    } t[] = {{"[]a]", ERR_INVALID},
             {"(a", ERR_INVALID},
             {"a)", ERR_INVALID},
             {"*a", ERR_INVALID},
             {"[a", ERR_INVALID},
             {"[b-a]", ERR_INVALID},
             {"a{3,2}", ERR_INVALID},
             {"a{30000}", ERR_INVALID},
             {"\\", ERR_INVALID},
             {"(a)\\1", ERR_UNSUPPORTED},
             {"(?=a)", ERR_UNSUPPORTED},
             {"(?<!a)", ERR_UNSUPPORTED},
             {"\\bx", ERR_UNSUPPORTED},
             {"\\p{L}", ERR_UNSUPPORTED},
             {"a^b", ERR_UNSUPPORTED},
             {"a$b", ERR_UNSUPPORTED},
             {"(^a)+", ERR_UNSUPPORTED},
             {"(a$)?b", ERR_UNSUPPORTED},
             {"a\xff", ERR_INVALID},
             {"((((a{1,1000}){1,1000}){1,1000}){1,1000}){1,1000}", ERR_INVALID}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        lang l;
        err e;
        ck_assert_msg(open_lang(&l, t[i].pattern, false, &e) == t[i].code, "%s", t[i].pattern);
        arena_clear(&l.mem);
    }
}
END_TEST

/* ---- against PCRE2 ---- */

static void random_pattern(buf *b, unsigned *seed, int depth) {
    static const char *const atom[] = {"a",   "b",   ".", "[ab]", "[^a]",
                                       "\\d", "\\w", "é", "[b-é]"};
    unsigned n = 1 + (unsigned)rand_r(seed) % 3;
    for (unsigned i = 0; i < n; i++) {
        static const char *const times[] = {"*", "+", "?", "{2}", "{1,2}", "{2,}", "+?"};
        unsigned k = (unsigned)rand_r(seed) % 12;
        if (depth > 0 && k < 4) {
            buf_addf(b, k ? "(" : "(?:");
            random_pattern(b, seed, depth - 1);
            buf_addc(b, ')');
        } else {
            buf_addf(b, "%s", atom[(unsigned)rand_r(seed) % (sizeof atom / sizeof *atom)]);
        }
        if (rand_r(seed) % 3 == 0) buf_addf(b, "%s", times[(unsigned)rand_r(seed) % 7]);
    }
    if (depth > 0 && rand_r(seed) % 3 == 0) {
        buf_addc(b, '|');
        random_pattern(b, seed, depth - 1);
    }
}

static bool pcre_takes(const char *pattern, bool search, const char *text) {
    buf b;
    int code;
    PCRE2_SIZE at;
    buf_init(&b, NULL);
    buf_addf(&b, search ? "(?:%s)" : "\\A(?:%s)\\z", pattern);
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)buf_cstr(&b), b.len,
                                   PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
    ck_assert_msg(re != NULL, "%s", pattern);
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    int n = pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, m, NULL);
    pcre2_match_data_free(m);
    pcre2_code_free(re);
    buf_clear(&b);
    return n >= 0;
}

START_TEST(random_patterns_take_what_pcre2_takes) {
    static const char *const piece[] = {"a", "b", "0", "é", "c", "_", "日"};
    unsigned seed = 5;
    for (int i = 0; i < 300; i++) {
        buf b;
        lang l;
        err e;
        const bool search = i % 2;
        buf_init(&b, NULL);
        if (search && i % 4 == 1) buf_addc(&b, '^');
        buf_addc(&b, '('); /* ^ and $ stand for all alternatives */
        random_pattern(&b, &seed, 3);
        buf_addc(&b, ')');
        if (search && i % 3 == 1) buf_addc(&b, '$');
        status s = open_lang(&l, buf_cstr(&b), search, &e);
        ck_assert_msg(s == OK || strstr(e.text, "large"), "%s: %s", buf_cstr(&b), e.text);
        for (int k = 0; k < 60 && s == OK; k++) {
            char text[64] = "";
            for (unsigned n = (unsigned)rand_r(&seed) % 7, j = 0; j < n; j++)
                strcat(text, piece[(unsigned)rand_r(&seed) % 7]);
            ck_assert_msg(dfa_takes(&l.d, str_of(text)) ==
                              pcre_takes(buf_cstr(&b), search, text),
                          "%s: %s", buf_cstr(&b), text);
        }
        arena_clear(&l.mem);
        buf_clear(&b);
    }
}
END_TEST

/* ---- GBNF ---- */

static status gbnf(lang *l, const char *text, err *e) {
    uint64_t work = 4000000;
    dfa_limits lim = {4000, &work};
    rule root;
    arena_init(&l->mem, chunks_heap(), 0);
    rules *r = rules_new(&l->mem);
    status s = rules_gbnf(r, str_of(text), &root, e);
    return s == OK ? dfa_build(&l->d, r, root, NULL, &lim, &l->mem, e) : s;
}

START_TEST(grammars_of_llama_cpp) {
    static const struct {
        const char *text, *yes, *no;
    } t[] = {
        {"root ::= \"a\" b* # comment\nb ::= [x-z0-9] | \"\\n\"\n", "ax1\n", "ab"},
        {"root ::= (\"a\" |\n  \"b\")+\n", "abba", "abc"},
        {"# first\n\nroot ::= one\n  | \"two\"\none ::= \"1\" \"2\" ? [^a\\]]{2,3}", "1x日",
         "1xa"},
        {"root ::= .{2}\"\\x41\\u00e9\\U0001F600\"", "..Aé😀", ".Aé😀"},
        {"root ::= \"\" | \"x\"{3,}", "xxxx", "xx"},
        {"root ::= my-rule_2\nmy-rule_2 ::= \"q\"", "q", ""},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        lang l;
        err e;
        ck_assert_msg(gbnf(&l, t[i].text, &e) == OK, "%s: %s", t[i].text, e.text);
        ck_assert_msg(dfa_takes(&l.d, str_of(t[i].yes)), "%s", t[i].text);
        ck_assert_msg(!dfa_takes(&l.d, str_of(t[i].no)), "%s", t[i].text);
        arena_clear(&l.mem);
    }
}
END_TEST

START_TEST(grammars_that_are_refused_say_where) {
    static const char *const t[][2] = {
        {"a ::= \"x\"", "no rule named root"},
        {"root ::= b", "b is used and not defined"},
        {"root ::= \"a\"\nroot ::= \"b\"", "defined twice"},
        {"root ::= \"a", "line 1"},
        {"root ::= \"a\"\nb ::= (\"x\"", "line 2"},
        {"root ::= \"a\")", "not opened"},
        {"root = \"a\"", "::="},
        {"root ::= [a", "line 1"},
        {"root ::= \"a\"{3,1}", "upside down"},
        {"root ::= %x", "line 1"},
        {"start: \"a\"", "::="}, /* Lark */
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        lang l;
        err e = {0};
        ck_assert_msg(gbnf(&l, t[i][0], &e) == ERR_INVALID, "%s", t[i][0]);
        ck_assert_msg(strstr(e.text, t[i][1]) != NULL, "%s: %s", t[i][0], e.text);
        arena_clear(&l.mem);
    }
}
END_TEST

CHECK_MAIN("regex", what_patterns_mean, what_is_refused, random_patterns_take_what_pcre2_takes,
           grammars_of_llama_cpp, grammars_that_are_refused_say_where)
