/* Streams, events and captures, as stream.cpp, copy.cpp and graph.cpp share them. */
#ifndef VRAMD_TESTS_CUSHIM_STREAM_H
#define VRAMD_TESTS_CUSHIM_STREAM_H

#include <deque>
#include <memory>
#include <vector>
#include "internal.h"

namespace cushim {

/* How far a stream has come; outlives it. */
struct timeline {
    CUstream_st *stream; /* NULL once destroyed: all was done */
    uint64_t queued, done;
};
/* The state of a stream after its first seq operations. */
struct moment {
    std::shared_ptr<timeline> line; /* NULL: always passed */
    uint64_t seq;
    bool passed() const { return !line || line->done >= seq; }
};
struct operation {
    work run;
    std::vector<moment> after; /* of other streams */
};

struct node {
    work run;
    std::vector<size_t> after; /* nodes before it */
};
/* From BeginCapture on origin to EndCapture, with the streams that joined it through events. */
struct capture {
    CUstream_st *origin;
    cudaStreamCaptureMode mode;
    bool spoilt;
    std::vector<node> nodes;
};

void reach(const moment &m);               /* runs what is needed for m to pass */
bool step_towards(const moment &m);        /* runs at most one operation; true: m has passed */
CUstream_st *known_stream(cudaStream_t s); /* NULL: no such stream */
cudaError_t finish(CUstream_st *s);
uint32_t roll(uint32_t n); /* the streams' dice */

} // namespace cushim

struct CUstream_st {
    bool blocking; /* waits for the legacy stream, and it for this */
    std::shared_ptr<cushim::timeline> line;
    std::deque<cushim::operation> queue;
    cushim::capture *cap;
    std::vector<size_t> frontier; /* last nodes of the stream in cap */
};

struct CUevent_st {
    bool timing;
    cushim::moment at;
    std::shared_ptr<uint64_t> stamp; /* ns, once passed */
    cushim::capture *cap;            /* recorded in that capture */
    std::vector<size_t> frontier;
};

#endif
