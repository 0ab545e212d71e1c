/* Weights, vocabulary, rotary embeddings, windows, the types and layout of the cache, the formulas
 * of the engine. Any one thread. */
#include "daemon/kv/kv_family.h"

#include <string.h>

#include "base/check.h"
#include "base/hash.h"

/* Grows when where something lies in a block changes (engine/kv_block.h). */
enum { KV_LAYOUT_VERSION = 1, LANES = 4 };

/* Four independent chains of 64 bits, so that hashing keeps up with reading. Not against
 * adversaries: whoever writes the weights may as well write the cache. */
typedef struct lanes {
    uint64_t v[LANES];
} lanes;

static void feed(lanes *l, const void *p, size_t n) {
    const unsigned char *c = p;
    uint64_t w[LANES];
    for (; n >= sizeof w; n -= sizeof w, c += sizeof w) {
        memcpy(w, c, sizeof w);
        for (int i = 0; i < LANES; i++)
            l->v[i] = hash_mix(l->v[i] ^ w[i]) + 0x9e3779b97f4a7c15U;
    }
    const uint64_t rest = hash64(c, n, 1);
    for (int i = 0; i < LANES; i++) l->v[i] = hash_mix(l->v[i] ^ rest ^ (uint64_t)i << 60);
}

static void feed_text(lanes *l, const char *s) {
    feed(l, s, strlen(s) + 1);
}

static void feed_member(void *l, const void *value, size_t bytes) {
    feed(l, value, bytes);
}

/* Of the model: all that decides how its weights are used. */
static void feed_config(lanes *l, const machine *m) {
    const program *p = &m->model->program;
    feed_text(l, p->config.arch);
    model_config_visit(&p->config, feed_member, l);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        if (!op_appends(&p->ops[i])) continue;
        const weight_id w = program_rope_factors(p, &p->ops[i], m->opt.max_model_len);
        feed(l, &w, sizeof w);
    }
}

static void feed_format(lanes *l, const machine *m, const kv_shape *s) {
    const uint32_t n[] = {KV_FILE_VERSION,
                          KV_LAYOUT_VERSION,
                          (uint32_t)m->engine_opt.kv_k,
                          (uint32_t)m->engine_opt.kv_v,
                          m->opt.block_size,
                          s->tokens,
                          s->n_groups};
    engine_info info;
    engine_describe(m->engine, &info);
    feed_text(l, info.numerics);
    feed(l, n, sizeof n);
    feed(l, s->group_bytes, s->n_groups * sizeof *s->group_bytes);
}

static status feed_vocabulary(lanes *l, const checkpoint *file, err *e) {
    fact_array a = {0};
    status s = checkpoint_get_array(file, "tokenizer.ggml.tokens", FACT_STR, &a, e);
    for (uint64_t i = 0; s == OK && i < a.n; i++) {
        const str *t = (const str *)a.v + i;
        feed(l, t->ptr, t->len);
    }
    return s;
}

static status feed_tensor(lanes *l, const checkpoint *file, size_t i, void *buffer, size_t n,
                          err *e) {
    const tensor_info t = checkpoint_tensor(file, i);
    const uint64_t rows = t.ne[1] * t.ne[2] * t.ne[3];
    const uint32_t type = (uint32_t)t.type;
    uint64_t row = 0;
    feed_text(l, t.name);
    feed(l, &type, sizeof type);
    feed(l, t.ne, sizeof t.ne);
    if (!dtype_bytes(t.type, 1, t.ne[0], &row) || row > n)
        return err_set(e, ERR_IO, "a row of %s is too long to be hashed", t.name);
    for (uint64_t at = 0; row > 0 && at < rows;) {
        const uint64_t k = n / row < rows - at ? n / row : rows - at;
        status s = checkpoint_read_rows(file, i, at, k, buffer, e);
        if (s != OK) return s;
        feed(l, buffer, k * row);
        at += k;
    }
    return OK;
}

status kv_family(const machine *m, const kv_shape *shape, void *buffer, size_t n,
                 unsigned char out[KV_FILE_FAMILY], err *e) {
    lanes l = {{1, 2, 3, 4}};
    _Static_assert(sizeof l == KV_FILE_FAMILY, "all of it");
    feed_config(&l, m);
    feed_format(&l, m, shape);
    status s = feed_vocabulary(&l, m->file, e);
    for (size_t i = 0; s == OK && i < checkpoint_n_tensors(m->file); i++)
        s = feed_tensor(&l, m->file, i, buffer, n, e);
    for (int round = 0; round < 2; round++) /* each lane depends on all */
        for (int i = 0; i < LANES; i++)
            l.v[i] = hash_mix(l.v[i] ^ l.v[(i + 1) % LANES] ^ l.v[(i + 3) % LANES]);
    memcpy(out, l.v, sizeof l.v);
    return s;
}
