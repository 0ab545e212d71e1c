/* The logger, the one mutable global of the house. */
#include "base/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

static const char *const names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};

static atomic_int level = LOG_INFO;
static atomic_bool journal;
static atomic_ullong dropped;

/* JOURNAL_STREAM names the device and inode of the stream that systemd connected: a shell that
 * a service started inherits the variable, but not the stream (systemd.exec(5)). */
static bool stderr_is_journal(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_init(log_level l) {
    atomic_store(&level, (int)l);
    atomic_store(&journal, stderr_is_journal());
}

bool log_level_by_name(str s, log_level *out) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!str_eqz(s, names[i])) continue;
        *out = (log_level)i;
        return true;
    }
    return false;
}

log_level log_current(void) {
    return (log_level)atomic_load(&level);
}

uint64_t log_dropped(void) {
    return atomic_load(&dropped);
}

/* poll(2) calls a pipe writable when a line fits: no thread waits for a reader that has
 * stopped. */
static bool write_now(const char *line, size_t n) {
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) &&
           write(STDERR_FILENO, line, n) == (ssize_t)n;
}

/* A message carries text from outside: no line of a log may be forged by a newline, and the
 * journal shows a line that is no UTF-8 as "blob data". */
static void clean(char *s, size_t n) {
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        int k = utf8_decode(s + i, n - i, &cp);
        if (k <= 0)
            s[i] = '?';
        else if (cp < ' ' || cp == 0x7f)
            s[i] = ' ';
        i += k <= 0 ? 1 : (size_t)k;
    }
}

void log_line(log_level l, const char *fmt, ...) {
    static const int priority[] = {3, 4, 6, 7};
    if ((int)l > atomic_load_explicit(&level, memory_order_relaxed)) return;
    char line[2048];
    int n;
    if (atomic_load_explicit(&journal, memory_order_relaxed)) {
        n = snprintf(line, sizeof line, "<%d>", priority[l]);
    } else {
        struct timespec t;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &t);
        gmtime_r(&t.tv_sec, &tm);
        n = snprintf(line, sizeof line, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s ",
                     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                     tm.tm_sec, t.tv_nsec / 1000000, names[l]);
    }
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    size_t end = (size_t)n + (m < 0 ? 0 : (size_t)m);
    if (end > sizeof line - 2) end = utf8_complete((str){line, sizeof line - 2});
    clean(line + n, end - (size_t)n);
    line[end++] = '\n';
    if (!write_now(line, end)) atomic_fetch_add(&dropped, 1);
}
