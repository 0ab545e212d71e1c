/* Streams and events. Work is queued and runs later, on the thread that waits for it or (by the
 * order) at some other call: a host that does not wait sees old bytes, and two streams without
 * an event between them run in an order nobody promised. */
#include "stream.h"

#include <unistd.h>
#include <algorithm>

#include "cushim.h"
#include "early.h"

namespace cushim {

bool waits;

namespace {

enum { PAUSE_US = 100 };

CUstream_st *make_stream(bool blocking) {
    CUstream_st *s = new CUstream_st{};
    s->blocking = blocking;
    s->line = std::make_shared<timeline>(timeline{s, 0, 0});
    return s;
}

struct stream_list {
    CUstream_st *legacy = make_stream(true), *per_thread = make_stream(true);
    std::vector<CUstream_st *> all = {legacy, per_thread};
};
stream_list &streams() {
    static stream_list *list = new stream_list; /* lives as long as the process */
    return *list;
}

std::vector<capture *> captures;
uint64_t clock_ns;

moment now_of(CUstream_st *s) {
    return {s->line, s->line->queued};
}

/* False: it waits for another process. */
bool run_next(CUstream_st *s) {
    const std::vector<moment> after = s->queue.front().after;
    for (const moment &m : after) reach(m);
    operation op = std::move(s->queue.front());
    waits = false;
    if (!faulted()) {
        device_access open;
        op.run();
    }
    if (waits) {
        s->queue.front() = std::move(op);
        return false;
    }
    s->queue.pop_front();
    clock_ns += 1000;
    counts.pending--;
    s->line->done++;
    return true;
}

/* The same for a caller that goes on asking; other threads may call meanwhile. */
void run_or_pause(CUstream_st *s) {
    if (run_next(s)) return;
    mutex.unlock();
    usleep(PAUSE_US);
    mutex.lock();
}

CUstream_st *some_stream_with_work() {
    std::vector<CUstream_st *> busy;
    for (CUstream_st *s : streams().all)
        if (!s->queue.empty()) busy.push_back(s);
    if (busy.empty()) return nullptr;
    if (config.order > 2) return busy[roll((uint32_t)busy.size())];
    return config.order == 2 ? busy.back() : busy.front();
}

void run_some() { /* after each call that queues */
    CUstream_st *s;
    if (config.order == 1) {
        device_access open;
        while ((s = some_stream_with_work()) && run_next(s)) {
        }
        early_settle();
    }
    if (config.order > 2)
        while (roll(4) == 0)
            if (!(s = some_stream_with_work()) || !run_next(s)) break;
}

} // namespace

uint32_t roll(uint32_t n) {
    static rng dice(0);
    static int seed = -1;
    if (seed != config.order) seed = config.order, dice = rng((uint64_t)seed);
    return dice.below(n);
}

void advance_clock(uint64_t ns) {
    clock_ns += ns;
}

CUstream_st *known_stream(cudaStream_t s) {
    if (!s || s == cudaStreamLegacy) return streams().legacy;
    if (s == cudaStreamPerThread) return streams().per_thread;
    auto &all = streams().all;
    return std::find(all.begin(), all.end(), s) == all.end() ? nullptr : s;
}

void reach(const moment &m) {
    device_access open;
    while (!m.passed()) run_or_pause(m.line->stream);
}

bool step_towards(const moment &m) {
    if (!m.passed()) run_or_pause(m.line->stream);
    return m.passed();
}

cudaError_t finish(CUstream_st *s) {
    reach(now_of(s));
    early_settle();
    return result(cudaSuccess);
}

void finish_all() {
    device_access open;
    while (CUstream_st *s = some_stream_with_work()) run_or_pause(s);
    early_settle();
}

cudaError_t refuse_in_capture() {
    cudaError_t e = cudaSuccess;
    for (capture *c : captures)
        if (c->mode != cudaStreamCaptureModeRelaxed) {
            c->spoilt = true;
            e = result(cudaErrorStreamCaptureUnsupported);
        }
    return e;
}

cudaError_t enqueue(cudaStream_t handle, work run) {
    CUstream_st *s = known_stream(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (capture *c = s->cap) {
        if (c->spoilt) return result(cudaErrorStreamCaptureInvalidated);
        c->nodes.push_back({std::move(run), s->frontier});
        s->frontier = {c->nodes.size() - 1};
        return result(cudaSuccess);
    }
    operation op = {std::move(run), {}};
    CUstream_st *legacy = streams().legacy;
    if (s == legacy) {
        for (CUstream_st *other : streams().all) {
            if (other == s || !other->blocking) continue;
            if (other->cap) {
                other->cap->spoilt = true;
                return result(cudaErrorStreamCaptureImplicit);
            }
            op.after.push_back(now_of(other));
        }
    } else if (s->blocking) {
        op.after.push_back(now_of(legacy));
    }
    s->queue.push_back(std::move(op));
    s->line->queued++;
    counts.pending++;
    run_some();
    return result(cudaSuccess);
}

} // namespace cushim

using namespace cushim;

void cushim_launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t smem,
                   cudaStream_t stream, bool early, std::function<void()> body) {
    CUSHIM_API;
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    const char *wrong =
        threads == 0 || threads > 1024 || block.z > 64 ? "threads of a block"
        : blocks == 0 || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535
            ? "blocks of the grid"
        : smem > allowed_smem(kernel) ? "dynamic shared memory (cu_allow_smem?)"
                                      : nullptr;
    if (wrong) {
        fprintf(stderr,
                "cushim: %s: cannot launch grid (%u,%u,%u), block (%u,%u,%u), %zu bytes: "
                "%s\n",
                name, grid.x, grid.y, grid.z, block.x, block.y, block.z, smem, wrong);
        result(smem > allowed_smem(kernel) ? cudaErrorInvalidValue
                                           : cudaErrorInvalidConfiguration);
        return;
    }
    enqueue(stream, [=] { run_grid(name, grid, block, smem, body, early); });
}

extern "C" {

/* ---- streams */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int) {
    CUSHIM_API;
    if (!out || flags > cudaStreamNonBlocking) return result(cudaErrorInvalidValue);
    *out = make_stream(flags != cudaStreamNonBlocking);
    streams().all.push_back(*out);
    return result(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    return cudaStreamCreateWithPriority(out, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t *out) {
    return cudaStreamCreateWithPriority(out, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
    CUSHIM_API;
    auto &all = streams().all;
    auto i = std::find(all.begin() + 2, all.end(), s);
    if (i == all.end()) return result(cudaErrorInvalidResourceHandle);
    finish(s);
    s->line->stream = nullptr;
    all.erase(i);
    delete s;
    return result(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    CUSHIM_API;
    CUstream_st *s = known_stream(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (cudaError_t e = refuse_in_capture()) return e;
    return finish(s);
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    CUSHIM_API;
    CUstream_st *s = known_stream(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (cudaError_t e = refuse_in_capture()) return e;
    return result(step_towards(now_of(s)) ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaDeviceSynchronize(void) {
    CUSHIM_API;
    if (cudaError_t e = refuse_in_capture()) return e;
    finish_all();
    return result(cudaSuccess);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *arg) {
    CUSHIM_API;
    return enqueue(s, [=] { fn(arg); });
}

/* ---- events */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    CUSHIM_API;
    if (!out) return result(cudaErrorInvalidValue);
    *out = new CUevent_st{};
    (*out)->timing = !(flags & cudaEventDisableTiming);
    return result(cudaSuccess);
}
cudaError_t cudaEventCreate(cudaEvent_t *out) {
    return cudaEventCreateWithFlags(out, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    CUSHIM_API;
    if (!e) return result(cudaErrorInvalidResourceHandle);
    delete e;
    return result(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t handle) {
    CUSHIM_API;
    CUstream_st *s = known_stream(handle);
    if (!s || !e) return result(cudaErrorInvalidResourceHandle);
    e->cap = s->cap;
    if (s->cap) {
        e->frontier = s->frontier;
        return result(cudaSuccess);
    }
    auto stamp = e->stamp = std::make_shared<uint64_t>(0);
    /* The moment first: with an eager order the operation runs before enqueue returns. */
    e->at = {s->line, s->line->queued + 1};
    return enqueue(handle, [=] { *stamp = clock_ns; });
}

cudaError_t cudaEventQuery(cudaEvent_t e) {
    CUSHIM_API;
    if (!e) return result(cudaErrorInvalidResourceHandle);
    if (e->cap) return result(cudaErrorCapturedEvent);
    if (cudaError_t r = refuse_in_capture()) return r;
    return result(step_towards(e->at) ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    CUSHIM_API;
    if (!e) return result(cudaErrorInvalidResourceHandle);
    if (e->cap) return result(cudaErrorCapturedEvent);
    if (cudaError_t r = refuse_in_capture()) return r;
    reach(e->at);
    early_settle();
    return result(cudaSuccess);
}

/* By the shim's own clock: a microsecond an operation and what a stand-in adds; the same in
 * every run. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    CUSHIM_API;
    if (!ms || !from || !to || !from->timing || !to->timing || !from->stamp || !to->stamp)
        return result(cudaErrorInvalidResourceHandle);
    if (!from->at.passed() || !to->at.passed()) return result(cudaErrorNotReady);
    *ms = (float)((double)(int64_t)(*to->stamp - *from->stamp) / 1e6);
    return result(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t e, unsigned) {
    CUSHIM_API;
    CUstream_st *s = known_stream(handle);
    if (!s || !e) return result(cudaErrorInvalidResourceHandle);
    if (e->cap) {
        if (s->cap && s->cap != e->cap) return result(cudaErrorStreamCaptureIsolation);
        s->cap = e->cap; /* joins it */
        for (size_t n : e->frontier)
            if (std::find(s->frontier.begin(), s->frontier.end(), n) == s->frontier.end())
                s->frontier.push_back(n);
        return result(cudaSuccess);
    }
    if (s->cap) {
        s->cap->spoilt = true;
        return result(cudaErrorStreamCaptureIsolation);
    }
    moment m = e->at;
    s->queue.push_back({[] {}, {m}});
    s->line->queued++;
    counts.pending++;
    return result(cudaSuccess);
}

/* ---- capture */

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    CUSHIM_API;
    CUstream_st *s = known_stream(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (s == streams().legacy) return result(cudaErrorStreamCaptureUnsupported);
    if (s->cap) return result(cudaErrorIllegalState);
    s->cap = new capture{s, mode, false, {}};
    s->frontier.clear();
    captures.push_back(s->cap);
    return result(cudaSuccess);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status) {
    CUSHIM_API;
    CUstream_st *s = known_stream(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    *status = !s->cap          ? cudaStreamCaptureStatusNone
              : s->cap->spoilt ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
    return result(cudaSuccess);
}

} // extern "C"

namespace cushim {

/* Ends a capture: no stream is in it any more. The caller deletes it. */
void leave_capture(capture *c) {
    for (CUstream_st *s : streams().all)
        if (s->cap == c) {
            s->cap = nullptr;
            s->frontier.clear();
        }
    captures.erase(std::find(captures.begin(), captures.end(), c));
}

} // namespace cushim
