/* Parameters of completion requests. Owns nothing; the loop thread. */
#include "api/params.h"

#include <stddef.h>
#include <stdio.h>
#include <sys/random.h>

#include "api/token_rules.h"
#include "base/clock.h"

typedef enum param_type { P_BOOL, P_I32, P_U32, P_F32 } param_type;
typedef enum param_where { BOTH, COMPLETIONS, CHAT } param_where;

#define AT(field) offsetof(params, field)
static const struct row {
    const char *name;
    param_type type;
    size_t at;
    double lo, hi;
    param_where where;
} rows[] = {
    {"stream", P_BOOL, AT(stream), 0, 0, BOTH},
    {"echo", P_BOOL, AT(echo), 0, 0, COMPLETIONS},
    {"ignore_eos", P_BOOL, AT(ignore_eos), 0, 0, BOTH},
    {"return_memory", P_BOOL, AT(return_memory), 0, 0, BOTH},
    {"add_special_tokens", P_BOOL, AT(add_special_tokens), 0, 0, BOTH},
    {"temperature", P_F32, AT(sampling.temperature), 0, 2, BOTH},
    {"top_p", P_F32, AT(sampling.top_p), 0, 1, BOTH},
    {"min_p", P_F32, AT(sampling.min_p), 0, 1, BOTH},
    {"typical_p", P_F32, AT(sampling.typical_p), 0, 1, BOTH},
    {"top_k", P_I32, AT(sampling.top_k), -1, INT32_MAX, BOTH},
    {"repetition_penalty", P_F32, AT(sampling.repetition_penalty), 0.01, 10, BOTH},
    {"presence_penalty", P_F32, AT(sampling.presence_penalty), -2, 2, BOTH},
    {"frequency_penalty", P_F32, AT(sampling.frequency_penalty), -2, 2, BOTH},
    {"min_tokens", P_U32, AT(sampling.min_tokens), 0, INT32_MAX, BOTH},
    {"n", P_U32, AT(n), 1, PARAMS_MAX_CHOICES, BOTH},
    {"priority", P_I32, AT(priority), INT32_MIN, INT32_MAX, BOTH},
};
#undef AT

static status read_row(params *p, const json_t *o, const struct row *r, err *e) {
    char *at = (char *)p + r->at;
    if (r->type == P_BOOL) return json_in_bool(o, r->name, (bool *)at, e);
    if (!json_in_has(o, r->name)) return OK;
    if (r->type == P_F32) {
        double v = 0;
        status s = json_in_real(o, r->name, r->lo, r->hi, &v, e);
        if (s == OK) *(float *)at = (float)v;
        return s;
    }
    int64_t v = 0;
    status s = json_in_int(o, r->name, (int64_t)r->lo, (int64_t)r->hi, &v, e);
    if (s != OK) return s;
    if (r->type == P_U32)
        *(uint32_t *)at = (uint32_t)v;
    else
        *(int32_t *)at = (int32_t)v;
    return OK;
}

static status bad(err *e, const char *field, const char *text) {
    err_set(e, ERR_INVALID, "%s", text);
    return err_field(e, "%s", field);
}

static status unsupported(err *e, const char *field, const char *text) {
    err_set(e, ERR_UNSUPPORTED, "%s", text);
    return err_field(e, "%s", field);
}

/* ---- what needs more than a row ---- */

static status read_max_tokens(params *p, const json_t *o, bool chat, err *e) {
    /* The newer name wins where both are given, as with OpenAI. */
    static const char *const name[] = {"max_tokens", "max_completion_tokens"};
    int64_t lo = !chat && p->echo ? 0 : 1; /* 0 scores a prompt */
    for (int i = 0; i < 2; i++) {
        status s = json_in_int(o, name[i], lo, INT32_MAX, &p->max_tokens, e);
        if (s != OK) return s;
    }
    if (p->max_tokens >= 0 && p->sampling.min_tokens > p->max_tokens)
        return bad(e, "min_tokens", "min_tokens is more than max_tokens");
    return OK;
}

static status read_seed(params *p, const json_t *o, err *e) {
    int64_t seed = 0;
    if (json_in_has(o, "seed")) {
        status s = json_in_int(o, "seed", INT64_MIN, INT64_MAX, &seed, e);
        p->sampling.seed = (uint64_t)seed;
        return s;
    }
    if (getrandom(&p->sampling.seed, sizeof p->sampling.seed, GRND_NONBLOCK) !=
        sizeof p->sampling.seed)
        p->sampling.seed = clock_us();
    return OK;
}

static status read_best_of(const params *p, const json_t *o, err *e) {
    int64_t best = p->n;
    status s = json_in_int(o, "best_of", 1, PARAMS_MAX_CHOICES, &best, e);
    if (s != OK || best == p->n) return s;
    if (best < p->n) return bad(e, "best_of", "best_of is less than n");
    return unsupported(e, "best_of", "best_of other than n is not supported");
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
        if (p->logprobs && top < 0) top = 0;
    }
    if (p->logprobs) p->sampling.n_logprobs = (int16_t)top;
    return s;
}

static status read_stop(params *p, const json_t *o, err *e) {
    const json_t *v = json_object_get(o, "stop");
    if (!v || json_is_null(v)) return OK;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > STOP_MAX) return bad(e, "stop", "stop has more than 16 strings");
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(one))
            return json_in_wrong(e, "stop", "a string or a list of strings", one);
        str s = json_in_text(one);
        if (s.len > STOP_MAX_BYTES)
            return bad(e, "stop", "a stop string has more than 1024 bytes");
        if (s.len) p->stop[p->n_stop++] = s; /* an empty one stops nothing */
    }
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
    return s;
}

static status read_timeout(params *p, const json_t *o, err *e) {
    double t = 0;
    status s = json_in_real(o, "timeout", 0.001, 86400, &t, e);
    p->timeout_us = (uint64_t)(t * 1e6);
    return s;
}

/* What other servers know and this one does not yet do: refused rather than ignored, because
 * the answer would not be what was asked for. */
static status read_unsupported(const json_t *o, bool chat, err *e) {
    static const char *const none_of[] = {
        "grammar",       "regex",          "guided_json",        "guided_regex",
        "guided_choice", "guided_grammar", "structured_outputs", "functions",
        "json_schema"};
    for (size_t i = 0; i < sizeof none_of / sizeof *none_of; i++)
        if (json_in_has(o, none_of[i]))
            return unsupported(e, none_of[i], "this parameter is not supported");
    str suffix = {0};
    status s = json_in_str(o, "suffix", &suffix, e);
    if (s != OK) return s;
    if (suffix.len) return unsupported(e, "suffix", "suffix is not supported");
    const json_t *format = json_object_get(o, "response_format");
    if (format && !json_is_null(format)) {
        if (!json_is_object(format))
            return json_in_wrong(e, "response_format", "an object", format);
        str type = STR("text");
        s = json_in_str(format, "type", &type, e);
        if (s != OK) return err_field(e, "response_format.type");
        if (!str_eqz(type, "text"))
            return unsupported(e, "response_format",
                               "response_format other than text is not supported");
    }
    if (!chat) return OK;
    const json_t *choice = json_object_get(o, "tool_choice"),
                 *tools = json_object_get(o, "tools");
    bool none = choice && json_is_string(choice) && str_eqz(json_in_text(choice), "none");
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return json_in_wrong(e, "tools", "a list", tools);
    if (json_array_size(tools) && !none)
        return unsupported(e, "tools", "tools are not supported");
    if (choice && !json_is_null(choice) && !none &&
        !(json_is_string(choice) && str_eqz(json_in_text(choice), "auto")))
        return unsupported(e, "tool_choice", "tool_choice other than none is not supported");
    return OK;
}

status params_read(params *p, const json_t *o, bool chat, const tokenizer *tok, arena *a,
                   err *e) {
    *p = (params){.n = 1, .max_tokens = -1, .add_special_tokens = true, .model = STR("")};
    sampling_defaults(&p->sampling);
    p->sampling.n_logprobs = -1;
    status s = json_in_str(o, "model", &p->model, e);
    for (size_t i = 0; i < sizeof rows / sizeof *rows && s == OK; i++)
        if (rows[i].where == BOTH || (rows[i].where == CHAT) == chat)
            s = read_row(p, o, &rows[i], e);
    p->has_priority = json_is_integer(json_object_get(o, "priority"));
    if (s == OK) s = read_unsupported(o, chat, e);
    if (s == OK) s = read_max_tokens(p, o, chat, e);
    if (s == OK) s = read_seed(p, o, e);
    if (s == OK) s = read_best_of(p, o, e);
    if (s == OK) s = read_logprobs(p, o, chat, e);
    if (s == OK) s = read_stop(p, o, e);
    if (s == OK) s = read_stop_ids(p, o, tokenizer_n_vocab(tok), e);
    if (s == OK) s = token_rules_read(p, o, tok, a, e);
    if (s == OK) s = read_stream_options(p, o, e);
    if (s == OK) s = read_timeout(p, o, e);
    str user = {0}; /* taken, and of no effect: tenants are named by keys */
    if (s == OK) s = json_in_str(o, "user", &user, e);
    if (s == OK) s = json_in_str(o, "cache_salt", &p->cache_salt, e);
    if (s == OK && p->cache_salt.ptr && p->cache_salt.len == 0)
        s = bad(e, "cache_salt", "cache_salt is empty");
    return s;
}
