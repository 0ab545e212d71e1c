/* The lists behind blocks.h. Every operation but init, unfence and audit is O(1). */
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

/* At the head, or at the tail of a circular list: the head of the sentinel's predecessor. */
static void push_free(blocks *b, uint32_t i) {
    bool cached = b->flags[i] & BLOCK_CACHED;
    push_head(b, cached ? b->prev[b->n] : b->n, i);
    b->n_free++;
    b->n_cached += cached;
}

static void count_peak(blocks *b) {
    uint32_t n = b->n - b->n_out - b->n_free;
    if (b->peak < n) b->peak = n;
}

void blocks_init(blocks *b) {
    for (uint32_t i = 0; i < BLOCKS_SENTINELS; i++)
        b->prev[b->n + i] = b->next[b->n + i] = b->n + i;
    b->n_free = b->n_cached = b->peak = b->n_fenced[0] = b->n_fenced[1] = b->n_leaving = 0;
    b->n_out = b->n - b->limit;
    for (uint32_t i = b->n; i-- > 0;) {
        b->ref[i] = 0;
        b->busy[i] = 0;
        b->flags[i] = 0;
        b->prev[i] = b->next[i] = i;
        if (i < b->limit) push_free(b, i);
    }
}

int32_t blocks_take(blocks *b, bool *evicted) {
    CHECK(b->n_free > 0);
    uint32_t i = b->next[b->n];
    *evicted = b->flags[i] & BLOCK_CACHED;
    b->n_cached -= *evicted;
    b->flags[i] = 0;
    unlink_block(b, i);
    b->n_free--;
    b->ref[i] = 1;
    b->busy[i] = 0;
    count_peak(b);
    return (int32_t)i;
}

void blocks_hold(blocks *b, int32_t block) {
    if (b->ref[block]++ > 0) return;
    CHECK(blocks_hittable(b, block));
    unlink_block(b, (uint32_t)block);
    b->n_free--;
    b->n_cached--;
    count_peak(b);
}

void blocks_cache(blocks *b, int32_t block) {
    CHECK(b->ref[block] > 0 && b->flags[block] == 0);
    b->flags[block] = BLOCK_CACHED;
}

bool blocks_drop(blocks *b, int32_t block, uint64_t touched_by, uint64_t n_committed) {
    CHECK(b->ref[block] > 0);
    if (b->busy[block] < touched_by) b->busy[block] = touched_by;
    if (--b->ref[block] > 0) return false;
    if ((uint32_t)block >= b->limit) {
        bool cached = b->flags[block] & BLOCK_CACHED;
        b->flags[block] = 0;
        b->n_leaving--;
        b->n_out++;
        return cached;
    }
    uint64_t busy = b->busy[block];
    if (busy <= n_committed) {
        push_free(b, (uint32_t)block);
        return false;
    }
    push_head(b, b->n + 1 + (busy & 1), (uint32_t)block);
    b->n_fenced[busy & 1]++;
    b->flags[block] |= BLOCK_FENCED;
    return false;
}

bool blocks_lower(blocks *b) {
    CHECK(b->limit > 0);
    uint32_t i = --b->limit;
    if (b->ref[i] > 0) {
        b->n_leaving++;
        return false;
    }
    bool cached = b->flags[i] & BLOCK_CACHED;
    if (b->flags[i] & BLOCK_FENCED) {
        b->n_fenced[b->busy[i] & 1]--;
    } else {
        b->n_free--;
        b->n_cached -= cached;
    }
    unlink_block(b, i);
    b->flags[i] = 0;
    b->n_out++;
    return cached;
}

void blocks_raise(blocks *b) {
    CHECK(b->limit < b->n);
    uint32_t i = b->limit++;
    if (b->ref[i] > 0) {
        b->n_leaving--;
        return;
    }
    b->n_out--;
    push_free(b, i);
}

bool blocks_pass(blocks *b, int32_t from, int32_t to) {
    CHECK((uint32_t)from >= b->limit && b->ref[from] > 0 && (uint32_t)to < b->limit);
    b->ref[to]++;
    if (--b->ref[from] > 0) return false;
    b->flags[from] = 0;
    b->n_leaving--;
    b->n_out++;
    return true;
}

void blocks_uncache(blocks *b, int32_t block) {
    CHECK(b->flags[block] & BLOCK_CACHED);
    bool listed = b->ref[block] == 0 && !(b->flags[block] & BLOCK_FENCED);
    if (listed) {
        unlink_block(b, (uint32_t)block);
        b->n_free--;
        b->n_cached--;
    }
    b->flags[block] &= (uint8_t)~BLOCK_CACHED;
    if (listed) push_free(b, (uint32_t)block);
}

void blocks_unfence(blocks *b, unsigned parity) {
    uint32_t list = b->n + 1 + parity;
    /* From the tail: in the order in which they were dropped. */
    for (; b->n_fenced[parity] > 0; b->n_fenced[parity]--) {
        uint32_t i = b->prev[list];
        unlink_block(b, i);
        b->flags[i] &= (uint8_t)~BLOCK_FENCED;
        push_free(b, i);
    }
}

static uint32_t audit_list(const blocks *b, uint32_t list) {
    uint32_t count = 0, n_cached = 0;
    for (uint32_t i = b->next[list]; i != list; i = b->next[i]) {
        CHECK(i < b->limit);
        CHECK(b->prev[b->next[i]] == i && b->next[b->prev[i]] == i);
        CHECK(b->ref[i] == 0);
        CHECK(!!(b->flags[i] & BLOCK_FENCED) == (list != b->n));
        CHECK(++count <= b->n);
        bool cached = b->flags[i] & BLOCK_CACHED;
        if (list == b->n) CHECK(cached || n_cached == 0); /* cached ones are taken last */
        n_cached += cached;
    }
    if (list == b->n) CHECK(n_cached == b->n_cached);
    return count;
}

void blocks_audit(const blocks *b, uint64_t holders) {
    uint64_t refs = 0;
    uint32_t used = 0, leaving = 0, out = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        refs += b->ref[i];
        used += b->ref[i] > 0;
        leaving += i >= b->limit && b->ref[i] > 0;
        if (i >= b->limit && b->ref[i] == 0) {
            CHECK(b->flags[i] == 0);
            out++;
        } else if (b->ref[i] == 0) {
            continue;
        }
        CHECK(b->next[i] == i && b->prev[i] == i && !(b->flags[i] & BLOCK_FENCED));
    }
    CHECK(refs == holders && leaving == b->n_leaving && out == b->n_out);
    CHECK(audit_list(b, b->n) == b->n_free);
    CHECK(audit_list(b, b->n + 1) == b->n_fenced[0]);
    CHECK(audit_list(b, b->n + 2) == b->n_fenced[1]);
    /* Lists share their links, so no block is in two; the sum says that none is in none. */
    CHECK(used + out + b->n_free + blocks_fenced(b) == b->n && used == blocks_used(b));
}
