/* Folders and files of safetensors, written by a test. */
#ifndef VRAMD_TESTS_MODEL_HF_BUILD_H
#define VRAMD_TESTS_MODEL_HF_BUILD_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/str.h"

#define HF_UNUSED __attribute__((unused))

/* A descriptor of a file in memory: the header's length, the header, n bytes 0, 1, 2, ... */
HF_UNUSED static int hf_fd(str header, size_t n) {
    const int fd = memfd_create("safetensors", MFD_CLOEXEC);
    unsigned char length[8];
    CHECK(fd >= 0);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
    CHECK(write(fd, length, 8) == 8);
    CHECK(write(fd, header.ptr, header.len) == (ssize_t)header.len);
    for (size_t i = 0; i < n; i++) CHECK(write(fd, &(unsigned char){(unsigned char)i}, 1) == 1);
    return fd;
}

typedef struct hf_dir {
    char path[64];
} hf_dir;

HF_UNUSED static void hf_dir_make(hf_dir *d) {
    snprintf(d->path, sizeof d->path, "/tmp/vramd-hf-XXXXXX");
    CHECK(mkdtemp(d->path));
}
HF_UNUSED static void hf_dir_remove(const hf_dir *d) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", d->path);
    CHECK(system(command) == 0);
}
HF_UNUSED static void hf_write(const hf_dir *d, const char *name, const void *p, size_t n) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", d->path, name);
    FILE *f = fopen(path, "wbe");
    CHECK(f && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}
HF_UNUSED static void hf_text(const hf_dir *d, const char *name, const char *text) {
    hf_write(d, name, text, strlen(text));
}

#endif
