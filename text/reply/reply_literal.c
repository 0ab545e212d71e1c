/* Rules of Python's and of bare arguments (text/reply/reply_literal.h). Any thread. */
#include "text/reply/reply_literal.h"

enum { MAX_DEPTH = 8, MAX_KEY = 48 }; /* of schemas, below it any value may stand; of a name */

typedef struct maker {
    rules *r;
    const literal_form *f;
    rule any, string, number, key;
} maker;

static rule bytes(const maker *m, const char *s) {
    return rules_bytes(m->r, str_of(s));
}
static rule seq2(const maker *m, rule x, rule y) {
    return rules_seq(m->r, (rule[]){x, y}, 2);
}
static rule seq3(const maker *m, rule x, rule y, rule z) {
    return rules_seq(m->r, (rule[]){x, y, z}, 3);
}
static rule alt2(const maker *m, rule x, rule y) {
    return rules_alt(m->r, (rule[]){x, y}, 2);
}
static rule many(const maker *m, rule x, uint32_t min) {
    return rules_repeat(m->r, x, min, RULE_UNBOUNDED);
}

/* begin, none or more items with commas between them, end. */
static rule listed(const maker *m, const char *begin, rule item, const char *end) {
    const rule comma = m->f->python ? bytes(m, ", ") : bytes(m, ",");
    const rule items = seq2(m, item, many(m, seq2(m, comma, item), 0));
    return seq3(m, bytes(m, begin), rules_optional(m->r, items), bytes(m, end));
}

/* ---- values of any type ---- */

static rule python_string(const maker *m) {
    rule any = RULE_NEVER;
    for (const char *q = "\"'"; *q; q++) {
        const uint32_t quote = (uint8_t)*q;
        const uint32_t low = quote < '\\' ? quote : '\\';
        const rule_range plain[] = {{0x20, low - 1}, {low + 1, '\\' - 1}, {'\\' + 1, 0x10ffff}};
        const rule_range escaped[] = {{'"', '"'}, {'\'', '\''}, {'\\', '\\'}, {'b', 'b'},
                                      {'f', 'f'}, {'n', 'n'},   {'r', 'r'},   {'t', 't'}};
        const rule c = alt2(m, rules_class(m->r, plain, 3),
                            seq2(m, bytes(m, "\\"), rules_class(m->r, escaped, 8)));
        const rule mark = rules_bytes(m->r, (str){q, 1});
        any = alt2(m, any, seq3(m, mark, many(m, c, 0), mark));
    }
    return any;
}

static rule integer(const maker *m) {
    const rule digit = rules_byte_range(m->r, '0', '9');
    const rule whole =
        seq2(m, rules_byte_range(m->r, '1', '9'), rules_repeat(m->r, digit, 0, 18));
    return seq2(m, rules_optional(m->r, bytes(m, "-")), alt2(m, bytes(m, "0"), whole));
}

static rule decimal(const maker *m) {
    const rule digits = rules_repeat(m->r, rules_byte_range(m->r, '0', '9'), 1, 18);
    return seq2(m, integer(m), rules_optional(m->r, seq2(m, bytes(m, "."), digits)));
}

static rule word(const maker *m, const char *python, const char *bare) {
    return bytes(m, m->f->python ? python : bare);
}

static rule boolean(const maker *m) {
    return alt2(m, word(m, "True", "true"), word(m, "False", "false"));
}

static rule any_key(const maker *m) {
    if (m->f->python) return m->string;
    const rule_range letters[] = {{'A', 'Z'}, {'a', 'z'}, {'0', '9'}, {'_', '_'}};
    return rules_repeat(m->r, rules_class(m->r, letters, 4), 1, MAX_KEY);
}

static rule any_member(const maker *m) {
    return seq3(m, m->key, word(m, ": ", ":"), m->any);
}

static void make_any(maker *m) {
    m->string = m->f->python ? python_string(m) : seq2(m, m->f->quote, m->f->text);
    m->number = decimal(m);
    m->any = rules_declare(m->r);
    m->key = any_key(m);
    const rule all[] = {m->string,
                        m->number,
                        boolean(m),
                        word(m, "None", "null"),
                        listed(m, "[", m->any, "]"),
                        listed(m, "{", any_member(m), "}")};
    rules_define(m->r, m->any, rules_alt(m->r, all, sizeof all / sizeof *all));
}

/* ---- by a schema ---- */

static rule text_literal(const maker *m, str s) {
    if (!m->f->python) return seq3(m, m->f->quote, rules_bytes(m->r, s), m->f->quote);
    rule out = bytes(m, "\"");
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i];
        if (c == '\n' || c == '\t' || c == '"' || c == '\\') out = seq2(m, out, bytes(m, "\\"));
        const char shown = c == '\n' ? 'n' : c == '\t' ? 't' : c;
        out = seq2(m, out, rules_bytes(m->r, (str){&shown, 1}));
    }
    return seq2(m, out, bytes(m, "\""));
}

/* One value of an enum or a const. RULE_NEVER: it is a list or an object. */
static rule literal(const maker *m, const json_t *v) {
    if (json_is_string(v)) return text_literal(m, json_in_text(v));
    if (json_is_boolean(v))
        return json_is_true(v) ? word(m, "True", "true") : word(m, "False", "false");
    if (json_is_null(v)) return word(m, "None", "null");
    if (!json_is_number(v)) return RULE_NEVER;
    char text[32];
    if (json_dumpb(v, NULL, 0, JSON_ENCODE_ANY) >= sizeof text) return m->number;
    return rules_bytes(m->r, (str){text, json_dumpb(v, text, sizeof text, JSON_ENCODE_ANY)});
}

/* False: there is none, or one of its values cannot be written. */
static bool listed_values(const maker *m, const json_t *s, rule *out) {
    const json_t *one = json_object_get(s, "const"), *all = json_object_get(s, "enum"), *v;
    size_t i;
    *out = one ? literal(m, one) : RULE_NEVER;
    if (one || !json_array_size(all)) return *out != RULE_NEVER;
    json_array_foreach(all, i, v) {
        const rule x = literal(m, v);
        if (x == RULE_NEVER) return false;
        *out = alt2(m, *out, x);
    }
    return true;
}

static bool is_required(const json_t *root, const char *key) {
    size_t i;
    const json_t *v;
    json_array_foreach(json_object_get(root, "required"), i, v) {
        if (json_is_string(v) && str_eqz(json_in_text(v), key)) return true;
    }
    return false;
}

static rule value(const maker *m, const json_t *s, int depth);

/* The properties in the schema's order, a comma before each but the first that is there. State
 * 2 * i + 1: the i-th comes, and others stand before it. */
static rule members(const maker *m, const json_t *s, bool call, int depth) {
    json_t *all = json_object_get(s, "properties");
    const uint32_t n = (uint32_t)json_object_size(all), states = 2 * n + 2;
    arena *mem = rules_arena(m->r);
    rule_edge *edge = arena_alloc(mem, (size_t)n * 4 * sizeof *edge + 1);
    bool *final = arena_zalloc(mem, states * sizeof *final);
    const rule comma = word(m, ", ", ",");
    size_t n_edges = 0;
    uint32_t i = 0;
    const char *key;
    const json_t *v;
    if (!edge || !final) return RULE_NEVER;
    json_object_foreach(all, key, v) {
        const rule quote = m->f->python && !call ? bytes(m, "\"") : RULE_EMPTY;
        const rule sign = call && m->f->python ? bytes(m, "=") : word(m, ": ", ":");
        const rule head = rules_seq(m->r, (rule[]){quote, bytes(m, key), quote, sign}, 4);
        const rule one = seq2(m, head, value(m, v, depth + 1));
        for (uint32_t more = 0; more < 2; more++) {
            const uint32_t from = 2 * i + more;
            edge[n_edges++] = (rule_edge){from, 2 * i + 3, more ? seq2(m, comma, one) : one};
            if (!is_required(s, key)) edge[n_edges++] = (rule_edge){from, from + 2, RULE_EMPTY};
        }
        i++;
    }
    final[2 * n] = final[2 * n + 1] = true;
    return rules_graph(m->r, states, final, edge, n_edges);
}

static rule typed(const maker *m, const json_t *s, str type, int depth) {
    if (str_eqz(type, "string")) return m->string;
    if (str_eqz(type, "integer")) return integer(m);
    if (str_eqz(type, "number")) return m->number;
    if (str_eqz(type, "boolean")) return boolean(m);
    if (str_eqz(type, "null")) return word(m, "None", "null");
    if (str_eqz(type, "array"))
        return listed(m, "[", value(m, json_object_get(s, "items"), depth + 1), "]");
    if (!str_eqz(type, "object")) return m->any;
    if (!json_object_size(json_object_get(s, "properties")))
        return listed(m, "{", any_member(m), "}");
    return seq3(m, bytes(m, "{"), members(m, s, false, depth), bytes(m, "}"));
}

static rule value(const maker *m, const json_t *s, int depth) {
    const json_t *type = json_object_get(s, "type"), *v;
    const json_t *branches = json_object_get(s, "anyOf");
    rule out = RULE_NEVER;
    size_t i;
    if (depth > MAX_DEPTH || !json_is_object(s)) return m->any;
    if (listed_values(m, s, &out)) return out;
    if (json_is_string(type)) return typed(m, s, json_in_text(type), depth);
    json_array_foreach(type, i, v) {
        if (json_is_string(v)) out = alt2(m, out, typed(m, s, json_in_text(v), depth));
    }
    json_array_foreach(branches, i, v) out = alt2(m, out, value(m, v, depth + 1));
    return out == RULE_NEVER ? m->any : out;
}

rule literal_arguments(rules *r, const literal_form *f, const json_t *s) {
    maker m = {.r = r, .f = f};
    const char *begin = f->python ? "(" : "{", *end = f->python ? ")" : "}";
    make_any(&m);
    if (json_is_object(json_object_get(s, "properties")))
        return seq3(&m, bytes(&m, begin), members(&m, s, true, 0), bytes(&m, end));
    const rule_range letters[] = {{'A', 'Z'}, {'a', 'z'}, {'0', '9'}, {'_', '_'}};
    const rule name = rules_repeat(r, rules_class(r, letters, 4), 1, MAX_KEY);
    return listed(&m, begin, seq3(&m, name, bytes(&m, f->python ? "=" : ":"), m.any), end);
}
