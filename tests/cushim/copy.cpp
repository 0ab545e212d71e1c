/* Copies and fills. Addresses and directions are checked as the driver does; pinned memory is
 * read and written when the copy runs, so that a buffer reused too early shows. */
#include <string.h>

#include "early.h"
#include "stream.h"

namespace cushim {
namespace {

struct rect {
    void *to;
    size_t to_pitch;
    const void *from;
    size_t from_pitch, width, height;
};

void run_copy(const rect &r) {
    early_settle();
    n_written++;
    for (size_t y = 0; y < r.height; y++)
        memmove((char *)r.to + y * r.to_pitch, (const char *)r.from + y * r.from_pitch,
                r.width);
}

bool direction_fits(cudaMemcpyKind kind, place to, place from) {
    bool to_device = to == place::device, from_device = from == place::device;
    switch (kind) {
    case cudaMemcpyHostToHost: return !to_device && !from_device;
    case cudaMemcpyHostToDevice: return to_device && !from_device;
    case cudaMemcpyDeviceToHost: return !to_device && from_device;
    case cudaMemcpyDeviceToDevice: return to_device && from_device;
    case cudaMemcpyDefault: return true;
    }
    return false;
}

/* Host memory that is not pinned is read before the call returns. */
cudaError_t copy_pageable_in(cudaStream_t s, const rect &r) {
    auto bytes = std::make_shared<std::vector<char>>(r.width * r.height);
    rect in = {bytes->data(), r.width, r.from, r.from_pitch, r.width, r.height};
    run_copy(in);
    rect out = {r.to, r.to_pitch, bytes->data(), r.width, r.width, r.height};
    return enqueue(s, [=] {
        run_copy(out);
        bytes->clear();
    });
}

cudaError_t copy(const rect &r, cudaMemcpyKind kind, cudaStream_t handle, bool wait) {
    if (r.width > r.to_pitch || r.width > r.from_pitch) return result(cudaErrorInvalidValue);
    CUstream_st *s = known_stream(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (r.width == 0 || r.height == 0) return result(cudaSuccess);
    place to = place_of(r.to, (r.height - 1) * r.to_pitch + r.width);
    place from = place_of(r.from, (r.height - 1) * r.from_pitch + r.width);
    if (!r.to || !r.from || to == place::wrong || from == place::wrong)
        return result(cudaErrorInvalidValue);
    if (!direction_fits(kind, to, from)) return result(cudaErrorInvalidMemcpyDirection);
    bool pageable = to == place::pageable || from == place::pageable;
    if (pageable && !wait) counts.pageable_copies++;
    if (from == place::pageable && !wait && !s->cap) return copy_pageable_in(handle, r);
    cudaError_t e = enqueue(handle, [=] { run_copy(r); });
    if (e == cudaSuccess && !s->cap && (wait || to == place::pageable)) e = finish(s);
    return e;
}

cudaError_t fill(void *to, int value, size_t bytes, cudaStream_t s) {
    if (bytes == 0) return result(cudaSuccess);
    place at = place_of(to, bytes);
    if (at != place::device && at != place::pinned) return result(cudaErrorInvalidValue);
    return enqueue(s, [=] {
        early_settle();
        n_written++;
        memset(to, value, bytes);
    });
}

} // namespace
} // namespace cushim

using namespace cushim;

extern "C" {

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind,
                            cudaStream_t s) {
    CUSHIM_API;
    return copy({to, n, from, n, n, 1}, kind, s, false);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, cudaMemcpyKind kind) {
    CUSHIM_API;
    if (cudaError_t e = refuse_in_capture()) return e;
    return copy({to, n, from, n, n, 1}, kind, nullptr, true);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t s) {
    CUSHIM_API;
    return copy({to, to_pitch, from, from_pitch, width, height}, kind, s, false);
}
cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind kind) {
    CUSHIM_API;
    if (cudaError_t e = refuse_in_capture()) return e;
    return copy({to, to_pitch, from, from_pitch, width, height}, kind, nullptr, true);
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t s) {
    CUSHIM_API;
    return fill(to, value, n, s);
}
cudaError_t cudaMemset(void *to, int value, size_t n) {
    CUSHIM_API;
    if (cudaError_t e = refuse_in_capture()) return e;
    return fill(to, value, n, nullptr);
}

} // extern "C"
