/* What the schema of an argument says of its type: where a format writes strings without quotes,
 * its grammar and its reader must agree on which they are. */
#ifndef VRAMD_TEXT_REPLY_TYPES_H
#define VRAMD_TEXT_REPLY_TYPES_H

#include "json/in.h"
#include "text/grammar/rules.h"

enum {
    REPLY_STRING = 1,
    REPLY_NUMBER = 2,
    REPLY_BOOLEAN = 4,
    REPLY_NULL = 8,
    REPLY_OBJECT = 16,
    REPLY_ARRAY = 32,
    REPLY_ANY = 63
};

/* The types that a property's schema allows; root is the schema that it is a part of. */
unsigned reply_types(const json_t *root, const json_t *schema);
/* Whether the schema says more of a string than its type. */
bool reply_is_limited(const json_t *schema);
/* The schema with the definitions of root that it may refer to, in the rules' arena; NULL: no
 * memory. */
const json_t *reply_with_definitions(const rules *, const json_t *root, const json_t *schema);

#endif
