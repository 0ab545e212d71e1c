/* The tiny models that the CUDA engine is tested on, opened by it and by the CPU engine. */
#ifndef VRAMD_TESTS_CUDA_ENGINE_MODELS_H
#define VRAMD_TESTS_CUDA_ENGINE_MODELS_H

#include "tests/cuda/f8_folder.h"
#include "tests/engine/engine_rig.h"
#include "tests/model/gguf_build.h"
#include "tests/model/gguf_hybrid.h"
#include "tests/model/gguf_shaped.h"

#include <math.h>

#include "engine/cuda/backend_cuda.h"
#include "tests/cushim/cushim_ctl.h"

/* ---- models ---- */

typedef struct kind {
    const char *arch;
    dtype type;
    uint32_t heads, kv_heads, head_dim, rope_dims, block_tokens;
    bool tied;
    activation_dtype activations;
    dtype kv;
    double limit; /* of the relative distance of logits from the CPU engine's in float32 */
    uint32_t n_layers;
    bool sinks;
    uint32_t n_experts; /* of a family that may have none */
} kind;

/* f16 keeps 11 bits and bf16 8; packed weights meet int8 activations in steps of few rows. */
static const kind kinds[] = {
    {"llama", DT_F16, 4, 2, 32, 32, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, 2, false, 0},
    {"qwen2", DT_BF16, 6, 2, 16, 16, 8, false, ACTIVATION_AUTO, DT_BF16, 4e-2, 2, false, 0},
    {"llama", DT_F32, 4, 1, 64, 32, 32, false, ACTIVATION_F16, DT_F16, 5e-3, 2, false, 0},
    {"qwen3", DT_F16, 4, 2, 32, 32, 16, false, ACTIVATION_AUTO, DT_F16, 5e-3, 2, false, 0},
    {"llama", DT_F16, 4, 2, 64, 64, 16, true, ACTIVATION_AUTO, DT_INT8, 2e-2, 2, false, 0},
    {"qwen3", DT_BF16, 4, 2, 32, 32, 32, false, ACTIVATION_AUTO, DT_FP8, 8e-2, 2, false, 0},
    {"llama", DT_F16, 4, 2, 64, 64, 16, true, ACTIVATION_AUTO, DT_INT4, 2e-2, 2, false, 0},
    {"llama", DT_Q8_0, 4, 4, 32, 32, 16, true, ACTIVATION_AUTO, DT_F16, 3e-2, 2, false, 0},
    {"qwen2", DT_Q4_0, 8, 2, 16, 16, 8, true, ACTIVATION_BF16, DT_F16, 5e-2, 2, false, 0},
    {"llama", DT_Q4_1, 2, 1, 128, 128, 64, false, ACTIVATION_F16, DT_BF16, 4e-2, 2, false, 0},
    /* Norms before and after, windows, caps; layers that are not rotated; a temperature; norms of
     * whole rows, and matrices that read the residual stream; four scales; sinks; heads of two
     * sizes and shared KV layers. */
    {"gemma3", DT_F16, 4, 1, 32, 32, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, 4, false, 0},
    {"gemma2", DT_BF16, 4, 2, 32, 32, 8, true, ACTIVATION_AUTO, DT_BF16, 4e-2, 4, false, 0},
    {"smollm3", DT_F16, 4, 2, 32, 32, 16, true, ACTIVATION_AUTO, DT_INT8, 2e-2, 4, false, 0},
    {"mistral3", DT_F16, 4, 2, 32, 32, 16, false, ACTIVATION_AUTO, DT_F16, 5e-3, 2, false, 0},
    {"olmo2", DT_F16, 4, 2, 32, 32, 16, false, ACTIVATION_AUTO, DT_F16, 5e-3, 4, false, 0},
    {"glm4", DT_Q4_0, 4, 2, 32, 16, 16, false, ACTIVATION_AUTO, DT_F16, 5e-2, 2, false, 0},
    {"granite", DT_Q8_0, 4, 2, 32, 32, 16, false, ACTIVATION_AUTO, DT_F16, 3e-2, 2, false, 0},
    {"gemma2", DT_F16, 4, 2, 64, 64, 16, true, ACTIVATION_AUTO, DT_INT8, 2e-2, 4, true, 0},
    {"gemma4", DT_F16, 0, 0, 0, 0, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, 0, false, 0},
    /* Mixtures; with an expert that all rows have; with biases, sinks and limits. */
    {"qwen3moe", DT_F16, 4, 2, 32, 32, 16, false, ACTIVATION_AUTO, DT_F16, 5e-3, 2, false, 0},
    {"qwen2moe", DT_BF16, 4, 2, 32, 32, 8, false, ACTIVATION_AUTO, DT_BF16, 4e-2, 2, false, 0},
    {"qwen2moe", DT_Q4_0, 4, 2, 32, 32, 16, false, ACTIVATION_F16, DT_F16, 5e-2, 2, false, 0},
    {"llama", DT_Q8_0, 4, 2, 32, 32, 16, false, ACTIVATION_F16, DT_INT8, 3e-2, 2, false, 5},
    {"gpt-oss", DT_F16, 4, 2, 32, 32, 16, false, ACTIVATION_AUTO, DT_F16, 5e-3, 2, true, 0},
    {"granitemoe", DT_Q8_0, 4, 2, 32, 32, 16, false, ACTIVATION_F16, DT_F16, 3e-2, 2, false, 0},
    {"gpt-oss", DT_Q4_1, 4, 2, 32, 32, 16, false, ACTIVATION_F16, DT_F16, 5e-2, 2, true, 0},
    {"gpt-oss", DT_MXFP4, 4, 2, 32, 32, 16, false, ACTIVATION_F16, DT_F16, 5e-2, 2, true, 0},
    /* Experts beside a dense part, with factors; a bias of the choice, and groups; heads of 512. */
    {"gemma4", DT_F16, 0, 0, 0, 0, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, 0, false, 6},
    {"glm4moe", DT_F16, 0, 0, 0, 0, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, 0, false, 8},
    {"gemma4", DT_BF16, 0, 0, 512, 0, 16, true, ACTIVATION_AUTO, DT_BF16, 4e-2, 0, false, 0},
    /* Short convolutions between the layers of attention. */
    {"lfm2", DT_F16, 0, 0, 0, 0, 16, true, ACTIVATION_AUTO, DT_F16, 5e-3, 0, false, 0},
    {"lfm2moe", DT_Q8_0, 0, 0, 0, 0, 16, true, ACTIVATION_F16, DT_F16, 3e-2, 0, false, 0},
    /* A delta net, dense and with experts; Mamba-2 with attention and experts. */
    {"qwen35", DT_F16, 0, 0, 0, 0, 16, true, ACTIVATION_AUTO, DT_F16, 8e-3, 0, false, 0},
    {"qwen35moe", DT_Q8_0, 0, 0, 0, 0, 16, true, ACTIVATION_F16, DT_F16, 4e-2, 0, false, 0},
    {"granitehybrid", DT_F16, 0, 0, 0, 0, 16, true, ACTIVATION_AUTO, DT_F16, 8e-3, 0, false, 0},
    /* Types of which a block is 256 inputs, and those with a book. */
    {"llama", DT_Q6_K, 4, 2, 64, 64, 16, true, ACTIVATION_AUTO, DT_F16, 3e-2, 2, false, 0},
    {"llama", DT_Q3_K, 4, 2, 64, 64, 16, false, ACTIVATION_F16, DT_F16, 5e-2, 2, false, 0},
    {"llama", DT_Q2_K, 4, 2, 64, 64, 16, false, ACTIVATION_F16, DT_F16, 8e-2, 2, false, 0},
    {"llama", DT_Q5_K, 4, 2, 64, 64, 16, false, ACTIVATION_F16, DT_F16, 3e-2, 2, false, 0},
    {"llama", DT_IQ4_XS, 4, 2, 64, 64, 16, false, ACTIVATION_F16, DT_F16, 5e-2, 2, false, 0},
    {"llama", DT_Q5_0, 4, 2, 32, 32, 16, true, ACTIVATION_AUTO, DT_F16, 3e-2, 2, false, 0},
    /* Published FP8: a scale for each output, and for blocks, of which some inputs share 32. */
    {"llama", F8_ROWS, 4, 2, 32, 32, 16, false, ACTIVATION_F16, DT_F16, 5e-3, 2, false, 0},
    {"llama", F8_BLOCKS, 4, 2, 64, 64, 16, false, ACTIVATION_AUTO, DT_F16, 4e-2, 2, false, 0},
};
enum {
    N_KINDS = sizeof kinds / sizeof *kinds,
    FIRST_PACKED = 7,
    N_PACKED = 3,
    N_TOKENS = 45,
    CUT = 29
};

static RIG_UNUSED void tiny_open(gb *b, char path[64], const kind *k) {
    gb_init(b);
    if (gb_is_hybrid(k->arch)) {
        model_config c = gb_hybrid_config(k->arch, 128);
        if (strcmp(k->arch, "granitehybrid") == 0) c.shape.ssm.groups = 1; /* as published */
        gb_hybrid_keys(b, &c);
        gb_hybrid_tensors(b, &c, k->type, 7);
        gb_open(b, path);
        return;
    }
    if (k->n_layers == 0) { /* of a family with layers of several kinds */
        model_config c = gb_shaped_config(k->arch, 128, 24);
        if (!k->n_experts && c.n_experts)
            c.n_experts = c.n_experts_used = c.shape.n_ff_expert = 0;
        if (k->head_dim) c.shape.full_head_dim = c.rope.n_dims = k->head_dim;
        gb_shaped_keys(b, &c);
        gb_shaped_tensors(b, &c, k->type, 7);
        gb_open(b, path);
        return;
    }
    model_config c = gb_tiny(k->arch);
    c.n_layers = k->n_layers, c.sinks = k->sinks;
    if (k->n_experts) c.n_experts = k->n_experts, c.n_experts_used = 2, c.n_ff = 64;
    c.n_heads = k->heads, c.n_kv_heads = k->kv_heads, c.head_dim = k->head_dim;
    c.rope.n_dims = k->rope_dims;
    c.tied_head = k->tied;
    if (dtype_kind(k->type) == DT_F8) {
        if (dtype_group(k->type)) c.n_embd = 256, c.n_ff = 160;
        f8_open(&c, k->type, path);
        return;
    }
    if (dtype_get(k->type)->block_elems == 256) c.n_embd = c.n_ff = 256;
    gb_model_keys(b, &c);
    gb_model_tensors(b, &c, k->type, 7);
    gb_open(b, path);
}

static RIG_UNUSED engine_options tiny_options(const kind *k) {
    engine_options o = rig_options();
    o.max_rows = 48;
    o.max_seqs = 12;
    o.max_logit_rows = 48;
    o.max_model_len = 128;
    o.block_tokens = k->block_tokens;
    for (int g = 0; g < PLAN_MAX_GROUPS; g++) o.n_blocks[g] = 48 * 16 / k->block_tokens;
    o.kv_k = o.kv_v = k->kv;
    o.activations = k->activations;
    o.n_threads = 1;
    return o;
}

static void cuda_open(rig *r, const char *path, const engine_options *o) {
    rig_open_on(r, &backend_cuda, path, o);
}

static RIG_UNUSED void cpu_open(rig *r, const char *path, const engine_options *o) {
    engine_options c = *o;
    c.activations = ACTIVATION_F32;
    c.kv_k = c.kv_v = DT_F32;
    rig_open(r, path, &c);
}

static RIG_UNUSED double distance(const float *a, const float *want, size_t n) {
    double diff = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - want[i];
        diff += d * d, all += (double)want[i] * want[i];
    }
    return sqrt(diff / all);
}

static uint32_t blocks_of(const rig *r) {
    return (uint32_t)ceil_div(N_TOKENS + 16, r->opt.block_tokens);
}

/* Logits of all positions of one sequence, in chunks beside another one; the last five by steps
 * of one row. out: [N_TOKENS][n_vocab]. */
static RIG_UNUSED void logits_of(rig *r, const int32_t *tokens, float *out) {
    int32_t other[N_TOKENS], table[2][32];
    const size_t V = r->n_vocab;
    rig_tokens(r, other, N_TOKENS, 99);
    for (uint32_t i = 0; i < 2; i++) rig_table(r, table[i], i, blocks_of(r), 1);
    for (uint32_t at = 0, step = 0; at < N_TOKENS; step++) {
        uint32_t n = 1;
        if (at == 0)
            n = CUT;
        else if (at == CUT)
            n = N_TOKENS - 5 - CUT;
        /* The other one prefills 3 tokens, then decodes beside the prefill of this one. */
        const part beside = {.tokens = other,
                             .table = table[1],
                             .first = step ? 2 + step : 0,
                             .n = step ? 1 : 3,
                             .n_logits = 1};
        const part own = {
            .tokens = tokens, .table = table[0], .first = at, .n = n, .n_logits = n};
        step_result s = rig_run(r, (part[]){beside, own}, 2);
        memcpy(out + at * V, s.logits + V, sizeof(float) * n * V);
        at += n;
    }
}

/* Opens on ledgers limited by the plan; false when the engine could not be opened. */
static RIG_UNUSED bool open_planned(const char *path, const engine_options *given, bool check,
                                    err *e) {
    engine_options own = *given, *o = &own;
    checkpoint *file;
    model *m;
    ledger *host, *device;
    engine *eng = NULL;
    terms t = {0}, on_device = {0};
    kv_request kv = {0}, none = {.block_tokens = o->block_tokens};
    plan p = {0}, h = {0};
    ledger_view v;
    budget all = {.bytes = UINT64_MAX / 2, .source = "a test", .automatic = true};
    ck_assert_msg(checkpoint_open(&file, path, e) == OK, "%s", e->text);
    ck_assert_msg(model_open(&m, file, e) == OK, "%s", e->text);
    ck_assert_msg(backend_cuda.terms(&m->program, o, &t, &kv, e) == OK, "%s", e->text);
    terms_split(&t, &on_device);
    kv.min_tokens = kv.max_tokens = kv.want_tokens = (uint64_t)o->n_blocks[0] * o->block_tokens;
    kv.max_rows = o->max_rows, kv.max_seqs = o->max_seqs;
    ck_assert_msg(plan_solve(&p, &on_device, &kv, &all, e) == OK, "%s", e->text);
    memcpy(o->n_blocks, p.group_blocks, sizeof p.group_blocks);
    ck_assert_msg(plan_solve(&h, &t, &none, &all, e) == OK, "%s", e->text);
    ck_assert(ledger_open(&host, &h, e) == OK && ledger_open(&device, &p, e) == OK);
    const bool ok = engine_open(&eng, &backend_cuda, m, o, host, device, e) == OK;
    for (int c = 0; c < MEM_N_CLASSES && ok && check; c++) {
        ledger_read(device, &v);
        ck_assert_msg(v.cls[c].ledger_bytes == terms_sum(&p.terms, (mem_class)c),
                      "class %s of the device", mem_class_name((mem_class)c));
        ledger_read(host, &v);
        ck_assert_msg(v.cls[c].ledger_bytes == terms_sum(&h.terms, (mem_class)c),
                      "class %s of the host", mem_class_name((mem_class)c));
    }
    if (ok && check) { /* the arena is all that is on the device, and all that is planned */
        ledger_read(device, &v);
        const cushim_counts n = cushim_count();
        ck_assert_int_eq(n.allocations, 1);
        ck_assert_uint_eq(n.bytes, v.ledger_bytes - v.cls[MEM_CONTEXT].ledger_bytes);
    }
    engine_close(eng);
    ledger_close(host); /* CHECKs that nothing is left */
    ledger_close(device);
    plan_clear(&p);
    plan_clear(&h);
    terms_clear(&t);
    terms_clear(&on_device);
    model_close(m);
    checkpoint_close(file);
    return ok;
}

#endif
