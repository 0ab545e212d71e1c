/* See staging.h. */
#include "engine/cuda/staging.h"

#include <stdlib.h>

/* So that n of n_layers are spread evenly, or the first where nothing is copied. */
static bool is_host_layer(const engine_options *o, uint32_t n_layers, uint32_t layer) {
    const uint32_t n = o->host_layers < n_layers ? o->host_layers : n_layers;
    if (o->host_computes) return layer < n;
    return (uint64_t)(layer + 1) * n / n_layers > (uint64_t)layer * n / n_layers;
}

bool staging_wants(const program *p, const engine_options *o, const weight *w) {
    const uint32_t n_layers = p->config.n_layers;
    if (w->role != WEIGHT_LINEAR || w->layer < 0 || (uint32_t)w->layer >= n_layers)
        return false;
    const uint32_t layer = (uint32_t)w->layer;
    return is_host_layer(o, n_layers, layer) ||
           (layer < o->host_experts && weight_is_routed(w));
}

uint32_t staging_count(const program *p, const engine_options *o) {
    const uint32_t n_layers = p->config.n_layers;
    uint32_t n = 0;
    if ((!o->host_layers && !o->host_experts) || o->host_computes) return 0;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        uint32_t i = 0;
        while (i < p->n_weights &&
               ((uint32_t)p->weights[i].layer != layer || !staging_wants(p, o, &p->weights[i])))
            i++;
        n += i < p->n_weights;
    }
    return n > CUDA_STAGES ? n : 0;
}

/* The operation at index `at` reads a staged place: of its layer's copy. */
static void note_reader(cuda_layout *l, const program *p, uint32_t at, cuda_place *x) {
    const int32_t layer = p->weights[x->first].layer;
    uint32_t i = l->n_staged;
    while (i > 0 && l->staged[i - 1].layer != layer) i--;
    if (i == 0) {
        i = ++l->n_staged;
        l->staged[i - 1] = (cuda_staged){.layer = layer, .first_op = at};
    }
    l->staged[i - 1].last_op = at;
    x->staged = i - 1;
}

static status refuse(const cuda_staged *s, err *e) {
    err_set(e, ERR_UNSUPPORTED,
            "the matrices of layer %d cannot come from the host's memory: other layers read "
            "them, too",
            s->layer);
    err_hint(e, "set gpu_layers = all, and n_cpu_moe = 0");
    return err_field(e, "gpu_layers");
}

status staging_choose(cuda_layout *l, const program *p, const engine_options *o, err *e) {
    if (!staging_count(p, o)) return OK;
    l->staged = calloc(p->config.n_layers, sizeof *l->staged);
    if (!l->staged) return err_set(e, ERR_NO_MEMORY, "no memory for the layout");
    for (uint32_t i = 0; i < p->n_ops; i++)
        for (uint32_t k = 0; k < p->ops[i].n_weights; k++) {
            const weight_id w = p->ops[i].w[k];
            if (w != NO_WEIGHT && staging_wants(p, o, &p->weights[w]))
                note_reader(l, p, i, &l->places[l->weights[w].place]);
        }
    for (uint32_t i = 1; i < l->n_staged; i++)
        if (l->staged[i].first_op <= l->staged[i - 1].last_op)
            return refuse(&l->staged[i - 1], e);
    return OK;
}

void staging_place(cuda_layout *l, sizer *s) {
    uint64_t most = 0;
    for (uint32_t i = 0; i < l->n_places; i++) {
        cuda_place *x = &l->places[i];
        if (x->staged >= l->n_staged) continue;
        x->at = l->staged[x->staged].bytes; /* within the slot, for now */
        l->staged[x->staged].bytes += x->bytes;
    }
    for (uint32_t i = 0; i < l->n_staged; i++) {
        cuda_staged *x = &l->staged[i];
        if (x->bytes > most) most = x->bytes;
        x->host_at = l->staged_bytes;
        l->staged_bytes += x->bytes;
    }
    const uint64_t at = s->n;
    if (l->n_staged) sizer_place(s, sizer_times(s, most, CUDA_STAGES), 1);
    l->staged_slots_bytes = s->n - at;
    for (uint32_t i = 0; i < l->n_staged; i++) l->staged[i].at = at + i % CUDA_STAGES * most;
    for (uint32_t i = 0; i < l->n_places; i++)
        if (l->places[i].staged < l->n_staged)
            l->places[i].at += l->staged[l->places[i].staged].at;
    l->host_bytes = l->staged_bytes;
    if (l->n_staged && l->host_bytes < CUDA_PINNED_LEAST) l->host_bytes = CUDA_PINNED_LEAST;
}

void staging_terms(const cuda_layout *l, const program *p, terms *t) {
    if (!l->n_staged) return;
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->staged_slots_bytes,
              "%d slots for %u layers of the host", CUDA_STAGES, l->n_staged);
    terms_last_on_device(t);
    const size_t first = t->n;
    for (uint32_t i = 0; i < l->n_places; i++) {
        const cuda_place *x = &l->places[i];
        if (x->staged >= l->n_staged) continue;
        weight_term_add(t, first, &p->weights[x->first], dtype_name(x->type), x->bytes);
    }
    if (l->host_bytes > l->staged_bytes)
        terms_add(t, MEM_WEIGHTS, TERM_EXACT, l->host_bytes - l->staged_bytes,
                  "pages of pinned weights");
}
