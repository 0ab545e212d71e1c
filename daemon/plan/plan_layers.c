/* See plan_layers.h. */
#include "daemon/plan/plan_layers.h"

#include <stdio.h>

#include "daemon/gpu_layers.h"
#include "engine/cuda/staging.h"
#include "json/out.h"

/* Of one sequence with a cache that is half full; 0: not known. */
static double speed(const machine *m, const plan_bandwidth *b, bool resident) {
    const double tokens = m->opt.max_model_len / 2.0;
    if (resident) /* the bytes that the CPU reads would be the device's */
        return b->bytes_per_s / (plan_step_bytes(m, 1, tokens) + plan_computed_bytes(m, 1));
    const double cost = plan_step_cost(m, b, 1, tokens);
    if (b->bytes_per_s > 0) return b->bytes_per_s / cost;
    if (gpu_layers_computed(m)) return b->host_bytes_per_s / plan_computed_bytes(m, 1);
    return b->link_bytes_per_s / plan_link_bytes(m);
}

static uint32_t staged(const machine *m) {
    return m->on_device ? staging_count(&m->model->program, &m->engine_opt) : 0;
}

void plan_layers_print(const machine *m, const plan_bandwidth *b) {
    const uint32_t n = staged(m), all = m->model->program.config.n_layers;
    const engine_options *o = &m->engine_opt;
    char a[32];
    const bool computed = gpu_layers_computed(m);
    if (!n && !computed) return;
    printf("\n%u of %u layers on the device", all - o->host_layers, all);
    if (o->host_experts) printf(", of the first %u not the experts", o->host_experts);
    printf("%s: ", m->layers_auto ? " (gpu_layers = auto)" : "");
    if (computed)
        printf("the CPU computes the others' matrices, %s for a token, in the host's memory\n",
               bytes_human((uint64_t)plan_computed_bytes(m, 1), a));
    else
        printf("each step copies %s from the host's memory to %d slots\n",
               bytes_human((uint64_t)plan_link_bytes(m), a), CUDA_STAGES);
    printf("predicted, at most: %.1f tokens/s of one sequence at %.0f GB/s (%s)",
           speed(m, b, false), (computed ? b->host_bytes_per_s : b->link_bytes_per_s) / 1e9,
           computed ? b->host_source : b->link_source);
    if (b->bytes_per_s > 0) printf("; %.1f with all layers on the device", speed(m, b, true));
    puts("");
}

void plan_layers_json(buf *b, const machine *m, const plan_bandwidth *bw) {
    const uint32_t n = staged(m), all = m->model->program.config.n_layers;
    const bool computed = gpu_layers_computed(m);
    if (!n && !computed) return;
    buf_addf(
        b,
        ",\"offload\":{\"gpu_layers\":%u,\"n_layers\":%u,\"n_cpu_moe\":%u,\"automatic\":%s,"
        "\"mode\":\"%s\",\"copies\":%u,\"slots\":%d,\"step_bytes\":",
        all - m->engine_opt.host_layers, all, m->engine_opt.host_experts,
        m->layers_auto ? "true" : "false", computed ? "compute" : "copy", n,
        n ? CUDA_STAGES : 0);
    json_u64(b, (uint64_t)plan_link_bytes(m));
    buf_addf(b, ",\"computed_bytes\":");
    json_u64(b, (uint64_t)plan_computed_bytes(m, 1));
    buf_addf(b,
             ",\"estimate\":{\"link_bytes_per_s\":%.0f,\"link_source\":\"%s\","
             "\"host_bytes_per_s\":%.0f,\"host_source\":\"%s\",\"tokens_per_s_of_one\":%.2f}}",
             bw->link_bytes_per_s, bw->link_source, bw->host_bytes_per_s, bw->host_source,
             speed(m, bw, false));
}
