/* Lists and buckets behind tier.h. */
#include "scheduler/tier.h"

#include "base/check.h"

static uint32_t *bucket_of(const tier *t, const prefix_hash *h) {
    return &t->bucket[h->h[1] & (t->n_buckets - 1)];
}

static uint32_t find_any(const tier *t, const prefix_hash *h) {
    uint32_t i = *bucket_of(t, h);
    while (i > 0 &&
           (t->chunk[i - 1].hash.h[0] != h->h[0] || t->chunk[i - 1].hash.h[1] != h->h[1]))
        i = t->chunk[i - 1].next;
    return i > 0 ? i - 1 : NO_CHUNK;
}

static void list_remove(tier *t, uint32_t i) {
    const tier_chunk *c = &t->chunk[i];
    *(c->newer == NO_CHUNK ? &t->newest : &t->chunk[c->newer].older) = c->older;
    *(c->older == NO_CHUNK ? &t->oldest : &t->chunk[c->older].newer) = c->newer;
}

static void list_front(tier *t, uint32_t i) {
    tier_chunk *c = &t->chunk[i];
    c->newer = NO_CHUNK;
    c->older = t->newest;
    *(t->newest == NO_CHUNK ? &t->oldest : &t->chunk[t->newest].newer) = i;
    t->newest = i;
}

void tier_init(tier *t) {
    t->n = t->n_gaps = 0;
    t->bytes = 0;
    t->newest = t->oldest = NO_CHUNK;
    for (uint32_t i = 0; i < t->n_buckets; i++) t->bucket[i] = 0;
    for (uint32_t i = 0; i < t->n_chunks; i++)
        t->chunk[i] = (tier_chunk){.next = i + 1 < t->n_chunks ? i + 1 : NO_CHUNK};
    t->free = t->n_chunks > 0 ? 0 : NO_CHUNK;
}

uint32_t tier_find(const tier *t, const prefix_hash *h) {
    const uint32_t i = t->n_buckets > 0 ? find_any(t, h) : NO_CHUNK;
    return i != NO_CHUNK && t->chunk[i].bytes > 0 ? i : NO_CHUNK;
}

void tier_use(tier *t, uint32_t i) {
    for (; i != NO_CHUNK; i = t->chunk[i].parent) {
        list_remove(t, i);
        list_front(t, i);
    }
}

/* It has neither content nor children: the entry is free, and so may its parent be. */
static void forget(tier *t, uint32_t i) {
    while (i != NO_CHUNK && t->chunk[i].bytes == 0 && t->chunk[i].n_children == 0) {
        tier_chunk *c = &t->chunk[i];
        const uint32_t parent = c->parent;
        uint32_t *at = bucket_of(t, &c->hash);
        while (*at != i + 1) {
            CHECK(*at > 0);
            at = &t->chunk[*at - 1].next;
        }
        *at = c->next;
        list_remove(t, i);
        c->next = t->free;
        t->free = i;
        t->n--;
        t->n_gaps--;
        if (parent != NO_CHUNK) t->chunk[parent].n_children--;
        i = parent;
    }
}

bool tier_add(tier *t, const prefix_hash *h, const prefix_hash *parent, uint64_t salt,
              uint32_t groups, uint64_t bytes) {
    CHECK(bytes > 0);
    uint32_t i = t->n_buckets > 0 ? find_any(t, h) : NO_CHUNK;
    const uint32_t behind = parent ? tier_find(t, parent) : NO_CHUNK;
    if (parent && behind == NO_CHUNK) return false;
    if (i == NO_CHUNK) {
        i = t->free;
        if (i == NO_CHUNK) return false;
        uint32_t *bucket = bucket_of(t, h);
        t->free = t->chunk[i].next;
        t->chunk[i] = (tier_chunk){.hash = *h, .salt = salt, .parent = behind, .next = *bucket};
        *bucket = i + 1;
        t->n++;
        list_front(t, i);
        if (behind != NO_CHUNK) t->chunk[behind].n_children++;
    } else if (t->chunk[i].bytes == 0) {
        t->n_gaps--;
    }
    t->bytes += bytes - t->chunk[i].bytes;
    t->chunk[i].bytes = bytes;
    t->chunk[i].groups = groups;
    tier_use(t, i);
    return true;
}

void tier_lose(tier *t, uint32_t i) {
    tier_chunk *c = &t->chunk[i];
    CHECK(c->bytes > 0);
    t->bytes -= c->bytes;
    c->bytes = 0;
    c->groups = 0;
    t->n_gaps++;
    forget(t, i);
}

/* Behind gaps nothing can be found: what hangs on them is as good as lost, but it goes by its own
 * age, like every other. */
uint32_t tier_coldest(const tier *t, uint32_t keep) {
    uint32_t i = t->oldest;
    while (i != NO_CHUNK && (i == keep || t->chunk[i].bytes == 0 || t->chunk[i].n_children > 0))
        i = t->chunk[i].newer;
    return i;
}

void tier_audit(const tier *t) {
    uint32_t n = 0, n_free = 0, n_gaps = 0, n_linked = 0, n_children = 0, n_roots = 0;
    uint64_t bytes = 0;
    for (uint32_t i = t->free; i != NO_CHUNK; i = t->chunk[i].next)
        CHECK(i < t->n_chunks && ++n_free <= t->n_chunks);
    for (uint32_t k = 0; k < t->n_buckets; k++)
        for (uint32_t i = t->bucket[k]; i > 0; i = t->chunk[i - 1].next) {
            CHECK(i <= t->n_chunks && ++n_linked <= t->n_chunks);
            CHECK((t->chunk[i - 1].hash.h[1] & (t->n_buckets - 1)) == k);
        }
    for (uint32_t i = t->newest, newer = NO_CHUNK; i != NO_CHUNK; i = t->chunk[i].older) {
        const tier_chunk *c = &t->chunk[i];
        CHECK(i < t->n_chunks && ++n <= t->n_chunks && c->newer == newer);
        CHECK(find_any(t, &c->hash) == i);
        CHECK(c->bytes > 0 || (c->n_children > 0 && c->groups == 0));
        n_gaps += c->bytes == 0;
        bytes += c->bytes;
        n_children += c->n_children;
        n_roots += c->parent == NO_CHUNK;
        if (c->parent != NO_CHUNK) CHECK(find_any(t, &t->chunk[c->parent].hash) == c->parent);
        newer = i;
        if (c->older == NO_CHUNK) CHECK(t->oldest == i);
    }
    CHECK(n == t->n && n_linked == n && n + n_free == t->n_chunks);
    CHECK(n_gaps == t->n_gaps && bytes == t->bytes && n_children + n_roots == n);
}
