/* Barriers in shared memory, bulk copies and wgmma: the state of the running block. Contracts:
 * engine/cuda/hopper.cuh. */
#include "cushim.h"

#include <deque>
#include <list>
#include <map>
#include <vector>

#include "engine/cuda/hopper.cuh"
#include "halves.h"
#include "hopper.h"
#include "shared.h"

namespace cushim {
namespace {

const uint32_t MAX_THREADS = 1024, MAX_WARPS = 32, NAMED = 16;

/* ---- what waits */

struct mbarrier {
    uint32_t arrivals, pending; /* of a phase; still to come in this one */
    int64_t bytes;              /* expected and not here */
    uint32_t phase;
    std::vector<uint32_t> asleep;
};
struct named_barrier {
    int threads;
    std::vector<uint32_t> asleep;
};
struct bulk_copy {
    char *to;
    uint64_t *bar;
    std::vector<char> bytes; /* as they were when it began */
};

bool used; /* any of this, since the last block began */
std::map<const void *, mbarrier> bars;
named_barrier named[NAMED];
std::vector<bulk_copy> copies;

/* ---- 16 bytes of dynamic shared memory */

enum { COMING = 1, UNFENCED = 2 };
uint8_t unit_state[SHARED_ADDRESSES / 16];
std::vector<uint32_t> unfenced[MAX_THREADS]; /* units that a thread's cp.async has written */

void wake_all(std::vector<uint32_t> &asleep) {
    for (uint32_t t : asleep) wake(t);
    asleep.clear();
}

mbarrier &bar_at(const uint64_t *p) {
    const auto found = bars.find(p);
    if (found == bars.end()) cushim_fault("the barrier at %p was not initialised", (void *)p);
    return found->second;
}

void end_phase_if_due(mbarrier &b) {
    if (b.pending || b.bytes) return;
    b.phase++;
    b.pending = b.arrivals;
    wake_all(b.asleep);
}

void arrive(uint64_t *bar, uint32_t bytes) {
    mbarrier &b = bar_at(bar);
    if (b.pending == 0)
        cushim_fault("the barrier at %p: more than %u threads arrive in a phase", (void *)bar,
                     b.arrivals);
    b.bytes += bytes;
    b.pending--;
    end_phase_if_due(b);
}

void mark(const char *to, size_t bytes, uint8_t set, uint8_t clear) {
    const uint32_t first = cu_shared_address(to) / 16;
    for (size_t i = 0; i < bytes / 16; i++) {
        uint8_t &u = unit_state[first + i];
        u = (uint8_t)((u | set) & ~clear);
    }
}

void land(size_t i) {
    bulk_copy c = std::move(copies[i]);
    copies.erase(copies.begin() + (ptrdiff_t)i);
    memcpy(c.to, c.bytes.data(), c.bytes.size());
    mark(c.to, c.bytes.size(), 0, COMING);
    mbarrier &b = bar_at(c.bar);
    b.bytes -= (int64_t)c.bytes.size();
    end_phase_if_due(b);
}

/* ---- wgmma */

/* A NaN whose bits any operation changes. */
const uint32_t HIDDEN = 0xffbfffffu;

/* The registers of a d, of the 32 lanes, while products on it are under way. */
struct accumulator {
    float *at[32];
    int n; /* of a lane */
    std::vector<float> value;
    uint32_t users;
};
struct product {
    accumulator *d;
    cushim_product of; /* of lane 0 */
    const uint32_t *a_at[32];
    uint32_t a[32][4];
    uint32_t group;
    bool done;
};
struct warp_products {
    std::list<accumulator> accumulators;
    std::deque<product> queue;
    uint32_t committed;
    bool fenced;
    size_t issued;
};
warp_products products[MAX_WARPS];
std::vector<uint64_t> descriptors[MAX_WARPS / 4]; /* of b, of each product of a warpgroup */
rng moments(0);

warp_products &mine() {
    return products[thread_index() / 32];
}

/* The 16 bytes `half` of a row's 16 elements. */
const uint16_t *tile_unit(uint64_t desc, uint32_t row, uint32_t half) {
    const uint32_t start = (desc & 0x3fff) << 4, stride = (desc >> 32 & 0x3fff) << 4;
    if (desc >> 62 != 1 || (desc >> 49 & 7) != 0)
        cushim_fault("wgmma: descriptor %016llx has no swizzle of 128 bytes",
                     (unsigned long long)desc);
    if ((start & 1023) >= 128)
        cushim_fault("wgmma: a tile begins at %#x, not a multiple of 1024", start & ~127u);
    const uint32_t linear = start + row / 8 * stride + row % 8 * 128 + half * 16,
                   at = linear ^ (linear >> 7 & 7) << 4;
    const char *p = shared_at(at);
    if (!p) cushim_fault("wgmma reads %#x: not dynamic shared memory", at);
    if (unit_state[at / 16] & COMING)
        cushim_fault("wgmma reads %#x, where a bulk copy has not come yet", at);
    if (unit_state[at / 16] & UNFENCED)
        cushim_fault("wgmma reads %#x, written by cp.async without cu_fence_async", at);
    return (const uint16_t *)p;
}

template <float (*CONVERT)(uint32_t)>
void read_a(const product &p, uint32_t warp, float a[16][16]) {
    for (uint32_t l = 0; l < 32 && p.of.a; l++)
        for (uint32_t r = 0; r < 4; r++)
            for (uint32_t i = 0; i < 2; i++)
                a[l / 4 + r % 2 * 8][l % 4 * 2 + r / 2 * 8 + i] =
                    CONVERT(p.a[l][r] >> 16 * i & 0xffff);
    for (uint32_t row = 0; row < 16 && !p.of.a; row++)
        for (uint32_t k = 0; k < 16; k++)
            a[row][k] = CONVERT(tile_unit(p.of.a_desc, 16 * (warp % 4) + row, k / 8)[k % 8]);
}

/* Sums of k in ascending order, in float, then added to d: as mma_16bit of warp.cpp. */
template <float (*CONVERT)(uint32_t)> void multiply(product &p, uint32_t warp) {
    static float a[16][16], b[16][256], sum[16][256];
    read_a<CONVERT>(p, warp, a);
    const int n = p.of.n;
    for (int j = 0; j < n; j++)
        for (int half = 0; half < 2; half++) {
            const uint16_t *unit = tile_unit(p.of.b_desc, (uint32_t)j, (uint32_t)half);
            for (int k = 0; k < 8; k++) b[8 * half + k][j] = CONVERT(unit[k]);
        }
    memset(sum, 0, sizeof sum);
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < n; j++) sum[i][j] += a[i][k] * b[k][j];
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < n / 2; i++) {
            float &d = p.d->value[(size_t)(l * p.d->n + i)];
            d = (p.of.keep ? d : 0) + sum[l / 4 + i / 2 % 2 * 8][i / 4 * 8 + l % 4 * 2 + i % 2];
        }
}

void execute(product &p, uint32_t warp) {
    if (p.done) return;
    p.done = true;
    if (p.of.is_bf16)
        multiply<from_bf16>(p, warp);
    else
        multiply<from_f16>(p, warp);
}

/* d of the lanes, which hides their values. */
accumulator *hide(warp_products &w, const void *const in[32]) {
    const cushim_product *first = (const cushim_product *)in[0];
    for (accumulator &x : w.accumulators)
        if (x.at[0] == first->d) {
            x.users++;
            return &x;
        }
    w.accumulators.push_back({{}, first->n / 2, {}, 1});
    accumulator &x = w.accumulators.back();
    x.value.resize((size_t)x.n * 32);
    for (int l = 0; l < 32; l++) {
        x.at[l] = ((const cushim_product *)in[l])->d;
        memcpy(&x.value[(size_t)(l * x.n)], x.at[l], (size_t)x.n * 4);
        for (int i = 0; i < x.n; i++) memcpy(&x.at[l][i], &HIDDEN, 4);
    }
    return &x;
}

void show(warp_products &w, accumulator *x) {
    if (--x->users) return;
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < x->n; i++)
            if (memcmp(&x->at[l][i], &HIDDEN, 4) != 0)
                cushim_fault("wgmma: d is written to before cu_wgmma_wait");
        memcpy(x->at[l], &x->value[(size_t)(l * x->n)], (size_t)x->n * 4);
    }
    w.accumulators.remove_if([&](const accumulator &a) { return &a == x; });
}

void retire(warp_products &w, uint32_t warp) {
    product &p = w.queue.front();
    execute(p, warp);
    for (int l = 0; l < 32 && p.of.a; l++)
        if (memcmp(p.a[l], p.a_at[l], sizeof p.a[l]) != 0)
            cushim_fault("wgmma: registers of a are written to before cu_wgmma_wait");
    accumulator *d = p.d;
    w.queue.pop_front();
    show(w, d);
}

/* The warps of a warpgroup multiply with the same b, one after the other. */
void compare_descriptors(warp_products &w, uint32_t warp, uint64_t b) {
    std::vector<uint64_t> &all = descriptors[warp / 4];
    if (w.issued == all.size()) all.push_back(b);
    if (all[w.issued++] != b) cushim_fault("wgmma: warps of a warpgroup differ in b");
}

void issue(uint32_t, const void *const in[32], void *const[32]) {
    const uint32_t warp = thread_index() / 32;
    warp_products &w = products[warp];
    const cushim_product *first = (const cushim_product *)in[0];
    used = true;
    if (!w.fenced) cushim_fault("wgmma without cu_wgmma_fence since the last group");
    compare_descriptors(w, warp, first->b_desc);
    product p = {hide(w, in), *first, {}, {}, w.committed, false};
    for (int l = 0; l < 32; l++) {
        const cushim_product *x = (const cushim_product *)in[l];
        if (x->a_desc != first->a_desc || x->b_desc != first->b_desc || x->n != first->n ||
            (x->keep != 0) != (first->keep != 0) || x->d != p.d->at[l])
            cushim_fault("wgmma: lane %d differs from lane 0", l);
        p.a_at[l] = x->a;
        if (x->a) memcpy(p.a[l], x->a, sizeof p.a[l]);
    }
    w.queue.push_back(p);
    const bool now = config.order == 1 || (config.order > 2 && moments.below(2));
    for (product &q : w.queue)
        if (now) execute(q, warp);
}

void wait_all(uint32_t, const void *const in[32], void *const[32]) {
    warp_products &w = mine();
    const uint32_t most = *(const uint32_t *)in[0];
    while (!w.queue.empty() && w.queue.front().group + most < w.committed)
        retire(w, thread_index() / 32);
}

} // namespace

void hopper_begin_block() {
    if (!used) return;
    used = false;
    bars.clear(), copies.clear();
    for (named_barrier &n : named) n = {};
    for (std::vector<uint32_t> &u : unfenced) u.clear();
    for (warp_products &w : products) w = {};
    for (std::vector<uint64_t> &d : descriptors) d.clear();
    memset(unit_state, 0, sizeof unit_state);
}

void hopper_end_block() {
    if (!copies.empty()) fault_of_block("ends before a bulk copy has come");
    for (uint32_t i = 0; i < MAX_WARPS; i++) {
        if (!products[i].queue.empty()) fault_of_block("wgmma never waited for");
        if (products[i].issued != descriptors[i / 4].size())
            fault_of_block("wgmma: a warp lacks products that others of its warpgroup have");
    }
}

bool hopper_has_copies() {
    return !copies.empty();
}

bool hopper_land(rng &dice) {
    if (copies.empty()) return false;
    const size_t n = copies.size();
    land(config.order > 2 ? dice.below((uint32_t)n) : config.order == 2 ? n - 1 : 0);
    return true;
}

void hopper_wrote(const void *shared) {
    if (bars.empty() || !shared_is_dynamic(shared)) return;
    mark((const char *)shared, 16, UNFENCED, 0);
    unfenced[thread_index()].push_back(cu_shared_address(shared) / 16);
}

} // namespace cushim

using namespace cushim;

/* ---- barriers */

void cu_mbar_init(uint64_t *bar, uint32_t arrivals) {
    if ((uintptr_t)bar & 7 || !shared_contains(bar, 8))
        cushim_fault("a barrier at %p: not 8 aligned bytes of shared memory", (void *)bar);
    if (arrivals == 0 || bars.count(bar))
        cushim_fault("the barrier at %p: initialised twice, or for nothing", (void *)bar);
    used = true;
    bars[bar] = {arrivals, arrivals, 0, 0, {}};
}

void cu_mbar_arrive(uint64_t *bar) {
    arrive(bar, 0);
}

void cu_mbar_expect(uint64_t *bar, uint32_t bytes) {
    arrive(bar, bytes);
}

void cu_mbar_wait(uint64_t *bar, uint32_t parity) {
    if (parity > 1) cushim_fault("the barrier at %p: parity %u", (void *)bar, parity);
    mbarrier &b = bar_at(bar);
    while ((b.phase & 1) == parity) {
        b.asleep.push_back(thread_index());
        sleep_until_woken();
    }
}

void cu_named_barrier(int id, int threads) {
    if (id < 1 || id >= (int)NAMED || threads <= 0 || threads % 32)
        cushim_fault("barrier %d of %d threads", id, threads);
    used = true;
    named_barrier &n = named[id];
    if (n.asleep.empty()) n.threads = threads;
    if (n.threads != threads)
        cushim_fault("barrier %d of %d threads, and of %d", id, n.threads, threads);
    if ((int)n.asleep.size() + 1 == threads) {
        wake_all(n.asleep);
        return;
    }
    n.asleep.push_back(thread_index());
    sleep_until_woken();
}

/* ---- copies */

void cu_bulk_copy(void *shared, const void *global, uint32_t bytes, uint64_t *bar) {
    if (((uintptr_t)shared | (uintptr_t)global | bytes) & 15 || bytes == 0)
        cushim_fault("a bulk copy of %u bytes from %p to %p: not 16-byte aligned", bytes,
                     global, shared);
    if (!shared_contains(shared, bytes) || !shared_is_dynamic(shared))
        cushim_fault("a bulk copy to %p: not dynamic shared memory", shared);
    bar_at(bar);
    const char *from = (const char *)global;
    copies.push_back({(char *)shared, bar, std::vector<char>(from, from + bytes)});
    memset(shared, 0xff, bytes);
    mark((const char *)shared, bytes, COMING, UNFENCED);
    if (config.order == 1) land(copies.size() - 1);
}

void cu_fence_async() {
    for (uint32_t u : unfenced[thread_index()]) unit_state[u] &= (uint8_t)~UNFENCED;
    unfenced[thread_index()].clear();
}

/* ---- products */

void cushim_wgmma(const cushim_product *p) {
    cushim_collective(0xffffffffu, issue, p, nullptr, true);
}

void cu_wgmma_fence() {
    cushim_collective(
        0xffffffffu,
        [](uint32_t, const void *const[32], void *const[32]) { mine().fenced = true; }, nullptr,
        nullptr, true);
}

void cu_wgmma_commit() {
    cushim_collective(
        0xffffffffu,
        [](uint32_t, const void *const[32], void *const[32]) {
            mine().committed++;
            mine().fenced = false;
        },
        nullptr, nullptr, true);
}

void cushim_wgmma_wait(uint32_t n_groups) {
    cushim_collective(0xffffffffu, wait_all, &n_groups, nullptr, true);
}
