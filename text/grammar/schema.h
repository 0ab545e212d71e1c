/* JSON Schema (draft 2020-12, and what older drafts share with it) as rules: a text that they take
 * is valid against the schema. What cannot be enforced is refused, with its keyword and its JSON
 * pointer; nothing is passed over but annotations. docs/structured-output.md lists the keywords. */
#ifndef VRAMD_TEXT_SCHEMA_H
#define VRAMD_TEXT_SCHEMA_H

#include "json/in.h"
#include "text/grammar/rules.h"

typedef struct schema_options {
    /* Objects whose schema has the type object, lists properties and says nothing of others have
     * these alone: fewer texts than the standard allows, all of them valid. */
    bool closed;
    bool compact; /* no white space between tokens */
    /* What may stand between tokens: a pattern of white space. Empty: nothing, a blank, or a new
     * line with up to 20 blanks. */
    str white_space;
} schema_options;

/* Errors: ERR_INVALID (the schema is wrong, cannot be met, or is too large), ERR_UNSUPPORTED
 * (a keyword that is not enforced), ERR_NO_MEMORY. Any thread; time is bounded. */
status rules_json_schema(rules *, const json_t *schema, const schema_options *, rule *out,
                         err *);
/* The strings that a schema of strings allows as they are, without quotes and escapes: those that
 * do not hold `end`, which is to follow ("": any). */
status rules_schema_text(rules *, const json_t *schema, str end, rule *out, err *);
/* Any JSON object. Of the options those of white space hold. */
status rules_json_object(rules *, const schema_options *, rule *out, err *);

#endif
