/* Stop strings. Text goes in piece by piece; what comes out can never be part of a stop string
 * that is about to complete. The result does not depend on how the text was cut: the match that
 * ends first wins, the longest of those that end together. Knuth, Morris, Pratt (1977), one
 * automaton a string; the text held back is by definition a prefix of one of the strings, so
 * the state is a few integers. */
#ifndef VRAMD_TEXT_STOP_H
#define VRAMD_TEXT_STOP_H

#include "base/buf.h"

enum { STOP_MAX_BYTES = 1024 };

typedef struct stop_set { /* immutable, shared by the choices of a request */
    uint32_t n;
    const str *s;    /* [n] borrowed; 1..STOP_MAX_BYTES bytes each */
    uint16_t **fail; /* [n][len] length of the longest proper border of s[0..i] */
} stop_set;

typedef struct stop_state {
    uint16_t *matched; /* [n] how much of s[i] the text ends with */
    uint16_t held;     /* the longest of them: bytes held back */
} stop_state;

/* False: no memory. s must outlive the set. */
bool stop_set_init(stop_set *, arena *, const str *s, uint32_t n);
bool stop_state_init(stop_state *, arena *, const stop_set *);
/* Appends to out what may be shown after text. Index of the stop string that was found, else
 * -1; after a hit nothing more may be pushed. */
int stop_push(const stop_set *, stop_state *, str text, buf *out);
/* The end without a hit: appends what was held back. */
void stop_flush(const stop_set *, stop_state *, buf *out);

#endif
