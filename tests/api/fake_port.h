/* A machine made of a timer, for tests of the front end: it says a fixed text, one byte a
 * token, honours credits, stop ids and cancellation, and counts what it is asked. The server
 * runs in a thread of its own with a real uv loop; the test is the client, on real sockets. All
 * functions are static. Use:
 *
 *     fake f;
 *     fake_init(&f);             change f.says, f.opt, ... then
 *     fake_start(&f);
 *     reply r = fake_get(&f, "/health");       r.status, r.head, r.body
 *     fake_stop(&f);             drains; checks that no byte and no generation is left
 */
#ifndef VRAMD_TESTS_API_FAKE_PORT_H
#define VRAMD_TESTS_API_FAKE_PORT_H

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/http.h"
#include "api/server.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "tests/check_main.h"
#include "tests/json.h"
#include "tests/model/gguf_build.h"

#define FAKE_UNUSED __attribute__((unused))

enum { FAKE_GENS = 256, FAKE_IM_START = 256, FAKE_IM_END, FAKE_EOS, FAKE_MERGED, FAKE_N_VOCAB };

struct gen {
    gen_spec spec;
    bool live, cancelled;
    gen_finish why;
    uint32_t n_out, owed, n_scored;
    uint64_t born_us;
};

typedef struct fake {
    port port; /* first */
    server_options opt;
    const char *says;                       /* the text; its end is the end of the sequence */
    uint32_t step_ms, per_step, prefill_ms; /* a step makes per_step tokens for each */
    uint32_t capacity;                      /* generations at once; more are ERR_BUSY */
    uint64_t budget_tokens;                 /* more is ERR_BUDGET; 0: no limit */
    bool fail_after_first;                  /* GEN_ERROR once a token is out */
    uint64_t pool_want, http_limit;
    sched_miss miss; /* of requests with a receipt */
    char forgot[64]; /* the salt of the last call of forget; "*": all */
    size_t n_forgot; /* its bytes */
    bool forget_fails;
    kv_tier_view tier;
    double joules; /* of a sequence with weigh; 0: not known */
    bool device;   /* the engine computes on a device, with a ledger of its own */
    const char *chat_template, *model_id, *model_names;
    _Atomic(const char *) not_ready;
    atomic_uint n_pictures;
    atomic_uint n_submitted, n_cancelled, n_live, n_credited, max_owed, n_offloaded;
    gen gens[FAKE_GENS];
    uint64_t last_seed[FAKE_GENS];
    server *server;
    plan plan;
    uv_loop_t loop;
    uv_async_t quit;
    uv_timer_t step;
    atomic_bool drained, abort_now;
    pthread_t thread;
    checkpoint *file;
    char byte_text[256][3];
    tokenizer *tok;
    void *index_mem;
    chat_templates chat;
} fake;

/* ---- the vocabulary: id = byte, then three specials, and one merge (QZ) ---- */

static FAKE_UNUSED void fake_vocabulary(fake *f) {
    gb b;
    str token[FAKE_N_VOCAB];
    int32_t type[FAKE_N_VOCAB];
    char path[64];
    err e;
    gb_init(&b);
    gb_str(&b, "tokenizer.ggml.model", "gpt2");
    gb_str(&b, "tokenizer.ggml.pre", "gpt-2");
    for (uint32_t c = 0, extra = 256; c < 256; c++) {
        bool plain = (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c != 0xad);
        int n = utf8_encode(plain ? c : extra++, f->byte_text[c]);
        token[c] = (str){f->byte_text[c], (size_t)n};
        type[c] = 1;
    }
    static const char *const special[] = {"<|im_start|>", "<|im_end|>", "<|endoftext|>"};
    for (int i = 0; i < 3; i++) token[256 + i] = str_of(special[i]), type[256 + i] = 3;
    token[FAKE_MERGED] = STR("QZ"), type[FAKE_MERGED] = 1;
    gb_strs(&b, "tokenizer.ggml.tokens", token, FAKE_N_VOCAB);
    gb_ints(&b, "tokenizer.ggml.token_type", type, FAKE_N_VOCAB);
    gb_strs(&b, "tokenizer.ggml.merges", (str[]){STR("Q Z")}, 1);
    gb_int(&b, "tokenizer.ggml.eos_token_id", FAKE_EOS);
    if (f->chat_template) gb_str(&b, "tokenizer.chat_template", f->chat_template);
    gb_open(&b, path);
    ck_assert_msg(checkpoint_open(&f->file, path, &e) == OK, "%s: %s", e.field, e.text);
    gb_clear(&b);
    ck_assert_msg(tokenizer_open(&f->tok, f->file, chunks_heap(), &e) == OK, "%s: %s", e.field,
                  e.text);
    template_sources from;
    template_tokens tokens;
    template_tokens_of(&tokens, f->tok, f->file);
    ck_assert_int_eq(template_sources_of(&from, f->file, STR(""), &e), OK);
    ck_assert_int_eq(chat_templates_open(&f->chat, &from, &tokens, chunks_heap(), &e), OK);
}

/* ---- the machine ---- */

static FAKE_UNUSED status fake_submit(port *p, const gen_spec *s, gen **out, err *e) {
    fake *f = (fake *)p;
    if (f->budget_tokens && s->n_prompt + s->max_tokens > f->budget_tokens)
        return err_set(e, ERR_BUDGET, "it needs too many bytes of KV cache");
    if (atomic_load(&f->n_live) >= f->capacity)
        return err_set(e, ERR_BUSY, "the queue is full");
    for (int i = 0; i < FAKE_GENS; i++) {
        gen *g = &f->gens[i];
        if (g->live) continue;
        *g = (gen){.spec = *s, .live = true, .born_us = clock_us()};
        f->last_seed[i] = s->sampling.seed;
        atomic_fetch_add(&f->n_live, 1);
        atomic_fetch_add(&f->n_submitted, 1);
        *out = g;
        return OK;
    }
    return err_set(e, ERR_BUSY, "the queue is full");
}

static FAKE_UNUSED void fake_cancel(port *p, gen *g, gen_finish why) {
    fake *f = (fake *)p;
    CHECK(g->live);
    if (g->cancelled) return;
    g->cancelled = true;
    g->why = why;
    atomic_fetch_add(&f->n_cancelled, 1);
}

static FAKE_UNUSED uint64_t fake_kv_bytes_needed(port *p, uint32_t n_prompt,
                                                 uint32_t max_tokens) {
    (void)p;
    return ceil_div((uint64_t)n_prompt + max_tokens, 16) * 1600;
}

static FAKE_UNUSED void fake_credit(port *p, gen *g, uint32_t n) {
    fake *f = (fake *)p;
    CHECK(g->live && n <= g->owed);
    g->owed -= n;
    atomic_fetch_add(&f->n_credited, n);
}

static FAKE_UNUSED void fake_end(fake *f, gen *g, gen_event *ev, gen_finish why) {
    gen_usage u = {.n_prompt = g->spec.n_prompt,
                   .n_output = g->n_out,
                   .n_cached = g->spec.n_prompt / 16 * 16,
                   .peak_blocks = (g->spec.n_prompt + g->n_out + 15) / 16,
                   .kv_peak_bytes = (uint64_t)(g->spec.n_prompt + g->n_out + 15) / 16 * 1600,
                   .n_loaded = g->spec.n_prompt / 32 * 16,
                   .cost = {.n_steps = 1 + g->n_out,
                            .n_recomputed = 2,
                            .loaded_bytes = 4096,
                            .load_us = 1500,
                            .byte_seconds = 0.25},
                   .joules = g->spec.weigh && f->joules > 0 ? f->joules : -1,
                   .miss = g->spec.explain ? &f->miss : NULL,
                   .queued_us = 1000,
                   .first_token_us = 3500,
                   .ended_us = 10000};
    err failed;
    ev->end = true;
    ev->finish = why;
    ev->usage = &u;
    if (why == GEN_ERROR) {
        err_set(&failed, ERR_DEVICE, "the engine failed");
        ev->error = &failed;
    }
    g->live = false;
    atomic_fetch_sub(&f->n_live, 1);
    g->spec.on_event(g->spec.user, ev);
}

static FAKE_UNUSED sampled fake_sampled(int32_t id, int n_top) {
    sampled s = {.token = id, .logprob = -0.25f * (float)(id % 7 + 1)};
    for (int i = 0; i < n_top; i++)
        s.top[s.n_top++] = (token_prob){(id + i) % 128, s.logprob - 0.5f * (float)i};
    return s;
}

static FAKE_UNUSED void fake_score(gen *g) {
    for (uint32_t i = 1; i < g->spec.n_prompt; i++) {
        sampled s = fake_sampled(g->spec.prompt[i], g->spec.sampling.n_logprobs);
        gen_event ev = {.prompt_score = &s, .n_scored = 1, .first_scored = i, .stop_id = -1};
        g->spec.on_event(g->spec.user, &ev);
    }
    g->n_scored = g->spec.n_prompt;
}

static FAKE_UNUSED bool fake_is_stop(const gen *g, int32_t id) {
    for (uint32_t i = 0; i < g->spec.n_stop_ids; i++)
        if (g->spec.stop_ids[i] == id) return true;
    return false;
}

static FAKE_UNUSED void fake_step_gen(fake *f, gen *g) {
    gen_event ev = {.stop_id = -1};
    if (g->cancelled) {
        fake_end(f, g, &ev, g->why);
        return;
    }
    if (g->spec.timeout_us && clock_us() - g->born_us > g->spec.timeout_us) {
        fake_end(f, g, &ev, GEN_TIMEOUT);
        return;
    }
    if (clock_us() - g->born_us < f->prefill_ms * 1000u) return;
    if (g->spec.score_prompt && !g->n_scored) fake_score(g);
    if (g->spec.credits && g->owed >= g->spec.credits) return;
    if (f->fail_after_first && g->n_out) {
        fake_end(f, g, &ev, GEN_ERROR);
        return;
    }
    size_t n = strlen(f->says);
    int32_t id =
        g->n_out < n || g->spec.ignore_eos ? (unsigned char)f->says[g->n_out % n] : FAKE_EOS;
    if ((id == FAKE_EOS && !g->spec.ignore_eos) || fake_is_stop(g, id)) {
        ev.stop_id = id;
        fake_end(f, g, &ev, GEN_STOP);
        return;
    }
    sampled s = fake_sampled(id, g->spec.sampling.n_logprobs);
    ev.token = &s;
    ev.n_tokens = 1;
    g->n_out++;
    if (++g->owed > atomic_load(&f->max_owed) && g->spec.credits)
        atomic_store(&f->max_owed, g->owed);
    if (g->n_out >= g->spec.max_tokens)
        fake_end(f, g, &ev, GEN_LENGTH);
    else
        g->spec.on_event(g->spec.user, &ev);
}

static FAKE_UNUSED void fake_on_step(uv_timer_t *t) {
    fake *f = t->data;
    for (int i = 0; i < FAKE_GENS; i++)
        for (uint32_t k = 0; k < f->per_step && f->gens[i].live; k++)
            fake_step_gen(f, &f->gens[i]);
    server_flush(f->server);
}

static FAKE_UNUSED void fake_stats(port *p, machine_stats *out) {
    fake *f = (fake *)p;
    *out = (machine_stats){.n_running = atomic_load(&f->n_live),
                           .count.generated_tokens = 7,
                           .count.kv_tier_hits = 256};
    out->finished[GEN_STOP] = 3;
    out->hist[HIST_TTFT].bucket[histogram_bucket(HIST_TTFT, 0.03)] = 2;
    out->hist[HIST_TTFT].n = 2;
    out->hist[HIST_TTFT].sum = 0.06;
    out->kv = (kv_view){.type_k = DT_F32,
                        .type_v = DT_F16,
                        .block_tokens = 16,
                        .blocks = 100,
                        .free = 60,
                        .used = 30,
                        .cached = 10,
                        .bytes_per_token = 100,
                        .tier = f->tier};
}
static FAKE_UNUSED size_t fake_sequences(port *p, seq_view *out, size_t cap) {
    fake *f = (fake *)p;
    size_t n = 0;
    for (int i = 0; i < FAKE_GENS && n < cap; i++)
        if (f->gens[i].live)
            out[n++] = (seq_view){.id = (uint64_t)i,
                                  .n_tokens = f->gens[i].n_out,
                                  .n_blocks = 1,
                                  .bytes = 1600,
                                  .state = "running",
                                  .tenant = f->gens[i].spec.tenant};
    return n;
}
/* Ten blocks, of which running generations have one each. */
static FAKE_UNUSED bool fake_picture(port *p, kv_picture *out) {
    fake *f = (fake *)p;
    uint32_t n = 0;
    if (atomic_fetch_add(&f->n_pictures, 1) == 0) return false; /* none was asked for */
    *out = (kv_picture){.n_groups = 1, .group[0] = {.n = 10, .stride = 1}};
    for (uint32_t i = 0; i < FAKE_GENS && n < 8; i++)
        if (f->gens[i].live) out->group[0].cell[n++] = CELL_SEQUENCE + i;
    out->group[0].cell[8] = CELL_CACHED;
    return true;
}
static FAKE_UNUSED double fake_retry_after(port *p) {
    (void)p;
    return 2.5;
}
static FAKE_UNUSED const char *fake_not_ready(port *p) {
    return atomic_load(&((fake *)p)->not_ready);
}

typedef struct fake_job {
    uv_work_t req;
    void (*work)(void *), (*done)(void *);
    void *arg;
} fake_job;
static FAKE_UNUSED void fake_job_work(uv_work_t *w) {
    fake_job *j = w->data;
    j->work(j->arg);
}
static FAKE_UNUSED void fake_job_done(uv_work_t *w, int status) {
    (void)status;
    fake_job *j = w->data;
    j->done(j->arg);
    free(j);
}
static FAKE_UNUSED bool fake_offload(port *p, void (*work)(void *), void (*done)(void *),
                                     void *arg) {
    fake *f = (fake *)p;
    fake_job *j = malloc(sizeof *j);
    CHECK(j);
    *j = (fake_job){.work = work, .done = done, .arg = arg};
    j->req.data = j;
    atomic_fetch_add(&f->n_offloaded, 1);
    return uv_queue_work(&f->loop, &j->req, fake_job_work, fake_job_done) == 0;
}

/* What the ledger of the fake device holds, a context of 1,000 bytes, and 7 unknown ones. */
static FAKE_UNUSED bool fake_device_memory(port *p, device_memory *out) {
    ledger_view v;
    ledger_read(p->device_ledger, &v);
    *out = (device_memory){.total_bytes = 1 << 20,
                           .used_bytes = v.ledger_bytes + 1007,
                           .outside_bytes = 1000,
                           .step_bytes = 4096,
                           .staged_bytes = 12288,
                           .stall_us = 2500000,
                           .link_bytes_per_s = 1 << 30,
                           .computed_bytes = 8192,
                           .computed_us = 1250000};
    return true;
}

typedef struct fake_forgetting {
    fake *f;
    forget_done *done;
    void *arg;
} fake_forgetting;

static FAKE_UNUSED void fake_forget_work(void *arg) {
    (void)arg;
}
static FAKE_UNUSED void fake_forgot(void *arg) {
    fake_forgetting *g = arg;
    const cache_forgotten what = {.blocks = 3, .bytes = 300, .files = 2, .file_bytes = 8192};
    err e;
    err_set(&e, ERR_IO, "2 files could not be removed");
    g->done(g->arg, g->f->forget_fails ? ERR_IO : OK, &what, &e);
    free(g);
}
static FAKE_UNUSED status fake_forget(port *p, const str *salt, forget_done *done, void *arg,
                                      err *e) {
    fake *f = (fake *)p;
    (void)e;
    fake_forgetting *g = malloc(sizeof *g);
    CHECK(g && (!salt || salt->len < sizeof f->forgot));
    *g = (fake_forgetting){f, done, arg};
    memset(f->forgot, 0, sizeof f->forgot);
    f->n_forgot = salt ? salt->len : 1;
    if (salt)
        memcpy(f->forgot, salt->ptr, salt->len);
    else
        f->forgot[0] = '*';
    CHECK(fake_offload(p, fake_forget_work, fake_forgot, g));
    return OK;
}

/* The number of members of the body; refuses one that has "bad". */
static FAKE_UNUSED status fake_plan(port *p, const json_t *body, buf *out, err *e) {
    (void)p;
    if (json_in_has(body, "bad")) {
        err_set(e, ERR_INVALID, "bad is no option");
        return err_field(e, "bad");
    }
    buf_addf(out, "{\"schema\":\"fake\",\"members\":%zu}", json_object_size(body));
    return OK;
}

static FAKE_UNUSED void fake_device(port *p) {
    plan plan = {.budget_bytes = 1 << 20};
    err e;
    terms_add(&plan.terms, MEM_WEIGHTS, TERM_EXACT, 1 << 19, "weights");
    ck_assert_msg(ledger_open(&p->device_ledger, &plan, &e) == OK, "%s", e.text);
    ck_assert(ledger_reserve(p->device_ledger, MEM_WEIGHTS, 1 << 19));
    p->device = "cuda:0";
    terms_clear(&plan.terms);
}

static FAKE_UNUSED const port_ops *fake_ops(void) {
    static const port_ops ops = {.submit = fake_submit,
                                 .cancel = fake_cancel,
                                 .credit = fake_credit,
                                 .stats = fake_stats,
                                 .sequences = fake_sequences,
                                 .picture = fake_picture,
                                 .kv_bytes_needed = fake_kv_bytes_needed,
                                 .retry_after_s = fake_retry_after,
                                 .not_ready = fake_not_ready,
                                 .offload = fake_offload,
                                 .device_memory = fake_device_memory,
                                 .plan = fake_plan,
                                 .forget = fake_forget};
    return &ops;
}

/* ---- life ---- */

#define FAKE_CHATML                                                                            \
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "               \
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"    \
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"

static FAKE_UNUSED void fake_init(fake *f) {
    signal(SIGPIPE, SIG_IGN);
    log_init(LOG_ERROR);
    memset(f, 0, sizeof *f);
    f->opt = (server_options){.host = "127.0.0.1",
                              .listen_fd = -1,
                              .max_connections = 64,
                              .max_body_bytes = 1 << 20,
                              .idle_timeout_s = 30,
                              .header_timeout_s = 10,
                              .body_timeout_s = 10,
                              .heartbeat_s = 15,
                              .stream_credits = 64};
    f->says = "Hello, world";
    f->model_id = "fake";
    f->step_ms = 1;
    f->per_step = 1;
    f->capacity = FAKE_GENS;
    f->pool_want = 16 << 20;
    f->chat_template = FAKE_CHATML;
}

static FAKE_UNUSED void fake_on_drained(void *arg) {
    atomic_store(&((fake *)arg)->drained, true);
    uv_stop(&((fake *)arg)->loop);
}

static FAKE_UNUSED void fake_on_quit(uv_async_t *a) {
    fake *f = a->data;
    server_drain(f->server, fake_on_drained, f);
    if (atomic_load(&f->abort_now)) server_abort(f->server);
}

static FAKE_UNUSED void fake_close_handle(uv_handle_t *h, void *arg) {
    (void)arg;
    if (!uv_is_closing(h)) uv_close(h, NULL);
}

static FAKE_UNUSED void *fake_main(void *arg) {
    fake *f = arg;
    uv_run(&f->loop, UV_RUN_DEFAULT);
    server_close(f->server);
    uv_walk(&f->loop, fake_close_handle, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    return NULL;
}

enum { FAKE_GRAMMARS = 1 << 20 };

/* Everything but the thread and the timer: for who turns the loop himself. */
static FAKE_UNUSED void fake_open(fake *f) {
    err e;
    terms want = {0};
    server_terms(&f->opt, &want);
    terms_add(&want, MEM_REQUESTS, TERM_EXACT, pool_bytes(f->pool_want), "requests");
    if (f->http_limit) {
        terms_clear(&want);
        terms_add(&want, MEM_HTTP, TERM_EXACT, f->http_limit, "http");
        terms_add(&want, MEM_REQUESTS, TERM_EXACT, pool_bytes(f->pool_want), "requests");
    }
    terms_add(&want, MEM_GRAMMAR, TERM_EXACT, pool_bytes(FAKE_GRAMMARS), "grammars");
    f->plan = (plan){.terms = want, .budget_bytes = 1 << 30};
    ck_assert_msg(ledger_open(&f->port.ledger, &f->plan, &e) == OK, "%s", e.text);
    ck_assert(pool_open(&f->port.pool, f->port.ledger, MEM_REQUESTS, f->pool_want, &e) == OK);
    fake_vocabulary(f);
    f->port.ops = fake_ops();
    f->port.tok = f->tok;
    ck_assert(pool_open(&f->port.grammars, f->port.ledger, MEM_GRAMMAR, FAKE_GRAMMARS, &e) ==
              OK);
    uint32_t n_vocab = tokenizer_n_vocab(f->tok);
    f->index_mem = aligned_alloc(64, vocab_index_bytes(n_vocab));
    ck_assert_ptr_nonnull(f->index_mem);
    memset(f->index_mem, 0, vocab_index_bytes(n_vocab));
    f->port.index = vocab_index_init(f->index_mem, f->tok, n_vocab);
    f->port.chat = &f->chat;
    f->port.card = (model_card){.id = f->model_id,
                                .names = f->model_names,
                                .created = 1700000000,
                                .n_params = 1000,
                                .weight_bytes = 2000,
                                .max_model_len = 256 * 1024};
    f->port.device = "cpu";
    if (f->device) fake_device(&f->port);
    f->port.kv_bytes = 100 * 1600;
    f->port.max_gens = FAKE_GENS;
    ck_assert(uv_loop_init(&f->loop) == 0);
    uv_async_init(&f->loop, &f->quit, fake_on_quit);
    uv_timer_init(&f->loop, &f->step);
    f->quit.data = f->step.data = f;
    status s = server_open(&f->server, &f->loop, &f->opt, &f->port, &e);
    ck_assert_msg(s == OK, "%s", e.text);
    if (f->opt.listen_fd >= 0) server_loaded(f->server);
}

static FAKE_UNUSED void fake_start(fake *f) {
    fake_open(f);
    uv_timer_start(&f->step, fake_on_step, f->step_ms, f->step_ms);
    ck_assert(pthread_create(&f->thread, NULL, fake_main, f) == 0);
}

static FAKE_UNUSED void fake_stop(fake *f) {
    uv_async_send(&f->quit);
    pthread_join(f->thread, NULL);
    ck_assert(uv_loop_close(&f->loop) == 0);
    ck_assert_uint_eq(atomic_load(&f->n_live), 0);
    ck_assert_uint_eq(pool_used(f->port.pool), 0);
    ck_assert_uint_eq(pool_used(f->port.grammars), 0);
    pool_close(f->port.grammars);
    free(f->index_mem);
    pool_close(f->port.pool);
    chat_templates_close(&f->chat);
    tokenizer_close(f->tok);
    checkpoint_close(f->file);
    ledger_close(f->port.ledger); /* checks that nothing is held */
    if (f->device) {
        ledger_release(f->port.device_ledger, MEM_WEIGHTS, 1 << 19);
        ledger_close(f->port.device_ledger);
    }
    plan_clear(&f->plan);
}

/* ---- the client ---- */

typedef struct reply {
    int status;
    char *raw, *head, *body; /* body: de-chunked; all in raw's two allocations */
    size_t n_body;
} reply;

static FAKE_UNUSED int fake_connect(const fake *f) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(server_port(f->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
    return fd;
}

static FAKE_UNUSED void fake_send(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) return; /* the server may have closed: the reply tells */
        p += k, n -= (size_t)k;
    }
}

/* Reads until the end, or until needle has come, or for ms. NUL-terminated; free it. */
static FAKE_UNUSED char *fake_read(int fd, const char *needle, int ms, size_t *n,
                                   bool *closed) {
    size_t cap = 65536, len = 0;
    char *p = malloc(cap);
    uint64_t until = clock_us() + (uint64_t)ms * 1000;
    *closed = false;
    for (;;) {
        p[len] = '\0';
        if (needle && strstr(p, needle)) break;
        uint64_t now = clock_us();
        struct pollfd w = {.fd = fd, .events = POLLIN};
        if (now >= until || poll(&w, 1, (int)((until - now) / 1000 + 1)) <= 0) break;
        if (cap - len < 32768) p = realloc(p, cap *= 2);
        ssize_t k = recv(fd, p + len, cap - len - 1, 0);
        if (k <= 0) {
            *closed = true;
            break;
        }
        len += (size_t)k;
    }
    p[len] = '\0';
    if (n) *n = len;
    return p;
}

/* Splits a whole answer; undoes chunked encoding. Takes raw. */
static FAKE_UNUSED reply fake_parse(char *raw, size_t n) {
    reply r = {.raw = raw, .head = raw};
    char *end = strstr(raw, "\r\n\r\n");
    if (!end || sscanf(raw, "HTTP/1.%*d %d", &r.status) != 1) {
        r.body = calloc(1, 1);
        return r;
    }
    *end = '\0';
    char *from = end + 4, *stop = raw + n;
    r.body = malloc(n + 1);
    if (!strcasestr(raw, "Transfer-Encoding: chunked")) {
        r.n_body = (size_t)(stop - from);
        memcpy(r.body, from, r.n_body);
    } else {
        while (from < stop) {
            size_t k = strtoul(from, &from, 16);
            if (k == 0 || from + 2 + k > stop) break;
            memcpy(r.body + r.n_body, from + 2, k);
            r.n_body += k;
            from += 2 + k + 2;
        }
    }
    r.body[r.n_body] = '\0';
    return r;
}

static FAKE_UNUSED void reply_free(reply *r) {
    free(r->raw);
    free(r->body);
}

/* One connection, bytes as given, everything until the server closes (10 s at most). */
static FAKE_UNUSED reply fake_raw(const fake *f, const char *bytes, size_t n) {
    int fd = fake_connect(f);
    bool closed;
    size_t len;
    fake_send(fd, bytes, n);
    char *raw = fake_read(fd, NULL, 10000, &len, &closed);
    close(fd);
    return fake_parse(raw, len);
}
static FAKE_UNUSED reply fake_text(const fake *f, const char *text) {
    return fake_raw(f, text, strlen(text));
}
static FAKE_UNUSED reply fake_get(const fake *f, const char *path) {
    char text[512];
    int n = snprintf(text, sizeof text,
                     "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    return fake_raw(f, text, (size_t)n);
}
static FAKE_UNUSED char *fake_post_text(const char *path, const char *body) {
    char *text = NULL;
    ck_assert(asprintf(&text,
                       "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
                       "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       path, strlen(body), body) > 0);
    return text;
}
static FAKE_UNUSED reply fake_post(const fake *f, const char *path, const char *body) {
    char *text = fake_post_text(path, body);
    reply r = fake_raw(f, text, strlen(text));
    free(text);
    return r;
}

/* header: lines, each with its end. */
static FAKE_UNUSED reply fake_post_with(const fake *f, const char *path, const char *body,
                                        const char *header) {
    char *text = NULL;
    ck_assert(asprintf(&text,
                       "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%sContent-Type: "
                       "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       path, header, strlen(body), body) > 0);
    reply r = fake_raw(f, text, strlen(text));
    free(text);
    return r;
}

/* Waits until *v is want. */
static FAKE_UNUSED bool fake_await(atomic_uint *v, unsigned want, int ms) {
    for (uint64_t until = clock_us() + (uint64_t)ms * 1000; clock_us() < until; usleep(500))
        if (atomic_load(v) == want) return true;
    return atomic_load(v) == want;
}

static FAKE_UNUSED void assert_has(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) != NULL, "no <%s> in:\n%s", part, text);
}
static FAKE_UNUSED void assert_lacks(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) == NULL, "<%s> in:\n%s", part, text);
}
#define ASSERT_ERROR(r, code, type, param)                                                     \
    do {                                                                                       \
        ck_assert_msg((r).status == (code), "status %d:\n%s\n%s", (r).status, (r).head,        \
                      (r).body);                                                               \
        assert_has((r).body, "\"type\":\"" type "\"");                                         \
        assert_has((r).body, "\"param\":" param);                                              \
        char code_text[32];                                                                    \
        snprintf(code_text, sizeof code_text, "\"code\":%d", (code));                          \
        assert_has((r).body, code_text);                                                       \
    } while (0)

#endif
