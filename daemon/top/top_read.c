/* The two readers of top_read.h. Text of the server's is copied without anything that a
 * terminal would take for a command. */
#include "daemon/top/top_read.h"

#include <stdlib.h>

#include "json/in.h"

/* Printable ASCII alone: a name may hold escape sequences. */
static void copy_text(char *out, size_t cap, str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.len && n + 1 < cap; i++)
        out[n++] = s.ptr[i] >= 0x20 && s.ptr[i] < 0x7f ? s.ptr[i] : '?';
    out[n] = '\0';
}

static void copy_member(char *out, size_t cap, const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    copy_text(out, cap, json_is_string(v) ? json_in_text(v) : STR(""));
}

static uint64_t count_of(const json_t *o, const char *key) {
    json_int_t n = json_integer_value(json_object_get(o, key));
    return n < 0 ? 0 : (uint64_t)n;
}

/* ---- /v1/memory ---- */

static void read_ledger(top_ledger *l, const json_t *o) {
    const json_t *v, *u = json_object_get(o, "unaccounted_bytes");
    size_t i;
    l->budget_bytes = count_of(o, "budget_bytes");
    l->plan_bytes = count_of(o, "plan_bytes");
    l->ledger_bytes = count_of(o, "ledger_bytes");
    l->peak_bytes = count_of(o, "peak_bytes");
    l->unaccounted_known = json_is_integer(u);
    l->unaccounted_bytes = json_integer_value(u);
    json_array_foreach(json_object_get(o, "classes"), i, v) {
        if (l->n == TOP_MAX_CLASSES) break;
        top_class c = {.plan_bytes = count_of(v, "plan_bytes"),
                       .ledger_bytes = count_of(v, "ledger_bytes"),
                       .peak_bytes = count_of(v, "peak_bytes")};
        copy_member(c.name, sizeof c.name, v, "class");
        if (c.plan_bytes || c.peak_bytes) l->cls[l->n++] = c;
    }
}

static void read_kv(top_sample *s, const json_t *kv) {
    const json_t *v;
    size_t i;
    copy_member(s->type_k, sizeof s->type_k, kv, "type_k");
    copy_member(s->type_v, sizeof s->type_v, kv, "type_v");
    s->block_tokens = count_of(kv, "block_tokens");
    json_array_foreach(json_object_get(kv, "groups"), i, v) {
        if (s->n_groups == TOP_MAX_GROUPS) break;
        s->group[s->n_groups++] = (top_group){.window = count_of(v, "window"),
                                              .block_bytes = count_of(v, "block_bytes"),
                                              .blocks = count_of(v, "blocks"),
                                              .free = count_of(v, "free"),
                                              .used = count_of(v, "used"),
                                              .cached = count_of(v, "cached"),
                                              .fenced = count_of(v, "fenced"),
                                              .peak = count_of(v, "peak_used"),
                                              .tail = json_is_true(json_object_get(v, "tail"))};
    }
}

static int by_bytes(const void *a, const void *b) {
    const top_seq *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x->id > y->id ? 1 : x->id < y->id ? -1 : 0;
}

static void read_sequences(top_sample *s, const json_t *list) {
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v) {
        if (s->n_seqs == TOP_MAX_SEQS) break;
        top_seq *q = &s->seq[s->n_seqs++];
        *q = (top_seq){.id = count_of(v, "id"),
                       .tokens = count_of(v, "tokens"),
                       .cached = count_of(v, "cached_tokens"),
                       .blocks = count_of(v, "blocks"),
                       .bytes = count_of(v, "bytes"),
                       .age_s = json_number_value(json_object_get(v, "age_s")),
                       .itl_ms = json_number_value(json_object_get(v, "itl_ms"))};
        copy_member(q->state, sizeof q->state, v, "state");
        copy_member(q->tenant, sizeof q->tenant, v, "tenant");
    }
    qsort(s->seq, s->n_seqs, sizeof *s->seq, by_bytes);
}

status top_read_memory(top_sample *s, arena *mem, str json, err *e) {
    const json_t *o;
    *s = (top_sample){.at_us = s->at_us};
    if (json_in_parse(&o, mem, json, e) != OK || !json_is_object(o) ||
        !json_is_integer(json_object_get(o, "ledger_bytes")))
        return err_set(e, ERR_FORMAT, "the answer of /v1/memory is no account of vramd's");
    read_ledger(&s->host, o);
    const json_t *d = json_object_get(o, "device");
    if (json_is_object(d)) {
        read_ledger(&s->device, d);
        copy_member(s->device.name, sizeof s->device.name, d, "name");
    }
    read_kv(s, json_object_get(o, "kv"));
    read_sequences(s, json_object_get(o, "sequences"));
    return OK;
}

/* ---- /metrics ---- */

static const struct {
    str name;
    size_t at;
} counters[] = {
#define X(field, name) {{name, sizeof name - 1}, offsetof(top_counters, field)},
    TOP_COUNTERS(X)
#undef X
};

static void take_value(top_counters *c, str name, double v) {
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        if (str_eq(name, counters[i].name)) *(double *)((char *)c + counters[i].at) += v;
}

/* The number behind the last blank of a line; 0 when there is none. */
static double value_of(str line) {
    char word[40];
    size_t at = line.len;
    while (at > 0 && line.ptr[at - 1] != ' ') at--;
    size_t n = line.len - at;
    if (n == 0 || n >= sizeof word) return 0;
    memcpy(word, line.ptr + at, n);
    word[n] = '\0';
    double v = strtod(word, NULL);
    return v >= 0 && v < 1e18 ? v : 0; /* no NaN, no infinity */
}

static void take_model(top_sample *s, str line) {
    const str mark = STR("model_name=\"");
    size_t at = str_find(line, mark, 0);
    if (s->model[0] || at == SIZE_MAX) return;
    at += mark.len;
    size_t end = str_find(line, STR("\""), at);
    if (end != SIZE_MAX) copy_text(s->model, sizeof s->model, (str){line.ptr + at, end - at});
}

void top_read_metrics(top_sample *s, str text) {
    s->model[0] = '\0';
    s->count = (top_counters){0};
    for (size_t from = 0; from < text.len;) {
        size_t end = str_find(text, STR("\n"), from);
        if (end == SIZE_MAX) end = text.len;
        str line = {text.ptr + from, end - from};
        from = end + 1;
        size_t n = 0;
        while (n < line.len && line.ptr[n] != '{' && line.ptr[n] != ' ') n++;
        if (line.len == 0 || line.ptr[0] == '#') continue;
        take_model(s, line);
        take_value(&s->count, (str){line.ptr, n}, value_of(line));
    }
}

/* ---- rates ---- */

top_rates top_rates_between(const top_sample *before, const top_sample *now) {
    const top_counters *a = &before->count, *b = &now->count;
    top_rates r = {.hit_share = -1};
    r.seconds = now->at_us > before->at_us ? (double)(now->at_us - before->at_us) / 1e6 : 0;
    if (r.seconds <= 0 || b->steps < a->steps) return r;
    const struct {
        double *to, from, until;
    } row[] = {{&r.generated, a->generated, b->generated},
               {&r.prompt, a->prompt, b->prompt},
               {&r.evictions, a->evictions, b->evictions},
               {&r.preemptions, a->preemptions, b->preemptions},
               {&r.recomputed, a->recomputed, b->recomputed},
               {&r.finished, a->finished, b->finished},
               {&r.steps, a->steps, b->steps}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (row[i].until > row[i].from) *row[i].to = (row[i].until - row[i].from) / r.seconds;
    if (b->queries > a->queries && b->hits >= a->hits)
        r.hit_share = (b->hits - a->hits) / (b->queries - a->queries);
    return r;
}
