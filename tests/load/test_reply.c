/* Event streams cut anywhere, and replies read as samples. */
#include "tests/check_main.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "load/reply.h"
#include "load/sse.h"

/* ---- event streams ---- */

typedef struct seen {
    char text[512];
    uint64_t last_us;
} seen;

static void note(void *self, str data, uint64_t t_us) {
    seen *s = self;
    size_t n = strlen(s->text);
    snprintf(s->text + n, sizeof s->text - n, "[%.*s]", STR_ARG(data));
    s->last_us = t_us;
}

static void feed(seen *s, str text, size_t cut) {
    load_sse p;
    *s = (seen){0};
    load_sse_init(&p, note, s);
    load_sse_feed(&p, (str){text.ptr, cut}, 1);
    load_sse_feed(&p, (str){text.ptr + cut, text.len - cut}, 2);
    ck_assert(!load_sse_failed(&p));
    load_sse_clear(&p);
}

START_TEST(events_are_the_same_wherever_the_stream_is_cut) {
    static const str text = {": hello\n\ndata: {\"a\":1}\n\ndata:b\r\ndata:  c\r\n\r\nid: 7\n"
                             "event: x\ndata\n\ndatax: no\n\ndata: d\r\rdata: unfinished\n",
                             102};
    ck_assert_uint_eq(text.len, strlen(text.ptr));
    for (size_t cut = 0; cut <= text.len; cut++) {
        seen s;
        feed(&s, text, cut);
        ck_assert_str_eq(s.text, "[{\"a\":1}][b\n c][][d]");
    }
}
END_TEST

START_TEST(an_event_has_the_time_of_the_piece_that_ended_it) {
    seen s;
    feed(&s, STR("data: a\n\n"), 8);
    ck_assert_uint_eq(s.last_us, 2);
    feed(&s, STR("data: a\n\n"), 9);
    ck_assert_uint_eq(s.last_us, 1);
}
END_TEST

/* ---- replies ---- */

#define TEXT(t) "data: {\"choices\":[{\"index\":0,\"text\":\"" t "\"}]}\n\n"
#define USAGE                                                                                  \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":4,"            \
    "\"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\n"
#define DONE "data: [DONE]\n\n"

typedef struct piece {
    uint64_t t_us;
    const char *text;
} piece;

static load_reply *reply_of(const piece *p, size_t n) {
    load_reply *r = calloc(1, sizeof *r);
    ck_assert(r != NULL);
    buf_init(&r->body, NULL);
    *r = (load_reply){.due_us = 1000,
                      .start_us = 1010,
                      .end_us = 9000,
                      .output_tokens = 4,
                      .http = 200,
                      .sse = true,
                      .body = r->body};
    for (size_t i = 0; i < n; i++) ck_assert(load_reply_add(r, str_of(p[i].text), p[i].t_us));
    return r;
}
#define REPLY(...)                                                                             \
    reply_of((piece[]){__VA_ARGS__}, sizeof(piece[]){__VA_ARGS__} / sizeof(piece))

/* Reads and frees r. */
static load_sample read_it(load_reply *r, load_times *gaps) {
    load_sample s;
    err e;
    ck_assert_int_eq(load_reply_read(r, &s, gaps, &e), OK);
    load_reply_free(r);
    return s;
}

static load_fault fault_of(load_reply *r, const char *says) {
    load_times gaps = {0};
    load_sample s = read_it(r, &gaps);
    ck_assert_uint_eq(gaps.n, 0);
    ck_assert_msg(strstr(s.why, says) != NULL, "%s", s.why);
    free(gaps.v);
    return s.fault;
}

START_TEST(times_of_a_whole_answer_count_from_when_it_was_due) {
    load_times gaps = {0};
    load_sample s =
        read_it(REPLY({2000, TEXT("")}, {3000, TEXT("a")}, {3500, TEXT("b") TEXT("c")},
                      {5000, TEXT("d")}, {6000, TEXT("")}, {7000, USAGE DONE}),
                &gaps);
    ck_assert_int_eq(s.fault, FAULT_NONE);
    ck_assert_uint_eq(s.ttft_us, 2000);
    ck_assert_uint_eq(s.e2e_us, 8000);
    ck_assert_uint_eq(s.delay_us, 10);
    ck_assert_uint_eq(s.last_us, 4000);
    ck_assert_uint_eq(s.n_gaps, 3);
    ck_assert_uint_eq(gaps.v[0], 500);
    ck_assert_uint_eq(gaps.v[1], 0);
    ck_assert_uint_eq(gaps.v[2], 1500);
    ck_assert_uint_eq(s.prompt_tokens, 5);
    ck_assert_uint_eq(s.output_tokens, 4);
    ck_assert_uint_eq(s.cached_tokens, 2);
    ck_assert(!s.short_output);
    free(gaps.v);
}
END_TEST

START_TEST(without_usage_pieces_count_and_chat_starts_with_content_not_with_a_role) {
    load_times gaps = {0};
    load_sample s = read_it(
        REPLY(
            {2000, "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}"
                   "\n\n"},
            {3000, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n"},
            {4000, "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"b\"}}]}\n\n"},
            {5000, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" DONE}),
        &gaps);
    ck_assert_int_eq(s.fault, FAULT_NONE);
    ck_assert_uint_eq(s.ttft_us, 2000);
    ck_assert_uint_eq(s.output_tokens, 2);
    ck_assert_uint_eq(gaps.n, 1);
    ck_assert(s.short_output);
    free(gaps.v);
}
END_TEST

START_TEST(broken_streams_are_malformed) {
    ck_assert_int_eq(fault_of(REPLY({2000, TEXT("a")}), "without [DONE]"), FAULT_MALFORMED);
    ck_assert_int_eq(fault_of(REPLY({2000, TEXT("a") "data: {nonsense\n\n" DONE}), "{nonsense"),
                     FAULT_MALFORMED);
    ck_assert_int_eq(fault_of(REPLY({2000, "data: 7\n\n" DONE}), "no JSON object"),
                     FAULT_MALFORMED);
    ck_assert_int_eq(fault_of(REPLY({2000, USAGE DONE}), "no text"), FAULT_MALFORMED);
    load_reply *r = REPLY({2000, "<html>"});
    r->sse = false;
    ck_assert_int_eq(fault_of(r, "<html>"), FAULT_MALFORMED);
}
END_TEST

START_TEST(an_error_within_the_stream_is_the_servers) {
    ck_assert_int_eq(
        fault_of(REPLY({2000, TEXT("a")},
                       {3000, "data: {\"error\":{\"message\":\"out of luck\"}}\n\n" DONE}),
                 "out of luck"),
        FAULT_SERVER);
}
END_TEST

START_TEST(refusals_are_told_by_their_status_and_message) {
    load_reply *r = REPLY({2000, "{\"error\":{\"message\":\"queue full\"}}"});
    r->sse = false;
    r->http = 429;
    ck_assert_int_eq(fault_of(r, "queue full"), FAULT_STATUS);
    r = REPLY({2000, "Bad Gateway"});
    r->sse = false;
    r->http = 502;
    ck_assert_int_eq(fault_of(r, "Bad Gateway"), FAULT_STATUS);
}
END_TEST

START_TEST(what_the_transport_says_comes_first) {
    load_reply *r = REPLY({2000, TEXT("a") TEXT("b")});
    r->fault = FAULT_CONNECTION;
    snprintf(r->why, sizeof r->why, "reset");
    ck_assert_int_eq(fault_of(r, "reset"), FAULT_CONNECTION);
}
END_TEST

START_TEST(control_characters_of_a_server_do_not_reach_a_terminal) {
    load_reply *r = REPLY({2000, "\x1b[31mred\x07"});
    r->sse = false;
    r->http = 500;
    load_times gaps = {0};
    load_sample s = read_it(r, &gaps);
    for (const char *p = s.why; *p; p++) ck_assert((unsigned char)*p >= 0x20);
    char bad[121]; /* each byte becomes three, which do not all fit */
    memset(bad, 0xff, 120);
    bad[120] = 0;
    r = REPLY({2000, bad});
    r->sse = false;
    r->http = 500;
    s = read_it(r, &gaps);
    ck_assert(strlen(s.why) > 100 && utf8_valid(str_of(s.why)));
    free(gaps.v);
}
END_TEST

CHECK_MAIN("reply", events_are_the_same_wherever_the_stream_is_cut,
           an_event_has_the_time_of_the_piece_that_ended_it,
           times_of_a_whole_answer_count_from_when_it_was_due,
           without_usage_pieces_count_and_chat_starts_with_content_not_with_a_role,
           broken_streams_are_malformed, an_error_within_the_stream_is_the_servers,
           refusals_are_told_by_their_status_and_message, what_the_transport_says_comes_first,
           control_characters_of_a_server_do_not_reach_a_terminal)
