/* Sections [model NAME]. Owns nothing; any thread, before others run. */
#include "conf/sections.h"

#include <string.h>

#include "base/check.h"
#include "conf/option.h"

/* Options that each model may have for itself. */
static const char of_model[] =
    "model max_model_len pre_tokenizer chat_template chat_template_kwargs embeddings "
    "grammar_cache_bytes kv_cache_tokens kv_cache_dtype cache_type_k cache_type_v block_size "
    "state_checkpoints max_num_seqs max_num_batched_tokens batching scheduler_policy "
    "itl_slo_ms ttft_slo_ms "
    "max_waiting max_waiting_tokens watermark prefix_caching speculative draft_model "
    "speculative_tokens "
    "temperature top_p top_k min_p "
    "attention activation_dtype expert_memory";

/* Keys that are no options, but file, which is the option model. */
enum { PIN, LOAD, TYPE, TENANTS, N_OWN };
static const char *const own[N_OWN] = {"pin", "load", "type", "tenants"};

bool section_is_model(const char *heading) {
    return strncmp(heading, "model ", 6) == 0;
}

status sections_begin(model_sections *s, const char *heading, int line, const char *where,
                      err *e) {
    str name = str_of(heading + strlen("model "));
    while (name.len && name.ptr[0] == ' ') name.ptr++, name.len--;
    while (name.len && name.ptr[name.len - 1] == ' ') name.len--;
    if (name.len == 0 || name.len >= SECTION_NAME_BYTES || memchr(name.ptr, ',', name.len)) {
        err_set(e, ERR_INVALID, "%s: a model's name has 1 to %d bytes and no comma", where,
                SECTION_NAME_BYTES - 1);
        return err_field(e, "model");
    }
    for (uint32_t i = 0; i < s->n; i++) {
        if (!str_eqz(name, s->v[i].name)) continue;
        err_set(e, ERR_INVALID, "%s: [model %.60s] was begun in line %d already", where,
                s->v[i].name, s->v[i].line);
        return err_field(e, "model");
    }
    if (s->n == SECTIONS_MAX) {
        err_set(e, ERR_INVALID, "%s: more than %d models", where, SECTIONS_MAX);
        return err_field(e, "model");
    }
    model_section *m = &s->v[s->n++];
    *m = (model_section){.line = line};
    memcpy(m->name, name.ptr, name.len);
    return OK;
}

static int own_key(const char *key) {
    for (int i = 0; i < N_OWN; i++)
        if (strcmp(own[i], key) == 0) return i;
    return -1;
}

static status again(const char *where, const char *key, err *e) {
    err_set(e, ERR_INVALID, "%s: %s was set in this section already", where, key);
    return err_field(e, "%s", key);
}

static status set_own(model_section *m, int which, const char *value, const char *where,
                      err *e) {
    static const char *const words[N_OWN][2] = {
        [PIN] = {"false", "true"}, [LOAD] = {"start", "request"}, [TYPE] = {"chat", "embed"}};
    if (m->own_set >> which & 1) return again(where, own[which], e);
    m->own_set |= 1U << which;
    if (which == TENANTS) {
        if (strlen(value) < sizeof m->tenants) {
            memcpy(m->tenants, value, strlen(value) + 1);
            return OK;
        }
        err_set(e, ERR_INVALID, "%s: tenants has at most %zu bytes", where,
                sizeof m->tenants - 1);
        return err_field(e, "tenants");
    }
    uint64_t second = strcmp(value, words[which][1]) == 0;
    const bool known = which == PIN ? option_parse_bool(value, &second)
                                    : second || strcmp(value, words[which][0]) == 0;
    if (!known) {
        char quoted[64];
        err_set(e, ERR_INVALID, "%s: %s = %s, but it is %s or %s", where, own[which],
                option_quote(value, quoted), words[which][0], words[which][1]);
        return err_field(e, "%s", own[which]);
    }
    *(which == PIN ? &m->pin : which == LOAD ? &m->on_request : &m->embeds) = second;
    return OK;
}

static status unknown(const char *where, const char *key, err *e) {
    const option *o = option_by_name(key);
    char quoted[64];
    err_field(e, "%s", option_quote(key, quoted));
    if (o && strcmp(key, "model") != 0) {
        err_set(e, ERR_INVALID, "%s: %s is the same for all models", where, key);
        err_field(e, "%s", key);
        return err_hint(e, "put it under a line [%s]", o->section);
    }
    const char *names[N_OPTIONS + N_OWN + 1];
    size_t n = 0;
    for (int i = 0; i < N_OPTIONS; i++)
        if (option_in(&option_table()[i], of_model)) names[n++] = option_table()[i].name;
    for (int i = 0; i < N_OWN; i++) names[n++] = own[i];
    names[n++] = "file";
    const char *near = option_nearest(key, names, n);
    err_set(e, ERR_INVALID, "%s: a model has no option \"%s\"", where, quoted);
    err_field(e, "%s", quoted);
    if (near && strcmp(key, "model") != 0) return err_hint(e, "did you mean %s?", near);
    return err_hint(e, "its file is named by file; vramd.conf(5) lists the others");
}

status sections_key(model_sections *s, const char *key, const char *value, int line,
                    const char *where, err *e) {
    model_section *m = &s->v[s->n - 1];
    const int which = own_key(key);
    if (which >= 0) return set_own(m, which, value, where, e);
    const option *o = strcmp(key, "file") == 0    ? option_by_name("model")
                      : strcmp(key, "model") == 0 ? NULL
                                                  : option_by_name(key);
    if (!o || !option_in(o, of_model)) return unknown(where, key, e);
    for (uint32_t i = 0; i < m->n_keys; i++)
        if (option_table() + m->key[i].option == o) return again(where, key, e);
    options scratch;
    options_defaults(&scratch);
    const status rc = option_set(&scratch, o, value, where, e);
    if (rc != OK) return rc;
    section_key *k = &m->key[m->n_keys];
    if (m->n_keys == SECTION_KEYS || strlen(value) >= sizeof k->text) {
        err_set(e, ERR_INVALID,
                "%s: %s is longer than the %zu bytes that a value may have here", where, key,
                sizeof k->text - 1);
        return err_field(e, "%s", key);
    }
    k->option = (int)(o - option_table());
    k->line = line;
    memcpy(k->text, value, strlen(value) + 1);
    m->n_keys++;
    return OK;
}

status sections_end(const model_sections *s, err *e) {
    const option *file = option_by_name("model");
    for (uint32_t i = 0; i < s->n; i++) {
        const model_section *m = &s->v[i];
        bool named = false;
        for (uint32_t k = 0; k < m->n_keys; k++)
            named |= option_table() + m->key[k].option == file && m->key[k].text[0];
        if (named) continue;
        err_set(e, ERR_INVALID, "%.200s line %d: [model %.60s] names no file", s->path, m->line,
                m->name);
        err_field(e, "file");
        return err_hint(e, "file = /path/to/model.gguf");
    }
    return OK;
}

bool sections_equal(const model_sections *a, const model_sections *b) {
    return a->n == b->n && memcmp(a->v, b->v, a->n * sizeof *a->v) == 0;
}

void section_options(const model_section *m, const options *outside, options *out) {
    err e;
    *out = *outside;
    for (uint32_t i = 0; i < m->n_keys; i++)
        CHECK(option_set(out, option_table() + m->key[i].option, m->key[i].text, "", &e) == OK);
    memcpy(out->served_model_name, m->name, sizeof m->name);
    const option *vectors = option_by_name("embeddings");
    const bool off = str_eqz(options_word("embeddings", out->embeddings), "off");
    if (!(m->own_set >> TYPE & 1) || m->embeds != off) return;
    CHECK(option_set(out, vectors, off ? "auto" : "off", "", &e) == OK);
}
