/* Texts of a calibration, read and cut. */
#include "daemon/quantize/calibrate_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "daemon/quantize/texts.h"

static void name_kind(calibrate_kind *k, const char *path) {
    const char *slash = strrchr(path, '/');
    snprintf(k->name, sizeof k->name, "%s", slash ? slash + 1 : path);
}

status calibrate_text_read(calibrate_text *out, const char *const *files, uint32_t n, err *e) {
    status s = OK;
    *out = (calibrate_text){0};
    if (n > CALIBRATE_KINDS)
        return err_set(e, ERR_INVALID, "%u texts to calibrate on: at most %d", n,
                       CALIBRATE_KINDS);
    for (uint32_t i = 0; n == 0 && i < BUILT_IN_TEXTS && s == OK; i++) {
        calibrate_kind *k = &out->kind[out->n_kinds++];
        const char *name;
        const str text = built_in_text(i, &name);
        buf_init(&k->text, NULL);
        name_kind(k, name);
        buf_add(&k->text, text);
        if (k->text.failed) s = err_set(e, ERR_NO_MEMORY, "no memory for the texts");
    }
    for (uint32_t i = 0; i < n && s == OK; i++) {
        calibrate_kind *k = &out->kind[out->n_kinds++];
        buf_init(&k->text, NULL);
        name_kind(k, files[i]);
        s = eval_text_read(&k->text, files[i], e);
    }
    return s;
}

/* Where the held-out part begins: behind a line's end. */
static size_t held_from(str text) {
    size_t at = text.len / 5 * 4;
    const char *line = at < text.len ? memchr(text.ptr + at, '\n', text.len - at) : NULL;
    if (line && (size_t)(line + 1 - text.ptr) < text.len) at = (size_t)(line + 1 - text.ptr);
    while (at > 0 && at < text.len && ((unsigned char)text.ptr[at] & 0xc0) == 0x80) at--;
    return at;
}

/* Whole windows alone: a short one would stand among those of the next kind. */
static status whole_windows(eval_text *t, const char *name, err *e) {
    const uint32_t part = t->context - t->bos, windows = (uint32_t)(t->n_tokens / part);
    if (windows == 0) {
        err_set(e, ERR_INVALID, "%s has %llu tokens to calibrate on: fewer than a window of %u",
                name, (unsigned long long)t->n_tokens, t->context);
        err_hint(e, "give a longer text; a fifth of it is held out to measure on");
        return err_field(e, "%s", name);
    }
    t->n_windows = windows;
    t->n_tokens = (uint64_t)windows * part;
    t->n_scored = (uint64_t)windows * (t->context - 1);
    return OK;
}

static status append(eval_text *all, eval_text *part, err *e) {
    const size_t old = (size_t)all->n_windows * part->context;
    const size_t more = (size_t)part->n_windows * part->context;
    int32_t *v = realloc(all->token, (old + more) * sizeof *v);
    if (!v) return err_set(e, ERR_NO_MEMORY, "no memory for %zu tokens", old + more);
    memcpy(v + old, part->token, more * sizeof *v);
    all->token = v;
    all->context = part->context;
    all->bos = part->bos;
    all->n_windows += part->n_windows;
    all->n_tokens += part->n_tokens;
    all->n_scored += part->n_scored;
    return OK;
}

status calibrate_text_cut(calibrate_text *t, const tokenizer *tok, uint32_t context,
                          uint64_t n_fit, uint64_t n_held, err *e) {
    status s = OK;
    CHECK(t->n_kinds > 0);
    const uint64_t part = context - tokenizer_adds_bos(tok);
    const uint64_t windows = n_fit / t->n_kinds / part;
    for (uint32_t i = 0; i < t->n_kinds && s == OK; i++) {
        calibrate_kind *k = &t->kind[i];
        const str text = buf_str(&k->text);
        const size_t cut = held_from(text);
        eval_text fit = {0};
        s = eval_text_cut(&fit, tok, (str){text.ptr, cut}, context,
                          (windows ? windows : 1) * part, e);
        if (s == OK) s = whole_windows(&fit, k->name, e);
        if (s == OK) s = append(&t->fit, &fit, e);
        if (s == OK)
            s = eval_text_cut(&t->held[i], tok, (str){text.ptr + cut, text.len - cut}, context,
                              n_held, e);
        eval_text_clear(&fit);
        buf_clear(&k->text);
    }
    return s;
}

void calibrate_text_clear(calibrate_text *t) {
    for (uint32_t i = 0; i < t->n_kinds; i++) {
        buf_clear(&t->kind[i].text);
        eval_text_clear(&t->held[i]);
    }
    eval_text_clear(&t->fit);
    t->n_kinds = 0;
}
