/* Between the files of the reply parser: its state, and the steps they share. */
#ifndef VRAMD_TEXT_REPLY_IN_H
#define VRAMD_TEXT_REPLY_IN_H

#include "text/reply/reply.h"

/* A byte that UTF-8 never has; behind it the special token's number in the plan + 1. */
#define SPECIAL_BYTE '\xff'

/* SHAPE_CHANNELS has marks of its own in the same array. */
enum {
    CHANNEL_START,
    CHANNEL_NAME,
    CHANNEL_CONSTRAIN,
    CHANNEL_MESSAGE,
    CHANNEL_END,
    CHANNEL_CALL,
    CHANNEL_RETURN
};

enum {
    REPLY_MAX_HEAD = 1024,   /* from a marker to the arguments; a key with its marks */
    REPLY_MAX_OBJECT = 8192, /* of an object whose name is not known yet */
    REPLY_MAX_NAME = 128,
    REPLY_MAX_BLANKS = 64 /* dropped before a call */
};

typedef enum reply_state {
    IN_TEXT,
    IN_REASONING,
    IN_HEAD,    /* behind a marker, until the name is known */
    IN_OBJECT,  /* SHAPE_OBJECT */
    IN_VALUE,   /* arguments by reply_value */
    IN_TAGS,    /* between tagged arguments */
    IN_TAGGED,  /* the value of one */
    IN_TAIL,    /* behind the arguments */
    IN_BETWEEN, /* behind a call of a section */
    IN_HEADER,  /* SHAPE_CHANNELS: a message's header */
    IN_SKIPPED  /* what follows the arguments of its call */
} reply_state;

typedef enum match { NO, PART, YES } match; /* PART: what there is could become it */

struct reply_parser {
    const reply_plan *plan;
    reply_setup set;
    arena *mem;
    /* Output that is not an event yet: in[at..]. The mark at its begin, with the blanks before,
     * takes opener bytes; scan: what is behind it or has been looked at. */
    buf in;
    size_t at, scan, opener;
    reply_state state;
    bool prompted;    /* the mark stands in the prompt */
    bool fresh;       /* nothing but blanks and reasoning so far */
    bool drop_blanks; /* at the begin of what comes */
    bool section, array;
    bool unmarked; /* a call is one only if it is of a tool that was given */
    buf out;       /* of one event */
    uint32_t n_unparsed;
    /* the call */
    char name[REPLY_MAX_NAME];
    size_t n_name;
    bool called, early_done; /* REPLY_CALL has left; its arguments stood before its name */
    buf early;
    uint8_t at_member; /* reply_object.c */
    uint32_t depth;
    bool in_string, escaped, any_args;
    uint8_t member; /* what the key says */
    size_t key_from;
    reply_value value;
    uint32_t n_args; /* tagged */
    unsigned types;
    bool begun, string_open;
};

static inline str reply_rest(const reply_parser *r, size_t from) {
    return (str){r->in.ptr + from, r->in.len - from};
}
static inline bool reply_is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}
static inline size_t reply_blanks(str s, size_t i) {
    while (i < s.len && reply_is_blank(s.ptr[i])) i++;
    return i;
}
bool reply_is_name(char c);
/* The mark at s[*i]; passes it if it is there. */
match reply_lit(str s, size_t *i, str mark);
/* Where a mark begins, or may: s.len when nowhere. *which: the first of several. */
match reply_search(str s, const str *marks, size_t n, size_t *at, size_t *which);

void reply_emit(reply_parser *, reply_kind, str text);
/* Special tokens as their texts. */
void reply_emit_bytes(reply_parser *, reply_kind, str bytes);
/* Text of the answer: the blanks behind reasoning and calls are dropped. */
void reply_emit_text(reply_parser *, str);
void reply_go(reply_parser *, reply_state); /* what is left is looked at from its begin */
void reply_emit_out(reply_parser *);        /* r->out as ARGS */
void reply_fail(reply_parser *);            /* no call: the mark is text */
void reply_call(reply_parser *, str name, str id);
void reply_called(reply_parser *);     /* the arguments are complete */
void reply_break_call(reply_parser *); /* the call cannot go on: text follows */
bool reply_knows(const reply_parser *, str name);

/* Each consumes what it can of the input. False: nothing more without more input; end: none will
 * come. */
bool reply_step_object(reply_parser *, bool end);
bool reply_step_value(reply_parser *, bool end);
bool reply_step_tags(reply_parser *, bool end);
bool reply_step_tagged(reply_parser *, bool end);
bool reply_step_header(reply_parser *, bool end);
bool reply_step_skipped(reply_parser *, bool end);
bool reply_step_channel(reply_parser *, bool end); /* a message's text or reasoning */

#endif
