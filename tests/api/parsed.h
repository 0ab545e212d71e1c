/* Answers as JSON, for tests that look into them. All functions are static. */
#ifndef VRAMD_TESTS_API_PARSED_H
#define VRAMD_TESTS_API_PARSED_H

#include "json/in.h"
#include "tests/check_main.h"

#define PARSED_UNUSED __attribute__((unused))

static arena docs; /* of parsed answers, until parsed_free */

static PARSED_UNUSED void parsed_free(void) {
    if (docs.src) arena_clear(&docs);
}

static PARSED_UNUSED const json_t *parse(const char *text) {
    json_error_t e;
    if (!docs.src) arena_init(&docs, chunks_heap(), 0);
    json_use_arena(&docs);
    const json_t *v = json_loads(text, 0, &e);
    json_use_arena(NULL);
    ck_assert_msg(v != NULL, "%s at %d:\n%s", e.text, e.position, text);
    return v;
}
static PARSED_UNUSED const json_t *at(const json_t *v, const char *key) {
    const json_t *m = json_object_get(v, key);
    ck_assert_msg(m != NULL, "no member %s", key);
    return m;
}
static PARSED_UNUSED const char *text_of(const json_t *v) {
    ck_assert(json_is_string(v));
    return json_string_value(v);
}
static PARSED_UNUSED long long int_of(const json_t *v) {
    ck_assert(json_is_integer(v));
    return json_integer_value(v);
}

#endif
