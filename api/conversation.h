/* The messages of a chat as every API hands them on, normalised so that a template sees the same
 * from all, as vLLM does. Values lie in the request's arena. Any thread. */
#ifndef VRAMD_API_CONVERSATION_H
#define VRAMD_API_CONVERSATION_H

#include "text/jinja/template.h"

typedef struct conversation {
    const json_t *messages; /* as the template takes them */
    str last_role, last_content;
} conversation;

/* Reads and checks messages of the body. mark: text put behind the last content; "": none.
 * - null members but content are dropped, content that is null becomes "" unless the template
 *   takes None;
 * - content in parts stays a list where the template goes through it, else its texts are joined
 *   by newlines;
 * - arguments of tool calls become objects, where they are JSON objects in a string;
 * - developer becomes system unless the template knows the role; any other role is passed on;
 * - reasoning is given under both names, and split from content that begins with <think> where
 *   the template reads it.
 * Errors: ERR_INVALID; ERR_UNSUPPORTED where the template cannot show a member; ERR_NO_MEMORY. */
status conversation_read(conversation *, const json_t *body, const chat_template *, str mark,
                         arena *, err *);

/* The members that a template is given beside messages: tools, documents, chat_template_kwargs
 * and reasoning_effort over the defaults (an object, or NULL). Errors: ERR_INVALID, ERR_NO_MEMORY.
 */
status conversation_args(template_args *, const json_t *body, const json_t *defaults, arena *,
                         err *);

#endif
