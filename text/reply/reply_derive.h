/* Which row of reply_formats reads the calls of a model: the one that gives back the calls which
 * the model's own chat template has written; where none does, a format derived from what it
 * writes, if that gives them back. */
#ifndef VRAMD_TEXT_REPLY_DERIVE_H
#define VRAMD_TEXT_REPLY_DERIVE_H

#include "text/reply/reply.h"

/* Renders a conversation; false: the template refuses it. out lies in the arena. */
typedef bool reply_render(void *user, const json_t *messages, const json_t *tools,
                          bool add_generation_prompt, arena *, str *out);

typedef struct reply_source {
    str template;
    reply_render *render;
    void *user;
    const reply_special *special; /* of the vocabulary */
    size_t n_special;
} reply_source;

/* Fills the plan, whose format is NULL where no row has proved itself: reasoning alone. Two calls
 * with strings, numbers, true, null and nested values are rendered, what follows the generation
 * prompt is parsed, and names, order and values must come back; a template that takes one call a
 * message is tried with one (plan->single). Memory from scratch is given back. False: the marks
 * of reasoning have too many special tokens. */
bool reply_derive(reply_plan *, const chunks *scratch, const reply_source *);

#endif
