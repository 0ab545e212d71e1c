/* module: api
 * Arbitrary bytes at the whole front end: libmicrohttpd, http*.c, every endpoint, over a Unix
 * socket, with the machine of fake_port.h behind it; one thread, no clock but for deadlines.
 * The first byte is a set of flags (below); then follow raw bytes of a connection, or with
 * AS_BODY a byte that picks an endpoint and the body of a POST to it. However it goes, what
 * comes back is an answer or a close, and afterwards nothing is held. */
#include <check.h>
#include <fcntl.h>

#include "base/check.h"

/* No test runner is here to take a report. */
#undef ck_assert
#undef ck_assert_msg
#define ck_assert(c)          CHECK(c)
#define ck_assert_msg(c, ...) CHECK(c)
#include "tests/api/fake_port.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { AS_BODY = 1, IN_PIECES = 2, HALF_CLOSE = 4, LEAVE_EARLY = 8 };
enum { MAX_TURNS = 400, SETTLED = 4, MAX_JOBS = 256 };

static fake f;
static uint64_t idle_http_bytes, idle_pool_bytes;
static struct {
    void (*work)(void *), (*done)(void *);
    void *arg;
} jobs[MAX_JOBS];
static unsigned n_jobs;

static bool offload(port *p, void (*work)(void *), void (*done)(void *), void *arg) {
    (void)p;
    if (n_jobs == MAX_JOBS) return false;
    jobs[n_jobs].work = work, jobs[n_jobs].done = done, jobs[n_jobs++].arg = arg;
    return true;
}

static uint64_t http_bytes(void) {
    ledger_view v;
    ledger_read(f.port.ledger, &v);
    return v.cls[MEM_HTTP].ledger_bytes;
}

/* The pool and the engine of a whole daemon, a moment each. */
static void turn(void) {
    uv_run(&f.loop, UV_RUN_NOWAIT);
    for (unsigned i = 0, n = n_jobs; i < n; i++) {
        jobs[i].work(jobs[i].arg);
        jobs[i].done(jobs[i].arg);
    }
    n_jobs = 0;
    fake_on_step(&f.step);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    static port_ops ops;
    static char host[64];
    snprintf(host, sizeof host, "unix:/tmp/vramd-fuzz-%d.sock", (int)getpid());
    fake_init(&f);
    f.opt.host = host;
    f.opt.heartbeat_s = 0;
    f.opt.idle_timeout_s = f.opt.header_timeout_s = f.opt.body_timeout_s = 3600;
    fake_open(&f);
    ops = *f.port.ops;
    ops.offload = offload;
    f.port.ops = &ops;
    for (int i = 0; i < SETTLED; i++) turn();
    idle_http_bytes = http_bytes();
    idle_pool_bytes = pool_used(f.port.pool);
    return 0;
}

static int dial(void) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    strcpy(sa.sun_path, f.opt.host + strlen("unix:"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

/* The first line tells: nothing at all, or an answer of HTTP/1 with a status that we send. */
static void check_answer(const char *got, size_t n) {
    static const int known[] = {100, 200, 204, 400, 404, 405, 413,
                                414, 429, 431, 501, 503, 505};
    int status = 0;
    if (n == 0) return;
    CHECK(n >= 12 && sscanf(got, "HTTP/1.%*1[01] %3d", &status) == 1);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (status == known[i]) return;
    fprintf(stderr, "answer: %.*s\n", (int)n, got);
    CHECK(!"a status that nobody should see");
}

/* Sends piece by piece, reads what comes; done when nothing moves any more. */
static void talk(int fd, const char *text, size_t n, size_t piece, bool half_close) {
    char got[256], more[65536];
    size_t sent = 0, n_got = 0;
    bool open = true;
    for (int turns = 0, still = 0; open && turns < MAX_TURNS && still < SETTLED; turns++) {
        bool moved = false;
        if (sent < n) {
            size_t k = n - sent < piece ? n - sent : piece;
            ssize_t w = send(fd, text + sent, k, MSG_NOSIGNAL);
            if (w < 0 && errno != EAGAIN) sent = n; /* closed on us */
            if (w > 0) sent += (size_t)w, moved = true;
            if (sent == n && half_close) shutdown(fd, SHUT_WR);
        }
        turn();
        for (ssize_t r; open && (r = recv(fd, more, sizeof more, 0)) != -1; moved = true) {
            open = r > 0;
            size_t k = (size_t)r < sizeof got - n_got ? (size_t)r : sizeof got - n_got;
            memcpy(got + n_got, more, k);
            n_got += k;
        }
        still = moved || atomic_load(&f.n_live) || n_jobs ? 0 : still + 1;
    }
    check_answer(got, n_got < sizeof got ? n_got : sizeof got - 1);
}

static void converse(uint8_t flags, const char *text, size_t n) {
    int fd = dial();
    if (flags & LEAVE_EARLY) {
        if (send(fd, text, n, MSG_NOSIGNAL) < 0) CHECK(errno == EAGAIN || errno == EPIPE);
        turn();
    } else {
        talk(fd, text, n, flags & IN_PIECES ? 1 + n / 16 : SIZE_MAX, flags & HALF_CLOSE);
    }
    close(fd);
    for (int i = 0; i < MAX_TURNS; i++) {
        turn();
        if (http_bytes() == idle_http_bytes && pool_used(f.port.pool) == idle_pool_bytes) break;
    }
    CHECK(http_bytes() == idle_http_bytes);
    CHECK(pool_used(f.port.pool) == idle_pool_bytes);
    CHECK(atomic_load(&f.n_live) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    static const char *const path[] = {"/v1/completions", "/v1/chat/completions", "/tokenize",
                                       "/detokenize"};
    if (n < 2) return 0;
    if (!(p[0] & AS_BODY)) {
        converse(p[0], (const char *)p + 1, n - 1);
        return 0;
    }
    char *text = NULL;
    int head = asprintf(&text, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                        path[p[1] % 4], n - 2);
    CHECK(head > 0 && (text = realloc(text, (size_t)head + n)));
    memcpy(text + head, p + 2, n - 2);
    converse(p[0], text, (size_t)head + n - 2);
    free(text);
    return 0;
}
