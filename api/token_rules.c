/* Rules about tokens become a mask, a list of banned sequences, and biases. Owns nothing; the
 * loop thread. */
#include "api/token_rules.h"

#include <string.h>

typedef struct reader {
    params *p;
    const json_t *body;
    const tokenizer *tok;
    arena *mem;
    err *e;
    uint32_t n_vocab;
    uint32_t *mask;    /* NULL: nothing is forbidden yet */
    const char *field; /* the last one that forbade something */
} reader;

static status bad(const reader *r, const char *field, const char *text, const char *hint) {
    err_set(r->e, ERR_INVALID, "%s", text);
    err_hint(r->e, "%s", hint);
    return err_field(r->e, "%s", field);
}

static status no_memory(const reader *r, const char *field) {
    err_set(r->e, ERR_NO_MEMORY, "no memory for %s", field);
    return err_field(r->e, "%s", field);
}

static uint32_t *new_mask(const reader *r, int fill) {
    const size_t bytes = sampling_mask_words(r->n_vocab) * sizeof(uint32_t);
    uint32_t *mask = arena_alloc(r->mem, bytes);
    if (mask) memset(mask, fill, bytes);
    return mask;
}

static void set(uint32_t *mask, int32_t token) {
    mask[token / 32] |= 1u << token % 32;
}

static status forbid(reader *r, const char *field, int32_t token) {
    if (!r->mask) r->mask = new_mask(r, 0xff);
    if (!r->mask) return no_memory(r, field);
    r->mask[token / 32] &= ~(1u << token % 32);
    r->field = field;
    return OK;
}

/* Forbids all tokens but those of only. */
static void forbid_others(reader *r, const char *field, uint32_t *only) {
    for (uint32_t i = 0; r->mask && i < sampling_mask_words(r->n_vocab); i++)
        only[i] &= r->mask[i];
    r->mask = only;
    r->field = field;
}

/* ---- allowed_token_ids ---- */

static status read_allowed(reader *r) {
    static const char field[] = "allowed_token_ids";
    const json_t *v = json_object_get(r->body, field);
    if (!v || json_is_null(v)) return OK;
    if (!json_is_array(v)) return json_in_wrong(r->e, field, "a list of token ids", v);
    const size_t n = json_array_size(v);
    if (n == 0)
        return bad(r, field, "allowed_token_ids is empty",
                   "give at least one id, or leave it out");
    if (n > PARAMS_MAX_ALLOWED)
        return bad(r, field, "allowed_token_ids has more than 65536 ids",
                   "give each id once; forbid tokens with logit_bias -100 instead");
    uint32_t *only = new_mask(r, 0);
    if (!only) return no_memory(r, field);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id)) return json_in_wrong(r->e, field, "a list of token ids", id);
        if (json_integer_value(id) < 0 || json_integer_value(id) >= r->n_vocab) {
            err_set(r->e, ERR_INVALID, "allowed_token_ids: %lld is not in the vocabulary",
                    (long long)json_integer_value(id));
            err_hint(r->e, "ids are from 0 to %u", r->n_vocab - 1);
            return err_field(r->e, "%s", field);
        }
        set(only, (int32_t)json_integer_value(id));
    }
    forbid_others(r, field, only);
    return OK;
}

/* ---- bad_words ---- */

static const char bad_words[] = "bad_words";

/* One spelling of a word. A single token is forbidden for good. */
static status ban(reader *r, banned_tokens *list, str text) {
    vec_i32 ids;
    vec_i32_init(&ids, r->mem);
    status s = tokenizer_encode(r->tok, text, 0, &ids, r->e);
    if (s != OK) return err_field(r->e, "%s", bad_words);
    if (ids.n > BANS_MAX_TOKENS)
        return bad(r, bad_words, "an entry of bad_words has more than 32 tokens",
                   "shorten it: the end of a text cannot come without its beginning");
    if (ids.n == 1) return forbid(r, bad_words, ids.v[0]);
    if (ids.n > 1) list[r->p->n_banned++] = (banned_tokens){ids.v, (uint32_t)ids.n};
    return OK;
}

static status ban_word(reader *r, banned_tokens *list, const json_t *word) {
    char spaced[PARAMS_MAX_BAD_WORD_BYTES + 2] = " ";
    if (!json_is_string(word)) return json_in_wrong(r->e, bad_words, "a list of strings", word);
    str text = json_in_text(word);
    while (text.len && text.ptr[0] == ' ') text.ptr++, text.len--;
    if (text.len == 0)
        return bad(r, bad_words, "an entry of bad_words is empty",
                   "leave it out, or give some text");
    if (text.len > PARAMS_MAX_BAD_WORD_BYTES)
        return bad(r, bad_words, "an entry of bad_words has more than 256 bytes", "shorten it");
    status s = ban(r, list, text);
    if (s != OK) return s;
    memcpy(spaced + 1, text.ptr, text.len);
    return ban(r, list, (str){spaced, text.len + 1});
}

static status read_bad_words(reader *r) {
    const json_t *v = json_object_get(r->body, bad_words);
    if (!v || json_is_null(v)) return OK;
    if (!json_is_array(v)) return json_in_wrong(r->e, bad_words, "a list of strings", v);
    const size_t n = json_array_size(v);
    if (n > PARAMS_MAX_BAD_WORDS)
        return bad(r, bad_words, "bad_words has more than 256 entries", "give fewer");
    banned_tokens *list = arena_alloc(r->mem, (2 * n + 1) * sizeof *list);
    if (!list) return no_memory(r, bad_words);
    for (size_t i = 0; i < n; i++) {
        status s = ban_word(r, list, json_array_get(v, i));
        if (s != OK) return s;
    }
    r->p->banned = list;
    return OK;
}

/* ---- logit_bias ---- */

static const char logit_bias_field[] = "logit_bias";

typedef struct biases {
    logit_bias *v;  /* [PARAMS_MAX_BIAS], no token twice; the n is sampling.n_bias */
    uint32_t *only; /* the tokens of bias 100, made when there is one */
    uint32_t n_given;
} biases;

static status too_many(const reader *r) {
    return bad(r, logit_bias_field, "logit_bias has more than 1024 entries", "give fewer");
}

static status no_token(const reader *r, str key) {
    err_set(r->e, ERR_INVALID, "logit_bias: \"%.40s\" is no token of this model", key.ptr);
    return err_field(r->e, "%s", logit_bias_field);
}

static status bias_value(const reader *r, const json_t *v, double *out) {
    if (!json_is_number(v))
        return json_in_wrong(r->e, logit_bias_field, "an object of numbers", v);
    *out = json_number_value(v);
    if (*out >= -100 && *out <= 100) return OK;
    return bad(r, logit_bias_field, "a bias must be from -100 to 100",
               "-100 forbids a token, 100 forbids all others");
}

static status add_bias(reader *r, biases *b, int32_t id, double x) {
    sampling *s = &r->p->sampling;
    uint32_t i = 0;
    if (b->n_given++ == PARAMS_MAX_BIAS) return too_many(r);
    if (x == -100) return forbid(r, logit_bias_field, id);
    if (x == 100) {
        if (!b->only) b->only = new_mask(r, 0);
        if (!b->only) return no_memory(r, logit_bias_field);
        set(b->only, id);
        return OK;
    }
    while (i < s->n_bias && b->v[i].token != id) i++;
    if (i == s->n_bias) b->v[s->n_bias++] = (logit_bias){id, 0};
    b->v[i].bias += (float)x;
    return OK;
}

/* The id that "123" is; -1: another text. */
static int64_t id_of(str key) {
    int64_t id = 0;
    size_t i = 0;
    for (; i < key.len && i < 10 && key.ptr[i] >= '0' && key.ptr[i] <= '9'; i++)
        id = id * 10 + (key.ptr[i] - '0');
    return key.len && i == key.len ? id : -1;
}

static status tokens_of(const reader *r, str key, unsigned flags, vec_i32 *ids) {
    err ignored;
    vec_i32_init(ids, r->mem);
    if (key.len > 256 || tokenizer_encode(r->tok, key, flags, ids, &ignored) != OK || !ids->n)
        return no_token(r, key);
    return OK;
}

/* {id or the text of one token: number} */
static status read_bias_object(reader *r, biases *b, json_t *list) {
    for (void *it = json_object_iter(list); it; it = json_object_iter_next(list, it)) {
        const str key = {json_object_iter_key(it), json_object_iter_key_len(it)};
        const int64_t id = id_of(key);
        double x = 0;
        vec_i32 ids = {0};
        status s = bias_value(r, json_object_iter_value(it), &x);
        if (s == OK && id < 0) s = tokens_of(r, key, TOK_PARSE_SPECIAL, &ids);
        if (s == OK && (id < 0 ? ids.n != 1 : id >= r->n_vocab)) s = no_token(r, key);
        if (s == OK) s = add_bias(r, b, id < 0 ? ids.v[0] : (int32_t)id, x);
        if (s != OK) return s;
    }
    return OK;
}

/* llama.cpp's list of pairs of an id, or a text, and a number, or false, which forbids. The
 * number is that of each token of the text. */
static status read_bias_pair(reader *r, biases *b, const json_t *pair) {
    const json_t *key = json_array_get(pair, 0), *v = json_array_get(pair, 1);
    double x = -100;
    vec_i32 ids = {0};
    if (json_array_size(pair) != 2 || !(json_is_integer(key) || json_is_string(key)))
        return json_in_wrong(r->e, logit_bias_field, "a list of pairs of a token and a bias",
                             pair);
    status s = json_is_false(v) ? OK : bias_value(r, v, &x);
    if (s == OK && json_is_integer(key)) {
        const json_int_t id = json_integer_value(key);
        if (id >= 0 && id < r->n_vocab) return add_bias(r, b, (int32_t)id, x);
        err_set(r->e, ERR_INVALID, "logit_bias: %lld is no token of this model", (long long)id);
        return err_field(r->e, "%s", logit_bias_field);
    }
    if (s == OK) s = tokens_of(r, json_in_text(key), 0, &ids);
    for (size_t i = 0; s == OK && i < ids.n; i++) s = add_bias(r, b, ids.v[i], x);
    return s;
}

static status read_bias(reader *r) {
    json_t *v = json_object_get(r->body, logit_bias_field);
    const json_t *pair;
    size_t i;
    biases b = {0};
    status s = OK;
    if (!v || json_is_null(v)) return OK;
    if (!json_is_object(v) && !json_array_size(v))
        return json_in_wrong(r->e, logit_bias_field, "an object", v);
    if (json_object_size(v) > PARAMS_MAX_BIAS) return too_many(r);
    b.v = arena_alloc(r->mem, PARAMS_MAX_BIAS * sizeof *b.v);
    if (!b.v) return no_memory(r, logit_bias_field);
    if (json_is_object(v)) s = read_bias_object(r, &b, v);
    json_array_foreach(v, i, pair) {
        if (s == OK) s = read_bias_pair(r, &b, pair);
    }
    r->p->sampling.bias = b.v;
    if (s == OK && b.only) forbid_others(r, logit_bias_field, b.only);
    return s;
}

/* ---- the whole ---- */

static bool allows_some(const reader *r) {
    for (uint32_t i = 0; i < r->n_vocab; i++)
        if (r->mask[i / 32] >> i % 32 & 1) return true;
    return false;
}

status token_rules_read(params *p, const json_t *body, const tokenizer *tok, arena *mem,
                        err *e) {
    reader r = {.p = p,
                .body = body,
                .tok = tok,
                .mem = mem,
                .e = e,
                .n_vocab = tokenizer_n_vocab(tok)};
    status s = read_allowed(&r);
    if (s == OK) s = read_bad_words(&r);
    if (s == OK) s = read_bias(&r);
    if (s != OK) return s;
    if (r.mask && !allows_some(&r))
        return bad(&r, r.field, "no token is left that may be drawn",
                   "allowed_token_ids, bad_words and logit_bias forbid all of them together");
    p->allowed = r.mask;
    return OK;
}
