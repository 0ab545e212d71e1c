/* module: quant */
/* Fuzzes an importance matrix: of what opens every tensor's mean squares are read, or refused by name, and are finite and
 * not negative. One thread. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "quant/imatrix.h"

enum { MOST = 1 << 16 };

/* The name of a tensor's sums without what it ends with. */
static bool stem_of(const char *sums, char name[128]) {
    static const char tail[] = ".in_sum2";
    const size_t n = strlen(sums), k = sizeof tail - 1;
    if (n <= k || n - k >= 70 || strcmp(sums + n - k, tail) != 0) return false;
    memcpy(name, sums, n - k);
    name[n - k] = '\0';
    return true;
}

static void read_all(const gguf *g) {
    char name[128];
    bool found;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        err e = {0};
        if (!stem_of(t->name, name) || t->ne[0] > MOST) continue;
        const uint32_t n = (uint32_t)t->ne[0];
        float *out = malloc(n * sizeof *out);
        CHECK(out);
        const status s = imatrix_read(g, name, n, out, &found, &e);
        CHECK(s == OK || e.text[0]);
        for (uint32_t k = 0; s == OK && found && k < n; k++)
            CHECK(out[k] >= 0 && !isnan(out[k]));
        CHECK(imatrix_read(g, name, n + 1, out, &found, &e) == ERR_FORMAT);
        free(out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int fd = -1;
    char path[64];
    gguf *g;
    err e = {0};
    if (fd < 0) fd = memfd_create("fuzz", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (imatrix_open(&g, path, &e) == OK) {
        read_all(g);
        gguf_close(g);
    } else {
        CHECK(e.text[0]);
    }
    return 0;
}
