/* The numbers that define a model: checked, counted. Owns nothing; any thread. */
#include "model/config.h"

#include <math.h>
#include <string.h>

void model_config_init(model_config *c) {
    *c = (model_config){
        .norm_eps = 1e-5f,
        .norms_per_layer = 2,
        .experts_scale = 1,
        .embd_scale = 1,
        .residual_scale = 1,
        .logit_scale = 1,
        .rope = {.theta = 10000, .factor = 1, .beta_fast = 32, .beta_slow = 1},
    };
}

/* ---- ranges ---- */

static status out_of_range(err *e, const char *field, double found, double min, double max) {
    err_set(e, ERR_FORMAT, "%s is %.9g; it must be from %.9g to %.9g", field, found, min, max);
    return err_field(e, "%s", field);
}

/* min itself is not allowed. */
static status not_above(err *e, const char *field, double found, double min, double max) {
    err_set(e, ERR_FORMAT, "%s is %.9g; it must be above %.9g and at most %.9g", field, found,
            min, max);
    return err_field(e, "%s", field);
}

static status check_heads(const model_config *c, err *e) {
    if (c->n_heads % c->n_kv_heads != 0) {
        err_set(e, ERR_FORMAT, "%u query heads are not a multiple of %u KV heads", c->n_heads,
                c->n_kv_heads);
        return err_field(e, "n_kv_heads");
    }
    if (c->rope.n_dims > (c->shape.full_head_dim ? c->shape.full_head_dim : c->head_dim) ||
        c->rope.n_dims % 2 != 0) {
        err_set(e, ERR_FORMAT,
                "%u rotated dimensions of a head of %u: want an even number, not "
                "more than the head has",
                c->rope.n_dims, c->head_dim);
        return err_field(e, "rope.n_dims");
    }
    if (c->n_experts_used > c->n_experts || (c->n_experts && !c->n_experts_used)) {
        err_set(e, ERR_FORMAT, "%u experts used of %u", c->n_experts_used, c->n_experts);
        return err_field(e, "n_experts_used");
    }
    return OK;
}

/* Groups have at least two members, since by sigmoids the sum of the two best counts. */
static status check_groups(const model_config *c, err *e) {
    const uint32_t n = c->expert_groups, used = c->expert_groups_used;
    if (n == 0) return OK;
    if (c->n_experts % n || c->n_experts / n < 2 || used < 1 || used > n ||
        c->n_experts / n * used < c->n_experts_used) {
        err_set(e, ERR_FORMAT, "%u of %u experts cannot be of %u of %u groups",
                c->n_experts_used, c->n_experts, used, n);
        return err_field(e, "expert_groups");
    }
    return OK;
}

/* Whether the layers of several kinds have the numbers that they need. */
static status check_shape(const model_config *c, err *e) {
    const model_shape *m = &c->shape;
    bool conv = false, state = false;
    for (uint32_t l = 0; l < c->n_layers && l < SHAPE_MAX_LAYERS; l++) {
        const mixer_kind kind = (mixer_kind)m->mixer[l];
        conv |= kind == MIXER_CONV || kind == MIXER_DELTA || kind == MIXER_SSM;
        state |= kind == MIXER_DELTA || kind == MIXER_SSM;
    }
    const struct {
        const char *field;
        uint32_t v, min, max;
    } range[] = {{"ssm.conv", m->ssm.conv, conv ? 1 : 0, 4096},
                 {"ssm.state", m->ssm.state, state ? 1 : 0, 4096},
                 {"ssm.groups", m->ssm.groups, state ? 1 : 0, 4096},
                 {"ssm.heads", m->ssm.heads, state ? 1 : 0, 1 << 14},
                 {"ssm.inner", m->ssm.inner, state ? 1 : 0, 1 << 20},
                 {"n_ff_expert", m->n_ff_expert, 0, 1 << 20},
                 {"latent", m->latent, 0, 1 << 18},
                 {"q_rank", m->q_rank, 0, 1 << 16},
                 {"kv_rank", m->kv_rank, strcmp(c->arch, "deepseek2") == 0 ? 2 : 0, 1 << 13},
                 {"rope_dim", m->rope_dim, 0, c->head_dim - 1},
                 {"v_dim", m->v_dim, m->kv_rank ? 1 : 0, 1 << 14},
                 {"full_head_dim", m->full_head_dim, 0, 1 << 14},
                 {"full_kv_heads", m->full_kv_heads, 0, 1 << 14},
                 {"shared_kv", m->shared_kv, 0, c->n_layers - 1},
                 {"per_layer", m->per_layer, 0, 1 << 14},
                 {"per_layer_vocab", m->per_layer_vocab, 0, 1 << 24},
                 {"token_types", m->token_types, 0, 1 << 16},
                 {"n_labels", m->n_labels, 0, 1 << 16}};
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (range[i].v < range[i].min || range[i].v > range[i].max)
            return out_of_range(e, range[i].field, range[i].v, range[i].min, range[i].max);
    if (m->kv_rank % 2 || m->kv_rank + m->rope_dim > 1 << 14) {
        err_set(
            e, ERR_FORMAT,
            "a latent of %u with %u rotated dimensions: want an even number, together up to %d",
            m->kv_rank, m->rope_dim, 1 << 14);
        return err_field(e, "kv_rank");
    }
    if (state && (m->ssm.inner % m->ssm.heads || m->ssm.inner % m->ssm.groups ||
                  m->ssm.heads % m->ssm.groups)) {
        err_set(e, ERR_FORMAT, "states of %u in %u heads and %u groups do not divide",
                m->ssm.inner, m->ssm.heads, m->ssm.groups);
        return err_field(e, "ssm.heads");
    }
    return OK;
}

static status check_rope(const rope_config *r, err *e) {
    /* Written so that NaN fails. */
    if (!(r->theta >= 1 && r->theta <= 1e12f))
        return out_of_range(e, "rope.theta", r->theta, 1, 1e12);
    if (r->scaling == ROPE_SCALING_NONE) return OK;
    if (!(r->factor >= 1e-3f && r->factor <= 1e4f))
        return out_of_range(e, "rope.factor", r->factor, 1e-3, 1e4);
    if (r->scaling == ROPE_SCALING_LINEAR) return OK;
    if (r->original_len < 1 || r->original_len > 1u << 30)
        return out_of_range(e, "rope.original_len", r->original_len, 1, 1u << 30);
    if (r->scaling == ROPE_SCALING_LONGROPE && !(r->attn_factor > 0 && r->attn_factor <= 100))
        return not_above(e, "rope.attn_factor", r->attn_factor, 0, 100);
    if (r->scaling == ROPE_SCALING_LONGROPE) return OK;
    if (r->scaling == ROPE_SCALING_LLAMA3) {
        if (!(r->low_freq_factor > 0 && r->low_freq_factor <= 1e4f))
            return not_above(e, "rope.low_freq_factor", r->low_freq_factor, 0, 1e4);
        if (!(r->high_freq_factor > r->low_freq_factor && r->high_freq_factor <= 1e4f))
            return not_above(e, "rope.high_freq_factor", r->high_freq_factor,
                             r->low_freq_factor, 1e4);
        return OK;
    }
    if (!(r->attn_factor >= 0 && r->attn_factor <= 100))
        return out_of_range(e, "rope.attn_factor", r->attn_factor, 0, 100);
    if (!(r->beta_slow > 0 && r->beta_slow <= 1e6f))
        return not_above(e, "rope.beta_slow", r->beta_slow, 0, 1e6);
    if (!(r->beta_fast > r->beta_slow && r->beta_fast <= 1e6f))
        return not_above(e, "rope.beta_fast", r->beta_fast, r->beta_slow, 1e6);
    return OK;
}

/* What families scale or cap by. A cap is 0 or within the range. */
static status check_scales(const model_config *c, err *e) {
    const struct {
        const char *field;
        float v, min, max;
        bool or_none;
    } range[] = {
        {"attn_scale", c->attn_scale, 0, 1e3f, false},
        {"attn_cap", c->attn_cap, 1e-3f, 1e6f, true},
        {"logit_cap", c->logit_cap, 1e-3f, 1e6f, true},
        {"temperature", c->temperature, 0, 100, false},
        {"embd_scale", c->embd_scale, 1e-6f, 1e6f, false},
        {"residual_scale", c->residual_scale, 1e-3f, 1e3f, false},
        {"logit_scale", c->logit_scale, 1e-6f, 1e6f, false},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
        if (range[i].or_none && range[i].v == 0) continue;
        if (!(range[i].v >= range[i].min && range[i].v <= range[i].max)) /* NaN, too */
            return out_of_range(e, range[i].field, range[i].v, range[i].min, range[i].max);
    }
    if (c->temperature > 0 && c->rope.original_len == 0)
        return out_of_range(e, "rope.original_len", 0, 1, 1u << 30);
    return OK;
}

status model_config_check(const model_config *c, err *e) {
    const struct {
        const char *field;
        uint32_t v, min, max;
    } range[] = {
        {"n_layers", c->n_layers, 1, MODEL_MAX_LAYERS},
        {"n_embd", c->n_embd, 1, 1 << 18},
        {"n_heads", c->n_heads, 1, 1 << 14},
        {"n_kv_heads", c->n_kv_heads, 1, 1 << 14},
        {"head_dim", c->head_dim, 2, 1 << 14},
        {"n_ff", c->n_ff, 1, 1 << 20},
        {"n_vocab", c->n_vocab, 1, 1 << 24},
        {"n_ctx_train", c->n_ctx_train, 1, 1u << 30},
        {"rope.n_dims", c->rope.n_dims, 0, 1 << 14},
        {"n_experts", c->n_experts, 0, 1024},
        {"n_ff_shared", c->n_ff_shared, 0, 1 << 20},
        {"norms_per_layer", c->norms_per_layer, 1, 4},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (range[i].v < range[i].min || range[i].v > range[i].max)
            return out_of_range(e, range[i].field, range[i].v, range[i].min, range[i].max);
    if (!(c->norm_eps > 0 && c->norm_eps <= 0.1f))
        return not_above(e, "norm_eps", c->norm_eps, 0, 0.1);
    if (!(c->experts_scale > 0 && c->experts_scale <= 1e3f))
        return not_above(e, "experts_scale", c->experts_scale, 0, 1e3);
    if (c->window_theta != 0 && !(c->window_theta >= 1 && c->window_theta <= 1e12f))
        return out_of_range(e, "window_theta", c->window_theta, 1, 1e12);
    /* A row of q | k | v stays far inside 32 bits. */
    if ((uint64_t)c->n_heads * c->head_dim > 1 << 24)
        return out_of_range(e, "head_dim", c->head_dim, 2, (1 << 24) / c->n_heads);
    status s = check_heads(c, e);
    if (s == OK) s = check_groups(c, e);
    if (s == OK) s = check_shape(c, e);
    if (s == OK) s = check_rope(&c->rope, e);
    return s == OK ? check_scales(c, e) : s;
}

float yarn_amplitude(float factor, float m) {
    return factor > 1 ? 0.1f * m * logf(factor) + 1 : 1;
}

void model_config_scale_latent(model_config *c, float mscale_all_dim) {
    const bool yarn = c->rope.scaling == ROPE_SCALING_YARN;
    const float m = yarn ? yarn_amplitude(c->rope.factor, mscale_all_dim) : 1;
    c->attn_scale = m * m / sqrtf((float)c->head_dim);
}

uint32_t model_config_window(const model_config *c, uint32_t layer) {
    const bool full = c->shape.listed ? !c->shape.slides[layer % SHAPE_MAX_LAYERS]
                                      : c->window_every && (layer + 1) % c->window_every == 0;
    return full || c->window >= c->n_ctx_train ? 0 : c->window;
}

rope_config model_config_rope(const model_config *c, uint32_t layer) {
    rope_config r = c->rope;
    if (c->nope_every && (layer + 1) % c->nope_every == 0) r.n_dims = 0;
    if (c->window_theta == 0 || model_config_window(c, layer) == 0) return r;
    r.theta = c->window_theta;
    if (c->shape.full_head_dim)
        r.n_dims = c->head_dim; /* the heads with a window have another size */
    r.n_live = 0;
    r.scaling = ROPE_SCALING_NONE;
    r.factor = 1;
    return r;
}

/* X(member): all but the names, the rotary embedding and the shape. */
#define CONFIG_MEMBERS(X)                                                                      \
    X(n_layers)                                                                                \
    X(n_embd)                                                                                  \
    X(n_heads)                                                                                 \
    X(n_kv_heads)                                                                              \
    X(head_dim)                                                                                \
    X(n_ff)                                                                                    \
    X(n_vocab)                                                                                 \
    X(n_ctx_train)                                                                             \
    X(window)                                                                                  \
    X(n_experts)                                                                               \
    X(n_experts_used)                                                                          \
    X(n_ff_shared)                                                                             \
    X(experts_sigmoid)                                                                         \
    X(experts_norm)                                                                            \
    X(experts_scale)                                                                           \
    X(experts_eps)                                                                             \
    X(expert_groups)                                                                           \
    X(expert_groups_used)                                                                      \
    X(norm_eps)                                                                                \
    X(tied_head)                                                                               \
    X(bidirectional)                                                                           \
    X(qkv_bias)                                                                                \
    X(o_bias)                                                                                  \
    X(ffn_bias)                                                                                \
    X(router_bias)                                                                             \
    X(sinks)                                                                                   \
    X(qk_norm)                                                                                 \
    X(qk_norm_whole)                                                                           \
    X(norms_per_layer)                                                                         \
    X(window_every)                                                                            \
    X(window_theta)                                                                            \
    X(nope_every)                                                                              \
    X(attn_scale)                                                                              \
    X(attn_cap)                                                                                \
    X(logit_cap)                                                                               \
    X(temperature)                                                                             \
    X(embd_scale)                                                                              \
    X(residual_scale)                                                                          \
    X(logit_scale)                                                                             \
    X(dt_min)                                                                                  \
    X(dt_max)                                                                                  \
    X(pooling_type)
#define ROPE_MEMBERS(X)                                                                        \
    X(pairing)                                                                                 \
    X(n_dims)                                                                                  \
    X(n_live)                                                                                  \
    X(theta)                                                                                   \
    X(scaling)                                                                                 \
    X(factor)                                                                                  \
    X(original_len)                                                                            \
    X(exact_range)                                                                             \
    X(attn_factor)                                                                             \
    X(beta_fast)                                                                               \
    X(beta_slow)                                                                               \
    X(low_freq_factor)                                                                         \
    X(high_freq_factor)

void model_config_visit(const model_config *c,
                        void (*member)(void *, const void *value, size_t bytes), void *arg) {
#define X(m) member(arg, &c->m, sizeof c->m);
    CONFIG_MEMBERS(X)
#undef X
#define X(m) member(arg, &c->rope.m, sizeof c->rope.m);
    ROPE_MEMBERS(X)
#undef X
    member(arg, &c->shape, sizeof c->shape); /* without padding */
}

bool model_config_same(const model_config *a, const model_config *b) {
    bool same = strcmp(a->arch, b->arch) == 0;
#define X(m) same &= a->m == b->m;
    CONFIG_MEMBERS(X)
#undef X
#define X(m) same &= a->rope.m == b->rope.m;
    ROPE_MEMBERS(X)
#undef X
    return same && memcmp(&a->shape, &b->shape, sizeof a->shape) == 0;
}
