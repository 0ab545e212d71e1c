/* module: conf */
/* Fuzzes the configuration file: the bytes are a file. What loads is printed and loaded again,
 * and must give the same options; what does not must say what and why. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/utf8.h"
#include "conf/options.h"

static status load(options *o, const void *bytes, size_t n, err *e) {
    char path[32];
    int fd = memfd_create("conf", 0);
    CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    status s = options_load_file(o, path, e);
    close(fd);
    return s;
}

/* A value as it stands in a file cannot hold what a file reads as something else. */
static bool reloadable(const char *text) {
    size_t n = strlen(text);
    return !strchr(text, ';') && (n == 0 || (text[0] != ' ' && text[n - 1] != ' '));
}

static bool all_reloadable(const options *o) {
    bool yes = true;
#define X(section, type, name, ...) WITH_##type(name)
#define WITH_STR(name)              yes = yes && reloadable(o->name);
#define WITH_U32(name)
#define WITH_POW2(name)
#define WITH_U64(name)
#define WITH_F64(name)
#define WITH_BOOL(name)
#define WITH_ENUM(name)
#define WITH_BYTES(name)
    OPTION_LIST(X)
#undef X
    return yes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    options o, again;
    err e = {0};
    options_defaults(&o);
    options_defaults(&again);
    if (load(&o, data, n, &e) != OK) {
        CHECK(e.code != OK && e.text[0] && utf8_valid(str_of(e.text)));
        CHECK(utf8_valid(str_of(e.hint)) && utf8_valid(str_of(e.field)));
        return 0;
    }
    if (!all_reloadable(&o)) return 0;
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    CHECK(f != NULL);
    options_print_current(f, &o);
    fclose(f);
    CHECK(load(&again, text, len, &e) == OK);
    free(text);
#define X(section, type, name, ...) CHECK_##type(name)
#define CHECK_STR(name)             CHECK(strcmp(o.name, again.name) == 0);
#define CHECK_U32(name)             CHECK(o.name == again.name);
#define CHECK_POW2                  CHECK_U32
#define CHECK_U64                   CHECK_U32
#define CHECK_F64                   CHECK_U32
#define CHECK_BOOL                  CHECK_U32
#define CHECK_ENUM                  CHECK_U32
#define CHECK_BYTES                 CHECK_U32
    OPTION_LIST(X)
    return 0;
}
