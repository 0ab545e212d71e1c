/* One option: a row of the table as data, its value as text. For the files of conf/ only. */
#ifndef VRAMD_CONF_OPTION_H
#define VRAMD_CONF_OPTION_H

#include <stddef.h>

#include "conf/options.h"

typedef enum option_type {
    OPTION_STR,
    OPTION_U32,
    OPTION_POW2,
    OPTION_U64,
    OPTION_BOOL,
    OPTION_ENUM,
    OPTION_BYTES
} option_type;

typedef struct option {
    const char *section, *name, *unit, *help, *values, *aliases;
    option_type type;
    size_t offset, size;        /* in options */
    bool live;                  /* SIGHUP changes it */
    uint64_t low, high, normal; /* of a STR high alone: bytes */
    const char *normal_text;    /* the default of a STR */
} option;

enum {
#define X(...) +1
    N_OPTIONS = 0 OPTION_LIST(X)
#undef X
};

typedef struct option_section {
    const char *name, *help;
} option_section;
enum {
#define X(...) +1
    N_SECTIONS = 0 SECTION_LIST(X)
#undef X
};

/* [N_OPTIONS] and [N_SECTIONS], in the order of the table. */
const option *option_table(void);
const option_section *option_sections(void);

/* NULL when there is none. A flag comes with its dashes and without a value; '_' and '-' are
 * the same in it; aliases count. */
const option *option_by_name(const char *name);
const option *option_by_flag(const char *flag);
/* Whether a space-separated list (NULL: everything) holds the option. */
bool option_in(const option *, const char *only);

/* Parses text into its place. where names the source in messages ("vramd.conf line 3").
 * Errors: ERR_INVALID. */
status option_set(options *, const option *, const char *text, const char *where, err *);

/* Adds the hint for what Kubernetes puts into a pod's environment; returns e->code. */
status option_hint_service(err *);

/* "yes", "false", ...; *out is 1 or 0. */
bool option_parse_bool(const char *text, uint64_t *out);
void option_copy(options *to, const options *from, const option *);

/* The value, the default or the range as text. All return buf. */
enum { OPTION_TEXT = 320 };
char *option_value_text(const option *, const options *, char buf[OPTION_TEXT]);
char *option_default_text(const option *, char buf[OPTION_TEXT]);
char *option_range_text(const option *, char buf[OPTION_TEXT]); /* "" for a STR */
/* "--kv-cache-dtype", "VRAMD_KV_CACHE_DTYPE", "WORD". */
char *option_flag(const option *, char buf[OPTION_TEXT]);
char *option_variable(const option *, char buf[OPTION_TEXT]);
const char *option_placeholder(const option *);

/* What a message quotes of an unknown word: short and printable. Returns buf. */
char *option_quote(const char *text, char buf[64]);
/* The word among n that is nearest to a misspelt one, by insertions, deletions, changes and
 * swaps of neighbours; '-' and '_' are the same, and so are cases. NULL when none is within a
 * quarter of its letters. Words come without "--" and "VRAMD_", which would count as right. */
const char *option_nearest(const char *word, const char *const *among, size_t n);

/* What to do in place of a flag of vLLM or llama.cpp that vramd does not have; NULL for a flag
 * that it does not know either. flag: with its dashes, without a value. */
const char *option_foreign(const char *flag);
/* What to use in place of a word that those programs have for the option of this name; NULL
 * where there is nothing to say. */
const char *option_foreign_word(const char *name, const char *word);

#endif
