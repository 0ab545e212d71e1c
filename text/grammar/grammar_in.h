/* The inside of a compiled grammar, shared by text/grammar/grammar*.c and text/grammar/mask.c. */
#ifndef VRAMD_TEXT_GRAMMAR_IN_H
#define VRAMD_TEXT_GRAMMAR_IN_H

#include "text/grammar/automaton.h"
#include "text/grammar/grammar.h"
#include "text/grammar/rules_in.h"

typedef struct grammar_call {
    uint16_t start, to; /* the first state of what is called; where it returns */
} grammar_call;

typedef struct grammar_symbol {
    /* RULE_OTHER_TOKEN: any that is none of this state, and stands for no byte. RULE_TOKEN_END:
     * where a token ends here the position goes on at `to`. */
    int32_t token;
    uint16_t to; /* 0: refused, where others are not */
} grammar_symbol;

typedef struct grammar_node {
    uint32_t first_call, first_symbol; /* up to those of the next node */
    uint16_t rule;
    bool final;    /* what this automaton takes may end here */
    bool any_byte; /* has an edge of a byte */
    bool busy;     /* returns, or calls: whoever arrives must look around */
    bool free;     /* free text: takes any token that does not complete a mark */
    bool tail;     /* final and nothing else: a call that returns here needs no stack */
} grammar_node;

typedef struct grammar_rule { /* where calls of it return: site[first_site] and on */
    uint32_t first_site, n_sites;
} grammar_rule;

struct grammar {
    arena mem;
    const vocab_index *index;
    uint64_t serial; /* of this process: names its masks in a cache */
    uint32_t n_states, n_classes, n_rules, start;
    bool token_ends; /* some state has a symbol of RULE_TOKEN_END */
    uint8_t class_of[256];
    uint64_t mark_ends[4];    /* bytes by which one leaves free text */
    const uint16_t *next;     /* [n_states][n_classes]; 0: refused */
    const grammar_node *node; /* [n_states + 1]; 0 is no state */
    const grammar_call *call;
    const grammar_symbol *symbol;
    const grammar_rule *rule;
    const uint64_t (*follow)[4]; /* [n_rules]: classes of bytes that may come behind */
    const uint16_t *site;
};

static inline uint32_t grammar_next(const grammar *g, uint32_t q, uint8_t byte) {
    return g->next[(size_t)q * g->n_classes + g->class_of[byte]];
}

/* ERR_INVALID: positions may need more than STATE_MAX_CONFS pairs, or that could not be excluded
 * within the steps that are left. Fills g->follow. Scratch in `mem`. */
status grammar_check_paths(grammar *, const rules *, arena *mem, err *);

/* ---- positions ---- */

enum {
    STACK_END = 0,     /* nothing to return to: the text may end */
    STACK_UNKNOWN = 1, /* a return may go wherever the rule is called */
    STACK_FIRST = 2,
    STATE_MAX_CONFS = 96, /* what more an ambiguous grammar has is left out */
    STATE_MAX_NODES = 640
};

typedef struct stack_node {
    uint16_t ret, parent, depth;
} stack_node;

typedef struct conf {
    uint16_t state, parent;
    bool tainted; /* went through an unknown return */
} conf;

/* Returns through an unknown stack, which may lead anywhere the rule is called: the places
 * themselves if they are few, else only what may come first there. */
enum { UNKNOWN_SITES = 48, BEHIND_NONE = 0, BEHIND_ANY = UINT16_MAX };

typedef struct conf_set {
    uint32_t n;
    uint16_t
        behind; /* somewhere behind this rule, plus 1; BEHIND_ANY: and behind what came first */
    conf c[STATE_MAX_CONFS];
} conf_set;

struct grammar_state {
    uint16_t n_nodes, n;
    conf c[STATE_MAX_CONFS];
    stack_node node[STATE_MAX_NODES];
};

/* Nodes that a walk adds to. Those from STACK_FIRST on are in use. */
typedef struct stacks {
    const grammar *g;
    stack_node *node;
    uint32_t n, cap;
} stacks;

/* Adds what calls and returns lead to. What finds no place is left out. */
void conf_close(stacks *, conf_set *);
/* out: where one byte leads from `from`. */
void conf_step(stacks *, const conf_set *from, uint8_t byte, conf_set *out);

#endif
