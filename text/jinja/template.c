/* Chat templates: opening, rendering, and those of a model. Owns what chat_templates_open took;
 * any thread once opened. */
#include "text/jinja/template.h"

#include <stdio.h>

#include "base/utf8.h"
#include "memory/term.h"
#include "text/jinja/template_probe.h"

/* ---- special tokens ---- */

void template_tokens_of(template_tokens *t, const tokenizer *tok, const checkpoint *file) {
    static const char *const key[TEMPLATE_TOKENS] = {
        NULL, /* the tokenizer knows what a file means that says nothing of these two */
        NULL,
        "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.padding_token_id",
        "tokenizer.ggml.seperator_token_id", /* GGUF's spelling */
        "tokenizer.ggml.cls_token_id",
        "tokenizer.ggml.mask_token_id"};
    *t = (template_tokens){0};
    for (int i = 0; i < TEMPLATE_TOKENS; i++) {
        int32_t id = i == 0 ? tokenizer_bos(tok) : tokenizer_eos(tok);
        uint32_t v = UINT32_MAX;
        err ignored;
        if (key[i] && checkpoint_get_u32(file, key[i], &v, &ignored) != OK) v = UINT32_MAX;
        if (key[i]) id = v < tokenizer_n_vocab(tok) ? (int32_t)v : -1;
        str text = id >= 0 ? tokenizer_piece(tok, id, true) : STR("");
        if (text.len && utf8_valid(text)) t->text[i] = text;
    }
}

/* ---- one template ---- */

status template_open(chat_template *t, str source, const template_tokens *tokens, arena *a,
                     const chunks *scratch, err *e) {
    *t = (chat_template){.source = source, .tokens = tokens};
    status s = OK;
    if (source.len) {
        s = jinja_parse(&t->tree, a, source, e);
    } else {
        s = err_set(e, ERR_INVALID, "the model has no chat template");
        err_field(e, "chat_template");
    }
    if (s == OK) {
        if (scratch) template_probe(t, scratch);
        return OK;
    }
    t->tree = NULL;
    if (s != ERR_NO_MEMORY)
        err_hint(e, "use /v1/completions with a prompt in the model's own format");
    t->error = *e;
    return s;
}

/* ---- those of a model ---- */

static const char CHAT_KEY[] = "tokenizer.chat_template";

static bool named_key(char *key, size_t cap, str name) {
    if (name.len == 0 || name.len > 100) return false;
    snprintf(key, cap, "%s." STR_FMT, CHAT_KEY, STR_ARG(name));
    return true;
}

bool template_is_named(const checkpoint *file, str name) {
    char key[160];
    return named_key(key, sizeof key, name) && checkpoint_has(file, key);
}

status template_sources_of(template_sources *out, const checkpoint *file, str name, err *e) {
    char key[160];
    *out = (template_sources){STR(""), STR(""), STR("")};
    if (name.len == 0) {
        status s = checkpoint_get_str(file, CHAT_KEY, &out->chat, e);
        named_key(key, sizeof key, STR("tool_use"));
        return s == OK ? checkpoint_get_str(file, key, &out->tool_use, e) : s;
    }
    /* A template that was chosen by name serves all requests. */
    if (template_is_named(file, name)) {
        named_key(key, sizeof key, name);
        return checkpoint_get_str(file, key, &out->chat, e);
    }
    err_set(e, ERR_INVALID, "the file has no chat template named \"%.*s\"",
            (int)(name.len < 80 ? name.len : 80), name.ptr);
    return err_field(e, "chat_template");
}

static status open_one(chat_template *t, str source, const chat_templates *all, arena *a,
                       const chunks *scratch, err *e) {
    str own = source.len ? arena_str(a, source) : STR("");
    if (!own.ptr) return err_set(e, ERR_NO_MEMORY, "no memory for the chat template");
    status s = template_open(t, own, &all->tokens, a, scratch, e);
    return s == ERR_NO_MEMORY ? s : OK;
}

static status read_kwargs(chat_templates *t, str text, err *e) {
    if (text.len == 0) return OK;
    status s = json_in_parse(&t->kwargs, &t->mem, text, e);
    if (s == ERR_NO_MEMORY || (s == OK && json_is_object(t->kwargs))) return s;
    err_set(e, ERR_INVALID, "chat_template_kwargs is not a JSON object");
    err_hint(e, "such as {\"enable_thinking\": false}");
    return err_field(e, "chat_template_kwargs");
}

static status open_all(chat_templates *t, const template_sources *from, const chunks *src,
                       const chunks *scratch, err *e) {
    arena_init(&t->mem, src, 0);
    status s = read_kwargs(t, from->kwargs, e);
    if (s == OK) s = open_one(&t->chat, from->chat, t, &t->mem, scratch, e);
    if (s == OK && from->tool_use.len)
        s = open_one(&t->tool_use, from->tool_use, t, &t->mem, scratch, e);
    return s == ERR_NO_MEMORY ? mem_exhausted(e, MEM_TOKENIZER, "chat templates") : s;
}

status chat_templates_open(chat_templates *t, const template_sources *from,
                           const template_tokens *tokens, const chunks *src, err *e) {
    *t = (chat_templates){.tokens = *tokens};
    return open_all(t, from, src, chunks_heap(), e);
}

void chat_templates_close(chat_templates *t) {
    if (t->mem.src) arena_clear(&t->mem);
    *t = (chat_templates){0};
}

status chat_templates_plan(const template_sources *from, uint64_t *bytes, err *e) {
    chat_templates t = {0};
    status s = open_all(&t, from, chunks_heap(), NULL, e);
    *bytes = t.mem.total;
    chat_templates_close(&t);
    return s;
}

const chat_template *chat_templates_pick(const chat_templates *t, bool tools) {
    return tools && t->tool_use.source.len ? &t->tool_use : &t->chat;
}
