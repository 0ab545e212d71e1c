/* Reports on the small files of a folder. Stateless. */
#include "api/inspect_folder.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/inspect.h"
#include "json/out.h"
#include "model/hf/hf_folder.h"

enum { KEY = 200, DEEPEST = 8 };

static const char *const files[] = {"config.json", "generation_config.json",
                                    "tokenizer_config.json"};

/* ---- values ---- */

/* The fewest digits that give the number back. */
static void real(buf *b, double v) {
    char t[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(t, sizeof t, "%.*g", digits, v);
        if (strtod(t, NULL) == v) break;
    }
    buf_add(b, str_of(t));
}

/* As JSON; n and text_bytes as inspect_value has them. */
static void value(buf *b, const json_t *v, uint64_t n, uint64_t text_bytes, int depth) {
    const char *key, *comma = "";
    json_t *of;
    gguf_kv kv = {.type = GGUF_STRING};
    if (json_is_string(v)) {
        kv.s = json_in_text(v);
        inspect_value(b, &kv, n, text_bytes);
    } else if (json_is_integer(v)) {
        json_i64(b, json_integer_value(v));
    } else if (json_is_real(v)) {
        real(b, json_real_value(v));
    } else if (json_is_array(v) && depth < DEEPEST) {
        const size_t count = json_array_size(v);
        buf_addc(b, '[');
        for (size_t i = 0; i < count && i < n; i++, comma = n < UINT64_MAX ? ", " : ",") {
            buf_addf(b, "%s", comma);
            value(b, json_array_get(v, i), n, text_bytes, depth + 1);
        }
        if (count > n) buf_addf(b, ", ... %zu elements", count);
        buf_addc(b, ']');
    } else if (json_is_object(v) && depth < DEEPEST && n == UINT64_MAX) {
        buf_addc(b, '{');
        json_object_foreach((json_t *)v, key, of) {
            buf_addf(b, "%s", comma);
            inspect_text(b, str_of(key));
            buf_addc(b, ':');
            value(b, of, n, text_bytes, depth + 1);
            comma = ",";
        }
        buf_addc(b, '}');
    } else if (json_is_object(v)) {
        buf_addf(b, "{%zu members}", json_object_size(v));
    } else {
        buf_addf(b, "%s", json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
    }
}

static void fact_value(buf *b, const fact *f, uint64_t n, uint64_t text_bytes) {
    static const gguf_type elem[] = {[FACT_STR] = GGUF_STRING,
                                     [FACT_I32] = GGUF_I32,
                                     [FACT_F32] = GGUF_F32,
                                     [FACT_BOOL] = GGUF_BOOL};
    gguf_kv kv = {.type = GGUF_U32};
    switch (f->kind) {
    case FACT_ONE_U32: kv.u = f->u; break;
    case FACT_ONE_F32: kv = (gguf_kv){.type = GGUF_F32, .f = (double)f->f}; break;
    case FACT_ONE_BOOL: kv = (gguf_kv){.type = GGUF_BOOL, .u = f->b}; break;
    case FACT_ONE_STR: kv = (gguf_kv){.type = GGUF_STRING, .s = f->s}; break;
    case FACT_MANY:
        kv = (gguf_kv){.type = GGUF_ARRAY, .a = {elem[f->elem], f->a.n, f->a.v}};
        break;
    }
    inspect_value(b, &kv, n, text_bytes);
}

/* ---- lines ---- */

typedef struct lines {
    buf *b;
    uint64_t n, text_bytes;
} lines;

static void line_begins(buf *b, const char *key) {
    buf name = {0};
    inspect_text(&name, str_of(key)); /* without its quotes */
    if (name.failed)
        b->failed = true;
    else
        buf_addf(b, "  %-44.*s ", (int)name.len - 2, name.ptr + 1);
    buf_clear(&name);
}

/* Objects of a few members, member by member: but for the table of added tokens. */
static void members(const lines *l, const char *prefix, const json_t *o, int depth) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v) {
        char name[KEY];
        snprintf(name, sizeof name, "%s%s", prefix, key);
        if (json_is_object(v) && depth < 4 && json_object_size(v) <= 40) {
            snprintf(name, sizeof name, "%s%s.", prefix, key);
            members(l, name, v, depth + 1);
            continue;
        }
        line_begins(l->b, name);
        value(l->b, v, l->n, l->text_bytes, 0);
        buf_addc(l->b, '\n');
    }
}

status inspect_folder_lines(buf *b, const checkpoint *c, uint64_t n, uint64_t text_bytes,
                            err *e) {
    const lines l = {b, n, text_bytes};
    const facts *f = hf_folder_facts_of(c);
    status s = OK;
    for (size_t i = 0; i < sizeof files / sizeof *files && s == OK; i++) {
        arena a;
        const json_t *o;
        arena_init(&a, chunks_heap(), 0);
        s = hf_folder_json(&o, c, files[i], &a, e);
        if (s == OK && o) {
            buf_addf(b, "\n%s\n", files[i]);
            members(&l, "", o, 0);
        }
        arena_clear(&a);
    }
    if (s != OK) return s;
    buf_add(b, STR("\nread from them, and from tokenizer.json\n"));
    for (uint32_t i = 0; i < f->n; i++) {
        line_begins(b, f->v[i].key);
        fact_value(b, &f->v[i], n, text_bytes);
        buf_addc(b, '\n');
    }
    return OK;
}

/* ---- JSON ---- */

status inspect_folder_json(buf *b, const checkpoint *c, err *e) {
    const facts *f = hf_folder_facts_of(c);
    status s = OK;
    buf_addc(b, '{');
    for (size_t i = 0; i < sizeof files / sizeof *files && s == OK; i++) {
        arena a;
        const json_t *o;
        arena_init(&a, chunks_heap(), 0);
        s = hf_folder_json(&o, c, files[i], &a, e);
        if (s == OK && o) {
            buf_addf(b, "\"%s\":", files[i]);
            value(b, o, UINT64_MAX, UINT64_MAX, 0);
            buf_addc(b, ',');
        }
        arena_clear(&a);
    }
    for (uint32_t i = 0; i < f->n && s == OK; i++) {
        buf_addf(b, "%s", i ? "," : "");
        inspect_text(b, str_of(f->v[i].key));
        buf_addc(b, ':');
        fact_value(b, &f->v[i], UINT64_MAX, UINT64_MAX);
    }
    buf_addc(b, '}');
    return s;
}
