/* Files of the disk tier: what was written comes back, and nothing else is ever taken for it. */
#include "daemon/kv/kv_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check_main.h"
#include "tests/daemon/kv_rig.h"

typedef struct rig {
    char path[64];
    kv_dir d;
    unsigned char *file;
    uint32_t bad, removed, n_found;
    kv_found found[4096];
} rig;

static rig r;

static void open_dir(const unsigned char *family) {
    err e;
    ck_assert_msg(kv_dir_open(&r.d, r.path, &e) == OK, "%s", e.text);
    ck_assert_msg(kv_dir_family(&r.d, &kv_rig_shape, family, &r.removed, &e) == OK, "%s",
                  e.text);
}

/* Names in a directory. */
static uint32_t count_files(const char *path) {
    DIR *list = opendir(path);
    uint32_t n = 0;
    ck_assert_ptr_nonnull(list);
    for (struct dirent *x; (x = readdir(list));) n += x->d_name[0] != '.';
    closedir(list);
    return n;
}

static void take_found(void *arg, const kv_found *f) {
    (void)arg;
    ck_assert_uint_lt(r.n_found, 4096);
    r.found[r.n_found++] = *f;
}

static uint32_t scan(void) {
    err e;
    r.n_found = 0;
    ck_assert_int_eq(kv_dir_scan(&r.d, take_found, NULL, &r.bad, &e), OK);
    return r.n_found;
}

static void set_up(void) {
    memset(&r, 0, sizeof r);
    strcpy(r.path, "/tmp/vramd-kv-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(r.path));
    r.file = kv_rig_buffer();
    open_dir(kv_rig_family);
}

static void tear_down(void) {
    char command[96];
    kv_dir_close(&r.d);
    free(r.file);
    snprintf(command, sizeof command, "rm -rf %s", r.path);
    ck_assert_int_eq(system(command), 0);
}

static void store(uint64_t n) {
    kv_rig_chunk c;
    err e;
    kv_rig_make(&c, n);
    kv_rig_fill(r.file, n, kv_file_bytes(&kv_rig_shape, c.id.groups));
    ck_assert_msg(kv_dir_write(&r.d, r.file, &c.id, 1700000000, &e) == OK, "%s", e.text);
}

static status load(uint64_t n) {
    kv_rig_chunk c;
    uint32_t groups = 0;
    err e;
    kv_rig_make(&c, n);
    memset(r.file, 0xee, kv_file_bytes(&kv_rig_shape, 3));
    status s = kv_dir_read(&r.d, r.file, &c.id, &groups, &e);
    if (s == OK) ck_assert_uint_eq(groups, c.id.groups);
    if (s == OK) ck_assert(kv_rig_holds(r.file, n, groups));
    if (s != OK) ck_assert(e.text[0]);
    return s;
}

static void name_of(char *out, size_t cap, uint64_t n) {
    kv_rig_chunk c;
    char family[33];
    kv_rig_make(&c, n);
    for (int i = 0; i < 16; i++) snprintf(family + 2 * i, 3, "%02x", kv_rig_family[i]);
    snprintf(out, cap, "%s/%s/%02x/%016llx%016llx.kv", r.path, family,
             (unsigned)(c.id.hash[0] >> 56), (unsigned long long)c.id.hash[0],
             (unsigned long long)c.id.hash[1]);
}

START_TEST(what_was_written_comes_back) {
    for (uint64_t n = 0; n < 40; n++) store(n);
    for (uint64_t n = 0; n < 40; n++) ck_assert_int_eq(load(n), OK);
    ck_assert_int_eq(load(40), ERR_NOT_FOUND);
    kv_dir_close(&r.d);
    open_dir(kv_rig_family); /* as after a restart */
    ck_assert_uint_eq(scan(), 40);
    ck_assert_uint_eq(r.bad, 0);
    for (uint32_t i = 0; i < r.n_found; i++) {
        kv_rig_chunk c;
        uint64_t n = 0;
        do kv_rig_make(&c, n);
        while (c.id.hash[0] != r.found[i].id.hash[0] && ++n < 40);
        ck_assert_uint_lt(n, 40);
        ck_assert_uint_eq(r.found[i].id.parent[0], c.id.parent[0]);
        ck_assert_uint_eq(r.found[i].id.chunk, c.id.chunk);
        ck_assert_uint_eq(r.found[i].id.groups, c.id.groups);
        ck_assert_uint_eq(r.found[i].id.salt, c.id.salt);
        ck_assert_uint_eq(r.found[i].bytes, kv_file_bytes(&kv_rig_shape, c.id.groups));
    }
    for (uint64_t n = 0; n < 40; n++) ck_assert_int_eq(load(n), OK);
}
END_TEST

START_TEST(a_removed_file_is_gone) {
    kv_rig_chunk c;
    store(1), store(2);
    kv_rig_make(&c, 1);
    kv_dir_remove(&r.d, c.id.hash);
    ck_assert_int_eq(load(1), ERR_NOT_FOUND);
    ck_assert_int_eq(load(2), OK);
}
END_TEST

/* Changes file bytes in memory: what kv_file_check says. */
static status check_changed(uint64_t n, uint32_t at, unsigned char flip, bool reseal) {
    static unsigned char file[64 << 10];
    kv_rig_chunk c;
    uint32_t groups;
    err e;
    kv_rig_make(&c, n);
    const uint64_t bytes = kv_file_bytes(&kv_rig_shape, c.id.groups);
    ck_assert_uint_le(bytes, sizeof file);
    kv_rig_fill(file, n, bytes);
    kv_file_seal(file, &kv_rig_shape, kv_rig_family, &c.id, 1700000000);
    file[at] ^= flip;
    if (reseal) kv_rig_reseal(file);
    return kv_file_check(file, bytes, &kv_rig_shape, kv_rig_family, &c.id, &groups, &e);
}

START_TEST(every_byte_of_the_header_counts) {
    for (uint64_t n = 0; n < 2; n++) {
        for (uint32_t at = 0; at < KV_FILE_HEADER; at++) {
            SWEEP(check_changed(n, at, 0x01, false) == ERR_FORMAT);
            SWEEP(check_changed(n, at, 0x80, false) == ERR_FORMAT);
            if (at >= 12 && at < 16) continue;   /* the checksum itself */
            if (at >= 112 && at < 120) continue; /* when it was made: of no meaning */
            SWEEP(check_changed(n, at, 0x01, true) == ERR_FORMAT);
            SWEEP(check_changed(n, at, 0x80, true) == ERR_FORMAT);
        }
    }
    ck_assert_int_eq(check_changed(0, 112, 1, true), OK);
}
END_TEST

START_TEST(every_byte_of_the_payload_counts) {
    kv_rig_chunk c;
    kv_rig_make(&c, 1);
    const uint32_t n = (uint32_t)kv_file_bytes(&kv_rig_shape, c.id.groups);
    for (uint32_t at = KV_FILE_HEADER; at < n; at += 5)
        SWEEP(check_changed(1, at, 0x10, false) == ERR_FORMAT);
    SWEEP(check_changed(1, n - 1, 0x10, false) == ERR_FORMAT);
}
END_TEST

START_TEST(a_file_of_another_text_or_place_is_no_hit) {
    kv_rig_chunk c;
    uint32_t groups;
    err e;
    store(4);
    kv_rig_make(&c, 4);
    kv_file_id id = c.id;
    ck_assert_int_eq(kv_dir_read(&r.d, r.file, &id, &groups, &e), OK);
    for (int i = 0; i < 6; i++) {
        if (i > 0) store(4); /* whoever found it wrong removed it */
        int32_t tokens[128];
        memcpy(tokens, c.tokens, sizeof tokens);
        id = c.id;
        id.tokens = tokens;
        if (i == 0) tokens[127]++;
        if (i == 1) tokens[0] ^= 1;
        if (i == 2) id.parent[1]++;
        if (i == 3) id.salt++;
        if (i == 4) id.chunk++;
        if (i == 5)
            store(3), kv_rig_make(&c, 3), id = c.id, id.groups = 3; /* it has one only */
        ck_assert_int_eq(kv_dir_read(&r.d, r.file, &id, &groups, &e), ERR_FORMAT);
        ck_assert_int_eq(kv_dir_read(&r.d, r.file, &id, &groups, &e), ERR_NOT_FOUND);
    }
}
END_TEST

START_TEST(a_file_cut_short_or_grown_is_removed) {
    char name[192];
    kv_rig_chunk c;
    kv_rig_make(&c, 1);
    const off_t whole = (off_t)kv_file_bytes(&kv_rig_shape, c.id.groups);
    const off_t sizes[] = {
        0, 1, 511, 4095, 4096, 4097, 8192, whole - 4096, whole - 1, whole + 1, whole + 4096};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int by_scan = 0; by_scan < 2; by_scan++) {
            store(1);
            name_of(name, sizeof name, 1);
            ck_assert_int_eq(truncate(name, sizes[i]), 0);
            if (by_scan) {
                ck_assert_uint_eq(scan(), 0);
                ck_assert_uint_eq(r.bad, 1);
            } else {
                ck_assert_int_eq(load(1), ERR_FORMAT);
            }
            ck_assert_int_ne(access(name, F_OK), 0);
        }
    }
}
END_TEST

START_TEST(a_file_under_the_name_of_another_is_removed) {
    char one[192], two[192];
    store(1), store(2);
    name_of(one, sizeof one, 1);
    name_of(two, sizeof two, 2);
    ck_assert_int_eq(rename(one, two), 0);
    ck_assert_int_eq(load(2), ERR_FORMAT);
    store(1), store(2);
    ck_assert_int_eq(rename(one, two), 0);
    ck_assert_uint_eq(scan(), 0);
    ck_assert_uint_eq(r.bad, 1);
}
END_TEST

START_TEST(another_family_finds_nothing_and_clears_the_directory) {
    char name[192], other[96];
    unsigned char family[KV_FILE_FAMILY];
    memcpy(family, kv_rig_family, sizeof family);
    family[31] ^= 1; /* the same directory: the header tells them apart */
    store(1), store(2);
    kv_dir_close(&r.d);
    open_dir(family);
    ck_assert_int_eq(load(1), ERR_FORMAT);
    ck_assert_uint_eq(scan(), 0);
    kv_dir_close(&r.d);
    open_dir(kv_rig_family);
    store(1), store(2);
    kv_dir_close(&r.d);
    snprintf(other, sizeof other, "%s/notes", r.path);
    ck_assert_int_eq(mkdir(other, 0700), 0);
    family[0] ^= 1;
    open_dir(family);
    ck_assert_uint_eq(r.removed, 2);
    ck_assert_uint_eq(scan(), 0);
    name_of(name, sizeof name, 1);
    ck_assert_int_ne(access(name, F_OK), 0);
    ck_assert_int_eq(access(other, F_OK), 0); /* not ours */
}
END_TEST

START_TEST(the_key_stays_is_private_and_locks_the_directory) {
    char name[96];
    struct stat st;
    uint64_t key[2];
    kv_dir second;
    err e;
    memcpy(key, r.d.key, sizeof key);
    ck_assert(key[0] | key[1]);
    snprintf(name, sizeof name, "%s/key", r.path);
    ck_assert_int_eq(stat(name, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    ck_assert_int_eq(kv_dir_open(&second, r.path, &e), ERR_BUSY);
    kv_dir_close(&second);
    kv_dir_close(&r.d);
    open_dir(kv_rig_family);
    ck_assert_mem_eq(key, r.d.key, sizeof key);
    kv_dir_close(&r.d);
    ck_assert_int_eq(chmod(name, 0640), 0);
    ck_assert_int_eq(kv_dir_open(&r.d, r.path, &e), ERR_FORMAT);
    kv_dir_close(&r.d);
    ck_assert_int_eq(chmod(name, 0600), 0);
    ck_assert_int_eq(truncate(name, 15), 0);
    ck_assert_int_eq(kv_dir_open(&r.d, r.path, &e), ERR_FORMAT);
}
END_TEST

enum { STARTERS = 4 };

/* Waits for the others, opens the directory, and holds it while they try. */
static void start_one(const char *path, pthread_barrier_t *all) {
    kv_dir d;
    err e;
    pthread_barrier_wait(all);
    const status s = kv_dir_open(&d, path, &e);
    pthread_barrier_wait(all);
    _exit(s == OK ? 0 : s == ERR_BUSY ? 1 : 2);
}

/* All but one find it taken, and there is one key. */
START_TEST(daemons_that_start_at_once_agree_on_the_key) {
    pthread_barrierattr_t shared;
    pthread_barrier_t *all =
        mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(all != MAP_FAILED);
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    for (uint32_t round = 0; round < 200; round++) {
        char path[128];
        uint32_t n[3] = {0};
        snprintf(path, sizeof path, "%s/%u", r.path, round);
        pthread_barrier_init(all, &shared, STARTERS);
        fflush(NULL);
        for (int i = 0; i < STARTERS; i++)
            if (fork() == 0) start_one(path, all);
        for (int i = 0, how; i < STARTERS; i++) {
            ck_assert_int_gt(wait(&how), 0);
            ck_assert(WIFEXITED(how) && WEXITSTATUS(how) < 3);
            n[WEXITSTATUS(how)]++;
        }
        pthread_barrier_destroy(all);
        ck_assert_uint_eq(n[0], 1);
        ck_assert_uint_eq(n[1], STARTERS - 1);
        ck_assert_uint_eq(count_files(path), 1);
    }
    munmap(all, sizeof *all);
}
END_TEST

START_TEST(a_directory_that_cannot_be_made_is_an_error) {
    kv_dir d;
    err e;
    ck_assert_int_eq(kv_dir_open(&d, "/proc/no/such", &e), ERR_IO);
    kv_dir_close(&d);
    ck_assert_int_eq(kv_dir_open(&d, "/dev/null", &e), ERR_IO);
    kv_dir_close(&d);
}
END_TEST

static void write_for_ever(uint64_t n) {
    kv_dir_close(&r.d);
    open_dir(kv_rig_family);
    for (;; n++) store(n);
}

/* A writer is killed at some moment, again and again: what is there then is whole, and nothing
 * is left of what is not. */
START_TEST(a_writer_killed_at_any_moment_leaves_whole_files) {
    uint64_t n_seen = 0, n_left = 0;
    kv_dir_close(&r.d);
    for (uint32_t round = 0; round < 60; round++) {
        fflush(NULL);
        const pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) write_for_ever(round * 40);
        usleep((useconds_t)(500 + hash_mix(round) % 15000));
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        ck_assert_int_eq(waitpid(child, NULL, 0), child);
        open_dir(kv_rig_family);
        scan();
        n_seen += r.n_found;
        n_left += r.bad;
        for (uint64_t n = 0; n < round * 40 + 600; n++) {
            const status s = load(n); /* compares every byte */
            ck_assert(s == OK || s == ERR_NOT_FOUND);
            r.n_found -= s == OK;
        }
        ck_assert_uint_eq(r.n_found, 0);
        ck_assert_uint_eq(scan(), scan());
        ck_assert_uint_eq(r.bad, 0); /* removed the first time */
        kv_dir_close(&r.d);
    }
    ck_assert_uint_gt(n_seen, 0);
    ck_assert_uint_gt(n_left, 0); /* some were killed within a write */
}
END_TEST

int main(void) {
    Suite *s = suite_create("kv_file");
    TCase *c = check_case(s, "kv_file");
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, what_was_written_comes_back);
    tcase_add_test(c, a_removed_file_is_gone);
    tcase_add_test(c, every_byte_of_the_header_counts);
    tcase_add_test(c, every_byte_of_the_payload_counts);
    tcase_add_test(c, a_file_of_another_text_or_place_is_no_hit);
    tcase_add_test(c, a_file_cut_short_or_grown_is_removed);
    tcase_add_test(c, a_file_under_the_name_of_another_is_removed);
    tcase_add_test(c, another_family_finds_nothing_and_clears_the_directory);
    tcase_add_test(c, the_key_stays_is_private_and_locks_the_directory);
    tcase_add_test(c, daemons_that_start_at_once_agree_on_the_key);
    tcase_add_test(c, a_directory_that_cannot_be_made_is_an_error);
    tcase_add_test(c, a_writer_killed_at_any_moment_leaves_whole_files);
    return check_run(s);
}
