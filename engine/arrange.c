/* Sizes, lives, terms of weights. Pure; any thread. */
#include "engine/arrange.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

status engine_option_bad(err *e, const char *option, uint32_t value, const char *wanted) {
    err_set(e, ERR_INVALID, "%s = %u: %s", option, value, wanted);
    return err_field(e, "%s", option);
}

status engine_options_check(const engine_options *o, uint32_t max_model_len, err *e) {
    char range[32];
    if (o->block_tokens < 8 || o->block_tokens > 256 ||
        (o->block_tokens & (o->block_tokens - 1)))
        return engine_option_bad(e, "block_size", o->block_tokens,
                                 "a power of two from 8 to 256");
    if (o->max_seqs < 1 || o->max_seqs > o->max_rows)
        return engine_option_bad(e, "max_num_seqs", o->max_seqs, "1 to max_num_batched_tokens");
    if (o->max_rows > 1u << 20)
        return engine_option_bad(e, "max_num_batched_tokens", o->max_rows, "at most 1048576");
    if (o->max_logit_rows < o->max_seqs || o->max_logit_rows > 1u << 20)
        return engine_option_bad(e, "max_logit_rows", o->max_logit_rows,
                                 "from max_num_seqs to 1048576");
    if (o->max_model_len >= 1 && o->max_model_len <= max_model_len) return OK;
    snprintf(range, sizeof range, "1 to %u", max_model_len);
    return engine_option_bad(e, "max_model_len", o->max_model_len, range);
}

uint64_t sizer_times(sizer *s, uint64_t a, uint64_t b) {
    uint64_t n = 0;
    if (!mul_u64(a, b, &n)) s->failed = true;
    return n;
}

uint64_t sizer_place(sizer *s, uint64_t bytes, uint64_t align) {
    uint64_t at = s->n, end = 0;
    if (bytes > UINT64_MAX - align || !add_u64(at, align_up(bytes, align), &end))
        s->failed = true;
    s->n = end;
    return at;
}

static void touch(life *lives, value_id v, uint32_t at) {
    if (v == NO_VALUE) return;
    if (lives[v].first_op == UINT32_MAX) lives[v].first_op = at;
    lives[v].last_op = at;
}

void lives_of_values(const program *p, life *out) {
    for (uint32_t i = 0; i < p->n_values; i++)
        out[i] = (life){.first_op = UINT32_MAX, .at = UINT64_MAX};
    for (uint32_t i = 0; i < p->n_ops; i++) {
        touch(out, p->ops[i].in, i);
        touch(out, p->ops[i].residual, i);
        touch(out, p->ops[i].by, i);
        touch(out, p->ops[i].out, i);
    }
}

uint64_t life_first_fit(const life *all, uint32_t n, const life *me) {
    uint64_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t i = 0; i < n; i++) {
            const life *x = &all[i];
            if (x == me || x->bytes == 0 || x->at == UINT64_MAX) continue;
            if (x->last_op < me->first_op || x->first_op > me->last_op) continue;
            if (at + me->bytes <= x->at || x->at + x->bytes <= at) continue;
            at = x->at + x->bytes;
            moved = true;
        }
    }
    return at;
}

/* "blk.7.ffn_gate.weight" of Q4_1 -> "blk.*.ffn_* Q4_1" */
static void group_name(const weight *w, const char *type, char out[72]) {
    const char *name = w->name;
    int n = 0;
    if (w->role == WEIGHT_ORDER) {
        snprintf(out, 72, "permutations");
        return;
    }
    if (sscanf(name, "blk.%*u.%n", &n) == 0 && n > 0) {
        const char *part = name + n;
        snprintf(out, 72, "blk.*.%.*s_* %s", (int)strcspn(part, "_."), part, type);
        return;
    }
    size_t len = strlen(name);
    if (len > 7 && strcmp(name + len - 7, ".weight") == 0) len -= 7;
    snprintf(out, 72, "%.*s %s", (int)(len < 56 ? len : 56), name, type);
}

void weight_term_add(terms *t, size_t first, const weight *w, const char *type,
                     uint64_t bytes) {
    char name[72];
    group_name(w, type, name);
    size_t k = first;
    while (k < t->n && strcmp(t->v[k].what, name) != 0) k++;
    if (k < t->n)
        t->v[k].bytes += bytes;
    else
        terms_add(t, MEM_WEIGHTS, TERM_EXACT, bytes, "%s", name);
}

void state_term_add(terms *t, const program *p, const engine_options *o) {
    const uint32_t n = engine_states(p, o);
    if (n)
        terms_add(t, MEM_STATE, TERM_EXACT, n * program_state_bytes(p),
                  "recurrent states of %u sequences, %u checkpoints", o->max_seqs,
                  n > o->max_seqs ? n - o->max_seqs : 0);
}

static status check_group(const kv_group *g, const engine_options *o, err *e) {
    const status s = kv_sizes_check(o->kv_k, o->kv_v, o->block_tokens, g->head_dim, e);
    return s == OK && g->latent ? kv_latent_check(o->kv_k, o->kv_v, g->head_dim, g->latent, e)
                                : s;
}

status kv_options_check(const program *p, const engine_options *o, const dtype *known, size_t n,
                        const char *engine, err *e) {
    status s = kv_types_check(o->kv_k, o->kv_v, known, n, engine, e);
    for (uint32_t g = 0; g < p->n_groups && s == OK; g++) s = check_group(&p->group[g], o, e);
    if (s != OK || !kv_has_tail(o->kv_k, o->kv_v) || 2 * p->n_groups <= PLAN_MAX_GROUPS)
        return s;
    err_set(
        e, ERR_UNSUPPORTED,
        "a KV cache of 4 bits keeps the newest %d tokens of each group of layers apart; this "
        "model has %u groups, and there is place for %d of both",
        KV_TAIL_TOKENS, p->n_groups, PLAN_MAX_GROUPS);
    err_hint(e, "use int8 or f16");
    return err_field(e, "%s",
                     o->kv_v != DT_INT4   ? "cache_type_k"
                     : o->kv_k != DT_INT4 ? "cache_type_v"
                                          : "kv_cache_dtype");
}

kv_groups kv_groups_of(const program *p, const engine_options *o) {
    kv_groups all = {.n = p->n_groups};
    memcpy(all.group, p->group, p->n_groups * sizeof *p->group);
    if (!kv_has_tail(o->kv_k, o->kv_v)) return all;
    CHECK(2 * p->n_groups <= PLAN_MAX_GROUPS);
    all.tail_at = p->n_groups;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        kv_group tail = p->group[g];
        if (!tail.window || tail.window > KV_TAIL_TOKENS) tail.window = KV_TAIL_TOKENS;
        all.group[all.n++] = tail;
    }
    return all;
}

void kv_formats_init(kv_format *out, kv_order order, const kv_groups *all,
                     const engine_options *o) {
    for (uint32_t g = 0; g < all->n; g++) {
        kv_type k = *kv_type_get(o->kv_k), v = *kv_type_get(o->kv_v);
        if (all->tail_at && g >= all->tail_at) k = kv_tail_type(&k), v = kv_tail_type(&v);
        kv_format_init(&out[g], order, &k, &v, o->block_tokens, all->group[g].n_kv_heads,
                       all->group[g].head_dim);
        if (all->group[g].latent) kv_format_drop_v(&out[g], all->group[g].latent);
    }
}

void kv_costs(kv_request *out, const kv_groups *all, uint32_t depth, const kv_format *f) {
    out->n_groups = all->n;
    out->depth = depth;
    out->block_tokens = all->n ? f->block_tokens : 0; /* none: the caller says */
    for (uint32_t g = 0; g < all->n; g++)
        out->group[g] = (kv_group_cost){
            .n_layers = all->group[g].n_layers,
            .window = all->group[g].window,
            .tail = all->tail_at && g >= all->tail_at,
            .bytes_per_token = kv_block_bytes(&f[g], all->group[g].n_layers) / f->block_tokens};
}
