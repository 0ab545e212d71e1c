/* What a request demands of its output's form: read from its parameters on the loop, compiled to a
 * grammar on the pool. */
#ifndef VRAMD_API_CONSTRAINT_H
#define VRAMD_API_CONSTRAINT_H

#include "json/in.h"
#include "text/grammar/grammar.h"

typedef struct constraint constraint;
struct constraint {
    /* NULL: nothing is demanded. Any thread; errors as of rules_json_schema. */
    status (*build)(const constraint *, rules *, rule *out, err *);
    str key;            /* of equal keys the grammars are equal */
    const char *field;  /* the parameter, for errors */
    const json_t *json; /* these two for build alone */
    str text;
    const void *own; /* of a constraint that is not read here */
    /* Of JSON schemas: no white space; a pattern of it. */
    bool compact;
    str white_space;
    const tokenizer *tok;     /* set for build */
    const constraint *weaker; /* compiled in its place where this one is refused; or NULL */
};

/* response_format, structured_outputs, guided_*, regex, grammar, ebnf, json_schema: one of them at
 * most.
 * Points into the body; the rest is in the arena. Errors, field the parameter: ERR_INVALID,
 * ERR_UNSUPPORTED, ERR_NO_MEMORY. */
status constraint_read(constraint *, const json_t *body, arena *, err *);
/* Scratch in the arena's source, the result in keep. Any thread; time is bounded. */
status constraint_compile(const constraint *, arena *, const vocab_index *, const chunks *keep,
                          grammar **out, err *);

#endif
