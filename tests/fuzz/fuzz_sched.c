/* module: sim */
/* Streams of operations on the scheduler, against the naive reference of tests/sim/stream.h. */
#include "tests/sim/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 2000) return 0;
    stream *m = calloc(1, sizeof *m);
    CHECK(m);
    /* By the size, which no byte of the stream depends on. */
    m->crowded = size & 1;
    m->aging = size & 2;
    m->drafts = size & 4;
    m->batching = (sched_batching)(size / 16 % 3);
    m->resizes = size & 8;
    m->tier = size & 16;
    m->fair = size & 32 && !m->aging;
    m->timed = size & 64;
    m->forgets = size & 128;
    stream_run(m, data, size);
    free(m);
    return 0;
}
