/* conf/ through conf/options.h. */
#include "tests/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "conf/sections.h"
#include "conf/options.h"
#include "daemon/commands.h"

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
    d.kv_cache_dtype = 3;
    snprintf(d.model, sizeof d.model, "x.gguf");
    size_t n;
    FILE *f = open_memstream(&text, &n);
    options_print_current(f, &d);
    fclose(f);
    options_defaults(&o);
    ck_assert_int_eq(load_text(&o, text, &e), OK);
    free(text);
    ck_assert_uint_eq(o.port, 1234);
    ck_assert_uint_eq(o.kv_cache_dtype, 3);
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

START_TEST(the_manual_page_of_the_file_names_every_key_and_section) {
    char *text = printed(options_print_man_conf), want[96];
#define X(section, type, name, ...)                                                            \
    ck_assert_msg(strstr(text, "\n.It Ic " #name " No = Ar "), "%s is not in it", #name);
    OPTION_LIST(X)
#undef X
#define X(name, help)                                                                          \
    snprintf(want, sizeof want, "\n.Ss Section [%s]: ", #name);                                \
    ck_assert_ptr_nonnull(strstr(text, want));
    SECTION_LIST(X)
#undef X
    ck_assert_ptr_null(strstr(text, "--")); /* dashes are masked, and no flag is named bare */
    free(text);
}
END_TEST

START_TEST(a_section_gives_a_model_options_of_its_own) {
    static model_sections m;
    char name[64], *none[] = {"vramd", NULL}, *flags[] = {"vramd", "--model", "x", NULL};
    options o, of;
    err e;
    int argc = 1;
    file_with("[scheduler]\nmax_num_seqs = 3\n[sampling]\ntop_k = 5\n"
              "[model small one]\nfile = /a.gguf\nmax_num_seqs = 7\npin = true\n"
              "tenants = alice, bob\n[server]\nport = 81\n"
              "[model org/large]\nload = request\nfile = /b.gguf\n");
    snprintf(name, sizeof name, "VRAMD_CONFIG=%s", path);
    char *env[] = {name, "VRAMD_TOP_P=0.5", NULL};
    options_defaults(&o);
    ck_assert_int_eq(options_load_models(&o, &m, &argc, none, env, &e), OK);
    ck_assert_uint_eq(m.n, 2);
    ck_assert_uint_eq(o.port, 81);
    ck_assert_uint_eq(o.max_num_seqs, 3);
    section_options(&m.v[0], &o, &of);
    ck_assert_str_eq(m.v[0].name, "small one");
    ck_assert_str_eq(m.v[0].tenants, "alice, bob");
    ck_assert(m.v[0].pin && !m.v[0].on_request && !m.v[1].pin && m.v[1].on_request);
    ck_assert_str_eq(of.model, "/a.gguf");
    ck_assert_str_eq(of.served_model_name, "small one");
    ck_assert_uint_eq(of.max_num_seqs, 7);
    ck_assert_str_eq(of.top_k, "5");
    ck_assert_str_eq(of.top_p, "0.5");
    section_options(&m.v[1], &o, &of);
    ck_assert_str_eq(of.served_model_name, "org/large");
    ck_assert_uint_eq(of.max_num_seqs, 3);
    argc = 3;
    options_defaults(&o);
    ck_assert_int_eq(options_load_models(&o, &m, &argc, flags, env, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "stands beside 2 sections"));
    argc = 1;
    options_defaults(&o);
    ck_assert_int_eq(options_load(&o, &argc, none, env, NULL, &e), OK); /* leaves them out */
    ck_assert_str_eq(o.model, "");
    unlink(path);
}
END_TEST

START_TEST(every_broken_line_of_a_file_is_told_with_its_number) {
    static const struct {
        const char *text, *part, *hint;
    } row[] = {
        {"[modle]\n", "line 1: there is no section [modle]", "did you mean [model]?"},
        {"\n[server]\n[nonsense-of-any-kind]\nport = 1\n", "line 3: there is no section", ""},
        {"port = 1\n", "line 1: port comes before any section", "[server]"},
        {"[model]\nport = 1\n", "line 2: port belongs in [server], not in [model]", "[server]"},
        {"[server]\nport\n", "line 2: neither [section] nor key = value", "#"},
        {"[server\nport = 1\n", "line 1: neither", ""},
        {"[server]\njunk\nport = 99999\n", "line 2: neither", ""},
        {"[server]\nport = 99999\njunk\n", "line 2: port = \"99999\" is out of range", ""},
        {"[server]\n\thost = a\n\tport = x\n", "line 3: port = \"x\" is no whole number", ""},
        {"[server]\nport = 1\nport = 1\n", "line 3: port was set in line 2 already", ""},
        {"[server]\nprt = 1\n", "line 2: there is no option \"prt\"", "did you mean port?"},
        {"[model]\nPort = 1\n", "line 2: there is no option \"Port\"", "port, in [server]?"},
        {"[server]\nmax-body = 1\n", "there is no option", "did you mean max_body?"},
        {"[server]\nqqqqqqqqqqq = 1\n", "there is no option \"qqqqqqqqqqq\"", "--print-sample"},
        {"[server]\nport =\n", "port = \"\" is no whole number", ""},
        {"[server]\nport = 1 # x\n", "no whole number", ""},
        {"[server]\nhost = a\x1b[2J\n", "host = \"a?[2J\" has a control character", ""},
        {"[model a]\n", "line 1: [model a] names no file", "file ="},
        {"[model a]\nfile =\n", "line 1: [model a] names no file", "file ="},
        {"[model a]\nfile = x\n[model b]\nfile = y\n[model a]\n",
         "line 5: [model a] was begun in line 1 already", ""},
        {"[model ]\n", "line 1: a model's name", ""},
        {"[model a,b]\n", "line 1: a model's name", ""},
        {"[model a]\nfile = x\nfile = y\n", "line 3: file was set in this section", ""},
        {"[model a]\npin = true\npin = true\n", "line 3: pin was set in this section", ""},
        {"[model a]\npin = maybe\n", "line 2: pin = maybe, but it is false or true", ""},
        {"[model a]\nload = never\n", "line 2: load = never, but it is start or request", ""},
        {"[model a]\nfyle = x\n", "line 2: a model has no option \"fyle\"", "mean file?"},
        {"[model a]\nmodel = x\n", "line 2: a model has no option \"model\"", "by file"},
        {"[model a]\nport = 1\n", "line 2: port is the same for all models", "[server]"},
        {"[model a]\nmax_num_seqs = 0\n", "line 2: max_num_seqs = \"0\" is out of range", ""}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        options o;
        err e;
        options_defaults(&o);
        ck_assert_msg(load_text(&o, row[i].text, &e) == ERR_INVALID, "row %zu", i);
        ck_assert_msg(strstr(e.text, row[i].part) != NULL, "row %zu: %s", i, e.text);
        ck_assert_msg(strstr(e.hint, row[i].hint) != NULL, "row %zu: %s", i, e.hint);
        ck_assert_uint_gt(strlen(e.field) + (strstr(e.text, "neither") != NULL), 0);
    }
}
END_TEST

START_TEST(comments_blanks_and_line_ends_are_as_people_write_them) {
    options o;
    err e;
    options_defaults(&o);
    ck_assert_int_eq(load_text(&o,
                               "\xef\xbb\xbf; BOM\r\n[server]\r\n  # indented\r\n"
                               "   host : unix:/run/x.sock ; after\r\n\tport=1\r\n"
                               "[log]\nlog_level = DEBUG",
                               &e),
                     OK);
    ck_assert_str_eq(o.host, "unix:/run/x.sock");
    ck_assert_uint_eq(o.port, 1);
    ck_assert_uint_eq(o.log_level, 3);
    ck_assert_int_eq(load_text(&o, "", &e), OK);
}
END_TEST

START_TEST(a_line_too_long_is_refused_and_not_cut) {
    char text[600] = "[model]\nmodel = ";
    options o;
    err e;
    options_defaults(&o);
    size_t n = strlen(text);
    memset(text + n, 'a', 170);
    ck_assert_int_eq(load_text(&o, text, &e), OK);
    ck_assert_uint_eq(strlen(o.model), 170);
    memset(text + n, 'a', 400);
    ck_assert_int_eq(load_text(&o, text, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "line 2: longer than"));
    char *env[] = {text, NULL};
    memcpy(text, "VRAMD_MODEL=", 12);
    memset(text + 12, 'a', 255);
    text[12 + 255] = '\0';
    ck_assert_int_eq(options_load_env(&o, env, &e), OK);
    ck_assert_uint_eq(strlen(o.model), 255);
    memset(text + 12, 'b', 256);
    text[12 + 256] = '\0';
    ck_assert_int_eq(options_load_env(&o, env, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "too long"));
    ck_assert_int_eq(o.model[0], 'a');
}
END_TEST

START_TEST(files_that_cannot_be_read_are_told_apart) {
    options o;
    err e;
    options_defaults(&o);
    ck_assert_int_eq(options_load_file(&o, "/nonexistent/vramd.conf", &e), ERR_NOT_FOUND);
    ck_assert_str_eq(e.field, "config");
    ck_assert_int_eq(options_load_file(&o, "/tmp", &e), ERR_IO);
    ck_assert_int_eq(options_load_file(&o, "/dev/zero", &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "NUL"));
}
END_TEST

START_TEST(values_of_each_type_are_read_strictly) {
    static const struct {
        const char *flag;
        bool good;
    } row[] = {{"--port=0", true},
               {"--port=65535", true},
               {"--port=65536", false},
               {"--port=-1", false},
               {"--port=+1", false},
               {"--port= 1", false},
               {"--port=1.0", false},
               {"--port=0x10", false},
               {"--port=18446744073709551616", false},
               {"--port=18446744073709551617", false},
               {"--max-body=1KiB", true},
               {"--max-body=1GiB", true},
               {"--max-body=1.5MB", true},
               {"--max-body=1023", false},
               {"--max-body=1.1GiB", false},
               {"--max-body=4 potatoes", false},
               {"--block-size=8", true},
               {"--block-size=256", true},
               {"--block-size=24", false},
               {"--block-size=4", false},
               {"--kv-cache-tokens=1099511627776", true},
               {"--kv-cache-tokens=1099511627777", false},
               {"--log-requests=yes", true},
               {"--log-requests=OFF", true},
               {"--log-requests=0", true},
               {"--log-requests=2", false},
               {"--log-requests=", false},
               {"--no-log-requests=true", false},
               {"--no-port", false},
               {"--kv-cache-dtype=bf16", true},
               {"--kv_cache_dtype=F32", true},
               {"--kv-cache-dtype=int8", true},
               {"--kv-cache-dtype=Q8_0", true},
               {"--kv-cache-dtype=fp8", true},
               {"--cache-type-v=int4", true},
               {"--cache-type-v=q4_0", false},
               {"--cache-type-v=auto", false},
               {"--kv-cache-dtype=f", false},
               {"--kv-cache-dtype=f16|bf16", false},
               {"--kv-cache-dtype=", false},
               {"--kv-cache-dtype=0", false}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        options o, d;
        err e = {0};
        options_defaults(&o);
        options_defaults(&d);
        status s = load_args(&o, &e, 2, (const char *[]){"serve", row[i].flag, NULL});
        ck_assert_msg((s == OK) == row[i].good, "%s: %s", row[i].flag, e.text);
        if (s != OK) ck_assert_mem_eq(&o, &d, sizeof o); /* an error changes nothing */
        if (s != OK) ck_assert_str_ne(e.field, "");
    }
}
END_TEST

START_TEST(every_alias_sets_its_option) {
    options o;
    err e;
    options_defaults(&o);
    const char *words[] = {"serve", "-m", "x",  "--alias", "y",  "-c=4096", "-np", "3",
                           "-b",    "7",  "-t", "2",       "-p", "81",      NULL};
    ck_assert_int_eq(load_args(&o, &e, 14, words), OK);
    ck_assert_str_eq(o.model, "x");
    ck_assert_str_eq(o.served_model_name, "y");
    ck_assert_uint_eq(o.max_model_len, 4096);
    ck_assert_uint_eq(o.max_num_seqs, 3);
    ck_assert_uint_eq(o.max_num_batched_tokens, 7);
    ck_assert_uint_eq(o.threads, 2);
    ck_assert_uint_eq(o.port, 81);
    ck_assert_int_eq(
        load_args(&o, &e, 3, (const char *[]){"serve", "--ctx-size", "8192", NULL}), OK);
    ck_assert_uint_eq(o.max_model_len, 8192);
    /* K and V of the cache have options of their own, as in llama.cpp. */
    ck_assert(str_eqz(options_word("cache_type_k", o.cache_type_k), "same"));
    const char *more[] = {"serve", "--cache-type-k", "f32", "--cache-type-v", "bf16", NULL};
    ck_assert_int_eq(load_args(&o, &e, 5, more), OK);
    ck_assert(str_eqz(options_word("cache_type_k", o.cache_type_k), "f32"));
    ck_assert(str_eqz(options_word("cache_type_v", o.cache_type_v), "bf16"));
    ck_assert(str_eqz(options_word("kv_cache_dtype", o.kv_cache_dtype), "auto"));
    /* One dash for short ones, two for words. */
    ck_assert_int_eq(load_args(&o, &e, 3, (const char *[]){"serve", "-port", "1", NULL}),
                     ERR_INVALID);
    ck_assert_int_eq(load_args(&o, &e, 3, (const char *[]){"serve", "--np", "1", NULL}),
                     ERR_INVALID);
    ck_assert_int_eq(load_args(&o, &e, 3, (const char *[]){"serve", "---port", "1", NULL}),
                     ERR_INVALID);
}
END_TEST

START_TEST(words_that_are_no_flags_stay_in_order) {
    options o;
    err e;
    char *argv[] = {"generate", "a", "-", "--threads", "2", "", "b", "--", "-m", "--", NULL};
    int argc = 10;
    options_defaults(&o);
    ck_assert_int_eq(options_load_args(&o, &argc, argv, "model threads", &e), OK);
    static const char *const left[] = {"generate", "a", "-", "", "b", "-m", "--"};
    ck_assert_int_eq(argc, 7);
    for (int i = 0; i < 7; i++) ck_assert_str_eq(argv[i], left[i]);
    ck_assert_ptr_null(argv[7]);
    ck_assert_uint_eq(o.threads, 2);
    char *foreign[] = {"generate", "--port", "1", NULL};
    argc = 3;
    ck_assert_int_eq(options_load_args(&o, &argc, foreign, "model threads", &e), ERR_INVALID);
    ck_assert_str_eq(e.text, "--port is no option of this subcommand");
}
END_TEST

START_TEST(a_cache_type_of_another_server_gets_what_to_use_instead) {
    static const struct {
        const char *flag, *word, *hint;
    } row[] = {{"--cache-type-k", "q4_0", "use int4"},
               {"--cache-type-v", "Q4_1", "use int4"},
               {"--kv-cache-dtype", "q5_0", "use int4"},
               {"--kv-cache-dtype", "q5_1", "use int4"},
               {"--cache-type-k", "iq4_nl", "use int4"},
               {"--kv-cache-dtype", "fp8_e4m3", "use fp8"},
               {"--kv-cache-dtype", "fp8_e5m2", "use int8"},
               {"--kv-cache-dtype", "q8_1", "did you mean q8_0?"},
               {"--activation-dtype", "q4_0", ""}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        options o;
        err e = {0};
        ck_assert_int_eq(
            load_args(&o, &e, 3, (const char *[]){"serve", row[i].flag, row[i].word, NULL}),
            ERR_INVALID);
        ck_assert_msg(row[i].hint[0] ? strstr(e.hint, row[i].hint) != NULL : !e.hint[0],
                      "%s %s: %s", row[i].flag, row[i].word, e.hint);
    }
}
END_TEST

START_TEST(a_flag_of_another_server_gets_what_to_do_instead) {
    static const struct {
        const char *flag, *hint;
    } row[] = {{"-hf", "download the .gguf file first"},
               {"-ncmoe", "--n-cpu-moe N"},
               {"--api-key", "vramd key NAME"},
               {"--api-key=secret", "--api-keys-file FILE"},
               {"--gpu-memory-utilization", "--memory 90%"},
               {"--tensor-split", "one device"},
               {"--dtype", "used as stored"},
               {"--jinja", "--chat-template FILE"},
               {"--chat", "--help lists them"}, /* near --host by its letters alone */
               {"--prot", "did you mean --port?"},
               {"--max_num_seq", "did you mean --max-num-seqs?"},
               {"--confg", "did you mean --config?"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        options o;
        err e = {0};
        int n = 3;
        ck_assert_int_eq(
            load_args(&o, &e, n, (const char *[]){"serve", row[i].flag, "1", NULL}),
            ERR_INVALID);
        ck_assert_msg(strstr(e.hint, row[i].hint) != NULL, "%s: %s", row[i].flag, e.hint);
    }
}
END_TEST

START_TEST(a_second_model_is_refused) {
    options o;
    err e = {0};
    ck_assert_int_eq(
        load_args(&o, &e, 5, (const char *[]){"serve", "--model", "a", "-m", "b", NULL}),
        ERR_INVALID);
    ck_assert_str_eq(e.text, "-m is given twice; a process serves one model");
    ck_assert_str_eq(e.field, "model");
    /* Of another option the last value counts. */
    ck_assert_int_eq(
        load_args(&o, &e, 5, (const char *[]){"serve", "--port", "1", "-p", "2", NULL}), OK);
    ck_assert_uint_eq(o.port, 2);
}
END_TEST

START_TEST(the_environment_tolerates_only_what_it_must) {
    static const struct {
        const char *pair;
        bool good;
        const char *hint;
    } row[] = {{"VRAMD_PORT=1", true, ""},
               {"VRAMD_LOG_REQUESTS=no", true, ""},
               {"VRAMD_CONFIG=/nowhere", true, ""},
               {"VRAMD_CACHE=/x", true, ""},
               {"VRAMD_TEST_MODEL=/x", true, ""},
               {"VRAMD_BENCH_SECONDS=1", true, ""},
               {"VRAMD_PEER_LLAMA=/x", true, ""},
               {"VRAMDX=1", true, ""},
               {"PORT=x", true, ""},
               {"VRAMD_=1", false, ""},
               {"VRAMD_PROT=1", false, "did you mean VRAMD_PORT?"},
               {"VRAMD_FOO=1", false, "are kept for options"},
               {"VRAMD_port=1", false, "VRAMD_PORT"},
               {"VRAMD_PORT=", false, ""},
               {"VRAMD_CACHES=1", false, ""},
               {"VRAMD_PORT=tcp://10.0.0.1:8000", false, "enableServiceLinks"},
               {"VRAMD_SERVICE_HOST=10.0.0.1", false, "enableServiceLinks"},
               {"VRAMD_PORT_8000_TCP=tcp://10.0.0.1:8000", false, "enableServiceLinks"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        options o;
        err e = {0};
        char *env[] = {"HOME=/", (char *)row[i].pair, NULL};
        options_defaults(&o);
        status s = options_load_env(&o, env, &e);
        ck_assert_msg((s == OK) == row[i].good, "%s: %s", row[i].pair, e.text);
        ck_assert_msg(strstr(e.hint, row[i].hint) != NULL, "%s: %s", row[i].pair, e.hint);
    }
}
END_TEST

START_TEST(the_file_is_named_by_flag_or_environment) {
    options o;
    err e;
    char variable[64], *env[] = {variable, NULL};
    snprintf(variable, sizeof variable, "VRAMD_CONFIG=%s", file_with("[server]\nport = 5\n"));
    char *argv[] = {"serve", NULL};
    int argc = 1;
    options_defaults(&o);
    ck_assert_int_eq(options_load(&o, &argc, argv, env, NULL, &e), OK);
    unlink(path);
    ck_assert_uint_eq(o.port, 5);
    char *flag[] = {"serve", "--config=/nonexistent/x", NULL};
    argc = 2;
    ck_assert_int_eq(options_load(&o, &argc, flag, env, NULL, &e), ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(e.text, "/nonexistent/x"));
    char *bare[] = {"serve", "--config", NULL};
    argc = 2;
    ck_assert_int_eq(options_load(&o, &argc, bare, NULL, NULL, &e), ERR_INVALID);
    char *word[] = {"generate", "--", "--config", NULL};
    argc = 3;
    ck_assert_int_eq(options_load(&o, &argc, word, NULL, "model", &e), OK);
    ck_assert_int_eq(argc, 2);
    ck_assert_str_eq(word[1], "--config");
}
END_TEST

/* Each value another than the default. */
static options all_changed(void) {
    options o;
    options_defaults(&o);
#define OTHER_STR(name)             strcpy(o.name, "+");
#define OTHER_U32(name)             o.name += 1;
#define OTHER_POW2                  OTHER_U32
#define OTHER_U64                   OTHER_U32
#define OTHER_ENUM                  OTHER_U32
#define OTHER_BYTES                 OTHER_U32
#define OTHER_BOOL(name)            o.name = !o.name;
#define X(section, type, name, ...) OTHER_##type(name)
    OPTION_LIST(X)
#undef X
    return o;
}

static const char live_names[] = " request_timeout drain_grace drain_timeout metrics_auth "
                                 "cors_origins ollama_api log_requests log_level "
                                 "trust_request_chat_template memory ";

static bool is_live(const char *name) {
    char word[80];
    snprintf(word, sizeof word, " %s ", name);
    return strstr(live_names, word) != NULL;
}

START_TEST(the_live_options_are_taken_and_no_others) {
    const options now = all_changed();
    options o, was;
    options_defaults(&o);
    was = o;
    options_take_live(&o, &now);
#define X(section, type, name, ...)                                                            \
    ck_assert_mem_eq(&o.name, is_live(#name) ? &now.name : &was.name, sizeof o.name);
    OPTION_LIST(X)
#undef X
}
END_TEST

static void check_change(void *arg, const char *name, bool live, const char *was,
                         const char *now) {
    ck_assert_msg(live == is_live(name), "%s", name);
    ck_assert_str_ne(was, now);
    if (strcmp(name, "max_body") == 0) ck_assert_str_eq(was, "4MiB");
    if (strcmp(name, "log_requests") == 0) ck_assert_str_eq(now, "false");
    ++*(int *)arg;
}

START_TEST(every_option_that_differs_is_reported_with_both_values) {
    const options now = all_changed();
    options o;
    int n = 0;
    options_defaults(&o);
#define X(...) +1
    ck_assert_int_eq(options_compare(&o, &now, check_change, &n), 0 OPTION_LIST(X));
    ck_assert_int_eq(n, 0 OPTION_LIST(X));
#undef X
    ck_assert_int_eq(options_compare(&o, &o, check_change, &n), 0);
}
END_TEST

START_TEST(a_name_with_one_letter_wrong_is_found_again) {
#define X(section, type, name, ...) #name,
    static const char *const names[] = {OPTION_LIST(X)};
#undef X
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[128], key[64], want[80];
        options o;
        err e;
        size_t n = strlen(names[i]);
        for (size_t k = 0; k < n; k++) {
            snprintf(key, sizeof key, "%.*s%s", (int)k, names[i], names[i] + k + 1);
            for (size_t j = 0; j < sizeof names / sizeof *names; j++)
                if (strcmp(key, names[j]) == 0) key[0] = '\0';
            if (!key[0]) continue;
            snprintf(text, sizeof text, "[model]\n%s = 1\n", key);
            /* cache_type_k and cache_type_v without the last letter are one word. */
            const char *first = names[i];
            for (size_t j = 0; k == n - 1 && first == names[i] && j < i; j++)
                if (strlen(names[j]) == n && strncmp(names[j], names[i], n - 1) == 0)
                    first = names[j];
            snprintf(want, sizeof want, "did you mean %s", first);
            ck_assert_int_eq(load_text(&o, text, &e), ERR_INVALID);
            ck_assert_msg(strncmp(e.hint, want, strlen(want)) == 0, "%s: %s", key, e.hint);
        }
    }
}
END_TEST

/* The sample with every "#key = value" made a line of its own. */
START_TEST(the_sample_without_its_comment_marks_is_the_defaults) {
    options o, d;
    err e;
    options_defaults(&d);
    memset(&o, 0, sizeof o);
    char *text = printed(options_print_sample);
    int n = 0;
    for (char *c = text; *c; c++)
        if (c[0] == '\n' && c[1] == '#' && c[2] != ' ') c[1] = ' ', n++;
#define X(...) +1
    ck_assert_int_eq(n, 0 OPTION_LIST(X));
#undef X
    ck_assert_msg(load_text(&o, text, &e) == OK, "%s", e.text);
    free(text);
    ck_assert_mem_eq(&o, &d, sizeof o);
}
END_TEST

START_TEST(the_help_shows_what_a_subcommand_knows) {
    char *all = NULL, *some = NULL;
    size_t n;
    FILE *f = open_memstream(&all, &n);
    options_print_help(f, NULL);
    fclose(f);
    f = open_memstream(&some, &n);
    options_print_help(f, "model threads");
    fclose(f);
    ck_assert(strstr(all, "  -p, --port N\n") && strstr(all, "--no-log-requests"));
    ck_assert(strstr(all, "[auto, f16, bf16, f32, int8, q8_0, fp8,\n"));
    ck_assert(!strstr(some, "--port") && strstr(some, "  -t, --threads N\n"));
    ck_assert(strstr(some, "  -m, --model TEXT\n") && !strstr(some, "[server]"));
    for (char *line = all, *end; (end = strchr(line, '\n')); line = end + 1)
        ck_assert_int_lt(end - line, 80);
    free(all);
    free(some);
}
END_TEST

START_TEST(words_are_given_for_the_values_of_an_enum) {
    ck_assert(str_eqz(options_word("backend", BACKEND_CUDA), "cuda"));
    ck_assert(str_eqz(options_word("backend", 3), "?"));
    ck_assert(str_eqz(options_word("port", 0), "?"));
    ck_assert(str_eqz(options_word("nothing", 0), "?"));
}
END_TEST

/* Whatever the table comes to list. */
START_TEST(the_logger_knows_every_level_by_its_word) {
    options o;
    log_level l;
    uint32_t n = 0;
    options_defaults(&o);
    ck_assert_int_eq(options_log_level(&o), LOG_INFO);
    options_set_default(&o, "log_level", "warn");
    ck_assert_int_eq(options_log_level(&o), LOG_WARN);
    for (; !str_eqz(options_word("log_level", n), "?"); n++) {
        o.log_level = n;
        ck_assert(log_level_by_name(options_word("log_level", n), &l));
        ck_assert_int_eq(options_log_level(&o), l);
    }
    ck_assert_uint_eq(n, 4);
}
END_TEST

START_TEST(the_manual_page_has_every_command_and_exit_status) {
    char *text = printed(options_print_man), want[96];
#define X(name, help)                                                                          \
    ck_assert_msg(strstr(text, ".It Cm " #name "\n"), "%s is not in the manual", #name);
    COMMAND_LIST(X)
#undef X
#define X(code, meaning, exit_code)                                                            \
    snprintf(want, sizeof want, ".It %d\n%s\n", exit_code, meaning);                           \
    ck_assert_ptr_nonnull(strstr(text, want));
    STATUS_LIST(X)
#undef X
    free(text);
}
END_TEST

CHECK_MAIN(
    "options", a_file_sets_options_by_section, what_a_file_gets_wrong_is_named_with_its_line,
    flags_come_in_every_spelling_and_leave_the_rest, wrong_flags_are_errors_that_name_them,
    later_sources_win, the_sample_and_what_is_in_force_load_back_to_the_same_options,
    the_manual_page_names_every_option, the_manual_page_of_the_file_names_every_key_and_section,
    every_broken_line_of_a_file_is_told_with_its_number,
    comments_blanks_and_line_ends_are_as_people_write_them,
    a_line_too_long_is_refused_and_not_cut, files_that_cannot_be_read_are_told_apart,
    values_of_each_type_are_read_strictly, every_alias_sets_its_option,
    words_that_are_no_flags_stay_in_order, the_environment_tolerates_only_what_it_must,
    a_cache_type_of_another_server_gets_what_to_use_instead,
    a_flag_of_another_server_gets_what_to_do_instead, a_second_model_is_refused,
    a_section_gives_a_model_options_of_its_own, the_file_is_named_by_flag_or_environment,
    the_live_options_are_taken_and_no_others,
    every_option_that_differs_is_reported_with_both_values,
    a_name_with_one_letter_wrong_is_found_again,
    the_sample_without_its_comment_marks_is_the_defaults,
    the_help_shows_what_a_subcommand_knows, words_are_given_for_the_values_of_an_enum,
    the_logger_knows_every_level_by_its_word, the_manual_page_has_every_command_and_exit_status)
