/* Types for a number of bytes: within the budget, no worse with more of it, and as good as trying everything. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "quant/choose.h"
#include "tests/check_main.h"

enum { MOST_ITEMS = 60, OPTIONS = 6 };

typedef struct problem {
    choose_option v[MOST_ITEMS][OPTIONS];
    choose_item it[MOST_ITEMS];
    size_t n;
    uint64_t least, most;
} problem;

static uint64_t draw(uint64_t *state, uint64_t n) {
    *state += 1;
    return hash_mix(*state) % n;
}

/* Items of various sizes whose losses fall with bytes, by and large. */
static void make(problem *p, size_t n, uint64_t *state) {
    *p = (problem){.n = n};
    for (size_t i = 0; i < n; i++) {
        const uint64_t size = 32 * (1 + draw(state, 200));
        const double weight = 1e-3 * (double)(1 + draw(state, 1000));
        uint64_t largest = 0;
        for (uint32_t k = 0; k < OPTIONS; k++) {
            const double bits = 2 + 1.3 * k + 0.1 * (double)draw(state, 10);
            p->v[i][k] =
                (choose_option){k, (uint64_t)((double)size * bits),
                                weight * exp2(-2 * bits) * (double)(80 + draw(state, 40))};
            if (p->v[i][k].bytes > largest) largest = p->v[i][k].bytes;
        }
        p->it[i] = (choose_item){p->v[i], OPTIONS, 0};
        p->most += largest;
    }
    p->least = choose_least(p->it, n);
}

START_TEST(a_budget_is_never_exceeded_and_more_is_never_worse) {
    static problem p;
    uint64_t state = 5;
    bool no_memory;
    for (int round = 0; round < 20; round++) {
        make(&p, MOST_ITEMS, &state);
        uint64_t budgets[50];
        for (int k = 0; k < 50; k++)
            budgets[k] = p.least + draw(&state, p.most + 100 - p.least);
        for (int a = 0; a < 50; a++)
            for (int b = a + 1; b < 50; b++)
                if (budgets[b] < budgets[a]) {
                    const uint64_t t = budgets[a];
                    budgets[a] = budgets[b], budgets[b] = t;
                }
        double before = INFINITY;
        for (int k = 0; k < 50; k++) {
            ck_assert(choose(p.it, p.n, budgets[k], &no_memory));
            ck_assert_uint_le(choose_bytes(p.it, p.n), budgets[k]);
            ck_assert(choose_loss(p.it, p.n) <= before);
            before = choose_loss(p.it, p.n);
        }
    }
}
END_TEST

START_TEST(the_least_is_met_exactly_and_below_it_is_refused) {
    static problem p;
    uint64_t state = 77;
    bool no_memory;
    make(&p, 20, &state);
    ck_assert(choose(p.it, p.n, p.least, &no_memory));
    ck_assert_uint_eq(choose_bytes(p.it, p.n), p.least);
    ck_assert(!choose(p.it, p.n, p.least - 1, &no_memory) && !no_memory);
    ck_assert(
        choose(p.it, p.n, UINT64_MAX, &no_memory)); /* everything: the least loss of each */
    for (size_t i = 0; i < p.n; i++)
        for (uint32_t k = 0; k < OPTIONS; k++)
            ck_assert(p.it[i].v[p.it[i].picked].loss <= p.it[i].v[k].loss);
}
END_TEST

/* The least loss of all choices, by trying them. */
static double by_force(const problem *p, size_t i, uint64_t left) {
    double best = INFINITY;
    if (i == p->n) return 0;
    for (uint32_t k = 0; k < OPTIONS; k++)
        if (p->v[i][k].bytes <= left) {
            const double rest = by_force(p, i + 1, left - p->v[i][k].bytes);
            if (p->v[i][k].loss + rest < best) best = p->v[i][k].loss + rest;
        }
    return best;
}

START_TEST(it_is_close_to_the_best_of_all_choices) {
    static problem p;
    uint64_t state = 9;
    bool no_memory;
    double sum = 0;
    for (int round = 0; round < 60; round++) {
        make(&p, 6, &state);
        const uint64_t budget = p.least + draw(&state, p.most - p.least);
        ck_assert(choose(p.it, p.n, budget, &no_memory));
        const double ours = choose_loss(p.it, p.n), best = by_force(&p, 0, budget);
        ck_assert(ours >= best * (1 - 1e-9));
        sum += ours / best;
    }
    ck_assert_msg(sum / 60 < 1.15, "%g", sum / 60); /* of six items: one step is much */
}
END_TEST

START_TEST(it_is_no_worse_than_the_same_option_for_all) {
    static problem p;
    uint64_t state = 31;
    bool no_memory;
    make(&p, MOST_ITEMS, &state);
    for (uint32_t k = 0; k < OPTIONS; k++) {
        uint64_t bytes = 0;
        double loss = 0;
        for (size_t i = 0; i < p.n; i++)
            for (uint32_t o = 0; o < OPTIONS; o++)
                if (p.v[i][o].tag == k) bytes += p.v[i][o].bytes, loss += p.v[i][o].loss;
        ck_assert(choose(p.it, p.n, bytes, &no_memory));
        ck_assert_msg(choose_loss(p.it, p.n) <= loss, "option %u", k);
    }
}
END_TEST

CHECK_MAIN("choose", a_budget_is_never_exceeded_and_more_is_never_worse,
           the_least_is_met_exactly_and_below_it_is_refused,
           it_is_close_to_the_best_of_all_choices, it_is_no_worse_than_the_same_option_for_all)
