/* The live account as JSON: whole for GET /v1/memory, and as what has changed for its stream. Owns nothing.
 * Loop thread. */
#include <inttypes.h>
#include <stdio.h>

#include "api/memory_view.h"

static void read_models(const app *a, memory_view *v) {
    v->n_models = 0;
    for (uint32_t i = 0; a->served[0].ops && i < a->n_served && i < MEMORY_MAX_MODELS; i++) {
        const served *s = &a->served[i];
        served_view of;
        s->ops->view(s, &of);
        v->model[v->n_models++] = (memory_model){.id = s->port->card.id,
                                                 .state = of.state,
                                                 .plan_bytes = of.bytes,
                                                 .ledger_bytes = of.bytes_now,
                                                 .n_requests = s->n_users,
                                                 .n_held = s->n_held};
    }
}

void memory_view_read(const app *a, memory_view *v) {
    port *p = a->port;
    ledger_read(p->ledger, &v->host);
    v->has_device = p->device_ledger != NULL;
    v->device_name = p->device;
    if (v->has_device) ledger_read(p->device_ledger, &v->device);
    p->ops->stats(p, &v->stats);
    v->sample = a->memory;
    v->pool_bytes = pool_size(p->pool);
    v->pool_used = pool_used(p->pool);
    v->pool_peak = pool_peak(p->pool);
    v->n_sequences = p->ops->sequences(p, v->sequence, MEMORY_MAX_SEQUENCES);
    v->first_device = -1;
    v->n_ranks =
        p->ops->ranks ? p->ops->ranks(p, v->rank, MEMORY_MAX_RANKS, &v->first_device) : 0;
    if (v->n_ranks < 2) v->n_ranks = 0;
    read_models(a, v);
}

/* ---- members ---- */

#define U64(name, field) json_diff_u64(o, name, now->field, was->field)

static void write_class(json_diff *o, const char *name, const ledger_class *now,
                        const ledger_class *was) {
    const size_t at = json_diff_element(o, "class", str_of(name));
    json_diff_str(o, "kind", term_kind_name(now->kind), term_kind_name(was->kind));
    U64("plan_bytes", plan_bytes);
    U64("ledger_bytes", ledger_bytes);
    U64("peak_bytes", peak_bytes);
    json_diff_close(o, at);
}

static void write_ledger(json_diff *o, const ledger_view *now, const ledger_view *was) {
    U64("budget_bytes", budget_bytes);
    U64("plan_bytes", plan_bytes);
    U64("ledger_bytes", ledger_bytes);
    U64("peak_bytes", peak_bytes);
    const size_t at = json_diff_open_list(o, "classes");
    for (int i = 0; i < MEM_N_CLASSES; i++)
        write_class(o, mem_class_name((mem_class)i), &now->cls[i], &was->cls[i]);
    json_diff_close_list(o, at);
}

static const char *pressure_state(const budget_view *b) {
    return !b->pressure_source ? "off" : b->pressed ? "pressed" : "calm";
}

static void write_budget(json_diff *o, const budget_view *now, const budget_view *was) {
    U64("target_bytes", target_bytes);
    U64("smallest_budget_bytes", smallest_bytes);
    U64("memory_max_bytes", most_bytes);
    json_diff_bool(o, "resizing", now->resizing, was->resizing);
    U64("full_budget_bytes", full_bytes);
    size_t at = json_diff_open(o, "pressure");
    json_diff_str(o, "source", now->pressure_source, was->pressure_source);
    json_diff_str(o, "state", pressure_state(now), pressure_state(was));
    U64("events", n_pressure);
    U64("given_back_bytes", pressure_bytes);
    json_diff_close(o, at);
    at = json_diff_open(o, "idle");
    U64("after_s", idle_after_s);
    json_diff_bool(o, "released", now->idle, was->idle);
    U64("given_back_bytes", idle_bytes);
    json_diff_close(o, at);
}

int64_t memory_unaccounted(const memory_sample *s) {
    return (int64_t)(s->process.anonymous_bytes - s->ledger_bytes);
}

/* What the kernel says. What it did not say before is written whole. */
static void write_process(json_diff *o, const memory_sample *now, const memory_sample *was) {
    if (!now->known) {
        json_diff_null(o, "process", !was->known);
        json_diff_null(o, "unaccounted_bytes", !was->known);
        return;
    }
    json_diff all = {o->out, o->whole || !was->known};
    o = &all;
    const size_t at = json_diff_open(o, "process");
    U64("anonymous_bytes", process.anonymous_bytes);
    U64("file_bytes", process.file_bytes);
    U64("heap_bytes", process.heap_bytes);
    json_diff_close(o, at);
    json_diff_i64(o, "unaccounted_bytes", memory_unaccounted(now), memory_unaccounted(was));
}

/* What the driver has in use beyond our arenas and what was measured of its own. */
int64_t memory_device_unaccounted(const memory_sample *s) {
    return (int64_t)s->device.used_bytes -
           (int64_t)(s->device_arena_bytes + s->device.outside_bytes);
}

static void write_driver(json_diff *o, const memory_sample *now, const memory_sample *was) {
    if (!now->device_known) {
        json_diff_null(o, "driver", !was->device_known);
        json_diff_null(o, "unaccounted_bytes", !was->device_known);
        return;
    }
    json_diff all = {o->out, o->whole || !was->device_known};
    o = &all;
    const size_t at = json_diff_open(o, "driver");
    U64("total_bytes", device.total_bytes);
    U64("used_bytes", device.used_bytes);
    U64("context_and_libraries_bytes", device.outside_bytes);
    json_diff_close(o, at);
    json_diff_i64(o, "unaccounted_bytes", memory_device_unaccounted(now),
                  memory_device_unaccounted(was));
}

static void write_device(json_diff *o, const memory_view *now, const memory_view *was) {
    if (!now->has_device) return;
    const size_t at = json_diff_open(o, "device");
    json_diff_str(o, "name", now->device_name, was->device_name);
    write_ledger(o, &now->device, &was->device);
    write_driver(o, &now->sample, &was->sample);
    json_diff_close(o, at);
}

static void write_requests(json_diff *o, const memory_view *now, const memory_view *was) {
    const size_t at = json_diff_open(o, "requests");
    U64("pool_bytes", pool_bytes);
    U64("used", pool_used);
    U64("peak", pool_peak);
    json_diff_close(o, at);
}

static void write_group(json_diff *o, uint32_t k, const kv_group_view *now,
                        const kv_group_view *was) {
    char number[12];
    snprintf(number, sizeof number, "%" PRIu32, k);
    const size_t at = json_diff_element(o, NULL, str_of(number));
    U64("window", window);
    json_diff_bool(o, "tail", now->tail, was->tail);
    U64("block_bytes", block_bytes);
    U64("blocks", blocks);
    U64("free", free);
    U64("used", used);
    U64("cached", cached);
    U64("fenced", fenced);
    U64("peak_used", peak);
    U64("watermark", watermark);
    json_diff_close(o, at);
}

/* The tier below memory: its files, and what it has done since the start. */
static void write_tier(json_diff *o, const machine_stats *now, const machine_stats *was) {
    if (!now->kv.tier.budget_bytes) return;
    json_diff all = {o->out, o->whole || !was->kv.tier.budget_bytes};
    o = &all;
    const size_t at = json_diff_open(o, now->kv.tier.in_memory ? "host" : "disk");
    json_diff_bool(o, "on", !now->kv.tier.off, !was->kv.tier.off);
    U64("budget_bytes", kv.tier.budget_bytes);
    U64("bytes", kv.tier.bytes);
    U64("chunks", kv.tier.chunks);
    U64("chunk_tokens", kv.tier.chunk_tokens);
    U64("loading", kv.tier.loading);
    U64("storing", kv.tier.storing);
    U64("hit_tokens", count.kv_tier_hits);
    U64("loads", count.kv_tier_loads);
    U64("load_errors", count.kv_tier_load_errors);
    U64("stores", count.kv_tier_stores);
    U64("store_errors", count.kv_tier_store_errors);
    U64("evictions", count.kv_tier_evictions);
    json_diff_close(o, at);
}

static void write_kv(json_diff *o, const machine_stats *now, const machine_stats *was) {
    const size_t at = json_diff_open(o, "kv");
    json_diff_str(o, "type_k", dtype_name(now->kv.type_k), dtype_name(was->kv.type_k));
    json_diff_str(o, "type_v", dtype_name(now->kv.type_v), dtype_name(was->kv.type_v));
    U64("block_tokens", kv.block_tokens);
    U64("blocks", kv.blocks);
    U64("free", kv.free);
    U64("used", kv.used);
    U64("cached", kv.cached);
    U64("bytes_per_token", kv.bytes_per_token);
    const size_t list = json_diff_open_list(o, "groups");
    for (uint32_t k = 0; k < now->kv.n_groups; k++)
        write_group(o, k, &now->kv.group[k], &was->kv.group[k]);
    json_diff_close_list(o, list);
    write_tier(o, now, was);
    json_diff_close(o, at);
}

/* Whose a sequence is, and what became of it so far. A tenant's number is that of a name in the
 * file of keys, and of what a gateway says: the same in every process, and nothing of a key. */
static void write_history(json_diff *o, const seq_view *now, const seq_view *was) {
    char tenant[20];
    U64("prompt_tokens", n_prompt);
    U64("cached_tokens", n_cached);
    if (o->whole) json_diff_milli(o, "age_s", now->age_us / 1000, 0);
    if (now->itl_us)
        json_diff_milli(o, "itl_ms", now->itl_us, was->itl_us);
    else
        json_diff_null(o, "itl_ms", !was->itl_us);
    if (!o->whole) return;
    snprintf(tenant, sizeof tenant, "%016" PRIx64, now->tenant);
    json_diff_str(o, "tenant", now->tenant ? tenant : NULL, NULL);
}

void memory_sequence_write(json_diff *o, const seq_view *now, const seq_view *was) {
    json_diff_u64(o, "id", now->id, UINT64_MAX);
    json_diff_str(o, "state", now->state, was->state);
    U64("tokens", n_tokens);
    U64("blocks", n_blocks);
    U64("bytes", bytes);
    write_history(o, now, was);
}

/* What each of several models holds of the ledger's bytes. */
static void write_models(json_diff *o, const memory_view *v, const memory_view *before) {
    if (!v->n_models) return;
    const size_t list = json_diff_open_list(o, "models");
    for (uint32_t i = 0; i < v->n_models; i++) {
        const memory_model *now = &v->model[i], *was = &before->model[i];
        const size_t at = json_diff_element(o, "id", str_of(now->id));
        json_diff_str(o, "state", now->state, was->state);
        U64("plan_bytes", plan_bytes);
        U64("ledger_bytes", ledger_bytes);
        U64("requests", n_requests);
        U64("held", n_held);
        json_diff_close(o, at);
    }
    json_diff_close_list(o, list);
}

static void write_sequences(json_diff *o, const memory_view *v) {
    const size_t list = json_diff_open_list(o, "sequences");
    for (size_t i = 0; i < v->n_sequences; i++) {
        const size_t at = json_diff_open(o, NULL);
        memory_sequence_write(o, &v->sequence[i], &v->sequence[i]);
        json_diff_close(o, at);
    }
    json_diff_close_list(o, list);
}

static void write_rank_device(json_diff *o, const memory_view *v, uint32_t rank) {
    const ledger_view *l = &v->rank[v->n_ranks + rank];
    char name[24];
    snprintf(name, sizeof name, "cuda:%u", (uint32_t)v->first_device + rank);
    const size_t at = json_diff_open(o, "device");
    json_diff_str(o, "name", name, name);
    write_ledger(o, l, l);
    json_diff_close(o, at);
}

/* Each process that shares the model; the rest is of the first. */
static void write_ranks(json_diff *o, const memory_view *v) {
    if (!v->n_ranks) return;
    const size_t list = json_diff_open_list(o, "ranks");
    for (uint32_t i = 0; i < v->n_ranks; i++) {
        const size_t at = json_diff_open(o, NULL);
        write_ledger(o, &v->rank[i], &v->rank[i]);
        if (v->first_device >= 0) write_rank_device(o, v, i);
        json_diff_close(o, at);
    }
    json_diff_close_list(o, list);
}

void memory_view_write(json_diff *o, const memory_view *now, const memory_view *was) {
    write_ledger(o, &now->host, &was->host);
    write_budget(o, &now->stats.budget, &was->stats.budget);
    write_process(o, &now->sample, &was->sample);
    write_device(o, now, was);
    write_requests(o, now, was);
    write_kv(o, &now->stats, &was->stats);
    if (o->whole) write_sequences(o, now);
    write_models(o, now, was);
    if (o->whole) write_ranks(o, now);
}
