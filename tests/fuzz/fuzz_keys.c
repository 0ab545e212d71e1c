/* module: api */
/* Fuzzes the file of API keys: first line up to a NUL is a key that is asked for, the rest is
 * the file, read into a table that has another one in force. What has a mistake must say which
 * and leave the old keys; what loads must find its own keys only. One thread. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/keys.h"
#include "base/check.h"
#include "base/utf8.h"

/* printf %s abc | sha256sum */
#define OLD "old ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad rate=1/min\n"

static int file_of(const void *bytes, size_t n, char path[32]) {
    int fd = memfd_create("keys", 0);
    CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && fchmod(fd, 0600) == 0);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static void check_each(void *arg, const tenant *t) {
    (void)arg;
    CHECK(t->name[0] && strlen(t->name) <= TENANT_NAME_MAX && utf8_valid(str_of(t->name)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char path[32];
    ledger *l;
    keys *k;
    err e = {0};
    double wait_s;
    const uint8_t *end = memchr(data, '\0', n);
    str key = {(const char *)data, end ? (size_t)(end - data) : 0};
    size_t skip = end ? key.len + 1 : 0;
    CHECK(ledger_open_unlimited(&l, &e) == OK);
    int fd = file_of(OLD, sizeof OLD - 1, path);
    CHECK(keys_open(&k, path, l, 0, &e) == OK);
    close(fd);
    tenant *old = keys_find(k, STR("abc"));
    CHECK(old && tenant_enter(old, 0, &wait_s) == TENANT_OK);
    fd = file_of(data + skip, n - skip, path);
    if (keys_reload(k, path, 0, &e) != OK) {
        CHECK(e.code != OK && e.text[0] && utf8_valid(str_of(e.text)) && e.field[0]);
        CHECK(keys_find(k, STR("abc")) == old && keys_n_tenants(k) == 1);
    } else {
        CHECK(keys_n_tenants(k) >= 1);
        tenant *t = keys_find(k, key);
        CHECK(!t || t->listed);
    }
    close(fd);
    CHECK(old->n_open == 1 && strcmp(old->name, "old") == 0);
    tenant_leave(old);
    keys_each(k, check_each, NULL);
    keys_close(k, l);
    ledger_close(l);
    return 0;
}
