/* Rows of the option table: parsing and printing of one value, and the search for names. Owns
 * nothing; any thread. */
#include "conf/option.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

#define LIMITS_STR(lo, hi, def) .low = lo, .high = hi, .normal_text = def
#define LIMITS_U32(lo, hi, def) .low = lo, .high = hi, .normal = def
#define LIMITS_POW2             LIMITS_U32
#define LIMITS_U64              LIMITS_U32
#define LIMITS_BOOL             LIMITS_U32
#define LIMITS_ENUM             LIMITS_U32
#define LIMITS_BYTES            LIMITS_U32
#define LIVE                    .live = true

static const option table[N_OPTIONS] = {
#define X(section_, type_, name_, def, lo, hi, unit_, help_, values_, aliases_, ...)           \
    {.section = section_,                                                                      \
     .name = #name_,                                                                           \
     .unit = unit_,                                                                            \
     .help = help_,                                                                            \
     .values = values_,                                                                        \
     .aliases = aliases_,                                                                      \
     .type = OPTION_##type_,                                                                   \
     .offset = offsetof(options, name_),                                                       \
     .size = sizeof((options *)NULL)->name_,                                                   \
     LIMITS_##type_(lo, hi, def),                                                              \
     __VA_ARGS__},
    OPTION_LIST(X)
#undef X
};

static const option_section sections[N_SECTIONS] = {
#define X(name, help) {#name, help},
    SECTION_LIST(X)
#undef X
};

const option *option_table(void) {
    return table;
}

const option_section *option_sections(void) {
    return sections;
}

/* ---- names ---- */

static char plain(char c) {
    return c == '-' ? '_' : (char)tolower((unsigned char)c);
}

/* Of the first n letters. */
static bool same_word(const char *a, size_t n, const char *b) {
    for (size_t i = 0; i < n; i++)
        if ((a[i] == '-' ? '_' : a[i]) != (b[i] == '-' ? '_' : b[i])) return false;
    return true;
}

const option *option_by_name(const char *name) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

static bool list_has(const char *list, const char *word, size_t n) {
    for (size_t len; *list; list += len + (list[len] == ' ')) {
        len = strcspn(list, " ");
        if (len == n && same_word(word, n, list)) return true;
    }
    return false;
}

const option *option_by_flag(const char *flag) {
    size_t dashes = strspn(flag, "-"), n = strlen(flag + dashes);
    const char *word = flag + dashes;
    if (dashes == 0 || dashes > 2 || n == 0) return NULL;
    for (int i = 0; i < N_OPTIONS; i++) {
        if (dashes == 2 && list_has(table[i].name, word, n)) return &table[i];
        if (list_has(table[i].aliases, word, n) && (dashes == 1) == (n <= 3)) return &table[i];
    }
    return NULL;
}

bool option_in(const option *o, const char *only) {
    return !only || list_has(only, o->name, strlen(o->name));
}

char *option_flag(const option *o, char buf[OPTION_TEXT]) {
    size_t n = (size_t)snprintf(buf, OPTION_TEXT, "--%s", o->name);
    for (size_t i = 0; i < n; i++)
        if (buf[i] == '_') buf[i] = '-';
    return buf;
}

char *option_variable(const option *o, char buf[OPTION_TEXT]) {
    size_t n = (size_t)snprintf(buf, OPTION_TEXT, "VRAMD_%s", o->name);
    for (size_t i = 0; i < n; i++) buf[i] = (char)toupper((unsigned char)buf[i]);
    return buf;
}

const char *option_placeholder(const option *o) {
    switch (o->type) {
    case OPTION_STR: return "TEXT";
    case OPTION_BYTES: return "BYTES";
    case OPTION_ENUM: return "WORD";
    case OPTION_BOOL: return "BOOL";
    default: return "N";
    }
}

char *option_quote(const char *text, char buf[64]) {
    size_t n = strlen(text), shown = n > 56 ? 56 : n, i = 0;
    for (; i < shown; i++) buf[i] = isprint((unsigned char)text[i]) ? text[i] : '?';
    strcpy(buf + i, n > shown ? "..." : "");
    return buf;
}

/* Optimal string alignment distance; words longer than the rows are far from everything. */
static size_t distance(const char *a, const char *b) {
    enum { MOST = 64 };
    size_t n = strlen(a), m = strlen(b), row[3][MOST];
    if (n >= MOST || m >= MOST) return MOST;
    for (size_t j = 0; j <= m; j++) row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t d = last[j - 1] + (plain(a[i - 1]) != plain(b[j - 1]));
            if (last[j] + 1 < d) d = last[j] + 1;
            if (now[j - 1] + 1 < d) d = now[j - 1] + 1;
            if (i > 1 && j > 1 && plain(a[i - 1]) == plain(b[j - 2]) &&
                plain(a[i - 2]) == plain(b[j - 1]) && before[j - 2] + 1 < d)
                d = before[j - 2] + 1;
            now[j] = d;
        }
    }
    return row[n % 3][m];
}

const char *option_nearest(const char *word, const char *const *among, size_t n) {
    const char *best = NULL;
    size_t least =
        (strlen(word) + 3) / 4 + 1; /* a quarter wrong; further off it would be a guess */
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, among[i]);
        if (d < least) least = d, best = among[i];
    }
    return best;
}

/* ---- values as text ---- */

/* The largest binary unit that divides it, so that it reads back the same. */
static char *bytes_text(uint64_t n, char *buf) {
    static const char *const unit[] = {"", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    while (n && n % 1024 == 0 && u < 4) n /= 1024, u++;
    snprintf(buf, OPTION_TEXT, "%" PRIu64 "%s", n, unit[u]);
    return buf;
}

/* The word of an index in "a|b|c" and its length; NULL when there are fewer. */
static const char *word_at(const char *values, uint64_t index, size_t *len) {
    for (; index > 0; index--) {
        values = strchr(values, '|');
        if (!values) return NULL;
        values++;
    }
    *len = strcspn(values, "|");
    return *len ? values : NULL;
}

static char *number_text(const option *o, uint64_t v, char *buf) {
    size_t len;
    const char *word;
    switch (o->type) {
    case OPTION_BYTES: return bytes_text(v, buf);
    case OPTION_BOOL: return strcpy(buf, v ? "true" : "false");
    case OPTION_ENUM:
        word = word_at(o->values, v, &len);
        snprintf(buf, OPTION_TEXT, "%.*s", word ? (int)len : 1, word ? word : "?");
        break;
    default: snprintf(buf, OPTION_TEXT, "%" PRIu64, v);
    }
    return buf;
}

char *option_value_text(const option *o, const options *all, char buf[OPTION_TEXT]) {
    const char *at = (const char *)all + o->offset;
    uint64_t v = 0;
    uint32_t u;
    bool b;
    switch (o->type) {
    case OPTION_STR: snprintf(buf, OPTION_TEXT, "%s", at); return buf;
    case OPTION_BOOL: memcpy(&b, at, sizeof b), v = b; break;
    case OPTION_U64:
    case OPTION_BYTES: memcpy(&v, at, sizeof v); break;
    default: memcpy(&u, at, sizeof u), v = u;
    }
    return number_text(o, v, buf);
}

char *option_default_text(const option *o, char buf[OPTION_TEXT]) {
    if (o->type != OPTION_STR) return number_text(o, o->normal, buf);
    snprintf(buf, OPTION_TEXT, "%s", o->normal_text);
    return buf;
}

char *option_range_text(const option *o, char buf[OPTION_TEXT]) {
    char low[OPTION_TEXT], high[OPTION_TEXT];
    size_t n = 0;
    buf[0] = '\0';
    switch (o->type) {
    case OPTION_STR: break;
    case OPTION_BOOL: strcpy(buf, "true or false"); break;
    case OPTION_ENUM:
        for (const char *c = o->values; *c && n < OPTION_TEXT - 3; c++) {
            buf[n++] = *c == '|' ? ',' : *c;
            if (*c == '|') buf[n++] = ' ';
        }
        buf[n] = '\0';
        break;
    default:
        snprintf(buf, OPTION_TEXT, "%.100s to %.100s", number_text(o, o->low, low),
                 number_text(o, o->high, high));
    }
    return buf;
}

str options_word(const char *name, uint32_t value) {
    const option *o = option_by_name(name);
    size_t len;
    const char *word = o && o->type == OPTION_ENUM ? word_at(o->values, value, &len) : NULL;
    return word ? (str){word, len} : STR("?");
}

/* ---- text to values ---- */

static bool parse_u64(const char *text, uint64_t *out, bool *over) {
    uint64_t v = 0;
    *over = false;
    if (!*text) return false;
    for (; *text; text++) {
        if (!isdigit((unsigned char)*text)) return false;
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
            *over = true;
    }
    *out = v;
    return true;
}

bool option_parse_bool(const char *text, uint64_t *out) {
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(text, words[i]) == 0) return *out = i & 1, true;
    return false;
}

static bool parse_word(const option *o, const char *text, uint64_t *out) {
    size_t len;
    const char *word;
    for (*out = 0; (word = word_at(o->values, *out, &len)); ++*out)
        if (len == strlen(text) && strncasecmp(word, text, len) == 0) return true;
    return false;
}

static void store(options *all, const option *o, uint64_t v) {
    char *at = (char *)all + o->offset;
    uint32_t u = (uint32_t)v;
    bool b = v != 0;
    switch (o->type) {
    case OPTION_BOOL: memcpy(at, &b, sizeof b); break;
    case OPTION_U64:
    case OPTION_BYTES: memcpy(at, &v, sizeof v); break;
    default: memcpy(at, &u, sizeof u);
    }
}

static bool in_range(const option *o, uint64_t v) {
    if (o->type == OPTION_BOOL || o->type == OPTION_ENUM) return true;
    return v >= o->low && v <= o->high;
}

/* The kind of text that an option takes, for messages. */
static const char *wanted(const option *o) {
    switch (o->type) {
    case OPTION_BOOL: return "neither true nor false (yes, no, on, off, 1, 0)";
    case OPTION_ENUM: return "none of its words";
    case OPTION_BYTES: return "no number of bytes (like 512, 64KiB or 1.5GB)";
    default: return "no whole number";
    }
}

static bool parse(const option *o, const char *text, uint64_t *v, bool *over) {
    *over = false;
    switch (o->type) {
    case OPTION_BOOL: return option_parse_bool(text, v);
    case OPTION_ENUM: return parse_word(o, text, v);
    case OPTION_BYTES: return str_parse_bytes(str_of(text), v);
    default: return parse_u64(text, v, over);
    }
}

static status set_text(options *all, const option *o, const char *text, const char *where,
                       err *e) {
    char quoted[64];
    size_t n = strlen(text);
    const char *wrong = NULL;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) wrong = "has a control character";
    if (n > o->high) wrong = "is too long";
    if (!wrong) {
        memcpy((char *)all + o->offset, text, n + 1);
        return OK;
    }
    err_set(e, ERR_INVALID, "%s: %s = \"%s\" %s (%zu bytes, at most %u)", where, o->name,
            option_quote(text, quoted), wrong, n, (unsigned)o->high);
    return err_field(e, "%s", o->name);
}

/* The word of an ENUM that was probably meant. */
static status hint_word(const option *o, const char *text, err *e) {
    enum { MOST = 16 };
    char copy[OPTION_TEXT], *rest;
    const char *words[MOST];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", o->values);
    for (char *at = strtok_r(copy, "|", &rest); at && n < MOST; at = strtok_r(NULL, "|", &rest))
        words[n++] = at;
    const char *instead = option_foreign_word(o->name, text);
    if (instead) return err_hint(e, "use %s", instead);
    const char *near = option_nearest(text, words, n);
    return near ? err_hint(e, "did you mean %s?", near) : ERR_INVALID;
}

/* A pod's environment has such values for every service of its namespace. */
status option_hint_service(err *e) {
    return err_hint(e, "Kubernetes sets this for a service named vramd: give the service "
                       "another name, or the pod enableServiceLinks: false");
}

status option_set(options *all, const option *o, const char *text, const char *where, err *e) {
    char quoted[64], range[OPTION_TEXT];
    uint64_t v = 0;
    bool over;
    if (o->type == OPTION_STR) return set_text(all, o, text, where, e);
    bool parsed = parse(o, text, &v, &over), fits = parsed && !over && in_range(o, v);
    bool shaped = o->type != OPTION_POW2 || (v & (v - 1)) == 0;
    if (fits && shaped) return store(all, o, v), OK;
    const char *wrong = !parsed ? wanted(o) : !fits ? "out of range" : "no power of two";
    err_set(e, ERR_INVALID, "%s: %s = \"%s\" is %s; it takes %s%s%s", where, o->name,
            option_quote(text, quoted), wrong, option_range_text(o, range),
            o->unit[0] ? " " : "", o->unit);
    err_field(e, "%s", o->name);
    if (strncmp(text, "tcp://", 6) == 0) return option_hint_service(e);
    if (o->type == OPTION_ENUM) return hint_word(o, text, e);
    return ERR_INVALID;
}

void option_copy(options *to, const options *from, const option *o) {
    memcpy((char *)to + o->offset, (const char *)from + o->offset, o->size);
}

void options_defaults(options *all) {
    memset(all, 0, sizeof *all); /* strings are compared and printed as a whole */
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *o = &table[i];
        if (o->type == OPTION_STR)
            memcpy((char *)all + o->offset, o->normal_text, strlen(o->normal_text) + 1);
        else
            store(all, o, o->normal);
    }
}
