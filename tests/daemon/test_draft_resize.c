/* A budget that moves while a draft model is loaded: its pool goes with that of the model's. */
#include "base/log.h"
#include "daemon/bridge/bridge_resize.h"
#include "tests/check_main.h"
#include "tests/daemon/daemon_rig.h"
#include "tests/daemon/model_rig.h"

static void move_budget(uint64_t bytes) {
    budget_view v;
    port *p = bridge_port(r.bridge);
    err e;
    ck_assert_msg(p->ops->resize(p, bytes, NULL, NULL, &e) == OK, "%s", e.text);
    for (resize_view(r.bridge, &v); v.resizing; resize_view(r.bridge, &v))
        uv_run(&r.loop, UV_RUN_ONCE);
}

static uint64_t smallest_budget(void) {
    budget_view v;
    resize_view(r.bridge, &v);
    return v.smallest_bytes;
}

/* A byte of the class that is none of the plan's. */
static void hold_a_byte(void) {
    ledger_set_budget(r.m.ledger, r.m.plan.budget_bytes + 1, MEM_KV,
                      terms_sum(&r.m.plan.terms, MEM_KV) + 1);
    ck_assert(ledger_reserve(r.m.ledger, MEM_KV, 1));
}

static const family *family_named(const char *arch) {
    size_t i = 0;
    while (strcmp(family_at(i)->arch, arch) != 0) i++;
    return family_at(i);
}

static void open_with_draft(gb *b, const char *arch) {
    const machine_wish w = {.extra = serving_terms};
    char path[64];
    err e;
    model_rig_make(b, family_named(arch), path);
    options o = base_options(path);
    snprintf(o.draft_model, sizeof o.draft_model, "%s", path);
    memset(&r, 0, sizeof r);
    ck_assert_msg(machine_plan(&r.m, &o, &w, &e) == OK, "%s", e.text);
    open_daemon(arch);
    compare(arch);
}

/* Both pools as the plan says, which where growing ended early is what there is; how many blocks each has. */
static uint32_t blocks_of_both(void) {
    ledger_view v;
    ledger_read(r.m.ledger, &v);
    const uint64_t planned = r.m.plan.kv_bytes + terms_sum(&r.m.fixed, MEM_KV);
    ck_assert_uint_eq(v.cls[MEM_KV].plan_bytes, planned);
    ck_assert_uint_eq(v.cls[MEM_KV].ledger_bytes, planned);
    ck_assert_uint_eq(r.m.plan.group_blocks[r.m.draft.group],
                      r.m.plan.group_blocks[r.m.draft.pool]);
    return r.m.plan.group_blocks[r.m.draft.pool];
}

/* With the byte that is held the model's pool can grow, and then not the draft model's. */
static void check_pool_that_cannot_grow(const char *arch) {
    gb b;
    open_with_draft(&b, arch);
    const uint64_t full = r.m.plan.budget_bytes;
    const uint32_t all = blocks_of_both();
    move_budget(smallest_budget());
    const uint32_t few = blocks_of_both();
    ck_assert_uint_lt(few, all);
    hold_a_byte();
    move_budget(full);
    ledger_release(r.m.ledger, MEM_KV, 1);
    ck_assert_uint_eq(blocks_of_both(), few);
    move_budget(full);
    ck_assert_uint_gt(blocks_of_both(), few);
    close_daemon();
    machine_close(&r.m);
    gb_clear(&b);
}

START_TEST(the_ledger_holds_what_is_planned_where_the_pool_cannot_grow) {
    log_init(LOG_ERROR);
    check_pool_that_cannot_grow("llama");
    check_pool_that_cannot_grow("gemma3");
}
END_TEST

CHECK_MAIN("draft_resize", the_ledger_holds_what_is_planned_where_the_pool_cannot_grow)
