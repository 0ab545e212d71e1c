/* module: model */
/* Fuzzes quantised matrices: a quantization_config, a zero byte and a file of safetensors. Each matrix
 * that is found in it is read, at once and a row at a time, which give the same bytes or the same
 * refusal. One thread. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "json/in.h"
#include "model/hf/hf_packed_read.h"
#include "tests/model/hf_build.h"

enum { MOST_BYTES = 1 << 20 };

static void read_matrix(const hf_packed *p, uint32_t head_dim) {
    err e = {0};
    uint64_t row_bytes;
    CHECK(p->rows > 0 && p->cols > 0 && dtype_bytes(p->type, 1, p->cols, &row_bytes));
    if (p->rows * row_bytes > MOST_BYTES || (head_dim && p->rows % head_dim)) return;
    const uint64_t slab_bytes = hf_slab_bytes(p);
    void *mem = slab_bytes ? malloc(slab_bytes) : NULL;
    hf_slab *slab = mem ? hf_slab_init(mem) : NULL;
    CHECK(!slab_bytes == !slab);
    unsigned char *all = calloc(p->rows, row_bytes), *one = calloc(1, row_bytes);
    CHECK(all && one);
    const status s = hf_packed_read(p, slab, head_dim, 0, p->rows, all, &e);
    status by_row = OK;
    CHECK(s == OK || e.text[0]);
    for (uint64_t i = 0; i < p->rows && by_row == OK; i++) {
        by_row = hf_packed_read(p, slab, head_dim, i, 1, one, &e);
        CHECK(s != OK || (by_row == OK && memcmp(one, all + i * row_bytes, row_bytes) == 0));
    }
    CHECK((s == OK) == (by_row == OK));
    hf_slab_clear(slab);
    free(mem);
    free(all);
    free(one);
}

static void read_all(const hf_scheme *scheme, const safetensors *f, arena *mem) {
    for (uint32_t i = 0; i < f->n; i++) {
        bool beside;
        hf_packed p;
        err e = {0};
        const size_t base = hf_packed_base(scheme, &f->tensor[i], &beside);
        if (!base) continue;
        if (hf_packed_find(&p, scheme, f, 1, &f->tensor[i], base, mem, &e) != OK) {
            CHECK(e.text[0]);
            continue;
        }
        read_matrix(&p, 0);
        read_matrix(&p, 4);
    }
}

static void read_file(const hf_scheme *scheme, const uint8_t *data, size_t n) {
    static int fd = -1;
    safetensors f;
    arena mem;
    err e = {0};
    if (fd < 0) fd = memfd_create("fuzz", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    arena_init(&mem, chunks_heap(), 0);
    if (safetensors_open(&f, dup(fd), "fuzz", &mem, &e) == OK) {
        read_all(scheme, &f, &mem);
        safetensors_close(&f);
    }
    arena_clear(&mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    hf_scheme scheme;
    arena mem;
    err e = {0};
    const json_t *config;
    const uint8_t *end = memchr(data, 0, n);
    if (!end) return 0;
    const str text = {(const char *)data, (size_t)(end - data)};
    arena_init(&mem, chunks_heap(), 0);
    if (json_in_parse(&config, &mem, text, &e) == OK) {
        if (hf_scheme_read(&scheme, config, &e) == OK)
            read_file(&scheme, end + 1, n - text.len - 1);
        else
            CHECK(e.text[0]);
    }
    arena_clear(&mem);
    return 0;
}
