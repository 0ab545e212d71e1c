/* A format of calls that no row of reply_formats has, from what a template writes around the names
 * and the arguments of calls. */
#ifndef VRAMD_TEXT_REPLY_GUESS_H
#define VRAMD_TEXT_REPLY_GUESS_H

#include "text/reply/reply.h"

typedef struct guess_case {
    str one, two; /* what the template has written for the first call, and for both; two may be
                   * empty: it takes one call a message */
    str end;      /* what it writes behind a message without calls */
    const json_t *calls; /* both, in the form of a request; the first one is among `one` */
} guess_case;

/* Fills plan->own, which is a guess until it has read the calls back. Arguments must be JSON, in an
 * object beside the name, or behind it. Memory in the arena. False: it is of no such form. */
bool reply_guess(reply_plan *, arena *, const guess_case *);

#endif
