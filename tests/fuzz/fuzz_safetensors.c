/* module: model */
/* Fuzzes a file of safetensors: what opens holds together, each tensor inside of the file, readable
 * to its last byte and found under its name. One thread. */
#include <stdint.h>

#include "model/hf/safetensors.h"
#include "tests/model/hf_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int fd = -1;
    safetensors f;
    arena mem;
    err e = {0};
    char byte;
    if (fd < 0) fd = memfd_create("fuzz", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    arena_init(&mem, chunks_heap(), 0);
    if (safetensors_open(&f, dup(fd), "fuzz", &mem, &e) == OK) {
        for (uint32_t i = 0; i < f.n; i++) {
            const safetensor *t = &f.tensor[i];
            CHECK(safetensors_find(&f, t->name) == t);
            CHECK(t->offset <= n && t->bytes <= n - t->offset);
            CHECK(!t->bytes || safetensors_read(&f, t, t->bytes - 1, &byte, 1, &e) == OK);
        }
        safetensors_close(&f);
    } else {
        CHECK(e.text[0]);
    }
    arena_clear(&mem);
    return 0;
}
