/* The output of a model as events: reasoning, text, and calls of tools with their arguments as
 * JSON. A parser takes the output token by token and keeps back only what may be the beginning of
 * a marker, or of a call whose name is not known yet; the concatenation of its events does not
 * depend on how the output was cut. What is no call comes back as text: a marker that nothing
 * valid follows costs the client nothing but the delay.
 *
 * A row of the table in reply_formats.c says how a family of models writes calls. A plan is a row
 * with the vocabulary's special tokens: a marker that is, or contains, a special token is matched
 * as that token and never as the characters of its text. */
#ifndef VRAMD_TEXT_REPLY_H
#define VRAMD_TEXT_REPLY_H

#include "json/in.h"
#include "text/reply/reply_value.h"

typedef enum reply_kind {
    REPLY_REASONING,
    REPLY_TEXT,
    REPLY_CALL,    /* text: the name; id: as the output has it, or empty */
    REPLY_ARGS,    /* text: a fragment of the arguments, JSON together */
    REPLY_CALL_END /* the call is complete, or broken off */
} reply_kind;

typedef struct reply_event {
    reply_kind kind;
    str text, id; /* valid during the call */
} reply_event;

typedef void reply_sink(void *user, const reply_event *);

/* What stands around the pieces of a call. Blanks are passed over between all of them. */
typedef enum reply_mark {
    MARK_SECTION,     /* before the first call, after the last */
    MARK_SECTION_END, /**/
    MARK_CALL,        /* before and after each */
    MARK_CALL_END,
    MARK_NAME, /* before and after the name; an id may stand before the latter */
    MARK_ID,
    MARK_NAME_END,
    MARK_ARGS_END,
    MARK_KEY, /* of a tagged argument: before and after its key, before and after its value */
    MARK_KEY_END,
    MARK_VALUE,
    MARK_VALUE_END,
    MARK_QUOTE, /* around strings (VALUE_BARE) */
    MARK_THINK,
    MARK_THINK_END,
    MARK_DROP, /* around text, without meaning */
    MARK_DROP_END,
    MARK_N
} reply_mark;

typedef enum reply_shape {
    SHAPE_OBJECT,  /* {"name": "f", "arguments": {...}}, in any order, with other members */
    SHAPE_NAMED,   /* the name, then the arguments */
    SHAPE_CHANNELS /* gpt-oss: messages with a header (reply_channels.c) */
} reply_shape;

typedef enum reply_args { ARGS_JSON, ARGS_TAGGED, ARGS_PYTHON, ARGS_BARE } reply_args;
typedef enum reply_ids {
    IDS_OURS,    /* call_ and 24 characters */
    IDS_NINE,    /* nine letters and digits */
    IDS_NUMBERED /* functions.NAME:N, written by the model */
} reply_ids;

typedef struct reply_format {
    const char *name;
    reply_shape shape;
    reply_args args;
    reply_ids ids;
    bool array; /* the calls of a section stand in brackets */
    bool plain; /* calls may be the whole answer, without a mark */
    bool lines; /* tagged: a line break before and after a value is not part of it */
    bool typed; /* tagged: after the key "true" or "false" for a string or JSON, and "> */
    const char *name_key, *args_key; /* SHAPE_OBJECT: as the model learnt them */
    const char *mark[MARK_N];
} reply_format;

extern const reply_format reply_formats[];
extern const size_t reply_n_formats;

enum { REPLY_MAX_SPECIAL = 24, REPLY_PLAN_BYTES = 1024, REPLY_OWN_BYTES = 512 };

typedef struct reply_special {
    str text;
    int32_t id;
} reply_special;

typedef struct reply_plan {     /* not to be moved */
    const reply_format *format; /* NULL: no calls, reasoning alone */
    bool single;                /* the template takes one call a message */
    str text[MARK_N];           /* the marks as they are written */
    str mark[MARK_N];           /* as matched: a special token is 0xFF and its number + 1 */
    uint32_t n_special;
    reply_special special[REPLY_MAX_SPECIAL];
    size_t n_bytes; /* of the marks */
    char bytes[REPLY_PLAN_BYTES];
    reply_format
        own; /* one that was derived from the template (reply_guess.h), with its texts */
    char own_text[REPLY_OWN_BYTES];
} reply_plan;

/* The text of the special token that a mark has as its number k + 1; empty: there is none. */
static inline str reply_special_text(const reply_plan *p, uint32_t k) {
    const bool there = k < p->n_special && k < REPLY_MAX_SPECIAL;
    return there ? p->special[k].text : (str){NULL, 0};
}

/* The row's marks (it may be the plan's own), and those of reasoning that the template has (a row's own come first). Of
 * special only the tokens that occur in a mark are kept; their texts are borrowed. False: there are
 * too many of them. */
bool reply_plan_init(reply_plan *, const reply_format *, str template,
                     const reply_special *special, size_t n_special);

typedef struct reply_parser reply_parser;

typedef struct reply_setup {
    const json_t *tools; /* as in a request; NULL: calls are text */
    bool reasoning;      /* reasoning is an event of its own */
    bool loose; /* an answer that is an object of a call without its marks is one, too */
    str prompt; /* its end decides whether the output begins within reasoning */
    reply_sink *sink;
    void *user;
} reply_setup;

/* All memory is the arena's. NULL: there is none. */
reply_parser *reply_new(arena *, const reply_plan *, const reply_setup *);
/* Bytes of the next token(s), cut anywhere. */
void reply_push(reply_parser *, str bytes);
/* Whether a special token is of a mark: then it is given here, and not its text. */
bool reply_push_token(reply_parser *, int32_t id);
bool reply_has_token(const reply_parser *, int32_t id); /* whether it would be */
void reply_end(reply_parser *);                         /* what was kept back leaves */
bool reply_failed(const reply_parser *); /* memory has run out; output was lost */
bool reply_in_reasoning(const reply_parser *);
bool reply_is_prompted(const reply_parser *);  /* the prompt ends with the mark of a call */
size_t reply_held(const reply_parser *);       /* bytes that are kept back */
uint32_t reply_unparsed(const reply_parser *); /* marks that no valid call followed */

#endif
