/* What the loop may ask the bridge: figures for /metrics and /v1/memory, readiness, when to
 * come back. Loop thread; of the engine thread's it reads what is published after each step. */
#include "base/clock.h"
#include "daemon/bridge/bridge_parts.h"
#include "daemon/kv/kv_tier.h"
#include "daemon/ranks/ranks.h"

enum { STALL_US = 30 * 1000000 };

/* Before anything is published all blocks are free. While a pool shrinks or grows, it has others than
 * the plan says. */
static void view_kv(const machine *m, const sched_stats *s, kv_view *out) {
    *out = (kv_view){.type_k = m->engine_opt.kv_k,
                     .type_v = m->engine_opt.kv_v,
                     .block_tokens = m->plan.block_tokens,
                     .used = s->blocks_used + s->blocks_fenced,
                     .cached = s->blocks_cached,
                     .bytes_per_token = m->plan.kv_bytes_per_token,
                     .state_slots = m->sched_conf.state_slots,
                     .state_live = s->state_live,
                     .state_checkpoints = s->state_checkpoints,
                     .n_groups = m->sched_conf.n_groups};
    for (uint32_t k = 0; k < out->n_groups; k++) {
        const sched_blocks_view *g = &s->group[k];
        const uint64_t known = (uint64_t)g->free + g->used + g->fenced + g->cached;
        const uint64_t blocks = known ? known : m->plan.group_blocks[k];
        out->group[k] = (kv_group_view){.window = m->sched_conf.group[k].window,
                                        .tail = m->sched_conf.group[k].rows_once,
                                        .block_bytes = m->plan.group_block_bytes[k],
                                        .blocks = blocks,
                                        .free = known ? g->free : blocks,
                                        .used = g->used + g->fenced,
                                        .cached = g->cached,
                                        .fenced = g->fenced,
                                        .peak = g->peak,
                                        .watermark = g->watermark};
        out->blocks += blocks;
        out->free += out->group[k].free;
    }
}

static void view_tier(bridge *b, const sched_stats *s, kv_tier_view *out) {
    const machine *m = b->m;
    const sched_config *c = &m->sched_conf;
    if (atomic_load(&b->load_state) != READY || !m->tier) return;
    *out = (kv_tier_view){.budget_bytes = c->tier_bytes,
                          .bytes = s->tier_bytes,
                          .chunks = s->tier_chunks,
                          .chunk_tokens = c->chunk_blocks * c->block_tokens,
                          .loading = s->n_loading,
                          .storing = s->n_storing,
                          .in_memory = m->opt.kv_host_bytes > 0,
                          .off = kv_tier_is_off(m->tier)};
}

static void view_experts(const bridge *b, expert_view *out) {
    const machine *m = b->m;
    expert_stats s;
    if (atomic_load(&b->load_state) != READY || !m->engine_opt.expert_slots) return;
    engine_expert_stats(m->engine, &s);
    *out = (expert_view){.slots = s.n_slots,
                         .all = m->backend->experts(&m->model->program).n_all,
                         .hits = s.hits,
                         .misses = s.misses,
                         .read_bytes = s.read_bytes,
                         .read_errors = s.read_errors,
                         .stalled_s = s.stalled_s};
}

/* Of sequences; those that were submitted since the last step was published wait, too: a step may
 * take seconds, and a balancer has to see at once what it has sent. */
static uint32_t count_waiting(const bridge *b, const sched_stats *s) {
    const uint32_t known = s->n_running + s->n_waiting + s->n_preempted;
    return s->n_waiting + (b->n_live > known ? b->n_live - known : 0);
}

void bridge_stats(port *p, machine_stats *out) {
    bridge *b = (bridge *)p;
    sched_stats s;
    pthread_mutex_lock(&b->stats_lock);
    s = b->stats;
    *out = b->counts;
    out->hist[HIST_STEP_TOKENS] = b->step_rows;
    out->hist[HIST_ITERATION] = b->step_tokens;
    pthread_mutex_unlock(&b->stats_lock);
    out->n_waiting = count_waiting(b, &s);
    out->n_running = s.n_running;
    out->n_preempted = s.n_preempted;
    out->waiting_tokens = s.waiting_tokens;
    out->count = s.count;
    out->cost = (step_cost){.step_s = s.cost.coef[0] / 1e6,
                            .row_s = s.cost.coef[1] / 1e6,
                            .position_s = s.cost.coef[2] / 1e6,
                            .logits_s = s.cost.coef[3] / 1e6,
                            .error = s.cost.error};
    view_kv(b->m, &s, &out->kv);
    resize_view(b, &out->budget);
    release_view(b, &out->budget);
    view_tier(b, &s, &out->kv.tier);
    view_experts(b, &out->experts);
}

/* What a sequence of so many tokens holds; blocks that it shares count for each. */
static void count_held(const bridge *b, uint32_t n_tokens, seq_view *out) {
    const sched_config *c = &b->m->sched_conf;
    for (uint32_t k = 0; k < c->n_groups; k++) {
        uint64_t n = sched_blocks_needed(c, k, n_tokens, 0);
        out->n_blocks += (uint32_t)n;
        out->bytes += n * c->group[k].block_bytes;
    }
}

size_t bridge_sequences(port *p, seq_view *out, size_t cap) {
    static const char *const state[] = {"free", "waiting", "running", "preempted"};
    bridge *b = (bridge *)p;
    const uint64_t now = clock_us();
    size_t n = 0;
    for (uint32_t i = 0; i < b->n_gens && n < cap; i++) {
        const gen *g = &b->all[i];
        if (g->state == STATE_FREE) continue;
        uint32_t tokens = g->spec.n_prompt + g->n_output;
        out[n] = (seq_view){
            .id = g->number,
            .n_tokens = tokens,
            .state = state[g->state],
            .tenant = g->spec.tenant,
            .n_prompt = g->spec.n_prompt,
            .n_cached = g->n_cached,
            .age_us = now > g->submit_us ? now - g->submit_us : 0,
            .itl_us = g->n_output > 1 ? (g->last_us - g->first_us) / (g->n_output - 1) : 0};
        if (g->state == STATE_RUNNING) count_held(b, tokens, &out[n]);
        n++;
    }
    return n;
}

/* How long all that waits and runs will take, as long as sequences take of late. */
double bridge_retry_after(port *p) {
    const bridge *b = (const bridge *)p;
    double rounds = (double)b->n_live / b->m->opt.max_num_seqs;
    double s = rounds * (b->mean_run_s > 0 ? b->mean_run_s : 1);
    return s < 1 ? 1 : s > 600 ? 600 : s;
}

const char *bridge_not_ready(port *p) {
    bridge *b = (bridge *)p;
    if (atomic_load(&b->load_state) != READY) return "loading";
    if (b->draining) return "draining";
    pthread_mutex_lock(&b->stats_lock);
    uint64_t last = b->last_step_us;
    pthread_mutex_unlock(&b->stats_lock);
    return b->n_live && last && clock_us() - last > STALL_US ? "stalled" : NULL;
}

uint32_t bridge_ranks(port *p, ledger_view *out, uint32_t max, int32_t *first_device) {
    const bridge *b = (const bridge *)p;
    return atomic_load(&b->load_state) == READY ? ranks_read(b->m, out, max, first_device) : 0;
}

bool bridge_device_memory(port *p, device_memory *out) {
    bridge *b = (bridge *)p;
    const machine *m = b->m;
    return atomic_load(&b->load_state) == READY && m->backend->device_memory &&
           m->backend->device_memory(m->engine, out);
}
