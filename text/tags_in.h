/* The inside of structural tags, shared by text/tags*.c. */
#ifndef VRAMD_TEXT_TAGS_IN_H
#define VRAMD_TEXT_TAGS_IN_H

#include "text/tags.h"

/* A list of strings that may end what is built: one of them follows, and is part of it. */
typedef struct ends {
    const str *v;
    size_t n;
} ends;

typedef struct tags {
    rules *r;
    arena *mem;
    const tags_options *o;
    err *e;
    int depth;
    ends stop; /* free text must have none of these */
} tags;

status tags_unsupported(const tags *, const char *what);
/* A text; where it names special tokens, those. */
rule tags_text(const tags *, str);
/* `what`, and one of the ends behind it, if there are any. */
rule tags_closed_by(const tags *, rule what, const ends *end);
/* Each with one of the ends behind it: a value by its schema; free text by the members of f
 * (NULL: none). */
status tags_schema(const tags *, const json_t *schema, const ends *end, rule *out);
status tags_any_text(const tags *, const json_t *f, const ends *end, rule *out);

/* tags_typed.c: members that name the types of their values; the styles cohere_xml and
 * kimi_k3_xml. object: the schema of one. */
status tags_typed(const tags *, str style, const json_t *object, const ends *end, rule *out);

#endif
