/* The routers of fleet.h. */
#include "sim/router.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

const char *const fleet_router_name[N_ROUTERS + 1] = {"round-robin", "least-loaded",
                                                      "two-choices", "prefix-affinity", NULL};

bool router_open(router *r, const fleet_config *c, const fleet_arrival *a, uint32_t n) {
    *r = (router){.cfg = c, .n_ids = 2};
    if (c->staleness_us && !(r->seen = calloc(c->n_replicas, sizeof *r->seen))) return false;
    if (c->router != ROUTER_PREFIX_AFFINITY) return true;
    uint64_t n_ids = 0;
    for (uint32_t i = 0; i < n; i++) n_ids += a[i].n_ids;
    while (r->n_ids < 2 * n_ids) r->n_ids *= 2;
    r->id = calloc(r->n_ids, sizeof *r->id);
    r->had_by = calloc(r->n_ids, sizeof *r->had_by);
    return r->id && r->had_by;
}

void router_close(router *r) {
    free(r->seen);
    free(r->id);
    free(r->had_by);
}

/* The place of an id, its own or an empty one. */
static size_t place_of(const router *r, uint64_t id) {
    const uint64_t key = hash_mix(id + 1) | 1;
    size_t at = key >> 20 & (r->n_ids - 1);
    while (r->id[at] != 0 && r->id[at] != key) at = (at + 1) & (r->n_ids - 1);
    return at;
}

static void remember(router *r, const fleet_arrival *a, uint32_t replica) {
    for (uint32_t k = 0; k < a->n_ids; k++) {
        const size_t at = place_of(r, a->ids[k]);
        r->id[at] = hash_mix(a->ids[k] + 1) | 1;
        r->had_by[at] = replica;
    }
}

static uint32_t draw(router *r) {
    return (uint32_t)(hash_mix(r->cfg->seed ^ ++r->draws * 0x9e3779b97f4a7c15U) %
                      r->cfg->n_replicas);
}

static uint32_t two_choices(router *r, const uint32_t *load) {
    const uint32_t a = draw(r), b = draw(r);
    return load[b] < load[a] ? b : a;
}

/* Of equal ones the first behind the last choice, so that they take turns. */
static uint32_t least_loaded(router *r, const uint32_t *load) {
    const uint32_t n = r->cfg->n_replicas;
    uint32_t best = r->next % n;
    for (uint32_t k = 1; k < n && load[best] > 0; k++) {
        const uint32_t i = (r->next + k) % n;
        if (load[i] < load[best]) best = i;
    }
    r->next = best + 1;
    return best;
}

static uint32_t by_prefix(router *r, const fleet_arrival *a, const uint32_t *load) {
    uint32_t to = r->cfg->n_replicas;
    uint64_t all = 0;
    for (uint32_t k = a->n_ids; k > 0 && to == r->cfg->n_replicas; k--) {
        const size_t at = place_of(r, a->ids[k - 1]);
        if (r->id[at]) to = r->had_by[at];
    }
    for (uint32_t i = 0; i < r->cfg->n_replicas; i++) all += load[i];
    const double most = 1.25 * (double)all / r->cfg->n_replicas + 1;
    if (to == r->cfg->n_replicas || load[to] > most) to = two_choices(r, load);
    remember(r, a, to);
    return to;
}

uint32_t router_choose(router *r, const fleet_arrival *a, uint64_t now_us,
                       const uint32_t *load) {
    const uint32_t n = r->cfg->n_replicas;
    if (r->seen && now_us >= r->known_until_us) {
        memcpy(r->seen, load, n * sizeof *load);
        r->known_until_us = now_us + r->cfg->staleness_us;
    }
    if (r->seen) load = r->seen;
    switch (r->cfg->router) {
    case ROUTER_LEAST_LOADED: return least_loaded(r, load);
    case ROUTER_TWO_CHOICES: return two_choices(r, load);
    case ROUTER_PREFIX_AFFINITY: return by_prefix(r, a, load);
    default: return r->next++ % n;
    }
}
