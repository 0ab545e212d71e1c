/* The speed that the bandwidth of the memory allows. Owns nothing; any thread. */
#include "daemon/plan/plan_speed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/gpu_layers.h"
#include "engine/cuda/staging.h"

/* Two channels of DDR4-3200 (51.2 GB/s) at 80 %. */
static const double ASSUMED_CPU = 41e9;
/* PCIe 4.0 with 16 lanes, and of a link's peak what copies of large pinned buffers reach: assumed, until
 * the engine has measured it. */
static const double ASSUMED_LINK = 32e9, LINK_SHARE = 0.8;

bool plan_parse_bandwidth(str word, double *out) {
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"GB/s", 1e9}, {"TB/s", 1e12}, {"MB/s", 1e6}};
    char text[32], *end;
    if (word.len == 0 || word.len >= sizeof text) return false;
    memcpy(text, word.ptr, word.len);
    text[word.len] = '\0';
    if ((text[0] < '0' || text[0] > '9') && text[0] != '.') return false;
    const double v = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0) {
            *out = v * units[i].factor;
            return *out >= 1e6 && *out <= 1e15;
        }
    return false;
}

static void find_link(plan_bandwidth *b, const machine *m, double given) {
    if (!m->on_device) return;
    const bool known = m->card && m->card->link_gb_s;
    b->link_bytes_per_s =
        given > 0 ? given : LINK_SHARE * (known ? m->card->link_gb_s * 1e9 : ASSUMED_LINK);
    snprintf(b->link_source, sizeof b->link_source, "%s",
             given > 0 ? "as given"
             : known   ? "80 % of the card's link"
                       : "80 % of PCIe 4.0 with 16 lanes, assumed");
}

plan_bandwidth plan_bandwidth_of(const machine *m, double given, double link, double host) {
    plan_bandwidth b = {.bytes_per_s = given};
    find_link(&b, m, link);
    if (m->on_device) b.host_bytes_per_s = host > 0 ? host : ASSUMED_CPU;
    snprintf(b.host_source, sizeof b.host_source, "%s",
             host > 0 ? "as given" : "assumed: 2 channels of DDR4; --host-bandwidth states it");
    if (given > 0) {
        snprintf(b.source, sizeof b.source, "as given");
    } else if (m->card && m->card->bandwidth_gb_s) {
        b.bytes_per_s = m->card->bandwidth_gb_s * 1e9;
        snprintf(b.source, sizeof b.source, "the card's datasheet");
    } else if (m->on_device) {
        snprintf(b.source, sizeof b.source, "not known: give --bandwidth");
    } else {
        b.bytes_per_s = ASSUMED_CPU;
        snprintf(b.source, sizeof b.source,
                 "assumed: 2 channels of DDR4; --bandwidth states it");
    }
    return b;
}

/* The share of a weight that a step of n sequences reads: of experts those that its rows are routed to, at most. */
static double share_of(const machine *m, const weight *w, uint32_t n) {
    const program *p = &m->model->program;
    if (!weight_is_routed(w)) return w->role == WEIGHT_EMBED && !p->config.tied_head ? 0 : 1;
    const double share = (double)n * p->config.n_experts_used / w->n_experts;
    return share > 1 ? 1 : share;
}

static bool is_computed(const machine *m, const weight *w) {
    return gpu_layers_computed(m) && staging_wants(&m->model->program, &m->engine_opt, w);
}

/* Of the weights as they are held; experts in slots as they are stored. Rows of the embedding are looked up, unless it is the output
 * matrix too; those of program_table lie in the file. */
static double weights_read(const machine *m, uint32_t n) {
    const program *p = &m->model->program;
    const weight_id in_table = program_table(p);
    double all = 0, read = 0, of_slots = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        const double bytes = (double)weight_bytes(w);
        const bool table = i == in_table;
        if ((table && !m->on_device) || is_computed(m, w)) continue;
        const double share = table ? 0 : share_of(m, w, n);
        if (weight_is_routed(w) && m->engine_opt.expert_slots) {
            of_slots += bytes * share;
            continue;
        }
        all += bytes;
        read += bytes * share;
    }
    const double held = (double)terms_sum(&m->plan.terms, MEM_WEIGHTS) + plan_link_bytes(m);
    return of_slots + (all > 0 ? read * held / all : 0);
}

double plan_link_bytes(const machine *m) {
    const bool copies = m->on_device && !m->engine_opt.host_computes;
    return copies ? (double)terms_sum(&m->host_plan.terms, MEM_WEIGHTS) : 0;
}

double plan_host_bytes(const machine *m) {
    const program *p = &m->model->program;
    double sum = 0;
    for (uint32_t i = 0; i < p->n_weights && m->on_device; i++)
        if (staging_wants(p, &m->engine_opt, &p->weights[i]))
            sum += (double)weight_bytes(&p->weights[i]);
    return sum;
}

double plan_computed_bytes(const machine *m, uint32_t n) {
    const program *p = &m->model->program;
    double sum = 0;
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (is_computed(m, &p->weights[i]))
            sum += (double)weight_bytes(&p->weights[i]) * share_of(m, &p->weights[i], n);
    return sum;
}

double plan_step_bytes(const machine *m, uint32_t n, double tokens) {
    const plan *p = &m->plan;
    double kv = 0;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        const uint32_t window = m->sched_conf.group[g].window;
        const double seen = window && tokens > window ? window : tokens;
        kv += seen * (double)p->group_block_bytes[g] / p->block_tokens;
    }
    return weights_read(m, n) + n * (kv + (double)program_state_bytes(&m->model->program));
}

double plan_step_cost(const machine *m, const plan_bandwidth *b, uint32_t n, double tokens) {
    double read = plan_step_bytes(m, n, tokens);
    const double copied = plan_link_bytes(m);
    if (b->host_bytes_per_s > 0)
        read += plan_computed_bytes(m, n) / b->host_bytes_per_s * b->bytes_per_s;
    if (copied <= 0 || b->link_bytes_per_s <= 0 || b->bytes_per_s <= 0) return read;
    const double waits = copied / b->link_bytes_per_s * b->bytes_per_s;
    return waits > read ? waits : read;
}

double plan_tokens_per_s(const machine *m, const plan_bandwidth *b, uint32_t n, double tokens) {
    return b->bytes_per_s / plan_step_cost(m, b, n, tokens);
}
