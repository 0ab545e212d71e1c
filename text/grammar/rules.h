/* A grammar as expressions: what a text, or a part of one, may be. Built in an arena and given to
 * grammar_compile (text/grammar/grammar.h), after which the arena may go. Not thread-safe.
 *
 * A function that runs out of memory, or of the limit on expressions, returns RULE_NEVER and
 * leaves a mark that grammar_compile reports: check nothing before. An expression may be used in
 * several places. */
#ifndef VRAMD_TEXT_RULES_H
#define VRAMD_TEXT_RULES_H

#include "base/arena.h"
#include "base/err.h"

typedef struct rules rules;
typedef uint32_t rule; /* an expression of one `rules` */

enum { RULE_NEVER = 0, RULE_EMPTY = 1 }; /* no text at all; the empty text */
#define RULE_UNBOUNDED UINT32_MAX

typedef struct rule_range { /* code points lo ... hi; surrogates among them count for nothing */
    uint32_t lo, hi;
} rule_range;

/* Within rules_graph: from one state to another by whatever `on` is. */
typedef struct rule_edge {
    uint32_t from, to;
    rule on;
} rule_edge;

rules *rules_new(arena *); /* NULL: no memory */
bool rules_failed(const rules *);
arena *rules_arena(const rules *);

rule rules_bytes(rules *, str); /* copied */
rule rules_byte_range(rules *, uint8_t lo, uint8_t hi);
rule rules_class(rules *, const rule_range *, size_t n); /* one character, as UTF-8 */
rule rules_token(rules *, int32_t token); /* one special token: a symbol, not its text */
rule rules_seq(rules *, const rule *, size_t n);
rule rules_alt(rules *, const rule *, size_t n);
rule rules_repeat(rules *, rule, uint32_t min, uint32_t max); /* max may be RULE_UNBOUNDED */
rule rules_optional(rules *, rule);                           /* none or one */
/* A nondeterministic automaton whose edges are expressions: it begins in state 0, and the text
 * ends in a state whose final[] is set. */
rule rules_graph(rules *, uint32_t n_states, const bool *final, const rule_edge *, size_t n);
/* For recursion: a name now, its body later, once. One without a body is RULE_NEVER. */
rule rules_declare(rules *);
void rules_define(rules *, rule declared, rule body);

/* Any bytes up to and including the first of these strings. None of them empty. */
rule rules_until(rules *, const str *stops, size_t n);
/* Any bytes up to and including one special token. */
rule rules_until_token(rules *, int32_t token);
/* Any bytes, to the end. */
rule rules_any_until_end(rules *);

/* Free text, in which marks are looked for: behind a mark stands `then`, and free text follows
 * again. The first mark that is complete counts; of several that end together, each may have been
 * meant. Free text may hold anything else: any bytes, and any special tokens that no mark has and that end no text. */
enum { RULE_MARK_TOKEN = 256 };
/* As the first symbol of a mark: the begin of the text. */
#define RULE_MARK_BEGIN UINT32_MAX
typedef struct rule_trigger {
    const uint32_t *mark; /* [n_mark >= 1]: bytes, and special tokens as RULE_MARK_TOKEN + id */
    size_t n_mark;
    rule then;
    bool aside; /* it counts neither for TRIGGER_NEEDED nor for TRIGGER_ONCE */
} rule_trigger;
typedef enum rule_trigger_flags {
    TRIGGER_NEEDED = 1, /* the text may not end before the first mark */
    TRIGGER_ONCE = 2    /* the text ends behind the first `then` */
} rule_trigger_flags;
rule rules_triggered(rules *, const rule_trigger *, size_t n, unsigned flags);

/* Free text in which no mark is complete (their `then` is ignored), of at most `max` characters,
 * or of so many tokens as grammar_take is given. Text of a limited number of characters has no
 * special tokens. It takes rules_limited_states() of the states that a grammar may have. */
typedef enum rule_unit { RULE_TOKENS, RULE_CHARS } rule_unit;
rule rules_limited(rules *, const rule_trigger *, size_t n, rule_unit, uint32_t max);
uint64_t rules_limited_states(const rule_trigger *, size_t n, uint32_t max);
/* One token that is none of these special ones, or what is left of one that has begun. */
rule rules_one_token(rules *, const int32_t *but, size_t n);

#endif
