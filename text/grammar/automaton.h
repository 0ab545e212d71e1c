/* Finite automata made from expressions (text/grammar/rules.h): over bytes for grammars, over characters
 * for the patterns of a schema, where sets of strings are intersected and complemented.
 *
 * A symbol is a number. Over bytes: 0 ... 255, then SYMBOL_TOKEN + id and SYMBOL_CALL + number.
 * Over characters: code points, then SYMBOL_BEGIN and SYMBOL_END. */
#ifndef VRAMD_TEXT_AUTOMATON_H
#define VRAMD_TEXT_AUTOMATON_H

#include "text/grammar/rules.h"

#define SYMBOL_LAST_CHAR 0x10ffffu
#define SYMBOL_BEGIN     0x110000u
#define SYMBOL_END       0x110001u
#define SYMBOL_TOKEN     0x20000000u
#define SYMBOL_CALL      0x40000000u
/* Where a token of the output ends; a state without an edge of it stays. */
#define SYMBOL_TOKEN_END (SYMBOL_TOKEN + RULE_TOKEN_END)
#define SYMBOL_TOKEN_END (SYMBOL_TOKEN + RULE_TOKEN_END)

/* Deterministic; state 0 is the start. The edges of a state, ascending, do not overlap; a symbol
 * without an edge is refused. */
typedef struct dfa_edge {
    uint32_t lo, hi, to;
} dfa_edge;
typedef struct dfa {
    uint32_t n;
    bool *final;     /* [n] */
    uint32_t *first; /* [n + 1]: edge[first[q]] ... edge[first[q + 1] - 1] are those of q */
    dfa_edge *edge;
} dfa;

typedef struct dfa_limits {
    uint32_t max_states;
    uint64_t *work; /* steps that may still be taken; counts down */
} dfa_limits;

/* call_of[node]: a node that is called and not copied, as a number; UINT32_MAX: copied. With
 * NULL the automaton is over characters. What is not OK: ERR_INVALID (too large; over characters:
 * a rule that is recursive, or has tokens or single bytes), ERR_NO_MEMORY. The result is in
 * `mem`. */
status dfa_build(dfa *out, const rules *, rule root, const uint32_t *call_of, dfa_limits *,
                 arena *mem, err *);

/* Over characters. */
typedef enum dfa_op { DFA_AND, DFA_OR, DFA_BUT } dfa_op; /* BUT: of a, what is not of b */
status dfa_combine(dfa *out, const dfa *a, dfa_op, const dfa *b, dfa_limits *, arena *mem,
                   err *);
/* Of an automaton with SYMBOL_BEGIN and SYMBOL_END: the strings w for which it takes BEGIN w END.
 */
status dfa_strip(dfa *out, const dfa *, arena *mem, err *);
status dfa_any(dfa *out, uint32_t min_chars, uint32_t max_chars, dfa_limits *, arena *mem,
               err *);
bool dfa_takes(const dfa *, str utf8);
bool dfa_is_empty(const dfa *);
/* An expression over characters that takes the same. */
rule dfa_rule(rules *, const dfa *);

#endif
