/* Compiled grammars, the most recently used of them kept. Loop thread. */
#ifndef VRAMD_API_GRAMMARS_H
#define VRAMD_API_GRAMMARS_H

#include "memory/pool.h"
#include "text/grammar/grammar.h"

enum { GRAMMARS_KEPT = 64 };

typedef struct kept_grammar kept_grammar;
struct kept_grammar {
    grammar *g;
    arena mem; /* of this and the key */
    str key;
    uint32_t n_users;
    bool kept;
    uint64_t used; /* when it was used last, by a count */
};

typedef struct grammars {
    pool *pool;
    kept_grammar *v[GRAMMARS_KEPT]; /* NULL: free */
    uint64_t clock;
} grammars;

/* A user more; NULL: it is not there. */
kept_grammar *grammars_find(grammars *, str key);
/* Takes the grammar over, with one user; another one of the same key that came first is given
 * instead. NULL: no memory, and the grammar is freed. */
kept_grammar *grammars_add(grammars *, str key, grammar *taken);
void grammars_leave(grammars *, kept_grammar *);
/* Frees unused grammars, the oldest first, until half of the pool is free: before compiling. */
void grammars_make_space(grammars *);
/* At the end, when none is in use. */
void grammars_clear(grammars *);

#endif
