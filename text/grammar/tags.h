/* Structural tags: what an output must be made of, as vLLM, SGLang and xgrammar describe it
 * (xgrammar's "Structural Tag" documentation): constant texts, values by a schema, texts between
 * tags, free text in which tags are looked for. Any thread. */
#ifndef VRAMD_TEXT_TAGS_H
#define VRAMD_TEXT_TAGS_H

#include "json/in.h"
#include "text/grammar/rules.h"
#include "text/grammar/schema.h"
#include "text/tokenizer/tokenizer.h"

typedef struct tags_options {
    const tokenizer
        *tok; /* special tokens within tags are those, not their texts; NULL: none */
    schema_options schema; /* of values */
} tags_options;

/* tag: {"structures": [{begin, schema, end}], "triggers": [...]} or {"format": {...}}. Errors:
 * ERR_INVALID, ERR_UNSUPPORTED (a form that is not enforced), those of schemas and grammars. */
status rules_tags(rules *, const json_t *tag, const tags_options *, rule *out, err *);

#endif
