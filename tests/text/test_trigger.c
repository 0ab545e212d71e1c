/* Free text with marks behind which a grammar holds: against a naive search, and masks against
 * trying every token. */
#include "tests/text/grammar_rig.h"

static rule_trigger on(rig *x, const char *mark, rule then) {
    const size_t n = strlen(mark);
    uint32_t *v = arena_alloc(&x->mem, n * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = (uint8_t)mark[i];
    return (rule_trigger){.mark = v, .n_mark = n, .then = then};
}

static void tiny_triggered(words *w, rig *x, unsigned flags) {
    words_tiny(w, 1 << 16);
    rig_init(x);
    const rule_trigger v[] = {on(x, "<ab", SEQ(x->r, any_value(x->r), text_rule(x->r, ">"))),
                              on(x, "ab{", text_rule(x->r, "}}"))};
    rig_compile(x, rules_triggered(x->r, v, 2, flags), w->v);
}

START_TEST(text_is_free_but_behind_marks) {
    words w;
    rig x;
    tiny_triggered(&w, &x, 0);
    static const char *const good[] = {"",
                                       "free <a <a ab }}",
                                       "x<ab[1,\"a\"]> <a ab",
                                       "ab{}}",
                                       "aab{}}<ab1>ab{}}ab{}}",
                                       "<<ab{\"ab{\":1}>",
                                       "\xff\xfe",
                                       "\xc3"};
    static const char *const bad[] = {"<ab", "x<ab x", "ab{}", "ab{}}ab{", "<ab[1]", "<ab{}} "};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ck_assert_msg(takes(&x, good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!takes(&x, bad[i]), "%s", bad[i]);
    ck_assert(takes(&x, "free"));
    ck_assert(grammar_can_go_on(x.g, x.s));
    check_mask(&w, &x);
    ck_assert(grammar_take(x.g, x.s, w.special[0])); /* special tokens are free, too */
    ck_assert(takes(&x, "free <a"));
    ck_assert(grammar_take(x.g, x.s, w.special[0]));
    ck_assert(grammar_take_bytes(x.g, x.s, STR("b ."))); /* and a mark does not go across one */
    ck_assert(!takes(&x, "<ab"));
    ck_assert(!grammar_take(x.g, x.s, w.special[0]));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(a_mark_may_be_needed_and_may_end_the_text) {
    words w;
    rig x;
    tiny_triggered(&w, &x, TRIGGER_NEEDED);
    ck_assert(!takes(&x, "") && !takes(&x, "free") && !takes(&x, "ab{}"));
    ck_assert(takes(&x, "free ab{}} free") && takes(&x, "ab{}}ab{}}"));
    ck_assert(!takes(&x, "ab{}}ab{"));
    rig_clear(&x);
    words_close(&w);
    tiny_triggered(&w, &x, TRIGGER_ONCE);
    ck_assert(takes(&x, "") && takes(&x, "free") && takes(&x, "free ab{}}"));
    ck_assert(!grammar_can_go_on(x.g, x.s));
    ck_assert(!takes(&x, "free ab{}} "));
    rig_clear(&x);
    words_close(&w);
    tiny_triggered(&w, &x, TRIGGER_ONCE | TRIGGER_NEEDED);
    ck_assert(!takes(&x, "free") && takes(&x, "free ab{}}"));
    ck_assert(!grammar_can_go_on(x.g, x.s));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

START_TEST(a_mark_may_be_a_special_token_and_text) {
    words w;
    rig x;
    words_tiny(&w, 1 << 16);
    rig_init(&x);
    const uint32_t mark[] = {RULE_MARK_TOKEN + (uint32_t)w.special[0], 'c', 'a'};
    rule then = SEQ(x.r, any_value(x.r), rules_token(x.r, w.special[1]));
    const rule_trigger v = {.mark = mark, .n_mark = 3, .then = then};
    rig_compile(&x, rules_triggered(x.r, &v, 1, 0), w.v);
    ck_assert(takes(&x, "ca<call>ca1"));
    check_mask(&w, &x);
    ck_assert(grammar_take(x.g, x.s, w.special[1]));
    ck_assert(grammar_take(x.g, x.s, w.special[0]));
    ck_assert(grammar_take(x.g, x.s, w.special[0]));
    check_mask(&w,
               &x); /* "cab" would end the mark and go on as no value does; "ca" would not */
    grammar_state before = *x.s;
    ck_assert(!grammar_take_bytes(x.g, x.s, STR("cab")));
    *x.s = before;
    ck_assert(grammar_take_bytes(x.g, x.s, STR("ca")));
    ck_assert(!grammar_accepts_end(x.g, x.s));
    check_mask(&w, &x);
    ck_assert(grammar_take_bytes(x.g, x.s, STR("[1]")));
    check_mask(&w, &x);
    ck_assert(!grammar_accepts_end(x.g, x.s));
    ck_assert(grammar_take(x.g, x.s, w.special[1]));
    ck_assert(grammar_accepts_end(x.g, x.s) && grammar_can_go_on(x.g, x.s));
    rig_clear(&x);
    words_close(&w);
}
END_TEST

/* ---- random marks against a search ---- */

enum { MARKS = 3 };
typedef struct random_marks {
    char mark[MARKS][5], then[MARKS][5];
    int n;
} random_marks;

static void random_text(char *to, int max, unsigned *seed) {
    int n = 1 + rand_r(seed) % max;
    for (int i = 0; i < n; i++) to[i] = "ab{c"[rand_r(seed) % 4];
    to[n] = 0;
}

static bool ends_with(const char *text, size_t n, const char *mark) {
    const size_t len = strlen(mark);
    return n >= len && memcmp(text + n - len, mark, len) == 0;
}

/* Whether text[from..] may stand where free text begins: any of several marks that end together
 * may have been meant. */
static bool free_text(const random_marks *m, const char *text, size_t from) {
    const size_t n = strlen(text);
    for (size_t end = from + 1; end <= n; end++) {
        bool any = false, good = false;
        for (int i = 0; i < m->n; i++) {
            if (!ends_with(text + from, end - from, m->mark[i])) continue;
            any = true;
            const size_t len = strlen(m->then[i]);
            if (strncmp(text + end, m->then[i], len) == 0)
                good |= free_text(m, text, end + len);
        }
        if (any) return good;
    }
    return true;
}

START_TEST(random_marks_are_found_as_by_a_search) {
    words w;
    words_tiny(&w, 6000);
    for (unsigned seed = 1; seed <= 300; seed++) {
        unsigned s = seed * 7919;
        random_marks m = {.n = 1 + rand_r(&s) % MARKS};
        rig x;
        rig_init(&x);
        rule_trigger v[MARKS];
        for (int i = 0; i < m.n; i++) {
            random_text(m.mark[i], 4, &s);
            random_text(m.then[i], 4, &s);
            v[i] = on(&x, m.mark[i], text_rule(x.r, m.then[i]));
        }
        rig_compile(&x, rules_triggered(x.r, v, (size_t)m.n, 0), w.v);
        for (int k = 0; k < 60; k++) {
            char text[32] = "";
            while (strlen(text) < 14) {
                char piece[6];
                random_text(piece, 4, &s);
                const int i = rand_r(&s) % m.n, which = rand_r(&s) % 3;
                strcat(text, which == 0 ? piece : which == 1 ? m.mark[i] : m.then[i]);
            }
            SWEEP(takes(&x, text) == free_text(&m, text, 0));
        }
        grammar_start(x.g, x.s);
        for (int k = 0; k < 12; k++) { /* along masks, never to a dead end */
            check_mask(&w, &x);
            int32_t t = draw(&w, &s);
            SWEEP(t >= 0);
            SWEEP(grammar_take(x.g, x.s, t));
        }
        rig_clear(&x);
    }
    words_close(&w);
}
END_TEST

START_TEST(masks_of_a_real_vocabulary_hold_all_of_it_in_free_text) {
    words w;
    rig x;
    words_real(&w, 4 << 20);
    rig_init(&x);
    const rule_trigger v =
        on(&x, "<tool_call>", SEQ(x.r, any_value(x.r), text_rule(x.r, "</tool_call>")));
    rig_compile(&x, rules_triggered(x.r, &v, 1, 0), w.v);
    const uint32_t n = sampling_mask_words(w.v->n_vocab);
    uint32_t refused = 0;
    memset(w.mask, 0xff, n * sizeof *w.mask);
    grammar_mask(x.g, x.s, w.cache, w.mask);
    for (uint32_t id = 0; id < w.v->n_vocab; id++) refused += !(w.mask[id / 32] >> id % 32 & 1);
    size_t n_eog;
    const int32_t *eog = tokenizer_eog(w.tok, &n_eog);
    ck_assert_uint_eq(refused, n_eog); /* those that end a text are added by whoever samples */
    for (size_t i = 0; i < n_eog; i++) ck_assert(!(w.mask[eog[i] / 32] >> eog[i] % 32 & 1));
    for (const char *p = "so: <tool_call"; *p; p++) {
        check_mask(&w, &x);
        ck_assert(grammar_take_bytes(x.g, x.s, (str){p, 1}));
    }
    check_mask(&w, &x);
    rig_clear(&x);
    words_close(&w);
}
END_TEST

CHECK_MAIN("trigger", text_is_free_but_behind_marks, a_mark_may_be_needed_and_may_end_the_text,
           a_mark_may_be_a_special_token_and_text, random_marks_are_found_as_by_a_search,
           masks_of_a_real_vocabulary_hold_all_of_it_in_free_text)
