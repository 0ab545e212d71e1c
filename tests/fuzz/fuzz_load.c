/* module: load */
/* Fuzzes what the load generator reads from outside: a trace, and the reply of a server, cut
 * into pieces by its own bytes. One thread. */
#include <stdlib.h>

#include "base/check.h"
#include "base/utf8.h"
#include "load/reply.h"
#include "load/trace.h"

static void read_trace(str text) {
    load_trace t = {0};
    err e = {0};
    if (load_trace_parse(&t, text, 0, &e) != OK)
        CHECK(e.text[0] && utf8_valid(str_of(e.text)) && utf8_valid(str_of(e.hint)));
    for (size_t i = 0; i < t.n; i++) {
        CHECK(t.rows[i].prompt_tokens && t.rows[i].output_tokens);
        CHECK(i == 0 || t.rows[i].at_us >= t.rows[i - 1].at_us);
        CHECK(t.rows[i].hashes + t.rows[i].n_hashes <= t.n_hashes);
    }
    load_trace_clear(&t);
}

static void read_reply(str text, int http) {
    load_reply r = {.due_us = 1, .start_us = 1, .http = http, .sse = true};
    load_times gaps = {0};
    load_sample s;
    err e;
    buf_init(&r.body, NULL);
    uint64_t now = 1;
    for (size_t i = 0, n; i < text.len; i += n) {
        n = 1 + (unsigned char)text.ptr[i] % 32;
        if (n > text.len - i) n = text.len - i;
        CHECK(load_reply_add(&r, (str){text.ptr + i, n}, ++now));
    }
    r.end_us = ++now;
    CHECK(load_reply_read(&r, &s, &gaps, &e) == OK);
    CHECK(gaps.n == s.n_gaps && s.ttft_us <= s.e2e_us && s.last_us <= s.e2e_us);
    CHECK(s.fault == FAULT_NONE || http != 200 || utf8_valid(str_of(s.why)));
    free(gaps.v);
    free(r.marks);
    buf_clear(&r.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    str text = {(const char *)data, n};
    read_trace(text);
    read_reply(text, 200);
    read_reply(text, 500);
    return 0;
}
