/* Drives completion requests: tokenise, submit, turn events into text, finish. Loop thread,
 * except encode, which may run on the pool while the loop keeps off the request. */
#include "api/answer.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "api/answer_reply.h"
#include "api/writer.h"
#include "base/check.h"
#include "base/clock.h"

enum { MAX_CHOICES = 1024, DEFAULT_MAX_TOKENS = 16 };
/* Of a stream's choice, for events that its client has not read: half of what machine.c plans
 * for a request. */
enum { CHOICE_BYTES = 16 * 1024 };

/* ---- setting up ---- */

static void make_id(answer *a) {
    uint64_t r[2] = {clock_us(), (uintptr_t)a};
    if (getrandom(r, sizeof r, GRND_NONBLOCK) < 0) r[0] ^= a->created << 32;
    snprintf(a->id, sizeof a->id, "%s%016llx%08llx", a->writer->id_prefix,
             (unsigned long long)r[0], (unsigned long long)(r[1] & 0xffffffff));
}

answer *answer_new(app *app, http_request *rq, const json_t *body, const writer *w) {
    err e;
    answer *a = arena_zalloc(&rq->mem, sizeof *a);
    if (!a) {
        http_refuse_memory(rq);
        return NULL;
    }
    status s = params_read(&a->p, body, w->chat, rq->served->port->defaults,
                           rq->served->port->tok, &rq->mem, &e);
    if (s == OK) s = app_check_model(rq, a->p.model, &e);
    if (s == OK && !stop_set_init(&a->stops, &rq->mem, a->p.stop, a->p.n_stop))
        s = err_set(&e, ERR_NO_MEMORY, "no memory for stop strings");
    if (s != OK) {
        app_refuse(app, rq, &e);
        return NULL;
    }
    const char *receipt = http_header(rq, "X-Vramd-Receipt");
    if (receipt && strcmp(receipt, "1") == 0) a->p.receipt = true;
    if (a->p.receipt) a->miss = arena_zalloc(&rq->mem, sizeof *a->miss);
    a->trusted = a->miss && (rq->tenant || a->p.cache_salt.len || app_client_is_here(rq));
    a->app = app;
    a->rq = rq;
    a->writer = w;
    a->chat = w->chat;
    a->created = (uint64_t)time(NULL);
    buf_init(&a->piece, &rq->mem);
    make_id(a);
    rq->user = a;
    return a;
}

static const char *prompt_field(const answer *a) {
    if (a->field) return a->field;
    return a->chat ? "messages" : a->n_dims ? "input" : "prompt";
}

bool answer_prompts(answer *a, size_t n) {
    err e;
    uint32_t places = a->rq->served->port->max_gens,
             most = places < MAX_CHOICES ? places : MAX_CHOICES;
    if (a->n_dims) most = POOL_MAX_INPUTS; /* a few of them at once */
    /* Beyond its places no retry would help: not "busy". */
    if (n * a->p.n > most) {
        err_set(&e, ERR_INVALID, "%zu prompts with n = %u make more than %u choices", n, a->p.n,
                most);
        err_field(&e, "%s", n > most ? prompt_field(a) : "n");
        err_hint(&e, "send several requests");
        app_refuse(a->app, a->rq, &e);
        return false;
    }
    a->prompts = arena_zalloc(&a->rq->mem, n * sizeof *a->prompts);
    a->choices = arena_zalloc(&a->rq->mem, n * a->p.n * sizeof *a->choices);
    if (!a->prompts || !a->choices) {
        http_refuse_memory(a->rq);
        return false;
    }
    a->n_prompts = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        vec_i32_init(&a->prompts[i].ids, &a->rq->mem);
        buf_init(&a->prompts[i].scores, &a->rq->mem);
    }
    return true;
}

/* ---- tokenising ---- */

static bool needs_grammar(const answer *a) {
    return a->p.form.build && !a->grammar && !card_is_encoder(&a->rq->served->port->card);
}

static void encode(void *arg) {
    answer *a = arg;
    const port *port = a->rq->served->port;
    prompt_encode(a);
    if (a->encode_status == OK && needs_grammar(a))
        a->encode_status =
            constraint_compile(&a->p.form, &a->rq->mem, port->index,
                               pool_chunks(port->grammars), &a->compiled, &a->encode_error);
}

static void submit_all(void *arg);

static void encoded(void *arg) {
    answer *a = arg;
    if (a->compiled) {
        a->grammar = grammars_add(&a->rq->served->grammars, a->p.form.key, a->compiled);
        if (!a->grammar)
            a->encode_status =
                err_set(&a->encode_error, ERR_NO_MEMORY, "no memory for a grammar");
    }
    http_take_back(a->rq, submit_all, a);
}

void answer_start(answer *a) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < a->n_prompts; i++)
        bytes += a->prompts[i].text.len + a->prompts[i].second.len;
    if (a->p.form.build) a->grammar = grammars_find(&a->rq->served->grammars, a->p.form.key);
    if (needs_grammar(a)) grammars_make_space(&a->rq->served->grammars);
    if (bytes > ANSWER_INLINE_BYTES || needs_grammar(a)) {
        if (app_lend(a->rq, a->rq->served->port, encode, encoded, a)) return;
        err e;
        err_set(&e, ERR_BUSY, "too many long prompts and new grammars at once");
        app_refuse(a->app, a->rq, &e);
        return;
    }
    prompt_encode(a);
    submit_all(a);
}

/* ---- submitting ---- */

static void on_event(void *user, const gen_event *);

static status check_length(const answer *a, const prompt_in *p, uint32_t *max_tokens, err *e) {
    uint64_t ctx = a->rq->served->port->card.max_model_len, n = p->ids.n;
    int64_t want = a->p.max_tokens;
    if (n == 0) {
        err_set(e, ERR_INVALID, "the prompt is empty");
        return err_field(e, "%s", prompt_field(a));
    }
    /* A default is cut to what is left; what the client asked for is not. */
    uint64_t tokens = want > 0                       ? (uint64_t)want
                      : want == 0                    ? 1
                      : n >= ctx                     ? 1
                      : a->chat || a->writer->fills  ? ctx - n
                      : ctx - n < DEFAULT_MAX_TOKENS ? ctx - n
                                                     : DEFAULT_MAX_TOKENS;
    if (a->n_dims || (want == 0 && n == ctx)) tokens = 0; /* scored up to the last position */
    if (a->writer->cuts_length && n < ctx && n + tokens > ctx) tokens = ctx - n;
    if (n + tokens > ctx) {
        err_set(e, ERR_TOO_LONG,
                "This model's maximum context length is %llu tokens. However, you requested "
                "%llu tokens (%llu in the %s, %llu in the completion)",
                (unsigned long long)ctx, (unsigned long long)(n + tokens),
                (unsigned long long)n, prompt_field(a), (unsigned long long)tokens);
        return err_field(e, "%s", prompt_field(a));
    }
    *max_tokens = (uint32_t)tokens;
    return OK;
}

/* What is left until the deadline, which counts from the request's arrival. False: it has
 * passed. */
static bool set_deadline(answer *a) {
    uint64_t most = a->app->opt.request_timeout_s * 1000000ull, t = a->p.timeout_us;
    uint64_t gone_us = clock_us() - a->rq->began_us;
    if (most && (!t || t > most)) t = most;
    a->timeout_us = t > gone_us ? t - gone_us : 0;
    return !t || t > gone_us;
}

static void refuse_late(answer *a) {
    failure f;
    failure_set(&f, API_TIMEOUT, "the deadline passed before the first token");
    err_hint(&f.err, "allow more with \"timeout\", or retry when less is queued");
    answer_fail(a, &f);
}

/* Tenants share no cached blocks: an answer that comes sooner would tell what others ask. */
static bool make_salt(answer *a) {
    const tenant *t = a->rq->tenant;
    buf b;
    a->salt = a->p.cache_salt;
    if (!t) return true;
    buf_init(&b, &a->rq->mem);
    buf_add(&b, str_of(t->name));
    buf_addc(&b, '\0'); /* in no name */
    const size_t own = b.len;
    buf_add(&b, a->p.cache_salt);
    a->salt = buf_str(&b);
    a->base_salt = (str){a->salt.ptr, own};
    return !b.failed;
}

/* Lower is sooner: a key's requests may name its priority, or a later one. */
static int32_t priority_of(const answer *a) {
    const tenant *t = a->rq->tenant;
    const int32_t bound = t && t->limits.has_priority ? t->limits.priority : 0;
    if (!a->p.has_priority) return bound;
    return t && a->p.priority < bound ? bound : a->p.priority;
}

/* Bytes of a wide event, of one token: 288 and the model's name, and for each logprob 192, which
 * 999 of 1,000 tokens of a vocabulary take less than. */
static uint32_t event_bytes(const answer *a) {
    enum { EVENT_BYTES = 288, USAGE_BYTES = 192, TOKEN_ID_BYTES = 32, LOGPROB_BYTES = 192 };
    uint32_t n = EVENT_BYTES + (uint32_t)answer_model(a).len;
    if (a->p.continuous_usage) n += USAGE_BYTES;
    if (a->p.return_token_ids) n += TOKEN_ID_BYTES;
    if (a->p.logprobs) n += (1 + (uint32_t)a->p.n_top) * LOGPROB_BYTES;
    return n;
}

/* Tokens that may wait for a reader: their events fit in the memory that is set aside for a
 * choice, or there are just enough for the steps in flight (with 20 logprobs a token has 4 KB;
 * machine.c plans for those, too). */
static uint32_t credits_of(const answer *a) {
    enum { LEAST = 4 };
    uint32_t most = a->app->opt.stream_credits, n = CHOICE_BYTES / event_bytes(a);
    if (!a->p.stream) return 0;
    if (n < LEAST) n = LEAST;
    return n < most ? n : most;
}

/* Memory for what a stream holds until its client reads it: taken at once, and before anything
 * is computed, so that no other request can take it away later. Of very many choices a few
 * write at a time. False: there is none. */
static bool set_aside(answer *a) {
    enum { MOST = 16, LATER = 2048 }; /* of the same chunk, for text and the like */
    uint32_t n = a->n_prompts * a->p.n, wide = a->p.logprobs ? event_bytes(a) : 0;
    if (n > MOST) n = MOST;
    if (wide > CHOICE_BYTES / 2) wide = CHOICE_BYTES / 2;
    buf *out = http_stream_out(a->rq);
    bool ok = buf_reserve(out, (size_t)n * (CHOICE_BYTES - wide - LATER));
    for (uint32_t i = 0; i < n && wide; i++) {
        logprobs *l = &a->choices[i].lp;
        ok = ok && buf_reserve(&l->part[a->chat || a->writer->lists ? 0 : 2], wide);
    }
    return ok;
}

/* Log-probabilities of the prompt: for each choice with echo, else once for a prompt. */
static bool scores_prompt(const answer *a, uint32_t index) {
    bool echoed = a->p.echo && a->p.logprobs && !a->chat;
    /* Sums of all rows, but of an encoder, whose engine gives one for a text. */
    const model_card *card = &a->rq->served->port->card;
    if (a->n_dims) return card->pooling == POOL_MEAN && !card_is_encoder(card);
    return echoed || (a->p.prompt_logprobs >= 0 && index % a->p.n == 0);
}

/* False: no memory. */
static bool choice_init(answer *a, choice *c, uint32_t index, uint32_t max_tokens) {
    const prompt_in *p = &a->prompts[index / a->p.n];
    const tokenizer *tok = a->rq->served->port->tok;
    *c = (choice){
        .a = a, .index = index, .prompt = index / a->p.n, .stop_index = -1, .stop_id = -1};
    c->spec = (gen_spec){.prompt = p->ids.v,
                         .n_prompt = (uint32_t)p->ids.n,
                         .n_first = p->n_first,
                         .max_tokens = max_tokens,
                         .n_choices = index % a->p.n == 0 ? a->p.n : 0,
                         .sampling = a->p.sampling,
                         .allowed = a->p.allowed,
                         .banned = a->p.banned,
                         .n_banned = a->p.n_banned,
                         .grammar = a->grammar ? a->grammar->g : NULL,
                         .think = a->think,
                         .ignore_eos = a->p.ignore_eos,
                         .stop_ids = a->p.stop_ids,
                         .n_stop_ids = a->p.n_stop_ids,
                         .score_prompt = scores_prompt(a, index),
                         .priority = priority_of(a),
                         .tenant = app_tenant_of(a->app, a->rq),
                         .weight = a->rq->tenant ? a->rq->tenant->limits.weight : 0,
                         .cache_salt = a->salt,
                         .base_salt = a->base_salt,
                         .request = a->id,
                         .explain = a->miss && index == 0,
                         .weigh = a->p.receipt,
                         .no_disk = a->p.cache_salt.len > 0,
                         .no_guesses = !a->p.speculative,
                         .timeout_us = a->timeout_us,
                         .credits = credits_of(a),
                         .on_event = on_event,
                         .user = c};
    c->spec.sampling.seed += index % a->p.n;
    detok_init(&c->detok, tok, !a->p.skip_special);
    /* The special tokens of a text are in it; see prompt_echo_scores for those added to it. */
    detok_init_text(&c->echo_detok, tok, p->is_text || !a->p.skip_special);
    choice_parts_init(c);
    vec_i32_init(&c->ids, &a->rq->mem);
    logprobs_init(&c->lp, a->p.logprobs, a->chat || a->writer->lists, a->p.n_top, tok,
                  &a->rq->mem);
    c->lp.with_id = a->writer->lists;
    c->lp.ids = a->p.tokens_as_ids;
    if (a->grammar) {
        c->spec.grammar_state = arena_alloc(&a->rq->mem, grammar_state_bytes(c->spec.grammar));
        if (!c->spec.grammar_state) return false;
        grammar_start(c->spec.grammar, c->spec.grammar_state);
    }
    return choice_reads(c) && stop_state_init(&c->stop, &a->rq->mem, &a->stops);
}

static void refuse_submit(answer *a, const prompt_in *p, uint32_t max_tokens, const err *e) {
    const port *port = a->rq->served->port;
    failure f;
    failure_from(&f, e);
    f.n_prompt_tokens = p->ids.n;
    f.n_ctx = port->card.max_model_len;
    if (f.what == API_BUDGET) {
        f.bytes_needed =
            port->ops->kv_bytes_needed(a->rq->served->port, (uint32_t)p->ids.n, max_tokens);
        f.budget = port->kv_bytes;
    }
    answer_fail(a, &f);
}

/* Asks the tenant's budget of tokens for the most that this can take. False: refused. */
static bool charge(answer *a) {
    tenant *t = a->rq->tenant;
    double wait_s;
    if (!t) return true;
    uint64_t n = usage_prompt_tokens(a);
    for (uint32_t i = 0; i < a->n_prompts * a->p.n; i++) n += a->choices[i].spec.max_tokens;
    if (tenant_charge(t, n, clock_us(), &wait_s) == TENANT_OK) {
        a->n_charged = n;
        return true;
    }
    failure f;
    tenant_refusal(t, TENANT_TOKENS, wait_s, &f);
    answer_fail(a, &f);
    return false;
}

void answer_settle(answer *a) {
    uint64_t prompt = 0, output = 0;
    if (a->grammar) grammars_leave(&a->rq->served->grammars, a->grammar);
    a->grammar = NULL;
    if (!a->rq->tenant) return;
    for (uint32_t i = 0; i < a->n_choices; i++) {
        if (i % a->p.n == 0) prompt += a->choices[i].spec.n_prompt;
        output += a->choices[i].usage.n_output;
    }
    tenant_settle(a->rq->tenant, a->n_charged, prompt, output, clock_us());
}

/* The choices of prompt i. False: refused. */
static bool prepare(answer *a, uint32_t i) {
    uint32_t max_tokens = 0;
    err e;
    status s = prompt_truncate(a, &a->prompts[i], &e);
    if (s == OK) s = check_length(a, &a->prompts[i], &max_tokens, &e);
    if (s != OK) {
        refuse_submit(a, &a->prompts[i], max_tokens, &e);
        return false;
    }
    if (a->p.prompt_logprobs >= 0) prompt_score(&a->prompts[i], a, NULL);
    for (uint32_t k = i * a->p.n; k < (i + 1) * a->p.n; k++) {
        if (choice_init(a, &a->choices[k], k, max_tokens)) continue;
        http_refuse_memory(a->rq);
        return false;
    }
    return true;
}

/* Submits the choices that are left; of embeddings as many as may run at once, the others as
 * those end. False: refused. */
static bool submit_more(answer *a) {
    port *port = a->rq->served->port;
    err e;
    for (uint32_t total = a->n_prompts * a->p.n; a->n_choices < total;) {
        choice *c = &a->choices[a->n_choices];
        if (c->index % a->p.n > 0)
            c->spec.fork_of = a->choices[c->index - c->index % a->p.n].gen;
        if (a->n_dims) {
            if (a->n_live == POOL_AT_ONCE) return true;
            if (!pool_begin(c)) {
                err_set(&e, ERR_NO_MEMORY, "no memory for embeddings");
                refuse_submit(a, &a->prompts[c->prompt], 0, &e);
                return false;
            }
        }
        if (port->ops->submit(port, &c->spec, &c->gen, &e) != OK) {
            if (a->n_dims) pool_give_back(c);
            if (a->n_dims && a->n_live && e.code == ERR_BUSY) return true;
            refuse_submit(a, &a->prompts[c->prompt], c->spec.max_tokens, &e);
            return false;
        }
        a->n_choices++;
        a->n_live++;
        http_ref(a->rq);
    }
    return true;
}

static void submit_all(void *arg) {
    answer *a = arg;
    err e = a->encode_error;
    status s = a->encode_status;
    if (s != OK) {
        app_refuse(a->app, a->rq, &e);
        return;
    }
    if (a->writer->count) {
        a->over = true;
        a->writer->count(a);
        return;
    }
    if (!set_deadline(a)) {
        refuse_late(a);
        return;
    }
    if (!make_salt(a)) {
        http_refuse_memory(a->rq);
        return;
    }
    for (uint32_t i = 0; i < a->n_prompts; i++) {
        if (!prepare(a, i)) return;
    }
    if (a->p.stream && !set_aside(a)) {
        http_refuse_memory(a->rq);
        return;
    }
    if (!charge(a)) return;
    if (!submit_more(a)) return;
    if (a->p.stream && !a->writer->open(a)) {
        err_set(&e, ERR_NO_MEMORY, "no memory for the stream");
        refuse_submit(a, a->prompts, 0, &e);
    }
}

/* ---- ending ---- */

static void cancel_all(answer *a, gen_finish why) {
    for (uint32_t i = 0; i < a->n_choices; i++)
        if (a->choices[i].gen)
            a->rq->served->port->ops->cancel(a->rq->served->port, a->choices[i].gen, why);
}

void answer_gone(answer *a) {
    if (a->over) return;
    a->over = true;
    cancel_all(a, GEN_CANCELLED);
}

void answer_fail(answer *a, failure *f) {
    if (a->over) return;
    a->over = true;
    cancel_all(a, GEN_CANCELLED);
    if (a->rq->streaming)
        a->writer->error(a, f);
    else
        http_refuse(a->rq, f);
}

static void finish_if_all_ended(answer *a) {
    if (a->over || a->n_live || a->n_choices < a->n_prompts * a->p.n) return;
    a->over = true;
    if (a->p.stream)
        a->writer->done(a);
    else
        a->writer->whole(a);
}

/* Returns tokens to the machine when their bytes are with the kernel. A quarter of the window
 * at a time: fewer messages, and the machine is never short of three quarters. */
static void credit(choice *c) {
    if (!c->gen || !c->spec.credits || c->uncredited * 4 < c->spec.credits) return;
    c->a->rq->served->port->ops->credit(c->a->rq->served->port, c->gen, c->uncredited);
    c->uncredited = 0;
}

void answer_sent(answer *a) {
    for (uint32_t i = 0; i < a->n_choices && !a->over; i++) credit(&a->choices[i]);
}

/* ---- text ---- */

static void choice_finish(choice *c, const char *reason) {
    c->finish = c->n_calls && strcmp(reason, "stop") == 0 ? "tool_calls" : reason;
    choice_close_part(c);
    if (c->a->p.stream) c->a->writer->finish(c);
}

static void take_token(choice *c, const sampled *s) {
    answer *a = c->a;
    if (a->p.max_tokens == 0) return; /* the prompt alone was to be scored */
    c->n_output = ++c->n_tokens;
    c->sum_logprob += s->logprob;
    if (a->p.return_token_ids) vec_i32_push(&c->ids, s->token);
    logprobs_push(&c->lp, s, s->token, c->raw_bytes, c->n_chars);
    a->piece.len = 0;
    if (!c->reply) detok_push(&c->detok, s->token, &a->piece);
    const bool over =
        c->reply ? choice_read(c, s->token) : choice_take_text(c, buf_str(&a->piece));
    if (a->piece.failed) choice_part(c, PART_TEXT)->text.failed = true;
    if (!over) return;
    choice_finish(c, "stop");
    if (c->gen) a->rq->served->port->ops->cancel(a->rq->served->port, c->gen, GEN_STOP);
}

static const char *finish_reason(const answer *a, gen_finish f) {
    if (a->p.max_tokens == 0) return "length";
    return f == GEN_STOP ? "stop" : "length";
}

static bool is_stop_id(const answer *a, int32_t id) {
    for (uint32_t i = 0; i < a->p.n_stop_ids; i++)
        if (a->p.stop_ids[i] == id) return true;
    return false;
}

/* The machine has said its last: what was held back goes out. */
static void take_end(choice *c, const gen_event *ev) {
    answer *a = c->a;
    if (a->p.max_tokens != 0) c->n_output = ev->usage ? ev->usage->n_output : c->n_tokens;
    const bool by_id = ev->finish == GEN_STOP && is_stop_id(a, ev->stop_id);
    if (a->p.return_token_ids && ev->finish == GEN_STOP && ev->stop_id >= 0)
        vec_i32_push(&c->ids, ev->stop_id);
    a->piece.len = 0;
    if (by_id && a->p.include_stop) detok_push(&c->detok, ev->stop_id, &a->piece);
    detok_finish(&c->detok, &a->piece);
    if (c->reply ? choice_read_end(c)
                 : a->piece.len && choice_take_text(c, buf_str(&a->piece))) {
        choice_finish(c, "stop");
        return;
    }
    choice_flush_text(c);
    logprobs_release(&c->lp, c->shown_bytes, true);
    if (by_id) c->stop_id = ev->stop_id;
    c->timed_out = ev->finish == GEN_TIMEOUT;
    choice_finish(c, finish_reason(a, ev->finish));
}

static bool nothing_said(const answer *a) {
    for (uint32_t i = 0; i < a->n_choices; i++)
        if (a->choices[i].n_tokens) return false;
    return true;
}

static void take_failure(answer *a, const gen_event *ev) {
    failure f;
    if (ev->error)
        failure_from(&f, ev->error);
    else
        failure_set(&f, API_UNAVAILABLE, "the request was cancelled by the server");
    answer_fail(a, &f);
}

static void take_scores(choice *c, const gen_event *ev) {
    answer *a = c->a;
    const bool echoed = a->p.echo && !a->chat;
    for (uint32_t i = 0; i < ev->n_scored && ev->first_scored + i < c->spec.n_prompt; i++) {
        const sampled *s = &ev->prompt_score[i];
        if (echoed) prompt_echo_scores(c, ev->first_scored + i + 1, s);
        if (a->p.prompt_logprobs >= 0 && c->index % a->p.n == 0)
            prompt_score(&a->prompts[c->prompt], a, s);
    }
}

static void take_event(choice *c, const gen_event *ev) {
    answer *a = c->a;
    take_scores(c, ev);
    if (ev->n_tokens && !a->first_token_us) a->first_token_us = clock_us();
    if (a->p.echo && !c->echoed && (ev->n_tokens || ev->end)) prompt_echo(c);
    for (uint32_t i = 0; i < ev->n_tokens && !c->finish; i++) take_token(c, &ev->token[i]);
    if (ev->end && !c->finish) {
        if (ev->finish == GEN_ERROR || ev->finish == GEN_CANCELLED)
            take_failure(a, ev);
        else if (ev->finish == GEN_TIMEOUT && nothing_said(a))
            refuse_late(a);
        else
            take_end(c, ev);
    } else if (a->p.stream && !c->finish && ev->n_tokens) {
        a->writer->delta(c);
    }
}

/* Text that could not be kept: the request ends here, with the one error that needs no memory.
 */
static void check_memory(choice *c) {
    answer *a = c->a;
    bool stream = a->rq->streaming;
    buf *o = stream ? http_stream_out(a->rq) : NULL;
    if (!(o && o->failed) && !choice_failed(c) && !a->prompts[c->prompt].scores.failed) return;
    a->over = true;
    cancel_all(a, GEN_CANCELLED);
    if (stream) {
        o->failed = true;
        http_wake(a->rq);
    } else {
        http_refuse_memory(a->rq);
    }
}

/* A choice of embeddings has ended: another is submitted in its place. */
static void take_vector(choice *c) {
    answer *a = c->a;
    failure f;
    if (!pool_end(c)) {
        failure_set(&f, API_INTERNAL, "the model's hidden states are not finite");
        answer_fail(a, &f);
    } else if (a->n_choices < a->n_prompts && !set_deadline(a)) {
        refuse_late(a);
    } else {
        submit_more(a);
    }
}

static void on_event(void *user, const gen_event *ev) {
    choice *c = user;
    answer *a = c->a;
    http_request *rq = a->rq;
    /* A generation that ends must not be cancelled any more. */
    if (ev->end) c->gen = NULL;
    c->uncredited += ev->n_tokens;
    if (ev->n_tokens) c->usage.n_cached = ev->n_cached;
    if (!a->over && !c->finish) take_event(c, ev);
    if (!a->over) check_memory(c);
    /* Tokens that made no bytes (held back) have nothing to wait for. */
    if (!a->over && !ev->end && a->p.stream && http_stream_pending(rq) == 0) credit(c);
    if (!ev->end) return;
    if (ev->usage) c->usage = *ev->usage;
    if (c->spec.explain && ev->usage && ev->usage->miss) *a->miss = *ev->usage->miss;
    a->n_live--;
    if (a->n_dims && !a->over) take_vector(c);
    finish_if_all_ended(a);
    http_unref(rq);
}
