/* JSON text by hand, for the paths where every token passes: appends to a buf; the buf's failed
 * flag tells at the end whether memory sufficed. */
#ifndef VRAMD_JSON_OUT_H
#define VRAMD_JSON_OUT_H

#include "base/buf.h"

/* Escapes what RFC 8259, section 7 demands and DEL; bytes from 0x80 on pass as they are.
 * s must be UTF-8 (utf8_sanitise makes it so). json_esc leaves the quotes to the caller. */
void json_esc(buf *, str s);
void json_str(buf *, str s);
void json_u64(buf *, uint64_t);
void json_i64(buf *, int64_t);
/* Up to eight decimals, no exponent. JSON knows no infinity: anything below -9999 and NaN is
 * written as -9999.0, as vLLM does. */
void json_logprob(buf *, float);
/* A value as it was parsed, compact; NULL: null. */
struct json_t;
void json_value(buf *, const struct json_t *);
/* Any bytes: what is no UTF-8 becomes U+FFFD. */
void json_str_lossy(buf *, str bytes);

#endif
