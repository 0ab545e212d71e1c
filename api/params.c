/* Parameters of completion requests. Owns nothing; the loop thread. */
#include "api/params.h"

#include <stdio.h>
#include <sys/random.h>

#include "api/param_table.h"
#include "api/token_rules.h"
#include "base/clock.h"

static status bad(err *e, const char *field, const char *text) {
    err_set(e, ERR_INVALID, "%s", text);
    return err_field(e, "%s", field);
}

/* ---- what needs more than a row ---- */

static status read_max_tokens(params *p, const json_t *o, bool chat, err *e) {
    /* The last that is given wins: OpenAI's newer name, then its older one. */
    static const char *const name[] = {"n_predict", "max_tokens", "max_completion_tokens"};
    int64_t lo = !chat && (p->echo || p->prompt_logprobs >= 0) ? 0 : 1; /* 0 scores a prompt */
    for (int i = 0; i < 3; i++) {
        status s = json_in_int(o, name[i], lo, INT32_MAX, &p->max_tokens, e);
        if (s != OK) return s;
    }
    if (p->max_tokens >= 0 && p->sampling.min_tokens > p->max_tokens)
        return bad(e, "min_tokens", "min_tokens is more than max_tokens");
    return OK;
}

static status read_seed(params *p, const json_t *o, err *e) {
    int64_t seed = -1; /* what vLLM and llama.cpp take for "a random one" */
    status s = json_in_int(o, "seed", INT64_MIN, INT64_MAX, &seed, e);
    p->sampling.seed = (uint64_t)seed;
    if (s != OK || seed != -1) return s;
    if (getrandom(&p->sampling.seed, sizeof p->sampling.seed, GRND_NONBLOCK) !=
        sizeof p->sampling.seed)
        p->sampling.seed = clock_us();
    return OK;
}

static status read_best_of(params *p, const json_t *o, bool chat, err *e) {
    int64_t best = p->n_shown = p->n;
    status s = chat ? OK : json_in_int(o, "best_of", 1, PARAMS_MAX_CHOICES, &best, e);
    if (s != OK || best == p->n) return s;
    if (best < p->n) return bad(e, "best_of", "best_of is less than n");
    if (p->stream)
        return bad(e, "best_of",
                   "best_of greater than n cannot be streamed: the best is known last");
    p->n = (uint32_t)best;
    p->sampling.n_logprobs = 0;
    return OK;
}

static void raise_logprobs(params *p, int n) {
    if (n > p->sampling.n_logprobs) p->sampling.n_logprobs = (int16_t)n;
}

static status read_logprobs(params *p, const json_t *o, bool chat, err *e) {
    int64_t top = -1;
    status s;
    if (!chat) {
        s = json_in_int(o, "logprobs", 0, SAMPLING_MAX_LOGPROBS, &top, e);
        p->logprobs = top >= 0;
    } else {
        s = json_in_bool(o, "logprobs", &p->logprobs, e);
        if (s == OK) s = json_in_int(o, "top_logprobs", 0, SAMPLING_MAX_LOGPROBS, &top, e);
        if (s == OK && top > 0 && !p->logprobs)
            return bad(e, "top_logprobs", "top_logprobs needs logprobs to be true");
    }
    p->n_top = p->logprobs && top > 0 ? (int)top : 0;
    if (p->logprobs) raise_logprobs(p, p->n_top);
    return s;
}

static status read_prompt_logprobs(params *p, const json_t *o, err *e) {
    int64_t n = -1;
    status s = json_in_int(o, "prompt_logprobs", 0, SAMPLING_MAX_LOGPROBS, &n, e);
    if (s == OK && n >= 0 && p->stream)
        return bad(e, "prompt_logprobs", "prompt_logprobs are not available in a stream");
    p->prompt_logprobs = (int)n;
    raise_logprobs(p, p->prompt_logprobs);
    return s;
}

static status read_truncate(params *p, const json_t *o, err *e) {
    static const char field[] = "truncate_prompt_tokens";
    if (!json_in_has(o, field)) return OK;
    status s = json_in_int(o, field, -1, INT32_MAX, &p->truncate_prompt, e);
    if (s == OK && p->truncate_prompt == 0)
        return bad(e, field, "truncate_prompt_tokens must be -1, or 1 and more");
    return s;
}

static status read_ending(const params *p, err *e) {
    if (!p->continue_final || !p->add_generation_prompt) return OK;
    bad(e, "continue_final_message",
        "continue_final_message and add_generation_prompt exclude each other");
    return err_hint(e, "send \"add_generation_prompt\": false");
}

static status read_stop(params *p, const json_t *o, arena *mem, err *e) {
    const json_t *v = json_object_get(o, "stop");
    if (!v || json_is_null(v)) return OK;
    size_t n = json_is_array(v) ? json_array_size(v) : 1, bytes = 0;
    if (n > PARAMS_MAX_STOPS) return bad(e, "stop", "stop has more than 256 strings");
    p->stop = arena_alloc(mem, (n + 1) * sizeof *p->stop);
    if (!p->stop) return err_set(e, ERR_NO_MEMORY, "no memory for stop strings");
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(one))
            return json_in_wrong(e, "stop", "a string or a list of strings", one);
        str s = json_in_text(one);
        if (s.len > STOP_MAX_BYTES)
            return bad(e, "stop", "a stop string has more than 1024 bytes");
        bytes += s.len;
        if (s.len) p->stop[p->n_stop++] = s; /* an empty one stops nothing */
    }
    if (bytes > PARAMS_MAX_STOP_BYTES)
        return bad(e, "stop", "the stop strings have more than 16384 bytes together");
    return OK;
}

static status read_stop_ids(params *p, const json_t *o, uint32_t n_vocab, err *e) {
    const json_t *v = json_object_get(o, "stop_token_ids");
    if (!v || json_is_null(v)) return OK;
    if (!json_is_array(v)) return json_in_wrong(e, "stop_token_ids", "a list of token ids", v);
    if (json_array_size(v) > PARAMS_MAX_STOP_IDS)
        return bad(e, "stop_token_ids", "stop_token_ids has more than 16 ids");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id))
            return json_in_wrong(e, "stop_token_ids", "a list of token ids", id);
        if (json_integer_value(id) < 0 || json_integer_value(id) >= n_vocab)
            return bad(e, "stop_token_ids", "an id in stop_token_ids is not in the vocabulary");
        p->stop_ids[p->n_stop_ids++] = (int32_t)json_integer_value(id);
    }
    return OK;
}

static status read_stream_options(params *p, const json_t *o, err *e) {
    const json_t *v = json_object_get(o, "stream_options");
    if (!v || json_is_null(v)) return OK;
    if (!json_is_object(v)) return json_in_wrong(e, "stream_options", "an object", v);
    if (!p->stream)
        return bad(e, "stream_options", "stream_options is allowed only with stream: true");
    status s = json_in_bool(v, "include_usage", &p->include_usage, e);
    if (s == OK) s = json_in_bool(v, "continuous_usage_stats", &p->continuous_usage, e);
    if (s != OK) {
        char field[64];
        snprintf(field, sizeof field, "stream_options.%.40s", e->field);
        err_field(e, "%s", field);
    }
    p->continuous_usage = p->continuous_usage && p->include_usage;
    return s;
}

static status read_timeout(params *p, const json_t *o, err *e) {
    double t = 0;
    status s = json_in_real(o, "timeout", 0.001, 86400, &t, e);
    p->timeout_us = (uint64_t)(t * 1e6);
    return s;
}

/* llama.cpp's name of where reasoning goes. */
static status read_reasoning(params *p, const json_t *o, err *e) {
    static const char *const words[] = {"none", "auto", "deepseek"};
    str format = STR("auto");
    status s = json_in_str(o, "reasoning_format", &format, e);
    if (s != OK) return s;
    for (int k = 0; k < 3; k++) {
        if (!str_eqz(format, words[k])) continue;
        p->split_reasoning &= k > 0;
        return OK;
    }
    return bad(e, "reasoning_format", "reasoning_format must be none, auto or deepseek");
}

static status read_stops(params *p, const json_t *o, const tokenizer *tok, arena *a, err *e) {
    status s = read_stop(p, o, a, e);
    return s == OK ? read_stop_ids(p, o, tokenizer_n_vocab(tok), e) : s;
}

static status read_names(params *p, const json_t *o, err *e) {
    str user = {0}; /* taken, and of no effect: tenants are named by keys */
    status s = json_in_str(o, "model", &p->model, e);
    p->has_priority = json_is_integer(json_object_get(o, "priority"));
    if (s == OK) s = json_in_str(o, "user", &user, e);
    if (s == OK) s = json_in_str(o, "cache_salt", &p->cache_salt, e);
    if (s == OK && p->cache_salt.ptr && p->cache_salt.len == 0)
        s = bad(e, "cache_salt", "cache_salt is empty");
    return s;
}

status params_read(params *p, const json_t *o, bool chat, const sampling *defaults,
                   const tokenizer *tok, arena *a, err *e) {
    *p = (params){.n = 1,
                  .max_tokens = -1,
                  .add_special_tokens = true,
                  .add_generation_prompt = true,
                  .skip_special = true,
                  .think_budget = -1,
                  .speculative = true,
                  .split_reasoning = true,
                  .include_reasoning = true,
                  .model = STR("")};
    sampling_defaults(&p->sampling);
    if (defaults) p->sampling = *defaults;
    p->sampling.n_logprobs = -1;
    status s = read_names(p, o, e);
    if (s == OK) s = param_table_read(p, o, chat, e);
    if (s == OK) s = constraint_read(&p->form, o, a, e);
    if (s == OK && chat) s = read_reasoning(p, o, e);
    if (s == OK && chat) s = tools_read(&p->tools, o, a, e);
    if (s == OK) s = read_best_of(p, o, chat, e);
    if (s == OK) s = read_logprobs(p, o, chat, e);
    if (s == OK) s = read_prompt_logprobs(p, o, e);
    if (s == OK) s = read_max_tokens(p, o, chat, e);
    if (s == OK) s = read_seed(p, o, e);
    if (s == OK) s = read_truncate(p, o, e);
    if (s == OK) s = read_ending(p, e);
    if (s == OK) s = read_stops(p, o, tok, a, e);
    if (s == OK) s = token_rules_read(p, o, tok, a, e);
    if (s == OK) s = read_stream_options(p, o, e);
    if (s == OK) s = read_timeout(p, o, e);
    return s;
}
