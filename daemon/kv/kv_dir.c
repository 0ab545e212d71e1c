/* The directory of a disk tier: its key and lock, families, scanning, one file written or read. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "daemon/kv/kv_file.h"

enum { FAMILY_DIGITS = 32, HASH_DIGITS = 32, NAME_BYTES = 64 };

static status failed(err *e, const char *what, const char *name) {
    const int why = errno;
    err_set(e, ERR_IO, "kv_disk: %s %s: %s", what, name, strerror(why));
    if (why == ENOSPC || why == EDQUOT) err_field(e, "full");
    return ERR_IO;
}

static bool is_hex(const char *s, size_t n) {
    return strspn(s, "0123456789abcdef") == n && s[n] == '\0';
}

/* "ab/<32 hex>.kv", or with another ending. */
static void file_name(char out[NAME_BYTES], const uint64_t hash[2], const char *ending) {
    snprintf(out, NAME_BYTES, "%02x/%016llx%016llx%s", (unsigned)(hash[0] >> 56),
             (unsigned long long)hash[0], (unsigned long long)hash[1], ending);
}

/* ---- key and lock ---- */

/* A new key appears under its name whole or not at all; of daemons that start at the same moment,
 * the first one's stays, and is the others', too. */
static status make_key(kv_dir *d, err *e) {
    uint64_t made[3]; /* the key; of the name */
    char part[sizeof "key.0123456789abcdef.tmp"];
    if (getrandom(made, sizeof made, 0) != (ssize_t)sizeof made)
        return failed(e, "cannot make", "key");
    snprintf(part, sizeof part, "key.%016llx.tmp", (unsigned long long)made[2]);
    const int fd = openat(d->dir, part, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) return failed(e, "cannot create", "key");
    bool ok = write(fd, made, sizeof d->key) == (ssize_t)sizeof d->key && fsync(fd) == 0;
    ok = close(fd) == 0 && ok;
    /* Unlike rename, it replaces nothing. */
    ok = ok && (linkat(d->dir, part, d->dir, "key", 0) == 0 || errno == EEXIST);
    const status s = ok ? OK : failed(e, "cannot write", "key");
    unlinkat(d->dir, part, 0);
    return s;
}

static status take_key(kv_dir *d, err *e) {
    struct stat st;
    if (faccessat(d->dir, "key", F_OK, 0) != 0) {
        const status s = make_key(d, e);
        if (s != OK) return s;
    }
    d->key_fd = openat(d->dir, "key", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (d->key_fd < 0 || fstat(d->key_fd, &st) != 0) return failed(e, "cannot open", "key");
    if (flock(d->key_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return failed(e, "cannot lock", "key");
        err_set(e, ERR_BUSY, "kv_disk: another process uses this directory");
        return err_hint(e, "give each daemon a directory of its own");
    }
    if (st.st_size != sizeof d->key || !S_ISREG(st.st_mode) || (st.st_mode & 077) != 0 ||
        pread(d->key_fd, d->key, sizeof d->key, 0) != (ssize_t)sizeof d->key) {
        err_set(e, ERR_FORMAT, "kv_disk: the file \"key\" is not a key that only we can read");
        return err_hint(e, "it has %zu bytes and mode 0600; remove the directory to start anew",
                        sizeof d->key);
    }
    return OK;
}

status kv_dir_open(kv_dir *d, const char *path, err *e) {
    d->family_dir = d->key_fd = -1;
    atomic_init(&d->buffered, false);
    d->dir = -1;
    if (mkdir(path, 0700) != 0 && errno != EEXIST) return failed(e, "cannot create", path);
    d->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir < 0) return failed(e, "cannot open", path);
    return take_key(d, e);
}

void kv_dir_close(kv_dir *d) {
    if (d->key_fd >= 0) close(d->key_fd);
    if (d->family_dir >= 0) close(d->family_dir);
    if (d->dir >= 0) close(d->dir);
    d->dir = d->family_dir = d->key_fd = -1;
}

/* ---- walking ---- */

/* Calls each for the entries of dir/name that are not hidden; closes what it opens. */
static bool walk(int dir, const char *name, void (*each)(void *arg, int dir, const char *name),
                 void *arg) {
    const int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (!list) {
        if (fd >= 0) close(fd);
        return false;
    }
    for (struct dirent *x; (x = readdir(list));)
        if (x->d_name[0] != '.') each(arg, fd, x->d_name);
    closedir(list);
    return true;
}

/* Ours by its name: nothing else is ever removed. */
static bool is_file_of_ours(const char *name, const char *ending) {
    char digits[HASH_DIGITS + 1];
    if (strlen(name) != HASH_DIGITS + strlen(ending)) return false;
    memcpy(digits, name, HASH_DIGITS);
    digits[HASH_DIGITS] = '\0';
    return is_hex(digits, HASH_DIGITS) && strcmp(name + HASH_DIGITS, ending) == 0;
}

static void remove_file(void *arg, int dir, const char *name) {
    uint32_t *removed = arg;
    if (!is_file_of_ours(name, ".kv") && !is_file_of_ours(name, ".tmp")) return;
    *removed += unlinkat(dir, name, 0) == 0;
}

static void remove_shelf(void *arg, int dir, const char *name) {
    if (!is_hex(name, 2) || !walk(dir, name, remove_file, arg)) return;
    unlinkat(dir, name, AT_REMOVEDIR);
}

typedef struct others {
    char own[FAMILY_DIGITS + 1];
    uint32_t *removed;
} others;

static void remove_family(void *arg, int dir, const char *name) {
    const others *o = arg;
    if (!is_hex(name, FAMILY_DIGITS) || strcmp(name, o->own) == 0) return;
    if (walk(dir, name, remove_shelf, o->removed)) unlinkat(dir, name, AT_REMOVEDIR);
}

status kv_dir_family(kv_dir *d, const kv_shape *shape,
                     const unsigned char family[KV_FILE_FAMILY], uint32_t *removed, err *e) {
    others o = {.removed = removed};
    *removed = 0;
    d->shape = *shape;
    memcpy(d->family, family, KV_FILE_FAMILY);
    for (int i = 0; i < FAMILY_DIGITS / 2; i++) snprintf(o.own + 2 * i, 3, "%02x", family[i]);
    walk(d->dir, ".", remove_family, &o);
    if (mkdirat(d->dir, o.own, 0700) != 0 && errno != EEXIST)
        return failed(e, "cannot create", o.own);
    d->family_dir = openat(d->dir, o.own, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return d->family_dir < 0 ? failed(e, "cannot open", o.own) : OK;
}

typedef struct tidying {
    const char *prefix;
    const char *const *names;
    uint32_t n;
    uint64_t most;
    others all;
} tidying;

static void add_file(void *arg, int dir, const char *name) {
    uint64_t *bytes = arg;
    struct stat st;
    if (is_file_of_ours(name, ".kv") && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        *bytes += (uint64_t)st.st_size;
}

static void add_shelf(void *arg, int dir, const char *name) {
    if (is_hex(name, 2)) walk(dir, name, add_file, arg);
}

static void add_family(void *arg, int dir, const char *name) {
    if (is_hex(name, FAMILY_DIGITS)) walk(dir, name, add_shelf, arg);
}

static void tidy(void *arg, int dir, const char *name) {
    tidying *t = arg;
    if (strncmp(name, t->prefix, strlen(t->prefix)) != 0) return;
    uint64_t bytes = 0;
    bool known = false;
    for (uint32_t i = 0; i < t->n; i++) known |= strcmp(name, t->names[i]) == 0;
    if (known) walk(dir, name, add_family, &bytes);
    if (!known || bytes > t->most) walk(dir, name, remove_family, &t->all);
}

uint32_t kv_dir_tidy(kv_dir *d, const char *prefix, const char *const *names, uint32_t n,
                     uint64_t most) {
    uint32_t removed = 0;
    tidying t = {prefix, names, n, most, {.removed = &removed}};
    walk(d->dir, ".", remove_family, &t.all);
    walk(d->dir, ".", tidy, &t);
    return removed;
}

typedef struct scan {
    kv_dir *d;
    void (*found)(void *, const kv_found *);
    void *arg;
    uint32_t *bad;
} scan;

static void scan_file(void *arg, int dir, const char *name) {
    scan *s = arg;
    unsigned char header[KV_FILE_HEADER];
    int32_t tokens[KV_FILE_TOKENS];
    char should[NAME_BYTES];
    struct stat st;
    kv_found f;
    err e;
    const int fd = is_file_of_ours(name, ".kv")
                       ? openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
                       : -1;
    bool good = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                pread(fd, header, sizeof header, 0) == (ssize_t)sizeof header &&
                kv_file_header(header, &s->d->shape, s->d->family, &f.id, tokens, &e) == OK;
    if (good) file_name(should, f.id.hash, ".kv");
    good = good && strcmp(should + 3, name) == 0 &&
           (uint64_t)st.st_size == kv_file_bytes(&s->d->shape, f.id.groups);
    if (fd >= 0) close(fd);
    if (!good) {
        remove_file(s->bad, dir, name);
        return;
    }
    f.bytes = (uint64_t)st.st_size;
    f.used_s = (uint64_t)st.st_mtime;
    f.id.tokens = NULL;
    s->found(s->arg, &f);
}

static void scan_shelf(void *arg, int dir, const char *name) {
    if (is_hex(name, 2)) walk(dir, name, scan_file, arg);
}

status kv_dir_scan(kv_dir *d, void (*found)(void *arg, const kv_found *), void *arg,
                   uint32_t *bad, err *e) {
    scan s = {d, found, arg, bad};
    *bad = 0;
    return walk(d->family_dir, ".", scan_shelf, &s) ? OK : failed(e, "cannot read", "it");
}

/* ---- one file ---- */

/* With O_DIRECT where the file system has it: pages of the page cache would be charged to the
 * cgroup whose budget the plan fills. */
static int open_file(kv_dir *d, const char *name, int flags) {
    if (!atomic_load(&d->buffered)) {
        const int fd =
            openat(d->family_dir, name, flags | O_CLOEXEC | O_NOFOLLOW | O_DIRECT, 0600);
        if (fd >= 0 || errno != EINVAL) return fd;
        atomic_store(&d->buffered, true);
    }
    return openat(d->family_dir, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static bool write_all(int fd, const unsigned char *p, uint64_t n) {
    for (uint64_t at = 0; at < n;) {
        const ssize_t k = pwrite(fd, p + at, n - at, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        at += (uint64_t)k;
    }
    return true;
}

/* As much as there is, n at most; -1: an error. */
static int64_t read_all(int fd, unsigned char *p, uint64_t n) {
    uint64_t at = 0;
    while (at < n) {
        const ssize_t k = pread(fd, p + at, n - at, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -1;
        at += (uint64_t)k;
        if (k % KV_FILE_HEADER != 0 || k == 0) break; /* its end; O_DIRECT cannot go on there */
    }
    return (int64_t)at;
}

static int create_file(kv_dir *d, const char *name) {
    char shelf[3] = {name[0], name[1], '\0'};
    const int flags = O_CREAT | O_TRUNC | O_WRONLY;
    const int fd = open_file(d, name, flags);
    if (fd >= 0 || errno != ENOENT) return fd;
    if (mkdirat(d->family_dir, shelf, 0700) != 0 && errno != EEXIST) return -1;
    return open_file(d, name, flags);
}

status kv_dir_write(kv_dir *d, void *file, const kv_file_id *id, uint64_t now_s, err *e) {
    char part[NAME_BYTES], name[NAME_BYTES];
    const uint64_t n = kv_file_bytes(&d->shape, id->groups);
    CHECK((uintptr_t)file % KV_FILE_HEADER == 0);
    file_name(part, id->hash, ".tmp");
    file_name(name, id->hash, ".kv");
    kv_file_seal(file, &d->shape, d->family, id, now_s);
    const int fd = create_file(d, part);
    if (fd < 0) return failed(e, "cannot create", part);
    bool ok = write_all(fd, file, n) && fdatasync(fd) == 0;
    if (ok && atomic_load(&d->buffered)) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    int why = errno;
    if (close(fd) != 0 && ok) ok = false, why = errno;
    if (ok && renameat(d->family_dir, part, d->family_dir, name) == 0) return OK;
    if (ok) why = errno;
    unlinkat(d->family_dir, part, 0);
    errno = why;
    return failed(e, "cannot write", name);
}

status kv_dir_read(kv_dir *d, void *file, const kv_file_id *wanted, uint32_t *groups, err *e) {
    char name[NAME_BYTES];
    CHECK((uintptr_t)file % KV_FILE_HEADER == 0);
    file_name(name, wanted->hash, ".kv");
    const int fd = open_file(d, name, O_RDONLY);
    if (fd < 0 && errno == ENOENT) return err_set(e, ERR_NOT_FOUND, "%s is not there", name);
    if (fd < 0) return failed(e, "cannot open", name);
    const uint64_t most = kv_file_bytes(&d->shape, (1U << d->shape.n_groups) - 1);
    const int64_t n = read_all(fd, file, most);
    struct stat st;
    status s = n < 0 || fstat(fd, &st) != 0 ? failed(e, "cannot read", name) : OK;
    if (s == OK)
        s = kv_file_check(file, (uint64_t)n == most ? (uint64_t)st.st_size : (uint64_t)n,
                          &d->shape, d->family, wanted, groups, e);
    if (s == OK) futimens(fd, NULL);
    if (atomic_load(&d->buffered)) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    if (s == ERR_FORMAT) unlinkat(d->family_dir, name, 0);
    return s;
}

bool kv_dir_remove(kv_dir *d, const uint64_t hash[2]) {
    char name[NAME_BYTES];
    file_name(name, hash, ".kv");
    return unlinkat(d->family_dir, name, 0) == 0 || errno == ENOENT;
}
