/* Forks: members of one prompt. A member without a computed leader is dormant: it counts as
 * waiting, but is in no queue, so it delays nobody. Once the leader's prompt is computed, its
 * members join the queue at their places and are admitted like everybody else; what they then
 * share of the leader is found at that moment, so a leader that has ended or lost its blocks
 * costs them the sharing, not the answer. */
#include "scheduler/state.h"

bool fork_wait(sched *s, uint32_t record) {
    seq_record *r = &s->record[record];
    const seq_record *leader = record_find(s, r->spec.fork_of);
    if (!leader || r->spec.score_prompt) return false;
    r->leader = record_of(r->spec.fork_of);
    CHECK(leader->spec.n_prompt == r->spec.n_prompt && leader->spec.salt == r->spec.salt);
    if (leader->n_reported == leader->spec.n_prompt) return false;
    if (leader->slot != NO_SLOT && s->hot[leader->slot].state >= SEQ_PAUSED) return false;
    /* In order of arrival. */
    uint32_t *at = &s->record[r->leader].fork_head;
    while (*at != NO_SLOT) at = &s->record[*at].fork_next;
    *at = record;
    s->n_dormant++;
    return true;
}

void fork_wake(sched *s, uint32_t leader) {
    seq_record *l = &s->record[leader];
    while (l->fork_head != NO_SLOT) {
        uint32_t i = l->fork_head;
        l->fork_head = s->record[i].fork_next;
        s->record[i].fork_next = NO_SLOT;
        s->n_dormant--;
        waiting_add(s, i);
    }
}

void fork_cancel(sched *s, uint32_t record) {
    uint32_t *at = &s->record[s->record[record].leader].fork_head;
    while (*at != record) {
        CHECK(*at != NO_SLOT);
        at = &s->record[*at].fork_next;
    }
    *at = s->record[record].fork_next;
    s->n_dormant--;
}

uint32_t fork_leader(const sched *s, uint32_t record) {
    const seq_record *r = &s->record[record];
    const seq_record *l = record_find(s, r->spec.fork_of);
    if (r->spec.score_prompt || !l || l->slot == NO_SLOT) return NO_SLOT;
    const seq_hot *h = &s->hot[l->slot];
    if (h->n_blocks == 0 || l->n_computed < h->n_prompt) return NO_SLOT;
    /* A leader that is paused may lose its blocks to the member itself. */
    if (h->state == SEQ_PAUSED) return NO_SLOT;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        const seq_group *g = &s->group[k];
        if (g->window && g->held[l->slot].first > first_seen(s, g, h->n_prompt - 1))
            return NO_SLOT; /* it has released some already */
    }
    if (has_states(s) && !state_reaches(s, l->slot, h->n_prompt - 1)) return NO_SLOT;
    return l->slot;
}
