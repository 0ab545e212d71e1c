/* Regular expressions as rules: what RE2 and JSON Schema have in common. Characters, classes
 * (\d \w \s in ASCII, \p not), groups, alternatives, greedy and lazy repetition, which are the same
 * set of texts, ^ and $ where a text begins or ends. No back reference, no look-around, no \b. */
#ifndef VRAMD_TEXT_REGEX_H
#define VRAMD_TEXT_REGEX_H

#include "text/grammar/rules.h"

/* The whole text must match. Errors: ERR_INVALID (what, and at which byte), ERR_UNSUPPORTED. */
status rules_regex(rules *, str pattern, rule *out, err *);
/* Some part of the text must match, as JSON Schema's `pattern` wants it: an expression over
 * SYMBOL_BEGIN, the characters of the text, SYMBOL_END, for dfa_build and dfa_strip. */
status rules_regex_search(rules *, str pattern, rule *out, err *);

#endif
