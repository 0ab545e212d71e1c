/* The grammars that requests share. Loop thread. */
#include "api/grammars.h"

#include "base/check.h"

static void free_one(kept_grammar *k) {
    arena mem = k->mem;
    grammar_free(k->g);
    arena_clear(&mem);
}

kept_grammar *grammars_find(grammars *s, str key) {
    for (int i = 0; i < GRAMMARS_KEPT; i++)
        if (s->v[i] && str_eq(s->v[i]->key, key)) {
            s->v[i]->used = ++s->clock;
            s->v[i]->n_users++;
            return s->v[i];
        }
    return NULL;
}

/* The place of the one that has been unused for longest, or a free one; -1: none. */
static int oldest(const grammars *s, bool free_too) {
    int best = -1;
    for (int i = 0; i < GRAMMARS_KEPT; i++) {
        const kept_grammar *k = s->v[i];
        if (!k && free_too) return i;
        if (k && !k->n_users && (best < 0 || k->used < s->v[best]->used)) best = i;
    }
    return best;
}

static void drop(grammars *s, int i) {
    if (s->v[i]) free_one(s->v[i]);
    s->v[i] = NULL;
}

kept_grammar *grammars_add(grammars *s, str key, grammar *taken) {
    kept_grammar *have = grammars_find(s, key);
    if (have) {
        grammar_free(taken);
        return have;
    }
    arena mem;
    arena_init(&mem, pool_chunks(s->pool), 0);
    kept_grammar *k = arena_zalloc(&mem, sizeof *k);
    str copy = k ? arena_str(&mem, key) : (str){0};
    if (!copy.ptr) {
        arena_clear(&mem);
        grammar_free(taken);
        return NULL;
    }
    *k = (kept_grammar){.g = taken, .mem = mem, .key = copy, .n_users = 1, .used = ++s->clock};
    int at = oldest(s, true);
    if (at < 0) return k; /* for this request alone */
    drop(s, at);
    k->kept = true;
    s->v[at] = k;
    return k;
}

void grammars_leave(grammars *s, kept_grammar *k) {
    (void)s;
    CHECK(k->n_users > 0);
    if (--k->n_users == 0 && !k->kept) free_one(k);
}

void grammars_make_space(grammars *s) {
    for (int i; pool_used(s->pool) > pool_size(s->pool) / 2 && (i = oldest(s, false)) >= 0;)
        drop(s, i);
}

void grammars_clear(grammars *s) {
    for (int i = 0; i < GRAMMARS_KEPT; i++) drop(s, i);
}
