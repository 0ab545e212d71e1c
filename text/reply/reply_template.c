/* Finds how the output of a model with a chat template is read. Owns nothing; any thread. */
#include "text/reply/reply_template.h"

static bool render(void *user, const json_t *messages, const json_t *tools, bool generation,
                   arena *a, str *out) {
    const chat_template *t = user;
    const template_args args = {.messages = messages,
                                .tools = tools,
                                .add_generation_prompt = generation,
                                .now = {.tm_year = 126, .tm_mday = 1}};
    jinja_text text;
    err e;
    if (template_render(t, &args, a, &text, &e) != OK) return false;
    *out = text.text;
    return true;
}

reply_special *reply_specials(const tokenizer *tok, arena *a, size_t *n) {
    const uint32_t *ids = tokenizer_specials(tok, n);
    reply_special *all = arena_alloc(a, (*n + 1) * sizeof *all);
    for (size_t i = 0; all && i < *n; i++)
        all[i] = (reply_special){tokenizer_piece(tok, (int32_t)ids[i], true), (int32_t)ids[i]};
    return all;
}

bool reply_plan_of_template(reply_plan *out, const chat_template *t, const tokenizer *tok,
                            const chunks *scratch) {
    arena a;
    size_t n;
    arena_init(&a, scratch, 0);
    const reply_special *special = reply_specials(tok, &a, &n);
    const reply_source src = {.template = t->source,
                              .render = render,
                              .user = (void *)t,
                              .special = special,
                              .n_special = n};
    const bool ok = special && reply_derive(out, scratch, &src);
    arena_clear(&a);
    return ok;
}
