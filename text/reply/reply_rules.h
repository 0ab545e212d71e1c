/* The grammar of output that calls tools, in the form that a plan reads. */
#ifndef VRAMD_TEXT_REPLY_RULES_H
#define VRAMD_TEXT_REPLY_RULES_H

#include "text/reply/reply.h"
#include "text/grammar/rules.h"

/* JSON that a schema allows. */
typedef status reply_schema(rules *, const json_t *schema, rule *out, err *);

typedef struct reply_demand {
    const json_t *tools; /* one at least, in the form of a request */
    bool parallel;       /* more than one call */
    bool thinking;       /* the output begins within reasoning */
    bool opened;         /* the prompt ends with the mark of a call */
    bool text;    /* text, calls, or both: only what stands behind a mark is constrained */
    bool lenient; /* a schema that is refused allows any arguments, unless its tool is strict */
    bool untyped; /* all arguments may be any: a grammar that is small for any tools */
    rule instead; /* may stand in place of the calls; RULE_NEVER: nothing. Not with text */
    reply_schema *schema;
} reply_demand;

/* Reasoning if there is any, then calls and nothing else, or what `text` and `instead` say.
 * Arguments are what their schemas allow where the format has JSON or tags; of those in Python
 * and with bare keys reply_literal.h says how much. Errors: ERR_UNSUPPORTED, those of the schemas
 * (field: the tool's parameters). */
status reply_rules(rules *, const reply_plan *, const reply_demand *, rule *out, err *);

/* The members of an object as a format with tagged arguments, by its name, writes them. */
status reply_tagged_rule(rules *, const char *format, const reply_special *, size_t n_special,
                         const json_t *object, reply_schema *, rule *out, err *);

#endif
