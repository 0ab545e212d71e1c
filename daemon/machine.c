/* From options to a loaded model. Owned by the subcommand; machine_load may run on the engine
 * thread, everything else on the main thread. */
#include "daemon/machine.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/default_sampling.h"
#include "daemon/engine_choice.h"
#include "daemon/expert_memory.h"
#include "daemon/gpu_layers.h"
#include "daemon/kv/kv_tier.h"
#include "daemon/machine_budget.h"
#include "daemon/machine_pooling.h"
#include "daemon/machine_template.h"
#include "daemon/machine_words.h"
#include "daemon/plan/planned_model.h"
#include "daemon/plan/plan_offload.h"
#include "daemon/plan/rank_plan.h"
#include "daemon/ranks/launch.h"
#include "daemon/ranks/rank_threads.h"
#include "daemon/ranks/ranks.h"
#include "engine/expert_slots.h"
#include "model/hf/hf_folder.h"

enum { DEFAULT_CONTEXT = 8192, MIN_LOGIT_ROWS = 16, BATCH_WINDOW_US = 20000 };
static const uint64_t SCORED_LOGITS_BYTES = 64 << 20;

/* Calibrated on Debian 12, x86-64 (anonymous memory of a daemon after its first requests, minus
 * its ledger; 1, 2 and 4 threads): the C library, libuv, libmicrohttpd's tables, PCRE2's JIT
 * code, the touched part of each thread's stack, and what linking changes in the libraries.
 * /v1/memory's unaccounted_bytes tells how far off it is. */
static const uint64_t RUNTIME_BYTES = 704 << 10, RUNTIME_PER_THREAD = 32 << 10;
/* Threads besides the engine's workers: loop, engine, libuv's pool. */
enum { OTHER_THREADS = 6 };

static status resolve_length(machine *m, const machine_wish *w, err *e) {
    uint32_t trained = m->model->program.config.n_ctx_train;
    options *o = &m->opt;
    uint32_t most = w->at_most_len ? w->at_most_len : DEFAULT_CONTEXT;
    if (o->max_model_len == 0) o->max_model_len = trained < most ? trained : most;
    if (o->max_model_len <= trained) return OK;
    err_set(e, ERR_INVALID, "max_model_len = %u, but the model was trained for %u tokens",
            o->max_model_len, trained);
    err_field(e, "max_model_len");
    return err_hint(e, "give at most %u tokens", trained);
}

/* Two of the largest bodies, or two of the longest prompts with all that is made of one on its
 * way (body, JSON, text, ids, and what growing them leaves behind: 64 bytes a token of
 * English), and a little for each of the rest: of a stream half is set aside for what its
 * client has not read (answer.c), and one that runs may have as much again, in wide events. */
static uint64_t wanted_request_memory(const options *o) {
    const uint64_t per_token = 128, per_request = 32 << 10, per_stream = 32 << 10;
    uint64_t body = 2 * o->max_body, prompt = per_token * o->max_model_len;
    return (body > prompt ? body : prompt) +
           (uint64_t)(o->max_waiting + o->max_num_seqs) * per_request +
           o->max_num_seqs * per_stream;
}

/* The type that an option names; other: what its first word, "auto" or "same", stands for. */
static dtype kv_type_of(const char *option, uint32_t value, dtype other) {
    const str word = options_word(option, value);
    if (value == 0) return other;
    const dtype t = dtype_by_name(word);
    CHECK(t != DT_NONE);
    return t;
}

/* Rows of a step that verify guesses, at most: where more sequences decode, few of them are worth
 * their time. */
static uint32_t draft_rows_of(const machine *m) {
    enum { MOST = 64 };
    const uint32_t wanted = m->opt.max_num_seqs * m->engine_opt.max_draft;
    return wanted < MOST ? wanted : MOST;
}

/* Rows of a step with logits. Where prompts are scored, every row has them, so that they limit
 * the rows of a step: as many as SCORED_LOGITS_BYTES hold. */
static uint32_t logit_rows_of(const machine *m, const machine_wish *w) {
    const options *o = &m->opt;
    const uint64_t row = sizeof(float) * (uint64_t)m->model->program.config.n_vocab;
    uint64_t rows = o->max_num_seqs;
    if (rows > 1 && rows < MIN_LOGIT_ROWS) rows = MIN_LOGIT_ROWS;
    rows += draft_rows_of(m);
    if (!w->scores) return (uint32_t)rows;
    uint64_t wanted = SCORED_LOGITS_BYTES / row;
    if (wanted > o->max_num_batched_tokens) wanted = o->max_num_batched_tokens;
    if (rows < MIN_LOGIT_ROWS) rows = MIN_LOGIT_ROWS;
    return (uint32_t)(rows > wanted ? rows : wanted);
}

/* Rows of a step by themselves. A step's time on the CPU goes by the rows of a thread, and each
 * stream that decodes waits for it: the bound is the same on any number of cores. Fewer rows than
 * these gain little time and read the weights more often (bench/bench_slo.py). */
static uint32_t default_rows(const machine *m) {
    enum { PER_THREAD = 64, LEAST = 128, MOST = 512 };
    const uint64_t seqs = m->opt.max_num_seqs;
    /* A prompt reads each expert that is not in memory once for all rows of a step. */
    const bool most = m->on_device || m->engine_opt.expert_slots;
    uint64_t rows = most ? MOST : (uint64_t)PER_THREAD * rank_threads_of_all(&m->opt);
    if (rows < 2 * seqs) rows = 2 * seqs; /* prompts have no fewer than decoding */
    if (rows < LEAST) rows = LEAST;
    if (rows > MOST) rows = MOST;
    if (m->model->program.config.bidirectional && rows < m->opt.max_model_len)
        rows = m->opt.max_model_len; /* a text is one step */
    return (uint32_t)(rows > seqs ? rows : seqs);
}

/* Once the engine is chosen. */
static void set_rows(machine *m, const machine_wish *w) {
    options *o = &m->opt;
    if (m->given.max_num_batched_tokens == 0) o->max_num_batched_tokens = default_rows(m);
    m->engine_opt.max_rows = m->sched_conf.max_rows = o->max_num_batched_tokens;
    m->engine_opt.max_logit_rows = m->sched_conf.max_logit_rows = logit_rows_of(m, w);
}

uint32_t machine_state_slots(const options *o) {
    enum { LEAST = 4 };
    const uint32_t few = o->max_num_seqs / 4 > LEAST ? o->max_num_seqs / 4 : LEAST;
    const uint32_t n = o->state_checkpoints ? o->state_checkpoints : few;
    return o->max_num_seqs + (o->prefix_caching ? n : 0);
}

static uint32_t states_of(const machine *m) {
    return program_state_bytes(&m->model->program) ? machine_state_slots(&m->opt) : 0;
}

static bool looks_up(const options *o) {
    return str_eqz(options_word("speculative", o->speculative), "lookup");
}

static bool speculates(const machine *m) {
    return looks_up(&m->opt) || m->draft.model;
}

/* Steps of stages overlap, unless they verify guesses: what is guessed depends on all that was drawn. */
static uint32_t depth_of(const machine *m) {
    return m->opt.pipeline_parallel_size > 1 && !speculates(m) ? GROUP_MAX_DEPTH : 1;
}

/* Once the engine is chosen. */
static status check_speculative(const machine *m, err *e) {
    if (!looks_up(&m->opt)) return OK;
    const bool encoder = m->model->program.config.bidirectional;
    if (!m->on_device && !encoder) return OK;
    err_set(e, ERR_UNSUPPORTED, "speculative = lookup: %s",
            encoder ? "the model is an encoder, which generates nothing"
                    : "the CUDA engine verifies no guesses");
    err_field(e, "speculative");
    return err_hint(e, "leave the option out%s", encoder ? "" : ", or give backend = cpu");
}

static void set_engine_options(machine *m, const machine_wish *w) {
    const options *o = &m->opt;
    const dtype kv = kv_type_of("kv_cache_dtype", o->kv_cache_dtype, DT_F16);
    engine_options *x = &m->engine_opt;
    *x = (engine_options){.max_seqs = o->max_num_seqs,
                          .max_model_len = o->max_model_len,
                          .max_draft = speculates(m) ? o->speculative_tokens : 0,
                          .block_tokens = o->block_size,
                          .n_states = states_of(m),
                          .kv_k = kv_type_of("cache_type_k", o->cache_type_k, kv),
                          .kv_v = kv_type_of("cache_type_v", o->cache_type_v, kv),
                          .batch_invariant = o->batch_invariant,
                          .n_threads = rank_threads(o),
                          .by_messages = rank_plan_by_messages(o),
                          .depth = depth_of(m),
                          .hidden = m->pooling != POOL_OFF,
                          .pooling = m->pooling,
                          .keep_logits = w->keep_logits,
                          .tap = w->tap,
                          .plugin = o->cuda_plugin};
    x->unfused = str_eqz(options_word("attention", o->attention), "unfused");
    CHECK(cpu_isa_by_name(options_word("cpu_isa", o->cpu_isa), &x->isa));
    CHECK(activation_dtype_by_name(options_word("activation_dtype", o->activation_dtype),
                                   &x->activations));
}

/* All rows of a text are in one step, where the model is an encoder. */
static status check_whole(const machine *m, err *e) {
    const options *o = &m->opt;
    if (!m->model->program.config.bidirectional || o->max_num_batched_tokens == 0 ||
        o->max_num_batched_tokens >= o->max_model_len)
        return OK;
    err_set(e, ERR_INVALID, "max_num_batched_tokens = %u is less than max_model_len = %u",
            o->max_num_batched_tokens, o->max_model_len);
    err_field(e, "max_num_batched_tokens");
    return err_hint(e, "the model is an encoder, which computes a text in one step");
}

static sched_batching batching_by_name(str word) {
    if (str_eqz(word, "static")) return BATCHING_STATIC;
    return str_eqz(word, "dynamic") ? BATCHING_DYNAMIC : BATCHING_CONTINUOUS;
}

/* Tokens of earlier texts that receipts compare prompts with: half a MiB at most. */
static uint32_t recent_tokens(const options *o) {
    enum { MOST = 128 * 1024, TEXTS = 64 };
    const uint64_t n = (uint64_t)TEXTS * o->max_model_len;
    return !o->prefix_caching ? 0 : n < MOST ? (uint32_t)n : MOST;
}

static const sched_policy *policy_by_name(str word) {
    uint32_t i = 0;
    for (; !str_eqz(word, sched_policies[i]->name); i++) CHECK(i + 1 < N_SCHED_POLICIES);
    return sched_policies[i];
}

void machine_set_policies(sched_config *c, const options *o) {
    c->batching = batching_by_name(options_word("batching", o->batching));
    c->batch_window_us = BATCH_WINDOW_US;
    c->policy = policy_by_name(options_word("scheduler_policy", o->scheduler_policy));
}

uint32_t machine_policy_number(const sched_policy *p) {
    uint32_t i = 0;
    while (!str_eqz(options_word("scheduler_policy", i), p->name)) i++;
    return i;
}

/* Where it goes before the other objective. */
static uint64_t ttft_slo_us(const options *o) {
    const bool first = str_eqz(options_word("slo_first", o->slo_first), "ttft");
    return first ? (uint64_t)o->ttft_slo_ms * 1000 : 0;
}

static status resolve(machine *m, const machine_wish *w, err *e) {
    options *o = &m->opt;
    status s = resolve_length(m, w, e);
    if (s == OK) s = machine_find_pooling(m, e);
    if (s != OK) return s;
    if (o->threads == 0) o->threads = rank_threads_default(m);
    if (o->distributed_executor_backend == EXECUTOR_AUTO)
        o->distributed_executor_backend = launch_is(o) ? EXECUTOR_MPI : EXECUTOR_MP;
    if (o->max_num_batched_tokens > 0 && o->max_num_batched_tokens < o->max_num_seqs) {
        err_set(e, ERR_INVALID, "max_num_batched_tokens = %u is less than max_num_seqs = %u",
                o->max_num_batched_tokens, o->max_num_seqs);
        err_field(e, "max_num_batched_tokens");
        return err_hint(e, "each running sequence needs a row in a step");
    }
    s = check_whole(m, e);
    if (s != OK) return s;
    if (o->request_memory == 0) o->request_memory = wanted_request_memory(o);
    set_engine_options(m, w);
    s = gpu_layers_read(m, e);
    if (s != OK) return s;
    m->sched_conf = (sched_config){.block_tokens = o->block_size,
                                   .max_seqs = o->max_num_seqs,
                                   .max_waiting = o->max_waiting + o->max_num_seqs,
                                   .max_waiting_tokens = UINT64_MAX,
                                   .max_model_len = o->max_model_len,
                                   .watermark_permille = o->watermark,
                                   .apart = m->engine_opt.depth > 1,
                                   .itl_slo_us = (uint64_t)o->itl_slo_ms * 1000,
                                   .ttft_slo_us = ttft_slo_us(o),
                                   .prefix_cache = o->prefix_caching,
                                   .state_slots = m->engine_opt.n_states,
                                   .state_chunk = STATE_CHUNK,
                                   .state_bytes = program_state_bytes(&m->model->program),
                                   .recent_tokens = recent_tokens(o)};
    machine_set_policies(&m->sched_conf, o);
    if (getrandom(m->sched_conf.hash_key, sizeof m->sched_conf.hash_key, GRND_NONBLOCK) < 0)
        m->sched_conf.hash_key[0] = clock_us(); /* early at boot: at least not a constant */
    return OK;
}

/* What of a folder cannot be loaded can be planned by its config.json. */
static status plan_folder(machine *m, const char *path, const char *weights, err *e) {
    char config[4200];
    const err why = *e;
    if (!hf_folder_config_path(path, config, sizeof config) ||
        planned_model_open(m, config, weights, e) != OK) {
        *e = why;
        return e->code;
    }
    snprintf(m->not_served, sizeof m->not_served, "%.230s", why.text);
    return OK;
}

/* A folder of Gemma 4 whose tensors have no names there yet: by its config.json, too. */
static status plan_unnamed_folder(machine *m, const char *path, const char *weights, err *e) {
    const err why = *e;
    if (plan_folder(m, path, weights, e) == OK && m->model->program.config.shape.listed) {
        checkpoint_close(m->file);
        m->file = NULL;
        return OK;
    }
    model_close(m->model);
    m->model = NULL;
    *e = why;
    return e->code;
}

static status open_model(machine *m, const char *weights, err *e) {
    const char *path = m->opt.model;
    size_t n = strlen(path);
    if (n == 0) {
        err_set(e, ERR_INVALID, "no model is named");
        err_field(e, "model");
        return err_hint(
            e, "give --model FILE.gguf, or model = FILE.gguf in " OPTIONS_DEFAULT_FILE);
    }
    if (n > 5 && strcasecmp(path + n - 5, ".json") == 0 && !hf_folder_is(path))
        return planned_model_open(m, path, weights, e);
    status s = checkpoint_open(&m->file, path, e);
    if (s == OK) {
        s = model_open(&m->model, m->file, e);
        return s != OK && hf_folder_is(path) ? plan_unnamed_folder(m, path, weights, e) : s;
    }
    return s == ERR_UNSUPPORTED && hf_folder_is(path) ? plan_folder(m, path, weights, e) : s;
}

/* The file's name without its ending, unless the operator gave one: what people type. */
static void set_name(machine *m) {
    const char *given = m->opt.served_model_name, *base = m->opt.model;
    size_t len = strlen(base);
    while (len > 1 && base[len - 1] == '/') len--; /* a folder */
    for (size_t i = 0; i + 1 < len; i++)
        if (m->opt.model[i] == '/') base = m->opt.model + i + 1;
    len -= (size_t)(base - m->opt.model);
    given += strspn(given, ", ");
    m->names = *given ? given : NULL;
    snprintf(m->name, sizeof m->name, "%.*s", *given ? 255 : (int)(len < 255 ? len : 255),
             *given ? given : base);
    if (*given) m->name[strcspn(m->name, ",")] = '\0';
    size_t n = strlen(m->name);
    while (n && m->name[n - 1] == ' ') m->name[--n] = '\0';
    if (!*given && n > 5 && strcasecmp(m->name + n - 5, ".gguf") == 0) m->name[n - 5] = '\0';
}

/* So many blocks as a step moves in about 20 ms where a pool becomes smaller. */
static uint32_t moves_of(const machine *m, const kv_request *kv) {
    const uint64_t bytes = 64 << 20, most = ENGINE_MAX_MOVES;
    uint64_t block = 1;
    if (!engine_can_resize(m->backend)) return 0;
    for (uint32_t g = 0; g < kv->n_groups; g++)
        if (block < kv->group[g].bytes_per_token * kv->block_tokens)
            block = kv->group[g].bytes_per_token * kv->block_tokens;
    const uint64_t n = bytes / block;
    return (uint32_t)(n < 1 ? 1 : n < most ? n : most);
}

static void set_groups(machine *m, const kv_request *kv) {
    sched_config *c = &m->sched_conf;
    c->max_moves = moves_of(m, kv);
    if (m->model->program.config.bidirectional) { /* nothing is kept that could be found */
        c->recent_tokens = 0;
        c->prefix_cache = false;
    }
    c->n_groups = kv->n_groups;
    c->depth = kv->depth;
    for (uint32_t g = 0; g < kv->n_groups; g++)
        c->group[g] =
            (sched_group){.n_blocks = 1, /* the plan says */
                          .window = kv->group[g].window,
                          .rows_once = kv->group[g].tail,
                          .block_bytes = kv->group[g].bytes_per_token * kv->block_tokens};
}

static void runtime_terms(terms *t, uint64_t bytes, uint32_t threads) {
    terms_add(t, MEM_RUNTIME, TERM_CALIBRATED, bytes + threads * RUNTIME_PER_THREAD,
              "%s%u stacks (Debian 12)", bytes ? "libraries, " : "", threads);
}

void machine_shared_terms(terms *t) {
    runtime_terms(t, RUNTIME_BYTES, OTHER_THREADS - 1);
}

/* What the process of another rank than the first takes beside its engine. */
static void list_rank_terms(const machine *m, terms *t) {
    runtime_terms(t, RUNTIME_BYTES, m->engine_opt.n_threads + 1);
    if (m->engine_opt.by_messages) launch_terms(t);
    if (m->engine_opt.activations == ACTIVATION_BF16 && !m->on_device)
        terms_add(t, MEM_RUNTIME, TERM_CALIBRATED,
                  (uint64_t)m->engine_opt.n_threads * BF16_STACK_BYTES,
                  "weights in bf16 on %u stacks", m->engine_opt.n_threads);
    if (!m->header_bytes) return;
    terms_add(t, MEM_LOADING, TERM_EXACT, m->header_bytes, "headers of the model");
    terms_last_while_loading(t);
}

static void list_terms(const machine *m, terms *t) {
    const uint32_t n_vocab = m->model->program.config.n_vocab;
    terms_add(t, MEM_SCHEDULER, TERM_EXACT, machine_runner_bytes(m),
              "steps in flight, masks of %u x %u tokens",
              m->sched_conf.max_seqs * (1 + m->engine_opt.max_draft), n_vocab);
    if (m->header_bytes) {
        if (!m->words) {
            terms_add(t, MEM_TOKENIZER, TERM_EXACT, m->tokenizer_bytes, "vocabulary");
            terms_add(t, MEM_TOKENIZER, TERM_EXACT, m->chat_bytes, "chat templates");
        }
        terms_add(t, MEM_LOADING, TERM_EXACT, m->header_bytes, "headers of the model");
        terms_last_while_loading(t);
    } else {
        terms_add(t, MEM_TOKENIZER, TERM_ASSUMED, (uint64_t)n_vocab * 64,
                  "vocabulary, 64 bytes a token");
    }
    const uint32_t threads = (m->part ? 1 : OTHER_THREADS) + m->engine_opt.n_threads +
                             kv_tier_threads(m) + (m->opt.step_log[0] != 0) +
                             (m->engine_opt.expert_slots ? EXPERT_READERS : 0) +
                             (m->draft.model ? m->draft.opt.n_threads - 1 : 0);
    runtime_terms(t, m->part ? 0 : RUNTIME_BYTES, threads);
    if (m->engine_opt.by_messages) launch_terms(t);
    if (m->engine_opt.activations == ACTIVATION_BF16 &&
        (!m->on_device || gpu_layers_computed(m)))
        terms_add(t, MEM_RUNTIME, TERM_CALIBRATED,
                  (uint64_t)m->engine_opt.n_threads * BF16_STACK_BYTES,
                  "weights in bf16 on %u stacks", m->engine_opt.n_threads);
    kv_tier_terms(m, t);
}

/* Of this process. */
static const plan *host_plan(const machine *m) {
    if (m->n_ranks > 1)
        return m->on_device ? &m->ranks[m->rank].host_plan : &m->ranks[m->rank].plan;
    return m->on_device ? &m->host_plan : &m->plan;
}

static const plan *device_plan(const machine *m) {
    return m->n_ranks > 1 ? &m->ranks[m->rank].plan : &m->plan;
}

/* Of ranks on devices: whether the engine runs the part of each, which it may refuse where it runs the
 * whole. */
static status check_parts(const machine *m, err *e) {
    return m->on_device && rank_plan_count(&m->opt) > 1 ? rank_plan_runs(m, e) : OK;
}

/* What the engine will allocate. Where the choice of the engine is ours, one that cannot serve
 * the model gives way to the CPU's. A model that is not here and that the engine cannot serve is
 * estimated. */
static status engine_terms(machine *m, const machine_wish *w, terms *t, kv_request *kv,
                           err *e) {
    set_rows(m, w);
    m->lacks = engine_lacks(m->backend, &m->model->program);
    if (!op_set_empty(m->lacks)) {
        status s = engine_check_runs(m->backend, &m->model->program, e);
        if (engine_fall_back(m, w, e)) return engine_terms(m, w, t, kv, e);
        return w->elsewhere || !m->file ? planned_model_terms(m, t, kv, e, e) : s;
    }
    if (m->counted) return planned_model_terms(m, t, kv, NULL, e);
    status s = m->backend->terms(&m->model->program, &m->engine_opt, t, kv, e);
    const bool planned = w->elsewhere && m->opt.backend != BACKEND_AUTO; /* then by estimates */
    if (s == OK && !planned) s = check_parts(m, e);
    if (s == ERR_UNSUPPORTED && engine_fall_back(m, w, e)) {
        terms_clear(t);
        set_rows(m, w);
        s = m->backend->terms(&m->model->program, &m->engine_opt, t, kv, e);
    }
    const bool option = s == ERR_UNSUPPORTED && strcmp(e->field, "activation_dtype") == 0;
    if (s != ERR_UNSUPPORTED || m->header_bytes || option) return s;
    const err why = *e;
    return planned_model_terms(m, t, kv, &why, e);
}

/* own: what this process holds beside its engine. */
static status solve_ranks(machine *m, const terms *own, kv_request *kv, err *e) {
    terms others = {0};
    list_rank_terms(m, &others);
    const status s = rank_plan_solve(m, own, &others, kv, e);
    terms_clear(&others);
    return s;
}

/* With as many slots for experts as engine_opt says, and a KV cache of kv_tokens; 0: by the options. */
static status solve_with(machine *m, const machine_wish *w, uint64_t kv_tokens, err *e) {
    terms t = {0};
    kv_request kv = {0};
    status s = engine_terms(m, w, &t, &kv, e);
    if (s == OK) s = check_speculative(m, e);
    if (s != OK) goto done;
    kv.block_tokens = m->opt.block_size;
    kv.max_seqs = m->opt.max_num_seqs;
    kv.max_rows = m->opt.max_num_batched_tokens;
    kv.in_proportion = w->in_proportion;
    set_groups(m, &kv);
    s = draft_model_terms(m, &t, &kv, e);
    if (s == OK) s = kv_tier_configure(m, e);
    if (s != OK) goto done;
    if (rank_plan_count(&m->opt) > 1) terms_clear(&t); /* each rank has its own */
    list_terms(m, &t);
    if (m->extra) m->extra(m->extra_arg, m, &t);
    kv.min_tokens = m->opt.max_model_len;
    kv.max_tokens = (uint64_t)m->opt.max_model_len * m->opt.max_num_seqs;
    kv.want_tokens = m->opt.kv_cache_tokens;
    if (!kv.want_tokens) kv.want_tokens = kv_tokens;
    if (!kv.want_tokens && (m->budget.automatic || m->part) && !m->on_device)
        kv.want_tokens = (uint64_t)MACHINE_TOKENS_PER_SEQ * m->opt.max_num_seqs;
    s = rank_plan_count(&m->opt) > 1 ? solve_ranks(m, &t, &kv, e)
                                     : machine_solve(m, &t, &kv, e);
    for (uint32_t g = 0; g < kv.n_groups; g++) {
        m->engine_opt.n_blocks[g] = m->sched_conf.group[g].n_blocks = m->plan.group_blocks[g];
        m->engine_opt.max_blocks[g] = m->sched_conf.group[g].max_blocks = m->kv.most[g];
    }
done:
    terms_clear(&t);
    return s;
}

/* The plan of a machine whose model is open, whose options are resolved and whose engine and
 * budgets are chosen. */
static status solve(machine *m, const machine_wish *w, err *e) {
    expert_shape x;
    bool automatic;
    status s = expert_memory_slots(m, &x, &m->engine_opt.expert_slots, &automatic, e);
    if (s == OK) plan_offload(m, w);
    if (s == OK) s = gpu_layers_solve(m, w, solve_with, e);
    if (s != ERR_BUDGET || !x.n_layers || m->engine_opt.expert_slots) return s;
    if (automatic) return expert_memory_solve(m, w, &x, solve_with, e);
    err_hint(e, "%.150s; or give expert_memory = auto", e->hint);
    return s;
}

status machine_plan(machine *m, const options *o, const machine_wish *w, err *e) {
    *m = (machine){.given = *o,
                   .opt = *o,
                   .part = w->part,
                   .words = w->words,
                   .launch = w->launch,
                   .extra = w->extra,
                   .extra_arg = w->arg};
    status s = open_model(m, w->weights, e);
    if (s == OK) s = draft_model_open(m, w, e);
    if (s == OK) s = default_sampling(&m->sampling, o, m->file, w->greedy ? 0 : 1, e);
    if (s == OK) s = resolve(m, w, e);
    if (s == OK) s = engine_choose(m, w, e);
    m->budget.bytes -= w->aside_bytes < m->budget.bytes ? w->aside_bytes : m->budget.bytes;
    if (s == OK && m->file) s = machine_find_templates(m, e);
    if (s != OK) return s;
    set_name(m);
    m->n_params = program_params(&m->model->program);
    m->weight_bytes = program_weight_bytes(&m->model->program);
    if (m->file) {
        m->tokenizer_bytes = tokenizer_plan_bytes_pre(m->file, str_of(o->pre_tokenizer));
        m->header_bytes = checkpoint_header_bytes(m->file);
    }
    s = solve(m, w, e);
    if (s == OK) gpu_layers_log(m);
    return s;
}

/* What of a machine depends on its model, its engine and its budgets alone. */
static void borrow(machine *m, const machine *of, const options *o) {
    *m = (machine){.given = *o,
                   .opt = *o,
                   .borrowed = true,
                   .part = of->part,
                   .launch = of->launch,
                   .extra = of->extra,
                   .extra_arg = of->extra_arg,
                   .model = of->model,
                   .draft = of->draft,
                   .counted = of->counted,
                   .lacks = of->lacks,
                   .text_part = of->text_part,
                   .stored = of->stored,
                   .backend = of->backend,
                   .budget = of->budget,
                   .max_budget = of->max_budget,
                   .host_budget = of->host_budget,
                   .on_device = of->on_device,
                   .card = of->card,
                   .tokenizer_bytes = of->tokenizer_bytes,
                   .header_bytes = of->header_bytes,
                   .chat_bytes = of->chat_bytes,
                   .sampling = of->sampling,
                   .n_params = of->n_params,
                   .weight_bytes = of->weight_bytes};
    memcpy(m->not_served, of->not_served, sizeof m->not_served);
    memcpy(m->device, of->device, sizeof m->device);
    memcpy(m->name, of->name, sizeof m->name);
    m->opt.backend = of->on_device ? BACKEND_CUDA : BACKEND_CPU;
}

status machine_plan_again(machine *m, const machine *of, const options *o,
                          const machine_wish *w, err *e) {
    borrow(m, of, o);
    gpu_layers_keep(of, &m->opt);
    plan_offload_keep(of, &m->opt);
    status s = resolve(m, w, e);
    m->engine_opt.device = of->engine_opt.device;
    m->engine_opt.n_sms = of->engine_opt.n_sms;
    if (w->budget) m->budget = *w->budget;
    if (w->uncut) m->budget = m->host_budget = budget_unlimited();
    if (w->uncut || (w->budget && w->budget->bytes > m->max_budget.bytes))
        m->max_budget.bytes = 0;
    return s == OK ? solve(m, w, e) : s;
}

status machine_generates(const machine *m, err *e) {
    if (!m->model->program.config.bidirectional) return OK;
    err_set(e, ERR_UNSUPPORTED, "%.120s is an encoder: it generates nothing", m->name);
    err_hint(e, "vramd serve answers /v1/embeddings with it, or /v1/rerank");
    return err_field(e, "model");
}

status machine_has_weights(const machine *m, err *e) {
    const status ranks = ranks_check(m, e);
    if (ranks != OK) return ranks;
    if (m->file) return OK;
    if (hf_folder_is(m->opt.model) && !op_set_empty(m->lacks))
        return engine_check_runs(m->backend, &m->model->program, e);
    if (hf_folder_is(m->opt.model) && m->not_served[0]) {
        err_set(e, ERR_UNSUPPORTED, "%.120s can be planned, but not loaded: %.230s",
                m->opt.model, m->not_served);
        err_hint(e, "name a GGUF file of the model");
    } else {
        err_set(e, ERR_INVALID, "%.250s is not a GGUF file, nor a folder with safetensors",
                m->opt.model);
        err_hint(e, "a config.json can be planned (vramd plan), not served");
    }
    return err_field(e, "model");
}

status machine_reserve(machine *m, err *e) {
    status s = ledger_open(&m->ledger, host_plan(m), e);
    if (s == OK && m->on_device) s = ledger_open(&m->device_ledger, device_plan(m), e);
    if (s != OK) return s;
    const terms *t = &host_plan(m)->terms;
    CHECK(ledger_reserve(m->ledger, MEM_RUNTIME, terms_sum(t, MEM_RUNTIME)));
    CHECK(ledger_reserve(m->ledger, MEM_LOADING, m->header_bytes + m->draft.header_bytes));
    if (terms_sum(t, MEM_REQUESTS) == 0) return OK;
    return pool_open(&m->pool, m->ledger, MEM_REQUESTS, m->opt.request_memory, e);
}

status machine_reserve_part(machine *m, ledger *shared, pool *p, err *e) {
    CHECK(m->part && !m->on_device);
    const status s = ledger_open_under(&m->ledger, &m->plan, shared, e);
    if (s != OK) return s;
    CHECK(ledger_reserve(m->ledger, MEM_RUNTIME, terms_sum(&m->plan.terms, MEM_RUNTIME)));
    CHECK(ledger_reserve(m->ledger, MEM_LOADING, m->header_bytes + m->draft.header_bytes));
    m->pool = p;
    m->pool_borrowed = true;
    return OK;
}

static void *tokenizer_take(void *self, size_t bytes, size_t *got) {
    err e;
    void *p;
    *got = bytes;
    return ledger_alloc(self, &p, MEM_TOKENIZER, bytes, "tokenizer", &e) == OK ? p : NULL;
}
static void tokenizer_give(void *self, void *p, size_t got) {
    (void)got;
    ledger_free(self, p);
}

static void close_file(machine *m) {
    if (!m->file) return;
    if (m->ledger) ledger_release(m->ledger, MEM_LOADING, m->header_bytes);
    checkpoint_close(m->file);
    m->file = NULL;
    malloc_trim(0); /* what parsing left on the heap belongs to the system again */
}

/* Of a part: as it was kept, or to be kept. */
static status load_words(machine *m, err *e) {
    machine_words *w = m->words;
    status s = OK;
    if (!w->whole)
        s = tokenizer_open_pre(&w->tok, m->file, str_of(m->opt.pre_tokenizer), &w->src, e);
    m->tok = w->tok;
    if (w->whole) buf_clear(&m->chat_file);
    if (s == OK && !w->whole) s = machine_load_templates(m, &w->chat, &w->src, e);
    w->whole = s == OK;
    return s;
}

status machine_load_tokenizer(machine *m, err *e) {
    if (m->words) return load_words(m, e);
    m->tok_src = (chunks){m->ledger, tokenizer_take, tokenizer_give};
    status s =
        tokenizer_open_pre(&m->tok, m->file, str_of(m->opt.pre_tokenizer), &m->tok_src, e);
    return s == OK ? machine_load_templates(m, &m->chat, &m->tok_src, e) : s;
}

static size_t own_runner_bytes(const machine *m) {
    return runner_bytes(&m->sched_conf, m->model->program.config.n_vocab,
                        m->engine_opt.max_draft);
}

size_t machine_runner_bytes(const machine *m) {
    return own_runner_bytes(m) + draft_model_run_bytes(m);
}

runner *machine_runner(machine *m, runner_callback *callback, void *arg) {
    runner *r = runner_init(m->runner_mem, &m->sched_conf, m->model->program.config.n_vocab,
                            m->engine_opt.max_draft, m->sched, m->engine, callback, arg);
    if (!m->draft.model) return r;
    char *valid = (char *)m->sched_mem + m->sched_bytes -
                  draft_model_valid_bytes(m, m->engine_opt.max_blocks);
    char *mem = (char *)m->runner_mem + own_runner_bytes(m);
    runner_set_draft(r, draft_model_run(m, mem, valid), m->draft.group, looks_up(&m->opt));
    return r;
}

status machine_load(machine *m, err *e) {
    status s = machine_load_tokenizer(m, e);
    if (s == OK && m->n_ranks > 1)
        s = ranks_open(m, e);
    else if (s == OK)
        s = engine_open(&m->engine, m->backend, m->model, &m->engine_opt, m->ledger,
                        m->device_ledger, e);
    if (s == OK) s = draft_model_load(m, e);
    if (s == OK) s = kv_tier_open(&m->tier, m, e);
    if (s == OK) s = checkpoint_unchanged(m->file, e);
    if (s != OK) return s;
    size_t n_eog;
    m->sched_conf.end_tokens = tokenizer_eog(m->tok, &n_eog);
    m->sched_conf.n_end_tokens = (uint32_t)n_eog;
    s = ledger_alloc(m->ledger, &m->sched_mem, MEM_SCHEDULER, m->sched_bytes, "scheduler", e);
    if (s != OK) return s;
    m->sched = sched_init(m->sched_mem, &m->sched_conf);
    s = ledger_alloc(m->ledger, &m->runner_mem, MEM_SCHEDULER, machine_runner_bytes(m),
                     "steps in flight", e);
    if (s == OK && hf_folder_has_input_scales(m->file))
        log_info("the fixed scales of activations in the model's files are not used: "
                 "activation_dtype says how activations are rounded");
    if (s == OK) draft_model_close_file(m);
    if (s == OK) close_file(m);
    return s;
}

void machine_close(machine *m) {
    kv_tier_close(m->tier);
    if (m->borrowed) m->model = NULL, m->draft = (draft_model){0};
    if (m->ledger) {
        ledger_free(m->ledger, m->runner_mem);
        ledger_free(m->ledger, m->sched_mem);
    }
    draft_model_close(m);
    engine_close(m->engine);
    ranks_close(m);
    machine_close_templates(m);
    if (!m->words) tokenizer_close(m->tok);
    if (!m->pool_borrowed) pool_close(m->pool);
    model_close(m->model);
    close_file(m);
    if (m->ledger) {
        ledger_release(m->ledger, MEM_RUNTIME, terms_sum(&host_plan(m)->terms, MEM_RUNTIME));
        ledger_close(m->ledger);
    }
    ledger_close(m->device_ledger);
    rank_plan_clear(m);
    machine_unsolve(m);
    *m = (machine){0};
}

bool machine_compare(const machine *m, char *line, size_t cap) {
    ledger_view v;
    process_memory os;
    char a[32], b[32], c[32], d[32];
    ledger_read(m->ledger, &v);
    if (!process_memory_read(&os)) os.anonymous_bytes = v.ledger_bytes;
    int64_t gap = (int64_t)os.anonymous_bytes - (int64_t)v.ledger_bytes;
    uint64_t held = v.plan_bytes - v.cls[MEM_HTTP].plan_bytes; /* connections come later */
    snprintf(line, cap,
             "%s bytes planned before connections, %s allocated, %s anonymous by the kernel's "
             "count, difference %s%s",
             bytes_grouped(held, a), bytes_grouped(v.ledger_bytes, b),
             bytes_grouped(os.anonymous_bytes, c), gap < 0 ? "-" : "",
             bytes_grouped((uint64_t)(gap < 0 ? -gap : gap), d));
    return gap <= (int64_t)((4 << 20) + v.ledger_bytes / 500);
}

bool machine_compare_device(const machine *m, char *line, size_t cap) {
    const int64_t tolerated = 64 << 20; /* memory.md: beyond the measured context */
    ledger_view v;
    device_memory d = {0};
    char a[32], b[32], c[32], g[32];
    ledger_read(m->device_ledger, &v);
    if (!m->backend->device_memory(m->engine, &d)) {
        snprintf(line, cap, "the driver does not report what is used");
        return false;
    }
    const uint64_t arenas = v.ledger_bytes - v.cls[MEM_CONTEXT].ledger_bytes;
    int64_t gap = (int64_t)d.used_bytes - (int64_t)(arenas + d.outside_bytes);
    snprintf(line, cap,
             "%s bytes planned, %s allocated, %s of context and libraries, difference from the "
             "driver's count %s%s",
             bytes_grouped(v.plan_bytes, a), bytes_grouped(arenas, b),
             bytes_grouped(d.outside_bytes, c), gap < 0 ? "-" : "",
             bytes_grouped((uint64_t)(gap < 0 ? -gap : gap), g));
    return gap <= tolerated;
}
