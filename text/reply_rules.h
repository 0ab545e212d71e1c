/* The grammar of output that calls tools, in the form that a plan reads. */
#ifndef VRAMD_TEXT_REPLY_RULES_H
#define VRAMD_TEXT_REPLY_RULES_H

#include "text/reply.h"
#include "text/rules.h"

/* JSON that a schema allows. */
typedef status reply_schema(rules *, const json_t *schema, rule *out, err *);

typedef struct reply_demand {
    const json_t *tools; /* one at least, in the form of a request */
    bool parallel;       /* more than one call */
    bool thinking;       /* the output begins within reasoning */
    bool opened;         /* the prompt ends with the mark of a call */
    reply_schema *schema;
} reply_demand;

/* Reasoning if there is any, then calls and nothing else. Arguments are what their schemas allow
 * where the format has JSON; in Python and bare forms they are free. Errors: ERR_UNSUPPORTED,
 * those of the schemas (field: the tool's parameters). */
status reply_rules(rules *, const reply_plan *, const reply_demand *, rule *out, err *);

#endif
