/* The chat templates of a machine (daemon/machine_template.c). */
#ifndef VRAMD_DAEMON_MACHINE_TEMPLATE_H
#define VRAMD_DAEMON_MACHINE_TEMPLATE_H

#include "daemon/machine.h"

/* Fills chat_sources and chat_bytes. Errors, field the option: ERR_NOT_FOUND, ERR_INVALID. */
status machine_find_templates(machine *, err *);
/* With the tokenizer loaded and the file open. to: the machine's, or of its words. Errors: ERR_NO_MEMORY. */
status machine_load_templates(machine *, chat_templates *to, const chunks *, err *);
void machine_close_templates(machine *);

#endif
