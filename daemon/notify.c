/* Messages to the service manager. Owns nothing: a socket lives for one message. */
#include "daemon/notify.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

void notify_send(const char *fmt, ...) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char text[512];
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof to.sun_path || (*path != '/' && *path != '@')) return;
    memcpy(to.sun_path, path, n);
    if (*path == '@') to.sun_path[0] = '\0'; /* the abstract namespace */
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (len < 0) return;
    if ((size_t)len >= sizeof text) len = sizeof text - 1;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    sendto(fd, text, (size_t)len, MSG_NOSIGNAL, (const struct sockaddr *)&to,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

/* The number in a variable of the environment; 0 when it is not one. */
static uint64_t number_of(const char *name) {
    const char *word = getenv(name);
    char *end;
    if (!word || *word < '0' || *word > '9') return 0;
    uint64_t v = strtoull(word, &end, 10);
    return *end == '\0' ? v : 0;
}

/* Variables are meant for one process, and children inherit them. */
static bool meant_for_us(const char *pid_variable) {
    return number_of(pid_variable) == (uint64_t)getpid();
}

uint64_t notify_watchdog_us(void) {
    if (getenv("WATCHDOG_PID") && !meant_for_us("WATCHDOG_PID")) return 0;
    return number_of("WATCHDOG_USEC");
}

static bool listens(int fd) {
    int is = 0, type = 0;
    socklen_t n = sizeof is, m = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &n) == 0 && is &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &m) == 0 && type == SOCK_STREAM;
}

status notify_listen_fd(int *fd, err *e) {
    *fd = -1;
    uint64_t n = number_of("LISTEN_FDS");
    if (n == 0 || !meant_for_us("LISTEN_PID")) return OK;
    if (n > 1) {
        err_set(e, ERR_INVALID, "%llu sockets are handed over; one is served",
                (unsigned long long)n);
        err_hint(e, "leave one ListenStream= in the socket unit");
        return err_field(e, "LISTEN_FDS");
    }
    if (!listens(FIRST_FD)) {
        err_set(e, ERR_INVALID, "descriptor %d is no listening stream socket", FIRST_FD);
        err_hint(e, "use ListenStream= and Accept=no in the socket unit");
        return err_field(e, "LISTEN_FDS");
    }
    fcntl(FIRST_FD, F_SETFD, FD_CLOEXEC);
    fcntl(FIRST_FD, F_SETFL, fcntl(FIRST_FD, F_GETFL) | O_NONBLOCK);
    *fd = FIRST_FD;
    return OK;
}
