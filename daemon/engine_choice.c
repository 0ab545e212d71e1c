/* The choice of the engine. Main thread, before anything is loaded. */
#include "daemon/engine_choice.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/plan/rank_plan.h"
#include "daemon/ranks/launch.h"
#include "engine/cuda/backend_cuda.h"

/* The budget of an option, within this memory or, where the plan is for another machine, within
 * what the option says. */
static status parse(budget *out, const char *option, const char *word, memory_capacity capacity,
                    const machine_wish *w, err *e) {
    uint64_t bytes;
    if (w->uncut) {
        *out = budget_unlimited();
        return OK;
    }
    if (w->elsewhere && str_parse_bytes(str_of(word), &bytes) && bytes > capacity.total) {
        capacity.total = bytes;
        snprintf(capacity.name, sizeof capacity.name, "the machine planned for");
    }
    return budget_parse(out, option, word, &capacity, e);
}

/* Ranks of a launcher have each a budget of its own: shares of the machine's memory are divided among those that
 * it has. */
static memory_capacity capacity_of_rank(const machine *m) {
    memory_capacity capacity = memory_capacity_host();
    const uint32_t n = m->launch && m->launch->link ? m->launch->wire.n_here : 1;
    capacity.total /= n;
    capacity.available /= n;
    return capacity;
}

static status choose_cpu(machine *m, const machine_wish *w, err *e) {
    m->backend = rank_plan_count(&m->opt) > 1 ? &backend_cpu_ranks : &backend_cpu;
    m->on_device = false;
    m->card = NULL;
    snprintf(m->device, sizeof m->device, "cpu");
    if (strcmp(m->opt.host_memory, "auto") == 0) {
        const memory_capacity capacity = capacity_of_rank(m);
        status s = parse(&m->budget, "memory", m->opt.memory, capacity, w, e);
        if (s != OK || !m->opt.memory_max[0] || w->uncut) return s;
        return parse(&m->max_budget, "memory_max", m->opt.memory_max, capacity, w, e);
    }
    err_set(e, ERR_INVALID, "host_memory = %.60s, but the engine is the CPU's",
            m->opt.host_memory);
    err_field(e, "host_memory");
    return err_hint(e, "memory is the budget for everything there");
}

/* What the kernel reports is of the host's memory. */
static status check_pressure(const options *o, err *e) {
    if (!o->memory_pressure) return OK;
    err_set(e, ERR_UNSUPPORTED,
            "memory_pressure is given, but the KV cache is in the device's memory");
    err_field(e, "memory_pressure");
    return err_hint(e, "leave it out, or use backend = cpu");
}

static status choose_device(machine *m, const memory_capacity *capacity, const machine_wish *w,
                            err *e) {
    memory_capacity host = memory_capacity_host();
    m->backend = rank_plan_count(&m->opt) > 1 ? &backend_cuda_ranks : &backend_cuda;
    m->on_device = true;
    m->device_capacity = *capacity;
    status s = check_pressure(&m->opt, e);
    if (s != OK) return s;
    if (w->card) { /* it is not in this machine */
        host.available = host.total = budget_unlimited().bytes;
        snprintf(host.available_name, sizeof host.available_name, "the host of that card");
    }
    s = parse(&m->budget, "memory", m->opt.memory, *capacity, w, e);
    if (s == OK && m->opt.memory_max[0] && !w->uncut)
        s = parse(&m->max_budget, "memory_max", m->opt.memory_max, *capacity, w, e);
    return s == OK ? parse(&m->host_budget, "host_memory", m->opt.host_memory, host, w, e) : s;
}

static status choose_card(machine *m, const machine_wish *w, err *e) {
    const cuda_card *c = w->card;
    memory_capacity capacity = {.total = cuda_card_bytes(c), .available = cuda_card_bytes(c)};
    machine_wish only = *w;
    only.elsewhere = false; /* a card's memory is known */
    snprintf(capacity.name, sizeof capacity.name, "%s", c->product);
    snprintf(capacity.available_name, sizeof capacity.available_name, "%s", c->product);
    snprintf(m->device, sizeof m->device, "%s", c->name);
    m->card = c;
    m->opt.backend = BACKEND_CUDA; /* the operator's choice, as if it were named */
    m->engine_opt.n_sms = c->n_sms;
    if (c->major && c->major < CUDA_CARD_MIN_MAJOR)
        snprintf(m->not_served, sizeof m->not_served,
                 "the CUDA engine needs compute capability %d.0, and %s has %u.%u",
                 CUDA_CARD_MIN_MAJOR, c->product, c->major, c->minor);
    return choose_device(m, &capacity, &only, e);
}

static status choose_found(machine *m, const cuda_device *d, const machine_wish *w, err *e) {
    memory_capacity capacity = {.total = d->total_bytes, .available = d->free_bytes};
    snprintf(capacity.name, sizeof capacity.name, "%.63s", d->name);
    snprintf(capacity.available_name, sizeof capacity.available_name,
             "the device's free memory");
    snprintf(m->device, sizeof m->device, "cuda:%u", m->engine_opt.device);
    m->engine_opt.n_sms = d->n_sms;
    m->card = cuda_card_of_product(d->name);
    return choose_device(m, &capacity, w, e);
}

static status too_few(const options *o, uint32_t n_devices, err *e) {
    const bool tensor = o->tensor_parallel_size > 1;
    const uint32_t from = o->cuda_device, n = rank_plan_count(o);
    err_set(e, ERR_DEVICE,
            "%u ranks take the devices %u to %u, one each, but the driver shows %u devices", n,
            from, from + n - 1, n_devices);
    err_hint(e,
             "see nvidia-smi and CUDA_VISIBLE_DEVICES; have at most %u, or use backend = cpu",
             n_devices - from);
    return err_field(e, tensor ? "tensor_parallel_size" : "pipeline_parallel_size");
}

/* Those of all ranks, from cuda_device on, as one: the least memory and the most multiprocessors. */
static status find_devices(machine *m, cuda_device *out, err *e) {
    const uint32_t n = rank_plan_count(&m->opt), from = m->opt.cuda_device;
    engine_options o = m->engine_opt;
    cuda_device d;
    status s = cuda_backend_available(&m->engine_opt, out, e);
    if (s == OK && out->n_devices - from < n) return too_few(&m->opt, out->n_devices, e);
    for (o.device = from + 1; o.device < from + n && s == OK; o.device++) {
        s = cuda_backend_available(&o, &d, e);
        if (s != OK) break;
        if (d.total_bytes < out->total_bytes) out->total_bytes = d.total_bytes;
        if (d.free_bytes < out->free_bytes) out->free_bytes = d.free_bytes;
        if (d.n_sms > out->n_sms) out->n_sms = d.n_sms;
    }
    return s;
}

static status no_messages(err *e) {
    err_set(e, ERR_UNSUPPORTED, "ranks by MPI compute on the CPU");
    err_hint(e, "use backend = cpu, or distributed_executor_backend = mp on one machine");
    return err_field(e, "distributed_executor_backend");
}

status engine_choose(machine *m, const machine_wish *w, err *e) {
    cuda_device d;
    if (w->card) return choose_card(m, w, e);
    if (m->opt.backend == BACKEND_CPU) return choose_cpu(m, w, e);
    if (m->engine_opt.by_messages)
        return m->opt.backend == BACKEND_AUTO ? choose_cpu(m, w, e) : no_messages(e);
    m->engine_opt.device = m->opt.cuda_device;
    status s = find_devices(m, &d, e);
    if (s == OK) return choose_found(m, &d, w, e);
    if (m->opt.backend == BACKEND_CUDA) return s;
    /* No plugin is the ordinary CPU machine; one that cannot work is worth a line. */
    if (s != ERR_NOT_FOUND) log_info("backend = auto: the CPU's, since %s", e->text);
    return choose_cpu(m, w, e);
}

bool engine_fall_back(machine *m, const machine_wish *w, const err *why) {
    err e;
    if (!m->on_device || m->opt.backend != BACKEND_AUTO) return false;
    log_info("backend = auto: the CPU's, since %s", why->text);
    return choose_cpu(m, w, &e) == OK;
}
