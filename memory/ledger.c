/* The ledger. Counters are atomic: relaxed order is enough, since each guards only its own
 * limit and nobody reads memory through it. The list of allocations has a mutex; it is touched
 * at start, at the end and when an arena is resized. */
#include "memory/ledger.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/str.h"
#include "memory/pages.h"

enum { MAX_ARENAS = 4096 };
static const uint64_t MAP_FROM = 64 << 10, HUGE = 2 << 20, PAGE = 4096;

typedef struct arena_entry {
    void *p;
    uint64_t bytes, mapped; /* mapped: of addresses; 0: on the heap */
    mem_class cls;
} arena_entry;

struct ledger {
    struct {
        atomic_ullong limit, now, peak;
        term_kind kind;
    } cls[MEM_N_CLASSES];
    atomic_ullong budget_bytes, now, peak;
    pthread_mutex_t lock;
    ledger *stands_for; /* of ledger_open_as: it has nothing else, but as; NULL: of itself */
    mem_class as;
    ledger *shared;             /* NULL: a budget of its own */
    uint64_t claim;             /* of shared's budget */
    uint64_t of[MEM_N_CLASSES]; /* of shared's limits */
    atomic_ullong claimed;      /* by those under it */
    bool keeps;                 /* these two of a shared one, under its lock */
    pages kept;
    atomic_ullong kept_bytes; /* of them */
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

status ledger_open_shared(ledger **out, uint64_t budget_bytes, err *e) {
    const status s = ledger_open_unlimited(out, e);
    if (s != OK) return s;
    (*out)->budget_bytes = budget_bytes;
    for (int c = 0; c < MEM_N_CLASSES; c++) (*out)->cls[c].limit = 0;
    pages_init(&(*out)->kept, budget_bytes);
    return OK;
}

status ledger_open_as(ledger **out, ledger *of, mem_class cls, err *e) {
    const status s = ledger_open_unlimited(out, e);
    if (s != OK) return s;
    CHECK(!of->stands_for);
    (*out)->stands_for = of;
    (*out)->as = cls;
    return OK;
}

/* The ledger that counts, and the class there. */
static ledger *counts_in(ledger *l, mem_class *cls) {
    if (!l->stands_for) return l;
    if (*cls != MEM_KV && *cls != MEM_LOADING) *cls = l->as;
    return l->stands_for;
}

static bool claim(ledger *shared, uint64_t bytes) {
    unsigned long long now = atomic_load(&shared->claimed);
    do {
        if (bytes > shared->budget_bytes - now) return false;
    } while (!atomic_compare_exchange_weak(&shared->claimed, &now, now + bytes));
    return true;
}

uint64_t ledger_claim(const plan *p) {
    uint64_t n = 0;
    for (size_t i = 0; i < p->terms.n; i++) n += p->terms.v[i].bytes;
    return n;
}

status ledger_open_under(ledger **out, const plan *p, ledger *shared, err *e) {
    const uint64_t bytes = ledger_claim(p);
    char a[32], b[32];
    if (!claim(shared, bytes)) {
        err_set(e, ERR_BUDGET, "%s bytes exceed what others left of the budget of %s bytes",
                bytes_grouped(bytes, a), bytes_grouped(shared->budget_bytes, b));
        return err_field(e, "memory");
    }
    const status s = ledger_open(out, p, e);
    if (s != OK) {
        atomic_fetch_sub(&shared->claimed, bytes);
        return s;
    }
    ledger *l = *out;
    l->shared = shared;
    l->claim = bytes;
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        l->of[c] = l->cls[c].limit;
        atomic_fetch_add(&shared->cls[c].limit, l->of[c]);
        if (l->cls[c].kind > shared->cls[c].kind) shared->cls[c].kind = l->cls[c].kind;
    }
    return OK;
}

static void leave(ledger *l) {
    for (int c = 0; c < MEM_N_CLASSES; c++)
        atomic_fetch_sub(&l->shared->cls[c].limit, l->of[c]);
    CHECK(atomic_fetch_sub(&l->shared->claimed, l->claim) >= l->claim);
}

void ledger_close(ledger *l) {
    if (!l) return;
    if (l->kept.n) ledger_keep_pages(l, false);
    CHECK(l->n_arenas == 0);
    CHECK(atomic_load(&l->now) == 0);
    CHECK(atomic_load(&l->claimed) == 0);
    if (l->shared) leave(l);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void raise_peak(atomic_ullong *peak, unsigned long long v) {
    unsigned long long seen = atomic_load_explicit(peak, memory_order_relaxed);
    while (v > seen && !atomic_compare_exchange_weak_explicit(
                           peak, &seen, v, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void uncount(ledger *l, mem_class cls, uint64_t bytes) {
    CHECK(atomic_fetch_sub_explicit(&l->cls[cls].now, bytes, memory_order_relaxed) >= bytes);
    atomic_fetch_sub_explicit(&l->now, bytes, memory_order_relaxed);
}

static void uncount_kept(ledger *l, uint64_t bytes) {
    uncount(l, MEM_LOADING, bytes);
    atomic_fetch_sub(&l->kept_bytes, bytes);
}

/* Of a shared one. Under its lock, so that kept pages make space before the sum passes the budget. */
static void count(ledger *l, mem_class cls, uint64_t bytes) {
    if (l->kept.bytes && l->now + bytes > l->budget_bytes) {
        const uint64_t over = l->now + bytes - l->budget_bytes, have = l->kept.bytes;
        uncount_kept(l, pages_drop(&l->kept, over < have ? have - over : 0));
    }
    raise_peak(&l->cls[cls].peak,
               atomic_fetch_add_explicit(&l->cls[cls].now, bytes, memory_order_relaxed) +
                   bytes);
    const unsigned long long now =
        atomic_fetch_add_explicit(&l->now, bytes, memory_order_relaxed) + bytes;
    CHECK(now <= l->budget_bytes);
    raise_peak(&l->peak, now);
}

/* taken: filled with pages of a shared one, bytes at most. */
static bool reserve(ledger *l, mem_class cls, uint64_t bytes, pages *taken) {
    unsigned long long now = atomic_load_explicit(&l->cls[cls].now, memory_order_relaxed);
    do {
        const uint64_t limit = atomic_load_explicit(&l->cls[cls].limit, memory_order_relaxed);
        if (now > limit || bytes > limit - now) return false;
    } while (!atomic_compare_exchange_weak_explicit(
        &l->cls[cls].now, &now, now + bytes, memory_order_relaxed, memory_order_relaxed));
    raise_peak(&l->cls[cls].peak, now + bytes);
    raise_peak(&l->peak,
               atomic_fetch_add_explicit(&l->now, bytes, memory_order_relaxed) + bytes);
    ledger *of = l->shared;
    if (!of) return true;
    pthread_mutex_lock(&of->lock);
    if (taken) pages_take(&of->kept, bytes, taken);
    if (taken) uncount_kept(of, taken->bytes);
    count(of, cls, bytes);
    pthread_mutex_unlock(&of->lock);
    return true;
}

bool ledger_reserve(ledger *l, mem_class cls, uint64_t bytes) {
    l = counts_in(l, &cls);
    return reserve(l, cls, bytes, NULL);
}

void ledger_release(ledger *l, mem_class cls, uint64_t bytes) {
    l = counts_in(l, &cls);
    if (l->shared) uncount(l->shared, cls, bytes);
    uncount(l, cls, bytes);
}

void ledger_keep_pages(ledger *l, bool keep) {
    pthread_mutex_lock(&l->lock);
    l->keeps = keep;
    if (!keep) uncount_kept(l, pages_drop(&l->kept, 0));
    pthread_mutex_unlock(&l->lock);
}

/* The pages of len bytes from p on exist from now on. */
static bool populate(char *p, uint64_t len) {
    if (len == 0) return true;
    if (mprotect(p, len, PROT_READ | PROT_WRITE) != 0) return false;
    if (len >= HUGE) madvise(p, len, MADV_HUGEPAGE);
#ifdef MADV_POPULATE_WRITE
    if (madvise(p, len, MADV_POPULATE_WRITE) == 0) return true;
    if (errno != EINVAL) return false;
#endif
    /* Older kernels: a write to each page does the same, but dies where memory is short. */
    for (uint64_t i = 0; i < len; i += PAGE) ((volatile char *)p)[i] = 0;
    return true;
}

/* Their pages are the system's. A huge page of which a part stays is split by the kernel in its
 * own time; that can be one of an arena. */
static void give_back(char *p, uint64_t len) {
    if (len == 0) return;
    madvise(p, len, MADV_DONTNEED);
    mprotect(p, len, PROT_NONE);
}

/* most bytes of addresses at a huge page's boundary, so that large arenas cost few page faults and
 * TLB entries; the pages of the first of them, those that are taken first. */
static void *map_populated(uint64_t bytes, uint64_t most, pages *taken) {
    const uint64_t len = align_up(most, PAGE), slack = len >= HUGE ? HUGE : 0;
    char *p = mmap(NULL, len + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (slack) {
        char *at = (char *)align_up((uintptr_t)p, HUGE);
        if (at > p) munmap(p, (size_t)(at - p));
        if (p + slack > at) munmap(at + len, (size_t)(p + slack - at));
        p = at;
    }
    const uint64_t there = pages_place(taken, p);
    if (populate(p + there, align_up(bytes, PAGE) - there)) return p;
    munmap(p, len);
    return NULL;
}

static status exceeds_plan(const ledger *l, mem_class cls, uint64_t bytes, const char *what,
                           err *e) {
    char a[32], b[32];
    err_set(e, ERR_BUDGET, "%s: %s bytes exceed the plan of class %s (%s bytes)", what,
            bytes_grouped(bytes, a), mem_class_name(cls),
            bytes_grouped(atomic_load(&l->cls[cls].limit), b));
    return err_field(e, "%s", mem_class_name(cls));
}

static status no_memory(mem_class cls, uint64_t bytes, const char *what, err *e) {
    char a[32];
    err_set(e, ERR_NO_MEMORY, "%s: the system has no %s bytes for class %s", what,
            bytes_grouped(bytes, a), mem_class_name(cls));
    err_field(e, "%s", mem_class_name(cls));
    return err_hint(e, "free memory on this machine, or lower the option memory");
}

/* mapped: bytes of addresses, or 0 for the heap. raw: not to be zeroed. */
static status alloc(ledger *l, void **out, mem_class cls, uint64_t bytes, uint64_t mapped,
                    bool raw, const char *what, err *e) {
    pages taken;
    taken.bytes = taken.n = 0;
    l = counts_in(l, &cls);
    if (!reserve(l, cls, bytes, mapped >= HUGE ? &taken : NULL))
        return exceeds_plan(l, cls, bytes, what, e);
    if (l->shared) taken.granule = l->shared->kept.granule;
    const uint64_t used = taken.bytes; /* with what was in them */
    void *p =
        mapped ? map_populated(bytes, mapped, &taken) : aligned_alloc(64, align_up(bytes, 64));
    pthread_mutex_lock(&l->lock);
    bool listed = p && l->n_arenas < MAX_ARENAS;
    if (listed) l->arena[l->n_arenas++] = (arena_entry){p, bytes, mapped, cls};
    pthread_mutex_unlock(&l->lock);
    if (listed) {
        if (!mapped || (used && !raw)) memset(p, 0, mapped ? used : bytes);
        *out = p;
        return OK;
    }
    pages_drop(&taken, 0);
    if (p && mapped) munmap(p, align_up(mapped, PAGE));
    if (p && !mapped) free(p);
    ledger_release(l, cls, bytes);
    return no_memory(cls, bytes, what, e);
}

status ledger_alloc(ledger *l, void **out, mem_class cls, uint64_t bytes, const char *what,
                    err *e) {
    if (bytes == 0) bytes = 64;
    return alloc(l, out, cls, bytes, bytes >= MAP_FROM ? bytes : 0, false, what, e);
}

status ledger_alloc_raw(ledger *l, void **out, mem_class cls, uint64_t bytes, const char *what,
                        err *e) {
    if (bytes == 0) bytes = 64;
    return alloc(l, out, cls, bytes, bytes >= MAP_FROM ? bytes : 0, true, what, e);
}

status ledger_alloc_within(ledger *l, void **out, mem_class cls, uint64_t bytes, uint64_t most,
                           const char *what, err *e) {
    CHECK(bytes <= most && most > 0);
    return alloc(l, out, cls, bytes, most, true, what, e);
}

/* Of an arena, under the lock. */
static arena_entry *find_arena(ledger *l, const void *p) {
    for (uint32_t i = l->n_arenas; i-- > 0;)
        if (l->arena[i].p == p) return &l->arena[i];
    return NULL;
}

status ledger_resize(ledger *l, void *p, uint64_t bytes, err *e) {
    if (l->stands_for) l = l->stands_for;
    pthread_mutex_lock(&l->lock);
    arena_entry *a = find_arena(l, p);
    CHECK(a && bytes <= a->mapped);
    const arena_entry was = *a;
    pthread_mutex_unlock(&l->lock);
    char *at = p;
    const uint64_t from = align_up(was.bytes, PAGE), to = align_up(bytes, PAGE);
    if (bytes > was.bytes) {
        if (!ledger_reserve(l, was.cls, bytes - was.bytes))
            return exceeds_plan(l, was.cls, bytes, "resizing", e);
        if (!populate(at + from, to - from)) {
            give_back(at + from, to - from);
            ledger_release(l, was.cls, bytes - was.bytes);
            return no_memory(was.cls, bytes - was.bytes, "growing", e);
        }
    } else {
        give_back(at + to, from - to);
        /* As if its page was new, should the arena grow again. */
        memset(at + bytes, 0, to - bytes);
        ledger_release(l, was.cls, was.bytes - bytes);
    }
    pthread_mutex_lock(&l->lock);
    find_arena(l, p)->bytes = bytes;
    pthread_mutex_unlock(&l->lock);
    return OK;
}

void ledger_set_budget(ledger *l, uint64_t budget_bytes, mem_class cls, uint64_t class_bytes) {
    atomic_store(&l->budget_bytes, budget_bytes);
    atomic_store(&l->cls[cls].limit, class_bytes);
}

/* Leaves an arena's pages to the next one. False: they are not to be kept. */
static bool keep(ledger *l, const arena_entry *gone) {
    ledger *of = l->shared;
    if (!of) return false;
    pthread_mutex_lock(&of->lock);
    const bool keeps = of->keeps;
    if (keeps) {
        const uint64_t kept =
            pages_keep(&of->kept, gone->p, gone->bytes, align_up(gone->mapped, PAGE));
        ledger_release(l, gone->cls, gone->bytes);
        atomic_fetch_add(&of->kept_bytes, kept);
        count(of, MEM_LOADING, kept);
    }
    pthread_mutex_unlock(&of->lock);
    return keeps;
}

void ledger_free(ledger *l, void *p) {
    if (!p) return;
    if (l->stands_for) l = l->stands_for;
    arena_entry gone = {0};
    pthread_mutex_lock(&l->lock);
    arena_entry *at = find_arena(l, p);
    if (at) {
        gone = *at;
        *at = l->arena[--l->n_arenas];
    }
    pthread_mutex_unlock(&l->lock);
    CHECK(gone.p == p);
    if (gone.bytes >= HUGE && gone.mapped && keep(l, &gone)) return;
    if (gone.mapped)
        munmap(p, align_up(gone.mapped, PAGE));
    else
        free(p);
    ledger_release(l, gone.cls, gone.bytes);
}

void ledger_read(const ledger *l, ledger_view *v) {
    *v = (ledger_view){.budget_bytes = l->budget_bytes};
    const uint64_t kept = atomic_load(&l->kept_bytes);
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        const uint64_t limit = atomic_load(&l->cls[c].limit);
        v->cls[c] = (ledger_class){l->cls[c].kind, limit == UINT64_MAX ? 0 : limit,
                                   atomic_load(&l->cls[c].now), atomic_load(&l->cls[c].peak)};
        if (c != MEM_LOADING) v->plan_bytes += v->cls[c].plan_bytes;
        v->ledger_bytes += v->cls[c].ledger_bytes;
    }
    /* Pages wait within what is planned for others: the budget bounds the sum. */
    if (kept && v->plan_bytes + kept > v->budget_bytes)
        v->plan_bytes = v->budget_bytes;
    else
        v->plan_bytes += kept;
    v->peak_bytes = atomic_load(&l->peak);
}
