/* module: api */
/* Chat templates: parsing each once, and a conversation of 40 turns, normalised and rendered, over
 * and over; medians of one thread's processor time. Prints {"rows": [...]}.
 *
 *   bench_template [FILE.jinja...]     without files: the sources of tests/golden/chat.json */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api/conversation.h"
#include "base/check.h"
#include "json/out.h"

enum { TURNS = 40, ROUNDS = 1001 };

static double cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *v, size_t n) {
    qsort(v, n, sizeof *v, by_value);
    return v[n / 2];
}

static const json_t *make_body(arena *a) {
    const json_t *body;
    err e;
    buf b;
    buf_init(&b, a);
    buf_add(&b, STR("{\"messages\":["));
    for (int i = 0; i < TURNS; i++)
        buf_addf(&b,
                 "%s{\"role\":\"%s\",\"content\":\"Turn %d: what a user asks, or an assistant "
                 "answers, is of about this length, now and then with \\\"quotes\\\".\\n\"}",
                 i ? "," : "", i % 2 ? "assistant" : "user", i);
    buf_add(&b, STR("]}"));
    CHECK(!b.failed && json_in_parse(&body, a, buf_str(&b), &e) == OK);
    return body;
}

typedef struct timing {
    double normalise_us, render_us;
    size_t arena_bytes, prompt_bytes;
    bool renders;
} timing;

static timing time_renders(const chat_template *t, const json_t *body) {
    static double normalise[ROUNDS], render[ROUNDS];
    timing r = {.renders = true};
    for (int i = 0; i < ROUNDS && r.renders; i++) {
        template_args args = {.add_generation_prompt = true,
                              .now = {.tm_year = 126, .tm_mday = 1}};
        conversation c;
        jinja_text out;
        arena a;
        err e;
        arena_init(&a, chunks_heap(), 0);
        double from = cpu_us();
        CHECK(conversation_read(&c, body, t, STR(""), &a, &e) == OK);
        double between = cpu_us();
        args.messages = c.messages;
        r.renders = template_render(t, &args, &a, &out, &e) == OK;
        normalise[i] = between - from;
        render[i] = cpu_us() - between;
        r.arena_bytes = a.total;
        if (r.renders) r.prompt_bytes = out.text.len;
        arena_clear(&a);
    }
    r.normalise_us = median(normalise, ROUNDS);
    r.render_us = median(render, ROUNDS);
    return r;
}

static void measure(const char *name, str source, const json_t *body, buf *out) {
    static const template_tokens tokens = {{STR("<s>"), STR("</s>")}};
    chat_template t;
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 0);
    double from = cpu_us();
    if (template_open(&t, source, &tokens, &a, NULL, &e) == OK) {
        double parse_us = cpu_us() - from;
        timing r = time_renders(&t, body);
        if (out->len) buf_add(out, STR(",\n"));
        buf_add(out, STR("  {\"template\": "));
        json_str(out, str_of(name));
        buf_addf(out, ", \"source_bytes\": %zu, \"parse_us\": %.0f, \"tree_bytes\": %zu",
                 source.len, parse_us, a.total);
        if (r.renders)
            buf_addf(out,
                     ", \"normalise_us\": %.1f, \"render_us\": %.1f, \"prompt_bytes\": %zu, "
                     "\"arena_bytes\": %zu",
                     r.normalise_us, r.render_us, r.prompt_bytes, r.arena_bytes);
        buf_addc(out, '}');
    } else {
        fprintf(stderr, "bench_template: %s: %s\n", name, e.text);
    }
    arena_clear(&a);
}

static void measure_file(const char *path, const json_t *body, buf *out) {
    FILE *f = fopen(path, "rb");
    buf text;
    buf_init(&text, NULL);
    CHECK(buf_reserve(&text, JINJA_MAX_SOURCE));
    if (f) text.len = fread(text.ptr, 1, JINJA_MAX_SOURCE, f);
    if (f) fclose(f);
    const char *slash = strrchr(path, '/');
    measure(slash ? slash + 1 : path, buf_str(&text), body, out);
    buf_clear(&text);
}

int main(int argc, char **argv) {
    arena a;
    buf out;
    arena_init(&a, chunks_heap(), 0);
    buf_init(&out, NULL);
    const json_t *body = make_body(&a);
    for (int i = 1; i < argc; i++) measure_file(argv[i], body, &out);
    json_error_t je;
    json_t *golden = argc > 1 ? NULL : json_load_file("tests/golden/chat.json", 0, &je);
    const json_t *list = json_object_get(golden, "templates");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i), *source = json_object_get(t, "source");
        if (source)
            measure(json_string_value(json_object_get(t, "name")), json_in_text(source), body,
                    &out);
    }
    printf("{\"rows\": [\n%s\n]}\n", buf_cstr(&out));
    json_decref(golden);
    buf_clear(&out);
    arena_clear(&a);
    return 0;
}
