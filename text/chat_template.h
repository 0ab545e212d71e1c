/* From messages to one prompt text, as the model's chat template would render it. For now seven
 * families, recognised by their markers, with the variations that occur in the wild; a template
 * engine takes this place later behind the same two functions. */
#ifndef VRAMD_TEXT_CHAT_TEMPLATE_H
#define VRAMD_TEXT_CHAT_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"
#include "text/tokenizer.h"

typedef struct chat_message {
    str role, content;
} chat_message;

typedef enum chat_family {
    CHAT_UNKNOWN,
    CHAT_CHATML,
    CHAT_LLAMA2,
    CHAT_LLAMA3,
    CHAT_MISTRAL,
    CHAT_GEMMA,
    CHAT_PHI3,
    CHAT_PHI4
} chat_family;

/* The bytes that a template puts around one message, the default system message included: at
 * most. */
enum { CHAT_TEMPLATE_AROUND = 512 + 256 };

typedef struct chat_template {
    chat_family family;
    str bos, eos;     /* their texts, borrowed; empty when the template does not use them */
    bool dated;       /* llama-3.1: a system header with dates on every conversation */
    bool today;       /* llama-3.2: and today's among them */
    char system[512]; /* ChatML: the system message when none is given; "" for none */
    /* Mistral: the spaces differ between its versions. */
    const char *inst, *inst_end, *before_answer, *after_eos;
    /* Mistral: joined to the last user message; Gemma 3: to the first; Phi-3: a turn */
    bool takes_system;
    bool no_empty_system; /* left out where it is empty */
} chat_template;

/* source: the template of the model, "" if it has none; bos and eos: texts of those tokens.
 * Errors: ERR_INVALID (field chat_template): none, or not recognised. */
status chat_template_open(chat_template *out, str source, str bos, str eos, err *);
/* The same with the template and the tokens of a model; borrows from the tokenizer. */
status chat_template_of(chat_template *out, const tokenizer *, err *);
/* Appends the prompt; with answer the beginning of an answer as well (add_generation_prompt).
 * Errors: ERR_INVALID (field messages) where the template refuses the order of the roles;
 * ERR_NO_MEMORY. */
status chat_template_render(const chat_template *, const chat_message *, size_t n, bool answer,
                            buf *out, err *);

#endif
