/* Reads traces. Owns the rows; one thread, before the run. */
#include "load/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "json/in.h"

enum { MAX_TOKENS_OF_A_ROW = 1 << 24 };

static const str azure_head = {"TIMESTAMP,ContextTokens,GeneratedTokens", 39};
static const str lengths_head = {"prompt,output", 13};

static void *grow(void *p, size_t *cap, size_t need, size_t each) {
    if (need <= *cap) return p;
    size_t n = need < 64 ? 64 : need * 2;
    p = realloc(p, n * each);
    if (p) *cap = n;
    return p;
}

static status add_row(load_trace *t, trace_row r, size_t line, err *e) {
    if (t->n == TRACE_MAX_ROWS)
        return err_set(e, ERR_TOO_LONG, "the trace has more than %d rows", TRACE_MAX_ROWS);
    if (t->n && r.at_us < t->rows[t->n - 1].at_us)
        return err_set(e, ERR_FORMAT, "line %zu of the trace is earlier than the one before",
                       line);
    trace_row *rows = grow(t->rows, &t->cap, t->n + 1, sizeof *rows);
    if (!rows) return err_set(e, ERR_NO_MEMORY, "no memory for the trace");
    t->rows = rows;
    if (r.prompt_tokens == 0) r.prompt_tokens = 1;
    if (r.output_tokens == 0) r.output_tokens = 1;
    rows[t->n++] = r;
    return OK;
}

/* Takes digits off the front of *s. At most 10, at least 1; false otherwise. */
static bool take_number(str *s, uint64_t *out) {
    size_t n = 0;
    for (*out = 0; n < s->len && s->ptr[n] >= '0' && s->ptr[n] <= '9'; n++)
        if (n < 10) *out = *out * 10 + (uint64_t)(s->ptr[n] - '0');
    if (n == 0 || n > 10) return false;
    *s = (str){s->ptr + n, s->len - n};
    return true;
}

static bool take_char(str *s, char c) {
    if (s->len == 0 || s->ptr[0] != c) return false;
    *s = (str){s->ptr + 1, s->len - 1};
    return true;
}

/* ".9799600": microseconds; further digits are cut off. */
static bool take_fraction(str *s, uint64_t *us) {
    *us = 0;
    if (!take_char(s, '.')) return true;
    size_t n = 0;
    for (uint64_t unit = 100000; n < s->len && s->ptr[n] >= '0' && s->ptr[n] <= '9'; n++) {
        *us += (uint64_t)(s->ptr[n] - '0') * unit;
        unit /= 10;
    }
    *s = (str){s->ptr + n, s->len - n};
    return n > 0;
}

/* "2023-11-16 18:17:03.9799600": microseconds since 1970, UTC. */
static bool take_time(str *s, uint64_t *us) {
    uint64_t f[6], fraction;
    static const char after[] = "-- ::";
    for (int i = 0; i < 6; i++)
        if (!take_number(s, &f[i]) || (i < 5 && !take_char(s, after[i]))) return false;
    if (f[0] < 1970 || f[0] > 9999 || f[1] < 1 || f[1] > 12 || f[2] < 1 || f[2] > 31 ||
        f[3] > 23 || f[4] > 59 || f[5] > 60 || !take_fraction(s, &fraction))
        return false;
    struct tm tm = {.tm_year = (int)f[0] - 1900,
                    .tm_mon = (int)f[1] - 1,
                    .tm_mday = (int)f[2],
                    .tm_hour = (int)f[3],
                    .tm_min = (int)f[4],
                    .tm_sec = (int)f[5]};
    *us = (uint64_t)timegm(&tm) * 1000000u + fraction;
    return true;
}

/* timed: a time comes before the counts; else all rows are at 0. */
static status csv_row(load_trace *t, str line, size_t number, bool timed, uint64_t *first,
                      err *e) {
    uint64_t at = 0, prompt, output;
    str s = line;
    if ((timed && (!take_time(&s, &at) || !take_char(&s, ','))) || !take_number(&s, &prompt) ||
        !take_char(&s, ',') || !take_number(&s, &output) || s.len ||
        prompt > MAX_TOKENS_OF_A_ROW || output > MAX_TOKENS_OF_A_ROW) {
        err_set(e, ERR_FORMAT, "line %zu of the trace is no%s two counts: \"%.*s\"", number,
                timed ? " time and" : "", (int)(line.len < 60 ? line.len : 60), line.ptr);
        return err_hint(e, "rows look like %s4808,10",
                        timed ? "2023-11-16 18:17:03.9799600," : "");
    }
    if (t->n == 0) *first = at;
    if (at < *first)
        return err_set(e, ERR_FORMAT, "line %zu of the trace is earlier than the first",
                       number);
    trace_row r = {.at_us = at - *first,
                   .prompt_tokens = (uint32_t)prompt,
                   .output_tokens = (uint32_t)output};
    return add_row(t, r, number, e);
}

static status add_hashes(load_trace *t, const json_t *ids, trace_row *r, err *e) {
    r->hashes = t->n_hashes;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            return err_set(e, ERR_INVALID, "hash_ids[%zu] is no id", i);
        uint64_t *v = grow(t->hashes, &t->cap_hashes, t->n_hashes + 1, sizeof *v);
        if (!v) return err_set(e, ERR_NO_MEMORY, "no memory for the trace");
        t->hashes = v;
        v[t->n_hashes++] = (uint64_t)json_integer_value(id);
        r->n_hashes++;
    }
    return OK;
}

static status mooncake_object(load_trace *t, const json_t *o, size_t number, uint64_t *first,
                              err *e) {
    double ms = -1;
    int64_t in = -1, out = -1;
    if (!json_is_object(o)) return err_set(e, ERR_INVALID, "it is no object");
    status s = json_in_real(o, "timestamp", 0, 1e13, &ms, e);
    if (s == OK) s = json_in_int(o, "input_length", 0, MAX_TOKENS_OF_A_ROW, &in, e);
    if (s == OK) s = json_in_int(o, "output_length", 0, MAX_TOKENS_OF_A_ROW, &out, e);
    if (s == OK && (ms < 0 || in < 0 || out < 0))
        return err_set(e, ERR_INVALID, "timestamp, input_length or output_length is missing");
    trace_row r = {.prompt_tokens = (uint32_t)in, .output_tokens = (uint32_t)out};
    const json_t *ids = json_object_get(o, "hash_ids");
    if (s == OK && ids && !json_is_array(ids))
        return json_in_wrong(e, "hash_ids", "an array", ids);
    if (s == OK && ids) s = add_hashes(t, ids, &r, e);
    if (s != OK) return s;
    uint64_t at = (uint64_t)(ms * 1000);
    if (t->n == 0) *first = at;
    if (at < *first) return err_set(e, ERR_INVALID, "it is earlier than the first");
    r.at_us = at - *first;
    return add_row(t, r, number, e);
}

static status mooncake_row(load_trace *t, str line, size_t number, uint64_t *first, err *e) {
    arena a;
    const json_t *o;
    arena_init(&a, chunks_heap(), 0);
    status s = json_in_parse(&o, &a, line, e);
    if (s == OK) s = mooncake_object(t, o, number, first, e);
    arena_clear(&a);
    if (s != ERR_INVALID) return s;
    err_set(e, ERR_FORMAT, "line %zu of the trace: %s", number, e->text);
    return err_hint(e, "lines look like {\"timestamp\": 0, \"input_length\": 6758, "
                       "\"output_length\": 500, \"hash_ids\": [0, 1]}");
}

static str take_line(str *text) {
    const char *nl = memchr(text->ptr, '\n', text->len);
    size_t n = nl ? (size_t)(nl - text->ptr) : text->len;
    str line = {text->ptr, n};
    n += nl != NULL;
    *text = (str){text->ptr + n, text->len - n};
    while (line.len && (line.ptr[line.len - 1] == '\r' || line.ptr[line.len - 1] == ' '))
        line.len--;
    return line;
}

status load_trace_parse(load_trace *t, str text, size_t limit, err *e) {
    bool json = text.len && text.ptr[0] == '{', timed = true;
    uint64_t first = 0;
    for (size_t number = 1; text.len && (!limit || t->n < limit); number++) {
        str line = take_line(&text);
        if (line.len == 0) continue;
        status s = OK;
        if (json)
            s = mooncake_row(t, line, number, &first, e);
        else if (number > 1)
            s = csv_row(t, line, number, timed, &first, e);
        else if (str_eq(line, lengths_head))
            timed = false;
        else if (!str_eq(line, azure_head)) {
            err_set(e, ERR_FORMAT,
                    "the trace starts with neither \"%s\" nor \"%s\" nor a JSON object",
                    azure_head.ptr, lengths_head.ptr);
            return err_hint(e, "give an Azure CSV or a Mooncake JSON-lines trace, or lengths");
        }
        if (s != OK) return s;
    }
    return t->n ? OK : err_set(e, ERR_FORMAT, "the trace has no rows");
}

status load_trace_read(load_trace *t, const char *path, size_t limit, err *e) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open the trace %s: %s",
                path, strerror(errno));
        return err_hint(e, "give the path of a readable file");
    }
    buf b;
    buf_init(&b, NULL);
    size_t n = 1;
    while (n && buf_reserve(&b, 1 << 16)) b.len += n = fread(b.ptr + b.len, 1, 1 << 16, f);
    status s = OK;
    if (ferror(f)) s = err_set(e, ERR_IO, "reading the trace %s: %s", path, strerror(errno));
    if (b.failed) s = err_set(e, ERR_NO_MEMORY, "no memory for the trace %s", path);
    fclose(f);
    if (s == OK) s = load_trace_parse(t, buf_str(&b), limit, e);
    buf_clear(&b);
    return s;
}

void load_trace_clear(load_trace *t) {
    free(t->rows);
    free(t->hashes);
    *t = (load_trace){0};
}
