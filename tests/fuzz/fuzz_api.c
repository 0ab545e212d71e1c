/* module: api
 * What the front end makes of arbitrary bytes: JSON in and out, stop strings.
 * The first byte chooses. */
#include <stdlib.h>

#include "base/check.h"
#include "json/in.h"
#include "json/out.h"
#include "text/stop.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* What parses must survive being written and parsed again. */
static void round_trip(const json_t *v, arena *a) {
    err e;
    const json_t *again;
    buf b;
    if (json_is_object(v)) {
        const char *key;
        json_t *m;
        json_object_foreach((json_t *)v, key, m) round_trip(m, a);
    } else if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) round_trip(json_array_get(v, i), a);
    } else if (json_is_string(v)) {
        buf_init(&b, a);
        buf_addc(&b, '[');
        json_str(&b, json_in_text(v));
        buf_addc(&b, ']');
        CHECK(!b.failed && json_in_parse(&again, a, buf_str(&b), &e) == OK);
        CHECK(str_eq(json_in_text(json_array_get(again, 0)), json_in_text(v)));
    }
}

static void fuzz_json(str in, arena *a) {
    const json_t *v;
    err e;
    buf b;
    if (json_in_parse(&v, a, in, &e) == OK) round_trip(v, a);
    buf_init(&b, a);
    buf_addc(&b, '[');
    json_str_lossy(&b, in);
    buf_addc(&b, ']');
    if (!b.failed) CHECK(json_in_parse(&v, a, buf_str(&b), &e) == OK);
}

/* Lines are stop strings, the last the text: however it is cut, the same comes out. */
static void fuzz_stop(str in, arena *a) {
    str s[4], text = in;
    uint32_t count = 0;
    for (size_t at; count < 4 && (at = str_find(text, STR("\n"), 0)) != SIZE_MAX;) {
        if (at && at <= STOP_MAX_BYTES) s[count++] = (str){text.ptr, at};
        text = (str){text.ptr + at + 1, text.len - at - 1};
    }
    stop_set set;
    stop_state one, many;
    buf x, y;
    buf_init(&x, a);
    buf_init(&y, a);
    if (!stop_set_init(&set, a, s, count) || !stop_state_init(&one, a, &set) ||
        !stop_state_init(&many, a, &set))
        return;
    int hit = stop_push(&set, &one, text, &x), same = -1;
    for (size_t i = 0; i < text.len && same < 0; i++)
        same = stop_push(&set, &many, (str){text.ptr + i, 1}, &y);
    CHECK(hit == same);
    if (hit < 0) {
        stop_flush(&set, &one, &x);
        stop_flush(&set, &many, &y);
        CHECK(x.len == text.len);
    }
    CHECK(str_eq(buf_str(&x), buf_str(&y)));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    if (n == 0) return 0;
    arena a;
    arena_init(&a, chunks_heap(), 16 << 20);
    str in = {(const char *)p + 1, n - 1};
    if (p[0] % 2 == 0) fuzz_json(in, &a);
    if (p[0] % 2 == 1) fuzz_stop(in, &a);
    arena_clear(&a);
    return 0;
}
