/* Slots for experts by themselves: what is where, pins, and the choice of the one that gives way, judged by
 * the hits that it has on logs of routes against other rules, and against one that knows what comes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "engine/expert_slots.h"
#include "tests/check_main.h"

enum {
    LAYERS = 12,
    EXPERTS = 64,
    TOP = 4,
    STEPS = 400,
    ALL = LAYERS * EXPERTS,
    NEVER = INT32_MAX
};

static void *mem;
static expert_slots s;

static void open_slots(uint32_t layers, uint32_t experts, uint32_t n) {
    mem = malloc(expert_slots_bytes(layers, experts, n));
    ck_assert_ptr_nonnull(mem);
    expert_slots_init(&s, mem, layers, experts, n);
}

START_TEST(slots_are_given_kept_and_forgotten) {
    open_slots(2, 4, 3);
    const uint32_t e[] = {0, 3};
    ck_assert_uint_eq(expert_slots_find(&s, 1, 3), EXPERT_NONE);
    expert_slots_turn(&s, 1, e, 2);
    const uint32_t a = expert_slots_take(&s, 1, 0), b = expert_slots_take(&s, 1, 3),
                   c = expert_slots_take(&s, 0, 0);
    ck_assert(a != b && b != c && a != c);
    ck_assert_uint_eq(expert_slots_find(&s, 1, 3), b);
    s.pins[a] = s.pins[b] = s.pins[c] = 1;
    ck_assert_uint_eq(expert_victim(&s), EXPERT_NONE);
    ck_assert_uint_eq(expert_slots_take(&s, 0, 1), EXPERT_NONE);
    s.pins[b] = 0;
    ck_assert_uint_eq(expert_slots_take(&s, 0, 1), b);
    ck_assert_uint_eq(expert_slots_find(&s, 1, 3), EXPERT_NONE);
    expert_slots_forget(&s, a);
    ck_assert_uint_eq(expert_slots_find(&s, 1, 0), EXPERT_NONE);
    s.pins[a] = 0;
    ck_assert_uint_eq(expert_victim(&s), a);
    free(mem);
}
END_TEST

/* Often used goes before just used, until that is long ago. */
START_TEST(frequent_use_counts_and_fades) {
    open_slots(1, 8, 2);
    const uint32_t often = 1, once = 2, other = 3;
    for (int i = 0; i < 16; i++) expert_slots_turn(&s, 0, &often, 1);
    expert_slots_turn(&s, 0, &once, 1);
    for (int i = 0; i < 3; i++) expert_slots_turn(&s, 0, &other, 1);
    const uint32_t a = expert_slots_take(&s, 0, often), b = expert_slots_take(&s, 0, once);
    ck_assert_uint_eq(expert_victim(&s), b);
    for (int i = 0; i < 4 * EXPERT_HALF_LIFE; i++) expert_slots_turn(&s, 0, &other, 1);
    expert_slots_turn(&s, 0, &once, 1);
    ck_assert_uint_eq(expert_victim(&s), a);
    free(mem);
}
END_TEST

START_TEST(worths_last_for_years_of_steps) {
    open_slots(1, 4, 2);
    s.turns[0] = 1ull << 40;
    const uint32_t one = 1, two = 2;
    expert_slots_turn(&s, 0, &two, 1);
    expert_slots_turn(&s, 0, &one, 1);
    expert_slots_turn(&s, 0, &one, 1);
    expert_slots_take(&s, 0, 1);
    ck_assert_uint_eq(expert_victim(&s), 1); /* empty */
    ck_assert_uint_eq(expert_slots_take(&s, 0, 2), 1);
    ck_assert_uint_eq(expert_victim(&s), 1);
    ck_assert(isfinite(s.worth[1]) && s.worth[1] > s.worth[2]);
    free(mem);
}
END_TEST

/* ---- a log of routes ---- */

static uint32_t route[STEPS][LAYERS][TOP]; /* ascending */
static uint64_t draws;

static double draw(void) {
    return (double)(hash_mix(++draws) >> 11) * 0x1p-53;
}

static int by_number(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static bool has(const uint32_t *v, uint32_t n, uint32_t x) {
    for (uint32_t i = 0; i < n; i++)
        if (v[i] == x) return true;
    return false;
}

/* Popularity by rank^-skew, in another order in each layer and, halfway, for another kind of text; with a
 * chance to go where the step before went. */
static void write_log(double skew, double again) {
    static double sum[EXPERTS];
    draws = 7;
    for (uint32_t i = 0; i < EXPERTS; i++) sum[i] = (i ? sum[i - 1] : 0) + pow(i + 1.0, -skew);
    for (uint32_t t = 0; t < STEPS; t++)
        for (uint32_t l = 0; l < LAYERS; l++) {
            uint32_t *r = route[t][l];
            for (uint32_t k = 0; k < TOP;) {
                uint32_t rank = 0;
                const double x = draw() * sum[EXPERTS - 1];
                while (sum[rank] < x) rank++;
                const bool repeat = t && draw() < again;
                r[k] = repeat ? route[t - 1][l][(uint32_t)(draw() * TOP)]
                              : (rank * 37 + l * 11 + (t >= STEPS / 2) * 5) % EXPERTS;
                k += !has(r, k, r[k]);
            }
            qsort(r, TOP, sizeof *r, by_number);
        }
}

typedef uint32_t victim_rule(uint32_t layer, uint32_t step);
static uint64_t last_used[ALL], clock_now;

static uint32_t ours(uint32_t layer, uint32_t step) {
    (void)layer, (void)step;
    return expert_victim(&s);
}

static uint32_t best_by(double (*value)(uint32_t id, uint32_t layer, uint32_t step),
                        uint32_t layer, uint32_t step) {
    uint32_t best = EXPERT_NONE;
    double least = INFINITY;
    for (uint32_t i = 0; i < s.n_slots; i++) {
        if (s.pins[i]) continue;
        if (s.holds[i] == EXPERT_NONE) return i;
        const double v = value(s.holds[i], layer, step);
        if (v < least) best = i, least = v;
    }
    return best;
}

static double recency(uint32_t id, uint32_t layer, uint32_t step) {
    (void)layer, (void)step;
    return (double)last_used[id];
}
static uint32_t lru(uint32_t layer, uint32_t step) {
    return best_by(recency, layer, step);
}

/* Minus the distance of its next use, in layers. */
static double knowing(uint32_t id, uint32_t layer, uint32_t step) {
    const uint32_t l = id / EXPERTS;
    for (uint32_t t = step + (l <= layer); t < STEPS; t++)
        if (has(route[t][l], TOP, id % EXPERTS))
            return -((double)t * LAYERS + l - step * LAYERS - layer);
    return -NEVER;
}
static uint32_t oracle(uint32_t layer, uint32_t step) {
    return best_by(knowing, layer, step);
}

/* expert_slots_take with another rule. */
static uint32_t take(victim_rule *rule, uint32_t layer, uint32_t expert, uint32_t step) {
    const uint32_t slot = rule(layer, step);
    if (s.holds[slot] != EXPERT_NONE) s.where[s.holds[slot]] = EXPERT_NONE;
    s.holds[slot] = layer * EXPERTS + expert;
    s.where[s.holds[slot]] = slot;
    return slot;
}

/* The share of hits after the first eighth. */
static double hits(victim_rule *rule, uint32_t n_slots) {
    uint64_t n = 0, all = 0;
    open_slots(LAYERS, EXPERTS, n_slots);
    for (uint32_t t = 0; t < STEPS; t++)
        for (uint32_t l = 0; l < LAYERS; l++) {
            const uint32_t *r = route[t][l];
            uint32_t slot[TOP];
            clock_now++;
            expert_slots_turn(&s, l, r, TOP);
            for (uint32_t k = 0; k < TOP; k++) {
                slot[k] = expert_slots_find(&s, l, r[k]);
                if (slot[k] != EXPERT_NONE) s.pins[slot[k]] = 1;
                n += t >= STEPS / 8 && slot[k] != EXPERT_NONE;
                all += t >= STEPS / 8;
                last_used[l * EXPERTS + r[k]] = clock_now;
            }
            for (uint32_t k = 0; k < TOP; k++) {
                if (slot[k] == EXPERT_NONE) slot[k] = take(rule, l, r[k], t);
                s.pins[slot[k]] = 1;
            }
            for (uint32_t k = 0; k < TOP; k++) s.pins[slot[k]] = 0;
        }
    free(mem);
    return (double)n / (double)all;
}

static const struct {
    double skew, again;
    uint32_t share; /* of slots, percent */
} logs[] = {{0.6, 0.3, 25}, {0.6, 0.3, 50}, {1, 0, 25},
            {1, 0.3, 10},   {0, 0, 25},     {0.6, 0.3, 75}};

/* With routes that favour some experts the rule beats the least recently used by a good part of what
 * knowing the future would gain; with routes that favour none no rule that does not know it beats chance. */
START_TEST(the_choice_is_judged_on_logs_of_routes) {
    write_log(logs[_i].skew, logs[_i].again);
    const uint32_t n = ALL * logs[_i].share / 100;
    const double chance = logs[_i].share / 100.0, a = hits(ours, n), b = hits(lru, n),
                 best = hits(oracle, n);
    printf("skew %.1f, repeats %.1f, %u%% of slots: hits %.1f%%, LRU %.1f%%, with foresight "
           "%.1f%%, "
           "chance %.0f%%\n",
           logs[_i].skew, logs[_i].again, logs[_i].share, 100 * a, 100 * b, 100 * best,
           100 * chance);
    ck_assert(a <= best && b <= best);
    if (logs[_i].skew > 0)
        ck_assert(a > b && a > chance);
    else
        ck_assert(fabs(a - chance) < 0.05);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("expert_slots");
    TCase *t = check_case(suite, "expert_slots");
    tcase_add_test(t, slots_are_given_kept_and_forgotten);
    tcase_add_test(t, frequent_use_counts_and_fades);
    tcase_add_test(t, worths_last_for_years_of_steps);
    tcase_add_loop_test(t, the_choice_is_judged_on_logs_of_routes, 0,
                        sizeof logs / sizeof *logs);
    return check_run(suite);
}
