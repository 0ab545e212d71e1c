/* Grammars of arguments that are not JSON: Python's f(a=1, b="x"), and objects with bare keys,
 * {a:1,b:"x"}. Of a schema they enforce the names and their order, required, type, enum, const,
 * anyOf, items and properties; its other keywords are left to the model. */
#ifndef VRAMD_TEXT_REPLY_LITERAL_H
#define VRAMD_TEXT_REPLY_LITERAL_H

#include "text/reply/reply.h"
#include "text/grammar/rules.h"

typedef struct literal_form {
    bool python;
    rule quote, text; /* bare: the mark around strings; a string up to the mark and with it */
} literal_form;

/* With the brackets around them. schema: the tool's parameters, or NULL: any. */
rule literal_arguments(rules *, const literal_form *, const json_t *schema);

#endif
