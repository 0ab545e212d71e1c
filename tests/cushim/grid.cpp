/* Runs a kernel: the blocks one after another, the threads of a block as fibers.
 *
 * A fiber runs until it must wait (barrier, collective), then switches straight to the next one
 * that is ready: pick_next() decides which, by the order. The fiber that completes a barrier or
 * collective goes on; the others become ready. A fiber that ends hands its stack to the next
 * one that has not begun, so that threads that never wait cost no switch and one warm stack.
 * When nobody is ready, the block has ended or is stuck. A fault abandons the block's fibers
 * and returns to run_grid. */
#include "cushim.h"

#include <algorithm>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <numeric>
#include <vector>

#include "early.h"
#include "fiber.h"
#include "hopper.h"
#include "internal.h"
#include "shared.h"

cushim_thread *cushim_cur;
cushim_block cushim_blk;

namespace cushim {
namespace {

const uint32_t MAX_THREADS = 1024, MAX_WARPS = 32;

struct async_copy {
    void *to;
    const void *from;
    int bytes;
    uint32_t group;
    bool early; /* begun before cu_grid_wait: what it reads then is what it brings */
    char read[16];
};

struct fiber : cushim_thread {
    stack *stk; /* NULL: not begun, or ended */
    uint32_t warp;
    std::vector<async_copy> copies; /* not waited for, oldest first */
    uint32_t groups;                /* committed */
};

struct warp {
    uint32_t ready;   /* lanes that can run */
    uint32_t alive;   /* lanes that have not exited */
    uint32_t gated;   /* lanes that wait in cu_grid_wait */
    uint32_t whole;   /* lanes that wait in a collective of all 32 */
    uint32_t arrived; /* lanes that wait in a collective, with: */
    bool alike;       /* all of them with the mask and function of lane `first` */
    uint32_t first;
    uint32_t mask[32];
    cushim_collective_fn fn[32];
    const void *in[32];
    void *out[32];
};

struct barrier {
    uint32_t arrived;
    const char *file;
    int line;
    int votes, result;
};

fiber fibers[MAX_THREADS];
stack stacks[MAX_THREADS];
uint32_t n_stacks; /* made so far */
std::vector<stack *> free_stacks;
warp warps[MAX_WARPS];
barrier bar;
stack scheduler_stack; /* run_grid's */
bool running;

const char *kernel_name;
const work *kernel_body;
uint32_t n_threads, n_warps, n_alive, n_asleep;
bool gate_closed; /* what kernels before wrote is hidden from the block */
rng dice(0);

fiber *current() {
    return static_cast<fiber *>(cushim_cur);
}

/* ---- order */

struct turn {
    uint32_t warp;    /* whose lanes have their turn */
    uint32_t pending; /* of its lanes, those still to run in this turn */
} now;

/* the next one with a ready lane, or n_warps */
uint32_t next_warp(uint32_t from, bool backwards) {
    for (uint32_t i = 0; i < n_warps; i++) {
        uint32_t w = (from + (backwards ? n_warps - i : i)) % n_warps;
        if (warps[w].ready) return w;
    }
    return n_warps;
}

uint32_t choose_warp() {
    switch (config.order) {
    case 0: return next_warp((now.warp + 1) % n_warps, false);
    case 1: return next_warp(now.warp, false);
    case 2: return next_warp(now.warp, true);
    default: return next_warp(dice.below(n_warps), false);
    }
}

uint32_t choose_lane(uint32_t lanes) {
    if (config.order < 2) return (uint32_t)__builtin_ctz(lanes);
    if (config.order == 2) return 31 - (uint32_t)__builtin_clz(lanes);
    uint32_t r = dice.next() & 31, rotated = lanes >> r | (r ? lanes << (32 - r) : 0);
    return ((uint32_t)__builtin_ctz(rotated) + r) & 31;
}

fiber *pick_next() { /* NULL: nobody is ready */
    if (config.order > 2 && hopper_has_copies() && dice.below(8) == 0) hopper_land(dice);
    now.pending &= warps[now.warp].ready;
    if (!now.pending) {
        uint32_t w = choose_warp();
        while (w == n_warps && n_alive && hopper_land(dice)) w = choose_warp();
        if (w == n_warps) return nullptr;
        now.warp = w;
        now.pending = warps[w].ready;
        if (config.order > 2) {
            uint32_t some = now.pending & dice.next();
            if (some) now.pending = some;
        }
    }
    uint32_t lane = choose_lane(now.pending);
    now.pending &= ~(1u << lane);
    warps[now.warp].ready &= ~(1u << lane);
    return &fibers[now.warp * 32 + lane];
}

void thread_main();

void begin(fiber *f) {
    if (free_stacks.empty()) {
        stack_new(&stacks[n_stacks]);
        free_stacks.push_back(&stacks[n_stacks++]);
    }
    f->stk = free_stacks.back();
    free_stacks.pop_back();
    stack_start(f->stk, (unsigned)(f->stk - stacks), thread_main);
}

void switch_away() { /* until somebody makes this thread ready */
    fiber *from = current(), *to = pick_next();
    counts.switches++;
    cushim_cur = to;
    if (to && !to->stk) begin(to);
    stack_switch(from->stk, to ? to->stk : &scheduler_stack, false);
}

/* ---- collectives */

void complete(warp &w, uint32_t lanes, uint32_t self) {
    cushim_collective_fn fn = w.fn[__builtin_ctz(lanes)];
    fn(lanes, w.in, w.out);
    w.arrived &= ~lanes;
    w.ready |= lanes & ~self;
}

/* A lane that exits no longer keeps the others of its warp waiting. */
void leave_warp(warp &w, uint32_t lane) {
    w.alive &= ~(1u << lane);
    if (!w.arrived) return;
    if (w.arrived & w.whole)
        cushim_fault("lane %u exits while others wait for it in mma, ldmatrix or cu_warp_*",
                     lane);
    uint32_t want = w.mask[__builtin_ctz(w.arrived)] & w.alive;
    if ((w.arrived & want) == want) complete(w, want, 0);
}

void end_thread(fiber *f) {
    if (!f->copies.empty()) cushim_fault("%zu cp.async never waited for", f->copies.size());
    n_alive--;
    leave_warp(warps[f->warp], f->lane);
}

void thread_main() {
    stack_entered();
    for (;;) {
        (*kernel_body)();
        fiber *f = current();
        end_thread(f);
        stack *mine = f->stk;
        f->stk = nullptr;
        fiber *to = pick_next();
        cushim_cur = to;
        if (to && !to->stk) {
            to->stk = mine;
            continue;
        }
        free_stacks.push_back(mine);
        counts.switches++;
        stack_switch(mine, to ? to->stk : &scheduler_stack, true);
    }
}

/* ---- blocks */

void start_block(uint3 bid) {
    cushim_blk.bid = bid;
    n_alive = n_threads;
    n_asleep = 0;
    hopper_begin_block();
    bar = {};
    for (uint32_t w = 0; w < n_warps; w++) {
        uint32_t lanes = std::min(n_threads - w * 32, 32u);
        warps[w].ready = warps[w].alive = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
        warps[w].arrived = warps[w].gated = 0;
    }
    for (uint32_t i = 0; i < n_threads; i++) fibers[i].groups = 0;
    now = {config.order == 0 || config.order == 2 ? n_warps - 1 : 0, 0};
}

void abandon_threads() {
    for (uint32_t i = 0; i < n_threads; i++) {
        if (fibers[i].stk) free_stacks.push_back(fibers[i].stk);
        fibers[i].stk = nullptr;
        fibers[i].copies.clear();
    }
}

/* Lets the threads run until none can. */
void run_threads() {
    fiber *first = pick_next();
    if (!first) return;
    cushim_cur = first;
    if (!first->stk) begin(first);
    running = true;
    stack_switch(&scheduler_stack, first->stk, false);
    running = false;
}

/* The threads that wait for the kernels before go on. */
void open_gate() {
    gate_closed = false;
    early_show();
    for (uint32_t w = 0; w < n_warps; w++) {
        warps[w].ready |= warps[w].gated;
        warps[w].gated = 0;
    }
}

void run_block(uint3 bid, bool hides) {
    start_block(bid);
    gate_closed = hides;
    run_threads();
    if (gate_closed) open_gate();
    if (!faulted()) run_threads();
    if (!n_alive) {
        if (!faulted()) hopper_end_block();
        return;
    }
    if (!faulted()) {
        uint32_t in_warps = 0;
        for (uint32_t w = 0; w < n_warps; w++)
            in_warps += (uint32_t)__builtin_popcount(warps[w].arrived);
        char text[512];
        snprintf(
            text, sizeof text,
            "%s, block (%u,%u,%u): deadlock: of %u threads, %u wait at a barrier (line %d), "
            "%u in a warp collective, %u for a phase or a named barrier, %u have exited",
            kernel_name, bid.x, bid.y, bid.z, n_threads, bar.arrived, bar.line, in_warps,
            n_asleep, n_threads - n_alive);
        set_fault(text);
    }
    abandon_threads();
}

void prepare_threads(dim3 block) {
    for (uint32_t i = 0; i < n_threads; i++) {
        fiber &f = fibers[i];
        f.tid = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        f.warp = i / 32;
        f.lane = i % 32;
    }
}

std::vector<uint32_t> block_order(uint32_t n) {
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    if (config.order == 2) std::reverse(order.begin(), order.end());
    if (config.order > 2)
        for (uint32_t i = n; i > 1; i--) std::swap(order[i - 1], order[dice.below(i)]);
    return order;
}

} // namespace

uint32_t thread_index() {
    return current()->warp * 32 + current()->lane;
}

void sleep_until_woken() {
    n_asleep++;
    switch_away();
}

void wake(uint32_t thread) {
    n_asleep--;
    warps[thread / 32].ready |= 1u << thread % 32;
}

bool where(char *out, size_t size) {
    if (!running) return false;
    const fiber *f = current();
    snprintf(out, size, "%s, block (%u,%u,%u), thread (%u,%u,%u)", kernel_name,
             cushim_blk.bid.x, cushim_blk.bid.y, cushim_blk.bid.z, f->tid.x, f->tid.y,
             f->tid.z);
    return true;
}

void fault_of_block(const char *what) {
    char text[512];
    snprintf(text, sizeof text, "%s, block (%u,%u,%u): %s", kernel_name, cushim_blk.bid.x,
             cushim_blk.bid.y, cushim_blk.bid.z, what);
    set_fault(text);
}

void run_grid(const char *name, dim3 grid, dim3 block, size_t smem, const work &body,
              bool early) {
    counts.launches++;
    n_written++;
    kernel_name = name;
    kernel_body = &body;
    n_threads = block.x * block.y * block.z;
    n_warps = (n_threads + 31) / 32;
    if (config.order > 2)
        dice = rng((uint64_t)config.order * 1000003 + (uint64_t)counts.launches);
    prepare_threads(block);
    cushim_blk.bdim = block;
    cushim_blk.gdim = grid;
    shared_begin_launch(smem);
    const bool hides = early_begin(early);
    bool first = true;
    for (uint32_t b : block_order(grid.x * grid.y * grid.z)) {
        cushim_blk.dyn_shared = shared_begin_block();
        if (hides) early_hide(first);
        run_block({b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)}, hides);
        first = false;
        if (faulted()) break;
    }
    shared_end_launch();
    cushim_cur = nullptr;
}

} // namespace cushim

using namespace cushim;

void cushim_fault(const char *format, ...) {
    char what[384], at[256], text[700];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (!where(at, sizeof at)) snprintf(at, sizeof at, "(no kernel)");
    snprintf(text, sizeof text, "%s: %s", at, what);
    set_fault(text);
    if (!running) abort();
    stack_switch(current()->stk, &scheduler_stack, true);
    abort();
}

void cushim_must_have_waited(const char *name) {
    if (!cushim_cur->waited)
        cushim_fault("%s, launched early, ended without cu_grid_wait", name);
}

void cushim_grid_wait() {
    if (!gate_closed) return;
    fiber *f = current();
    warps[f->warp].gated |= 1u << f->lane;
    switch_away();
}

int cushim_barrier(const char *file, int line, cushim_vote vote, int predicate) {
    fiber *f = current();
    if (n_alive != n_threads)
        cushim_fault("barrier at line %d after %u of %u threads exited", line,
                     n_threads - n_alive, n_threads);
    if (bar.arrived == 0) bar.file = file, bar.line = line, bar.votes = 0;
    if (bar.line != line || (bar.file != file && strcmp(bar.file, file) != 0))
        cushim_fault("divergent barrier: this thread is at line %d, others wait at line %d",
                     line, bar.line);
    bar.votes += predicate;
    if (++bar.arrived < n_threads) {
        switch_away();
        return bar.result;
    }
    bar.arrived = 0;
    bar.result = vote == CUSHIM_COUNT ? bar.votes
                 : vote == CUSHIM_OR  ? bar.votes > 0
                                      : bar.votes == (int)n_threads;
    for (uint32_t w = 0; w < n_warps; w++) warps[w].ready = warps[w].alive;
    warps[f->warp].ready &= ~(1u << f->lane);
    return bar.result;
}

void cushim_collective(uint32_t mask, cushim_collective_fn fn, const void *in, void *out,
                       bool whole_warp) {
    fiber *f = current();
    warp &w = warps[f->warp];
    uint32_t self = 1u << f->lane, want = mask & w.alive;
    if (!(mask & self)) cushim_fault("lane %u is not in its own mask %08x", f->lane, mask);
    if (whole_warp && want != 0xffffffffu)
        cushim_fault("mma, ldmatrix or cu_warp_* without all 32 lanes: here are %08x", want);
    w.whole = whole_warp ? w.whole | self : w.whole & ~self;
    w.mask[f->lane] = mask;
    w.fn[f->lane] = fn;
    w.in[f->lane] = in;
    w.out[f->lane] = out;
    if (!w.arrived) w.alike = true, w.first = f->lane;
    w.alike = w.alike && w.fn[w.first] == fn && w.mask[w.first] == mask;
    for (uint32_t others = w.alike ? 0 : w.arrived & want; others; others &= others - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(others);
        if (w.fn[l] != fn || w.mask[l] != mask)
            cushim_fault(
                "divergent collective: lanes %u and %u of a warp are in different ones",
                f->lane, l);
    }
    w.arrived |= self;
    if ((w.arrived & want) == want)
        complete(w, want, self);
    else
        switch_away();
}

uint32_t cushim_active_mask() {
    return warps[current()->warp].alive;
}

/* ---- cp.async */

void cu_cp_async16_zfill(void *shared, const void *global, int src_bytes) {
    if (((uintptr_t)shared | (uintptr_t)global) & 15)
        cushim_fault("cp.async: %p or %p is not 16-byte aligned", shared, global);
    if (src_bytes < 0 || src_bytes > 16) cushim_fault("cp.async of %d bytes", src_bytes);
    if (!shared_contains(shared, 16)) cushim_fault("cp.async to %p: not shared memory", shared);
    memset(shared, 0xff, 16);
    fiber *f = current();
    f->copies.push_back({shared, global, src_bytes, f->groups, gate_closed, {}});
    if (gate_closed) memcpy(f->copies.back().read, global, (size_t)src_bytes);
}

void cu_cp_async_commit() {
    current()->groups++;
}

void cushim_cp_async_wait(uint32_t n) {
    fiber *f = current();
    size_t done = 0;
    for (; done < f->copies.size(); done++) {
        const async_copy &c = f->copies[done];
        if (c.group >= f->groups || f->groups - c.group <= n) break;
        memset(c.to, 0, 16);
        memcpy(c.to, c.early ? c.read : c.from, (size_t)c.bytes);
        hopper_wrote(c.to);
    }
    f->copies.erase(f->copies.begin(), f->copies.begin() + (ptrdiff_t)done);
}
