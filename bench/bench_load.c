/* How fast a model is read: one thread, from the page cache, rows to tiles as cpu_load does it; the parts alone,
 * too. Bytes are those of the rows read.
 *
 *     build/bench_load MODEL...            (GGUF files and folders) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "engine/cpu/linear.h"
#include "model/model.h"

enum { BOUNCE = 256 << 10, ROUNDS = 3 };

typedef struct times {
    double read_s, pack_s, bytes;
} times;

static uint32_t at_once(uint64_t row_bytes, uint32_t rows) {
    const uint64_t n = BOUNCE / row_bytes / 32 * 32;
    return n == 0 ? 32 : n < rows ? (uint32_t)n : rows;
}

static void one_weight(const model *m, weight_id id, times *t) {
    const weight *w = &m->program.weights[id];
    uint64_t row_bytes;
    err e;
    if (w->role == WEIGHT_VECTOR || !linear_supports(w->type, w->cols)) return;
    CHECK(dtype_bytes(w->type, 1, w->cols, &row_bytes));
    const uint32_t step = at_once(row_bytes, w->rows);
    void *rows = malloc(step * row_bytes), *tiles;
    CHECK(rows && posix_memalign(&tiles, 64, packed_bytes(w->type, w->rows, w->cols)) == 0);
    memset(tiles, 1, packed_bytes(w->type, w->rows, w->cols)); /* no page faults below */
    for (uint32_t row = 0; row < w->rows; row += step) {
        const uint32_t n = w->rows - row < step ? w->rows - row : step;
        const uint64_t t0 = clock_us();
        if (model_read_rows(m, id, row, n, rows, &e) != OK) {
            fprintf(stderr, "%s\n", e.text);
            exit(1);
        }
        const uint64_t t1 = clock_us();
        packed_store(tiles, w->type, w->rows, w->cols, row, n, rows);
        t->read_s += (double)(t1 - t0) / 1e6;
        t->pack_s += (double)(clock_us() - t1) / 1e6;
        t->bytes += (double)(n * row_bytes);
    }
    free(tiles);
    free(rows);
}

int main(int argc, char **argv) {
    const char *comma = "";
    printf("{\"rows\": [\n");
    for (int i = 1; i < argc; i++) {
        checkpoint *c;
        model *m;
        err e;
        times best = {0};
        if (checkpoint_open(&c, argv[i], &e) != OK || model_open(&m, c, &e) != OK) {
            fprintf(stderr, "%s: %s\n", argv[i], e.text);
            return 1;
        }
        for (int round = 0; round < ROUNDS; round++) {
            times t = {0};
            for (weight_id id = 0; id < m->program.n_weights; id++) one_weight(m, id, &t);
            if (round == 0 || t.read_s + t.pack_s < best.read_s + best.pack_s) best = t;
        }
        const char *slash = strrchr(argv[i], '/');
        printf(
            "%s{\"model\": \"%s\", \"bytes\": %.0f, \"read_GBps\": %.2f, \"pack_GBps\": %.2f, "
            "\"load_GBps\": %.2f}",
            comma, slash ? slash + 1 : argv[i], best.bytes, best.bytes / best.read_s / 1e9,
            best.bytes / best.pack_s / 1e9, best.bytes / (best.read_s + best.pack_s) / 1e9);
        fflush(stdout);
        comma = ",\n";
        model_close(m);
        checkpoint_close(c);
    }
    printf("\n]}\n");
    return 0;
}
