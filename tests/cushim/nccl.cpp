/* A stand-in for NCCL: ranks are processes that map memory of rank 0's, each with a device of its own. A call runs as far as it can when the stream comes to it: where another rank is missing it waits, and the host
 * does not. As with NCCL, nothing ends that wait but the rank that comes, or ncclCommAbort. Ranks compare kind,
 * count, type and root; one that differs is a fault of all. */
#include <atomic>
#include <errno.h>
#include <fcntl.h>
#include <memory>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cushim.h"
#include "early.h"
#include "internal.h"

namespace {

enum {
    MAX_RANKS = 16,
    AREA = 64 << 10,
    PAUSE_US = 200,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5
};

struct call {
    uint32_t kind, type, root, number; /* kind 1: broadcast, 2: sum */
    uint64_t n;
};
/* What a rank brings to a meeting: its call, and a part of what that sends. */
struct brought {
    call now;
    unsigned char area[AREA];
};
/* A rank comes to a meeting when all have come to the one before, so that all have read what it brought to the
 * one before that: two places are enough. */
struct member {
    alignas(64) std::atomic<uint32_t> met, here;
    int device;
    brought at[2];
};
struct shared {
    std::atomic<uint32_t> broken; /* 1: why is written; 2: it is being written */
    char why[300];                /* as the first rank that gave up says */
    member rank[MAX_RANKS];
};

/* Of one rank; calls that are queued keep it. */
struct endpoint {
    shared *memory;
    uint32_t rank, n, met, number;
    bool aborted;
    ~endpoint() { munmap(memory, sizeof *memory); }
};

} // namespace

struct ncclComm {
    std::shared_ptr<endpoint> end;
};

namespace {

struct unique_id {
    char internal[128];
};

bool give_up(endpoint *c, const char *fmt, ...) {
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    const int n = snprintf(text, sizeof text, "NCCL, rank %u, call %u: ", c->rank, c->number);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    uint32_t none = 0;
    if (c->memory->broken.compare_exchange_strong(none, 2)) {
        memcpy(c->memory->why, text, sizeof text);
        c->memory->broken = 1;
    }
    cushim::set_fault(text);
    return false;
}

/* Whether all ranks have come as often as this one. */
bool all_are_here(const endpoint *c) {
    for (uint32_t i = 0; i < c->n; i++)
        if ((int32_t)(c->memory->rank[i].met.load() - c->met) < 0) return false;
    return true;
}

const brought *brought_by(const endpoint *c, uint32_t rank) {
    return &c->memory->rank[rank].at[c->met % 2];
}

/* False: a rank's call differs from this one's. */
bool agree(endpoint *c) {
    const call *own = &brought_by(c, c->rank)->now;
    for (uint32_t i = 0; i < c->n; i++) {
        const call *x = &brought_by(c, i)->now;
        if (memcmp(x, own, sizeof *x) == 0) continue;
        return give_up(
            c,
            "kind %u, %llu of type %u from %u; rank %u has call %u: kind %u, %llu of "
            "type %u from %u",
            own->kind, (unsigned long long)own->n, own->type, own->root, i, x->number, x->kind,
            (unsigned long long)x->n, x->type, x->root);
    }
    return true;
}

void move(const endpoint *c, const call &x, char *to, uint64_t n) {
    if (x.kind == 1) {
        memcpy(to, brought_by(c, x.root)->area, n);
        return;
    }
    for (uint64_t i = 0; i < n; i += 4) {
        uint32_t sum = 0, word;
        for (uint32_t r = 0; r < c->n; r++)
            memcpy(&word, brought_by(c, r)->area + i, 4), sum += word;
        memcpy(to + i, &sum, 4);
    }
}

/* How far a call has come. */
struct progress {
    bool begun, came;
    uint64_t done; /* bytes */
};

void begin(endpoint *c, progress *p) {
    if (p->begun) return;
    cushim::early_settle();
    cushim::n_written++;
    c->number++;
    p->begun = true;
}

/* To the next meeting, with n bytes. */
void come(endpoint *c, call x, const char *from, uint64_t n) {
    member *own = &c->memory->rank[c->rank];
    brought *b = &own->at[++c->met % 2];
    x.number = c->number;
    b->now = x;
    if (x.kind == 2 || x.root == c->rank) memcpy(b->area, from, n);
    own->met.store(c->met);
}

uint64_t bytes_of(const call &x) {
    return x.n * (x.type == 3 ? 4 : 1);
}

/* True: the call is over. False: another rank is missing. */
bool advance(endpoint *c, const call &x, progress *p, const char *from, char *to) {
    const uint64_t bytes = bytes_of(x);
    begin(c, p);
    for (;;) {
        const uint64_t left = bytes - p->done, n = left < AREA ? left : (uint64_t)AREA;
        if (c->aborted) return true;
        if (c->memory->broken == 1) return give_up(c, "another says %s", c->memory->why), true;
        if (!p->came) come(c, x, from + p->done, n);
        p->came = true;
        if (!all_are_here(c)) return false;
        if (!agree(c)) return true;
        move(c, x, to + p->done, n);
        p->came = false;
        p->done += n;
        if (p->done == bytes) return true;
    }
}

int put(ncclComm *comm, call x, const void *from, void *to, cudaStream_t s) {
    const uint64_t bytes = bytes_of(x);
    if (!comm || (x.type != 1 && x.type != 3) || x.root >= comm->end->n)
        return INVALID_ARGUMENT;
    if (cushim::place_of(to, bytes) != cushim::place::device ||
        cushim::place_of(from, bytes) != cushim::place::device)
        return INVALID_ARGUMENT;
    auto c = comm->end;
    auto p = std::make_shared<progress>(); /* of a graph: of its launch under way */
    auto run = [=] {
        if (!advance(c.get(), x, p.get(), (const char *)from, (char *)to))
            cushim::waits = true;
        else
            *p = {};
    };
    return cushim::enqueue(s, run) ? 1 : 0;
}

int given = -1; /* the memory, until all have it */

bool is_alone_on_its_device(const endpoint *c) {
    for (uint32_t i = 0; i < c->n; i++)
        if (i != c->rank && c->memory->rank[i].device == c->memory->rank[c->rank].device)
            return false;
    return true;
}

} // namespace

extern "C" {

int ncclGetUniqueId(unique_id *id) {
    given = memfd_create("cushim-nccl", MFD_CLOEXEC);
    snprintf(id->internal, sizeof id->internal, "/proc/%d/fd/%d", getpid(), given);
    return given >= 0 && ftruncate(given, sizeof(shared)) == 0 ? 0 : 2;
}

int ncclCommInitRank(ncclComm **out, int n, unique_id id, int rank) {
    CUSHIM_API;
    id.internal[sizeof id.internal - 1] = '\0';
    const int fd = open(id.internal, O_RDWR | O_CLOEXEC);
    if (fd < 0 || n < 1 || n > MAX_RANKS || rank < 0 || rank >= n) return INVALID_ARGUMENT;
    void *p = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return 2;
    auto c = std::shared_ptr<endpoint>(
        new endpoint{(shared *)p, (uint32_t)rank, (uint32_t)n, 0, 0, false});
    cudaGetDevice(&c->memory->rank[rank].device);
    /* Others may be loading yet: all must be here first. */
    c->memory->rank[rank].here = 1;
    for (int i = 0; i < n; i++)
        while (!c->memory->rank[i].here) usleep(PAUSE_US);
    if (rank == 0) close(given);
    if (!is_alone_on_its_device(c.get())) return INVALID_USAGE;
    *out = new ncclComm{c};
    return 0;
}

int ncclCommDestroy(ncclComm *c) {
    delete c;
    return 0;
}
int ncclCommAbort(ncclComm *c) {
    CUSHIM_API;
    c->end->aborted = true;
    delete c;
    return 0;
}
int ncclCommGetAsyncError(ncclComm *c, int *out) {
    *out = c->end->memory->broken ? 6 : 0;
    return 0;
}
int ncclGroupStart(void) {
    return 0;
}
int ncclGroupEnd(void) {
    return 0;
}

int ncclBroadcast(const void *from, void *to, size_t n, int type, int root, ncclComm *c,
                  cudaStream_t s) {
    CUSHIM_API;
    return put(c, {1, (uint32_t)type, (uint32_t)root, 0, n}, from, to, s);
}
int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, ncclComm *c,
                  cudaStream_t s) {
    CUSHIM_API;
    return op == 0 && type == 3 ? put(c, {2, (uint32_t)type, 0, 0, n}, from, to, s)
                                : INVALID_ARGUMENT;
}

} // extern "C"
