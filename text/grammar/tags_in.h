/* The inside of structural tags, shared by text/grammar/tags*.c. */
#ifndef VRAMD_TEXT_TAGS_IN_H
#define VRAMD_TEXT_TAGS_IN_H

#include "text/grammar/tags.h"

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

enum { TAGS_MAX_MARK = 1024, TAGS_MAX_LIST = 1024 };

/* ---- tags_text.c ---- */

status tags_wrong(const tags *, const char *what);
status tags_unsupported(const tags *, const char *what);
status tags_no_memory(const tags *);

bool tags_has_type(const json_t *format, const char *type);
bool tags_is_set(const json_t *format, const char *key); /* and not null */

/* The symbols of a text, as of rule_trigger; NULL: no memory. */
uint32_t *tags_symbols_of(const tags *, str, size_t *n);
/* A text; where it names special tokens, those. */
rule tags_text(const tags *, str);
/* {"token": ...}, or its id or text alone: the text of a special token. */
status tags_token_text(const tags *, const json_t *, str *out);
/* A string, or a list of them; tokens may stand among them. */
status tags_strings(const tags *, const json_t *, const char *name, ends *out);
/* Tokens that text must not have. That an output may not end is no matter of its parts. */
status tags_tokens(const tags *, const json_t *, ends *out);
/* What excludes, or exclude_tokens, lists. */
status tags_excluded(const tags *, const json_t *format, ends *out);
/* `what`, and one of the ends behind it, if there are any. */
rule tags_closed_by(const tags *, rule what, const ends *end);

/* Anything, up to and including the first of the ends; to the end of the text where there is
 * none. With strings that the text must not have, those and the ends are none of its parts, and
 * one of the ends follows. own: n_own marks that something follows. */
status tags_free_text(const tags *, const json_t *format, const ends *end, rule_trigger *own,
                      size_t n_own, unsigned flags, rule *out);
/* Likewise without marks, of a limited length where the format (NULL: none) says so. */
status tags_any_text(const tags *, const json_t *format, const ends *end, rule *out);
/* One token: none of those that are excluded, and none that may end the text around it. */
status tags_one_token(const tags *, const json_t *format, const ends *end, rule *out);

/* tags_typed.c: members that name the types of their values; the styles cohere_xml and
 * kimi_k3_xml. object: the schema of one. */
status tags_typed(const tags *, str style, const json_t *object, const ends *end, rule *out);

#endif
