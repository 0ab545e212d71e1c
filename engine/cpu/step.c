/* One step: the operations of the program in order, each shared out over the team, a barrier
 * after each. What can be done by the thread that has it in hand is fused: norm with the
 * quantising of its row, gate and up with the activation and its quantising, rotation and the
 * cache's new entry with attention, attention with the quantising of its heads.
 *
 * Runs on the engine thread and the workers. Which thread computes what is free to change: no
 * result depends on it (docs/numerics.md). */
#include "engine/cpu/step.h"

#include <string.h>

#include "base/clock.h"
#include "engine/cpu/experts.h"

enum { ALONE_LEAST = 4, ALONE_MOST = 64 };

/* By kind; those that are not there were refused (engine_check_runs). */
#define X(kind, run, ...) [OP_##kind] = run,
static op_run *const runs[] = {CPU_OPS(X)};
#undef X

static void copy_state(cpu_engine *e, const block_copy *c, uint32_t thread) {
    const uint64_t n = e->layout.state_floats;
    const span s = step_share((uint32_t)ceil_div(n, 1024), e->step.n_threads, thread);
    const uint64_t from = 1024ull * s.from, to = 1024ull * s.to < n ? 1024ull * s.to : n;
    if (from < to)
        memmove(e->states + (uint32_t)c->to * n + from,
                e->states + (uint32_t)c->from * n + from, (to - from) * sizeof(float));
}

/* Each thread copies the same layers of every block and the same part of every state, so that
 * copies that follow one another stay in order. */
static void run_copies(cpu_engine *e, uint32_t thread) {
    const batch *b = e->step.batch;
    for (uint32_t i = 0; i < b->n_copies; i++) {
        const block_copy *c = &b->copies[i];
        if (c->group == ENGINE_COPY_STATE) {
            copy_state(e, c, thread);
            continue;
        }
        const uint32_t n_layers = e->layout.groups.group[c->group].n_layers;
        const kv_format *f = &e->layout.kv[c->group];
        const uint64_t block = kv_block_bytes(f, n_layers);
        const span l = step_share(n_layers, e->step.n_threads, thread);
        const uint64_t from = kv_part_at(f, l.from, 0);
        unsigned char *at = e->kv[c->group] + from;
        memmove(at + (uint32_t)c->to * block, at + (uint32_t)c->from * block,
                kv_part_at(f, l.to, 0) - from);
    }
    if (b->n_copies) team_barrier(e->team, thread);
}

static bool is_needless(const cpu_engine *e, const op *o) {
    const op_kind k = o->kind;
    if (o->idle) return true;
    if (k == OP_ROPE_APPEND) return !e->step.prefill;
    return (k == OP_LOGITS || k == OP_SAMPLE) && !e->step.logits;
}

static void show_input(const cpu_engine *e, const op *o, uint32_t thread) {
    const engine_tap *t = e->opt.tap;
    if (o->kind != OP_LINEAR && o->kind != OP_GATE_UP) return;
    const act in = value_act(e, o->in);
    t->input(t->arg, o, in.f, in.n_rows, in.n_in, thread, e->step.n_threads);
}

static void step_thread(void *arg, uint32_t thread) {
    cpu_engine *e = arg;
    if (e->step.from == 0) run_copies(e, thread);
    for (uint32_t i = e->step.from; i < e->step.to; i++) {
        if (thread == 0 && e->opt.group) group_beat(e->opt.group);
        if (is_needless(e, e->op[i].op)) continue;
        if (e->opt.tap) show_input(e, e->op[i].op, thread);
        runs[e->op[i].op->kind](e, &e->op[i], thread);
        team_barrier(e->team, thread);
    }
}

/* Where others want the processors too, a team waits for members that are not running, and one
 * thread can be faster than all of them: it would take n times what this one worked. Then the
 * next steps run alone, twice as many each time that a trial of all fails. */
static void judge_team(cpu_engine *e, uint64_t took_us) {
    uint64_t waited = team_waited_ns(e->team) / 1000;
    if (waited > took_us) waited = took_us;
    if ((took_us - waited) * e->opt.n_threads >= took_us) {
        e->alone_next = 0;
        return;
    }
    e->alone_left = e->alone_next ? e->alone_next : ALONE_LEAST;
    e->alone_next = e->alone_left < ALONE_MOST ? e->alone_left * 2 : ALONE_MOST;
}

void cpu_step_run(cpu_engine *e, uint32_t from, uint32_t to) {
    e->step.from = from;
    e->step.to = to;
    if (e->opt.n_threads == 1 || e->alone_left) {
        e->step.n_threads = 1;
        if (e->alone_left) e->alone_left--;
        team_run_alone(e->team, step_thread, e);
        return;
    }
    uint64_t start = clock_us();
    e->step.n_threads = e->opt.n_threads;
    team_run(e->team, step_thread, e);
    if (e->experts && experts_stalled(e->experts)) return; /* members waited for a disk */
    judge_team(e, clock_us() - start);
}
