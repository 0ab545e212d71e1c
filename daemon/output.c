#include "daemon/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

status output_check(const char *path, err *e) {
    FILE *f = path ? fopen(path, "a") : NULL;
    if (f) fclose(f);
    if (f || !path) return OK;
    err_set(e, ERR_IO, "writing %s: %s", path, strerror(errno));
    return err_hint(e, "name a file in a directory that is there and can be written");
}

status output_write(const char *path, const buf *b, err *e) {
    if (b->failed) return err_set(e, ERR_NO_MEMORY, "no memory for %s", path);
    FILE *f = fopen(path, "w");
    bool ok = f && fwrite(b->ptr, 1, b->len, f) == b->len;
    if (f && fclose(f) != 0) ok = false;
    return ok ? OK : err_set(e, ERR_IO, "writing %s: %s", path, strerror(errno));
}
