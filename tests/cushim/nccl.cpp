/* A stand-in for NCCL: ranks are processes that map one file of /dev/shm, which has no name once all are there.
 * Each call runs when the stream comes to it. Ranks then compare kind, count, type and root; one that differs, or that
 * is gone, is a fault of all. A rank is there while its counter moves, however slow it computes. */
#include <atomic>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <thread>
#include <time.h>
#include <unistd.h>

#include "cushim.h"
#include "early.h"
#include "internal.h"

namespace {

enum { MAX_RANKS = 16, AREA = 64 << 10, SLICE_US = 200, BEAT_US = 20000 };

struct call {
    uint32_t kind, type, root, number; /* kind 1: broadcast, 2: sum */
    uint64_t n;
};
struct member {
    alignas(64) std::atomic<uint32_t> met, beat, here;
    call now;
    unsigned char area[AREA];
};
struct shared {
    std::atomic<uint32_t> broken;
    member rank[MAX_RANKS];
};

long wait_ms() {
    const char *v = getenv("CUSHIM_NCCL_WAIT_MS");
    return v ? atol(v) : 4000;
}

} // namespace

struct ncclComm {
    shared *memory;
    uint32_t rank, n, met, number;
    std::atomic<bool> ends;
    std::thread beats;
};

namespace {

struct unique_id {
    char internal[128];
};

bool give_up(ncclComm *c, const char *fmt, ...) {
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    const int n = snprintf(text, sizeof text, "NCCL, rank %u, call %u: ", c->rank, c->number);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    if (!c->memory->broken.exchange(1)) fprintf(stderr, "cushim: %s\n", text);
    cushim::set_fault(text);
    return false;
}

/* Until all ranks have come as often. */
bool meet(ncclComm *c) {
    const uint32_t own = ++c->met;
    c->memory->rank[c->rank].met.store(own);
    for (uint32_t i = 0; i < c->n; i++) {
        member *m = &c->memory->rank[i];
        uint32_t seen = m->beat.load();
        for (long us = 0; (int32_t)(m->met.load() - own) < 0; us += SLICE_US) {
            if (c->memory->broken.load()) return give_up(c, "another rank has given up");
            if (us > wait_ms() * 1000) return give_up(c, "rank %u does not answer", i);
            usleep(SLICE_US);
            const uint32_t now = m->beat.load();
            if (now != seen) us = 0, seen = now;
        }
    }
    return true;
}

/* The one that differs from this rank's. */
bool agree(ncclComm *c) {
    const call *own = &c->memory->rank[c->rank].now;
    for (uint32_t i = 0; i < c->n; i++) {
        const call *x = &c->memory->rank[i].now;
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

void move(ncclComm *c, const call &x, const char *from, char *to, uint64_t n, uint64_t at) {
    if (x.kind == 1) {
        memcpy(to + at, c->memory->rank[x.root].area, n);
        return;
    }
    for (uint64_t i = 0; i < n; i += 4) {
        uint32_t sum = 0, word;
        for (uint32_t r = 0; r < c->n; r++)
            memcpy(&word, c->memory->rank[r].area + i, 4), sum += word;
        memcpy(to + at + i, &sum, 4);
    }
    (void)from;
}

void run(ncclComm *c, call x, const char *from, char *to) {
    member *own = &c->memory->rank[c->rank];
    cushim::early_settle();
    cushim::n_written++;
    x.number = ++c->number;
    own->now = x;
    if (!meet(c) || !agree(c)) return;
    const uint64_t bytes = x.n * (x.type == 3 ? 4 : 1);
    const bool gives = x.kind == 2 || x.root == c->rank;
    for (uint64_t at = 0; at < bytes; at += AREA) {
        const uint64_t n = bytes - at < AREA ? bytes - at : (uint64_t)AREA;
        if (gives) memcpy(own->area, from + at, n);
        if (!meet(c)) return;
        move(c, x, from, to, n, at);
        if (!meet(c)) return;
    }
    meet(c); /* nobody's next call stands where another compares this one */
}

int put(ncclComm *c, call x, const void *from, void *to, cudaStream_t s) {
    const uint64_t bytes = x.n * (x.type == 3 ? 4 : 1);
    if (!c || (x.type != 1 && x.type != 3) || x.root >= c->n) return 4;
    if (cushim::place_of(to, bytes) != cushim::place::device ||
        cushim::place_of(from, bytes) != cushim::place::device)
        return 4;
    return cushim::enqueue(s, [=] { run(c, x, (const char *)from, (char *)to); }) ? 1 : 0;
}

void stop(ncclComm *c) {
    c->ends = true;
    c->beats.join();
    munmap(c->memory, sizeof *c->memory);
    delete c;
}

} // namespace

extern "C" {

int ncclGetUniqueId(unique_id *id) {
    static uint32_t n;
    snprintf(id->internal, sizeof id->internal, "/dev/shm/vramd-cushim-nccl-%d-%u", getpid(),
             n++);
    const int fd = open(id->internal, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const bool ok = fd >= 0 && ftruncate(fd, sizeof(shared)) == 0;
    if (fd >= 0) close(fd);
    return ok ? 0 : 2;
}

int ncclCommInitRank(ncclComm **out, int n, unique_id id, int rank) {
    CUSHIM_API;
    id.internal[sizeof id.internal - 1] = '\0';
    const int fd = open(id.internal, O_RDWR | O_CLOEXEC);
    if (fd < 0 || n < 1 || n > MAX_RANKS || rank < 0 || rank >= n) return 4;
    void *p = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return 2;
    ncclComm *c = new ncclComm{};
    c->memory = (shared *)p, c->rank = (uint32_t)rank, c->n = (uint32_t)n;
    c->beats = std::thread([c] {
        while (!c->ends) {
            c->memory->rank[c->rank].beat++;
            usleep(BEAT_US);
        }
    });
    /* Others may be loading yet: all must be here first. */
    c->memory->rank[rank].here = 1;
    for (int i = 0; i < n; i++)
        while (!c->memory->rank[i].here && !c->memory->broken) usleep(SLICE_US);
    if (rank == 0) unlink(id.internal);
    *out = c;
    return 0;
}

int ncclCommDestroy(ncclComm *c) {
    stop(c);
    return 0;
}
int ncclCommAbort(ncclComm *c) {
    c->memory->broken = 1;
    stop(c);
    return 0;
}
int ncclCommGetAsyncError(ncclComm *c, int *out) {
    *out = c->memory->broken ? 6 : 0;
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
    return op == 0 && type == 3 ? put(c, {2, (uint32_t)type, 0, 0, n}, from, to, s) : 4;
}

} // extern "C"
