/* The choice of the engine. Main thread, before anything is loaded. */
#include "daemon/engine_choice.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "engine/cuda/backend_cuda.h"

static status choose_cpu(machine *m, err *e) {
    const memory_room host = memory_room_host();
    m->backend = &backend_cpu;
    m->on_device = false;
    snprintf(m->device, sizeof m->device, "cpu");
    if (strcmp(m->opt.host_memory, "auto") == 0)
        return budget_parse(&m->budget, "memory", m->opt.memory, &host, e);
    err_set(e, ERR_INVALID, "host_memory = %.60s, but the engine is the CPU's",
            m->opt.host_memory);
    err_field(e, "host_memory");
    return err_hint(e, "memory is the budget for everything there");
}

static status choose_device(machine *m, const memory_room *room, uint32_t n_sms, err *e) {
    const memory_room host = memory_room_host();
    m->backend = &backend_cuda;
    m->on_device = true;
    m->engine_opt.n_sms = n_sms;
    status s = budget_parse(&m->budget, "memory", m->opt.memory, room, e);
    return s == OK ? budget_parse(&m->host_budget, "host_memory", m->opt.host_memory, &host, e)
                   : s;
}

static status choose_card(machine *m, const cuda_card *c, err *e) {
    memory_room room = {.total = cuda_card_bytes(c), .available = cuda_card_bytes(c)};
    snprintf(room.name, sizeof room.name, "%s", c->product);
    snprintf(room.available_name, sizeof room.available_name, "%s", c->product);
    snprintf(m->device, sizeof m->device, "%s", c->name);
    m->opt.backend = BACKEND_CUDA; /* the operator's choice, as if it were named */
    return choose_device(m, &room, c->n_sms, e);
}

static status choose_found(machine *m, const cuda_device *d, err *e) {
    memory_room room = {.total = d->total_bytes, .available = d->free_bytes};
    snprintf(room.name, sizeof room.name, "%.63s", d->name);
    snprintf(room.available_name, sizeof room.available_name, "the device's free memory");
    snprintf(m->device, sizeof m->device, "cuda:%u", m->engine_opt.device);
    return choose_device(m, &room, d->n_sms, e);
}

status engine_choose(machine *m, const cuda_card *card, err *e) {
    cuda_device d;
    if (card) return choose_card(m, card, e);
    if (m->opt.backend == BACKEND_CPU) return choose_cpu(m, e);
    m->engine_opt.device = m->opt.cuda_device;
    status s = cuda_backend_available(&m->engine_opt, &d, e);
    if (s == OK) return choose_found(m, &d, e);
    if (m->opt.backend == BACKEND_CUDA) return s;
    /* No plugin is the ordinary CPU machine; one that cannot work is worth a line. */
    if (s != ERR_NOT_FOUND) log_info("backend = auto: the CPU's, since %s", e->text);
    return choose_cpu(m, e);
}

bool engine_fall_back(machine *m, const err *why) {
    err e;
    if (!m->on_device || m->opt.backend != BACKEND_AUTO) return false;
    log_info("backend = auto: the CPU's, since %s", why->text);
    return choose_cpu(m, &e) == OK;
}
