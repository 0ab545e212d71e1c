/* daemon/models/models_decide.c: scenes by hand, and random events with an audit after each. */
#include "daemon/models/models_decide.h"

#include "base/hash.h"
#include "tests/check_main.h"

static model_entry ready(uint64_t bytes, uint64_t last_used_us) {
    return (model_entry){.state = MODEL_READY, .bytes = bytes, .last_used_us = last_used_us};
}

static model_entry wanted(uint64_t bytes, uint64_t since_us) {
    return (model_entry){.bytes = bytes, .oldest_us = since_us};
}

START_TEST(the_oldest_request_says_which_model_is_next) {
    models_view v = {
        .budget_bytes = 100, .n = 3, .v = {wanted(60, 9), wanted(60, 7), wanted(10, 8)}};
    models_decision d = models_decide(&v, 10);
    ck_assert(d.op == MODELS_LOAD && d.model == 1);
    v.v[1].state = MODEL_LOADING;
    ck_assert_int_eq(models_decide(&v, 10).op, MODELS_NOTHING); /* one at a time */
    v.v[1].state = MODEL_READY;
    v.v[1].oldest_us = 0;
    d = models_decide(&v, 10);
    ck_assert(d.op == MODELS_LOAD && d.model == 2);
    v.v[2] = ready(10, 11);
    d = models_decide(&v, 12);
    ck_assert(d.op == MODELS_DRAIN && d.model == 0 && d.set == 2);
}
END_TEST

START_TEST(victims_are_the_cheapest_set_that_is_large_enough) {
    models_view v = {
        .budget_bytes = 100,
        .n = 5,
        .v = {ready(50, 4), ready(20, 3), ready(20, 2), ready(10, 5), wanted(30, 9)}};
    ck_assert_uint_eq(models_decide(&v, 10).set, 1 << 1 | 1 << 2); /* not the 50 */
    v.v[1].last_used_us = v.v[2].last_used_us = 6;                 /* 20 + 20/1 against 50/4 */
    ck_assert_uint_eq(models_decide(&v, 10).set, 1 << 0);
    v.v[0].n_users = 3; /* it would be waited for */
    ck_assert_uint_eq(models_decide(&v, 10).set, 1 << 1 | 1 << 3);
    v.v[0].pinned = v.v[1].pinned = true;
    ck_assert_uint_eq(models_decide(&v, 10).set, 1 << 2 | 1 << 3);
    v.v[2].pinned = true;
    ck_assert_int_eq(models_decide(&v, 10).op, MODELS_NOTHING);
}
END_TEST

START_TEST(a_busy_model_stays_as_long_as_it_took_to_load) {
    models_view v = {.budget_bytes = 100, .n = 2, .v = {ready(60, 1), wanted(60, 5)}};
    v.v[0].ready_us = 1000;
    v.v[0].load_us = 300;
    ck_assert_int_eq(models_decide(&v, 1000).op, MODELS_DRAIN); /* idle */
    v.v[0].n_users = 1;
    models_decision d = models_decide(&v, 1299);
    ck_assert(d.op == MODELS_NOTHING && d.again_us == 1300);
    ck_assert_int_eq(models_decide(&v, 1300).op, MODELS_DRAIN);
}
END_TEST

START_TEST(a_victim_ends_its_requests_and_is_kept_where_nobody_waits_any_more) {
    models_view v = {.budget_bytes = 100, .n = 2, .v = {ready(60, 1), wanted(60, 5)}};
    v.v[0].state = MODEL_DRAINING;
    v.v[0].n_users = 2;
    ck_assert_int_eq(models_decide(&v, 9).op, MODELS_NOTHING);
    v.v[1].oldest_us = 0;
    models_decision d = models_decide(&v, 9);
    ck_assert(d.op == MODELS_REOPEN && d.set == 1);
    v.v[1].oldest_us = 5;
    v.v[0].n_users = 0;
    d = models_decide(&v, 9);
    ck_assert(d.op == MODELS_UNLOAD && d.model == 0);
    v.v[0].state = MODEL_UNLOADING; /* its bytes are not free yet */
    ck_assert_int_eq(models_decide(&v, 9).op, MODELS_NOTHING);
    v.v[0].state = MODEL_ABSENT;
    d = models_decide(&v, 9);
    ck_assert(d.op == MODELS_LOAD && d.model == 1);
}
END_TEST

START_TEST(what_is_loaded_at_the_start_has_no_victims) {
    models_view v = {.budget_bytes = 100, .n = 2, .v = {ready(60, 1), {.bytes = 60}}};
    v.v[1].if_free = true;
    ck_assert_int_eq(models_decide(&v, 9).op, MODELS_SKIP);
    v.budget_bytes = 120;
    ck_assert_int_eq(models_decide(&v, 9).op, MODELS_LOAD);
    v.v[1].state = MODEL_FAILED; /* nor is what failed loaded again by itself */
    v.v[1].oldest_us = 3;
    ck_assert_int_eq(models_decide(&v, 9).op, MODELS_NOTHING);
}
END_TEST

/* ---- random events ---- */

static uint64_t below(uint64_t *r, uint64_t n) {
    *r = hash_mix(*r + 1);
    return *r % n;
}

typedef struct world {
    models_view v;
    uint32_t held[MODELS_MAX];
    uint64_t now_us, n_served, n_refused, n_came;
} world;

static void enter_held(world *w, uint32_t i) {
    w->v.v[i].n_users += w->held[i];
    w->n_served += w->held[i];
    w->held[i] = 0;
    w->v.v[i].oldest_us = 0;
}

static void request(world *w, uint32_t i) {
    model_entry *m = &w->v.v[i];
    w->n_came++;
    m->last_used_us = w->now_us;
    if (m->state == MODEL_READY) {
        m->n_users++;
        w->n_served++;
    } else if (m->state == MODEL_FAILED) {
        w->n_refused++;
    } else {
        if (!w->held[i]++) m->oldest_us = w->now_us;
    }
}

/* The load or unload that is under way ends. */
static void finish(world *w, bool ok) {
    for (uint32_t i = 0; i < w->v.n; i++) {
        model_entry *m = &w->v.v[i];
        if (m->state == MODEL_UNLOADING) {
            m->state = MODEL_ABSENT;
            m->unwanted = false;
        }
        if (m->state != MODEL_LOADING) continue;
        m->state = ok ? MODEL_READY : MODEL_FAILED;
        m->ready_us = w->now_us;
        m->wanted_us = 0;
        m->if_free = false;
        if (ok) enter_held(w, i);
        if (!ok) w->n_refused += w->held[i], w->held[i] = 0, m->oldest_us = 0;
    }
}

static void apply(world *w, const models_decision *d) {
    for (uint32_t i = 0; i < w->v.n; i++) {
        model_entry *m = &w->v.v[i];
        const bool in = d->set >> i & 1, is = d->model == i;
        if (d->op == MODELS_DRAIN && in) {
            ck_assert(m->state == MODEL_READY && (m->unwanted || !m->pinned));
            m->state = MODEL_DRAINING;
        } else if (d->op == MODELS_REOPEN && in) {
            ck_assert_int_eq(m->state, MODEL_DRAINING);
            m->state = MODEL_READY;
            enter_held(w, i);
        } else if (d->op == MODELS_LOAD && is) {
            ck_assert_int_eq(m->state, MODEL_ABSENT);
            m->state = MODEL_LOADING;
            m->load_us = 50;
        } else if (d->op == MODELS_UNLOAD && is) {
            ck_assert(m->state == MODEL_DRAINING && m->n_users == 0);
            m->state = MODEL_UNLOADING;
        } else if (d->op == MODELS_SKIP && is) {
            m->if_free = false;
        }
    }
}

static void settle(world *w) {
    int rounds = 0;
    for (models_decision d = models_decide(&w->v, w->now_us); d.op;
         d = models_decide(&w->v, w->now_us)) {
        apply(w, &d);
        ck_assert(models_audit(&w->v));
        ck_assert_int_lt(rounds++, 100);
    }
}

static void event(world *w, uint64_t *r) {
    const uint32_t i = (uint32_t)below(r, w->v.n);
    model_entry *m = &w->v.v[i];
    w->now_us += below(r, 40);
    switch (below(r, 12)) {
    case 0:
    case 1:
    case 2:
    case 3: request(w, i); break;
    case 4:
    case 5:
    case 6: m->n_users -= m->n_users > 0; break;
    case 7: finish(w, below(r, 20) > 0); break;
    case 8: finish(w, true); break;
    case 9:
        if (w->held[i] && --w->held[i] == 0) m->oldest_us = 0; /* its client has left */
        if (m->oldest_us == 0) break;
        w->n_refused++;
        break;
    case 10:
        if (m->state == MODEL_READY && !m->pinned) m->unwanted = true;
        break;
    default:
        if (m->state == MODEL_FAILED) m->state = MODEL_ABSENT;
        if (m->state == MODEL_ABSENT) m->wanted_us = w->now_us;
    }
}

START_TEST(random_events_never_pass_the_budget_and_every_request_is_served) {
    uint64_t r = hash_mix((uint64_t)_i);
    world w = {.v = {.budget_bytes = 100, .n = 2 + (uint32_t)below(&r, 7)}, .now_us = 1};
    uint64_t pinned = 0;
    for (uint32_t i = 0; i < w.v.n; i++) {
        model_entry *m = &w.v.v[i];
        m->bytes = 1 + below(&r, 60);
        m->pinned = below(&r, 5) == 0 && pinned + m->bytes <= 40;
        if (m->pinned) pinned += m->bytes, m->wanted_us = 1;
        m->if_free = below(&r, 2);
    }
    for (int k = 0; k < 3000; k++) {
        event(&w, &r);
        settle(&w);
    }
    /* All clients end, and no more come: none that waits is left behind. */
    for (int k = 0; k < 400; k++) {
        w.now_us += 60;
        for (uint32_t i = 0; i < w.v.n; i++) w.v.v[i].n_users = 0;
        finish(&w, true);
        settle(&w);
    }
    for (uint32_t i = 0; i < w.v.n; i++) {
        ck_assert_uint_eq(w.held[i], 0);
        ck_assert_int_ne(w.v.v[i].state, MODEL_DRAINING);
    }
    ck_assert_uint_gt(w.n_served, w.n_came / 2);
}
END_TEST

int main(void) {
    Suite *s = suite_create("models_decide");
    TCase *c = check_case(s, "models_decide");
    tcase_add_test(c, the_oldest_request_says_which_model_is_next);
    tcase_add_test(c, victims_are_the_cheapest_set_that_is_large_enough);
    tcase_add_test(c, a_busy_model_stays_as_long_as_it_took_to_load);
    tcase_add_test(c, a_victim_ends_its_requests_and_is_kept_where_nobody_waits_any_more);
    tcase_add_test(c, what_is_loaded_at_the_start_has_no_victims);
    tcase_add_loop_test(c, random_events_never_pass_the_budget_and_every_request_is_served, 0,
                        200);
    return check_run(s);
}
