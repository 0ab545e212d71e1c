/* What a template does with a conversation, found out once when it is opened. */
#ifndef VRAMD_TEXT_TEMPLATE_PROBE_H
#define VRAMD_TEXT_TEMPLATE_PROBE_H

#include "text/jinja/template.h"

/* Fills the takes_... of a template with a tree. Memory comes from scratch and goes back. */
void template_probe(chat_template *, const chunks *scratch);

/* The variables that chat_template_kwargs may set: names that the template reads and that neither
 * it nor the server sets, or that it asks for by `is defined`. It must have a tree. The list is in
 * the arena, the names are the tree's. False: no memory. */
bool template_variables(const chat_template *, arena *, const str **out, size_t *n);

#endif
