/* module: api */
/* Fuzzes the way of a chat to its prompt: the input is the body of a request, rendered by
 * templates that go through all of it. Checks that what comes out is valid UTF-8 and covered by
 * runs. One thread. */
#include "api/conversation.h"
#include "base/check.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const sources[] = {
    "{{ messages|tojson }}{{ tools|tojson }}{{ documents|tojson }}{{ reasoning_effort }}",
    "{% for m in messages %}<|{{ m.role }}|>{% for p in m.content %}{{ p.text }}{% endfor %}"
    "{{ m.reasoning_content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    "{{ c.function.arguments|tojson }}{% endfor %}{{ 'developer' if m.role == 'developer' }}"
    "{% endfor %}{{ tools|length if tools else enable_thinking }}",
    "{% for m in messages %}{{ m.role + ': ' + m.content|trim }}\n{% endfor %}"};

static void render(const chat_template *t, const json_t *body, arena *a, bool mark) {
    template_args args = {.now = {.tm_year = 126, .tm_mday = 1}};
    conversation c;
    jinja_text out;
    err e;
    if (conversation_args(&args, body, NULL, a, &e) != OK ||
        conversation_read(&c, body, t, mark ? STR("MARK ") : STR(""), a, &e) != OK)
        return;
    CHECK(json_array_size(c.messages) > 0 && c.last_role.len > 0);
    args.messages = c.messages;
    if (template_render(t, &args, a, &out, &e) != OK) return;
    CHECK(utf8_valid(out.text));
    CHECK(out.n_runs ? out.runs[out.n_runs - 1].end == out.text.len : !out.text.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const template_tokens tokens = {{STR("<s>"), STR("</s>")}};
    const json_t *body;
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 16 << 20);
    if (json_in_parse(&body, &a, (str){(const char *)data, n}, &e) == OK)
        for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
            chat_template t;
            if (template_open(&t, str_of(sources[i]), &tokens, &a, chunks_heap(), &e) != OK)
                break;
            render(&t, body, &a, i == 1);
        }
    arena_clear(&a);
    return 0;
}
