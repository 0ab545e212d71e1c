/* Random streams of operations against the naive reference of stream.h. */
#include <check.h>

#include "base/hash.h"
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

int main(void) {
    Suite *suite = suite_create("stream");
    TCase *t = tcase_create("stream");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, random_streams_keep_every_promise);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
