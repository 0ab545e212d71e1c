/* module: sim */
/* Streams of operations on the scheduler, against the naive reference of tests/sim/stream.h. */
#include "tests/sim/stream_kinds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 2000) return 0;
    stream *m = calloc(1, sizeof *m);
    CHECK(m);
    stream_choose(m, size); /* which no byte of the stream depends on */
    stream_run(m, data, size);
    free(m);
    return 0;
}
