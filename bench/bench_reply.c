/* module: text */
/* Time of the reply parser for 1,000 tokens of four bytes: text, and a call with a long argument,
 * in the forms of some models. Prints {"rows": [...]}: microseconds, the least of 50 runs. One
 * thread. */
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "text/reply/reply.h"

enum { BYTES = 4000, TOKEN = 4, RUNS = 50 };

static const struct {
    const char *format, *begin, *end; /* of a call, around a text */
} forms[] = {
    {"hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"",
     "\"}}\n</tool_call>"},
    {"qwen3-coder", "<tool_call>\n<function=f>\n<parameter=s>\n",
     "\n</parameter>\n</function>\n</tool_call>"},
    {"lfm2", "<|tool_call_start|>[f(s='", "')]<|tool_call_end|>"},
    {"gemma4", "<|tool_call>call:f{s:<|\"|>", "<|\"|>}<tool_call|>"},
    {"gpt-oss", "<|channel|>commentary to=functions.f<|message|>{\"s\": \"", "\"}<|call|>"},
    {"llama", "{\"name\": \"f\", \"parameters\": {\"s\": \"", "\"}}"},
};

static void take(void *user, const reply_event *ev) {
    *(size_t *)user += ev->text.len;
}

static uint64_t run(const reply_plan *p, const json_t *tools, str s) {
    size_t n = 0;
    arena a;
    arena_init(&a, chunks_heap(), 0);
    const reply_setup set = {.tools = tools, .reasoning = true, .sink = take, .user = &n};
    const uint64_t from = clock_us();
    reply_parser *r = reply_new(&a, p, &set);
    for (size_t i = 0; i < s.len; i += TOKEN)
        reply_push(r, (str){s.ptr + i, s.len - i < TOKEN ? s.len - i : TOKEN});
    reply_end(r);
    const uint64_t us = clock_us() - from;
    CHECK(n > s.len / 2);
    arena_clear(&a);
    return us;
}

static const reply_format *find(const char *name) {
    for (size_t i = 0; i < reply_n_formats; i++)
        if (strcmp(reply_formats[i].name, name) == 0) return &reply_formats[i];
    return NULL;
}

static uint64_t least(const reply_plan *p, const json_t *tools, str s) {
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < RUNS; i++) {
        const uint64_t us = run(p, tools, s);
        if (us < best) best = us;
    }
    return best;
}

int main(void) {
    static const char words[] = "So it is <b>bold</b>, and 1 < 2.\\n ";
    const json_t *tools;
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 0);
    CHECK(json_in_parse(
              &tools, &a,
              STR("[{\"function\": {\"name\": \"f\", \"parameters\": {\"properties\": {\"s\": "
                  "{\"type\": \"string\"}}}}}]"),
              &e) == OK);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        reply_plan p;
        buf text, call;
        buf_init(&text, &a);
        buf_init(&call, &a);
        CHECK(reply_plan_init(&p, find(forms[i].format), STR("</think>"), NULL, 0));
        while (text.len < BYTES) buf_add(&text, STR(words));
        buf_addf(&call, "%s%.*s%s", forms[i].begin, BYTES, text.ptr, forms[i].end);
        printf("%s{\"format\": \"%s\", \"text_us\": %llu, \"call_us\": %llu}",
               i ? ", " : "{\"rows\": [", forms[i].format,
               (unsigned long long)least(&p, tools, (str){text.ptr, BYTES}),
               (unsigned long long)least(&p, tools, buf_str(&call)));
    }
    puts("]}");
    arena_clear(&a);
    return 0;
}
