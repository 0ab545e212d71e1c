/* Lists of terms. Owned by the caller; no locks. */
#include "memory/term.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

const char *mem_class_name(mem_class c) {
    static const char *const name[] = {
#define X(cls, text) text,
        MEM_CLASS_LIST(X)
#undef X
    };
    CHECK(c < MEM_N_CLASSES);
    return name[c];
}

status mem_exhausted(err *e, mem_class c, const char *fmt, ...) {
    char what[240];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    err_set(e, ERR_NO_MEMORY, "the system has no memory for %s (class %s)", what,
            mem_class_name(c));
    err_field(e, "%s", mem_class_name(c));
    return err_hint(e, "free memory on this machine, or lower the option memory");
}

const char *term_kind_name(term_kind k) {
    static const char *const name[] = {"exact", "calibrated", "assumed"};
    return name[k];
}

void terms_clear(terms *t) {
    free(t->v);
    *t = (terms){0};
}

void terms_add(terms *t, mem_class cls, term_kind kind, uint64_t bytes, const char *fmt, ...) {
    if (t->failed) return;
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 32;
        term *v = realloc(t->v, cap * sizeof *v);
        if (!v) {
            t->failed = true;
            return;
        }
        t->v = v, t->cap = cap;
    }
    term *e = &t->v[t->n++];
    *e = (term){.cls = cls, .kind = kind, .bytes = bytes};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->what, sizeof e->what, fmt, ap);
    va_end(ap);
}

void terms_last_while_loading(terms *t) {
    if (t->n) t->v[t->n - 1].while_loading = true;
}

void terms_last_on_device(terms *t) {
    if (t->n) t->v[t->n - 1].on_device = true;
}

void terms_split(terms *t, terms *device) {
    size_t kept = 0;
    for (size_t i = 0; i < t->n; i++) {
        term e = t->v[i];
        if (!e.on_device) {
            t->v[kept++] = e;
            continue;
        }
        terms_add(device, e.cls, e.kind, e.bytes, "%s", e.what);
        if (!device->failed) device->v[device->n - 1] = e;
    }
    t->n = kept;
    device->failed |= t->failed;
}

uint64_t terms_sum(const terms *t, mem_class cls) {
    uint64_t sum = 0;
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i].cls == cls && !t->v[i].while_loading)
            CHECK(add_u64(sum, t->v[i].bytes, &sum));
    return sum;
}
