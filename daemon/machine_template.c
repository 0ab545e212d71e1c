/* The chat templates of a machine: which, by the options and the model's file, and loading them.
 * Owned by the machine; on the thread of its caller. */
#include "daemon/machine_template.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

static status read_file(const char *path, buf *out, err *e) {
    FILE *f = fopen(path, "rb");
    bool failed = !f;
    if (f) {
        if (buf_reserve(out, JINJA_MAX_SOURCE + 1))
            out->len = fread(out->ptr, 1, JINJA_MAX_SOURCE + 1, f);
        failed = ferror(f) != 0; /* a directory opens, and cannot be read */
    }
    if (failed) {
        err_set(e, ERR_NOT_FOUND, "the chat template %s cannot be read: %s", path,
                strerror(errno));
        err_hint(e, "give a file, or the NAME of a tokenizer.chat_template.NAME of the model");
    }
    if (f) fclose(f);
    if (failed) return err_field(e, "chat_template");
    return out->failed ? mem_exhausted(e, MEM_TOKENIZER, "the chat template") : OK;
}

status machine_find_templates(machine *m, err *e) {
    const str wish = str_of(m->opt.chat_template);
    template_sources *from = &m->chat_sources;
    status s;
    buf_init(&m->chat_file, NULL);
    if (wish.len && !template_is_named(m->file, wish)) {
        s = read_file(m->opt.chat_template, &m->chat_file, e);
        *from = (template_sources){.chat = buf_str(&m->chat_file), .tool_use = STR("")};
    } else {
        s = template_sources_of(from, m->file, wish, e);
    }
    if (s != OK) return s;
    from->kwargs = str_of(m->opt.chat_template_kwargs);
    return chat_templates_plan(from, &m->chat_bytes, e);
}

static void warn(const chat_template *t) {
    if (t->source.len && !t->tree) log_warn("%s: chats are refused", t->error.text);
}

status machine_load_templates(machine *m, chat_templates *to, const chunks *src, err *e) {
    template_tokens tokens;
    template_tokens_of(&tokens, m->tok, m->file);
    status s = chat_templates_open(to, &m->chat_sources, &tokens, src, e);
    buf_clear(&m->chat_file);
    m->chat_sources = (template_sources){0};
    warn(&to->chat);
    warn(&to->tool_use);
    return s;
}

void machine_close_templates(machine *m) {
    chat_templates_close(&m->chat);
    buf_clear(&m->chat_file);
}
