/* The inside of rules, shared by text/grammar/rules.c, text/grammar/automaton.c and text/grammar/grammar*.c. */
#ifndef VRAMD_TEXT_RULES_IN_H
#define VRAMD_TEXT_RULES_IN_H

#include "text/grammar/rules.h"

typedef enum rule_kind {
    RULE_BYTES,  /* bytes */
    RULE_RANGE,  /* one byte, lo ... hi */
    RULE_CLASS,  /* one code point: range[n] */
    RULE_TOKEN,  /* lo: its id */
    RULE_SEQ,    /* kid[n] */
    RULE_ALT,    /* kid[n] */
    RULE_REPEAT, /* kid[0], lo to hi times */
    RULE_NAMED,  /* kid[0], once it has a body: n is 1 then */
    RULE_GRAPH   /* edge[n], final[lo] */
} rule_kind;

typedef struct rule_node {
    rule_kind kind;
    uint32_t n, lo, hi;
    union {
        str bytes;
        const rule_range *range;
        rule *kid;
        const rule_edge *edge;
    } u;
    const bool *final;
} rule_node;

struct rules {
    arena *mem;
    rule_node *node;
    uint32_t n_nodes, cap;
    bool failed;
    uint64_t *work; /* steps that may still be taken: of everything from text to tables */
};

enum {
    RULES_MAX_NODES = 1 << 19,
    RULES_WORK = 8 << 20,         /* steps, of 5 to 10 ns each: some 50 ms */
    RULE_TOKEN_END = 0x1ffffffe,  /* as a token: the end of any */
    RULE_OTHER_TOKEN = 0x1fffffff /* as a token: any one that stands for no bytes */
};

/* False: there are no steps left, and none will be. */
static inline bool rules_spend(const rules *r, uint64_t steps) {
    *r->work = *r->work < steps ? 0 : *r->work - steps;
    return *r->work > 0;
}

#endif
