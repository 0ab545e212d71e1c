/* Sections [model NAME] of the file: several models, with options of their own. What a section does
 * not say is as outside of it. */
#ifndef VRAMD_CONF_SECTIONS_H
#define VRAMD_CONF_SECTIONS_H

#include "conf/options.h"

enum { SECTIONS_MAX = 16, SECTION_KEYS = 40, SECTION_NAME_BYTES = 128 };

typedef struct section_key {
    int option; /* its row */
    int line;
    char text[256];
} section_key;

typedef struct model_section {
    char name[SECTION_NAME_BYTES]; /* which clients use */
    int line;                      /* of the heading */
    bool pin;                      /* it stays in memory */
    bool on_request;               /* load = request; else it is loaded at the start */
    char tenants[256];             /* names of keys that may use it, by commas; "": all */
    bool embeds;                   /* type = embed; else chat, where it is set */
    uint32_t own_set;              /* bits: which of the keys that are no options are there */
    uint32_t n_keys;
    section_key key[SECTION_KEYS];
} model_section;

struct model_sections {
    char path[256]; /* of the file, for messages */
    uint32_t n;
    model_section v[SECTIONS_MAX];
};
typedef struct model_sections model_sections;

/* Whether a heading's text is of such a section. */
bool section_is_model(const char *heading);
/* In the order of the file. where: "vramd.conf line 3". Errors: ERR_INVALID. */
status sections_begin(model_sections *, const char *heading, int line, const char *where,
                      err *);
status sections_key(model_sections *, const char *key, const char *value, int line,
                    const char *where, err *);
/* The file has ended: what is missing. */
status sections_end(const model_sections *, err *);

bool sections_equal(const model_sections *, const model_sections *);

/* The options of a model: those given with what its section says. CHECKs that they can be set:
 * sections_key has tried. */
void section_options(const model_section *, const options *outside, options *out);

#endif
