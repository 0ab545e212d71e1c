/* Reference files: pread and pwrite at a record's place. */
#include "daemon/eval/eval_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static off_t place_of(uint64_t index) {
    return (off_t)(sizeof(eval_header) + index * sizeof(eval_record));
}

static status failed(const eval_file *f, const char *what, err *e) {
    return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s %s: %s", what, f->path,
                   strerror(errno));
}

/* The text of e, behind the name of the file. */
static status in_file(const eval_file *f, err *e) {
    const err why = *e;
    err_set(e, why.code, "%s: %s", f->path, why.text);
    return why.hint[0] ? err_hint(e, "%s", why.hint) : why.code;
}

static status read_at(const eval_file *f, void *to, size_t n, off_t at, err *e) {
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(f->fd, (char *)to + done, n - done, at + (off_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return failed(f, "reading", e);
        if (got == 0) return err_set(e, ERR_FORMAT, "%s ends early", f->path);
        done += (size_t)got;
    }
    return OK;
}

static status write_at(eval_file *f, const void *from, size_t n, off_t at, err *e) {
    for (size_t done = 0; done < n;) {
        const ssize_t put =
            pwrite(f->fd, (const char *)from + done, n - done, at + (off_t)done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return failed(f, "writing", e);
        done += (size_t)put;
    }
    return OK;
}

static status set_path(eval_file *f, const char *path, err *e) {
    *f = (eval_file){.fd = -1};
    if (strlen(path) >= sizeof f->path)
        return err_set(e, ERR_INVALID, "a path of more than %zu bytes", sizeof f->path - 1);
    snprintf(f->path, sizeof f->path, "%s", path);
    return OK;
}

status eval_file_open(eval_file *f, const char *path, err *e) {
    struct stat st;
    status s = set_path(f, path, e);
    if (s != OK) return s;
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &st) != 0) return failed(f, "opening", e);
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_INVALID, "%s is not a file", path);
    const size_t n =
        (uint64_t)st.st_size < sizeof f->header ? (size_t)st.st_size : sizeof f->header;
    s = read_at(f, &f->header, n, 0, e);
    if (s != OK) return s;
    return eval_header_check(&f->header, (uint64_t)st.st_size, e) == OK ? OK : in_file(f, e);
}

status eval_file_read(const eval_file *f, uint64_t index, eval_record *out, err *e) {
    status s = read_at(f, out, sizeof *out, place_of(index), e);
    if (s != OK) return s;
    s = eval_record_check(out, f->header.n_vocab, index, e);
    return s == OK ? OK : in_file(f, e);
}

status eval_file_create(eval_file *f, const char *path, err *e) {
    status s = set_path(f, path, e);
    if (s != OK) return s;
    snprintf(f->temporary, sizeof f->temporary, "%s.XXXXXX", path);
    f->fd = mkostemp(f->temporary, O_CLOEXEC);
    if (f->fd >= 0 && fchmod(f->fd, 0644) == 0) return OK;
    if (f->fd < 0) f->temporary[0] = '\0';
    failed(f, "writing", e);
    return e->code = ERR_IO;
}

status eval_file_write(eval_file *f, uint64_t index, const eval_record *r, err *e) {
    return write_at(f, r, sizeof *r, place_of(index), e);
}

status eval_file_finish(eval_file *f, err *e) {
    eval_header_seal(&f->header);
    status s = write_at(f, &f->header, sizeof f->header, 0, e);
    if (s != OK) return s;
    if (fdatasync(f->fd) != 0 || rename(f->temporary, f->path) != 0)
        return failed(f, "writing", e);
    f->temporary[0] = '\0';
    return OK;
}

void eval_file_close(eval_file *f) {
    if (f->temporary[0]) unlink(f->temporary);
    if (f->path[0] && f->fd >= 0) close(f->fd);
    *f = (eval_file){.fd = -1};
}
