/* What the tests of the shim share. */
#ifndef VRAMD_TESTS_CUSHIM_TESTING_H
#define VRAMD_TESTS_CUSHIM_TESTING_H

#include "engine/cuda/cu.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "cushim_ctl.h"
#include "tests/check_main.h"

#define OK(call)                                                                               \
    do {                                                                                       \
        cudaError_t e_ = (call);                                                               \
        ck_assert_msg(e_ == cudaSuccess, "%s: %s", #call, cudaGetErrorString(e_));             \
    } while (0)

const int N_ORDERS = 8; /* lockstep, greedy, greedy backwards, five seeds */

/* Device memory for n elements, filled from host if given. */
template <class T> static T *device(size_t n, const T *host = nullptr) {
    T *p;
    OK(cudaMalloc((void **)&p, n * sizeof(T)));
    if (host) OK(cudaMemcpy(p, host, n * sizeof(T), cudaMemcpyHostToDevice));
    return p;
}
template <class T> static T *device(const std::vector<T> &host) {
    return device(host.size(), host.data());
}
/* Waits for all work and copies back. */
template <class T> static std::vector<T> host(const T *dev, size_t n) {
    std::vector<T> v(n);
    OK(cudaDeviceSynchronize());
    OK(cudaMemcpy(v.data(), dev, n * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
}

static inline cudaStream_t stream() {
    cudaStream_t s;
    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}

/* Runs f in a child without its messages; true: it did not end well. */
template <class F> static bool dies(F f) {
    fflush(nullptr);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        dup2(null, 2);
        f();
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* The fault of the last work, after which the shim is usable again. */
static inline std::vector<char> fault() {
    cudaDeviceSynchronize();
    const char *e = cushim_error();
    std::vector<char> text(e ? e : "", (e ? e : "") + (e ? strlen(e) : 0) + 1);
    cushim_reset();
    return text;
}
#define ck_assert_fault(words)                                                                 \
    do {                                                                                       \
        std::vector<char> text_ = fault();                                                     \
        ck_assert_msg(strstr(text_.data(), words), "fault is '%s', not '%s'", text_.data(),    \
                      words);                                                                  \
    } while (0)

static uint32_t random_state = 1;
static inline uint32_t random_bits() { /* xorshift32 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}
static inline float random_unit() {
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

#endif
