/* Blocks, references and fences; and the heap beside them. */

#include "base/hash.h"
#include "scheduler/blocks.h"
#include "scheduler/heap.h"
#include "tests/check_main.h"

enum { N = 8, ITEMS = 64 };

typedef struct pool {
    blocks b;
    uint32_t ref[N], prev[N + BLOCKS_SENTINELS], next[N + BLOCKS_SENTINELS];
    uint64_t busy[N];
    uint8_t flags[N];
} pool;

static int32_t take(pool *p) {
    bool evicted;
    int32_t b = blocks_take(&p->b, &evicted);
    ck_assert(!evicted);
    return b;
}

static void pool_setup(pool *p) {
    p->b = (blocks){.n = N,
                    .limit = N,
                    .ref = p->ref,
                    .prev = p->prev,
                    .next = p->next,
                    .busy = p->busy,
                    .flags = p->flags};
    blocks_init(&p->b);
    blocks_audit(&p->b, 0);
}

START_TEST(all_blocks_can_be_taken_once_and_come_back) {
    pool p;
    pool_setup(&p);
    bool seen[N] = {0};
    for (int i = 0; i < N; i++) {
        int32_t b = take(&p);
        ck_assert(!seen[b]);
        seen[b] = true;
        blocks_audit(&p.b, (uint64_t)i + 1);
    }
    ck_assert_uint_eq(p.b.n_free, 0);
    for (int32_t i = 0; i < N; i++) blocks_drop(&p.b, i, 0, 0);
    blocks_audit(&p.b, 0);
    ck_assert_uint_eq(p.b.n_free, N);
}
END_TEST

START_TEST(the_peak_counts_what_was_not_free_at_once) {
    pool p;
    pool_setup(&p);
    ck_assert_uint_eq(p.b.peak, 0);
    int32_t a = take(&p), b = take(&p);
    blocks_cache(&p.b, b);
    blocks_drop(&p.b, a, 2, 1); /* fenced: it counts */
    blocks_drop(&p.b, b, 0, 1);
    take(&p);
    ck_assert_uint_eq(p.b.peak, 2);
    blocks_hold(&p.b, b); /* a hit takes a block from the free ones, too */
    ck_assert_uint_eq(p.b.peak, 3);
    blocks_unfence(&p.b, 0);
    blocks_drop(&p.b, b, 0, 2);
    ck_assert_uint_eq(p.b.peak, 3);
}
END_TEST

START_TEST(a_shared_block_is_free_when_the_last_holder_drops_it) {
    pool p;
    pool_setup(&p);
    int32_t b = take(&p);
    blocks_hold(&p.b, b);
    blocks_audit(&p.b, 2);
    blocks_drop(&p.b, b, 0, 0);
    ck_assert_uint_eq(p.b.n_free, N - 1);
    ck_assert_uint_eq(blocks_fenced(&p.b), 0);
    blocks_drop(&p.b, b, 0, 0);
    ck_assert_uint_eq(p.b.n_free, N);
    blocks_audit(&p.b, 0);
}
END_TEST

START_TEST(a_fence_opens_for_its_own_parity_only) {
    pool p;
    pool_setup(&p);
    int32_t a = take(&p), b = take(&p), c = take(&p);
    blocks_drop(&p.b, a, 2, 0);
    blocks_drop(&p.b, b, 1, 0);
    blocks_drop(&p.b, c, 2, 0);
    blocks_audit(&p.b, 0);
    ck_assert_uint_eq(p.b.n_free, N - 3);
    blocks_unfence(&p.b, 1);
    ck_assert_uint_eq(p.b.n_free, N - 2);
    blocks_unfence(&p.b, 1);
    blocks_unfence(&p.b, 0);
    ck_assert_uint_eq(p.b.n_free, N);
    blocks_audit(&p.b, 0);
    ck_assert_int_eq(take(&p), c); /* freed last, taken first */
}
END_TEST

START_TEST(a_heap_gives_items_in_order_whatever_was_removed) {
    heap_node node[ITEMS];
    uint32_t at[ITEMS];
    heap h = {.n_items = ITEMS, .node = node, .at = at};
    for (uint64_t round = 0; round < 200; round++) {
        uint64_t key[ITEMS];
        bool in[ITEMS] = {0};
        heap_init(&h);
        for (uint32_t i = 0; i < ITEMS; i++) {
            key[i] = hash_mix(round * 1000 + i) % 16; /* many ties */
            heap_add(&h, i, key[i], i);
            in[i] = true;
        }
        for (uint32_t i = 0; i < ITEMS; i++) {
            if (hash_mix(round * 77 + i) % 3) continue;
            ck_assert(heap_remove(&h, i));
            ck_assert(!heap_remove(&h, i));
            in[i] = false;
            heap_audit(&h);
        }
        uint64_t last_key = 0, last_order = 0;
        while (h.n > 0) {
            heap_node top = h.node[0];
            ck_assert(in[top.item] && top.key == key[top.item]);
            ck_assert(top.key > last_key || (top.key == last_key && top.order >= last_order));
            last_key = top.key;
            last_order = top.order;
            in[top.item] = false;
            heap_remove(&h, top.item);
        }
        for (uint32_t i = 0; i < ITEMS; i++) ck_assert(!in[i]);
    }
}
END_TEST

CHECK_MAIN("blocks", all_blocks_can_be_taken_once_and_come_back,
           the_peak_counts_what_was_not_free_at_once,
           a_shared_block_is_free_when_the_last_holder_drops_it,
           a_fence_opens_for_its_own_parity_only,
           a_heap_gives_items_in_order_whatever_was_removed)
