/* What the subcommands have in common. Stateless. */
#include "daemon/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int command_failed(const char *name, const err *e) {
    fprintf(stderr, "vramd %s: %s\n", name, e->text);
    if (e->hint[0]) fprintf(stderr, "  try: %s\n", e->hint);
    return status_exit_code(e->code);
}

status command_read_stdin(buf *in, err *e) {
    for (size_t n;;) {
        if (!buf_reserve(in, 1 << 16))
            return err_set(e, ERR_NO_MEMORY, "no memory for the text on stdin");
        n = fread(in->ptr + in->len, 1, 1 << 16, stdin);
        in->len += n;
        if (n == 0) break;
    }
    return ferror(stdin) ? err_set(e, ERR_IO, "reading stdin: %s", strerror(errno)) : OK;
}
