/* The chat templates of a model: from a conversation to its prompt, with the origin of each
 * byte. Parsed once, immutable then: any thread renders, one arena per thread at a time. */
#ifndef VRAMD_TEXT_TEMPLATE_H
#define VRAMD_TEXT_TEMPLATE_H

#include "text/jinja/jinja.h"
#include "text/tokenizer/tokenizer.h"

enum { TEMPLATE_TOKENS = 7, TEMPLATE_MAX_BYTES = 64 << 20 /* of a prompt */ };

/* Texts of special tokens, in the order of template_token_names; ptr NULL: the model has none,
 * and the variable is undefined. */
typedef struct template_tokens {
    str text[TEMPLATE_TOKENS];
} template_tokens;
extern const char *const template_token_names[TEMPLATE_TOKENS]; /* "bos_token", ... */
/* Borrows from the tokenizer. */
void template_tokens_of(template_tokens *, const tokenizer *, const checkpoint *);

typedef struct chat_template {
    str source;
    const jinja_tree *tree; /* NULL: there is none, or it does not parse; error says why */
    err error;
    const template_tokens *tokens;
    /* What it does with a conversation; false without a tree. */
    bool takes_parts;     /* goes through content in parts; else it is given one text */
    bool takes_tools;     /* reads tools */
    bool takes_calls;     /* reads tool_calls of a message */
    bool takes_developer; /* knows the role developer */
    bool takes_reasoning; /* reads reasoning_content or reasoning of a message */
    bool takes_none;      /* shows content that is None as it shows "" */
} chat_template;

/* Parses the source, which is borrowed, into the arena; probes take memory from scratch and give
 * it back. Errors: those of jinja_parse, and ERR_INVALID (field chat_template) for an empty
 * source; out->error then has the same. */
status template_open(chat_template *out, str source, const template_tokens *, arena *,
                     const chunks *scratch, err *);

/* What a template is rendered with. */
typedef struct template_args {
    const json_t *messages;
    const json_t *tools, *documents; /* NULL: None */
    const json_t *kwargs;            /* an object that is laid over all but messages; or NULL */
    bool add_generation_prompt;
    struct tm now; /* what strftime_now shows */
} template_args;

/* The prompt lies in the arena. Roles that stand between bytes of the template are marked as
 * template where they may be a part of a special token ("<|" + role + "|>"). Errors: those of
 * jinja_render; the template's own where it does not parse. */
status template_render(const chat_template *, const template_args *, arena *, jinja_text *out,
                       err *);

/* ---- those of a model ---- */

/* Texts of templates; "": none. */
typedef struct template_sources {
    str chat, tool_use;
    str kwargs; /* defaults of chat_template_kwargs: a JSON object */
} template_sources;
/* tokenizer.chat_template and tokenizer.chat_template.tool_use. name: in place of the first,
 * tokenizer.chat_template.NAME, which must be there; "": no. Borrows from the file. Errors:
 * ERR_INVALID, those of checkpoint_get_str. */
status template_sources_of(template_sources *, const checkpoint *, str name, err *);
bool template_is_named(const checkpoint *, str name);

typedef struct chat_templates {
    arena mem;
    template_tokens tokens;
    chat_template chat, tool_use; /* tool_use: no source where there is none */
    const json_t *kwargs;         /* an object, or NULL */
} chat_templates;

/* Copies the sources. A template that does not parse is no error. Must not move. Errors:
 * ERR_INVALID (field chat_template_kwargs), ERR_NO_MEMORY. */
status chat_templates_open(chat_templates *, const template_sources *, const template_tokens *,
                           const chunks *, err *);
void chat_templates_close(chat_templates *); /* all zero: never opened */
/* What chat_templates_open takes: exact. Its errors. */
status chat_templates_plan(const template_sources *, uint64_t *bytes, err *);
/* The one for a request with or without tools. */
const chat_template *chat_templates_pick(const chat_templates *, bool tools);

#endif
