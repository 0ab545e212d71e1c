/* Opening files that hold secrets. Owns nothing. */
#include "api/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/term.h"

static status check(FILE *f, const char *path, long max_bytes, err *e) {
    struct stat st;
    if (fstat(fileno(f), &st) != 0)
        return err_set(e, ERR_IO, "cannot read %.200s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_INVALID, "%.200s is no file", path);
    if (st.st_mode & (S_IROTH | S_IWOTH)) {
        err_set(e, ERR_INVALID, "%.200s has a secret that everybody may read or change", path);
        return err_hint(e, "chmod o-rw it");
    }
    if (st.st_size > max_bytes)
        return err_set(e, ERR_INVALID, "%.200s has more than %ld bytes", path, max_bytes);
    return OK;
}

status secret_steady(FILE *f, const char *path, const char *field, err *e) {
    struct stat st;
    if (ferror(f) || fstat(fileno(f), &st) != 0) {
        err_set(e, ERR_IO, "cannot read %.200s: %s", path, strerror(errno));
        return err_field(e, "%s", field);
    }
    if (ftello(f) == st.st_size) return OK;
    err_set(e, ERR_INVALID, "%.200s has changed while it was read", path);
    err_hint(e, "write another file and rename it to this one, then reload");
    return err_field(e, "%s", field);
}

status secret_open(FILE **out, const char *path, long max_bytes, const char *field, err *e) {
    /* Not to wait for a writer, should it be a FIFO: check() refuses that. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
    status s = OK;
    if (fd >= 0 && !f) close(fd);
    if (!f && errno == ENOMEM) return mem_exhausted(e, MEM_RUNTIME, "opening %.200s", path);
    if (!f) {
        int why = errno;
        s = err_set(e, why == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %.200s: %s", path,
                    strerror(why));
        if (why == EACCES) err_hint(e, "the user of the daemon must be able to read it");
    }
    if (s == OK) s = check(f, path, max_bytes, e);
    if (s != OK) {
        if (f) fclose(f);
        return err_field(e, "%s", field);
    }
    *out = f;
    return OK;
}
