/* What the subcommands have in common. Stateless. */
#include "daemon/commands.h"

#include <stdio.h>

int command_failed(const char *name, const err *e) {
    fprintf(stderr, "vramd %s: %s\n", name, e->text);
    if (e->hint[0]) fprintf(stderr, "  try: %s\n", e->hint);
    return status_exit_code(e->code);
}
