/* Operations on strings that filters and methods share. All keep the origin of what they keep. */
#ifndef VRAMD_TEXT_JINJA_STRING_H
#define VRAMD_TEXT_JINJA_STRING_H

#include "text/jinja/jinja_value.h"

typedef enum string_case_kind {
    CASE_UPPER,
    CASE_LOWER,
    CASE_CAPITAL, /* the first character in title case, the others in lower case */
    CASE_WORDS    /* str.title: letters after something that is no letter */
} string_case_kind;

jv string_case(jinja *, const jstr *, string_case_kind);
/* The filter title: words begin after white space and - ( { [ <. */
jv string_title(jinja *, const jstr *);
/* chars: a string, or none or unset for white space. */
jv string_strip(jinja *, const jstr *, jv chars, bool left, bool right);
/* count: at most so many, from the left; unset, none or negative: all. */
jv string_replace(jinja *, const jstr *, jv old, jv by, jv count);
/* A list. tail: what follows the last line end is a line even if it is empty. */
jv string_lines(jinja *, const jstr *, bool tail);
/* sep: none or unset for runs of white space. */
jv string_split(jinja *, const jstr *, jv sep, jv max, bool from_right);
/* str.format. */
jv string_format(jinja *, const jstr *, const jargs *);

#endif
