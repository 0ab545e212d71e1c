/* From the small files of a folder to facts. Owns nothing. */
#include "model/hf/hf_folder_facts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/hf/hf_json.h"
#include "model/hf/hf_tokenizer.h"
#include "model/hf/hf_vocab_txt.h"
#include "memory/term.h"

enum { MAX_TOKENIZER = 128 << 20, MAX_SMALL = 8 << 20 };

static status no_memory(err *e) {
    return mem_exhausted(e, MEM_LOADING, "the headers of the model");
}

/* ---- default sampling ---- */

static void sampling_facts(facts *f, const json_t *generation) {
    static const struct {
        const char *member, *key;
        bool whole;
    } map[] = {{"temperature", "general.sampling.temp", false},
               {"top_p", "general.sampling.top_p", false},
               {"top_k", "general.sampling.top_k", true},
               {"min_p", "general.sampling.min_p", false},
               {"repetition_penalty", "general.sampling.penalty_repeat", false}};
    for (size_t i = 0; i < sizeof map / sizeof *map; i++) {
        const json_t *v = json_object_get(generation, map[i].member);
        if (!json_is_number(v)) continue;
        const double x = json_number_value(v);
        if (!map[i].whole)
            facts_f32(f, map[i].key, (float)x);
        else if (x >= 0 && x <= INT32_MAX)
            facts_u32(f, map[i].key, (uint32_t)x);
    }
}

/* ---- chat templates ---- */

#define CHAT_KEY "tokenizer.chat_template"

static status keep_template(facts *f, str name, str text, err *e) {
    const str copy = arena_str(f->mem, text);
    char *key = arena_alloc(f->mem, sizeof CHAT_KEY + name.len + 1);
    if (!copy.ptr || !key) return no_memory(e);
    snprintf(key, sizeof CHAT_KEY + name.len + 1, CHAT_KEY "%s%.*s", name.len ? "." : "",
             (int)name.len, name.len ? name.ptr : "");
    if (!facts_find(f, key)) facts_str(f, key, copy);
    return OK;
}

/* A text, or a list of {"name", "template"}. */
static status config_templates(facts *f, const json_t *v, err *e) {
    status s = OK;
    if (json_is_string(v)) return keep_template(f, STR(""), json_in_text(v), e);
    for (size_t i = 0; i < json_array_size(v) && s == OK; i++) {
        const json_t *o = json_array_get(v, i), *name = json_object_get(o, "name"),
                     *text = json_object_get(o, "template");
        if (!json_is_string(name) || !json_is_string(text)) continue;
        const str n = json_in_text(name);
        s = keep_template(f, str_eqz(n, "default") ? STR("") : n, json_in_text(text), e);
    }
    return s;
}

/* The file of its own goes before the member. */
static status chat_facts(facts *f, int dir, const json_t *tokenizer_config, arena *scratch,
                         err *e) {
    str text;
    const json_t *file = NULL;
    status s = hf_read_text(&text, dir, "chat_template.jinja", MAX_SMALL, scratch, e);
    if (s == OK) s = keep_template(f, STR(""), text, e);
    if (s == ERR_NOT_FOUND)
        s = hf_read_json(&file, dir, "chat_template.json", MAX_SMALL, scratch, e);
    if (s == OK && file) s = config_templates(f, json_object_get(file, "chat_template"), e);
    if (s != OK) return s;
    return config_templates(f, json_object_get(tokenizer_config, "chat_template"), e);
}

status hf_folder_facts(facts *f, int dir, const json_t *config, uint32_t n_vocab,
                       arena *scratch, err *e) {
    hf_tokenizer_files in = {.config = config};
    status s = hf_read_json(&in.generation_config, dir, "generation_config.json", MAX_SMALL,
                            scratch, e);
    if (s == OK)
        s = hf_read_json(&in.tokenizer_config, dir, "tokenizer_config.json", MAX_SMALL, scratch,
                         e);
    if (s == OK)
        s = hf_read_json(&in.tokenizer, dir, "tokenizer.json", MAX_TOKENIZER, scratch, e);
    if (s == OK && !in.tokenizer)
        s = hf_vocab_txt_read(&in.tokenizer, dir, in.tokenizer_config, scratch, e);
    if (s != OK) return s;
    sampling_facts(f, in.generation_config);
    s = chat_facts(f, dir, in.tokenizer_config, scratch, e);
    if (s == OK && in.tokenizer) s = hf_tokenizer_facts(f, &in, n_vocab, scratch, e);
    return s == OK && f->failed ? no_memory(e) : s;
}

/* ---- rotary factors ---- */

/* As transformers computes them (modeling_rope_utils.py, _compute_llama3_parameters), in float32 as
 * llama.cpp's converter stores them. */
static float llama3_factor(const rope_config *r, uint32_t i) {
    const float turn = 6.283185307179586F;
    const float frequency = 1 / powf(r->theta, (float)(2 * i) / (float)r->n_dims);
    const float wavelength = turn / frequency, len = (float)r->original_len;
    if (wavelength < len / r->high_freq_factor) return 1;
    if (wavelength > len / r->low_freq_factor) return r->factor;
    const float smooth =
        (len / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return 1 / ((1 - smooth) / r->factor + smooth);
}

static status llama3_tensor(model_config *c, arena *mem, hf_made *out, err *e) {
    const uint32_t n = c->rope.n_dims / 2;
    float *v = arena_alloc(mem, n * sizeof *v);
    if (!v) return no_memory(e);
    for (uint32_t i = 0; i < n; i++) v[i] = llama3_factor(&c->rope, i);
    *out = (hf_made){"rope_freqs.weight", v, n};
    c->rope.scaling = ROPE_SCALING_NONE;
    c->rope.factor = 1;
    c->rope.low_freq_factor = c->rope.high_freq_factor = 0;
    return OK;
}

/* Gemma 4: the slower pairs of a head without a window stand still, as llama.cpp's converter says it. */
static status standing_tensor(model_config *c, arena *mem, hf_made *out, err *e) {
    const uint32_t n = c->rope.n_dims / 2;
    float *v = arena_alloc(mem, n * sizeof *v);
    if (!v) return no_memory(e);
    for (uint32_t i = 0; i < n; i++) v[i] = i < c->rope.n_live ? 1 : 1e30f;
    *out = (hf_made){"rope_freqs.weight", v, n};
    c->rope.n_live = 0;
    return OK;
}

static status longrope_tensor(const model_config *c, const json_t *scaling, const char *member,
                              const char *name, arena *mem, hf_made *out, err *e) {
    const json_t *list = json_object_get(scaling, member);
    const uint32_t n = c->rope.n_dims / 2;
    float *v = arena_alloc(mem, n * sizeof *v);
    if (!v) return no_memory(e);
    bool good = json_array_size(list) == n;
    for (uint32_t i = 0; i < n && good; i++) {
        const json_t *x = json_array_get(list, i);
        v[i] = (float)json_number_value(x);
        good = json_is_number(x) && v[i] > 0 && isfinite(v[i]);
    }
    *out = (hf_made){name, v, n};
    if (good) return OK;
    err_set(e, ERR_FORMAT, "config.json: rope_scaling.%s must be a list of %u positive numbers",
            member, n);
    return err_field(e, "rope_scaling.%s", member);
}

status hf_made_tensors(model_config *c, const json_t *config, arena *mem, hf_made out[2],
                       uint32_t *n, err *e) {
    *n = 0;
    if (c->rope.scaling == ROPE_SCALING_LLAMA3) {
        *n = 1;
        return llama3_tensor(c, mem, &out[0], e);
    }
    if (c->rope.n_live) {
        *n = 1;
        return standing_tensor(c, mem, &out[0], e);
    }
    if (c->rope.scaling != ROPE_SCALING_LONGROPE) return OK;
    const json_t *scaling = json_object_get(config, "rope_scaling");
    if (!json_is_object(scaling)) scaling = json_object_get(config, "rope_parameters");
    *n = 2;
    status s = longrope_tensor(c, scaling, "short_factor", "rope_factors_short.weight", mem,
                               &out[0], e);
    if (s != OK) return s;
    return longrope_tensor(c, scaling, "long_factor", "rope_factors_long.weight", mem, &out[1],
                           e);
}
