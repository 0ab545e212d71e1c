/* Grammars: what they take against a naive matcher, masks against trying every token. */
#include "text/grammar/grammar.h"

#include "tests/text/grammar_rig.h"

START_TEST(json_nests_and_ends_where_it_is_closed) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x);
    rig_compile(&x, any_value(x.r), w.v);
    static const char *const good[] = {"1",
                                       "[]",
                                       "{}",
                                       "[[],{\"a\":[1,true]}]",
                                       "\"\\n\xc3\xa9\"",
                                       "{\"\":{\"\":{}},\"b\":1}"};
    static const char *const bad[] = {
        "",       "[", "[1,]", "{1:2}", "\"\xc3\"", "tru", "[]]", "01]", "\"\xed\xa0\x80\"",
        "\"\\x\""};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ck_assert_msg(takes(&x, good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!takes(&x, bad[i]), "%s", bad[i]);
    ck_assert(takes(&x, "[]"));
    ck_assert(!grammar_can_go_on(x.g, x.s));
    ck_assert(takes(&x, "12"));
    ck_assert(grammar_can_go_on(x.g, x.s));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(masks_of_json_are_those_of_trying_every_token) {
    words w;
    rig x;
    unsigned seed = 7;
    words_real(&w, 4 << 20);
    rig_init(&x);
    rig_compile(&x, any_value(x.r), w.v);
    grammar_take_bytes(x.g, x.s, STR("{\"a\":[{\"b\":[\"x"));
    for (int i = 0; i < 40; i++) {
        check_mask(&w, &x);
        int32_t t = draw(&w, &seed);
        if (t < 0) break;
        ck_assert(grammar_take(x.g, x.s, t));
    }
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(masks_count_the_characters_that_are_left) {
    words w;
    rig x;
    words_real(&w, 4 << 20);
    static const rule_range plain[] = {{0x20, '!'}, {'#', '['}, {']', 0x10ffff}};
    for (int kind = 0; kind < 3; kind++) { /* then an end, letters, or anything but letters */
        rig_init(&x);
        rule one = rules_class(x.r, plain, 3), q = text_rule(x.r, "\"");
        rule behind = kind == 0 ? q : rules_class(x.r, &(rule_range){'a', 'z'}, 1);
        if (kind == 2) behind = rules_class(x.r, &(rule_range){0x80, 0x10ffff}, 1);
        rig_compile(&x, SEQ(x.r, rules_repeat(x.r, one, 0, 19), behind), w.v);
        for (int i = 0; i < 20; i++) {
            check_mask(&w, &x);
            ck_assert(grammar_take_bytes(x.g, x.s, i % 3 ? STR("\xe6\x97\xa5") : STR("z")) ||
                      i == 19);
        }
        rig_clear(&x);
    }
    words_close(&w);
}
END_TEST

static void refused_rule(const vocab_index *v, rig *x, rule root, const char *text) {
    err e = {0};
    ck_assert_int_eq(rig_try(x, root, v, &e), ERR_INVALID);
    ck_assert_msg(strstr(e.text, text) != NULL, "\"%s\" is not in \"%s\"", text, e.text);
    rig_clear(x);
}

/* What a rule returns to is more than a position has space for: masks depend on the stack then. */
START_TEST(a_rule_may_be_called_from_many_places) {
    words w;
    rig x;
    words_real(&w, 4 << 20);
    rig_init(&x);
    rule v = any_value(x.r), one[300];
    for (int i = 0; i < 300; i++) {
        char name[8], end[8];
        snprintf(name, sizeof name, "%d:", i);
        snprintf(end, sizeof end, ";%d", i);
        one[i] = SEQ(x.r, text_rule(x.r, name), v, text_rule(x.r, end));
    }
    rig_compile(&x, rules_alt(x.r, one, 300), w.v);
    for (const char *p = "217:[12,{\"a\":3}];217"; *p; p++) {
        check_mask(&w, &x);
        ck_assert(grammar_take_bytes(x.g, x.s, (str){p, 1}));
    }
    ck_assert(grammar_accepts_end(x.g, x.s) && !grammar_can_go_on(x.g, x.s));
    ck_assert(!takes(&x, "217:[12];21") && !takes(&x, "217:[12];218"));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(what_could_be_read_in_too_many_ways_is_refused) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x); /* as many stacks as there are numbers of b */
    rule s = rules_declare(x.r), a = text_rule(x.r, "a");
    rules_define(x.r, s, ALT(x.r, SEQ(x.r, a, s), SEQ(x.r, a, s, text_rule(x.r, "b")), a));
    refused_rule(w.v, &x, s, "too ambiguous");
    rig_init(&x); /* two at each level */
    s = rules_declare(x.r), a = text_rule(x.r, "a");
    rule z = rules_declare(x.r);
    rules_define(
        x.r, s,
        ALT(x.r, SEQ(x.r, a, s, text_rule(x.r, "b")), SEQ(x.r, a, z, text_rule(x.r, "c")), a));
    rules_define(
        x.r, z,
        ALT(x.r, SEQ(x.r, a, z, text_rule(x.r, "{")), SEQ(x.r, a, s, text_rule(x.r, "}")), a));
    refused_rule(w.v, &x, s, "too ambiguous");
    rig_init(&x); /* two ways, whatever the depth */
    rule v = any_value(x.r);
    rig_compile(
        &x, ALT(x.r, SEQ(x.r, v, text_rule(x.r, "a")), SEQ(x.r, v, text_rule(x.r, "b"))), w.v);
    ck_assert(takes(&x, "[[[1,{\"a\":[]}]]]b") && takes(&x, "[]a") && !takes(&x, "[]c"));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(compiling_takes_no_more_than_its_steps) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x); /* sets of 2,000 states for each of 2,000 states */
    rule part[2000];
    for (int i = 0; i < 2000; i++) {
        char c[2] = {(char)('a' + i % 4), 0};
        part[i] = rules_optional(x.r, text_rule(x.r, c));
    }
    refused_rule(w.v, &x, rules_seq(x.r, part, 2000), "more steps than the limit");
    rig_init(&x);
    for (int i = 0; i < 1 << 18; i++) text_rule(x.r, "abcdefgh");
    for (int i = 0; i < 1 << 18; i++) text_rule(x.r, "abcdefgh");
    refused_rule(w.v, &x, text_rule(x.r, "a"), "too large");
    words_close(&w);
}
END_TEST

START_TEST(nesting_ends_at_the_limit_and_can_be_closed) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x);
    rig_compile(&x, any_value(x.r), w.v);
    uint32_t depth = 0;
    while (depth < 5000 && grammar_take_bytes(x.g, x.s, STR("["))) {
        grammar_state before = *x.s;
        if (++depth % 50 == 0) check_mask(&w, &x);
        memset(w.mask, 0xff, sampling_mask_words(w.v->n_vocab) * 4);
        grammar_mask(x.g, x.s, w.cache, w.mask);
        if (!(w.mask['[' / 32] >> '[' % 32 & 1)) break;
        *x.s = before;
    }
    ck_assert_uint_gt(depth, GRAMMAR_MAX_DEPTH - 300);
    ck_assert_uint_lt(depth, 5000);
    check_mask(&w, &x);
    for (; depth > 0; depth--) ck_assert(grammar_take_bytes(x.g, x.s, STR("]")));
    ck_assert(grammar_accepts_end(x.g, x.s));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(special_tokens_are_symbols_and_not_their_text) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x);
    rule call = SEQ(x.r, rules_until_token(x.r, w.special[0]), any_value(x.r),
                    rules_token(x.r, w.special[1]));
    rig_compile(&x, call, w.v);
    grammar_take_bytes(x.g, x.s, STR("free <call> text"));
    check_mask(&w, &x);
    ck_assert(!grammar_accepts_end(x.g, x.s));
    ck_assert(grammar_take(x.g, x.s, w.special[0]));
    check_mask(&w, &x);
    ck_assert(grammar_take_bytes(x.g, x.s, STR("[1]")));
    check_mask(&w, &x);
    grammar_state early = *x.s;
    ck_assert(!grammar_take(x.g, &early, w.special[0]));
    ck_assert(!grammar_take_bytes(x.g, &early, STR("<")));
    ck_assert(grammar_take(x.g, x.s, w.special[1]));
    ck_assert(grammar_accepts_end(x.g, x.s) && !grammar_can_go_on(x.g, x.s));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(text_up_to_the_first_of_several_strings) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x);
    const str stop[] = {STR("</t>"), STR("abcab"), STR("bc!")};
    rig_compile(&x, SEQ(x.r, rules_until(x.r, stop, 3), text_rule(x.r, "#")), w.v);
    ck_assert(takes(&x, "x<</t>#"));
    ck_assert(takes(&x, "ababcab#"));
    ck_assert(takes(&x, "abc!#"));
    ck_assert(!takes(&x, "abcab</t>#"));
    ck_assert(!takes(&x, "</t#"));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(what_cannot_be_met_or_ended_is_refused) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x);
    rule loop = rules_declare(x.r);
    rules_define(x.r, loop, SEQ(x.r, text_rule(x.r, "("), loop, text_rule(x.r, ")")));
    refused_rule(w.v, &x, loop, "nothing can match");
    rig_init(&x);
    refused_rule(w.v, &x, SEQ(x.r, text_rule(x.r, "a"), RULE_NEVER), "nothing can match");
    rig_init(&x);
    loop = rules_declare(x.r);
    rules_define(x.r, loop, ALT(x.r, SEQ(x.r, loop, text_rule(x.r, "a")), text_rule(x.r, "b")));
    refused_rule(w.v, &x, loop, "left-recursive");
    rig_init(&x); /* behind something that may be empty */
    loop = rules_declare(x.r);
    rule opt = rules_optional(x.r, text_rule(x.r, "c"));
    rules_define(x.r, loop,
                 ALT(x.r, SEQ(x.r, opt, loop, text_rule(x.r, "a")), text_rule(x.r, "b")));
    refused_rule(w.v, &x, loop, "left-recursive");
    rig_init(&x);
    rule many = text_rule(x.r, "ab");
    for (int i = 0; i < 6; i++)
        many = rules_repeat(x.r, ALT(x.r, many, text_rule(x.r, "c")), 300, 1000);
    refused_rule(w.v, &x, rules_repeat(x.r, text_rule(x.r, "x"), 30000, 30000), "too large");
    words_close(&w);
}
END_TEST

START_TEST(nested_repetitions_stay_small) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x);
    rule a = rules_repeat(x.r, text_rule(x.r, "a"), 1, 1000);
    rig_compile(&x, rules_repeat(x.r, SEQ(x.r, a, text_rule(x.r, ";")), 1, 1000), w.v);
    ck_assert_uint_lt(grammar_n_states(x.g), 4000);
    ck_assert(takes(&x, "aa;aaa;"));
    ck_assert(!takes(&x, "aa;;"));
    check_mask(&w, &x);
    rig_clear(&x);
    rig_init(&x); /* shared expressions multiply no states */
    rule twice = SEQ(x.r, any_string(x.r), text_rule(x.r, "-"));
    for (int i = 0; i < 40; i++) twice = SEQ(x.r, twice, twice);
    rig_compile(&x, twice, w.v);
    ck_assert_uint_lt(grammar_n_states(x.g), 1000);
    rig_clear(&x);
    words_close(&w);
}
END_TEST

/* ---- random grammars, and a naive matcher: which positions a rule may end at ---- */

enum { MAX_TEXT = 40, MAX_NODES = 200 };

typedef struct expr {
    char kind; /* c: a character; s, |: two; r: repeat; n: named */
    char c;
    int kid[2];
    uint32_t lo, hi;
} expr;

typedef struct random_grammar {
    expr e[MAX_NODES];
    int n;
    rule of[MAX_NODES];
    uint64_t memo[MAX_NODES][MAX_TEXT + 1];
    bool known[MAX_NODES][MAX_TEXT + 1];
    const char *text;
    size_t len;
} random_grammar;

/* names[2] exist already as nodes 0 and 1. A name stands behind a character only. */
static int random_expr(random_grammar *g, unsigned *seed, int depth) {
    static const char alphabet[] = "aabbc{}[],\"";
    int id = g->n++;
    expr x = {.kind = 'c', .c = alphabet[(unsigned)rand_r(seed) % 11]};
    unsigned k = (unsigned)rand_r(seed) % 10;
    if (depth > 0 && g->n < MAX_NODES - 12 && k < 8) {
        x.kind = k < 3 ? 's' : k < 5 ? '|' : k < 7 ? 'r' : 'N';
        x.lo = (uint32_t)rand_r(seed) % 3;
        x.hi = rand_r(seed) % 3 ? x.lo + (uint32_t)rand_r(seed) % 3 : RULE_UNBOUNDED;
        x.kid[0] = random_expr(g, seed, depth - 1);
        if (x.kind == 's' || x.kind == '|') x.kid[1] = random_expr(g, seed, depth - 1);
        if (x.kind == 'N') x.kid[1] = rand_r(seed) % 2;
    }
    g->e[id] = x;
    return id;
}

static rule build_expr(random_grammar *g, rules *r, const rule *name, int id) {
    const expr *x = &g->e[id];
    char c[2] = {x->c, 0};
    switch (x->kind) {
    case 'c': return text_rule(r, c);
    case 's':
        return SEQ(r, build_expr(g, r, name, x->kid[0]), build_expr(g, r, name, x->kid[1]));
    case '|':
        return ALT(r, build_expr(g, r, name, x->kid[0]), build_expr(g, r, name, x->kid[1]));
    case 'r': return rules_repeat(r, build_expr(g, r, name, x->kid[0]), x->lo, x->hi);
    default: /* a character, and perhaps a name behind it */
        return SEQ(r, text_rule(r, c), rules_optional(r, name[x->kid[1]]));
    }
}

static uint64_t ends(random_grammar *g, const int *body, int id, size_t at);

static uint64_t ends_of_all(random_grammar *g, const int *body, int id, uint64_t from) {
    uint64_t to = 0;
    for (size_t i = 0; i <= g->len; i++)
        if (from >> i & 1) to |= ends(g, body, id, i);
    return to;
}

static uint64_t compute_ends(random_grammar *g, const int *body, const expr *x, size_t at) {
    uint64_t here = 1ull << at;
    uint64_t one = at < g->len && g->text[at] == x->c ? here << 1 : 0;
    if (x->kind == 'c') return one;
    if (x->kind == 'N') return one | ends_of_all(g, body, body[x->kid[1]], one);
    if (x->kind == 's') return ends_of_all(g, body, x->kid[1], ends(g, body, x->kid[0], at));
    if (x->kind == '|') return ends(g, body, x->kid[0], at) | ends(g, body, x->kid[1], at);
    uint64_t out = 0, now = here;
    for (uint32_t i = 0; i <= x->hi && i < 64 && now; i++) {
        if (i >= x->lo) out |= now;
        now = ends_of_all(g, body, x->kid[0], now);
    }
    return out;
}

static uint64_t ends(random_grammar *g, const int *body, int id, size_t at) {
    if (!g->known[id][at]) {
        g->memo[id][at] = compute_ends(g, body, &g->e[id], at);
        g->known[id][at] = true;
    }
    return g->memo[id][at];
}

static bool matches(random_grammar *g, const int *body, const char *text) {
    g->text = text;
    g->len = strlen(text);
    memset(g->known, 0, sizeof g->known);
    return ends(g, body, body[0], 0) >> g->len & 1;
}

/* Whether the grammar judges the text as it should. */
static bool judges(rig *x, const char *text, bool want) {
    grammar_start(x->g, x->s);
    for (const char *p = text; *p; p++) {
        grammar_take_bytes(x->g, x->s, (str){p, 1});
        SWEEP(x->s->n < STATE_MAX_CONFS); /* nothing was left out */
    }
    return grammar_accepts_end(x->g, x->s) == want;
}

/* Walks by masks; each text on the way, and a changed one, is judged by both. */
static void walk_randomly(words *w, rig *x, random_grammar *g, const int *body,
                          unsigned *seed) {
    char text[MAX_TEXT + 16] = "", other[MAX_TEXT + 16];
    grammar_start(x->g, x->s);
    for (size_t n = 0;;) {
        check_mask(w, x);
        SWEEP(grammar_accepts_end(x->g, x->s) == matches(g, body, text));
        grammar_state here = *x->s;
        int32_t t = draw(w, seed);
        SWEEP(t >= 0 || grammar_accepts_end(x->g, x->s)); /* no dead end */
        SWEEP(grammar_can_go_on(x->g, x->s) == (t >= 0));
        if (t < 0) return;
        str s = vocab_token(w->v, (uint32_t)t);
        if (n + s.len > MAX_TEXT) return;
        SWEEP(grammar_take(x->g, x->s, t));
        memcpy(text + n, s.ptr, s.len);
        text[n += s.len] = 0;
        strcpy(other, text);
        other[(unsigned)rand_r(seed) % n] = "ab{"[(unsigned)rand_r(seed) % 3];
        SWEEP(judges(x, other, matches(g, body, other)));
        *x->s = here;
        SWEEP(grammar_take(x->g, x->s, t));
    }
}

START_TEST(random_grammars_take_what_a_naive_matcher_takes) {
    static random_grammar g;
    words w;
    words_tiny(&w, 6000); /* a small cache: masks are dropped and made again */
    int compiled = 0;
    for (unsigned seed = 1; seed <= 400; seed++) {
        unsigned s = seed * 7919;
        rig x;
        err e;
        rig_init(&x);
        rule name[] = {rules_declare(x.r), rules_declare(x.r)};
        g.n = 0;
        int body[] = {random_expr(&g, &s, 5), random_expr(&g, &s, 4)};
        for (int i = 0; i < 2; i++)
            rules_define(x.r, name[i], build_expr(&g, x.r, name, body[i]));
        status st = rig_try(&x, name[0], w.v, &e);
        if (st != OK) { /* many are ambiguous without a bound */
            ck_assert_msg(st == ERR_INVALID && strstr(e.text, "too ambiguous"), "%s", e.text);
            rig_clear(&x);
            continue;
        }
        compiled++;
        for (int i = 0; i < 6; i++) walk_randomly(&w, &x, &g, body, &s);
        rig_clear(&x);
    }
    mask_counts c;
    mask_cache_read(w.cache, &c);
    ck_assert_uint_gt(c.hits, 100);
    ck_assert_int_gt(compiled, 100);
    words_close(&w);
}
END_TEST

/* ---- automata over characters ---- */

static dfa chars_of(rig *x, rule of) {
    dfa d, any, out;
    err e;
    uint64_t work = 1000000;
    dfa_limits lim = {1000, &work};
    ck_assert(dfa_build(&d, x->r, of, NULL, &lim, &x->mem, &e) == OK);
    ck_assert(dfa_strip(&out, &d, &x->mem, &e) == OK);
    ck_assert(dfa_any(&any, 0, RULE_UNBOUNDED, &lim, &x->mem, &e) == OK);
    ck_assert(dfa_combine(&d, &out, DFA_AND, &any, &lim, &x->mem, &e) == OK);
    return d;
}

START_TEST(sets_of_strings_are_combined) {
    static const rule_range all = {0, SYMBOL_END}, begin = {SYMBOL_BEGIN, SYMBOL_BEGIN};
    rig x;
    err e;
    rig_init(&x);
    uint64_t work = 1000000;
    dfa_limits lim = {1000, &work};
    rule any = rules_repeat(x.r, rules_class(x.r, &all, 1), 0, RULE_UNBOUNDED);
    dfa has = chars_of(&x, SEQ(x.r, any,
                               text_rule(x.r, "\xc3\xa9"
                                              "b"),
                               any));
    dfa first =
        chars_of(&x, SEQ(x.r, any, rules_class(x.r, &begin, 1), text_rule(x.r, "a"), any));
    dfa both, but, len, none;
    ck_assert(dfa_takes(&has, STR("x\xc3\xa9"
                                  "by")) &&
              !dfa_takes(&has, STR("x\xc3\xa9")));
    ck_assert(dfa_takes(&first, STR("ab")) && !dfa_takes(&first, STR("ba")));
    ck_assert(dfa_combine(&both, &has, DFA_AND, &first, &lim, &x.mem, &e) == OK);
    ck_assert(dfa_combine(&but, &has, DFA_BUT, &first, &lim, &x.mem, &e) == OK);
    ck_assert(dfa_takes(&both, STR("a\xc3\xa9"
                                   "b")) &&
              !dfa_takes(&both, STR("\xc3\xa9"
                                    "b")));
    ck_assert(!dfa_takes(&but, STR("a\xc3\xa9"
                                   "b")) &&
              dfa_takes(&but, STR("\xc3\xa9"
                                  "b")));
    ck_assert(dfa_any(&len, 0, 2, &lim, &x.mem, &e) == OK);
    ck_assert(dfa_takes(&len, STR("\xc3\xa9\xc3\xa9")) && !dfa_takes(&len, STR("abc")));
    ck_assert(dfa_combine(&none, &both, DFA_AND, &len, &lim, &x.mem, &e) == OK);
    ck_assert(dfa_is_empty(&none) && !dfa_is_empty(&both));
    rig_clear(&x);
}
END_TEST

CHECK_MAIN("grammar", json_nests_and_ends_where_it_is_closed,
           a_rule_may_be_called_from_many_places,
           what_could_be_read_in_too_many_ways_is_refused,
           masks_count_the_characters_that_are_left, compiling_takes_no_more_than_its_steps,
           masks_of_json_are_those_of_trying_every_token,
           nesting_ends_at_the_limit_and_can_be_closed,
           special_tokens_are_symbols_and_not_their_text,
           text_up_to_the_first_of_several_strings, what_cannot_be_met_or_ended_is_refused,
           nested_repetitions_stay_small, random_grammars_take_what_a_naive_matcher_takes,
           sets_of_strings_are_combined)
