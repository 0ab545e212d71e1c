/* The arguments of a call as the formats of models write them, as JSON: a machine over bytes
 * whose output, at every moment, is a prefix of valid JSON, with the separators ", " and ": ".
 * Repaired on the way: line breaks within strings, escapes that JSON does not have, commas
 * before a closing bracket, True, False and None. Pure, no memory but the caller's. */
#ifndef VRAMD_TEXT_REPLY_VALUE_H
#define VRAMD_TEXT_REPLY_VALUE_H

#include "base/buf.h"

enum { REPLY_MAX_NESTING = 64, REPLY_MAX_WORD = 120 };

typedef enum value_flavour {
    VALUE_JSON,
    VALUE_PYTHON, /* 'strings', True, (tuples); as arguments: a=1, b=2 up to the bracket */
    VALUE_BARE    /* {key:value} without quotes around keys; strings between two equal marks */
} value_flavour;

typedef enum value_result { VALUE_MORE, VALUE_DONE, VALUE_BAD } value_result;

typedef struct reply_value {
    value_flavour flavour;
    str mark; /* VALUE_BARE: what stands before and after a string */
    uint8_t state, depth, quote;
    bool is_key, comma;
    char open[REPLY_MAX_NESTING]; /* of each level: '{', '[', or '(' for arguments */
    /* Bytes that are taken and have made no output yet: a word, an escape, part of a mark. */
    uint8_t n_raw;
    char raw[REPLY_MAX_WORD + 8];
} reply_value;

/* Of one value, which must be an object, or null for an empty one. */
void reply_value_begin(reply_value *, value_flavour, str mark);
/* Of the arguments behind a bracket that was taken: the object's begin is appended to out. */
void reply_value_begin_arguments(reply_value *, buf *out);
/* Takes bytes until the value ends or cannot go on, and appends JSON to out; *taken: how many,
 * without the byte that cannot be, nor one that ends a word but is none of the value's. */
value_result reply_value_push(reply_value *, str bytes, size_t *taken, buf *out);

/* A number by the grammar of RFC 8259, section 6. */
bool reply_is_number(str);

#endif
