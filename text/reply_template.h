/* How the output of a model with this chat template is read. */
#ifndef VRAMD_TEXT_REPLY_TEMPLATE_H
#define VRAMD_TEXT_REPLY_TEMPLATE_H

#include "text/reply_derive.h"
#include "text/template.h"

/* The plan that reply_derive finds, with the vocabulary's special tokens, whose texts are borrowed.
 * Memory from scratch is given back. False: there is none. */
bool reply_plan_of_template(reply_plan *, const chat_template *, const tokenizer *,
                            const chunks *scratch);

#endif
