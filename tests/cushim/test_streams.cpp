/* Streams, events, copies and graphs: work is deferred, and only what an event promises holds.
 */
#include "testing.h"

__global__ void k_set(int *p, int v) {
    *p = v;
}
__global__ void k_add(int *to, const int *a, const int *b) {
    *to = *a + *b;
}
__global__ void k_increment(int *p) {
    *p += 1;
}

/* What a test does not free, LeakSanitizer is not to find. */
static void keep(void *p) {
    static std::vector<void *> *kept = new std::vector<void *>;
    kept->push_back(p);
}

template <class T> static T *pinned(size_t n) {
    T *p;
    OK(cudaHostAlloc((void **)&p, n * sizeof(T), cudaHostAllocDefault));
    keep(p);
    return p;
}
static cudaEvent_t event(unsigned flags = cudaEventDisableTiming) {
    cudaEvent_t e;
    OK(cudaEventCreateWithFlags(&e, flags));
    keep(e);
    return e;
}

START_TEST(work_runs_when_somebody_waits) {
    cushim_set_order(0);
    cudaStream_t s = stream();
    int *d = device<int>(1), *h = pinned<int>(1);
    *h = 0;
    CU_LAUNCH(k_set, 1, 1, 0, s, d, 42);
    OK(cudaMemcpyAsync(h, d, sizeof *h, cudaMemcpyDeviceToHost, s));
    ck_assert_int_eq(*h, 0); /* a host that does not wait sees old bytes */
    ck_assert_int_eq(cushim_count().pending, 2);
    OK(cudaStreamSynchronize(s));
    ck_assert_int_eq(*h, 42);
    ck_assert_int_eq(cushim_count().pending, 0);
}
END_TEST

/* Writes 1, copies in, writes 2 at once: the device must see 2 in some order, 1 if it waits. */
static int orders_in_which_the_device_sees(int wanted, bool wait) {
    int seen = 0;
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        cudaStream_t s = stream();
        int *d = device<int>(1), *h = pinned<int>(1);
        *h = 1;
        OK(cudaMemcpyAsync(d, h, sizeof *h, cudaMemcpyHostToDevice, s));
        if (wait) OK(cudaStreamSynchronize(s));
        *h = 2;
        seen += host(d, 1)[0] == wanted;
    }
    return seen;
}

START_TEST(pinned_memory_reused_too_early_shows) {
    ck_assert_int_gt(orders_in_which_the_device_sees(2, false), 0);
    ck_assert_int_eq(orders_in_which_the_device_sees(1, true), N_ORDERS);
}
END_TEST

START_TEST(pageable_memory_can_be_reused_at_once) {
    cushim_set_order(0);
    cudaStream_t s = stream();
    int *d = device<int>(1), h = 1;
    OK(cudaMemcpyAsync(d, &h, sizeof h, cudaMemcpyHostToDevice, s));
    h = 2;
    ck_assert_int_eq(host(d, 1)[0], 1);
    ck_assert_int_eq(cushim_count().pageable_copies, 1);
}
END_TEST

/* One stream produces, another consumes. */
static int orders_with_right_sum(bool with_event) {
    int right = 0;
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        cudaStream_t producer = stream(), consumer = stream();
        cudaEvent_t ready = event();
        int *a = device<int>(1), *sum = device<int>(1);
        CU_LAUNCH(k_set, 1, 1, 0, producer, a, 21);
        OK(cudaEventRecord(ready, producer));
        if (with_event) OK(cudaStreamWaitEvent(consumer, ready, 0));
        CU_LAUNCH(k_add, 1, 1, 0, consumer, sum, a, a);
        OK(cudaStreamSynchronize(consumer));
        right += host(sum, 1)[0] == 42;
    }
    return right;
}

START_TEST(a_missing_event_between_streams_shows) {
    ck_assert_int_eq(orders_with_right_sum(true), N_ORDERS);
    ck_assert_int_lt(orders_with_right_sum(false), N_ORDERS);
}
END_TEST

START_TEST(an_event_stands_for_its_last_record) {
    cushim_set_order(0);
    cudaStream_t a = stream(), b = stream();
    cudaEvent_t e = event();
    OK(cudaEventQuery(e)); /* never recorded: passed */
    int *p = device<int>(1), *q = device<int>(1);
    CU_LAUNCH(k_set, 1, 1, 0, a, p, 1);
    OK(cudaEventRecord(e, a));
    OK(cudaStreamWaitEvent(b, e, 0));
    OK(cudaEventRecord(e, a)); /* b waits for the first record, not for this one */
    CU_LAUNCH(k_add, 1, 1, 0, b, q, p, p);
    OK(cudaStreamSynchronize(b));
    ck_assert_int_eq(cushim_count().pending, 1);
    OK(cudaEventSynchronize(e));
    ck_assert_int_eq(cushim_count().pending, 0);
    ck_assert_int_eq(host(q, 1)[0], 2);
}
END_TEST

START_TEST(polling_an_event_gets_there) {
    cushim_set_order(2);
    cudaStream_t s = stream();
    cudaEvent_t e = event();
    int *p = device<int>(1);
    for (int i = 0; i < 5; i++) CU_LAUNCH(k_set, 1, 1, 0, s, p, i);
    OK(cudaEventRecord(e, s));
    ck_assert_int_eq(cudaEventQuery(e), cudaErrorNotReady);
    int polls = 1;
    while (cudaEventQuery(e) == cudaErrorNotReady) polls++;
    ck_assert_int_le(polls, 6);
    OK(cudaGetLastError()); /* not ready is no error */
    ck_assert_int_eq(host(p, 1)[0], 4);
}
END_TEST

START_TEST(the_legacy_stream_waits_for_blocking_streams) {
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        cudaStream_t blocking;
        OK(cudaStreamCreate(&blocking));
        int *p = device<int>(1), *q = device<int>(1);
        CU_LAUNCH(k_set, 1, 1, 0, blocking, p, 4);
        CU_LAUNCH(k_add, 1, 1, 0, nullptr, q, p, p);
        CU_LAUNCH(k_increment, 1, 1, 0, blocking, q);
        OK(cudaStreamSynchronize(blocking));
        ck_assert_int_eq(host(q, 1)[0], 9);
    }
}
END_TEST

START_TEST(times_between_events_are_the_same_every_time) {
    float ms[2];
    for (float &t : ms) {
        cudaStream_t s = stream();
        cudaEvent_t from = event(cudaEventDefault), to = event(cudaEventDefault);
        int *p = device<int>(1);
        OK(cudaEventRecord(from, s));
        for (int i = 0; i < 10; i++) CU_LAUNCH(k_set, 1, 1, 0, s, p, i);
        OK(cudaEventRecord(to, s));
        OK(cudaStreamSynchronize(s));
        OK(cudaEventElapsedTime(&t, from, to));
    }
    ck_assert_float_eq(ms[0], ms[1]);
    ck_assert_float_gt(ms[0], 0.0f);
    cudaEvent_t no_timing = event();
    ck_assert_int_ne(cudaEventElapsedTime(ms, no_timing, no_timing), cudaSuccess);
}
END_TEST

static void note(void *arg) {
    *(int *)arg += 1;
}

START_TEST(host_functions_run_in_their_turn) {
    cudaStream_t s = stream();
    int called = 0, *p = device<int>(1);
    CU_LAUNCH(k_set, 1, 1, 0, s, p, 1);
    OK(cudaLaunchHostFunc(s, note, &called));
    OK(cudaStreamSynchronize(s));
    ck_assert_int_eq(called, 1);
}
END_TEST

/* ---- copies */

START_TEST(copies_check_addresses_and_directions) {
    char *d = device<char>(1000), h[1000] = {0};
    ck_assert_int_eq(cudaMemcpy(d, h, 1001, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    ck_assert_int_eq(cudaMemcpy(d + 999, h, 2, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    OK(cudaMemcpy(d + 999, h, 1, cudaMemcpyHostToDevice));
    ck_assert_int_eq(cudaMemcpy(h, d, 8, cudaMemcpyHostToDevice),
                     cudaErrorInvalidMemcpyDirection);
    ck_assert_int_eq(cudaMemcpy(d, h, 8, cudaMemcpyDeviceToDevice),
                     cudaErrorInvalidMemcpyDirection);
    ck_assert_int_eq(cudaMemset(h, 0, 8), cudaErrorInvalidValue);
    OK(cudaFree(d));
    ck_assert_int_eq(cudaMemcpy(d, h, 8, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    cudaStream_t gone = stream();
    OK(cudaStreamDestroy(gone));
    ck_assert_int_eq(cudaMemcpyAsync(d, h, 8, cudaMemcpyHostToDevice, gone),
                     cudaErrorInvalidResourceHandle);
}
END_TEST

START_TEST(rectangles_are_copied_row_by_row) {
    std::vector<int> in(4 * 10), zero(4 * 16);
    for (int i = 0; i < 40; i++) in[i] = i;
    int *d = device(zero);
    OK(cudaMemcpy2DAsync(d, 64, in.data(), 40, 12, 4, cudaMemcpyHostToDevice, nullptr));
    std::vector<int> out = host(d, 64);
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 16; x++) ck_assert_int_eq(out[y * 16 + x], x < 3 ? y * 10 + x : 0);
    ck_assert_int_eq(cudaMemcpy2D(d, 64, in.data(), 40, 44, 4, cudaMemcpyHostToDevice),
                     cudaErrorInvalidValue);
}
END_TEST

/* ---- graphs */

static cudaGraphExec_t end_capture(cudaStream_t s) {
    cudaGraph_t g;
    cudaGraphExec_t x;
    OK(cudaStreamEndCapture(s, &g));
    OK(cudaGraphInstantiate(&x, g, 0));
    OK(cudaGraphDestroy(g));
    return x;
}

START_TEST(a_graph_runs_what_was_captured_each_time) {
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        cudaStream_t s = stream();
        int *p = device<int>(1), *in = pinned<int>(1), *out = pinned<int>(1);
        long before = cushim_count().launches;
        OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
        OK(cudaMemcpyAsync(p, in, sizeof *in, cudaMemcpyHostToDevice, s));
        CU_LAUNCH(k_increment, 1, 1, 0, s, p);
        OK(cudaMemcpyAsync(out, p, sizeof *out, cudaMemcpyDeviceToHost, s));
        cudaGraphExec_t g = end_capture(s);
        ck_assert_int_eq(cushim_count().launches, before); /* nothing ran yet */
        for (int i = 0; i < 3; i++) {
            *in = 10 * i;
            OK(cudaGraphLaunch(g, s));
            OK(cudaStreamSynchronize(s));
            ck_assert_int_eq(*out, 10 * i + 1);
        }
        OK(cudaGraphExecDestroy(g));
    }
}
END_TEST

/* Fork to a second stream and join again; with the join left out, an error; with an event left
 * out between two nodes, wrong sums in some order. */
static int orders_with_right_fork(bool wait_for_both) {
    int right = 0;
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        cudaStream_t a = stream(), b = stream();
        cudaEvent_t fork = event(), join = event();
        int *x = device<int>(1), *y = device<int>(1), *sum = device<int>(1);
        OK(cudaStreamBeginCapture(a, cudaStreamCaptureModeGlobal));
        OK(cudaEventRecord(fork, a));
        OK(cudaStreamWaitEvent(b, fork, 0));
        CU_LAUNCH(k_set, 1, 1, 0, b, y, 2);
        OK(cudaEventRecord(join, b));
        CU_LAUNCH(k_set, 1, 1, 0, a, x, 40);
        if (wait_for_both) OK(cudaStreamWaitEvent(a, join, 0));
        CU_LAUNCH(k_add, 1, 1, 0, a, sum, x, y);
        if (!wait_for_both) OK(cudaStreamWaitEvent(a, join, 0));
        cudaGraphExec_t g = end_capture(a);
        OK(cudaGraphLaunch(g, a));
        right += host(sum, 1)[0] == 42;
        OK(cudaGraphExecDestroy(g));
        /* b is an ordinary stream again */
        CU_LAUNCH(k_set, 1, 1, 0, b, x, 7);
        ck_assert_int_eq(host(x, 1)[0], 7);
    }
    return right;
}

START_TEST(a_capture_forks_and_joins_by_events) {
    ck_assert_int_eq(orders_with_right_fork(true), N_ORDERS);
    ck_assert_int_lt(orders_with_right_fork(false), N_ORDERS);
}
END_TEST

START_TEST(a_capture_must_be_joined) {
    cudaStream_t a = stream(), b = stream();
    cudaEvent_t fork = event();
    cudaGraph_t g;
    int *x = device<int>(1);
    OK(cudaStreamBeginCapture(a, cudaStreamCaptureModeGlobal));
    OK(cudaEventRecord(fork, a));
    OK(cudaStreamWaitEvent(b, fork, 0));
    CU_LAUNCH(k_set, 1, 1, 0, b, x, 2);
    ck_assert_int_eq(cudaStreamEndCapture(a, &g), cudaErrorStreamCaptureUnjoined);
    ck_assert_ptr_null(g);
}
END_TEST

START_TEST(a_capture_forbids_waiting_and_allocating) {
    cudaStream_t s = stream(), other = stream();
    cudaEvent_t outside = event();
    cudaGraph_t g;
    void *p;
    int *d = device<int>(1);
    CU_LAUNCH(k_set, 1, 1, 0, other, d, 1);
    OK(cudaEventRecord(outside, other));
    for (int i = 0; i < 4; i++) {
        OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
        cudaError_t e = i == 0   ? cudaMalloc(&p, 64)
                        : i == 1 ? cudaStreamSynchronize(s)
                        : i == 2 ? cudaDeviceSynchronize()
                                 : cudaStreamWaitEvent(s, outside, 0);
        ck_assert_int_eq(e, i == 3 ? cudaErrorStreamCaptureIsolation
                                   : cudaErrorStreamCaptureUnsupported);
        ck_assert_int_eq(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
    }
    ck_assert_int_eq(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal),
                     cudaErrorStreamCaptureUnsupported);
    ck_assert_int_eq(cudaStreamEndCapture(s, &g), cudaErrorIllegalState);
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed)); /* this mode lets it pass */
    OK(cudaMalloc(&p, 64));
    OK(cudaStreamEndCapture(s, &g));
    OK(cudaGraphDestroy(g));
}
END_TEST

CHECK_MAIN("streams", work_runs_when_somebody_waits, pinned_memory_reused_too_early_shows,
           pageable_memory_can_be_reused_at_once, a_missing_event_between_streams_shows,
           an_event_stands_for_its_last_record, polling_an_event_gets_there,
           the_legacy_stream_waits_for_blocking_streams,
           times_between_events_are_the_same_every_time, host_functions_run_in_their_turn,
           copies_check_addresses_and_directions, rectangles_are_copied_row_by_row,
           a_graph_runs_what_was_captured_each_time, a_capture_forks_and_joins_by_events,
           a_capture_must_be_joined, a_capture_forbids_waiting_and_allocating)
