/* module: api
 * Bodies of other APIs as bodies of chat or of completions. The first byte chooses the API (0 to 5),
 * the second how much memory there is. What is taken can be written; the messages of a chat have
 * roles. */
#include "api/convert.h"
#include "base/check.h"
#include "json/out.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void check_taken(const conversion *c, arena *a) {
    buf b;
    const json_t *v;
    err e;
    for (size_t i = 0; i < json_array_size(c->messages); i++)
        CHECK(json_is_string(json_object_get(json_array_get(c->messages, i), "role")));
    buf_init(&b, a);
    json_use_arena(a);
    json_value(&b, c->out);
    json_use_arena(NULL);
    if (!b.failed) CHECK(json_in_parse(&v, a, buf_str(&b), &e) != ERR_INVALID);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    static convert_fn *const fns[] = {convert_responses,       convert_messages,
                                      convert_native,          convert_ollama_chat,
                                      convert_ollama_generate, convert_ollama_raw};
    if (n < 2) return 0;
    arena a;
    arena_init(&a, chunks_heap(), 16 << 20);
    static line_filter *strip;
    err e;
    if (!strip) CHECK(line_filter_open(&strip, "^x-anthropic-[a-z-]+:", &e) == OK);
    conversion c = {.mem = &a, .strip = strip};
    status s = json_in_parse(&c.in, &a, (str){(const char *)p + 2, n - 2}, &e);
    if (s == OK && json_is_object(c.in)) {
        const size_t left = (size_t)p[1] * 64; /* 255: as much as it needs */
        const bool less = p[1] < 255 && left < (size_t)(a.end - a.at);
        if (less) a.end = a.at + left;
        if (less) a.limit = a.total;
        s = convert_body(&c, fns[p[0] % (sizeof fns / sizeof *fns)], &e);
        if (s != OK) CHECK(e.text[0]);
        a.limit = 0;
        if (s == OK) check_taken(&c, &a);
    }
    arena_clear(&a);
    return 0;
}
