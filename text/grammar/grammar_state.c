/* Positions in a grammar: sets of (state, stack). One thread at a time for each position. */
#include "text/grammar/grammar_in.h"

#include "base/check.h"

/* True: it was there, and lost its taint. */
static bool put(conf_set *s, conf c) {
    for (uint32_t i = 0; i < s->n; i++)
        if (s->c[i].state == c.state && s->c[i].parent == c.parent) {
            if (!s->c[i].tainted || c.tainted) return false;
            s->c[i].tainted = false;
            return true;
        }
    if (s->n < STATE_MAX_CONFS)
        s->c[s->n++] = c;
    else
        s->behind = BEHIND_ANY; /* a known stack never gets here: grammar_check_paths */
    return false;
}

/* A node of the stack, found or new, so that equal stacks are one. 0: there is no place. */
static uint16_t push(stacks *k, uint16_t ret, uint16_t parent) {
    for (uint32_t i = k->n; i-- > STACK_FIRST;)
        if (k->node[i].ret == ret && k->node[i].parent == parent) return (uint16_t)i;
    uint16_t depth = parent < STACK_FIRST ? 1 : (uint16_t)(k->node[parent].depth + 1);
    if (k->n == k->cap || depth > GRAMMAR_MAX_DEPTH) return 0;
    k->node[k->n] = (stack_node){ret, parent, depth};
    return (uint16_t)k->n++;
}

static bool close_one(stacks *k, conf_set *s, conf c) {
    const grammar *g = k->g;
    bool cleared = false;
    const grammar_node *q = &g->node[c.state];
    if (q->final && c.parent >= STACK_FIRST)
        cleared |= put(s, (conf){k->node[c.parent].ret, k->node[c.parent].parent, c.tainted});
    if (q->final && c.parent == STACK_UNKNOWN) {
        const grammar_rule *r = &g->rule[q->rule];
        const uint16_t one = (uint16_t)(q->rule + 1);
        if (r->n_sites > UNKNOWN_SITES)
            s->behind = s->behind == BEHIND_NONE || s->behind == one ? one : BEHIND_ANY;
        for (uint32_t i = 0; r->n_sites <= UNKNOWN_SITES && i < r->n_sites; i++)
            put(s, (conf){g->site[r->first_site + i], STACK_UNKNOWN, true});
    }
    for (uint32_t i = q->first_call; i < q[1].first_call; i++) {
        const grammar_call *call = &g->call[i];
        uint16_t parent = c.parent;
        /* A call at the very end returns to where its caller does. Not into the unknown, which
         * depends on who returns. */
        if (!g->node[call->to].tail || parent == STACK_UNKNOWN)
            parent = push(k, call->to, c.parent);
        if (parent || g->node[call->to].tail)
            cleared |= put(s, (conf){call->start, parent, c.tainted});
    }
    return cleared;
}

void conf_close(stacks *k, conf_set *s) {
    /* Where a conf lost its taint behind the loop, what it led to is to lose it, too. */
    for (bool again = true; again;) {
        again = false;
        for (uint32_t i = 0; i < s->n; i++)
            if (k->g->node[s->c[i].state].busy) again |= close_one(k, s, s->c[i]);
    }
}

void conf_step(stacks *k, const conf_set *a, uint8_t byte, conf_set *out) {
    const grammar *g = k->g;
    bool busy = false;
    out->n = 0;
    out->behind = a->behind;
    if (a->behind != BEHIND_NONE && a->behind != BEHIND_ANY) {
        const uint32_t c = g->class_of[byte];
        const bool may = g->follow[a->behind - 1][c / 64] >> c % 64 & 1;
        out->behind = may ? BEHIND_ANY : BEHIND_NONE;
    }
    for (uint32_t i = 0; i < a->n; i++) {
        uint32_t to = grammar_next(g, a->c[i].state, byte);
        if (!to) continue;
        busy |= g->node[to].busy;
        if (a->n == 1)
            out->c[out->n++] = (conf){(uint16_t)to, a->c[0].parent, a->c[0].tainted};
        else
            put(out, (conf){(uint16_t)to, a->c[i].parent, a->c[i].tainted});
    }
    if (busy) conf_close(k, out);
}

/* ---- the state of a sequence ---- */

size_t grammar_state_bytes(const grammar *g) {
    (void)g;
    return sizeof(grammar_state);
}

static stacks stacks_of(const grammar *g, grammar_state *s) {
    return (stacks){g, s->node, s->n_nodes, STATE_MAX_NODES};
}

static void load(const grammar_state *s, conf_set *set) {
    set->n = s->n;
    set->behind = BEHIND_NONE;
    memcpy(set->c, s->c, s->n * sizeof *s->c);
}

static void mark(const grammar_state *s, bool *used, uint16_t at) {
    for (; at >= STACK_FIRST && !used[at]; at = s->node[at].parent) used[at] = true;
}

/* Nodes that no conf refers to go. A parent stands before its children. */
static void compact(grammar_state *s) {
    bool used[STATE_MAX_NODES] = {0};
    uint16_t to[STATE_MAX_NODES], n = STACK_FIRST;
    to[STACK_END] = STACK_END;
    for (uint32_t i = 0; i < s->n; i++) mark(s, used, s->c[i].parent);
    for (uint16_t i = STACK_FIRST; i < s->n_nodes; i++) {
        if (!used[i]) continue;
        stack_node node = s->node[i];
        node.parent = to[node.parent];
        s->node[n] = node;
        to[i] = n++;
    }
    for (uint32_t i = 0; i < s->n; i++) s->c[i].parent = to[s->c[i].parent];
    s->n_nodes = n;
}

static void store(grammar_state *s, const stacks *k, const conf_set *set) {
    s->n_nodes = (uint16_t)k->n;
    s->n = (uint16_t)set->n;
    memcpy(s->c, set->c, set->n * sizeof *s->c);
    if (s->n_nodes > STATE_MAX_NODES / 4) compact(s);
}

void grammar_start(const grammar *g, grammar_state *s) {
    memset(s, 0, sizeof *s);
    s->n_nodes = STACK_FIRST;
    conf_set set = {.n = 1, .c = {{.state = (uint16_t)g->start, .parent = STACK_END}}};
    stacks k = stacks_of(g, s);
    conf_close(&k, &set);
    store(s, &k, &set);
}

static void follow_bytes(grammar_state *s, stacks *k, str bytes, conf_set *set) {
    conf_set next;
    for (size_t i = 0; i < bytes.len && set->n; i++) {
        conf_step(k, set, (uint8_t)bytes.ptr[i], &next);
        *set = next;
        if (k->n > STATE_MAX_NODES - STATE_MAX_CONFS) { /* a long token that nests deeply */
            store(s, k, set);
            load(s, set);
            k->n = s->n_nodes;
        }
    }
}

bool grammar_take_bytes(const grammar *g, grammar_state *s, str bytes) {
    conf_set set;
    stacks k = stacks_of(g, s);
    load(s, &set);
    follow_bytes(s, &k, bytes, &set);
    store(s, &k, &set);
    return s->n > 0;
}

/* Adds where a token leads as a symbol; as `other` where no state names it. */
static void follow_symbol(const grammar *g, const conf_set *set, int32_t token, bool other,
                          conf_set *out) {
    for (uint32_t i = 0; i < set->n; i++) {
        const grammar_node *q = &g->node[set->c[i].state];
        uint16_t to = 0;
        for (uint32_t e = q->first_symbol; e < q[1].first_symbol; e++) {
            const grammar_symbol *sym = &g->symbol[e];
            if (sym->token != token && !(other && sym->token == RULE_OTHER_TOKEN)) continue;
            to = sym->to;
            if (sym->token == token) break;
        }
        if (to) put(out, (conf){to, set->c[i].parent, false});
    }
}

/* A token has ended: where that is counted the position goes on. */
static void end_token(stacks *k, conf_set *set) {
    const grammar *g = k->g;
    conf_set out = {.behind = set->behind};
    bool any = false;
    for (uint32_t i = 0; i < set->n; i++) {
        const grammar_node *q = &g->node[set->c[i].state];
        conf c = set->c[i];
        for (uint32_t e = q->first_symbol; e < q[1].first_symbol; e++) {
            if (g->symbol[e].token != RULE_TOKEN_END) continue;
            c.state = g->symbol[e].to;
            any = true;
        }
        put(&out, c);
    }
    if (!any) return;
    conf_close(k, &out);
    *set = out;
}

bool grammar_take(const grammar *g, grammar_state *s, int32_t token) {
    conf_set set, marked = {0};
    stacks k = stacks_of(g, s);
    load(s, &set);
    follow_symbol(g, &set, token, vocab_is_silent(g->index, (uint32_t)token), &marked);
    if (marked.n) { /* a token that the grammar names is that symbol, whatever its bytes */
        conf_close(&k, &marked);
        set = marked;
    } else {
        str bytes = vocab_token(g->index, (uint32_t)token);
        if (bytes.len)
            follow_bytes(s, &k, bytes, &set);
        else
            set.n = 0;
    }
    if (g->token_ends) end_token(&k, &set);
    store(s, &k, &set);
    return s->n > 0;
}

bool grammar_accepts_end(const grammar *g, const grammar_state *s) {
    for (uint32_t i = 0; i < s->n; i++)
        if (s->c[i].parent == STACK_END && g->node[s->c[i].state].final) return true;
    return false;
}

bool grammar_can_go_on(const grammar *g, const grammar_state *s) {
    for (uint32_t i = 0; i < s->n; i++) {
        const grammar_node *q = &g->node[s->c[i].state];
        if (q->any_byte || q->first_symbol < q[1].first_symbol) return true;
    }
    return false;
}
