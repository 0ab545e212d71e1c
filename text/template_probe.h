/* What a template does with a conversation, found out once when it is opened. */
#ifndef VRAMD_TEXT_TEMPLATE_PROBE_H
#define VRAMD_TEXT_TEMPLATE_PROBE_H

#include "text/template.h"

/* Fills the takes_... of a template with a tree. Memory comes from scratch and goes back. */
void template_probe(chat_template *, const chunks *scratch);

#endif
