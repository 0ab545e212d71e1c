/* The logger, read back through a pipe in the place of stderr. */
#include "tests/check_main.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utf8.h"

static int saved = -1, out = -1;

static void capture(void) {
    int fd[2];
    ck_assert_int_eq(pipe(fd), 0);
    ck_assert_int_eq(fcntl(fd[0], F_SETFL, O_NONBLOCK), 0);
    saved = dup(2);
    dup2(fd[1], 2);
    close(fd[1]);
    out = fd[0];
}

static size_t captured(char *buf, size_t size) {
    ssize_t n, all = 0;
    while ((n = read(out, buf + all, size - 1 - (size_t)all)) > 0) all += n;
    buf[all] = '\0';
    return (size_t)all;
}

static void release(void) {
    dup2(saved, 2);
    close(saved);
    close(out);
}

START_TEST(a_line_has_time_level_and_message) {
    char buf[4096];
    unsetenv("JOURNAL_STREAM");
    capture();
    log_init(LOG_INFO);
    log_info("ready port=%d", 8000);
    log_debug("not this");
    log_error("broken");
    captured(buf, sizeof buf);
    release();
    int y, mo, d, h, mi, s, ms, end = 0;
    ck_assert_int_eq(sscanf(buf, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ info ready port=8000%n", &y, &mo,
                            &d, &h, &mi, &s, &ms, &end),
                     7);
    ck_assert(buf[end] == '\n' && strstr(buf, "error broken\n") && !strstr(buf, "not this"));
    ck_assert_int_eq(log_current(), LOG_INFO);
}
END_TEST

START_TEST(levels_decide_what_is_written) {
    for (int l = LOG_ERROR; l <= LOG_DEBUG; l++) {
        char buf[4096];
        int lines = 0;
        capture();
        log_init((log_level)l);
        for (int m = LOG_ERROR; m <= LOG_DEBUG; m++) log_line((log_level)m, "x");
        captured(buf, sizeof buf);
        release();
        for (char *c = buf; *c; c++) lines += *c == '\n';
        ck_assert_int_eq(lines, l + 1);
    }
}
END_TEST

START_TEST(a_pipe_that_nobody_reads_stops_nobody) {
    capture();
    log_init(LOG_INFO);
    uint64_t before = log_dropped();
    for (int i = 0; i < 2000; i++) log_info("%0100d", i); /* a pipe holds 64 KiB */
    release();
    ck_assert_uint_gt(log_dropped() - before, 1000);
    ck_assert_uint_lt(log_dropped() - before, 2000);
}
END_TEST

START_TEST(the_journal_gets_priorities_only_when_stderr_is_its_stream) {
    char buf[4096], stream[64];
    struct stat st;
    capture();
    fstat(2, &st);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init(LOG_DEBUG);
    log_error("a"), log_warn("b"), log_info("c"), log_debug("d");
    captured(buf, sizeof buf);
    setenv("JOURNAL_STREAM", "1:2", 1);
    log_init(LOG_DEBUG);
    char other[4096];
    log_error("a");
    captured(other, sizeof other);
    release();
    ck_assert_str_eq(buf, "<3>a\n<4>b\n<6>c\n<7>d\n");
    ck_assert(strstr(other, "Z error a\n"));
}
END_TEST

START_TEST(a_message_cannot_forge_a_line_and_a_long_one_is_cut) {
    char buf[8192], long_text[4000];
    capture();
    log_init(LOG_INFO);
    log_info("user=%s", "a\nerror: forged\r\x1b[0m");
    size_t n = captured(buf, sizeof buf);
    ck_assert(memchr(buf, '\n', n) == buf + n - 1);
    ck_assert(strstr(buf, "user=a error: forged  [0m\n"));
    log_info("path=%s",
             "/h\xe4\xff, \xc3\xa4, \xe2\x82"); /* Latin-1, then UTF-8, then half of it */
    captured(buf, sizeof buf);
    ck_assert(strstr(buf, "path=/h??, \xc3\xa4, ??\n"));
    for (size_t shift = 0; shift < 3; shift++) {
        memset(long_text, 'a', shift);
        for (size_t i = shift; i + 3 < sizeof long_text; i += 3)
            memcpy(long_text + i, "\xe2\x82\xac", 4);
        log_info("%s", long_text);
        n = captured(buf, sizeof buf);
        ck_assert(n > 2040 && n <= 2048 && buf[n - 1] == '\n');
        ck_assert(utf8_valid((str){buf, n}));
    }
    release();
}
END_TEST

START_TEST(lines_that_cannot_be_written_are_counted) {
    uint64_t before = log_dropped();
    saved = dup(2);
    close(2);
    log_error("into nothing");
    dup2(saved, 2);
    close(saved);
    ck_assert_uint_eq(log_dropped(), before + 1);
}
END_TEST

static void *talk(void *arg) {
    for (int i = 0; i < 100; i++) log_info("%s", (const char *)arg);
    return NULL;
}

START_TEST(lines_of_several_threads_do_not_mix) {
    static char buf[65536];
    static const char *const words[] = {"aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"};
    pthread_t t[2];
    unsetenv("JOURNAL_STREAM");
    capture();
    log_init(LOG_INFO);
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, talk, (void *)words[i]);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    captured(buf, sizeof buf);
    release();
    int n = 0;
    for (char *rest, *line = strtok_r(buf, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest), n++) {
        const char *word = strrchr(line, ' ') + 1;
        ck_assert(strcmp(word, words[0]) == 0 || strcmp(word, words[1]) == 0);
        ck_assert_uint_eq(strlen(line), strlen("2026-01-01T00:00:00.000Z info ") + 16);
    }
    ck_assert_int_eq(n, 200);
}
END_TEST

START_TEST(levels_have_the_names_that_lines_begin_with) {
    static const struct {
        const char *name;
        log_level level;
    } t[] = {
        {"error", LOG_ERROR}, {"warn", LOG_WARN}, {"info", LOG_INFO}, {"debug", LOG_DEBUG}};
    log_level l = LOG_WARN;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ck_assert(log_level_by_name(str_of(t[i].name), &l));
        ck_assert_int_eq(l, t[i].level);
    }
    l = LOG_WARN;
    ck_assert(!log_level_by_name(STR("inf"), &l) && !log_level_by_name(STR(""), &l));
    ck_assert_int_eq(l, LOG_WARN);
}
END_TEST

CHECK_MAIN("log", levels_have_the_names_that_lines_begin_with,
           a_line_has_time_level_and_message, levels_decide_what_is_written,
           a_pipe_that_nobody_reads_stops_nobody,
           the_journal_gets_priorities_only_when_stderr_is_its_stream,
           a_message_cannot_forge_a_line_and_a_long_one_is_cut,
           lines_that_cannot_be_written_are_counted, lines_of_several_threads_do_not_mix)
