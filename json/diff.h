/* A JSON document written whole, or what of it has changed since another one, by the same code: as a merge
 * patch (RFC 7386), in which a list of named elements is an object by their names.
 *
 *     json_diff o = {&b, whole};
 *     size_t at = json_diff_open(&o, "kv");           {"kv":{
 *     json_diff_u64(&o, "free", now->free, was->free); "free":7, where it is written whole or differs
 *     json_diff_close(&o, at);                         }}; nothing where nothing has changed
 *
 * Text before a member ends in { or [, or a comma is put between. */
#ifndef VRAMD_JSON_DIFF_H
#define VRAMD_JSON_DIFF_H

#include "base/buf.h"

typedef struct json_diff {
    buf *out;
    bool whole;
} json_diff;

/* A member that is an object. name NULL: an element of a list. */
size_t json_diff_open(json_diff *, const char *name);
void json_diff_close(json_diff *, size_t at);
/* A member that is a list of named elements; then for each json_diff_element, and its close. */
size_t json_diff_open_list(json_diff *, const char *name);
void json_diff_close_list(json_diff *, size_t at);
/* member: what the name is called where the list is whole; NULL: it is not said there. */
size_t json_diff_element(json_diff *, const char *member, str name);

/* A member that is a list in a patch, too, of what has changed; json_diff_name without a name begins an
 * element. */
size_t json_diff_open_array(json_diff *, const char *name);
void json_diff_close_array(json_diff *, size_t at);

void json_diff_u64(json_diff *, const char *name, uint64_t now, uint64_t was);
void json_diff_i64(json_diff *, const char *name, int64_t now, int64_t was);
void json_diff_bool(json_diff *, const char *name, bool now, bool was);
/* NULL: null. Any bytes. */
void json_diff_str(json_diff *, const char *name, const char *now, const char *was);
/* In thousandths: 1234 is 1.234. */
void json_diff_milli(json_diff *, const char *name, uint64_t now, uint64_t was);
void json_diff_null(json_diff *, const char *name, bool was_null);
/* Appends "name":, with a comma before it where one is due; the value follows. NULL: the comma alone. */
void json_diff_name(json_diff *, const char *name);

#endif
