/* See plan_offload.h. */
#include "daemon/plan/plan_offload.h"

#include "base/log.h"
#include "daemon/plan/host_rate.h"
#include "daemon/plan/plan_speed.h"

bool offload_computes(double copied, double link, double computed, double host) {
    return link > 0 && host > 0 && computed / host < copied / link;
}

/* Of a step where so many layers are on the host, one way and the other. */
static void bytes_of(machine *m, double *copied, double *computed) {
    const engine_options was = m->engine_opt;
    if (m->layers_auto) m->engine_opt.host_layers = m->model->program.config.n_layers;
    m->engine_opt.host_computes = true;
    *copied = plan_host_bytes(m);
    *computed = plan_computed_bytes(m, 1);
    m->engine_opt = was;
}

void plan_offload(machine *m, const machine_wish *w) {
    double copied, computed;
    if (m->opt.offload != OFFLOAD_AUTO || !m->on_device) return;
    bytes_of(m, &copied, &computed);
    if (copied <= 0) return;
    double host = w->host_bandwidth;
    const bool measured = host <= 0 && !w->card;
    if (measured) host = host_rate_measure(m->engine_opt.n_threads, m->host_budget.bytes);
    const plan_bandwidth b = plan_bandwidth_of(m, 0, w->link, host);
    m->engine_opt.host_computes =
        offload_computes(copied, b.link_bytes_per_s, computed, b.host_bytes_per_s);
    m->opt.offload = m->engine_opt.host_computes ? OFFLOAD_COMPUTE : OFFLOAD_COPY;
    log_info("offload = auto: weights in the host's memory are %s, where copies have %.0f GB/s "
             "(%s) and the CPU reads %.0f GB/s (%s)",
             m->engine_opt.host_computes ? "computed with there" : "copied",
             b.link_bytes_per_s / 1e9, b.link_source, b.host_bytes_per_s / 1e9,
             measured && host > 0 ? "measured" : b.host_source);
}

void plan_offload_keep(const machine *of, options *o) {
    if (o->offload == OFFLOAD_AUTO) o->offload = of->opt.offload;
}
