/* A nondeterministic automaton, between an expression and its deterministic one: shared by
 * text/grammar/nfa.c and text/grammar/automaton.c. */
#ifndef VRAMD_TEXT_NFA_H
#define VRAMD_TEXT_NFA_H

#include "text/grammar/automaton.h"

typedef struct nfa_edge {
    uint32_t from, lo, hi, to; /* lo > hi: without a symbol */
} nfa_edge;

typedef struct nfa {
    arena *mem;
    nfa_edge *edge;
    uint32_t n_edges, cap, n_states, end;
    bool failed, bad; /* no memory, or too large; holds what an alphabet lacks */
} nfa;

enum { NFA_MAX_EDGES = 1 << 18, NFA_MAX_NESTING = 3000 };

/* State 0 is the start, n->end the end. call_of as of dfa_build. */
void nfa_build(nfa *, arena *mem, const rules *, rule, const uint32_t *call_of);

#endif
