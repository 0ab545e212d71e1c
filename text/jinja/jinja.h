/* Chat templates: the part of Jinja that published templates use, with the bytes that jinja2
 * 3.1 gives as transformers configures it (sandboxed, trim_blocks, lstrip_blocks, loop
 * controls, no escaping). A template is parsed once and rendered many times. Pure functions
 * over arenas, no state of their own: any thread, one arena per thread at a time.
 *
 * Refused when parsed, by name: include, import, from, extends, block, call, with, autoescape,
 * do, recursive loops, chained comparison, the operators ** and //, arguments with * or **,
 * loop.cycle, loop.changed, loop.depth, and filters and tests that are not in the tables of
 * jinja_filters.c and jinja_tests.c. from_json and the methods that change a list or a dict
 * fail when they are reached, as in jinja2's sandbox. */
#ifndef VRAMD_TEXT_JINJA_H
#define VRAMD_TEXT_JINJA_H

#include <time.h>

#include "base/arena.h"
#include "base/err.h"
#include "json/in.h"

enum {
    JINJA_MAX_SOURCE = 256 * 1024, /* bytes of a template */
    JINJA_MAX_DEPTH = 100,         /* of its tree */
    JINJA_MAX_STEPS = 2000000,     /* nodes evaluated, and bytes or items walked / 64 */
    JINJA_MAX_MACROS = 150,        /* macros that run within each other */
    JINJA_MAX_NESTING = 200        /* of lists and dicts within each other */
};

typedef struct jinja_tree jinja_tree;

/* The tree lies in the arena and borrows source. Errors: ERR_INVALID with the line (field
 * chat_template), ERR_NO_MEMORY. */
status jinja_parse(const jinja_tree **out, arena *, str source, err *);

/* A name that the template may read. The strings of a value that is not trusted are data, of
 * one that is (the texts of special tokens), template. Later entries replace earlier ones. */
typedef struct jinja_var {
    str name;
    const json_t *value;
    bool trusted;
} jinja_var;

typedef struct jinja_settings {
    struct tm now;    /* what strftime_now shows */
    size_t max_bytes; /* of the output */
} jinja_settings;

/* Where bytes come from: data is what a client has sent, all else stands in the template or is
 * trusted. A run begins where the one before it ends. */
typedef struct jinja_run {
    size_t end;
    bool data;
} jinja_run;

typedef struct jinja_text {
    str text;
    const jinja_run *runs; /* the last one ends at text.len; none for an empty text */
    size_t n_runs;
} jinja_text;

/* All that is made lies in the arena, whose limit also bounds intermediate values.
 * Errors: ERR_INVALID (field messages): the message of raise_exception as it is, anything else
 * with its line; ERR_TOO_LONG (field messages): a limit, by name; ERR_NO_MEMORY. */
status jinja_render(const jinja_tree *, const jinja_var *, size_t n_vars,
                    const jinja_settings *, arena *, jinja_text *out, err *);

#endif
