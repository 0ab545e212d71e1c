/* Finds and opens the trigger; see pressure.h. Main thread. */
#include "daemon/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A window of 2 s is what a process without privileges may have. */
static const char TRIGGER[] = "some 100000 2000000";
static const char SYSTEM[] = "/proc/pressure/memory";

/* memory.pressure of our cgroup (version 2), where it is mounted at its usual place. */
static bool of_cgroup(char *path, size_t cap) {
    char line[1024];
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return false;
    while (!found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4) != 0) continue;
        const char *dir = strcmp(line + 3, "/") ? line + 3 : "";
        snprintf(path, cap, "/sys/fs/cgroup%s/memory.pressure", dir);
        found = true;
    }
    fclose(f);
    return found;
}

/* The descriptor, or -1 with errno. */
static int open_trigger(const char *path, bool *fifo) {
    struct stat st;
    const int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return -1;
    *fifo = fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
    /* With its final zero: the kernel takes the bytes as a string. */
    if (*fifo || write(fd, TRIGGER, sizeof TRIGGER) == (ssize_t)sizeof TRIGGER) return fd;
    const int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static status refuse(const char *path, int why, err *e) {
    const bool missing = why == ENOENT || why == EOPNOTSUPP || why == ENODEV;
    const bool denied = why == EACCES || why == EPERM || why == EROFS;
    err_set(e, missing ? ERR_UNSUPPORTED : ERR_IO, "memory_pressure = psi: %.200s: %s", path,
            missing ? "this kernel reports no pressure stall information" : strerror(why));
    err_field(e, "memory_pressure");
    if (missing) return err_hint(e, "boot the kernel with psi=1, or set memory_pressure = off");
    if (denied)
        return err_hint(e, "let this user write the cgroup's memory.pressure (systemd 254: "
                           "MemoryPressureWatch=on), or set "
                           "memory_pressure = off");
    return err_hint(e, "set memory_pressure = off");
}

/* The service manager's choice. */
static status open_named(pressure *p, const char *path, err *e) {
    if (strcmp(path, "/dev/null") == 0) {
        err_set(e, ERR_INVALID,
                "memory_pressure = psi, but the service manager turned it off "
                "(MEMORY_PRESSURE_WATCH=/dev/null)");
        err_field(e, "memory_pressure");
        return err_hint(e, "MemoryPressureWatch=on in the unit, or memory_pressure = off");
    }
    snprintf(p->path, sizeof p->path, "%s", path);
    p->fd = open_trigger(p->path, &p->fifo);
    return p->fd >= 0 ? OK : refuse(p->path, errno, e);
}

status pressure_open(pressure *p, err *e) {
    *p = (pressure){.fd = -1};
    const char *named = getenv("MEMORY_PRESSURE_WATCH");
    if (named && named[0]) return open_named(p, named, e);
    if (of_cgroup(p->path, sizeof p->path)) {
        p->fd = open_trigger(p->path, &p->fifo);
        if (p->fd >= 0) return OK;
    }
    snprintf(p->path, sizeof p->path, "%s", SYSTEM);
    p->fd = open_trigger(p->path, &p->fifo);
    return p->fd >= 0 ? OK : refuse(p->path, errno, e);
}

void pressure_read(const pressure *p) {
    char bytes[256];
    while (p->fifo && read(p->fd, bytes, sizeof bytes) > 0) {
    }
}

void pressure_close(pressure *p) {
    if (p->fd > 0) close(p->fd);
    p->fd = -1;
}
