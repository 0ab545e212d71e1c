/* A list of facts; there are a few dozen. Owned by the arena's owner; immutable once filled. */
#include "model/facts.h"

#include <string.h>

enum { FIRST_FACTS = 32 };

void facts_init(facts *f, arena *mem) {
    *f = (facts){.mem = mem};
}

static void add(facts *f, const fact *v) {
    if (!f->failed && arena_place(f->mem, &f->v, f->n, &f->cap, sizeof *f->v, FIRST_FACTS))
        f->v[f->n++] = *v;
    else
        f->failed = true;
}

void facts_u32(facts *f, const char *key, uint32_t u) {
    add(f, &(fact){.key = key, .kind = FACT_ONE_U32, .u = u});
}

void facts_f32(facts *f, const char *key, float v) {
    add(f, &(fact){.key = key, .kind = FACT_ONE_F32, .f = v});
}

void facts_bool(facts *f, const char *key, bool b) {
    add(f, &(fact){.key = key, .kind = FACT_ONE_BOOL, .b = b});
}

void facts_str(facts *f, const char *key, str s) {
    add(f, &(fact){.key = key, .kind = FACT_ONE_STR, .s = s});
}

void facts_many(facts *f, const char *key, fact_type elem, uint64_t n, const void *v) {
    add(f, &(fact){.key = key, .kind = FACT_MANY, .a = {n, v}, .elem = elem});
}

const fact *facts_find(const facts *f, const char *key) {
    for (uint32_t i = 0; i < f->n; i++)
        if (strcmp(f->v[i].key, key) == 0) return &f->v[i];
    return NULL;
}

bool facts_length(const facts *f, const char *key, uint64_t *n) {
    const fact *v = facts_find(f, key);
    if (!v || v->kind != FACT_MANY) return false;
    *n = v->a.n;
    return true;
}

static status wrong(const char *key, const char *want, err *e) {
    err_set(e, ERR_FORMAT, "%s is not %s", key, want);
    return err_field(e, "%s", key);
}

/* OK and *v NULL: absent. */
static status look_up(const facts *f, const char *key, fact_kind kind, const char *want,
                      const fact **v, err *e) {
    *v = facts_find(f, key);
    return *v && (*v)->kind != kind ? wrong(key, want, e) : OK;
}

status facts_get_u32(const facts *f, const char *key, uint32_t *out, err *e) {
    const fact *v;
    status s = look_up(f, key, FACT_ONE_U32, "a whole number", &v, e);
    if (s == OK && v) *out = v->u;
    return s;
}

status facts_get_f32(const facts *f, const char *key, float *out, err *e) {
    const fact *v;
    status s = look_up(f, key, FACT_ONE_F32, "a real number", &v, e);
    if (s == OK && v) *out = v->f;
    return s;
}

status facts_get_bool(const facts *f, const char *key, bool *out, err *e) {
    const fact *v;
    status s = look_up(f, key, FACT_ONE_BOOL, "a boolean", &v, e);
    if (s == OK && v) *out = v->b;
    return s;
}

status facts_get_str(const facts *f, const char *key, str *out, err *e) {
    const fact *v;
    status s = look_up(f, key, FACT_ONE_STR, "a string", &v, e);
    if (s == OK && v) *out = v->s;
    return s;
}

status facts_get_array(const facts *f, const char *key, fact_type type, fact_array *out,
                       err *e) {
    const fact *v;
    status s = look_up(f, key, FACT_MANY, "an array", &v, e);
    if (s == OK && v && v->elem != type) s = wrong(key, "an array of that type", e);
    if (s == OK && v) *out = v->a;
    return s;
}
