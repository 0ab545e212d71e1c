/* Listening sockets: an address or a name, a Unix socket, or one inherited. Owns nothing: the
 * descriptor goes to libmicrohttpd. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/http_impl.h"

#include "memory/term.h"

enum { BACKLOG = 511 };

static status refused(err *e, const char *address, int why) {
    err_set(e, ERR_IO, "cannot listen on %s: %s", address, strerror(why));
    err_field(e, "port");
    if (why == EADDRINUSE) err_hint(e, "another process listens there; choose another port");
    if (why == EACCES) err_hint(e, "ports below 1024 need CAP_NET_BIND_SERVICE");
    return e->code;
}

static int bound_socket(const struct addrinfo *ai) {
    int one = 1, zero = 0;
    int fd =
        socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* "::" serves IPv4 too */
    if (ai->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static uint16_t port_of(int fd) {
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &n) != 0) return 0;
    if (sa.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&sa)->sin_port);
    if (sa.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&sa)->sin6_port);
    return 0;
}

static status resolve(const server_options *o, struct addrinfo **found, err *e) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char service[8], host[256];
    size_t n = strlen(o->host);
    bool bracketed = n > 2 && o->host[0] == '[' && o->host[n - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(bracketed ? n - 2 : n), o->host + bracketed);
    snprintf(service, sizeof service, "%u", (unsigned)o->port);
    int rc = getaddrinfo(host, service, &hints, found);
    if (rc == 0) return OK;
    if (rc == EAI_MEMORY) return mem_exhausted(e, MEM_HTTP, "resolving host %s", o->host);
    err_set(e, ERR_INVALID, "cannot resolve host %s: %s", o->host, gai_strerror(rc));
    return err_field(e, "host");
}

static status listen_tcp(const server_options *o, int *fd, err *e) {
    struct addrinfo *found;
    if (resolve(o, &found, e) != OK) return e->code;
    *fd = -1;
    for (struct addrinfo *ai = found; ai && *fd < 0; ai = ai->ai_next) *fd = bound_socket(ai);
    int why = errno;
    freeaddrinfo(found);
    char address[300];
    snprintf(address, sizeof address, "%s port %u", o->host, (unsigned)o->port);
    return *fd < 0 ? refused(e, address, why) : OK;
}

/* True when a process accepts connections at this path. */
static bool path_alive(const struct sockaddr_un *sa) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool alive = fd >= 0 && connect(fd, (const struct sockaddr *)sa, sizeof *sa) == 0;
    if (fd >= 0) close(fd);
    return alive;
}

static status address_of_path(struct sockaddr_un *sa, const char *path, err *e) {
    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) == 0 || strlen(path) >= sizeof sa->sun_path) {
        err_set(e, ERR_INVALID, "the path of a Unix socket has 1 to %zu bytes",
                sizeof sa->sun_path - 1);
        return err_field(e, "host");
    }
    strcpy(sa->sun_path, path);
    return OK;
}

static status listen_unix(const char *path, int *fd, err *e) {
    struct sockaddr_un sa;
    if (address_of_path(&sa, path, e) != OK) return e->code;
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && !path_alive(&sa)) unlink(path);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd >= 0 && bind(*fd, (struct sockaddr *)&sa, sizeof sa) == 0 &&
        listen(*fd, BACKLOG) == 0)
        return OK;
    char address[140];
    int why = errno;
    snprintf(address, sizeof address, "Unix socket %s", path);
    if (*fd >= 0) close(*fd);
    return refused(e, address, why);
}

/* NULL: the host is no Unix socket. */
static const char *unix_path_of(const server_options *o) {
    return strncmp(o->host, "unix:", 5) == 0 ? o->host + 5 : NULL;
}

status http_listen_check(const server_options *o, err *e) {
    if (o->listen_fd >= 0) return OK;
    const char *path = unix_path_of(o);
    struct sockaddr_un sa;
    struct addrinfo *found = NULL;
    status s = path ? address_of_path(&sa, path, e) : resolve(o, &found, e);
    if (found) freeaddrinfo(found);
    return s;
}

status http_listen(const server_options *o, int *fd, uint16_t *port, char unix_path[108],
                   err *e) {
    unix_path[0] = '\0';
    if (o->listen_fd >= 0) {
        *fd = o->listen_fd;
        *port = port_of(*fd);
        return OK;
    }
    status s;
    const char *path = unix_path_of(o);
    if (path) {
        s = listen_unix(path, fd, e);
        if (s == OK) snprintf(unix_path, 108, "%s", path);
    } else {
        s = listen_tcp(o, fd, e);
    }
    *port = s == OK ? port_of(*fd) : 0;
    return s;
}
