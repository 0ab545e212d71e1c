/* The table of resident experts. Pure; the caller's one thread. */
#include "engine/expert_slots.h"

#include <math.h>
#include <string.h>

#include "base/check.h"

static size_t experts_of(uint32_t n_layers, uint32_t n_experts) {
    return (size_t)n_layers * n_experts;
}

size_t expert_slots_bytes(uint32_t n_layers, uint32_t n_experts, uint32_t n_slots) {
    const size_t n = experts_of(n_layers, n_experts);
    return n * (sizeof(double) + sizeof(uint64_t) + sizeof(uint32_t)) +
           n_layers * sizeof(uint64_t) + n_slots * 2 * sizeof(uint32_t);
}

void expert_slots_init(expert_slots *s, void *mem, uint32_t n_layers, uint32_t n_experts,
                       uint32_t n_slots) {
    const size_t n = experts_of(n_layers, n_experts);
    *s = (expert_slots){
        .n_layers = n_layers, .n_experts = n_experts, .n_slots = n_slots, .worth = mem};
    s->last = (uint64_t *)(void *)(s->worth + n);
    s->turns = s->last + n;
    s->where = (uint32_t *)(void *)(s->turns + n_layers);
    s->holds = s->where + n;
    s->pins = s->holds + n_slots;
    for (size_t i = 0; i < n; i++) s->worth[i] = -INFINITY;
    memset(s->last, 0, n * sizeof *s->last);
    memset(s->turns, 0, n_layers * sizeof *s->turns);
    memset(s->where, 0xff, n * sizeof *s->where); /* EXPERT_NONE */
    memset(s->holds, 0xff, n_slots * sizeof *s->holds);
    memset(s->pins, 0, n_slots * sizeof *s->pins);
}

void expert_slots_turn(expert_slots *s, uint32_t layer, const uint32_t *experts, uint32_t n) {
    const double now = (double)++s->turns[layer] / EXPERT_HALF_LIFE;
    for (uint32_t i = 0; i < n; i++) {
        const size_t id = experts_of(layer, s->n_experts) + experts[i];
        s->worth[id] = now + log2(1 + exp2(s->worth[id] - now));
        s->last[id] = s->turns[layer];
    }
}

static double worth_now(const expert_slots *s, uint32_t id) {
    const uint64_t turn = s->turns[id / s->n_experts];
    return exp2(s->worth[id] - (double)turn / EXPERT_HALF_LIFE) +
           EXPERT_AGAIN * exp2(-(double)(turn - s->last[id]));
}

uint32_t expert_victim(const expert_slots *s) {
    uint32_t best = EXPERT_NONE;
    double least = INFINITY;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (s->pins[i]) continue;
        if (s->holds[i] == EXPERT_NONE) return i;
        const double worth = worth_now(s, s->holds[i]);
        if (worth < least) best = i, least = worth;
    }
    return best;
}

uint32_t expert_slots_take(expert_slots *s, uint32_t layer, uint32_t expert) {
    const size_t id = experts_of(layer, s->n_experts) + expert;
    const uint32_t slot = expert_victim(s);
    CHECK(layer < s->n_layers && expert < s->n_experts && s->where[id] == EXPERT_NONE);
    if (slot == EXPERT_NONE) return slot;
    if (s->holds[slot] != EXPERT_NONE) s->where[s->holds[slot]] = EXPERT_NONE;
    s->holds[slot] = (uint32_t)id;
    s->where[id] = slot;
    return slot;
}

void expert_slots_forget(expert_slots *s, uint32_t slot) {
    if (s->holds[slot] != EXPERT_NONE) s->where[s->holds[slot]] = EXPERT_NONE;
    s->holds[slot] = EXPERT_NONE;
}
