/* The loaders: file, environment, flags, and their order. Own nothing but the file that is
 * open; any thread, before others run. */
#include "conf/options.h"

#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/check.h"
#include "conf/option.h"
#include "conf/sections.h"

/* ---- unknown names ---- */

static status unknown_key(const char *where, const char *section, const char *key, err *e) {
    const char *names[N_OPTIONS];
    char quoted[64];
    for (int i = 0; i < N_OPTIONS; i++) names[i] = option_table()[i].name;
    const char *near = option_nearest(key, names, N_OPTIONS);
    err_set(e, ERR_INVALID, "%s: there is no option \"%s\"", where, option_quote(key, quoted));
    err_field(e, "%s", quoted);
    if (!near) return err_hint(e, "vramd serve --print-sample shows them all");
    const char *home = option_by_name(near)->section;
    if (strcmp(home, section) == 0) return err_hint(e, "did you mean %s?", near);
    return err_hint(e, "did you mean %s, in [%s]?", near, home);
}

static status unknown_section(const char *where, const char *section, err *e) {
    const char *names[N_SECTIONS];
    char quoted[64];
    for (int i = 0; i < N_SECTIONS; i++) names[i] = option_sections()[i].name;
    const char *near = option_nearest(section, names, N_SECTIONS);
    err_set(e, ERR_INVALID, "%s: there is no section [%s]", where,
            option_quote(section, quoted));
    err_field(e, "[%s]", quoted);
    if (near) return err_hint(e, "did you mean [%s]?", near);
    return err_hint(e, "vramd serve --print-sample shows them all");
}

static status unknown_flag(const char *flag, err *e) {
    const char *list[N_OPTIONS + 1];
    char quoted[64], near_flag[OPTION_TEXT];
    for (int i = 0; i < N_OPTIONS; i++) list[i] = option_table()[i].name;
    list[N_OPTIONS] = "config";
    err_set(e, ERR_INVALID, "there is no option %s", option_quote(flag, quoted));
    err_field(e, "%s", quoted);
    const char *instead = option_foreign(flag);
    if (instead) return err_hint(e, "%s", instead);
    const char *near = option_nearest(flag + strspn(flag, "-"), list, N_OPTIONS + 1);
    if (!near) return err_hint(e, "--help lists them");
    const option *o = option_by_name(near);
    return err_hint(e, "did you mean %s?", o ? option_flag(o, near_flag) : "--config");
}

/* ---- file ---- */

typedef struct file_reader {
    FILE *f;
    const char *path;
    options *out;
    model_sections *models;
    bool in_model; /* what was read last is of the last of them */
    err *e;
    status s;
    int line;        /* of what was read last */
    int failed_line; /* of e */
    int set_at[N_OPTIONS];
} file_reader;

static status fail(file_reader *r, status s) {
    r->failed_line = r->line;
    return r->s = s;
}

static char *where(const file_reader *r, int line, char buf[320]) {
    snprintf(buf, 320, "%.280s line %d", r->path, line);
    return buf;
}

static bool section_known(const char *name) {
    for (int i = 0; i < N_SECTIONS; i++)
        if (strcmp(option_sections()[i].name, name) == 0) return true;
    return false;
}

/* A section that holds no key never reaches on_key, and libinih cuts long names. */
static void check_heading(file_reader *r, const char *line) {
    char name[SECTION_NAME_BYTES + 64], at[320];
    size_t n = strcspn(line + 1, "]");
    if (line[1 + n] != ']') return; /* libinih will report it */
    snprintf(name, sizeof name, "%.*s", n >= sizeof name ? (int)sizeof name - 1 : (int)n,
             line + 1);
    r->in_model = section_is_model(name);
    where(r, r->line, at);
    if (r->in_model) {
        const status s = sections_begin(r->models, name, r->line, at, r->e);
        if (s != OK) fail(r, s);
    } else if (!section_known(name)) {
        name[60] = '\0';
        fail(r, unknown_section(at, name, r->e));
    }
}

/* Hands libinih one line, without the blanks before it: it would take an indented key for the
 * continuation of the line above. It also would cut a long line in silence. */
static char *read_line(char *line, int size, void *self) {
    file_reader *r = self;
    char at[320];
    int n = 0, c;
    if (r->s != OK) return NULL;
    r->line++;
    while ((c = getc(r->f)) != EOF && c != '\n') {
        if (n == 0 && (c == ' ' || c == '\t')) continue;
        if (n + 2 > size - 1 || c == '\0') {
            fail(r, err_set(r->e, ERR_INVALID,
                            c ? "%s: longer than the %d bytes that a line may have"
                              : "%s: holds a NUL byte",
                            where(r, r->line, at), size - 2));
            if (c) err_hint(r->e, "a flag or the environment may hold more");
            return NULL;
        }
        line[n++] = (char)c;
    }
    if (ferror(r->f)) {
        fail(r, err_set(r->e, ERR_IO, "%.280s: %s", r->path, strerror(errno)));
        return NULL;
    }
    if (c == EOF && n == 0) return NULL;
    line[n++] = '\n';
    line[n] = '\0';
    if (line[0] == '[') check_heading(r, line);
    return r->s == OK ? line : NULL;
}

static int on_key(void *self, const char *section, const char *key, const char *value) {
    file_reader *r = self;
    char at[320];
    const option *o = option_by_name(key);
    if (r->s != OK) return 0;
    where(r, r->line, at);
    if (r->in_model) {
        const status s = sections_key(r->models, key, value, r->line, at, r->e);
        return s == OK || (fail(r, s), 0);
    }
    if (section[0] && !section_known(section))
        return fail(r, unknown_section(at, section, r->e)), 0;
    if (!o) return fail(r, unknown_key(at, section, key, r->e)), 0;
    if (strcmp(o->section, section) != 0) {
        err_set(r->e, ERR_INVALID, "%s: %s belongs in [%s], not in [%.50s]", at, key,
                o->section, section);
        if (!section[0]) err_set(r->e, ERR_INVALID, "%s: %s comes before any section", at, key);
        err_field(r->e, "%s", key);
        err_hint(r->e, "put it under a line [%s]", o->section);
        return fail(r, ERR_INVALID), 0;
    }
    int *set_at = &r->set_at[o - option_table()];
    if (*set_at) {
        err_set(r->e, ERR_INVALID, "%s: %s was set in line %d already", at, key, *set_at);
        err_field(r->e, "%s", key);
        return fail(r, ERR_INVALID), 0;
    }
    *set_at = r->line;
    if (option_set(r->out, o, value, at, r->e) != OK) return fail(r, ERR_INVALID), 0;
    return 1;
}

status options_load_file_models(options *out, model_sections *models, const char *path,
                                err *e) {
    file_reader r = {.path = path, .out = out, .models = models, .e = e};
    char at[320];
    snprintf(models->path, sizeof models->path, "%s", path);
    r.f = fopen(path, "re");
    if (!r.f && errno == ENOMEM)
        return err_set(e, ERR_NO_MEMORY, "%.280s: no memory to open it (class runtime)", path);
    if (!r.f) {
        status s = errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
        err_set(e, s, "%.280s: %s", path, strerror(errno));
        return err_field(e, "config");
    }
    int bad = ini_parse_stream(read_line, &r, on_key, &r);
    fclose(r.f);
    if (bad == -2)
        return err_set(e, ERR_NO_MEMORY, "%.280s: no memory to read it (class runtime)", path);
    if (bad > 0 && (r.s == OK || bad < r.failed_line)) {
        err_set(e, ERR_INVALID, "%s: neither [section] nor key = value", where(&r, bad, at));
        err_field(e, "config");
        return err_hint(e, "a comment begins with #");
    }
    return r.s == OK ? sections_end(models, e) : r.s;
}

status options_load_file(options *out, const char *path, err *e) {
    model_sections *unused = calloc(1, sizeof *unused);
    if (!unused)
        return err_set(e, ERR_NO_MEMORY, "%.280s: no memory to read it (class runtime)", path);
    const status s = options_load_file_models(out, unused, path, e);
    free(unused);
    return s;
}

/* ---- environment ---- */

static bool starts(const char *s, const char *prefix) {
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Variables of ours that are no options. */
static bool variable_passed_over(const char *pair) {
    return starts(pair, "VRAMD_CONFIG=") || starts(pair, "VRAMD_CACHE=") ||
           starts(pair, "VRAMD_TEST_") || starts(pair, "VRAMD_BENCH_") ||
           starts(pair, "VRAMD_PEER_");
}

static const option *option_by_variable(const char *name, size_t n) {
    char buf[OPTION_TEXT];
    for (int i = 0; i < N_OPTIONS; i++) {
        option_variable(&option_table()[i], buf);
        if (strlen(buf) == n && memcmp(buf, name, n) == 0) return &option_table()[i];
    }
    return NULL;
}

static status unknown_variable(const char *name, err *e) {
    char quoted[64], near_variable[OPTION_TEXT];
    const char *list[N_OPTIONS];
    for (int i = 0; i < N_OPTIONS; i++) list[i] = option_table()[i].name;
    err_set(e, ERR_INVALID, "environment: there is no option %s", option_quote(name, quoted));
    err_field(e, "%s", quoted);
    if (starts(name, "VRAMD_SERVICE_") || starts(name, "VRAMD_PORT_"))
        return option_hint_service(e);
    const char *near = option_nearest(name + strlen("VRAMD_"), list, N_OPTIONS);
    if (near)
        return err_hint(e, "did you mean %s?",
                        option_variable(option_by_name(near), near_variable));
    return err_hint(e, "names that begin with VRAMD_ are kept for options");
}

status options_load_env(options *out, char **environ, err *e) {
    for (; environ && *environ; environ++) {
        const char *pair = *environ, *equals = strchr(pair, '=');
        if (!starts(pair, "VRAMD_") || !equals || variable_passed_over(pair)) continue;
        char name[128];
        size_t n = (size_t)(equals - pair);
        snprintf(name, sizeof name, "%.*s", n > 120 ? 120 : (int)n, pair);
        const option *o = option_by_variable(pair, n);
        status s = o ? option_set(out, o, equals + 1, name, e) : unknown_variable(name, e);
        if (s != OK) return s;
    }
    return OK;
}

/* ---- flags ---- */

/* "--no-log-requests": the option, if it is a BOOL. */
static const option *option_by_negation(const char *flag) {
    char positive[64];
    if (!starts(flag, "--no-") && !starts(flag, "--no_")) return NULL;
    snprintf(positive, sizeof positive, "--%.60s", flag + 5);
    const option *o = option_by_flag(positive);
    return o && o->type == OPTION_BOOL ? o : NULL;
}

/* Of any other option the last value counts; here that would hide a model that is not served. */
static status second_model(const char *flag, err *e) {
    err_set(e, ERR_INVALID, "%s is given twice; a process serves one model", flag);
    err_field(e, "model");
    return err_hint(e, "start one vramd for each model, each with a --port of its own");
}

/* Takes the flag at argv[i]; *taken: how many words it had; *model_given: whether --model has
 * been seen. */
static status take_flag(options *out, char **argv, int i, int argc, const char *only,
                        int *taken, bool *model_given, err *e) {
    const char *word = argv[i], *equals = strchr(word, '='),
               *value = equals ? equals + 1 : NULL;
    char flag[80];
    size_t n = equals ? (size_t)(equals - word) : strlen(word);
    snprintf(flag, sizeof flag, "%.*s", n > 76 ? 76 : (int)n, word);
    const option *o = option_by_flag(flag), *negated = o ? NULL : option_by_negation(flag);
    *taken = 1;
    if (!o) o = negated;
    if (!o) return unknown_flag(flag, e);
    if (!option_in(o, only)) {
        err_set(e, ERR_INVALID, "%s is no option of this subcommand", flag);
        err_field(e, "%s", o->name);
        return err_hint(e, "--help lists those it has");
    }
    if (negated && value) {
        err_set(e, ERR_INVALID, "%s takes no value", flag);
        return err_field(e, "%s", o->name);
    }
    if (o->type == OPTION_BOOL && !value) value = negated ? "false" : "true";
    if (!value && i + 1 < argc) value = argv[i + 1], *taken = 2;
    if (value && strcmp(o->name, "model") == 0) {
        if (*model_given) return second_model(flag, e);
        *model_given = true;
    }
    if (value) return option_set(out, o, value, flag, e);
    err_set(e, ERR_INVALID, "%s: a value is missing", flag);
    err_field(e, "%s", o->name);
    return err_hint(e, "%s %s: %s", flag, option_placeholder(o), o->help);
}

status options_load_args(options *out, int *argc, char **argv, const char *only, err *e) {
    int kept = 1, i = 1;
    bool model_given = false;
    while (i < *argc && strcmp(argv[i], "--") != 0) {
        int taken = 0;
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[kept++] = argv[i++];
            continue;
        }
        status s = take_flag(out, argv, i, *argc, only, &taken, &model_given, e);
        if (s != OK) return s;
        i += taken;
    }
    for (i++; i < *argc; i++) argv[kept++] = argv[i];
    *argc = kept;
    argv[kept] = NULL;
    return OK;
}

/* ---- all ---- */

/* Takes "--config FILE" or "--config=FILE" out of argv; the last one counts. */
static status take_config(int *argc, char **argv, const char **path, err *e) {
    int kept = 1;
    bool flags = true;
    for (int i = 1; i < *argc; i++) {
        flags = flags && strcmp(argv[i], "--") != 0;
        if (flags && starts(argv[i], "--config=")) {
            *path = argv[i] + strlen("--config=");
        } else if (!flags || strcmp(argv[i], "--config") != 0) {
            argv[kept++] = argv[i];
        } else if (i + 1 < *argc) {
            *path = argv[++i];
        } else {
            err_set(e, ERR_INVALID, "--config: a value is missing");
            err_field(e, "config");
            return err_hint(e, "--config FILE");
        }
    }
    *argc = kept;
    argv[kept] = NULL;
    return OK;
}

static status load(options *out, model_sections *models, int *argc, char **argv, char **environ,
                   const char *only, err *e) {
    const char *path = NULL;
    for (char **v = environ; v && *v; v++)
        if (starts(*v, "VRAMD_CONFIG=")) path = *v + strlen("VRAMD_CONFIG=");
    status s = take_config(argc, argv, &path, e);
    /* The default file may be readable by the daemon's user only: that stops a daemon, not
     * a user who counts tokens. */
    if (!path && access(OPTIONS_DEFAULT_FILE, only ? R_OK : F_OK) == 0)
        path = OPTIONS_DEFAULT_FILE;
    if (s == OK && path)
        s = models ? options_load_file_models(out, models, path, e)
                   : options_load_file(out, path, e);
    if (s == OK) s = options_load_env(out, environ, e);
    if (s == OK) s = options_load_args(out, argc, argv, only, e);
    return s;
}

status options_load(options *out, int *argc, char **argv, char **environ, const char *only,
                    err *e) {
    return load(out, NULL, argc, argv, environ, only, e);
}

status options_load_models(options *out, model_sections *models, int *argc, char **argv,
                           char **environ, err *e) {
    models->n = 0; /* what is behind is not touched: the struct is large */
    const status s = load(out, models, argc, argv, environ, NULL, e);
    if (s != OK || models->n == 0 || !out->model[0]) return s;
    err_set(e, ERR_INVALID, "model = %.100s stands beside %u sections [model NAME] of %.100s",
            out->model, models->n, models->path);
    err_hint(e, "give the model a section of its own, or leave out the sections");
    return err_field(e, "model");
}

log_level options_log_level(const options *o) {
    log_level l;
    CHECK(log_level_by_name(options_word("log_level", o->log_level), &l));
    return l;
}

void options_set_default(options *o, const char *name, const char *text) {
    const option *row = option_by_name(name);
    err e;
    CHECK(row && option_set(o, row, text, "a default", &e) == OK);
}

void options_take_live(options *in_force, const options *read_again) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (option_table()[i].live) option_copy(in_force, read_again, &option_table()[i]);
}

int options_compare(const options *was, const options *now,
                    void (*each)(void *arg, const char *name, bool live, const char *was,
                                 const char *now),
                    void *arg) {
    char a[OPTION_TEXT], b[OPTION_TEXT];
    int n = 0;
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *o = &option_table()[i];
        option_value_text(o, was, a);
        option_value_text(o, now, b);
        if (strcmp(a, b) == 0) continue;
        each(arg, o->name, o->live, a, b);
        n++;
    }
    return n;
}
