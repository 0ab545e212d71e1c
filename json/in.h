/* JSON from outside, parsed by jansson into a request's arena, and typed getters that name the
 * field at fault. In all getters a member that is absent or null leaves *out alone and is OK.
 */
#ifndef VRAMD_JSON_IN_H
#define VRAMD_JSON_IN_H

#include <jansson.h>

#include "base/arena.h"
#include "base/err.h"

/* While an arena is set, what jansson allocates in this thread comes from it and jansson's
 * frees do nothing; with NULL jansson uses malloc and free as ever. Returns the arena set
 * before. */
arena *json_use_arena(arena *);

/* Runs work with the arena in use. False: its memory ran out within work, which was left there;
 * so work never sees jansson fail, and must own nothing. */
bool json_within(arena *, void (*work)(void *), void *arg);

/* The value lives in the arena: never json_decref it. Errors: ERR_INVALID (what and where),
 * ERR_NO_MEMORY. */
status json_in_parse(const json_t **out, arena *, str text, err *);

bool json_in_has(const json_t *object, const char *key); /* present and not null */
status json_in_bool(const json_t *object, const char *key, bool *out, err *);
/* Integers within [lo, hi]; 16.0 is one. */
status json_in_int(const json_t *object, const char *key, int64_t lo, int64_t hi, int64_t *out,
                   err *);
status json_in_real(const json_t *object, const char *key, double lo, double hi, double *out,
                    err *);
/* Points into the parsed value. */
status json_in_str(const json_t *object, const char *key, str *out, err *);
str json_in_text(const json_t *string);
/* "a string", "an array", ...: for messages. */
const char *json_in_kind(const json_t *);
/* ERR_INVALID: "NAME must be WANT, not KIND", field NAME. */
status json_in_wrong(err *, const char *name, const char *want, const json_t *got);

#endif
