/* CUDA graphs: what a capture recorded, run as one operation of a stream, its nodes in an order
 * that respects only their dependencies. */
#include "stream.h"

struct CUgraph_st {
    std::vector<cushim::node> nodes;
};
struct CUgraphExec_st {
    std::shared_ptr<const std::vector<cushim::node>> nodes;
};

namespace cushim {

void leave_capture(capture *c); /* stream.cpp */

namespace {

const long EXEC_BYTES = 64 << 10; /* what an instantiated graph pretends to take */

/* Every node must lead to the origin's last ones. */
bool joined(const capture &c) {
    std::vector<bool> seen(c.nodes.size());
    std::vector<size_t> todo = c.origin->frontier;
    size_t n = 0;
    while (!todo.empty()) {
        size_t i = todo.back();
        todo.pop_back();
        if (seen[i]) continue;
        seen[i] = true;
        n++;
        todo.insert(todo.end(), c.nodes[i].after.begin(), c.nodes[i].after.end());
    }
    return n == c.nodes.size();
}

size_t choose(const std::vector<size_t> &ready) {
    if (config.order > 2) return roll((uint32_t)ready.size());
    return config.order == 2 ? ready.size() - 1 : 0;
}

/* Of one launch, whose nodes may wait for another process. */
struct progress {
    bool begun, again; /* again: the node at ready[at] has to run once more */
    size_t at;
    std::vector<size_t> missing, ready;
};

void begin(const std::vector<node> &nodes, progress &p) {
    counts.graph_launches++;
    p.missing.resize(nodes.size());
    for (size_t i = 0; i < nodes.size(); i++) {
        p.missing[i] = nodes[i].after.size();
        if (!p.missing[i]) p.ready.push_back(i);
    }
    p.begun = true;
}

void run_graph(const std::vector<node> &nodes, progress &p) {
    if (!p.begun) begin(nodes, p);
    while (!p.ready.empty() && !faulted()) {
        if (!p.again) p.at = choose(p.ready);
        const size_t done = p.ready[p.at];
        nodes[done].run();
        p.again = waits;
        if (waits) return;
        p.ready.erase(p.ready.begin() + (ptrdiff_t)p.at);
        advance_clock(100);
        for (size_t i = done + 1; i < nodes.size(); i++)
            for (size_t a : nodes[i].after)
                if (a == done && --p.missing[i] == 0) p.ready.push_back(i);
    }
}

} // namespace
} // namespace cushim

using namespace cushim;

extern "C" {

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *out) {
    CUSHIM_API;
    CUstream_st *s = known_stream(handle);
    if (!s || !out) return result(cudaErrorInvalidResourceHandle);
    *out = nullptr;
    capture *c = s->cap;
    if (!c) return result(cudaErrorIllegalState);
    cudaError_t e = c->origin != s ? cudaErrorStreamCaptureUnmatched
                    : c->spoilt    ? cudaErrorStreamCaptureInvalidated
                    : !joined(*c)  ? cudaErrorStreamCaptureUnjoined
                                   : cudaSuccess;
    if (c->origin != s) {
        c->spoilt = true;
        return result(e);
    }
    if (e == cudaSuccess) *out = new CUgraph_st{std::move(c->nodes)};
    leave_capture(c);
    delete c;
    return result(e);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long) {
    CUSHIM_API;
    if (!out || !g) return result(cudaErrorInvalidValue);
    if (cudaError_t e = refuse_in_capture()) return e;
    if (allocation_fails()) return result(cudaErrorMemoryAllocation);
    *out = new CUgraphExec_st{std::make_shared<const std::vector<node>>(g->nodes)};
    charge(EXEC_BYTES);
    return result(cudaSuccess);
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t g,
                                          unsigned long long flags) {
    return cudaGraphInstantiate(out, g, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t g, cudaStream_t s) {
    CUSHIM_API;
    return result(g && known_stream(s) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) {
    CUSHIM_API;
    if (!g) return result(cudaErrorInvalidValue);
    auto nodes = g->nodes;
    auto of_launch = std::make_shared<progress>();
    return enqueue(s, [=] { run_graph(*nodes, *of_launch); });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t *nodes, size_t *n) {
    CUSHIM_API;
    if (!g || !n || nodes) return result(cudaErrorInvalidValue); /* counting only */
    *n = g->nodes.size();
    return result(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    CUSHIM_API;
    delete g;
    return result(g ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
    CUSHIM_API;
    if (!g) return result(cudaErrorInvalidValue);
    charge(-EXEC_BYTES);
    delete g;
    return result(cudaSuccess);
}

} // extern "C"
