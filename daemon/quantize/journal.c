/* The journal of an unfinished file. Owns both descriptors; see journal.h for threads. */
#include "daemon/quantize/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "memory/term.h"

enum { LINE_MAX_BYTES = 64 };

static status no_memory(err *e) {
    return mem_exhausted(e, MEM_LOADING, "the journal of the new file");
}

static status io_error(const char *path, const char *what, err *e) {
    const int number = errno;
    err_set(e, ERR_IO, "%.200s: %s: %s", path, what, strerror(number));
    if (number == ENOSPC || number == EDQUOT || number == EFBIG)
        err_hint(
            e,
            "free space (or raise the limit of file sizes) and give the same command again: it "
            "continues");
    else if (number == EACCES || number == EROFS || number == EPERM)
        err_hint(e, "name a file in a folder that you may write");
    return ERR_IO;
}

status journal_check_out(const char *out, bool force, err *e) {
    struct stat st;
    if (stat(out, &st) != 0) return OK;
    if (S_ISDIR(st.st_mode)) return err_set(e, ERR_INVALID, "%.200s is a folder", out);
    if (force) return OK;
    err_set(e, ERR_INVALID, "%.200s exists", out);
    return err_hint(e, "--force replaces it when the new one is complete");
}

static char *joined(const char *a, const char *b) {
    char *s = malloc(strlen(a) + strlen(b) + 1);
    if (s) stpcpy(stpcpy(s, a), b);
    return s;
}

status journal_check_space(const char *out, uint64_t bytes, err *e) {
    char *part = joined(out, ".part"), *slash, need[32], have[32];
    struct stat st;
    struct statvfs fs;
    if (!part) return no_memory(e);
    const uint64_t held = stat(part, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    slash = strrchr(part, '/');
    if (slash) slash[slash == part] = '\0';
    const char *folder = slash ? part : ".";
    status s = statvfs(folder, &fs) == 0 ? OK : io_error(folder, "no such folder", e);
    if (s == OK && held < bytes && bytes - held > (uint64_t)fs.f_bavail * fs.f_frsize) {
        err_set(e, ERR_IO, "%.150s: %s more are needed on this disk, %s are free", folder,
                bytes_human(bytes - held, need),
                bytes_human((uint64_t)fs.f_bavail * fs.f_frsize, have));
        s = err_hint(e, "free space, or name a file on another disk");
    }
    free(part);
    return s;
}

/* ---- the lines ---- */

static int first_line(char *line, const uint64_t identity[2]) {
    return snprintf(line, LINE_MAX_BYTES, "vramd-quantize 1 %016" PRIx64 "%016" PRIx64 "\n",
                    identity[0], identity[1]);
}

/* Whether the file has the bytes that a line says. buf: [cap], grown. */
static bool confirmed(const journal *j, uint64_t offset, uint64_t bytes, uint32_t crc, buf *b) {
    b->len = 0;
    if (!buf_reserve(b, bytes)) return false;
    return pread(j->fd, b->ptr, bytes, (off_t)offset) == (ssize_t)bytes &&
           crc32c(b->ptr, bytes) == crc;
}

/* Reads the lines of a journal of the same identity; false: there is none. */
static bool read_notes(journal *j, const uint64_t identity[2], journal_place *place,
                       const void *arg) {
    char want[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    FILE *f = fopen(j->notes, "re");
    if (!f) return false;
    first_line(want, identity);
    const bool same = fgets(line, sizeof line, f) && strcmp(line, want) == 0;
    buf b;
    buf_init(&b, NULL);
    while (same && fgets(line, sizeof line, f)) {
        uint64_t unit, offset, bytes;
        uint32_t crc;
        char end;
        if (sscanf(line, "%" SCNu64 " %" SCNx32 "%c", &unit, &crc, &end) != 3 || end != '\n')
            continue; /* torn */
        if (unit >= j->n_units || j->done[unit]) continue;
        place(arg, unit, &offset, &bytes);
        j->done[unit] = confirmed(j, offset, bytes, crc, &b);
        j->n_resumed += j->done[unit];
    }
    buf_clear(&b);
    fclose(f);
    return same;
}

static status reserve(const journal *j, uint64_t bytes, err *e) {
    if (fallocate(j->fd, 0, 0, (off_t)bytes) == 0) return OK;
    if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)
        return io_error(j->part, "its space cannot be reserved", e);
    /* A file system without it: a full disk is met when it is written. */
    return ftruncate(j->fd, (off_t)bytes) == 0 ? OK : io_error(j->part, "its size", e);
}

static status begin_notes(journal *j, const uint64_t identity[2], bool again, err *e) {
    char line[LINE_MAX_BYTES];
    j->notes_fd =
        open(j->notes, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (again ? O_TRUNC : 0), 0666);
    if (j->notes_fd < 0) return io_error(j->notes, "cannot be written", e);
    const int n = again ? first_line(line, identity) : 1;
    /* A torn last line is ended. */
    if (write(j->notes_fd, again ? line : "\n", (size_t)n) != n)
        return io_error(j->notes, "write", e);
    return OK;
}

static status open_files(journal *j, const uint64_t identity[2], uint64_t file_bytes,
                         journal_place *place, const void *arg, err *e) {
    j->part = joined(j->out, ".part");
    j->notes = joined(j->out, ".part.journal");
    j->done = calloc(j->n_units + 1, 1);
    if (!j->part || !j->notes || !j->done) return no_memory(e);
    j->fd = open(j->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (j->fd < 0) return io_error(j->part, "cannot be written", e);
    if (flock(j->fd, LOCK_EX | LOCK_NB) != 0) {
        err_set(e, ERR_BUSY, "%.200s is being written by another process", j->part);
        return err_hint(e, "wait for it, or name another file");
    }
    const bool same = read_notes(j, identity, place, arg);
    if (!same && ftruncate(j->fd, 0) != 0) return io_error(j->part, "cannot be emptied", e);
    status s = reserve(j, file_bytes, e);
    return s == OK ? begin_notes(j, identity, !same, e) : s;
}

status journal_open(journal *j, const char *out, bool force, const uint64_t identity[2],
                    uint64_t file_bytes, uint64_t n_units, journal_place *place,
                    const void *arg, err *e) {
    *j = (journal){.out = out, .fd = -1, .notes_fd = -1, .n_units = n_units};
    status s = journal_check_out(out, force, e);
    if (s == OK) s = journal_check_space(out, file_bytes, e);
    if (s == OK) s = open_files(j, identity, file_bytes, place, arg, e);
    if (s != OK) journal_close(j);
    return s;
}

status journal_write(const journal *j, uint64_t offset, const void *p, size_t n, err *e) {
    const char *from = p;
    while (n) {
        const ssize_t k = pwrite(j->fd, from, n, (off_t)offset);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return io_error(j->part, "write", e);
        from += k, offset += (uint64_t)k, n -= (size_t)k;
    }
    return OK;
}

status journal_note(journal *j, uint64_t unit, const void *bytes, size_t n, err *e) {
    char line[LINE_MAX_BYTES];
    const int len =
        snprintf(line, sizeof line, "%" PRIu64 " %08" PRIx32 "\n", unit, crc32c(bytes, n));
    if (write(j->notes_fd, line, (size_t)len) != len) return io_error(j->notes, "write", e);
    return OK;
}

static void sync_folder(const char *out) {
    char *folder = strdup(out), *slash = folder ? strrchr(folder, '/') : NULL;
    if (slash) slash[slash == folder] = '\0';
    const int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

status journal_finish(journal *j, err *e) {
    if (fsync(j->fd) != 0) return io_error(j->part, "to the disk", e);
    if (rename(j->part, j->out) != 0) return io_error(j->out, "rename", e);
    unlink(j->notes);
    sync_folder(j->out);
    return OK;
}

void journal_close(journal *j) {
    if (j->fd >= 0) close(j->fd);
    if (j->notes_fd >= 0) close(j->notes_fd);
    free(j->part);
    free(j->notes);
    free(j->done);
    *j = (journal){.fd = -1, .notes_fd = -1};
}
