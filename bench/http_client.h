/* HTTP/1.1 over many connections to one local port, for programs that load a server and must cost
 * next to nothing: one thread, epoll, plain sockets; no part of the daemon. A connection carries one
 * request after another; what its user does with the answer are the functions of http_client. */
#ifndef VRAMD_BENCH_HTTP_CLIENT_H
#define VRAMD_BENCH_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows, and ends with a zero. */
typedef struct text {
    char *v;
    size_t n, cap;
} text;
void text_add(text *, const char *p, size_t n);
void text_addf(text *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

typedef enum http_phase {
    HTTP_HEAD,
    HTTP_FIXED, /* a body with a length, or in chunks, or up to the end of the connection: */
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK_DATA,
    HTTP_CHUNK_END,
    HTTP_TO_CLOSE,
    HTTP_WHOLE
} http_phase;

/* Zeroed but for fd = -1; the user's struct begins with it. */
typedef struct connection {
    int fd;
    bool busy;          /* it has a request: set by the user before connection_send */
    int receive_buffer; /* of its next socket, in bytes; 0: the system's */
    text out;           /* the request */
    /* Of the answer: */
    http_phase at;
    int status;
    bool sse, close_after;
    size_t n_read; /* bytes of it, framing and all */
    /* The client's own: */
    bool fresh; /* no answer has come over it yet */
    size_t sent;
    uint64_t left; /* bytes of the chunk or of the body */
    text line;     /* the head, or a line of the framing */
} connection;

typedef struct http_client http_client;
struct http_client {
    const char *name; /* for messages */
    int epoll, port;
    /* Bytes of the body, without framing. */
    void (*on_body)(http_client *, connection *, const char *p, size_t n);
    /* why NULL: the answer is whole; else the connection broke, and is closed. It may send the next
     * request. */
    void (*on_end)(http_client *, connection *, const char *why);
    /* NULL: all is read at once. Else how many bytes may be read next; 0: none until the user calls
     * connection_read. */
    size_t (*may_read)(http_client *, connection *);
};

void http_client_open(http_client *, const char *name, int port);
void http_die(const http_client *, const char *what); /* with errno; exit code 2 */
/* Begins c->out with the line and the head of a request; body NULL: a GET. */
void connection_request(const http_client *, connection *c, const char *path, const char *body);
void connection_send(http_client *,
                     connection *); /* c->out, over a new socket where it has none */
void connection_read(http_client *, connection *);
void connection_close(connection *);
void connection_free(connection *);
/* Waits for events and handles them; how many there were. */
int http_client_wait(http_client *, int at_most_ms);

#endif
