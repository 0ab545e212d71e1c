/* The ledger. Counters are atomic: relaxed order is enough, since each guards only its own
 * limit and nobody reads memory through it. The list of allocations has a mutex; it is touched
 * at start and at the end only. */
#include "memory/ledger.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/str.h"

enum { MAX_ARENAS = 4096 };
static const uint64_t MAP_FROM = 64 << 10, HUGE = 2 << 20;

typedef struct arena_entry {
    void *p;
    uint64_t bytes;
    mem_class cls;
} arena_entry;

struct ledger {
    struct {
        uint64_t limit;
        term_kind kind;
        atomic_ullong now, peak;
    } cls[MEM_N_CLASSES];
    uint64_t budget_bytes;
    atomic_ullong now, peak;
    pthread_mutex_t lock;
    uint32_t n_arenas;
    arena_entry arena[MAX_ARENAS];
};

status ledger_open_unlimited(ledger **out, err *e) {
    ledger *l = calloc(1, sizeof *l);
    if (!l) return mem_exhausted(e, MEM_RUNTIME, "the ledger");
    for (int c = 0; c < MEM_N_CLASSES; c++) l->cls[c].limit = UINT64_MAX;
    pthread_mutex_init(&l->lock, NULL);
    *out = l;
    return OK;
}

status ledger_open(ledger **out, const plan *p, err *e) {
    status s = ledger_open_unlimited(out, e);
    if (s != OK) return s;
    ledger *l = *out;
    l->budget_bytes = p->budget_bytes;
    for (int c = 0; c < MEM_N_CLASSES; c++) l->cls[c].limit = 0;
    for (size_t i = 0; i < p->terms.n; i++) {
        const term *t = &p->terms.v[i];
        l->cls[t->cls].limit += t->bytes;
        if (t->kind > l->cls[t->cls].kind) l->cls[t->cls].kind = t->kind;
    }
    return OK;
}

void ledger_close(ledger *l) {
    if (!l) return;
    CHECK(l->n_arenas == 0);
    CHECK(atomic_load(&l->now) == 0);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void raise_peak(atomic_ullong *peak, unsigned long long v) {
    unsigned long long seen = atomic_load_explicit(peak, memory_order_relaxed);
    while (v > seen && !atomic_compare_exchange_weak_explicit(
                           peak, &seen, v, memory_order_relaxed, memory_order_relaxed)) {
    }
}

bool ledger_reserve(ledger *l, mem_class cls, uint64_t bytes) {
    unsigned long long now = atomic_load_explicit(&l->cls[cls].now, memory_order_relaxed);
    do {
        if (bytes > l->cls[cls].limit - now) return false;
    } while (!atomic_compare_exchange_weak_explicit(
        &l->cls[cls].now, &now, now + bytes, memory_order_relaxed, memory_order_relaxed));
    raise_peak(&l->cls[cls].peak, now + bytes);
    raise_peak(&l->peak,
               atomic_fetch_add_explicit(&l->now, bytes, memory_order_relaxed) + bytes);
    return true;
}

void ledger_release(ledger *l, mem_class cls, uint64_t bytes) {
    CHECK(atomic_fetch_sub_explicit(&l->cls[cls].now, bytes, memory_order_relaxed) >= bytes);
    atomic_fetch_sub_explicit(&l->now, bytes, memory_order_relaxed);
}

/* Maps at a huge page's boundary, so that large arenas cost few page faults and TLB entries. */
static void *map_populated(uint64_t bytes) {
    uint64_t len = align_up(bytes, 4096), slack = len >= HUGE ? HUGE : 0;
    char *p =
        mmap(NULL, len + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (slack) {
        char *at = (char *)align_up((uintptr_t)p, HUGE);
        if (at > p) munmap(p, (size_t)(at - p));
        if (p + slack > at) munmap(at + len, (size_t)(p + slack - at));
        p = at;
        madvise(p, len, MADV_HUGEPAGE);
    }
#ifdef MADV_POPULATE_WRITE
    if (madvise(p, len, MADV_POPULATE_WRITE) == 0) return p;
#endif
    /* Older kernels: a write to each page does the same, but dies where memory is short. */
    for (uint64_t i = 0; i < len; i += 4096) ((volatile char *)p)[i] = 0;
    return p;
}

status ledger_alloc(ledger *l, void **out, mem_class cls, uint64_t bytes, const char *what,
                    err *e) {
    char a[32], b[32];
    if (bytes == 0) bytes = 64;
    if (!ledger_reserve(l, cls, bytes)) {
        err_set(e, ERR_BUDGET, "%s: %s bytes exceed the plan of class %s (%s bytes)", what,
                bytes_grouped(bytes, a), mem_class_name(cls),
                bytes_grouped(l->cls[cls].limit, b));
        return err_field(e, "%s", mem_class_name(cls));
    }
    void *p = bytes >= MAP_FROM ? map_populated(bytes) : aligned_alloc(64, align_up(bytes, 64));
    pthread_mutex_lock(&l->lock);
    bool room = p && l->n_arenas < MAX_ARENAS;
    if (room) l->arena[l->n_arenas++] = (arena_entry){p, bytes, cls};
    pthread_mutex_unlock(&l->lock);
    if (room) {
        if (bytes < MAP_FROM) memset(p, 0, bytes);
        *out = p;
        return OK;
    }
    if (p && bytes >= MAP_FROM) munmap(p, align_up(bytes, 4096));
    if (p && bytes < MAP_FROM) free(p);
    ledger_release(l, cls, bytes);
    err_set(e, ERR_NO_MEMORY, "%s: the system has no %s bytes for class %s", what,
            bytes_grouped(bytes, a), mem_class_name(cls));
    err_field(e, "%s", mem_class_name(cls));
    return err_hint(e, "free memory on this machine, or lower the option memory");
}

void ledger_free(ledger *l, void *p) {
    if (!p) return;
    arena_entry gone = {0};
    pthread_mutex_lock(&l->lock);
    for (uint32_t i = l->n_arenas; i-- > 0;)
        if (l->arena[i].p == p) {
            gone = l->arena[i];
            l->arena[i] = l->arena[--l->n_arenas];
            break;
        }
    pthread_mutex_unlock(&l->lock);
    CHECK(gone.p == p);
    if (gone.bytes >= MAP_FROM)
        munmap(p, align_up(gone.bytes, 4096));
    else
        free(p);
    ledger_release(l, gone.cls, gone.bytes);
}

void ledger_read(const ledger *l, ledger_view *v) {
    *v = (ledger_view){.budget_bytes = l->budget_bytes};
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        v->cls[c] =
            (ledger_class){l->cls[c].kind, l->cls[c].limit == UINT64_MAX ? 0 : l->cls[c].limit,
                           atomic_load(&l->cls[c].now), atomic_load(&l->cls[c].peak)};
        if (c != MEM_LOADING) v->plan_bytes += v->cls[c].plan_bytes;
        v->ledger_bytes += v->cls[c].ledger_bytes;
    }
    v->peak_bytes = atomic_load(&l->peak);
}
