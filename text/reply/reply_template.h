/* How the output of a model with this chat template is read. */
#ifndef VRAMD_TEXT_REPLY_TEMPLATE_H
#define VRAMD_TEXT_REPLY_TEMPLATE_H

#include "text/reply/reply_derive.h"
#include "text/jinja/template.h"

/* Every special token of the vocabulary, texts borrowed; NULL: no memory. */
reply_special *reply_specials(const tokenizer *, arena *, size_t *n);
/* The plan that reply_derive finds, with the vocabulary's special tokens, whose texts are borrowed.
 * Memory from scratch is given back. False: there is none. */
bool reply_plan_of_template(reply_plan *, const chat_template *, const tokenizer *,
                            const chunks *scratch);

#endif
