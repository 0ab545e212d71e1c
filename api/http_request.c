/* One HTTP request: strictness, body, answer, event stream. A request and all that belongs to
 * it live in its arena over the pool. Loop thread only.
 *
 * Rules of libmicrohttpd that shape this file: suspend only inside its callbacks, and whenever
 * a reader has nothing or a handler has no answer; never resume what is not suspended; an
 * answer queued in the first call closes the connection, which is right for refusals; during an
 * upload none can be queued; a reader's END_WITH_ERROR leaves the connection and its descriptor
 * where only the end of all longer idle ones frees them. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "api/http_impl.h"
#include "base/check.h"
#include "base/clock.h"
#include "json/out.h"

static http_private *priv(const http_request *rq) {
    return rq->priv;
}

/* ---- arriving ---- */

typedef struct header_count {
    unsigned n_host, n_length, n_encoding, n_auth, n_key;
    bool not_chunked, bad_name, bad_line, bad_host;
    const char *line_end; /* of the line before */
} header_count;

/* A token of RFC 9110, section 5.6.2: no blank before the colon, no control character. */
static bool is_token(const char *s) {
    static const char others[] = "!#$%&'*+-.^_`|~";
    const char *p = s;
    for (; *p; p++) {
        char low = *p | 32;
        if (!(low >= 'a' && low <= 'z') && !(*p >= '0' && *p <= '9') && !strchr(others, *p))
            return false;
    }
    return p > s;
}

/* libmicrohttpd 0.9.75 takes a lone LF for the end of a line, a NUL for the end of a value, and
 * unfolds lines, where others read otherwise. Its strings lie in the buffer that the request
 * was read into, with NULs in place of what ended them: one for a lone LF, two for CR LF. What
 * is folded lies elsewhere. Later versions may keep their strings otherwise, and are strict. */
static bool lies_in_place(void) {
    return strcmp(MHD_get_version(), "0.9.75") == 0;
}

/* Where one line ends the next one begins, CR LF later: a NUL at the end of a value would be a
 * third byte. (A NUL before a lone LF looks like a CR: nothing is left of the two.) */
static bool is_next_line(const char *end, const char *key) {
    return end && (uintptr_t)key - (uintptr_t)end == 2 && !end[0] && !end[1];
}

/* Between the end of a key, and its value: what was the colon, and blanks. */
static bool is_value_of(const char *end, const char *value) {
    uintptr_t from = (uintptr_t)end, to = (uintptr_t)value;
    if (to <= from || to - from > HTTP_POOL_BYTES || *end) return false;
    while (++end < value)
        if (*end != ' ' && *end != '\t') return false;
    return true;
}

/* No control character: a lone CR would be one. */
static bool is_plain(const char *s) {
    while (*s && ((unsigned char)*s >= ' ' || *s == '\t') && *s != 0x7f) s++;
    return !*s;
}

/* Of RFC 9112, section 3.2, less the comma: some servers read a list as two hosts. Blanks may
 * follow a value. */
static bool is_host(const char *s) {
    s += strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                   "-._~%!$&'()*+;=:[]");
    return s[strspn(s, " \t")] == '\0';
}

static enum MHD_Result count_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                    const char *value) {
    (void)kind;
    header_count *n = cls;
    n->bad_name |= !is_token(key);
    n->bad_line |= !value || !is_plain(value) || !is_next_line(n->line_end, key) ||
                   !is_value_of(key + strlen(key), value);
    n->line_end = value ? value + strlen(value) : NULL;
    if (strcasecmp(key, "Host") == 0) {
        n->n_host++;
        n->bad_host |= value && !is_host(value);
    }
    if (strcasecmp(key, "Authorization") == 0) n->n_auth++;
    if (strcasecmp(key, "X-Api-Key") == 0) n->n_key++;
    if (strcasecmp(key, "Content-Length") == 0) n->n_length++;
    if (strcasecmp(key, "Transfer-Encoding") == 0) {
        n->n_encoding++;
        if (!value || strcasecmp(value, "chunked") != 0) n->not_chunked = true;
    }
    return MHD_YES;
}

/* What is wrong with the head, in words; NULL: nothing. libmicrohttpd reads it leniently, in
 * its own way; a proxy before us may read it in another, and that is how requests are smuggled
 * (RFC 9112, section 11.2). First the fields that say where the body ends and whose the request is. */
static const char *fault(const http_conn *c, const header_count *n, const char *method,
                         const char *version) {
    bool v1_1 = strcmp(version, "HTTP/1.1") == 0, v1_0 = strcmp(version, "HTTP/1.0") == 0;
    if (n->n_encoding && v1_0) return "Transfer-Encoding in an HTTP/1.0 request";
    if (n->n_encoding && n->n_length) return "both Transfer-Encoding and Content-Length";
    if (n->n_length > 1) return "several Content-Length headers";
    if (n->n_host == 0 && v1_1) return "no Host header";
    if (n->n_host > 1) return "several Host headers";
    if (n->n_auth > 1 || n->n_key > 1) return "several Authorization or X-Api-Key headers";
    if (n->bad_host) return "the Host header must be a host, perhaps with a port";
    if (!v1_1 && !v1_0) return "the version must be HTTP/1.1 or HTTP/1.0";
    if (lies_in_place() && n->bad_line)
        return "each line of the head must end with CR LF, and hold none of them";
    if (n->bad_name) return "the name of a header must be a token, with the colon after it";
    if (lies_in_place() &&
        (version - c->uri_end != 1 || c->uri - (method + strlen(method)) != 1))
        return "the request line must be METHOD, blank, target, blank, version";
    return c->bad_uri ? "the request target must be an absolute path without %00" : NULL;
}

static bool acceptable(http_private *rq, const char *method, const char *version, failure *f) {
    header_count n = {.line_end = version + strlen(version)};
    struct MHD_Connection *m = rq->conn->mhd;
    MHD_get_connection_values(m, MHD_HEADER_KIND, count_header, &n);
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(m, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    /* After the last line comes the empty one, CR LF both, and nothing that libmicrohttpd takes
     * for it: a line without a name, or that begins with NUL, ends its head. */
    n.bad_line |= n.line_end && n.line_end[1];
    n.bad_line |= size && n.line_end && n.line_end + 4 != method + size->header_size;
    const char *what = fault(rq->conn, &n, method, version);
    if (size && size->header_size > HTTP_MAX_HEADER_BYTES)
        failure_set(f, API_HEADERS_TOO_LARGE, "the headers have %zu bytes, more than %d",
                    size->header_size, HTTP_MAX_HEADER_BYTES);
    else if (what)
        failure_set(f, API_INVALID, "%s", what);
    else if (n.n_encoding > 1 || n.not_chunked)
        failure_set(f, API_UNSUPPORTED, "transfer encodings other than chunked");
    else
        return true;
    return false;
}

static http_method method_of(const char *m) {
    static const char *const name[] = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE"};
    for (int i = 0; i < HTTP_OTHER; i++)
        if (strcmp(m, name[i]) == 0) return (http_method)i;
    return HTTP_OTHER;
}

/* The client's id if it is a plain word, else 96 random bits. NULL: no memory. */
static const char *request_id(http_private *rq) {
    const char *given = http_header(&rq->pub, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    bool plain = n >= 1 && n <= 128;
    for (size_t i = 0; plain && i < n; i++) plain = given[i] > ' ' && given[i] < 0x7f;
    if (plain) return arena_str(&rq->pub.mem, (str){given, n}).ptr;
    unsigned char r[12] = {0};
    char *id = arena_alloc(&rq->pub.mem, 2 * sizeof r + 1);
    if (!id) return NULL;
    /* 12 bytes cannot come short; an id need not be secret should the kernel refuse */
    if (getrandom(r, sizeof r, GRND_NONBLOCK) < 0)
        snprintf((char *)r, sizeof r, "%llx", (unsigned long long)clock_us());
    for (size_t i = 0; i < sizeof r; i++) sprintf(id + 2 * i, "%02x", r[i]);
    return id;
}

/* NULL: the pool is exhausted. */
static http_private *request_new(http *h, http_conn *c, const char *url, const char *method) {
    arena mem;
    /* Half of the pool: no single request can starve all others. */
    arena_init(&mem, pool_chunks(h->pool), pool_size(h->pool) / 2);
    http_private *rq = arena_zalloc(&mem, sizeof *rq);
    if (!rq) return NULL;
    rq->pub.mem = mem;
    rq->pub.priv = rq;
    rq->h = h;
    rq->conn = c;
    rq->pub.refs = 1;
    rq->pub.method = method_of(method);
    rq->pub.path = arena_str(&rq->pub.mem, str_of(url));
    rq->pub.method_name = arena_str(&rq->pub.mem, str_of(method));
    rq->pub.began_us = rq->last_byte_us = clock_us();
    rq->pub.id = request_id(rq);
    buf_init(&rq->body, &rq->pub.mem);
    buf_init(&rq->out, &rq->pub.mem);
    if (!rq->pub.path.ptr || !rq->pub.method_name.ptr || !rq->pub.id) {
        mem = rq->pub.mem;
        arena_clear(&mem);
        return NULL;
    }
    c->rq = rq;
    h->n_requests++;
    return rq;
}

static void refuse_too_large(http_private *rq) {
    failure f;
    failure_set(&f, API_BODY_TOO_LARGE, "the body has more than %u bytes",
                rq->h->opt.max_body_bytes);
    http_refuse(&rq->pub, &f);
}

/* Sets up for the body that was announced. */
static void expect_body(http_private *rq) {
    const char *length = http_header(&rq->pub, "Content-Length");
    unsigned long long n = length ? strtoull(length, NULL, 10) : 0;
    if (n > rq->h->opt.max_body_bytes)
        refuse_too_large(rq);
    else if (n && !buf_reserve(&rq->body, n + 1))
        http_refuse_memory(&rq->pub);
}

/* Where such a body ends libmicrohttpd 0.9.75 decides leniently, and shows nothing of it: a
 * lone LF ends a line between chunks. So what comes behind it is no request for us. */
static bool is_chunked(const http_private *rq) {
    return http_header(&rq->pub, "Transfer-Encoding") != NULL;
}

static bool has_body(const http_private *rq) {
    const char *length = http_header(&rq->pub, "Content-Length");
    return (length && strcmp(length, "0") != 0) || is_chunked(rq);
}

static void take_body(http_private *rq, const char *data, size_t n) {
    if (rq->phase != PHASE_BODY || rq->pub.status) return; /* refused: discard the rest */
    if (n > rq->h->opt.max_body_bytes - rq->body.len)
        refuse_too_large(rq);
    else if (!buf_add(&rq->body, (str){data, n}))
        http_refuse_memory(&rq->pub);
}

/* ---- leaving ---- */

static ssize_t read_stream(void *cls, uint64_t pos, char *dst, size_t max) {
    (void)pos;
    static const char last_word[] =
        "data: {\"error\":{\"message\":\"no memory left for this stream\",\"type\":"
        "\"unavailable_error\",\"param\":null,\"code\":503}}\n\ndata: [DONE]\n\n";
    http_private *rq = cls;
    rq->h->progress = true;
    if (rq->pub.gone) {
        /* Nothing leaves any more; sending the end fails, and that closes the connection. */
        shutdown(rq->conn->fd, SHUT_RDWR);
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    if (rq->out_at == rq->out.len) {
        /* Being asked for more means that all before has left. */
        rq->out_at = rq->out.len = 0;
        if (rq->in_flight) {
            rq->in_flight = false;
            rq->h->app.sent(rq->h->app.self, &rq->pub);
        }
    }
    if (rq->out.failed && !rq->no_memory && rq->out_at == rq->out.len) {
        rq->no_memory = rq->ended = true;
        /* failed stays set: whatever is still appended is dropped, and never grows this text */
        rq->out = (buf){.ptr = (char *)last_word, .len = sizeof last_word - 1, .failed = true};
    }
    size_t n = rq->out.len - rq->out_at;
    if (n) {
        if (n > max) n = max;
        memcpy(dst, rq->out.ptr + rq->out_at, n);
        rq->out_at += n;
        rq->pub.n_sent += n;
        rq->in_flight = true;
        rq->last_byte_us = clock_us();
        return (ssize_t)n;
    }
    if (rq->ended) return MHD_CONTENT_READER_END_OF_STREAM;
    rq->suspended = true;
    MHD_suspend_connection(rq->conn->mhd);
    return 0;
}

static const error_form *errors_of(const http_request *rq) {
    return rq->errors ? rq->errors : &errors_openai;
}

static bool add_header(struct MHD_Response *r, const char *name, const char *value) {
    return !value || MHD_add_response_header(r, name, value) == MHD_YES;
}

static bool add_headers(struct MHD_Response *r, const http_private *rq) {
    bool stream = rq->stream, ok = true;
    for (unsigned i = 0; i < rq->n_headers; i++)
        ok = ok && add_header(r, rq->header[i].name, rq->header[i].value);
    return ok && add_header(r, "Content-Type", rq->type) &&
           add_header(r, "Cache-Control", stream ? "no-cache" : NULL) &&
           add_header(r, "X-Accel-Buffering", stream ? "no" : NULL) &&
           add_header(r, "X-Request-Id", rq->pub.id) &&
           add_header(r, "Retry-After", rq->retry_after[0] ? rq->retry_after : NULL) &&
           add_header(r, "Connection", rq->h->leaving || is_chunked(rq) ? "close" : NULL);
}

/* NULL: no memory for it. */
static struct MHD_Response *make_response(http_private *rq) {
    struct MHD_Response *r;
    if (rq->stream) {
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 512, read_stream, rq, NULL);
    } else {
        r = MHD_create_response_from_buffer(rq->payload.len, (void *)rq->payload.ptr,
                                            MHD_RESPMEM_PERSISTENT);
    }
    if (r && !add_headers(r, rq)) {
        MHD_destroy_response(r);
        return NULL;
    }
    return r;
}

static enum MHD_Result queue_answer(http_private *rq) {
    http *h = rq->h;
    struct MHD_Response *r = rq->no_memory ? NULL : make_response(rq);
    rq->phase = PHASE_QUEUED;
    if (r) {
        enum MHD_Result ok = MHD_queue_response(rq->conn->mhd, (unsigned)rq->pub.status, r);
        MHD_destroy_response(r);
        return ok;
    }
    const failure none = {.what = API_NO_MEMORY};
    rq->pub.status = errors_of(&rq->pub)->http(&none);
    rq->pub.streaming = rq->stream = rq->early = false;
    h->app.gone(h->app.self, &rq->pub); /* a stream has work under way for it */
    return MHD_queue_response(rq->conn->mhd, (unsigned)rq->pub.status, h->no_memory);
}

/* ---- the handler ---- */

static enum MHD_Result first_call(http *h, struct MHD_Connection *m, const char *url,
                                  const char *method, const char *version, void **ctx) {
    http_conn *c =
        MHD_get_connection_info(m, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    if (!c) return MHD_NO; /* refused when it connected */
    http_private *rq = request_new(h, c, url, method);
    if (!rq) return MHD_queue_response(m, 503, h->no_memory);
    *ctx = rq;
    c->deadline_us = rq->pub.began_us + (uint64_t)h->opt.body_timeout_s * 1000000u;
    failure f;
    bool plain = acceptable(rq, method, version, &f);
    if (!plain)
        http_refuse(&rq->pub, &f);
    else
        h->app.begin(h->app.self, &rq->pub);
    if (rq->phase == PHASE_BODY) expect_body(rq);
    /* Queued now, the answer would close the connection: right for a refused body, or a request
     * that others may read otherwise; a wrong path alone is no reason. */
    bool now = rq->phase == PHASE_ANSWER && (!plain || has_body(rq));
    return now ? queue_answer(rq) : MHD_YES;
}

/* From now on, whoever leaves ends it; he may have left already. */
static void watch_for_its_end(http_private *rq) {
    if (!rq->watched) http_watch(rq->h, rq->conn, EPOLL_CTL_MOD);
    rq->watched = true;
}

static void sleep_until_woken(http_private *rq) {
    http_conn *c = rq->conn;
    watch_for_its_end(rq);
    rq->suspended = true;
    MHD_suspend_connection(c->mhd);
}

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *m, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *n_data, void **ctx) {
    http *h = cls;
    http_private *rq = *ctx;
    h->progress = true;
    if (!rq) return first_call(h, m, url, method, version, ctx);
    if (*n_data) {
        take_body(rq, data, *n_data);
        *n_data = 0;
        return MHD_YES;
    }
    if (rq->phase == PHASE_BODY) {
        rq->conn->deadline_us = 0;
        rq->phase = PHASE_RUN;
        rq->pub.body = (str){buf_cstr(&rq->body), rq->body.len};
        h->app.run(h->app.self, &rq->pub);
    }
    if (rq->pub.gone) return MHD_NO;
    if (rq->phase == PHASE_ANSWER) {
        rq->conn->deadline_us = 0;
        if (rq->stream) watch_for_its_end(rq);
        return queue_answer(rq);
    }
    sleep_until_woken(rq);
    return MHD_YES;
}

void http_left(http_private *rq) {
    if (!rq->conn || rq->pub.gone) return;
    rq->pub.gone = true;
    rq->h->app.gone(rq->h->app.self, &rq->pub);
    if (rq->suspended)
        http_wake(&rq->pub);
    else
        shutdown(rq->conn->fd, SHUT_RDWR);
}

void http_on_completed(void *cls, struct MHD_Connection *m, void **ctx,
                       enum MHD_RequestTerminationCode code) {
    (void)m;
    http *h = cls;
    http_private *rq = *ctx;
    h->progress = true;
    if (!rq) return;
    *ctx = NULL;
    http_conn *c = rq->conn;
    rq->conn = NULL;
    c->rq = NULL;
    c->served = true;
    c->idle_since_us = clock_us();
    c->deadline_us = c->idle_since_us +
                     ((uint64_t)h->opt.idle_timeout_s + h->opt.header_timeout_s) * 1000000u;
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && !rq->pub.gone) {
        rq->pub.gone = true;
        h->app.gone(h->app.self, &rq->pub);
    }
    h->app.done(h->app.self, &rq->pub);
    http_unref(&rq->pub);
}

/* ---- for the app ---- */

const char *http_header(const http_request *rq, const char *name) {
    return MHD_lookup_connection_value(priv(rq)->conn->mhd, MHD_HEADER_KIND, name);
}

const char *http_query(const http_request *rq, const char *name) {
    const char *value = NULL;
    struct MHD_Connection *c = priv(rq)->conn->mhd;
    if (MHD_lookup_connection_value_n(c, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value,
                                      NULL) == MHD_NO)
        return NULL;
    return value ? value : "";
}

void http_wake(http_request *pub) {
    http_private *rq = priv(pub);
    rq->h->dirty = true;
    if (!rq->suspended) return;
    rq->suspended = false;
    MHD_resume_connection(rq->conn->mhd);
}

static bool is_answered(const http_private *rq) {
    return rq->pub.status && !rq->early;
}

/* The last event of a stream that the app has not begun. */
static void end_early(http_private *rq, str body, bool failed) {
    const error_form *form = errors_of(&rq->pub);
    buf *out = http_stream_out(&rq->pub);
    rq->early = false;
    buf_add(out, str_of(failed ? form->event : "data: "));
    buf_add(out, body);
    buf_add(out, STR("\n\n"));
    buf_add(out, str_of(form->last));
    http_stream_end(&rq->pub);
}

void http_answer(http_request *pub, int status, const char *type, str body) {
    http_private *rq = priv(pub);
    if (is_answered(rq) || !rq->conn) return;
    if (rq->early) {
        end_early(rq, body, status >= 400);
        return;
    }
    pub->status = status;
    rq->type = type;
    rq->payload = body;
    /* While a body arrives nothing can be queued: it is discarded, and the last call answers.
     */
    rq->phase = PHASE_ANSWER;
    http_wake(pub);
}

/* Without memory: the ready-made 503, or the last word of a stream that has begun. */
static void answer_no_memory(http_private *rq) {
    if (rq->early) {
        rq->early = false;
        http_stream_out(&rq->pub)->failed = true;
        http_wake(&rq->pub);
        return;
    }
    rq->no_memory = true;
    http_answer(&rq->pub, 503, NULL, (str){NULL, 0});
}

void http_refuse_memory(http_request *pub) {
    http_private *rq = priv(pub);
    if (is_answered(rq)) return;
    uint64_t left = pool_size(rq->h->pool) - pool_used(rq->h->pool);
    uint64_t mine = pub->mem.total, most = pub->mem.limit;
    bool large = mine >= most / 4 && left + mine >= most;
    if (pub->mem.failed && (left >= most || large)) {
        /* Others leave it what one request may have: its own size is the cause, a retry no
         * help. */
        static char text[] = "{\"error\":{\"message\":\"the request needs more memory than one "
                             "request may have\","
                             "\"type\":\"invalid_request_error\",\"param\":null,\"code\":413}}";
        http_answer(pub, 413, "application/json", (str){text, sizeof text - 1});
        return;
    }
    answer_no_memory(rq);
}

void http_set(http_request *pub, const char *name, const char *value) {
    http_private *rq = priv(pub);
    if (!value) return;
    CHECK(rq->n_headers < MAX_SET_HEADERS);
    rq->header[rq->n_headers].name = name;
    rq->header[rq->n_headers++].value = value;
}

void http_refuse(http_request *pub, const failure *f) {
    http_private *rq = priv(pub);
    if (is_answered(rq)) return;
    buf b;
    buf_init(&b, &pub->mem);
    errors_of(pub)->write(&b, f, pub->id);
    if (b.failed) {
        answer_no_memory(rq);
        return;
    }
    int http = errors_of(pub)->http(f);
    if (http == 429 || http == 503) {
        double wait =
            f->retry_after_s > 0 ? f->retry_after_s : rq->h->app.retry_after_s(rq->h->app.self);
        unsigned s = wait >= 1 && wait < 3600 ? (unsigned)(wait + 0.999) : wait < 1 ? 1 : 3600;
        snprintf(rq->retry_after, sizeof rq->retry_after, "%u", s);
    }
    pub->refusal = arena_str(&pub->mem, str_of(f->err.text)).ptr;
    http_set(pub, "Allow", f->allow);
    http_set(pub, "WWW-Authenticate", http == 401 ? "Bearer" : NULL);
    http_answer(pub, http, "application/json", buf_str(&b));
}

static void begin_stream(http_private *rq, const char *type) {
    rq->stream = true;
    http_answer(&rq->pub, 200, type, (str){NULL, 0});
}

void http_stream(http_request *pub) {
    http_private *rq = priv(pub);
    if (is_answered(rq) || !rq->conn) return;
    pub->streaming = true;
    if (!rq->early) begin_stream(rq, "text/event-stream");
    rq->early = false;
    http_wake(pub);
}

void http_stream_lines(http_request *pub) {
    http_private *rq = priv(pub);
    if (is_answered(rq) || !rq->conn) return;
    pub->streaming = rq->lines = true;
    begin_stream(rq, "application/x-ndjson");
}

void http_beat(http_private *rq) {
    if (!rq->pub.status) {
        begin_stream(rq, "text/event-stream");
        rq->early = true;
    }
    buf_add(http_stream_out(&rq->pub), STR(":\n\n"));
    http_wake(&rq->pub);
}

buf *http_stream_out(http_request *pub) {
    http_private *rq = priv(pub);
    if (rq->out_at > 4096 && rq->out_at >= rq->out.len / 2 && !rq->no_memory) {
        rq->out.len -= rq->out_at;
        memmove(rq->out.ptr, rq->out.ptr + rq->out_at, rq->out.len);
        rq->out_at = 0;
    }
    return &rq->out;
}

size_t http_stream_pending(const http_request *pub) {
    const http_private *rq = priv(pub);
    return rq->out.len - rq->out_at + (rq->in_flight ? 1 : 0);
}

void http_stream_end(http_request *pub) {
    priv(pub)->ended = true;
    http_wake(pub);
}

void http_cut(http_request *pub) {
    http_left(priv(pub));
}

void http_ref(http_request *pub) {
    pub->refs++;
}

void http_unref(http_request *pub) {
    CHECK(pub->refs > 0);
    if (--pub->refs) return;
    http *h = priv(pub)->h;
    h->app.freed(h->app.self, pub);
    h->n_requests--;
    arena mem = pub->mem; /* the request lies in its own arena */
    arena_clear(&mem);
}
