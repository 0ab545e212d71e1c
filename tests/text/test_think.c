/* A limit on reasoning: which token is forced, and when. */
#include "text/think.h"

#include "tests/check_main.h"
#include "tests/text/tokenizer_rig.h"

typedef struct rig {
    tiny file;
    tokenizer *tok;
    int32_t begin, end;
    think_limit l;
    think_state s;
} rig;

static const int32_t forced[] = {'!', '?'};

static void rig_open(rig *x, bool open, uint32_t most) {
    memset(x, 0, sizeof *x);
    tiny_init(&x->file);
    tiny_merge(&x->file, "a b", "ab");
    x->begin = tiny_token(&x->file, "<think>", 3);
    x->end = tiny_token(&x->file, "</think>", 3);
    x->tok = tok_open(tiny_finish(&x->file, "gpt-2"));
    x->l = (think_limit){.begin = STR("<think>"),
                         .end = STR("</think>"),
                         .open = open,
                         .most = most,
                         .forced = forced,
                         .n_forced = 2};
    think_start(&x->l, &x->s);
}
static void rig_close(rig *x) {
    tokenizer_close(x->tok);
    tiny_clear(&x->file);
}
static void take(rig *x, int32_t token) {
    think_take(&x->l, &x->s, x->tok, token);
}
/* The token of a byte. */
static void say(rig *x, const char *text) {
    for (; *text; text++) {
        ck_assert_int_eq(think_must(&x->l, &x->s), -1);
        take(x, (unsigned char)*text);
    }
}

START_TEST(after_the_last_token_of_reasoning_its_end_is_forced) {
    rig x;
    rig_open(&x, true, 3);
    say(&x, "abc");
    ck_assert_int_eq(think_must(&x.l, &x.s), '!');
    take(&x, '!');
    ck_assert_int_eq(think_must(&x.l, &x.s), '?');
    take(&x, '?');
    say(&x, "text that is as long as it likes");
    rig_close(&x);
}
END_TEST

START_TEST(what_is_not_reasoning_is_not_counted) {
    rig x;
    rig_open(&x, false, 2);
    say(&x, "many tokens");
    take(&x, x.begin);
    say(&x, "ab");
    ck_assert_int_eq(think_must(&x.l, &x.s), '!');
    rig_close(&x);
}
END_TEST

START_TEST(reasoning_that_ends_by_itself_is_left_alone) {
    rig x;
    rig_open(&x, false, 12);
    say(&x, "<think>abc</think>"); /* as characters */
    say(&x, "more than twelve tokens of text");
    rig_close(&x);
    rig_open(&x, true, 4);
    say(&x, "ab");
    take(&x, x.end);
    say(&x, "more than four tokens");
    rig_close(&x);
}
END_TEST

START_TEST(no_reasoning_at_all_is_a_limit_of_0) {
    rig x;
    rig_open(&x, true, 0);
    ck_assert_int_eq(think_must(&x.l, &x.s), '!');
    rig_close(&x);
    rig_open(&x, false, 0);
    take(&x, x.begin);
    ck_assert_int_eq(think_must(&x.l, &x.s), '!');
    rig_close(&x);
}
END_TEST

CHECK_MAIN("think", after_the_last_token_of_reasoning_its_end_is_forced,
           what_is_not_reasoning_is_not_counted, reasoning_that_ends_by_itself_is_left_alone,
           no_reasoning_at_all_is_a_limit_of_0)
