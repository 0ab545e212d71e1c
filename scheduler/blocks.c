/* The lists behind blocks.h. Every operation but init and audit is O(1). */
#include "scheduler/blocks.h"

#include "base/check.h"

static void push_head(blocks *b, uint32_t list, uint32_t i) {
    uint32_t first = b->next[list];
    b->prev[i] = list;
    b->next[i] = first;
    b->prev[first] = i;
    b->next[list] = i;
}

static void unlink_block(blocks *b, uint32_t i) {
    b->next[b->prev[i]] = b->next[i];
    b->prev[b->next[i]] = b->prev[i];
    b->prev[i] = b->next[i] = i;
}

void blocks_init(blocks *b) {
    for (uint32_t i = 0; i < BLOCKS_SENTINELS; i++)
        b->prev[b->n + i] = b->next[b->n + i] = b->n + i;
    b->n_free = b->n;
    b->n_fenced[0] = b->n_fenced[1] = 0;
    for (uint32_t i = b->n; i-- > 0;) {
        b->ref[i] = 0;
        push_head(b, b->n, i);
    }
}

int32_t blocks_take(blocks *b) {
    CHECK(b->n_free > 0);
    uint32_t i = b->next[b->n];
    unlink_block(b, i);
    b->n_free--;
    b->ref[i] = 1;
    return (int32_t)i;
}

void blocks_share(blocks *b, int32_t block) {
    CHECK(b->ref[block] > 0);
    b->ref[block]++;
}

void blocks_drop(blocks *b, int32_t block, int fence_parity) {
    CHECK(b->ref[block] > 0);
    if (--b->ref[block] > 0) return;
    if (fence_parity == BLOCKS_NO_FENCE) {
        push_head(b, b->n, (uint32_t)block);
        b->n_free++;
    } else {
        push_head(b, b->n + 1 + (uint32_t)fence_parity, (uint32_t)block);
        b->n_fenced[fence_parity]++;
    }
}

void blocks_unfence(blocks *b, unsigned parity) {
    uint32_t list = b->n + 1 + parity, free_list = b->n;
    if (b->n_fenced[parity] == 0) return;
    uint32_t first = b->next[list], last = b->prev[list], old = b->next[free_list];
    b->next[list] = b->prev[list] = list;
    b->next[free_list] = first;
    b->prev[first] = free_list;
    b->next[last] = old;
    b->prev[old] = last;
    b->n_free += b->n_fenced[parity];
    b->n_fenced[parity] = 0;
}

static uint32_t audit_list(const blocks *b, uint32_t list) {
    uint32_t count = 0;
    for (uint32_t i = b->next[list]; i != list; i = b->next[i]) {
        CHECK(i < b->n);
        CHECK(b->prev[b->next[i]] == i && b->next[b->prev[i]] == i);
        CHECK(b->ref[i] == 0);
        CHECK(++count <= b->n);
    }
    return count;
}

void blocks_audit(const blocks *b, uint64_t table_entries) {
    uint64_t refs = 0;
    uint32_t used = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        refs += b->ref[i];
        used += b->ref[i] > 0;
        if (b->ref[i] > 0) CHECK(b->next[i] == i && b->prev[i] == i);
    }
    CHECK(refs == table_entries);
    CHECK(audit_list(b, b->n) == b->n_free);
    CHECK(audit_list(b, b->n + 1) == b->n_fenced[0]);
    CHECK(audit_list(b, b->n + 2) == b->n_fenced[1]);
    /* Lists share their links, so no block is in two; the sum says that none is in none. */
    CHECK(used + b->n_free + blocks_fenced(b) == b->n);
}
