/* The same bits on any number of ranks: engines of one process, a thread each, which share the memory of a
 * group, or have copies of it and messages, against one engine. And what meetings do where a rank does not come. */
#include "tests/engine/engine_rig.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/follow.h"
#include "engine/link.h"
#include "model/shard.h"
#include "tests/engine/thread_wire.h"
#include "tests/model/gguf_build.h"

enum { MAX_RANKS = 8, N_TOKENS = 37, N_STEPS = 4 };

/* ---- a group of threads ---- */

typedef struct member {
    model *model;
    ledger *ledger;
    engine *engine;
    group group;
    engine_options opt;
    void *steps; /* memory of follow */
    void *copy;  /* by messages: of the group's memory */
    group_link *link;
    pthread_t thread;
    status s;
    err error;
} member;

typedef struct ranks {
    member m[MAX_RANKS];
    uint32_t n, n_stages, depth; /* n: of all stages */
    bool by_messages;
    void *memory;
    thread_wires wires;
} ranks;

static void *follow_rank_0(void *arg) {
    member *m = arg;
    const tables_model t = {m->model->program.config.n_vocab,
                            ((cpu_engine *)m->engine)->layout.groups.n, m->opt.block_tokens,
                            engine_states(&m->model->program, &m->opt)};
    m->s = follow(m->engine, &m->group, &t, &m->opt, m->steps, m->ledger, &m->error);
    return NULL;
}

/* Rank i of all stages. */
static void cut_member(ranks *r, uint32_t i, const model *whole) {
    const uint32_t n = r->n / r->n_stages;
    const shard part = {.rank = i % n, .n_ranks = n, .stage = i / n, .n_stages = r->n_stages};
    err e;
    ck_assert_msg(model_shard(&r->m[i].model, whole, &part, &e) == OK, "%s", e.text);
}

/* Values that no rank has written are NaN. */
static void *poisoned(const group_place *at) {
    unsigned char *p = aligned_alloc(4096, at->bytes);
    ck_assert_ptr_nonnull(p);
    memset(p, 0xff, at->bytes);
    memset(p, 0, at->stages);
    return p;
}

/* A rank's copy of the memory; rank 0 has said the sizes before. */
static void attach(ranks *r, uint32_t i, group_shape *shape) {
    member *m = &r->m[i];
    err e;
    ck_assert_int_eq(link_open(&m->link, &r->wires.wire[i], "test", &e), OK);
    if (i) ck_assert_msg(link_await_shape(m->link, shape, &e) == OK, "%s", e.text);
    const group_place at = group_lay(shape);
    m->copy = poisoned(&at);
    group_init(&m->group, m->copy, shape, i, "test");
    ck_assert_int_eq(link_attach(m->link, &m->group, &e), OK);
}

static void attach_all(ranks *r, group_shape *shape) {
    err e;
    thread_wires_init(&r->wires, r->n);
    for (uint32_t i = 0; i < r->n; i++) attach(r, i, shape);
    ck_assert_msg(link_await_attached(r->m[0].link, &e) == OK, "%s", e.text);
}

/* The memory, by the programs of each stage's first rank. */
static void make_memory(ranks *r, const engine_options *o) {
    group_shape shape;
    err e;
    for (uint32_t i = 0; i < r->n; i += r->n / r->n_stages)
        ck_assert_msg(cpu_group_shape(&shape, &r->m[i].model->program, o, &e) == OK, "%s",
                      e.text);
    const group_place at = group_lay(&shape);
    uint64_t shares = 0;
    r->by_messages = shape.by_messages;
    if (r->by_messages) {
        attach_all(r, &shape);
        return;
    }
    for (uint32_t i = 0; i < r->n; i++)
        for (int c = 0; c < MEM_N_CLASSES; c++) shares += group_share(&shape, i, (mem_class)c);
    ck_assert_uint_eq(shares, at.bytes);
    r->memory = poisoned(&at);
    group_init(&r->m[0].group, r->memory, &shape, 0, "test");
}

static void open_member(ranks *r, uint32_t i, const engine_options *o) {
    member *m = &r->m[i];
    err e;
    if (i && !r->by_messages) {
        const uint64_t n = r->m[0].group.at.bytes;
        ck_assert_msg(group_join(&m->group, r->memory, n, i, "test", &e) == OK, "%s", e.text);
    }
    m->opt = *o;
    m->opt.group = &m->group;
    m->opt.keep_logits = i == 0;
    ck_assert_msg(ledger_open_unlimited(&m->ledger, &e) == OK, "%s", e.text);
    ck_assert_msg(engine_open(&m->engine, &backend_cpu_ranks, m->model, &m->opt, m->ledger,
                              NULL, &e) == OK,
                  "rank %u: %s", i, e.text);
    if (i == 0) return;
    const uint64_t bytes =
        follow_bytes(&m->model->program, o, ((cpu_engine *)m->engine)->layout.groups.n);
    m->steps = aligned_alloc(64, bytes);
    ck_assert_ptr_nonnull(m->steps);
    ck_assert_int_eq(pthread_create(&m->thread, NULL, follow_rank_0, m), 0);
}

/* n of each stage. */
static void open_ranks(ranks *r, uint32_t n, uint32_t n_stages, const model *whole,
                       const engine_options *opt) {
    engine_options o = *opt;
    o.depth = n_stages > 1 ? GROUP_MAX_DEPTH : 1;
    *r = (ranks){.n = n * n_stages, .n_stages = n_stages, .depth = o.depth};
    ck_assert_uint_le(r->n, MAX_RANKS);
    for (uint32_t i = 0; i < r->n; i++) cut_member(r, i, whole);
    make_memory(r, &o);
    for (uint32_t i = 0; i < r->n; i++) open_member(r, i, &o);
}

/* others: how their steps ended. */
static void close_ranks(ranks *r, status others) {
    for (uint32_t i = 0; i < r->n; i++) {
        if (i) pthread_join(r->m[i].thread, NULL); /* rank 0's engine has ended the group */
        ck_assert_msg(i == 0 || r->m[i].s == others, "rank %u: %s", i, r->m[i].error.text);
        engine_close(r->m[i].engine);
        free(r->m[i].steps);
        link_close(r->m[i].link, others == OK, NULL);
        free(r->m[i].copy);
        ledger_close(r->m[i].ledger);
        model_close(r->m[i].model);
    }
    free(r->memory);
    if (r->by_messages) thread_wires_clear(&r->wires);
}

/* What each rank's engine holds, beside its share of the group's memory, is what its terms say. */
static void check_plan(const char *name, const ranks *r) {
    for (uint32_t i = 0; i < r->n; i++) {
        const member *m = &r->m[i];
        const group_shape *shape = &group_head_of(&m->group)->shape;
        const cpu_engine *e = (const cpu_engine *)m->engine;
        terms t = {0};
        kv_request kv = {0};
        ledger_view v;
        err why;
        ck_assert_int_eq(backend_cpu_ranks.terms(&m->model->program, &m->opt, &t, &kv, &why),
                         OK);
        ledger_read(m->ledger, &v);
        for (int c = 0; c < MEM_N_CLASSES; c++) {
            const uint64_t steps =
                i && c == MEM_WORKSPACE
                    ? follow_bytes(&m->model->program, &m->opt, e->layout.groups.n)
                    : 0;
            const uint64_t held =
                v.cls[c].ledger_bytes + group_share(shape, i, (mem_class)c) + steps;
            if (c == MEM_KV || c == MEM_LOADING) continue; /* by its blocks; over */
            ck_assert_msg(held == terms_sum(&t, (mem_class)c),
                          "%s, rank %u of %u, %u stages%s: class %s: planned %llu, held %llu",
                          name, i, r->n, r->n_stages, r->by_messages ? ", by messages" : "",
                          mem_class_name((mem_class)c),
                          (unsigned long long)terms_sum(&t, (mem_class)c),
                          (unsigned long long)held);
        }
        terms_clear(&t);
    }
}

static void submit(ranks *r, const batch *b) {
    err e;
    ck_assert_msg(engine_submit(r->m[0].engine, b, &e) == OK, "%s", e.text);
}

static step_result collect(ranks *r) {
    step_result out = {0};
    err e;
    ck_assert_msg(engine_collect(r->m[0].engine, &out, &e) == OK, "%s", e.text);
    return out;
}

/* ---- the same bits ---- */

/* A prompt in two chunks, then a second sequence beside decoding; logits of all rows. */
typedef struct script {
    int32_t tokens[2][N_TOKENS + 1], table[2][4];
    batch_seq seq[2];
    batch b;
} script;

static const sampling greedy = {.temperature = 0, .top_p = 1, .n_logprobs = -1};

static void fill_script(script *s, uint32_t step, const rig *r) {
    static const uint32_t at[4] = {0, 20, 36, 37}, n[4] = {20, 16, 1, 1};
    s->b = (batch){.seq = s->seq, .n_seqs = step < 2 ? 1 : 2};
    for (uint32_t i = 0; i < s->b.n_seqs; i++) {
        const uint32_t first = i ? (step == 2 ? 0 : 11) : at[step];
        const uint32_t rows = i ? (step == 2 ? 11 : 1) : n[step];
        const uint32_t blocks = (uint32_t)ceil_div(first + rows, r->opt.block_tokens);
        const int32_t *t = s->table[i];
        s->seq[i] = (batch_seq){.first_row = s->b.n_rows,
                                .n_rows = rows,
                                .first_pos = first,
                                .tokens = s->tokens[i],
                                .input_from = -1,
                                .blocks = {t, t, t, t},
                                .n_blocks = {blocks, blocks, blocks, blocks},
                                .n_logit_rows = rows,
                                .sample = true,
                                .n_score = -1,
                                .params = &greedy,
                                .n_prompt = first + rows,
                                .state = i};
        s->b.n_rows += rows;
        s->b.n_logit_rows += rows;
    }
}

static void init_script(script *s, const rig *r) {
    for (uint32_t i = 0; i < 2; i++) {
        rig_tokens(r, s->tokens[i], N_TOKENS + 1, 7 + i);
        rig_table(r, s->table[i], i, 4, 5);
    }
}

/* A step as one engine computes it. */
typedef struct wanted {
    script s;
    float *logits;
    size_t bytes;
    sampled drawn[2];
} wanted;

static void single(rig *r, wanted *w, uint32_t step) {
    step_result out;
    err e;
    init_script(&w->s, r);
    fill_script(&w->s, step, r);
    ck_assert_msg(engine_submit(r->engine, &w->s.b, &e) == OK, "%s", e.text);
    ck_assert_int_eq(engine_collect(r->engine, &out, &e), OK);
    w->bytes = sizeof(float) * w->s.b.n_logit_rows * r->n_vocab;
    w->logits = malloc(w->bytes);
    ck_assert_ptr_nonnull(w->logits);
    memcpy(w->logits, out.logits, w->bytes);
    memcpy(w->drawn, out.token, w->s.b.n_seqs * sizeof *w->drawn);
}

static void check_step(const char *name, ranks *all, const wanted *w, uint32_t step) {
    const step_result got = collect(all);
    ck_assert_msg(memcmp(got.logits, w->logits, w->bytes) == 0,
                  "%s on %u ranks, %u stages, %u threads%s: step %u has other bits", name,
                  all->n, all->n_stages, all->m[0].opt.n_threads,
                  all->by_messages ? ", by messages" : "", step);
    for (uint32_t i = 0; i < w->s.b.n_seqs; i++)
        ck_assert_int_eq(got.token[i].token, w->drawn[i].token);
}

/* n ranks of each stage; with stages the next step is submitted before one is collected. */
static void compare(const char *name, rig *r, uint32_t n, uint32_t n_stages, uint32_t threads) {
    engine_options o = r->opt;
    wanted w[N_STEPS];
    ranks all;
    o.n_threads = threads;
    rig_poison(r);
    for (uint32_t i = 0; i < N_STEPS; i++) single(r, &w[i], i);
    open_ranks(&all, n, n_stages, r->model, &o);
    check_plan(name, &all);
    for (uint32_t i = 0; i < N_STEPS; i++) {
        submit(&all, &w[i].s.b);
        if (i + 1 >= all.depth)
            check_step(name, &all, &w[i + 1 - all.depth], i + 1 - all.depth);
    }
    for (uint32_t i = N_STEPS + 1 - all.depth; i < N_STEPS; i++)
        check_step(name, &all, &w[i], i);
    close_ranks(&all, OK);
    for (uint32_t i = 0; i < N_STEPS; i++) free(w[i].logits);
}

/* The most ranks up to MAX_RANKS that a model can be cut into, by the query heads of its layers. */
static uint32_t most_ranks(const program *p) {
    uint32_t n = MAX_RANKS;
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == OP_ATTENTION && p->ops[i].heads.n_heads < n)
            n = p->ops[i].heads.n_heads;
    return n;
}

/* Else it says why not, by name. */
static bool can_cut(const char *name, const model *m, const shard *part) {
    model *own;
    err e;
    if (model_shard(&own, m, part, &e) == OK) {
        model_close(own);
        return true;
    }
    ck_assert_msg(e.code == ERR_UNSUPPORTED && e.field[0], "%s: %s", name, e.text);
    printf("%s: %s\n", name, e.text);
    return false;
}

static void check_stages(const char *name, rig *r, bool tensor) {
    const uint32_t n_layers = r->model->program.config.n_layers;
    for (uint32_t n = 2; n <= 4 && n <= n_layers; n++) {
        const shard part = {.n_ranks = 1, .n_stages = n};
        if (!can_cut(name, r->model, &part)) continue;
        compare(name, r, 1, n, n == 2 ? 2 : 1);
        if (n == 2 && tensor) compare(name, r, 2, 2, 1);
    }
}

static void check_model(const char *name, const char *path, engine_options o) {
    static const uint32_t counts[] = {2, 3, 4, 8};
    rig r;
    o.n_threads = 2;
    rig_open(&r, path, &o);
    r.opt.by_messages = o.by_messages;
    const uint32_t most = most_ranks(&r.model->program);
    const bool tensor = can_cut(name, r.model, &(shard){.n_ranks = 2});
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (tensor && counts[i] <= most)
            compare(name, &r, counts[i], 1, counts[i] == 2 ? 2 : 1);
    check_stages(name, &r, tensor);
    if (tensor) printf("%s: the same bits on up to %u ranks\n", name, most);
    rig_close(&r);
}

static const char *const families[] = {
    "qwen3",     "phi3",     "gemma3",     "gemma2",           "smollm3",   "ministral3",
    "olmo2",     "olmo3",    "glm4",       "granite",          "gemma4",    "mixtral",
    "qwen2moe",  "qwen3moe", "granitemoe", "granitemoeshared", "gemma4moe", "glm4moe",
    "gpt-oss",   "lfm2",     "qwen35",     "deepseek2",        "deepseek3", "granitehybrid",
    "nemotron_h"};
enum { N_FAMILIES = sizeof families / sizeof *families };

START_TEST(ranks_give_the_bits_of_one) {
    char path[96];
    snprintf(path, sizeof path, "tests/golden/families/%s.gguf", families[_i]);
    engine_options o = rig_options();
    o.max_model_len = 64;
    check_model(families[_i], path, o);
    o.activations = ACTIVATION_F32;
    o.kv_k = o.kv_v = DT_F32;
    check_model(families[_i], path, o);
}
END_TEST

/* What is not written is not read, either: with every type of activations and of the cache. */
START_TEST(options_change_nothing) {
    static const struct {
        activation_dtype a;
        dtype k, v;
        bool unfused;
    } of[] = {{ACTIVATION_BF16, DT_BF16, DT_BF16, false},
              {ACTIVATION_INT8, DT_INT8, DT_INT8, false},
              {ACTIVATION_INT8, DT_F16, DT_F16, true},
              {ACTIVATION_INT8, DT_INT8, DT_INT4, false}};
    engine_options o = rig_options();
    o.max_model_len = 64;
    o.activations = of[_i].a;
    o.kv_k = of[_i].k;
    o.kv_v = of[_i].v;
    o.unfused = of[_i].unfused;
    check_model("qwen3", "tests/golden/families/qwen3.gguf", o);
}
END_TEST

/* Shapes that no number of ranks divides: heads, outputs and vocabulary. */
START_TEST(odd_shapes_give_the_bits_of_one) {
    static const struct {
        const char *arch;
        dtype type;
        uint32_t heads, kv_heads, head_dim, n_embd, n_ff, n_vocab;
        bool tied;
    } of[] = {{"llama", DT_F32, 9, 3, 24, 72, 104, 131, true},
              {"llama", DT_Q8_0, 9, 3, 32, 96, 160, 131, false},
              {"qwen2", DT_Q4_0, 8, 1, 16, 128, 288, 259, true},
              {"qwen3", DT_Q4_1, 11, 11, 32, 64, 96, 97, false},
              {"mixtral", DT_Q8_0, 10, 5, 32, 96, 160, 131, false},
              {"phi3", DT_F16, 12, 4, 40, 96, 200, 77, false}};
    const bool moe = strcmp(of[_i].arch, "mixtral") == 0;
    model_config c = gb_tiny(moe ? "llama" : of[_i].arch);
    char path[64], name[64];
    gb b;
    c.n_heads = of[_i].heads, c.n_kv_heads = of[_i].kv_heads, c.head_dim = of[_i].head_dim;
    c.rope.n_dims = c.head_dim;
    c.n_embd = of[_i].n_embd, c.n_ff = of[_i].n_ff, c.n_vocab = of[_i].n_vocab;
    c.tied_head = of[_i].tied;
    if (moe) c.n_experts = 5, c.n_experts_used = 2, c.experts_norm = true;
    gb_init(&b);
    gb_model_keys(&b, &c);
    gb_model_tensors(&b, &c, of[_i].type, 7);
    gb_open(&b, path);
    snprintf(name, sizeof name, "%s of %u heads", c.arch, c.n_heads);
    engine_options o = rig_options();
    o.max_model_len = 64;
    if (c.n_embd % 32 || c.n_ff % 32 || c.n_heads * c.head_dim % 32)
        o.activations = ACTIVATION_F32;
    check_model(name, path, o);
    gb_clear(&b);
}
END_TEST

/* Ranks that have no memory in common: dense layers, and a mixture of experts. */
START_TEST(messages_give_the_bits_of_one) {
    static const char *const of[] = {"qwen3", "gemma3", "qwen3moe", "gpt-oss", "lfm2"};
    char path[96];
    snprintf(path, sizeof path, "tests/golden/families/%s.gguf", of[_i]);
    engine_options o = rig_options();
    o.max_model_len = 64;
    o.by_messages = true;
    check_model(of[_i], path, o);
    o.activations = ACTIVATION_F32;
    o.kv_k = o.kv_v = DT_F32;
    check_model(of[_i], path, o);
}
END_TEST

START_TEST(the_real_model_on_two_ranks) {
    const char *path = getenv("VRAMD_TEST_MODEL");
    if (!path) return;
    rig r;
    engine_options o = rig_options();
    rig_open(&r, path, &o);
    compare(path, &r, 2, 1, 1);
    if (!RIG_SANITIZED) compare(path, &r, 3, 1, 1);
    compare(path, &r, 1, 2, 1);
    r.opt.by_messages = true; /* rows of logits that are longer than a message */
    compare(path, &r, 2, 1, 1);
    rig_close(&r);
}
END_TEST

/* ---- a rank that does not come ---- */

/* Memory of a group of two, which is not of a model, and rank 0's side of it. */
static void *small_group(group *g, uint32_t n_stages, uint64_t *bytes) {
    const group_shape s = {.n_ranks = 2,
                           .n_stages = n_stages,
                           .depth = 1,
                           .step_bytes = 64,
                           .stage[0] = {.values_bytes = 64, .sent_bytes = 64}};
    *bytes = group_lay(&s).bytes;
    void *memory = aligned_alloc(4096, *bytes);
    ck_assert_ptr_nonnull(memory);
    memset(memory, 0, *bytes);
    group_init(g, memory, &s, 0, "1.0");
    g->deadline_ms = 100;
    return memory;
}

/* Of a meeting, and of what a stage sends. */
START_TEST(a_wait_has_a_deadline) {
    group g, other;
    uint64_t n;
    err e;
    void *memory = small_group(&g, 1 + (uint32_t)_i, &n);
    const uint64_t start = clock_us();
    ck_assert(_i ? !group_receive(&g, 1, 1) : !group_meet(&g));
    const uint64_t took = clock_us() - start;
    /* Its own deadline is kept, and not the usual one. */
    ck_assert_msg(took >= 90000 && took < GROUP_DEADLINE_MS * 1000u - 1000000, "%llu us",
                  (unsigned long long)took);
    ck_assert_int_eq(group_error(&g, &e), ERR_DEVICE);
    ck_assert_str_eq(e.text, "rank 1 of 2 did not answer within 100 ms");
    /* It comes too late, and learns it at once. */
    ck_assert_int_eq(group_join(&other, memory, n, 1, "1.0", &e), OK);
    ck_assert(_i ? !group_receive(&other, 0, 1) : !group_meet(&other));
    ck_assert_uint_eq(group_await(&other), 0);
    free(memory);
}
END_TEST

static void *work_slowly(void *arg) {
    group *g = arg;
    for (int i = 0; i < 15; i++) {
        group_beat(g);
        usleep(100000);
    }
    group_send(g);
    return NULL;
}

/* Who is at work is not given up, however long it takes. */
START_TEST(a_slow_stage_is_waited_for) {
    group g, other;
    uint64_t n;
    err e;
    pthread_t t;
    void *memory = small_group(&g, 2, &n);
    g.deadline_ms = 1000; /* ten times what lies between two signs of life */
    ck_assert_int_eq(group_join(&other, memory, n, 1, "1.0", &e), OK);
    ck_assert_int_eq(pthread_create(&t, NULL, work_slowly, &other), 0);
    ck_assert(group_receive(&g, 1, 1));
    pthread_join(t, NULL);
    free(memory);
}
END_TEST

/* A rank that waits for its device, and looks. */
START_TEST(a_look_gives_up_who_does_nothing) {
    group g, other;
    uint64_t n;
    err e;
    void *memory = small_group(&g, 1, &n);
    ck_assert_int_eq(group_join(&other, memory, n, 1, "1.0", &e), OK);
    ck_assert(group_look(&g, true));
    for (int i = 0; i < 50; i++) { /* of five deadlines: it is at work before each look */
        usleep(10000);
        group_beat(&other);
        ck_assert(group_look(&g, false));
    }
    g.deadline_ms =
        400; /* time in which the one that looks was stopped counts half of it at most */
    ck_assert(group_look(&g, true));
    usleep(800000);
    ck_assert(group_look(&g, false));
    while (group_look(&g, false)) usleep(1000);
    ck_assert_int_eq(group_error(&g, &e), ERR_DEVICE);
    ck_assert_str_eq(e.text, "rank 1 of 2 did not answer within 400 ms");
    ck_assert(!group_look(&other, true));
    free(memory);
}
END_TEST

/* A step that is cut short, or is none, ends the group at once and is not computed. */
START_TEST(a_step_that_is_not_right_breaks_the_group) {
    engine_options o = rig_options();
    ranks all;
    script s;
    rig r;
    err e;
    o.max_model_len = 64;
    rig_open(&r, "tests/golden/families/qwen3.gguf", &o);
    open_ranks(&all, 2, 1, r.model, &o);
    init_script(&s, &r);
    fill_script(&s, 0, &r);
    submit(&all, &s.b);
    collect(&all);
    group *g = &all.m[0].group;
    tables_head *h = group_step_at(g, 1);
    const uint64_t bytes = h->bytes;
    if (_i == 1) h->version++;
    if (_i == 2) h->n_rows++;
    const uint64_t start = clock_us();
    group_post(g, _i == 0 ? bytes - 64 : bytes);
    ck_assert(!group_meet(g));
    /* At once, which takes a millisecond, and not at the deadline. */
    ck_assert_uint_lt(clock_us() - start, GROUP_DEADLINE_MS * 1000u - 1000000);
    ck_assert_int_eq(engine_submit(all.m[0].engine, &s.b, &e), ERR_DEVICE);
    ck_assert_ptr_nonnull(strstr(e.text, "the tables of a step"));
    close_ranks(&all, ERR_DEVICE);
    rig_close(&r);
}
END_TEST

/* ---- messages ---- */

/* Until the link says what is wrong. */
static void await_loss(const group_link *l, status code, const char *text) {
    err e;
    while (link_error(l, &e) == OK) usleep(1000);
    ck_assert_int_eq(e.code, code);
    ck_assert_msg(strstr(e.text, text) != NULL, "%s", e.text);
}

/* Before there is a group, and at any time after. */
START_TEST(a_silent_rank_is_missed) {
    thread_wires all;
    group_link *l;
    group_shape s;
    err e;
    thread_wires_init(&all, 2);
    ck_assert_int_eq(link_open(&l, &all.wire[1], "1.0", &e), OK);
    ck_assert_int_eq(link_await_shape(l, &s, &e), ERR_DEVICE);
    ck_assert_str_eq(e.text, "rank 0 of 2 did not answer within 4000 ms");
    link_close(l, true, NULL);
    thread_wires_clear(&all);
}
END_TEST

START_TEST(two_versions_are_no_group) {
    thread_wires all;
    group_link *a, *b;
    err e;
    thread_wires_init(&all, 2);
    ck_assert_int_eq(link_open(&a, &all.wire[0], "1.0", &e), OK);
    ck_assert_int_eq(link_open(&b, &all.wire[1], "1.1", &e), OK);
    await_loss(a, ERR_UNAVAILABLE,
               "rank 1 is vramd 1.1 (group version 3), and rank 0 vramd 1.0");
    await_loss(b, ERR_UNAVAILABLE,
               "rank 0 is vramd 1.0 (group version 3), and rank 1 vramd 1.1");
    link_close(b, false, NULL);
    link_close(a, false, NULL);
    thread_wires_clear(&all);
}
END_TEST

/* Two stages of no model, and the messages between them. */
typedef struct pair {
    thread_wires all;
    group g[2];
    group_link *l[2];
} pair;

static void open_pair(pair *p) {
    const group_shape shape = {.n_ranks = 2,
                               .n_stages = 2,
                               .depth = 1,
                               .by_messages = 1,
                               .step_bytes = 64,
                               .stage[0] = {.values_bytes = 64, .sent_bytes = 64}};
    const group_place at = group_lay(&shape);
    group_shape said;
    err e;
    thread_wires_init(&p->all, 2);
    for (uint32_t i = 0; i < 2; i++) {
        ck_assert_int_eq(link_open(&p->l[i], &p->all.wire[i], "1.0", &e), OK);
        if (i) ck_assert_int_eq(link_await_shape(p->l[i], &said, &e), OK);
        group_init(&p->g[i], poisoned(&at), &shape, i, "1.0");
        ck_assert_int_eq(link_attach(p->l[i], &p->g[i], &e), OK);
    }
    ck_assert_int_eq(link_await_attached(p->l[0], &e), OK);
}

static void close_pair(pair *p) {
    for (uint32_t i = 0; i < 2; i++) {
        link_close(p->l[i], false, NULL);
        free(p->g[i].base);
    }
    thread_wires_clear(&p->all);
}

/* What another may not write is not written: rank 1 of two stages has no step to say. */
START_TEST(a_rank_writes_what_is_its_own) {
    static pair p;
    open_pair(&p);
    unsigned char *step = group_step_at(&p.g[1], 1);
    memset(step, 7, 64);
    p.g[1].via->put(&p.g[1], GROUP_ALL, step, 1, 64, 64);
    group_say(&p.g[1], GROUP_READY, NULL);
    await_loss(p.l[0], ERR_DEVICE, "rank 1 of 2 has sent a message that is not right");
    ck_assert_int_ne(*(unsigned char *)group_step_at(&p.g[0], 1), 7);
    ck_assert(group_is_broken(&p.g[0]));
    close_pair(&p);
}
END_TEST

/* It is there when its reader goes on, however many messages it is. */
START_TEST(a_note_comes_before_the_word) {
    static pair p;
    err e;
    open_pair(&p);
    unsigned char *note = p.g[0].base + p.g[0].at.note;
    for (uint32_t i = 0; i < GROUP_NOTE_BYTES; i++) note[i] = (unsigned char)(i * 7 + i / 256);
    p.g[0].via->put(&p.g[0], GROUP_ALL, note, 1, GROUP_NOTE_BYTES, GROUP_NOTE_BYTES);
    group_say(&p.g[0], GROUP_READY, NULL);
    ck_assert_int_eq(link_await_note(p.l[1], &e), OK);
    ck_assert_int_eq(memcmp(p.g[1].base + p.g[1].at.note, note, GROUP_NOTE_BYTES), 0);
    ck_assert_int_eq(link_error(p.l[1], &e), OK);
    close_pair(&p);
}
END_TEST

/* Whoever closes without the others says why, with the code that the process ends with. */
START_TEST(who_leaves_says_why) {
    static pair p;
    err why, e;
    open_pair(&p);
    err_set(&why, ERR_NOT_FOUND, "there is no model.gguf");
    link_close(p.l[_i], false, &why);
    p.l[_i] = NULL;
    await_loss(p.l[1 - _i], ERR_NOT_FOUND, "there is no model.gguf");
    ck_assert_int_eq(link_await_note(p.l[1 - _i], &e), ERR_NOT_FOUND);
    ck_assert(group_is_broken(&p.g[1 - _i]));
    ck_assert(!group_meet(&p.g[1 - _i]));
    close_pair(&p);
}
END_TEST

START_TEST(another_version_does_not_join) {
    group g, other;
    uint64_t n;
    err e;
    void *memory = small_group(&g, 1, &n);
    group_head *h = group_head_of(&g);
    ck_assert_int_eq(group_join(&other, memory, n, 1, "1.1", &e), ERR_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(e.text, "rank 1 is vramd 1.1"));
    ck_assert_int_eq(group_join(&other, memory, n - 4096, 1, "1.0", &e), ERR_UNAVAILABLE);
    ck_assert_int_eq(group_join(&other, memory, n, 2, "1.0", &e), ERR_UNAVAILABLE);
    h->shape.n_stages = 0;
    ck_assert_int_eq(group_join(&other, memory, n, 1, "1.0", &e), ERR_UNAVAILABLE);
    h->shape.n_stages = 1;
    h->version++;
    ck_assert_int_eq(group_join(&other, memory, n, 1, "1.0", &e), ERR_UNAVAILABLE);
    h->magic = 0;
    ck_assert_int_eq(group_join(&other, memory, n, 1, "1.0", &e), ERR_UNAVAILABLE);
    free(memory);
}
END_TEST

int main(void) {
    Suite *s = suite_create("ranks");
    TCase *t = check_case(s, "ranks");
    tcase_add_loop_test(t, ranks_give_the_bits_of_one, 0, N_FAMILIES);
    tcase_add_loop_test(t, options_change_nothing, 0, 4);
    tcase_add_loop_test(t, odd_shapes_give_the_bits_of_one, 0, 6);
    tcase_add_loop_test(t, messages_give_the_bits_of_one, 0, 5);
    tcase_add_test(t, the_real_model_on_two_ranks);
    TCase *w = check_case(s, "waits");
    tcase_add_loop_test(w, a_wait_has_a_deadline, 0, 2);
    tcase_add_test(w, a_slow_stage_is_waited_for);
    tcase_add_test(w, a_look_gives_up_who_does_nothing);
    tcase_add_loop_test(w, a_step_that_is_not_right_breaks_the_group, 0, 3);
    tcase_add_test(w, another_version_does_not_join);
    tcase_add_test(w, a_silent_rank_is_missed);
    tcase_add_test(w, two_versions_are_no_group);
    tcase_add_test(w, a_rank_writes_what_is_its_own);
    tcase_add_test(w, a_note_comes_before_the_word);
    tcase_add_loop_test(w, who_leaves_says_why, 0, 2);
    return check_run(s);
}
