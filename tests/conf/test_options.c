/* conf/ through conf/options.h. */
#include "tests/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "conf/options.h"

static char path[] = "/tmp/vramd-conf-XXXXXX";

static const char *file_with(const char *text) {
    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static status load_text(options *o, const char *text, err *e) {
    status s = options_load_file(o, file_with(text), e);
    unlink(path);
    return s;
}

static status load_args(options *o, err *e, int argc, const char **words) {
    char *argv[16];
    for (int i = 0; i <= argc; i++) argv[i] = (char *)words[i];
    return options_load_args(o, &argc, argv, NULL, e);
}

START_TEST(a_file_sets_options_by_section) {
    options o;
    err e;
    options_defaults(&o);
    ck_assert_int_eq(load_text(&o,
                               "# a comment\n[server]\nport = 8080\nhost = ::1\n[memory]\n"
                               "kv_cache_dtype = f32\nmax_body = 1\n",
                               &e),
                     ERR_INVALID); /* max_body belongs to [server] */
    ck_assert_str_eq(e.field, "max_body");
    ck_assert_ptr_nonnull(strstr(e.text, "7"));
    options_defaults(&o);
    ck_assert_int_eq(
        load_text(&o, "[server]\nport = 8080\nmax_body = 64KiB\nlog_requests = no\n", &e), OK);
    ck_assert_uint_eq(o.port, 8080);
    ck_assert_uint_eq(o.max_body, 65536);
    ck_assert(!o.log_requests);
    ck_assert_str_eq(o.host, "127.0.0.1");
}
END_TEST

START_TEST(what_a_file_gets_wrong_is_named_with_its_line) {
    static const struct {
        const char *text, *field, *part;
    } row[] = {
        {"[server]\nport = 70000\n", "port", "70000"},
        {"[server]\n\nport = x\n", "port", "3"},
        {"[server]\nprot = 1\n", "prot", "prot"},
        {"[memory]\nkv_cache_dtype = f17\n", "kv_cache_dtype", "f17"},
        {"[scheduler]\nmax_num_seqs = 0\n", "max_num_seqs", "0"},
        {"[server]\nport = 1\nport = 2\n", "port", "3"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        options o;
        err e;
        options_defaults(&o);
        ck_assert_msg(load_text(&o, row[i].text, &e) == ERR_INVALID, "row %zu", i);
        ck_assert_str_eq(e.field, row[i].field);
        ck_assert_msg(strstr(e.text, row[i].part) != NULL, "row %zu: %s", i, e.text);
    }
    options o;
    err e;
    ck_assert_int_eq(load_text(&o, "[server]\nprot = 1\n", &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.hint, "port"));
    ck_assert_int_eq(options_load_file(&o, "/nonexistent/vramd.conf", &e), ERR_NOT_FOUND);
}
END_TEST

START_TEST(flags_come_in_every_spelling_and_leave_the_rest) {
    options o;
    err e;
    options_defaults(&o);
    char *argv[] = {"serve", "--port=9", "file",      "--no-log-requests", "--np",
                    "4",     "-m",       "a.gguf",    "--kv-cache-dtype",  "f32",
                    "--",    "--port",   (char *)NULL};
    int argc = 12;
    argv[4] = "--parallel";
    ck_assert_int_eq(options_load_args(&o, &argc, argv, NULL, &e), OK);
    ck_assert_uint_eq(o.port, 9);
    ck_assert(!o.log_requests);
    ck_assert_uint_eq(o.max_num_seqs, 4);
    ck_assert_str_eq(o.model, "a.gguf");
    ck_assert(str_eqz(options_word("kv_cache_dtype", o.kv_cache_dtype), "f32"));
    ck_assert_int_eq(argc, 3);
    ck_assert_str_eq(argv[1], "file");
    ck_assert_str_eq(argv[2], "--port");
}
END_TEST

START_TEST(wrong_flags_are_errors_that_name_them) {
    options o;
    err e;
    options_defaults(&o);
    ck_assert_int_eq(load_args(&o, &e, 2, (const char *[]){"serve", "--prot", NULL}),
                     ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.hint, "port"));
    ck_assert_int_eq(load_args(&o, &e, 2, (const char *[]){"serve", "--port", NULL}),
                     ERR_INVALID);
    ck_assert_int_eq(load_args(&o, &e, 3, (const char *[]){"serve", "--port", "-1", NULL}),
                     ERR_INVALID);
    ck_assert_str_eq(e.field, "port");
    char *argv[] = {"generate", "--port", "80", NULL};
    int argc = 3;
    ck_assert_int_eq(options_load_args(&o, &argc, argv, "model threads", &e), ERR_INVALID);
}
END_TEST

START_TEST(later_sources_win) {
    options o;
    err e;
    const char *f = file_with("[server]\nport = 1\nidle_timeout = 7\nmax_connections = 9\n");
    char *env[] = {"VRAMD_PORT=2", "VRAMD_IDLE_TIMEOUT=8", "HOME=/", "VRAMD_CACHE=/x", NULL};
    char *argv[] = {"serve", "--config", (char *)f, "--port", "3", NULL};
    int argc = 5;
    options_defaults(&o);
    ck_assert_int_eq(options_load(&o, &argc, argv, env, NULL, &e), OK);
    unlink(path);
    ck_assert_uint_eq(o.port, 3);
    ck_assert_uint_eq(o.idle_timeout, 8);
    ck_assert_uint_eq(o.max_connections, 9);
    char *wrong[] = {"VRAMD_PROT=2", NULL};
    ck_assert_int_eq(options_load_env(&o, wrong, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "PROT"));
}
END_TEST

static char *printed(void (*print)(FILE *)) {
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    print(f);
    fclose(f);
    return text;
}

START_TEST(the_sample_and_what_is_in_force_load_back_to_the_same_options) {
    options o, d;
    err e;
    options_defaults(&d);
    options_defaults(&o);
    char *text = printed(options_print_sample);
    ck_assert_int_eq(load_text(&o, text, &e), OK);
    free(text);
    ck_assert_mem_eq(&o, &d, sizeof o);
    d.port = 1234;
    d.kv_cache_dtype = 2;
    snprintf(d.model, sizeof d.model, "x.gguf");
    size_t n;
    FILE *f = open_memstream(&text, &n);
    options_print_current(f, &d);
    fclose(f);
    options_defaults(&o);
    ck_assert_int_eq(load_text(&o, text, &e), OK);
    free(text);
    ck_assert_uint_eq(o.port, 1234);
    ck_assert_uint_eq(o.kv_cache_dtype, 2);
    ck_assert_str_eq(o.model, "x.gguf");
}
END_TEST

/* As mdoc writes a flag: with a minus for each underscore. */
static bool names_flag(const char *page, const char *name) {
    char flag[96] = ".Fl \\-";
    size_t n = strlen(flag);
    for (; *name; name++) {
        if (*name == '_') flag[n++] = '\\';
        flag[n++] = *name == '_' ? '-' : *name;
    }
    flag[n] = '\0';
    return strstr(page, flag) != NULL;
}

START_TEST(the_manual_page_names_every_option) {
    char *text = printed(options_print_man);
#define X(section, type, name, ...)                                                            \
    ck_assert_msg(names_flag(text, #name), "%s is not in the manual", #name);
    OPTION_LIST(X)
#undef X
    ck_assert(!names_flag(text, "no_such_option"));
    free(text);
}
END_TEST

CHECK_MAIN("options", a_file_sets_options_by_section,
           what_a_file_gets_wrong_is_named_with_its_line,
           flags_come_in_every_spelling_and_leave_the_rest,
           wrong_flags_are_errors_that_name_them, later_sources_win,
           the_sample_and_what_is_in_force_load_back_to_the_same_options,
           the_manual_page_names_every_option)
