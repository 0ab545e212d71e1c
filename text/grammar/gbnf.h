/* llama.cpp's grammar format GBNF ("grammars/README.md" of llama.cpp) as rules: rule ::= ..., with
 * "literals", [classes], (groups), | * + ? {m,n}, ".", comments from #, and the start rule `root`. */
#ifndef VRAMD_TEXT_GBNF_H
#define VRAMD_TEXT_GBNF_H

#include "text/grammar/rules.h"

/* Errors: ERR_INVALID (what, and in which line). */
status rules_gbnf(rules *, str grammar, rule *out, err *);

#endif
