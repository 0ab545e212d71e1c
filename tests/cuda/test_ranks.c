/* Ranks on devices, on the shim: processes that share a model by the stand-in for NCCL, against one engine, byte for
 * byte; and what happens where one makes another call, or is gone. */
#include "tests/cuda/engine_models.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/arrange.h"
#include "engine/follow.h"
#include "model/shard.h"

enum { SEQS = 3, PROMPT = 11, STEPS = 4, LINE = PROMPT + STEPS + 1, MAX_RANKS = 4 };
#include "tests/cuda/crowd.h"

typedef struct outcome {
    int32_t tokens[SEQS][LINE];
    size_t n;
    float logits[1 << 20];
} outcome;

/* Prompts, then one row each. False: a step failed. */
static bool generate(rig *r, outcome *out, err *e) {
    static crowd c;
    batch_seq s[SEQS];
    crowd_init(&c, r, SEQS);
    out->n = 0;
    for (uint32_t step = 0; step <= STEPS; step++) {
        const uint32_t rows = step ? 1 : PROMPT, first = step ? PROMPT + step - 1 : 0;
        for (uint32_t i = 0; i < SEQS; i++) {
            crowd_part(&c, &s[i], i, first, rows);
            s[i].first_row = i * rows;
            /* As the scheduler has it: the token of the step before. */
            if (step) s[i].input_from = (int32_t)i;
        }
        batch b = crowd_batch(s, SEQS, rows);
        step_result got;
        if (engine_submit(r->engine, &b, e) != OK || engine_collect(r->engine, &got, e) != OK)
            return false;
        crowd_take(&c, &got, SEQS, PROMPT + step);
        const size_t n = (size_t)b.n_logit_rows * r->n_vocab;
        ck_assert_uint_le(out->n + n, sizeof out->logits / sizeof *out->logits);
        memcpy(out->logits + out->n, got.logits, n * sizeof(float));
        out->n += n;
    }
    for (uint32_t i = 0; i < SEQS; i++)
        memcpy(out->tokens[i], c.tokens[i], sizeof out->tokens[i]);
    return true;
}

/* ---- a group of processes ---- */

typedef struct member {
    rig r;
    model *whole;
    group group;
    uint32_t device;
} member;

static void cut(member *m, const char *path, uint32_t rank, uint32_t n) {
    m->device = rank;
    const shard part = {.rank = rank, .n_ranks = n, .n_stages = 1};
    err e;
    ck_assert_msg(checkpoint_open(&m->r.file, path, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&m->whole, m->r.file, &e) == OK, "%s", e.text);
    ck_assert_msg(model_shard(&m->r.model, m->whole, &part, &e) == OK, "%s", e.text);
}

static status open_member(member *m, const engine_options *o, err *e) {
    m->r.opt = *o;
    m->r.opt.group = &m->group;
    m->r.opt.device = m->device;
    m->r.opt.keep_logits = m->group.rank == 0;
    m->r.n_vocab = m->r.model->program.config.n_vocab;
    ck_assert_int_eq(ledger_open_unlimited(&m->r.ledger, e), OK);
    ck_assert_int_eq(ledger_open_unlimited(&m->r.device, e), OK);
    return engine_open(&m->r.engine, &backend_cuda_ranks, m->r.model, &m->r.opt, m->r.ledger,
                       m->r.device, e);
}

static void close_member(member *m) {
    rig_close(&m->r);
    model_close(m->whole);
}

/* What the plan says of the device is what the ledger counts. */
static void check_plan(const member *m) {
    terms t = {0};
    kv_request kv = {0};
    err e;
    ck_assert_int_eq(backend_cuda_ranks.terms(&m->r.model->program, &m->r.opt, &t, &kv, &e),
                     OK);
    static const mem_class exact[] = {MEM_WEIGHTS, MEM_ACTIVATIONS, MEM_LOGITS};
    ledger_view v;
    ledger_read(m->r.device, &v);
    uint64_t workspace = 0;
    for (size_t i = 0; i < t.n; i++)
        if (t.v[i].cls == MEM_WORKSPACE && t.v[i].on_device) workspace += t.v[i].bytes;
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        ck_assert_uint_eq(v.cls[exact[i]].ledger_bytes, terms_sum(&t, exact[i]));
    ck_assert_uint_eq(v.cls[MEM_WORKSPACE].ledger_bytes, workspace);
    terms_clear(&t);
}

/* STILL: it is there and does nothing, nor does its device. SAME_DEVICE: rank 0's. */
typedef enum fault { NONE, OTHER_STEP, GONE, STILL, SAME_DEVICE } fault;

/* Another rank's process; its exit code is how the steps ended. */
static int follow_rank_0(const char *path, engine_options o, void *memory, uint64_t bytes,
                         uint32_t rank, uint32_t n, fault f) {
    static member m;
    err e;
    cut(&m, path, rank, n);
    ck_assert_msg(group_join(&m.group, memory, bytes, rank, "test", &e) == OK, "%s", e.text);
    m.group.deadline_ms = 600000;
    if (f == SAME_DEVICE) m.device = 0;
    status s = open_member(&m, &o, &e);
    if (s != OK) return 100 + (int)s;
    if (f == NONE) check_plan(&m);
    if (f == GONE) _exit(99);
    while (f == STILL) pause();
    if (f == OTHER_STEP) { /* a step of its own, which no other has */
        static crowd c;
        batch_seq x;
        step_result got;
        crowd_init(&c, &m.r, 1);
        crowd_part(&c, &x, 0, 0, PROMPT);
        const batch b = crowd_batch(&x, 1, PROMPT);
        s = engine_submit(m.r.engine, &b, &e);
        return (int)(s == OK ? engine_collect(m.r.engine, &got, &e) : s);
    }
    const tables_model t = {m.r.n_vocab, kv_groups_of(&m.r.model->program, &o).n,
                            o.block_tokens, 0};
    void *steps = aligned_alloc(64, follow_bytes(&m.r.model->program, &o, t.n_groups));
    s = follow(m.r.engine, &m.group, &t, &o, steps, m.r.ledger, &e);
    free(steps);
    close_member(&m);
    return (int)s;
}

/* Of n ranks; the last one has the fault. False: a step failed, and why. */
static bool run_ranks(const char *path, const engine_options *o, uint32_t n, fault f,
                      outcome *out, err *why) {
    static member m;
    group_shape shape;
    err e;
    pid_t pid[MAX_RANKS] = {0};
    m = (member){0};
    cut(&m, path, 0, n);
    engine_options keeps = *o;
    ck_assert_msg(cuda_group_shape(&shape, &m.r.model->program, &keeps, &e) == OK, "%s",
                  e.text);
    const uint64_t bytes = group_lay(&shape).bytes;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(memory != MAP_FAILED);
    group_init(&m.group, memory, &shape, 0, "test");
    /* The other does not come, however long; or it does, however slow the machine is. */
    m.group.deadline_ms = f == GONE || f == STILL ? 200 : 600000;
    for (uint32_t i = 1; i < n; i++) {
        pid[i] = fork();
        ck_assert_int_ge(pid[i], 0);
        if (pid[i] == 0)
            _exit(follow_rank_0(path, *o, memory, bytes, i, n, i + 1 == n ? f : NONE));
    }
    bool ok = open_member(&m, o, why) == OK;
    if (ok && f == NONE) check_plan(&m);
    ok = ok && generate(&m.r, out, why);
    close_member(&m);
    if (f == STILL) kill(pid[n - 1], SIGKILL);
    for (uint32_t i = 1; i < n; i++) {
        int code;
        ck_assert_int_eq(waitpid(pid[i], &code, 0), pid[i]);
        if (f == NONE) ck_assert_msg(WIFEXITED(code) && WEXITSTATUS(code) == 0, "rank %u", i);
    }
    munmap(memory, bytes);
    return ok;
}

/* ---- the same bits ---- */

static const struct {
    kind k;
    uint32_t n;
    bool invariant, eager;
} cases[] = {
    {{"llama", DT_F16, 4, 2, 32, 32, 16, true, ACTIVATION_AUTO, DT_F16, 0, 2, false, 0},
     2,
     0,
     0},
    {{"llama", DT_F16, 4, 2, 32, 32, 16, true, ACTIVATION_AUTO, DT_F16, 0, 2, false, 0},
     4,
     1,
     0},
    {{"qwen2", DT_Q8_0, 6, 3, 32, 32, 16, false, ACTIVATION_BF16, DT_F16, 0, 2, false, 0},
     2,
     1,
     0},
    {{"qwen3", DT_Q4_0, 6, 3, 32, 32, 16, false, ACTIVATION_F16, DT_INT8, 0, 2, false, 0},
     4,
     1,
     1},
    {{"gemma2", DT_F16, 4, 2, 32, 32, 8, true, ACTIVATION_AUTO, DT_F16, 0, 4, false, 0},
     2,
     1,
     0},
};
enum { N_CASES = sizeof cases / sizeof *cases };

START_TEST(ranks_give_the_bytes_of_one) {
    static outcome one, many;
    gb b;
    char path[64];
    rig r;
    err e;
    tiny_open(&b, path, &cases[_i].k);
    engine_options o = tiny_options(&cases[_i].k);
    o.batch_invariant = cases[_i].invariant;
    o.eager = cases[_i].eager;
    cuda_open(&r, path, &o);
    ck_assert(generate(&r, &one, &e));
    rig_close(&r);
    ck_assert_msg(run_ranks(path, &o, cases[_i].n, NONE, &many, &e), "%s", e.text);
    ck_assert_uint_eq(one.n, many.n);
    ck_assert_mem_eq(one.tokens, many.tokens, sizeof one.tokens);
    ck_assert_mem_eq(one.logits, many.logits, one.n * sizeof(float));
    gb_clear(&b);
}
END_TEST

START_TEST(a_rank_that_makes_another_call_or_none_ends_the_step) {
    static outcome out;
    gb b;
    char path[64];
    err e;
    const fault f = OTHER_STEP + (fault)_i;
    tiny_open(&b, path, &cases[0].k);
    engine_options o = tiny_options(&cases[0].k);
    ck_assert(!run_ranks(path, &o, 2, f, &out, &e));
    ck_assert_int_eq(e.code, ERR_DEVICE);
    if (f != OTHER_STEP)
        ck_assert_msg(strstr(e.text, "rank 1 of 2 did not answer within 200 ms"), "%s", e.text);
    else if (cushim_error()) /* rank 0 has found the other call */
        ck_assert_msg(strstr(cushim_error(), "has call"), "%s", cushim_error());
    else /* or rank 1 has, and rank 0 hears of it by NCCL or by its stream */
        ck_assert_msg(strstr(e.text, "NCCL, a step: result 6") ||
                          strstr(e.text, "a step on the device: unspecified launch failure"),
                      "%s", e.text);
    gb_clear(&b);
}
END_TEST

START_TEST(ranks_on_one_device_are_refused) {
    static outcome out;
    gb b;
    char path[64];
    err e;
    tiny_open(&b, path, &cases[0].k);
    engine_options o = tiny_options(&cases[0].k);
    ck_assert(!run_ranks(path, &o, 2, SAME_DEVICE, &out, &e));
    ck_assert_msg(strstr(e.text, "NCCL, joining the ranks: result 5"), "%s", e.text);
    gb_clear(&b);
}
END_TEST

START_TEST(ranks_without_memory_in_common_are_refused_by_name) {
    static member m;
    gb b;
    char path[64];
    group_shape shape;
    err e;
    tiny_open(&b, path, &cases[0].k);
    engine_options o = tiny_options(&cases[0].k);
    o.by_messages = true;
    cut(&m, path, 0, 2);
    ck_assert_int_eq(cuda_group_shape(&shape, &m.r.model->program, &o, &e), ERR_UNSUPPORTED);
    ck_assert_msg(strstr(e.text, "processes of one machine"), "%s", e.text);
    model_close(m.r.model);
    model_close(m.whole);
    checkpoint_close(m.r.file);
    gb_clear(&b);
}
END_TEST

int main(void) {
    Suite *s = suite_create("ranks");
    TCase *t = check_case(s, "ranks");
    log_init(LOG_ERROR);
    cuda_backend_use(vramd_cuda_plugin);
    cushim_set_devices(MAX_RANKS);
    tcase_add_loop_test(t, ranks_give_the_bytes_of_one, 0, N_CASES);
    tcase_add_loop_test(t, a_rank_that_makes_another_call_or_none_ends_the_step, 0, 3);
    tcase_add_test(t, ranks_on_one_device_are_refused);
    tcase_add_test(t, ranks_without_memory_in_common_are_refused_by_name);
    return check_run(s);
}
