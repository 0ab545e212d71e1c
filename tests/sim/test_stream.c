/* Random streams of operations against the naive reference of stream.h. */

#include "base/hash.h"
#include "tests/check_main.h"
#include "tests/sim/stream.h"

START_TEST(random_streams_keep_every_promise) {
    enum { STREAMS = 20000, BYTES = 600 };
    uint8_t data[BYTES];
    uint64_t n_ended = 0, n_preemptions = 0, n_found = 0, n_forked = 0, state = 1;
    for (uint32_t k = 0; k < STREAMS; k++) {
        for (int i = 0; i < BYTES; i++) data[i] = (uint8_t)(hash_mix(state++) >> 32);
        stream *m = calloc(1, sizeof *m);
        stream_run(m, data, BYTES);
        n_ended += m->n_ended;
        n_preemptions += m->n_preemptions;
        n_found += m->n_found;
        n_forked += m->n_forked;
        free(m);
    }
    ck_assert_uint_gt(n_ended, STREAMS); /* the streams do exercise something */
    ck_assert_uint_gt(n_preemptions, STREAMS / 10);
    ck_assert_uint_gt(n_found, STREAMS / 4);
    ck_assert_uint_gt(n_forked, STREAMS / 10);
}
END_TEST

CHECK_MAIN("stream", random_streams_keep_every_promise)
