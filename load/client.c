/* libcurl's multi interface on epoll. Owns the handles, the sockets and what is in flight.
 *
 * Time is taken in the write callback, before anything looks at the bytes; nothing on this
 * thread parses them or makes a prompt. curl_multi_socket_action touches only the sockets that
 * are ready, so one more stream does not delay the others' times. */
#include "load/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "load/curl.h"

enum { MAX_REPLY_BYTES = 64 << 20, CONNECT_TIMEOUT_MS = 10000, TICK_MS = 100 };

typedef struct slot {
    CURL *easy;
    load_reply *reply; /* NULL: free */
    buf body;
    char error[CURL_ERROR_SIZE];
} slot;

struct load_client {
    const load_spec *spec;
    char path_url[600];
    struct curl_slist *headers;
    CURLM *multi;
    slot *slots;
    size_t n_slots; /* handles made so far */
    size_t n_open;  /* of them in flight */
    int epoll, timer, wake;
    uint64_t curl_due_us; /* when curl is to be called; UINT64_MAX: never */
};

/* ---- callbacks of libcurl ---- */

static size_t on_bytes(char *p, size_t one, size_t n, void *arg) {
    load_reply *r = arg;
    uint64_t now = clock_us();
    (void)one;
    if (r->body.len + n > MAX_REPLY_BYTES || !load_reply_add(r, (str){p, n}, now)) return 0;
    return n;
}

static size_t on_plain_bytes(char *p, size_t one, size_t n, void *arg) {
    buf *b = arg;
    (void)one;
    return b->len + n <= MAX_REPLY_BYTES && buf_add(b, (str){p, n}) ? n : 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known) {
    load_client *c = arg;
    (void)easy;
    struct epoll_event e = {.data.fd = fd};
    if (what & CURL_POLL_IN) e.events |= EPOLLIN;
    if (what & CURL_POLL_OUT) e.events |= EPOLLOUT;
    int op = what == CURL_POLL_REMOVE ? EPOLL_CTL_DEL : known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    epoll_ctl(c->epoll, op, fd, &e);
    curl.multi_assign(c->multi, fd, what == CURL_POLL_REMOVE ? NULL : c);
    return 0;
}

static int on_timer(CURLM *m, long ms, void *arg) {
    load_client *c = arg;
    (void)m;
    c->curl_due_us = ms < 0 ? UINT64_MAX : clock_us() + (uint64_t)ms * 1000;
    return 0;
}

/* ---- opening ---- */

static bool add_header(load_client *c, const char *line) {
    struct curl_slist *l = curl.slist_append(c->headers, line);
    if (l) c->headers = l;
    return l != NULL;
}

static bool make_headers(load_client *c) {
    /* "Expect:" takes a round trip of large bodies out. */
    bool ok = add_header(c, "Content-Type: application/json") &&
              add_header(c, "Accept: text/event-stream, application/json") &&
              add_header(c, "Expect:") && add_header(c, "User-Agent: vramd");
    if (ok && c->spec->key) {
        char line[1200];
        snprintf(line, sizeof line, "Authorization: Bearer %.1100s", c->spec->key);
        ok = add_header(c, line);
    }
    return ok;
}

/* A descriptor of the loop's own, watched for reading. */
static bool watch(load_client *c, int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    return fd >= 0 && epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

status load_client_open(load_client **out, const load_spec *spec, err *e) {
    *out = NULL;
    if (load_curl(e) != OK) return e->code;
    load_client *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_NO_MEMORY, "no memory for the client");
    c->spec = spec;
    c->curl_due_us = UINT64_MAX;
    snprintf(c->path_url, sizeof c->path_url, "%.512s/v1/%s", spec->url,
             spec->chat ? "chat/completions" : "completions");
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    status s = OK;
    if (c->epoll < 0 || !watch(c, c->timer) || !watch(c, c->wake))
        s = err_set(e, ERR_IO, "no descriptors for the client");
    if (s == OK && (!make_headers(c) || !(c->multi = curl.multi_init())))
        s = err_set(e, ERR_NO_MEMORY, "no memory for the client");
    if (s != OK) return load_client_close(c), s;
    curl.multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl.multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl.multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl.multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl.multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)LOAD_MAX_OPEN);
    *out = c;
    return OK;
}

void load_client_close(load_client *c) {
    if (!c) return;
    for (size_t i = 0; i < c->n_slots; i++) {
        if (c->slots[i].reply) curl.multi_remove_handle(c->multi, c->slots[i].easy);
        load_reply_free(c->slots[i].reply);
        buf_clear(&c->slots[i].body);
        curl.easy_cleanup(c->slots[i].easy);
    }
    free(c->slots);
    if (c->multi) curl.multi_cleanup(c->multi);
    curl.slist_free_all(c->headers);
    if (c->epoll >= 0) close(c->epoll);
    if (c->timer >= 0) close(c->timer);
    if (c->wake >= 0) close(c->wake);
    free(c);
}

void load_client_wake(load_client *c) {
    uint64_t one = 1;
    if (write(c->wake, &one, sizeof one) < 0) return; /* full: it will wake anyway */
}

/* What all handles have in common. */
static void set_common(const load_client *c, CURL *h, char *error) {
    curl.easy_setopt(h, CURLOPT_ERRORBUFFER, error);
    curl.easy_setopt(h, CURLOPT_HTTPHEADER, c->headers);
    if (c->spec->socket) curl.easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, c->spec->socket);
    curl.easy_setopt(h, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl.easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl.easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl.easy_setopt(h, CURLOPT_NOPROXY, "127.0.0.1,localhost,::1");
    curl.easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    curl.easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)(c->spec->timeout_s * 1000));
}

/* ---- one request that waits ---- */

status load_client_ask(load_client *c, const char *path, const buf *body, int *http, buf *out,
                       err *e) {
    char url[700], error[CURL_ERROR_SIZE] = "";
    long code = 0;
    CURL *h = curl.easy_init();
    if (!h) return err_set(e, ERR_NO_MEMORY, "no memory for a request");
    snprintf(url, sizeof url, "%.512s%.100s", c->spec->url, path);
    set_common(c, h, error);
    curl.easy_setopt(h, CURLOPT_URL, url);
    curl.easy_setopt(h, CURLOPT_WRITEFUNCTION, on_plain_bytes);
    curl.easy_setopt(h, CURLOPT_WRITEDATA, out);
    if (body) {
        curl.easy_setopt(h, CURLOPT_POSTFIELDS, body->ptr);
        curl.easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
    }
    CURLcode rc = curl.easy_perform(h);
    curl.easy_getinfo(h, CURLINFO_RESPONSE_CODE, &code);
    curl.easy_cleanup(h);
    *http = (int)code;
    if (rc == CURLE_OK) return OK;
    err_set(e, ERR_UNAVAILABLE, "%s: %s", url, error[0] ? error : curl.easy_strerror(rc));
    return err_hint(e, "is the server running? The URL is %s", c->spec->url);
}

/* ---- the loop ---- */

/* A free slot, with a handle made for it; NULL: none, or no memory for one. */
static slot *free_slot(load_client *c) {
    for (size_t i = 0; i < c->n_slots; i++)
        if (!c->slots[i].reply) return &c->slots[i];
    slot *s = &c->slots[c->n_slots];
    *s = (slot){.easy = curl.easy_init()};
    if (!s->easy) return NULL;
    set_common(c, s->easy, s->error);
    curl.easy_setopt(s->easy, CURLOPT_URL, c->path_url);
    curl.easy_setopt(s->easy, CURLOPT_PRIVATE, (void *)s);
    curl.easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    c->n_slots++;
    return s;
}

static status start(load_client *c, load_job *j, uint64_t zero_us, err *e) {
    slot *s = free_slot(c);
    load_reply *r = s ? calloc(1, sizeof *r) : NULL;
    if (!r) {
        buf_clear(&j->body);
        return err_set(e, ERR_NO_MEMORY, "no memory for a request");
    }
    s->body = j->body;
    s->error[0] = 0;
    s->reply = r;
    r->output_tokens = j->output_tokens;
    buf_init(&r->body, NULL);
    curl.easy_setopt(s->easy, CURLOPT_WRITEDATA, r);
    curl.easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->body.ptr);
    curl.easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->body.len);
    r->start_us = clock_us();
    r->due_us = j->open_loop ? zero_us + j->due_us : r->start_us;
    c->n_open++;
    CURLMcode rc = curl.multi_add_handle(c->multi, s->easy);
    return rc == CURLM_OK ? OK : err_set(e, ERR_IO, "libcurl: %s", curl.multi_strerror(rc));
}

static void finish(load_client *c, const load_feed *f, slot *s, load_fault fault,
                   const char *why) {
    load_reply *r = s->reply;
    long code = 0;
    const char *type = NULL;
    r->end_us = clock_us();
    curl.easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &code);
    curl.easy_getinfo(s->easy, CURLINFO_CONTENT_TYPE, &type);
    r->http = (int)code;
    r->sse = type && str_starts(str_of(type), STR("text/event-stream"));
    r->fault = fault;
    snprintf(r->why, sizeof r->why, "%.150s", why);
    curl.multi_remove_handle(c->multi, s->easy);
    s->reply = NULL;
    buf_clear(&s->body);
    c->n_open--;
    f->done(f->self, r);
}

static void finish_all(load_client *c, const load_feed *f) {
    int left;
    for (CURLMsg *m; (m = curl.multi_info_read(c->multi, &left));) {
        if (m->msg != CURLMSG_DONE) continue;
        CURLcode rc = m->data.result;
        slot *s;
        curl.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
        load_fault fault = rc == CURLE_OK                   ? FAULT_NONE
                           : rc == CURLE_OPERATION_TIMEDOUT ? FAULT_TIMEOUT
                           : rc == CURLE_WRITE_ERROR        ? FAULT_MALFORMED
                                                            : FAULT_CONNECTION;
        finish(c, f, s, fault,
               rc == CURLE_OK            ? ""
               : rc == CURLE_WRITE_ERROR ? "the answer is longer than 64 MiB"
               : s->error[0]             ? s->error
                                         : curl.easy_strerror(rc));
    }
}

/* Starts what is due. */
static status start_due(load_client *c, const load_feed *f, size_t max_open, uint64_t zero_us,
                        load_word *word, uint64_t *wake_us, err *e) {
    status s = OK;
    *wake_us = UINT64_MAX;
    while (s == OK && *word != LOAD_END && c->n_open < max_open) {
        load_job j;
        *word = f->next(f->self, &j, wake_us);
        if (*word != LOAD_GO) break;
        s = start(c, &j, zero_us, e);
    }
    return s;
}

static void arm(load_client *c, uint64_t at_us) {
    if (at_us == 0) at_us = 1; /* zero would disarm */
    struct itimerspec t = {.it_value = {.tv_sec = (time_t)(at_us / 1000000),
                                        .tv_nsec = (long)(at_us % 1000000) * 1000}};
    if (at_us == UINT64_MAX) t = (struct itimerspec){0};
    timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

static void run_events(load_client *c) {
    struct epoll_event ev[64];
    int running, n = epoll_wait(c->epoll, ev, 64, TICK_MS);
    for (int i = 0; i < n; i++) {
        int fd = ev[i].data.fd, flags = 0;
        uint64_t count;
        if (fd == c->timer || fd == c->wake) {
            if (read(fd, &count, sizeof count) < 0) continue; /* already read */
            continue;
        }
        if (ev[i].events & EPOLLIN) flags |= CURL_CSELECT_IN;
        if (ev[i].events & EPOLLOUT) flags |= CURL_CSELECT_OUT;
        if (ev[i].events & (EPOLLERR | EPOLLHUP)) flags |= CURL_CSELECT_ERR;
        curl.multi_socket_action(c->multi, fd, flags, &running);
    }
    if (clock_us() < c->curl_due_us) return;
    c->curl_due_us = UINT64_MAX;
    curl.multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

static void drop_all(load_client *c, const load_feed *f) {
    for (size_t i = 0; i < c->n_slots; i++)
        if (c->slots[i].reply) finish(c, f, &c->slots[i], FAULT_ABORTED, "interrupted");
}

status load_client_run(load_client *c, const load_feed *f, size_t max_open, uint64_t zero_us,
                       err *e) {
    load_word word = LOAD_WAIT;
    uint64_t wake_us;
    if (!c->slots) c->slots = calloc(LOAD_MAX_OPEN, sizeof *c->slots);
    if (!c->slots) return err_set(e, ERR_NO_MEMORY, "no memory for the requests in flight");
    status s = OK;
    while (!atomic_load(f->stop)) {
        s = start_due(c, f, max_open, zero_us, &word, &wake_us, e);
        if (s != OK || (word == LOAD_END && !c->n_open)) break;
        arm(c, wake_us < c->curl_due_us ? wake_us : c->curl_due_us);
        run_events(c);
        finish_all(c, f);
    }
    drop_all(c, f);
    return s;
}
