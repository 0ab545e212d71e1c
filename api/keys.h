/* API keys, from a file of lines
 *
 *     NAME SHA256 [rate=N/min] [tokens=N/min] [concurrency=N] [priority=N] [admin]   # a comment
 *
 * NAME is the tenant; SHA256 is that of the key, in hexadecimal. A key has 256 random bits
 * (keys_make), so that there is nothing to guess that a salt or a slow hash would protect: who
 * reads the file learns no key. A name may stand in further lines, without limits: more keys of
 * one tenant, while one replaces the other.
 *
 * admin: its keys may change the server's budget (PUT /v1/memory).
 *
 * All memory is taken when the table opens. Loop thread. */
#ifndef VRAMD_API_KEYS_H
#define VRAMD_API_KEYS_H

#include "api/tenant.h"
#include "base/err.h"
#include "base/str.h"
#include "memory/ledger.h"

enum {
    KEYS_MAX = 1024, /* lines with a key, and tenants */
    KEYS_SHOWN = 64, /* tenants that metrics show one by one */
    KEY_HASH_BYTES = 32,
    KEY_TEXT_BYTES = 3 + 2 * 32 + 1 /* "vk-", 256 bits, NUL */
};

typedef struct keys keys;

uint64_t keys_bytes(void); /* of class http */

/* Reads the file. Errors: ERR_NOT_FOUND, ERR_IO, ERR_INVALID (field: api_keys_file; text: file
 * and line), ERR_BUDGET, ERR_NO_MEMORY. */
status keys_open(keys **out, const char *path, ledger *, uint64_t now_us, err *);
/* Reads it again. On an error all is as before. Tenants keep their counts and what is in their
 * buckets; one that is gone lives on until its last request has left. */
status keys_reload(keys *, const char *path, uint64_t now_us, err *);
void keys_close(keys *, ledger *); /* no request may be open; NULL is ignored */

/* The tenant of a key, in a time that reveals nothing of the keys; NULL: unknown. */
tenant *keys_find(keys *, str key);
uint32_t keys_n_tenants(const keys *);

/* Calls each for the first KEYS_SHOWN tenants that are listed or open, and once with the name
 * "_other" for the sum of all others, if there are any. */
void keys_each(const keys *, void (*each)(void *arg, const tenant *), void *arg);

/* A new key, and the line for it. limits: words as in the file, separated by blanks; "" for
 * none. Errors: ERR_INVALID (name or limits), ERR_IO (no random bytes). */
status keys_make(const char *name, const char *limits, char key[KEY_TEXT_BYTES],
                 char hash_hex[2 * KEY_HASH_BYTES + 1], err *);

#endif
