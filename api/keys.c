/* The table of keys. Owns its memory; see keys.h. */
#include "api/keys.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "api/secret.h"
#include "base/arena.h"
#include "base/check.h"

enum { MAX_LINE = 512, MAX_FILE = KEYS_MAX * 256 };

typedef struct key_line {
    unsigned char hash[KEY_HASH_BYTES];
    char name[TENANT_NAME_MAX + 1];
    tenant_limits limits;
    bool first; /* of its name */
    uint32_t number, tenant;
} key_line;

typedef struct key_list {
    key_line line[KEYS_MAX];
    uint32_t n;
} key_list;

struct keys {
    tenant tenant[KEYS_MAX]; /* name "": free */
    tenant_counts gone;      /* of tenants whose place another has taken */
    key_list list[2];        /* in force, and the one being read */
    unsigned now;
};

uint64_t keys_bytes(void) {
    return align_up(sizeof(keys), 64);
}

/* ---- one line ---- */

static bool name_ok(const char *s) {
    size_t n = strlen(s);
    if (n < 1 || n > TENANT_NAME_MAX || !isalnum((unsigned char)*s)) return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("._-", *s)) return false;
    return true;
}

/* It may be a key that stands in the wrong place: not for the log. */
static status no_name(const char *name, err *e) {
    err_set(e, ERR_INVALID, "\"%.12s\" is no name", name);
    return err_hint(e, "1 to %d letters, digits, dots, underscores and dashes",
                    TENANT_NAME_MAX);
}

static int hex_digit(char c) {
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool parse_hash(const char *s, unsigned char out[KEY_HASH_BYTES]) {
    if (strlen(s) != 2 * KEY_HASH_BYTES) return false;
    for (int i = 0; i < KEY_HASH_BYTES; i++) {
        int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);
        if (hi < 0 || lo < 0) return false;
        out[i] = (unsigned char)(hi << 4 | lo);
    }
    return true;
}

/* Digits only, and then exactly suffix. */
static bool parse_number(const char *s, const char *suffix, uint64_t most, uint64_t *out) {
    char *end;
    if (!isdigit((unsigned char)*s)) return false;
    errno = 0;
    *out = strtoull(s, &end, 10);
    return errno == 0 && *out >= 1 && *out <= most && strcmp(end, suffix) == 0;
}

static status parse_limit(tenant_limits *l, const char *word, err *e) {
    uint64_t v = 0;
    bool minus = strncmp(word, "priority=-", 10) == 0;
    if (strncmp(word, "rate=", 5) == 0 && parse_number(word + 5, "/min", 1000000000, &v)) {
        l->requests_per_min = v;
    } else if (strncmp(word, "tokens=", 7) == 0 &&
               parse_number(word + 7, "/min", 1000000000000, &v)) {
        l->tokens_per_min = v;
    } else if (strncmp(word, "concurrency=", 12) == 0 &&
               parse_number(word + 12, "", 1000000, &v)) {
        l->concurrency = (uint32_t)v;
    } else if (strcmp(word, "priority=0") == 0 ||
               (strncmp(word, "priority=", 9) == 0 &&
                parse_number(word + 9 + minus, "", INT32_MAX, &v))) {
        l->has_priority = true;
        l->priority = minus ? -(int32_t)v : (int32_t)v;
    } else if (strncmp(word, "weight=", 7) == 0 &&
               parse_number(word + 7, "", TENANT_MAX_WEIGHT, &v)) {
        l->weight = (uint32_t)v;
    } else if (strcmp(word, "admin") == 0) {
        l->admin = true;
    } else {
        err_set(e, ERR_INVALID, "\"%.12s\" is no limit", word);
        return err_hint(
            e, "rate=N/min, tokens=N/min, concurrency=N, priority=N, weight=N or admin");
    }
    return OK;
}

static status parse_limits(tenant_limits *l, char *text, bool *any, err *e) {
    char *rest = text;
    status s = OK;
    *any = false;
    for (char *w; s == OK && (w = strtok_r(rest, " \t\r\n", &rest)) && *w != '#';) {
        s = parse_limit(l, w, e);
        *any = true;
    }
    return s;
}

/* OK with k->name "" for a line without a key. */
static status parse_line(key_list *list, key_line *k, char *text, err *e) {
    char *rest = text, *name = strtok_r(rest, " \t\r\n", &rest);
    if (!name || *name == '#') return OK;
    char *hash = strtok_r(rest, " \t\r\n", &rest);
    if (!name_ok(name)) return no_name(name, e);
    if (!hash || !parse_hash(hash, k->hash)) {
        err_set(e, ERR_INVALID, "the name \"%s\" must be followed by a SHA-256, 64 digits",
                name);
        return err_hint(e, "\"vramd key %s\" makes a key and its line", name);
    }
    bool limited = false;
    status s = parse_limits(&k->limits, rest, &limited, e);
    if (s != OK) return s;
    k->first = true;
    for (uint32_t i = 0; i < list->n; i++) {
        const key_line *o = &list->line[i];
        if (memcmp(o->hash, k->hash, KEY_HASH_BYTES) == 0)
            return err_set(e, ERR_INVALID, "this key is in line %u already", o->number);
        if (strcmp(o->name, name) != 0) continue;
        k->first = false;
        if (!limited) continue;
        err_set(e, ERR_INVALID, "the limits of \"%s\" are in line %u already", name, o->number);
        return err_hint(e, "a further key of the same name has none of its own");
    }
    snprintf(k->name, sizeof k->name, "%s", name);
    return OK;
}

/* ---- the file ---- */

static status in_line(err *e, const char *path, uint32_t number) {
    err inner = *e;
    err_set(e, inner.code, "%.120s line %u: %.200s", path, number, inner.text);
    if (inner.hint[0]) err_hint(e, "%s", inner.hint);
    return err_field(e, "api_keys_file");
}

/* What follows the line's own NUL is never another one: see has_nul. */
static bool read_line(char text[MAX_LINE], FILE *f) {
    memset(text, '\n', MAX_LINE);
    return fgets(text, MAX_LINE, f) != NULL;
}
static bool has_nul(const char text[MAX_LINE]) {
    size_t n = strlen(text) + 1;
    return memchr(text + n, '\0', MAX_LINE - n) != NULL;
}

static status read_list(key_list *list, FILE *f, const char *path, err *e) {
    char text[MAX_LINE];
    list->n = 0;
    for (uint32_t number = 1; read_line(text, f); number++) {
        key_line k = {.number = number};
        status s = OK;
        if (has_nul(text))
            s = err_set(e, ERR_INVALID, "a NUL");
        else if (!strchr(text, '\n') && !feof(f))
            s = err_set(e, ERR_INVALID, "more than %d bytes", MAX_LINE - 2);
        if (s == OK) s = parse_line(list, &k, text, e);
        if (s == OK && k.name[0] && list->n == KEYS_MAX)
            s = err_set(e, ERR_INVALID, "more than %d keys", KEYS_MAX);
        if (s != OK) return in_line(e, path, number);
        if (k.name[0]) list->line[list->n++] = k;
    }
    gnutls_memset(text, 0, sizeof text);
    return secret_steady(f, path, "api_keys_file", e);
}

static tenant *by_name(keys *k, const char *name) {
    for (uint32_t i = 0; i < KEYS_MAX; i++)
        if (strcmp(k->tenant[i].name, name) == 0) return &k->tenant[i];
    return NULL;
}

/* A place for another tenant: one never used, else one that no request or key refers to. */
static tenant *vacant(keys *k) {
    tenant *t = by_name(k, "");
    for (uint32_t i = 0; !t && i < KEYS_MAX; i++)
        if (!k->tenant[i].listed && !k->tenant[i].n_open) t = &k->tenant[i];
    if (!t) return NULL;
    k->gone.n_requests += t->counts.n_requests;
    k->gone.n_limited += t->counts.n_limited;
    k->gone.n_prompt_tokens += t->counts.n_prompt_tokens;
    k->gone.n_output_tokens += t->counts.n_output_tokens;
    *t = (tenant){0};
    return t;
}

/* Whether all names of the list have a place beside the tenants that have still to leave. */
static bool has_places(keys *k, const key_list *list) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < list->n; i++) n += list->line[i].first;
    for (uint32_t i = 0; i < KEYS_MAX; i++) {
        const tenant *t = &k->tenant[i];
        bool stays = false;
        for (uint32_t j = 0; t->n_open && j < list->n && !stays; j++)
            stays = strcmp(list->line[j].name, t->name) == 0;
        n += t->n_open && !stays;
    }
    return n <= KEYS_MAX;
}

static void put_in_force(keys *k, key_list *list, uint64_t now_us) {
    for (uint32_t i = 0; i < KEYS_MAX; i++) k->tenant[i].listed = false;
    /* Those that stay first: the places of the others are for newcomers. */
    for (uint32_t i = 0; i < list->n; i++) {
        tenant *t = by_name(k, list->line[i].name);
        if (t) t->listed = true;
    }
    for (uint32_t i = 0; i < list->n; i++) {
        key_line *l = &list->line[i];
        tenant *t = by_name(k, l->name);
        if (!t) {
            t = vacant(k);
            CHECK(t);
            memcpy(t->name, l->name, sizeof t->name);
        }
        t->listed = true;
        l->tenant = (uint32_t)(t - k->tenant);
        if (l->first) tenant_set(t, &l->limits, now_us);
    }
    k->now = list == &k->list[1];
}

status keys_reload(keys *k, const char *path, uint64_t now_us, err *e) {
    FILE *f;
    key_list *list = &k->list[!k->now];
    status s = secret_open(&f, path, MAX_FILE, "api_keys_file", e);
    if (s == ERR_INVALID && !e->hint[0]) err_hint(e, "it has at most %d keys", KEYS_MAX);
    if (s != OK) return s;
    s = read_list(list, f, path, e);
    fclose(f);
    if (s == OK && list->n == 0) {
        err_set(e, ERR_INVALID, "%.200s has no key", path);
        err_hint(e, "\"vramd key NAME >> FILE\" adds one");
        s = err_field(e, "api_keys_file");
    }
    if (s == OK && !has_places(k, list)) {
        err_set(e, ERR_INVALID, "%.200s and requests in progress name more than %d tenants",
                path, KEYS_MAX);
        s = err_field(e, "api_keys_file");
    }
    if (s == OK) put_in_force(k, list, now_us);
    return s;
}

status keys_open(keys **out, const char *path, ledger *l, uint64_t now_us, err *e) {
    void *mem = NULL;
    *out = NULL;
    status s = ledger_alloc(l, &mem, MEM_HTTP, keys_bytes(), "API keys", e);
    if (s == OK) s = keys_reload(mem, path, now_us, e);
    if (s != OK)
        ledger_free(l, mem);
    else
        *out = mem;
    return s;
}

void keys_close(keys *k, ledger *l) {
    for (uint32_t i = 0; k && i < KEYS_MAX; i++) CHECK(k->tenant[i].n_open == 0);
    ledger_free(l, k);
}

/* ---- asking ---- */

static bool hash_of(str key, unsigned char out[KEY_HASH_BYTES]) {
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, key.ptr, key.len, out) == 0;
}

tenant *keys_find(keys *k, str key) {
    const key_list *list = &k->list[k->now];
    unsigned char hash[KEY_HASH_BYTES];
    tenant *found = NULL;
    if (!hash_of(key, hash)) return NULL;
    for (uint32_t i = 0; i < list->n; i++) /* all of them, whichever it is */
        if (gnutls_memcmp(list->line[i].hash, hash, KEY_HASH_BYTES) == 0)
            found = &k->tenant[list->line[i].tenant];
    return found;
}

uint32_t keys_n_tenants(const keys *k) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < KEYS_MAX; i++) n += k->tenant[i].listed;
    return n;
}

void keys_each(const keys *k, void (*each)(void *arg, const tenant *), void *arg) {
    tenant other = {.name = "_other", .counts = k->gone};
    uint32_t n = 0;
    for (uint32_t i = 0; i < KEYS_MAX; i++) {
        const tenant *t = &k->tenant[i];
        if (!t->name[0]) continue;
        if ((t->listed || t->n_open) && n++ < KEYS_SHOWN) {
            each(arg, t);
            continue;
        }
        other.n_open += t->n_open;
        other.counts.n_requests += t->counts.n_requests;
        other.counts.n_limited += t->counts.n_limited;
        other.counts.n_prompt_tokens += t->counts.n_prompt_tokens;
        other.counts.n_output_tokens += t->counts.n_output_tokens;
    }
    if (other.counts.n_requests || other.counts.n_limited || n > KEYS_SHOWN) each(arg, &other);
}

/* ---- making ---- */

static char *to_hex(const unsigned char *from, size_t n, char *to) {
    for (size_t i = 0; i < n; i++) sprintf(to + 2 * i, "%02x", from[i]);
    return to;
}

status keys_make(const char *name, const char *limits, char key[KEY_TEXT_BYTES],
                 char hash_hex[2 * KEY_HASH_BYTES + 1], err *e) {
    char words[MAX_LINE];
    tenant_limits ignored = {0};
    bool any;
    if (!name_ok(name)) return no_name(name, e);
    if (strlen(limits) + strlen(name) + 2 * KEY_HASH_BYTES + 4 > MAX_LINE)
        return err_set(e, ERR_INVALID, "the line would have more than %d bytes", MAX_LINE - 2);
    snprintf(words, sizeof words, "%s", limits);
    status s = parse_limits(&ignored, words, &any, e);
    if (s != OK) return s;
    unsigned char random[32], hash[KEY_HASH_BYTES];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return err_set(e, ERR_IO, "the kernel gives no random bytes: %s", strerror(errno));
    memcpy(key, "vk-", 3);
    to_hex(random, sizeof random, key + 3);
    if (!hash_of(str_of(key), hash)) return err_set(e, ERR_IO, "SHA-256 does not work");
    to_hex(hash, sizeof hash, hash_hex);
    gnutls_memset(random, 0, sizeof random);
    return OK;
}
