/* Calls and reasoning in the output of a chat: which parser reads it, and what its events become.
 * Loop thread. */
#ifndef VRAMD_API_ANSWER_REPLY_H
#define VRAMD_API_ANSWER_REPLY_H

#include "api/answer.h"
#include "text/reply/reply_template.h"

/* The plan of a template, found at its first use; NULL: no memory. */
const reply_plan *reply_plan_of(served *, const chat_template *, arena *);
/* Once the prompt is rendered by the template: what its output is read with. Errors:
 * ERR_UNSUPPORTED where there are tools and no format of calls is verified, ERR_NO_MEMORY. */
status answer_reads(answer *, const chat_template *, str prompt, err *);

/* For a choice of such an answer; true without one. False: no memory. */
bool choice_reads(choice *);
/* A token with its bytes; the parts grow, text goes past the stop strings.
 * True: the choice is complete: a stop string was found, or the only call has ended. */
bool choice_read(choice *, int32_t token);
bool choice_read_end(choice *); /* the same for the end */

#endif
