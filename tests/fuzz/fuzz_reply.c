/* module: text */
/* Fuzzes the reply parser: the first bytes choose a format, the prompt and cuts, the rest is the
 * output. Checks that events come in order, that cuts change nothing, and that output without a mark is text, byte for
 * byte. One thread. */
#include "base/check.h"
#include "base/utf8.h"
#include "json/in.h"
#include "text/reply/reply.h"

static const char tools_text[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": "
    "\"object\", \"properties\": {\"s\": {\"type\": \"string\"}, \"n\": {\"type\": "
    "\"integer\"}}}}}]";

static const char *const special_text[] = {
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]",    "<|channel|>", "<|message|>",
    "<|call|>",    "<|end|>",      "<|\"|>",       "<|start|>", "</think>"};
enum { N_SPECIAL = sizeof special_text / sizeof *special_text };

typedef struct seen {
    buf all;
    bool in_call;
    int last;
} seen;

static void take(void *user, const reply_event *ev) {
    seen *s = user;
    CHECK(ev->kind == REPLY_CALL_END || ev->text.len > 0);
    CHECK((ev->kind == REPLY_ARGS || ev->kind == REPLY_CALL_END) == s->in_call);
    if (s->all.len == 0) s->last = -1;
    if (s->last != (int)ev->kind || ev->kind == REPLY_CALL) buf_addc(&s->all, (char)ev->kind);
    s->last = (int)ev->kind;
    if (ev->kind == REPLY_CALL) s->in_call = true;
    if (ev->kind == REPLY_CALL_END) s->in_call = false;
    CHECK(ev->kind != REPLY_ARGS || !memchr(ev->text.ptr, '\xff', ev->text.len));
    buf_add(&s->all, ev->text);
}

/* Bytes 0xFF and a number in the input are a special token. */
static void push(reply_parser *r, str s, size_t piece) {
    size_t from = 0;
    for (size_t i = 0; i < s.len;) {
        if (s.ptr[i] != '\xff' && i - from < piece) {
            i++;
            continue;
        }
        if (i > from) reply_push(r, (str){s.ptr + from, i - from});
        if (s.ptr[i] == '\xff') {
            reply_push_token(r, i + 1 < s.len ? s.ptr[i + 1] % N_SPECIAL : 0);
            i += 2;
        }
        from = i;
    }
    if (from < s.len) reply_push(r, (str){s.ptr + from, s.len - from});
}

static void run(arena *a, const reply_plan *p, const json_t *tools, const uint8_t *head,
                str text, size_t piece, seen *s) {
    const reply_setup set = {.tools = head[1] & 1 ? tools : NULL,
                             .reasoning = head[1] & 2,
                             .prompt = head[1] & 4 ? STR("<think>\n") : STR(""),
                             .sink = take,
                             .user = s};
    reply_parser *r = reply_new(a, p, &set);
    CHECK(r);
    buf_init(&s->all, a);
    push(r, text, piece);
    reply_end(r);
    CHECK(!reply_failed(r) && !s->in_call && reply_held(r) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    reply_special special[N_SPECIAL];
    reply_plan p;
    const json_t *tools;
    arena a;
    err e;
    if (n < 4 || n > 1 << 14) return 0;
    arena_init(&a, chunks_heap(), 0);
    CHECK(json_in_parse(&tools, &a, str_of(tools_text), &e) == OK);
    for (int i = 0; i < N_SPECIAL; i++)
        special[i] = (reply_special){str_of(special_text[i]), i};
    const reply_format *f = data[0] % (reply_n_formats + 1) == reply_n_formats
                                ? NULL
                                : &reply_formats[data[0] % (reply_n_formats + 1)];
    CHECK(reply_plan_init(&p, f, data[1] & 8 ? STR("</think>") : STR(""), special,
                          data[1] & 16 ? N_SPECIAL : 0));
    const str text = {(const char *)data + 4, n - 4};
    seen whole = {0}, cut = {0}, bytes = {0};
    run(&a, &p, tools, data, text, SIZE_MAX, &whole);
    run(&a, &p, tools, data, text, 1u + data[2], &cut);
    run(&a, &p, tools, data, text, 1, &bytes);
    CHECK(str_eq(buf_str(&whole.all), buf_str(&cut.all)));
    CHECK(str_eq(buf_str(&whole.all), buf_str(&bytes.all)));
    if (!f && !(data[1] & 2) && !memchr(text.ptr, '\xff', text.len) && text.len)
        CHECK(str_eq((str){whole.all.ptr + 1, whole.all.len - 1}, text));
    arena_clear(&a);
    return 0;
}
