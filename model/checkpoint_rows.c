/* Rows of one tensor by a descriptor of its own. Any thread. */
#include "model/checkpoint_rows.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

status checkpoint_rows_open(checkpoint_rows *out, const checkpoint *c, size_t tensor, err *e) {
    const tensor_info t = checkpoint_tensor(c, tensor);
    int fd;
    *out = (checkpoint_rows){.fd = -1};
    snprintf(out->name, sizeof out->name, "%.71s", t.name);
    CHECK(dtype_bytes(t.type, 1, t.ne[0], &out->bytes));
    if (!c->format->place || !c->format->place(c, tensor, &fd, &out->at)) {
        err_set(e, ERR_UNSUPPORTED, "tensor %s cannot be read row by row from this checkpoint",
                out->name);
        err_hint(e, "convert the model to GGUF: vramd quantize");
        return err_field(e, "%s", out->name);
    }
    out->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (out->fd >= 0) return OK;
    return err_set(e, ERR_IO, "%.200s: %s", checkpoint_path(c), strerror(errno));
}

void checkpoint_rows_close(checkpoint_rows *r) {
    if (r->fd >= 0) close(r->fd);
    r->fd = -1;
}

status checkpoint_rows_read(const checkpoint_rows *r, uint64_t row, void *dst, err *e) {
    const uint64_t at = r->at + row * r->bytes;
    for (uint64_t done = 0; done < r->bytes;) {
        const ssize_t k = pread(r->fd, (char *)dst + done, r->bytes - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            err_set(e, ERR_IO, "reading row %llu of tensor %s: %s", (unsigned long long)row,
                    r->name,
                    k < 0 ? strerror(errno) : "the file has shrunk since it was opened");
            return err_field(e, "%s", r->name);
        }
        done += (uint64_t)k;
    }
    return OK;
}
