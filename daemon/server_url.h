/* The server that a command of a client's is for: bench and top. */
#ifndef VRAMD_DAEMON_SERVER_URL_H
#define VRAMD_DAEMON_SERVER_URL_H

#include <stddef.h>

#include "base/err.h"

typedef struct server_url {
    char url[512];    /* scheme, host and port; no path, no slash at the end */
    char socket[108]; /* path of a Unix socket; "": TCP */
} server_url;

/* "http://host:8000/v1/" is meant as "http://host:8000"; "unix:/run/vramd.sock" is a socket, as in
 * the daemon's option host. flag: for messages. ERR_INVALID. */
status server_url_read(server_url *out, const char *flag, const char *word, err *);
/* The first line of a file with an API key. ERR_IO, ERR_INVALID. */
status server_key_read(const char *path, char *out, size_t cap, err *);

#endif
