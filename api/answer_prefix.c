/* Why the prefix of a prompt was not found, usage.memory.prefix: the scheduler says which token
 * (scheduler/explain.c), here is said where it stands and what the text is there. Owns nothing. */
#include "api/answer.h"
#include "json/out.h"

enum { TOKENS_BEFORE = 8, TOKENS_AFTER = SCHED_MISS_TOKENS };

static const char *word_of(sched_why why) {
#define WORD(name, word) [WHY_##name] = word,
    static const char *const words[] = {SCHED_WHYS(WORD)};
#undef WORD
    return words[why];
}

/* ---- where it stands ---- */

/* Bytes of the prompt's text before token n. The tokenizer may have put a special token in front that
 * is not in the text. */
static size_t byte_of(const answer *a, const prompt_in *p, uint32_t n) {
    const tokenizer *tok = a->rq->served->port->tok;
    size_t at = 0;
    detok d;
    detok_init_text(&d, tok, true);
    for (uint32_t i = 0; i < n && i < p->ids.n; i++) {
        const int32_t id = p->ids.v[i];
        if (i == 0 && tokenizer_is_special(tok, id) &&
            !str_starts(p->text, tokenizer_piece(tok, id, true)))
            continue;
        at += detok_bytes(&d, id).len;
    }
    return at;
}

/* Whether byte at of the rendered prompt comes from the request. */
static bool is_data(const jinja_text *t, size_t at) {
    size_t i = 0;
    while (i < t->n_runs && t->runs[i].end <= at) i++;
    return i < t->n_runs && t->runs[i].data;
}

static str trimmed(str s) {
    while (s.len && (unsigned char)s.ptr[0] <= ' ') s.ptr++, s.len--;
    while (s.len && (unsigned char)s.ptr[s.len - 1] <= ' ') s.len--;
    return s;
}

static size_t find_data(const jinja_text *t, str word, size_t from) {
    if (!word.len) return SIZE_MAX;
    for (size_t at = from; (at = str_find(t->text, word, at)) != SIZE_MAX; at++)
        if (is_data(t, at)) return at;
    return SIZE_MAX;
}

/* Where a text of a message stands from *from on, which moves behind it. Templates may trim it. */
static bool find_text(const jinja_text *t, const json_t *text, size_t *from, size_t *begin) {
    str word = json_is_string(text) ? json_in_text(text) : STR("");
    *begin = find_data(t, word, *from);
    if (*begin == SIZE_MAX) word = trimmed(word), *begin = find_data(t, word, *from);
    if (*begin == SIZE_MAX) return false;
    *from = *begin + word.len;
    return true;
}

typedef struct place {
    size_t index; /* of the message */
    str role;
    bool inside; /* its text; else what the template has written before it */
} place;

/* Behind all texts: the last message, in what the template writes. */
static place find_place(const answer *a, const jinja_text *t, size_t at) {
    const size_t n = json_array_size(a->messages);
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(a->messages, i), *v = json_object_get(m, "content");
        const json_t *role = json_object_get(m, "role");
        const size_t n_parts = json_is_array(v) ? json_array_size(v) : 1;
        place here = {.index = i, .role = json_is_string(role) ? json_in_text(role) : STR("")};
        for (size_t k = 0; k < n_parts; k++) {
            size_t begin;
            if (json_is_array(v))
                here.inside =
                    find_text(t, json_object_get(json_array_get(v, k), "text"), &from, &begin);
            else
                here.inside = find_text(t, v, &from, &begin);
            if (!here.inside || at >= from) continue;
            here.inside = at >= begin;
            return here;
        }
        here.inside = false;
        if (i + 1 == n) return here;
    }
    return (place){0};
}

static void write_place(const answer *a, const prompt_in *p, uint32_t at_token, buf *b) {
    if (!p->is_marked || !json_array_size(a->messages)) return;
    const place w = find_place(a, &p->marked, byte_of(a, p, at_token));
    buf_addf(b, ",\"message\":{\"index\":%zu,\"role\":", w.index);
    json_str_lossy(b, w.role);
    buf_addf(b, ",\"in\":\"%s\"}", w.inside ? "content" : "template");
}

/* ---- the text there ---- */

static void write_text(const answer *a, const char *name, const int32_t *tokens, size_t n,
                       buf *b) {
    buf text;
    detok d;
    buf_init(&text, &a->rq->mem);
    detok_init(&d, a->rq->served->port->tok, true);
    for (size_t i = 0; i < n; i++) detok_push(&d, tokens[i], &text);
    detok_finish(&d, &text);
    buf_addf(b, ",\"%s\":", name);
    json_str_lossy(b, buf_str(&text));
    if (text.failed) b->failed = true;
}

static void write_texts(const answer *a, const prompt_in *p, const sched_miss *m, buf *b) {
    const uint32_t at = m->at_token, n = (uint32_t)p->ids.n;
    const uint32_t from = at < TOKENS_BEFORE ? 0 : at - TOKENS_BEFORE;
    if (!m->n_old || at >= n) return;
    write_text(a, "before", p->ids.v + from, at - from, b);
    write_text(a, "old", m->old, m->n_old, b);
    write_text(a, "new", p->ids.v + at, n - at < TOKENS_AFTER ? n - at : TOKENS_AFTER, b);
}

/* A client that others share its salt with, and that nothing is known of, must not find out by
 * guesses what they have sent: of their texts it learns no more than cached_tokens says. */
void prefix_write(const answer *a, buf *b) {
    const sched_miss *m = a->miss;
    const prompt_in *p = a->prompts;
    const char *why = m ? word_of(m->why) : NULL;
    if (!m || !a->n_choices) return;
    buf_addf(b, ",\"prefix\":{\"cached_tokens\":%u,\"of\":%zu,\"why\":",
             a->choices->usage.n_cached, p->ids.n);
    if (why)
        json_str(b, str_of(why));
    else
        buf_add(b, STR("null"));
    if (why && m->why == WHY_TOKENS_DIFFER && a->trusted) {
        buf_addf(b, ",\"at_token\":%u", m->at_token);
        write_place(a, p, m->at_token, b);
        write_texts(a, p, m, b);
    }
    if (why && m->nearest[0] && a->trusted) {
        buf_add(b, STR(",\"nearest_request\":"));
        json_str_lossy(b, str_of(m->nearest));
    }
    buf_addc(b, '}');
}
