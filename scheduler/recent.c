/* The ring behind recent.h. */
#include "scheduler/recent.h"

#include <string.h>

static bool is_here(const recent *r, const recent_text *t) {
    return t->n > 0 && t->at + r->cap >= r->written;
}

void recent_add(recent *r, uint64_t salt, const int32_t *tokens, uint32_t n,
                const char *request) {
    const uint32_t stored = n < r->cap / 4 ? n : r->cap / 4;
    if (stored == 0) return;
    const uint32_t left = r->cap - (uint32_t)(r->written % r->cap);
    if (left < stored) r->written += left;
    recent_text *t = &r->text[r->n_texts++ % RECENT_TEXTS];
    *t = (recent_text){.salt = salt, .at = r->written, .n = stored, .n_all = n};
    recent_name(t->request, request);
    memcpy(r->token + r->written % r->cap, tokens, stored * sizeof *tokens);
    r->written += stored;
}

const recent_text *recent_get(const recent *r, uint64_t i, const int32_t **tokens) {
    const recent_text *t = &r->text[i % RECENT_TEXTS];
    if (i >= r->n_texts || i + RECENT_TEXTS < r->n_texts || !is_here(r, t)) return NULL;
    *tokens = r->token + t->at % r->cap;
    return t;
}

void recent_forget(recent *r, const uint64_t *salt) {
    const int32_t *tokens;
    for (uint64_t i = r->n_texts > RECENT_TEXTS ? r->n_texts - RECENT_TEXTS : 0; i < r->n_texts;
         i++) {
        recent_text *t = &r->text[i % RECENT_TEXTS];
        if (!recent_get(r, i, &tokens) || (salt && t->salt != *salt)) continue;
        memset(r->token + t->at % r->cap, 0, t->n * sizeof *tokens);
        t->n = 0;
    }
}
