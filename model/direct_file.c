/* Reads with O_DIRECT. Any thread. */
#include "model/direct_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static status failed(err *e, const char *what) {
    return err_set(e, ERR_IO, "reading the model's file: %s", what);
}

/* By the descriptor, so that it is the same file whatever has the name by now; with a description of its
 * own, since O_DIRECT belongs to that. */
static int open_direct(int of) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", of);
    return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
}

/* Some file systems take the flag and refuse the reads. */
static bool reads_direct(int fd) {
    _Alignas(DIRECT_ALIGN) unsigned char first[DIRECT_ALIGN];
    return pread(fd, first, sizeof first, 0) >= 0;
}

status direct_file_open(direct_file *out, int of, err *e) {
    struct stat st;
    *out = (direct_file){.fd = open_direct(of), .direct = true};
    if (out->fd >= 0 && !reads_direct(out->fd)) direct_file_close(out);
    if (out->fd < 0) {
        out->direct = false;
        out->fd = fcntl(of, F_DUPFD_CLOEXEC, 0);
    }
    if (out->fd < 0 || fstat(out->fd, &st) != 0) {
        const int code = errno;
        direct_file_close(out);
        return failed(e, strerror(code));
    }
    out->size = (uint64_t)st.st_size;
    out->changed[0] = st.st_mtim.tv_sec;
    out->changed[1] = st.st_mtim.tv_nsec;
    return OK;
}

void direct_file_close(direct_file *f) {
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
}

static bool is_unchanged(const direct_file *f) {
    struct stat st;
    return fstat(f->fd, &st) == 0 && (uint64_t)st.st_size == f->size &&
           st.st_mtim.tv_sec == f->changed[0] && st.st_mtim.tv_nsec == f->changed[1];
}

status direct_file_read(const direct_file *f, uint64_t at, uint64_t n, void *buffer, void **out,
                        err *e) {
    const uint64_t from = at / DIRECT_ALIGN * DIRECT_ALIGN, wanted = at + n - from;
    const uint64_t whole = (wanted + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;
    for (uint64_t done = 0;
         done < wanted;) { /* a direct read that is short ends at a block, or the file */
        const ssize_t k =
            pread(f->fd, (char *)buffer + done, whole - done, (off_t)(from + done));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return failed(e, strerror(errno));
        if (k == 0) return failed(e, "it has shrunk since it was opened");
        done += (uint64_t)k;
    }
    if (!f->direct) posix_fadvise(f->fd, (off_t)from, (off_t)whole, POSIX_FADV_DONTNEED);
    if (!is_unchanged(f)) return failed(e, "it has changed since it was opened");
    *out = (char *)buffer + (at - from);
    return OK;
}
