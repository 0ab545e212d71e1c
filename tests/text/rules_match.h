/* Whether a text is taken by an expression (text/grammar/rules.h): by trying everything, without automata,
 * to compare text/grammar/grammar.h with. Slow, exact for expressions that are not left recursive, without
 * special tokens. For tests only; one thread. */
#ifndef VRAMD_TESTS_RULES_MATCH_H
#define VRAMD_TESTS_RULES_MATCH_H

#include <stdlib.h>

#include "base/check.h"
#include "base/utf8.h"
#include "text/grammar/rules_in.h"

typedef struct rules_matcher {
    const rules *r;
    str text;
    size_t words;    /* of a set of positions */
    uint64_t **memo; /* [node * (text.len + 1) + begin]; NULL: not known */
    arena mem;
} rules_matcher;

static inline const uint64_t *rules_ends_of(rules_matcher *m, rule of, size_t at);

static inline void rules_set(uint64_t *s, size_t i) {
    s[i / 64] |= 1ull << (i % 64);
}

static inline bool rules_has(const uint64_t *s, size_t i) {
    return s[i / 64] >> (i % 64) & 1;
}

static inline uint64_t *rules_no_ends(rules_matcher *m) {
    uint64_t *s = arena_zalloc(&m->mem, m->words * sizeof *s);
    CHECK(s);
    return s;
}

/* to += the ends of `of` from each position of `from`. True: `to` has grown. */
static inline bool rules_step(rules_matcher *m, rule of, const uint64_t *from, uint64_t *to) {
    bool grown = false;
    for (size_t i = 0; i <= m->text.len; i++) {
        if (!rules_has(from, i)) continue;
        const uint64_t *e = rules_ends_of(m, of, i);
        for (size_t k = 0; k < m->words; k++) {
            grown |= (e[k] & ~to[k]) != 0;
            to[k] |= e[k];
        }
    }
    return grown;
}

static inline void rules_repeat_ends(rules_matcher *m, const rule_node *n, size_t at,
                                     uint64_t *out) {
    uint64_t *now = rules_no_ends(m);
    rules_set(now, at);
    for (uint32_t i = 0; i < n->lo; i++) { /* the least number, or until nothing is left */
        uint64_t *next = rules_no_ends(m);
        rules_step(m, n->u.kid[0], now, next);
        bool same = memcmp(next, now, m->words * sizeof *now) == 0;
        now = next;
        if (same) break;
    }
    memcpy(out, now, m->words * sizeof *out);
    for (uint32_t i = n->lo; i < n->hi; i++) {
        uint64_t *from = rules_no_ends(m);
        memcpy(from, out, m->words * sizeof *from);
        if (!rules_step(m, n->u.kid[0], from, out)) break;
    }
}

static inline void rules_graph_ends(rules_matcher *m, const rule_node *n, size_t at,
                                    uint64_t *out) {
    uint64_t *in = arena_zalloc(&m->mem, (n->lo + 1) * m->words * sizeof *in);
    bool grown = true;
    CHECK(in);
    if (n->lo) rules_set(in, at);
    while (grown) {
        grown = false;
        for (uint32_t i = 0; i < n->n; i++) {
            const rule_edge *e = &n->u.edge[i];
            grown |= rules_step(m, e->on, in + e->from * m->words, in + e->to * m->words);
        }
    }
    for (uint32_t q = 0; q < n->lo; q++)
        for (size_t k = 0; n->final[q] && k < m->words; k++) out[k] |= in[q * m->words + k];
}

static inline void rules_class_ends(rules_matcher *m, const rule_node *n, size_t at,
                                    uint64_t *out) {
    uint32_t cp;
    int len = at < m->text.len ? utf8_decode(m->text.ptr + at, m->text.len - at, &cp) : 0;
    for (uint32_t i = 0; len > 0 && i < n->n; i++)
        if (cp >= n->u.range[i].lo && cp <= n->u.range[i].hi) rules_set(out, at + (size_t)len);
}

static inline void rules_seq_ends(rules_matcher *m, const rule_node *n, size_t at,
                                  uint64_t *out) {
    uint64_t *now = rules_no_ends(m);
    rules_set(now, at);
    for (uint32_t i = 0; i < n->n; i++) {
        uint64_t *next = rules_no_ends(m);
        rules_step(m, n->u.kid[i], now, next);
        now = next;
    }
    memcpy(out, now, m->words * sizeof *out);
}

static inline void rules_find_ends(rules_matcher *m, const rule_node *n, size_t at,
                                   uint64_t *out) {
    size_t left = m->text.len - at;
    uint8_t c = left ? (uint8_t)m->text.ptr[at] : 0;
    uint64_t *from = rules_no_ends(m);
    rules_set(from, at);
    switch (n->kind) {
    case RULE_BYTES:
        if (n->u.bytes.len <= left &&
            memcmp(n->u.bytes.ptr, m->text.ptr + at, n->u.bytes.len) == 0)
            rules_set(out, at + n->u.bytes.len);
        return;
    case RULE_RANGE:
        if (left && c >= n->lo && c <= n->hi) rules_set(out, at + 1);
        return;
    case RULE_CLASS: rules_class_ends(m, n, at, out); return;
    case RULE_TOKEN: return;
    case RULE_SEQ: rules_seq_ends(m, n, at, out); return;
    case RULE_ALT:
    case RULE_NAMED:
        for (uint32_t i = 0; i < n->n; i++) rules_step(m, n->u.kid[i], from, out);
        return;
    case RULE_REPEAT: rules_repeat_ends(m, n, at, out); return;
    case RULE_GRAPH: rules_graph_ends(m, n, at, out); return;
    }
}

static inline const uint64_t *rules_ends_of(rules_matcher *m, rule of, size_t at) {
    uint64_t **known = &m->memo[of * (m->text.len + 1) + at];
    if (*known) return *known;
    *known = rules_no_ends(m); /* what a left recursion finds */
    uint64_t *out = rules_no_ends(m);
    rules_find_ends(m, &m->r->node[of], at, out);
    return *known = out;
}

static inline bool rules_match(const rules *r, rule root, str text) {
    rules_matcher m = {.r = r, .text = text, .words = text.len / 64 + 1};
    arena_init(&m.mem, chunks_heap(), 0);
    m.memo = calloc(r->n_nodes * (text.len + 1), sizeof *m.memo);
    CHECK(m.memo);
    bool takes = rules_has(rules_ends_of(&m, root, 0), text.len);
    free(m.memo);
    arena_clear(&m.mem);
    return takes;
}

#endif
