/* module: text */
/* Fuzzes the template engine: the input is a template, rendered with a small conversation in a
 * small arena. Checks that runs cover the output and that it is valid UTF-8. One thread. */
#include "base/check.h"
#include "base/utf8.h"
#include "text/jinja/jinja.h"

static const char context[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be \\u00e9 'brief'.\"},"
    "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a b\\n\"}]},"
    "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
    "\"f\","
    "\"arguments\": {\"x\": 1.0, \"y\": [1, -2, 1e300], \"z\": {}}}}]}], \"tools\": null}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const jinja_settings set = {.now = {.tm_year = 126, .tm_mday = 1},
                                       .max_bytes = 1 << 16};
    const jinja_tree *t;
    const json_t *v;
    jinja_text out;
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 16 << 20);
    CHECK(json_in_parse(&v, &a, str_of(context), &e) == OK);
    if (jinja_parse(&t, &a, (str){(const char *)data, n}, &e) == OK) {
        const jinja_var vars[] = {{STR("messages"), json_object_get(v, "messages"), false},
                                  {STR("tools"), json_object_get(v, "tools"), false},
                                  {STR("x"), json_object_get(v, "messages"), true}};
        if (jinja_render(t, vars, 3, &set, &a, &out, &e) == OK) {
            CHECK(out.text.len <= set.max_bytes && utf8_valid(out.text));
            CHECK(out.n_runs ? out.runs[out.n_runs - 1].end == out.text.len : !out.text.len);
            for (size_t i = 1; i < out.n_runs; i++)
                CHECK(out.runs[i].end > out.runs[i - 1].end &&
                      out.runs[i].data != out.runs[i - 1].data);
        }
    }
    arena_clear(&a);
    return 0;
}
