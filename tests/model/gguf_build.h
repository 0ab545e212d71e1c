/* Writes GGUF files in memory for tests: metadata, tensors, whole tiny models with random
 * weights. All functions are static; a failed allocation aborts the test. Use:
 *
 *     gb b;
 *     gb_init(&b);
 *     gb_str(&b, "general.architecture", "llama");
 *     gb_tensor(&b, "output.weight", DT_F32, 2, (uint64_t[]){64, 32}, data);    NULL: zeros
 *     char path[64];
 *     gb_open(&b, path);      "/proc/self/fd/N" of a memory file, for checkpoint_open
 *     ...
 *     gb_clear(&b);           closes it
 */
#ifndef VRAMD_TESTS_MODEL_GGUF_BUILD_H
#define VRAMD_TESTS_MODEL_GGUF_BUILD_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/half.h"
#include "base/hash.h"
#include "model/family.h"
#include "model/gguf/gguf.h"

#define GB_UNUSED __attribute__((unused))

typedef struct gb_bytes {
    unsigned char *p;
    size_t n, cap;
} gb_bytes;

typedef struct gb {
    gb_bytes kv, info, data, file;
    uint64_t n_kv, n_tensors, alignment;
    uint32_t version;
    int fd; /* of gb_open; -1 */
} gb;

static GB_UNUSED void gb_put(gb_bytes *b, const void *p, size_t n) {
    if (n == 0) return;
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2 + 256;
        b->p = realloc(b->p, b->cap);
        CHECK(b->p);
    }
    if (p)
        memcpy(b->p + b->n, p, n);
    else
        memset(b->p + b->n, 0, n);
    b->n += n;
}
static GB_UNUSED void gb_u32(gb_bytes *b, uint32_t v) {
    gb_put(b, &v, 4);
}
static GB_UNUSED void gb_u64(gb_bytes *b, uint64_t v) {
    gb_put(b, &v, 8);
}
static GB_UNUSED void gb_text(gb_bytes *b, str s) {
    gb_u64(b, s.len);
    gb_put(b, s.ptr, s.len);
}

static GB_UNUSED void gb_init(gb *b) {
    *b = (gb){.version = 3, .alignment = 32, .fd = -1};
}
static GB_UNUSED void gb_clear(gb *b) {
    free(b->kv.p), free(b->info.p), free(b->data.p), free(b->file.p);
    if (b->fd >= 0) close(b->fd);
    gb_init(b);
}

/* ---- metadata ---- */

/* Key, type and n bytes of value as they stand in the file. */
static GB_UNUSED void gb_raw(gb *b, const char *key, uint32_t type, const void *v, size_t n) {
    gb_text(&b->kv, str_of(key));
    gb_u32(&b->kv, type);
    gb_put(&b->kv, v, n);
    b->n_kv++;
}
static GB_UNUSED void gb_int(gb *b, const char *key, uint32_t v) {
    gb_raw(b, key, GGUF_U32, &v, 4);
}
static GB_UNUSED void gb_float(gb *b, const char *key, float v) {
    gb_raw(b, key, GGUF_F32, &v, 4);
}
static GB_UNUSED void gb_bool(gb *b, const char *key, bool v) {
    gb_raw(b, key, GGUF_BOOL, &(unsigned char){v}, 1);
}
static GB_UNUSED void gb_strn(gb *b, const char *key, str v) {
    gb_raw(b, key, GGUF_STRING, &(uint64_t){v.len}, 8);
    gb_put(&b->kv, v.ptr, v.len);
}
static GB_UNUSED void gb_str(gb *b, const char *key, const char *v) {
    gb_strn(b, key, str_of(v));
}
static GB_UNUSED void gb_array(gb *b, const char *key, uint32_t type, uint64_t n, const void *v,
                               size_t bytes) {
    gb_raw(b, key, GGUF_ARRAY, &type, 4);
    gb_u64(&b->kv, n);
    gb_put(&b->kv, v, bytes);
}
static GB_UNUSED void gb_ints(gb *b, const char *key, const int32_t *v, size_t n) {
    gb_array(b, key, GGUF_I32, n, v, n * 4);
}
static GB_UNUSED void gb_floats(gb *b, const char *key, const float *v, size_t n) {
    gb_array(b, key, GGUF_F32, n, v, n * 4);
}
static GB_UNUSED void gb_strs(gb *b, const char *key, const str *v, size_t n) {
    gb_array(b, key, GGUF_STRING, n, NULL, 0);
    for (size_t i = 0; i < n; i++) gb_text(&b->kv, v[i]);
}

/* ---- tensors ---- */

/* The table's entry alone: nothing is checked and no data is added, for hostile files. */
static GB_UNUSED void gb_tensor_info(gb *b, const char *name, uint32_t type, uint32_t n_dims,
                                     const uint64_t *ne, uint64_t offset) {
    gb_text(&b->info, str_of(name));
    gb_u32(&b->info, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) gb_u64(&b->info, ne[d]);
    gb_u32(&b->info, type);
    gb_u64(&b->info, offset);
    b->n_tensors++;
}
/* data: as stored; NULL: zeros. Returns where it stands in b->data (until the next call). */
static GB_UNUSED void *gb_tensor(gb *b, const char *name, dtype type, uint32_t n_dims,
                                 const uint64_t *ne, const void *data) {
    uint64_t rows = 1, bytes;
    for (uint32_t d = 1; d < n_dims; d++) rows *= ne[d];
    CHECK(dtype_bytes(type, rows, ne[0], &bytes));
    gb_put(&b->data, NULL, align_up(b->data.n, b->alignment) - b->data.n);
    size_t at = b->data.n;
    gb_tensor_info(b, name, type, n_dims, ne, at);
    gb_put(&b->data, data, bytes);
    return b->data.p + at;
}

/* One of -1 .. 1, by position. */
static GB_UNUSED float gb_random(uint64_t seed, uint64_t i) {
    return (float)(int32_t)(hash_mix(seed * 0x9e3779b97f4a7c15u + i) >> 32) * 0x1p-31f;
}

/* One block of a quantised type: random codes (and integer scales), binary16 scale and minimum
 * so that its numbers are about -scale .. scale. */
static GB_UNUSED void gb_fill_block(unsigned char *p, dtype type, uint64_t seed, float scale) {
    const uint32_t n = dtype_get(type)->block_bytes;
    const uint32_t at = type == DT_Q2_K    ? 80
                        : type == DT_Q3_K  ? 108
                        : type == DT_Q6_K  ? 208
                        : type == DT_TQ1_0 ? 52
                        : type == DT_TQ2_0 ? 64
                                           : 0;
    float d = 0, min = 0; /* the largest code times integer scale; minus the minimum's */
    switch (type) {
    case DT_Q4_0: d = 8; break;
    case DT_Q4_1: d = 8, min = 1; break;
    case DT_Q5_0: d = 16; break;
    case DT_Q5_1: d = 16, min = 1; break;
    case DT_Q8_0:
    case DT_IQ4_NL: d = 127; break;
    case DT_Q2_K: d = 15 * 2, min = -15; break;
    case DT_Q3_K: d = 31 * 4; break;
    case DT_Q4_K: d = 63 * 8, min = -63; break;
    case DT_Q5_K: d = 63 * 16, min = -63; break;
    case DT_Q6_K: d = 127 * 32; break;
    case DT_IQ4_XS: d = 31 * 127; break;
    case DT_IQ1_S:
    case DT_IQ1_M: d = 15 * 1.125f; break;
    case DT_IQ2_XXS:
    case DT_IQ2_XS:
    case DT_IQ2_S: d = 31 / 8.0f * 43; break;
    case DT_IQ3_XXS: d = 31 / 4.0f * 62; break;
    case DT_IQ3_S: d = 31 * 15; break;
    case DT_Q2_0: d = 2; break;
    case DT_TQ1_0:
    case DT_TQ2_0:
    case DT_Q1_0: d = 1; break;
    case DT_MXFP4:
    case DT_NVFP4: d = 1; break; /* see below */
    default: CHECK(!"gb_fill: a type it does not know");
    }
    for (uint32_t k = 0; k < n; k++) p[k] = (unsigned char)(hash_mix(seed * 256 + k) >> 40);
    uint16_t h = half_of_float((0.75f + 0.25f * gb_random(seed, 0)) * scale / d);
    for (uint32_t k = 0; type == DT_NVFP4 && k < 4; k++)
        p[k] = 0x20 | (p[k] & 7); /* 0.125 to 0.234: most are below 1, which gb_matrix scales */
    if (type == DT_NVFP4) return;
    if (type == DT_MXFP4) { /* the largest number is 6 times the scale, a power of two */
        p[0] = (unsigned char)(127 + (int)floorf(log2f(scale / 6)) + (int)(seed % 2));
        return;
    }
    for (uint32_t k = 0; type == DT_IQ1_M && k < 4;
         k++) /* in the upper quarters of four numbers */
        p[49 + 2 * k] = (unsigned char)((p[49 + 2 * k] & 15) | (h >> 4 * k & 15) << 4);
    if (type == DT_IQ1_M) return;
    memcpy(p + at, &h, 2);
    h = half_of_float(min == 0 ? 0 : -scale / min);
    if (min != 0) memcpy(p + at + 2, &h, 2);
}

/* Random numbers of about -scale .. scale in any type that an engine computes with. */
static GB_UNUSED void gb_fill(void *dst, dtype type, uint64_t n, uint64_t seed, float scale) {
    unsigned char *p = dst;
    const dtype_info *info = dtype_get(type);
    for (uint64_t i = 0; i < n / info->block_elems; i++, p += info->block_bytes) {
        float f = gb_random(seed, i) * scale;
        uint16_t h = type == DT_BF16 ? bf16_of_float(f) : half_of_float(f);
        if (type == DT_F32)
            memcpy(p, &f, 4);
        else if (info->block_elems == 1)
            memcpy(p, &h, 2);
        else
            gb_fill_block(p, type, hash_mix(seed) + i, scale);
    }
}
/* In the given type, or what quantizers fall back to where its block does not divide a row. */
static GB_UNUSED void gb_matrix(gb *b, const char *name, dtype type, uint32_t rows,
                                uint32_t cols, uint64_t seed, float scale) {
    type = dtype_for_cols(type, cols);
    void *p = gb_tensor(b, name, type, 2, (uint64_t[]){cols, rows}, NULL);
    gb_fill(p, type, (uint64_t)rows * cols, seed, scale);
    if (type != DT_NVFP4) return;
    char beside[96];
    snprintf(beside, sizeof beside, "%.*s.scale", (int)(strlen(name) - strlen(".weight")),
             name);
    memcpy(gb_tensor(b, beside, DT_F32, 1, (uint64_t[]){1}, NULL), &scale, 4);
}
/* offset + random: 1 for norms, 0 for biases. */
static GB_UNUSED void gb_vector(gb *b, const char *name, uint32_t n, uint64_t seed,
                                float offset, float scale) {
    float *p = gb_tensor(b, name, DT_F32, 1, (uint64_t[]){n}, NULL);
    for (uint32_t i = 0; i < n; i++) {
        float f = offset + scale * gb_random(seed, i);
        memcpy(&p[i], &f, 4);
    }
}

/* Biases of n experts: small numbers. */
static GB_UNUSED void gb_vectors(gb *b, const char *name, uint32_t n, uint32_t each,
                                 uint64_t seed) {
    void *p = gb_tensor(b, name, DT_F32, 2, (uint64_t[]){each, n}, NULL);
    gb_fill(p, DT_F32, (uint64_t)n * each, seed, 0.5f);
}

/* ---- the file ---- */

static GB_UNUSED void gb_finish_counts(gb *b, uint64_t n_tensors, uint64_t n_kv) {
    b->file.n = 0;
    gb_put(&b->file, "GGUF", 4);
    gb_u32(&b->file, b->version);
    gb_u64(&b->file, n_tensors);
    gb_u64(&b->file, n_kv);
    gb_put(&b->file, b->kv.p, b->kv.n);
    gb_put(&b->file, b->info.p, b->info.n);
    gb_put(&b->file, NULL, align_up(b->file.n, b->alignment) - b->file.n);
    if (b->data.n) gb_put(&b->file, b->data.p, b->data.n);
}
/* b->file: the whole file. */
static GB_UNUSED void gb_finish(gb *b) {
    gb_finish_counts(b, b->n_tensors, b->n_kv);
}
static GB_UNUSED int gb_memfd(const void *p, size_t n) {
    int fd = memfd_create("test.gguf", MFD_CLOEXEC);
    CHECK(fd >= 0);
    for (size_t at = 0; at < n;) {
        ssize_t r = write(fd, (const char *)p + at, n - at);
        CHECK(r > 0);
        at += (size_t)r;
    }
    return fd;
}
/* Finishes into a memory file. path: at least 32 bytes. */
static GB_UNUSED void gb_open(gb *b, char *path) {
    gb_finish(b);
    if (b->fd >= 0) close(b->fd);
    b->fd = gb_memfd(b->file.p, b->file.n);
    snprintf(path, 32, "/proc/self/fd/%d", b->fd);
}
static GB_UNUSED void gb_save(gb *b, const char *path) {
    gb_finish(b);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(b->file.p, 1, b->file.n, f) == b->file.n && fclose(f) == 0);
}

/* ---- whole models ---- */

/* Keys of c.arch, without a vocabulary: general.architecture, and all that
 * model_config_read reads but RoPE scaling. The arch is one of model/family.c. */
static GB_UNUSED void gb_model_keys(gb *b, const model_config *c) {
    char key[96];
    const family *f = family_find(c->arch);
#define GB_KEY(suffix) (snprintf(key, sizeof key, "%s." suffix, c->arch), key)
    gb_str(b, "general.architecture", c->arch);
    gb_str(b, "general.name", c->name);
    gb_int(b, GB_KEY("block_count"), c->n_layers);
    gb_int(b, GB_KEY("context_length"), c->n_ctx_train);
    gb_int(b, GB_KEY("embedding_length"), c->n_embd);
    gb_int(b, GB_KEY("feed_forward_length"), c->n_ff);
    gb_int(b, GB_KEY("attention.head_count"), c->n_heads);
    gb_int(b, GB_KEY("attention.head_count_kv"), c->n_kv_heads);
    gb_int(b, GB_KEY("attention.key_length"), c->head_dim);
    gb_int(b, GB_KEY("attention.value_length"), c->head_dim);
    gb_float(b, GB_KEY("attention.layer_norm_rms_epsilon"), c->norm_eps);
    if (c->window) gb_int(b, GB_KEY("attention.sliding_window"), c->window);
    if (c->window_every) {
        gb_int(b, GB_KEY("attention.sliding_window_pattern"), c->window_every);
        gb_float(b, GB_KEY("rope.freq_base_swa"), c->window_theta);
    }
    if (c->attn_scale > 0) gb_float(b, GB_KEY("attention.scale"), c->attn_scale);
    if (c->attn_cap != 0) gb_float(b, GB_KEY("attn_logit_softcapping"), c->attn_cap);
    if (c->logit_cap != 0) gb_float(b, GB_KEY("final_logit_softcapping"), c->logit_cap);
    if (c->temperature != 0) gb_float(b, GB_KEY("attention.temperature_scale"), c->temperature);
    if (f && f->scales) {
        gb_float(b, GB_KEY("embedding_scale"), c->embd_scale);
        gb_float(b, GB_KEY("residual_scale"), c->residual_scale);
        gb_float(b, GB_KEY("logit_scale"), c->logit_scale);
    }
    if (c->rope.original_len)
        gb_int(b, GB_KEY("rope.scaling.original_context_length"), c->rope.original_len);
    gb_int(b, GB_KEY("rope.dimension_count"), c->rope.n_dims);
    gb_float(b, GB_KEY("rope.freq_base"), c->rope.theta);
    gb_int(b, GB_KEY("vocab_size"), c->n_vocab);
    if (c->n_experts) {
        gb_int(b, GB_KEY("expert_count"), c->n_experts);
        gb_int(b, GB_KEY("expert_used_count"), c->n_experts_used);
        gb_int(b, GB_KEY("expert_feed_forward_length"), model_config_expert_width(c));
        if (!model_config_routes(c, 0)) gb_int(b, GB_KEY("leading_dense_block_count"), 1);
        if (c->expert_groups) gb_int(b, GB_KEY("expert_group_count"), c->expert_groups);
        if (c->expert_groups)
            gb_int(b, GB_KEY("expert_group_used_count"), c->expert_groups_used);
        if (c->experts_sigmoid) gb_int(b, GB_KEY("expert_gating_func"), 2);
        gb_float(b, GB_KEY("expert_weights_scale"), c->experts_scale);
    }
    if (c->n_ff_shared) gb_int(b, GB_KEY("expert_shared_feed_forward_length"), c->n_ff_shared);
#undef GB_KEY
}

static GB_UNUSED void gb_experts(gb *b, const char *name, dtype type, uint32_t n, uint32_t rows,
                                 uint32_t cols, uint64_t seed) {
    type = dtype_for_cols(type, cols);
    void *p = gb_tensor(b, name, type, 3, (uint64_t[]){cols, rows, n}, NULL);
    gb_fill(p, type, (uint64_t)n * rows * cols, seed, 1.5f / sqrtf((float)cols));
}

/* The feed-forward part of a layer of experts. Routers are large, so that few choices are near. */
static GB_UNUSED void gb_experts_layer(gb *b, const model_config *c, dtype type, uint32_t l,
                                       uint64_t seed) {
    char name[72];
    const uint32_t h = c->n_embd, f = c->n_ff, n = c->n_experts, s = c->n_ff_shared;
    const float in_h = 1.5f / sqrtf((float)h);
#define GB_BLK(suffix) (snprintf(name, sizeof name, "blk.%u." suffix, l), name)
    gb_matrix(b, GB_BLK("ffn_gate_inp.weight"), DT_F32, n, h, seed++, 4 * in_h);
    if (c->router_bias) gb_vector(b, GB_BLK("ffn_gate_inp.bias"), n, seed + 8, 0, 0.5f);
    if (c->ffn_bias) {
        gb_vectors(b, GB_BLK("ffn_gate_exps.bias"), n, f, seed + 9);
        gb_vectors(b, GB_BLK("ffn_up_exps.bias"), n, f, seed + 10);
        gb_vectors(b, GB_BLK("ffn_down_exps.bias"), n, h, seed + 11);
    }
    gb_experts(b, GB_BLK("ffn_gate_exps.weight"), type, n, f, h, seed++);
    gb_experts(b, GB_BLK("ffn_up_exps.weight"), type, n, f, h, seed++);
    gb_experts(b, GB_BLK("ffn_down_exps.weight"), type, n, h, f, seed++);
    if (s == 0) return;
    gb_vector(b, GB_BLK("ffn_gate_inp_shexp.weight"), h, seed++, 0, in_h);
    gb_matrix(b, GB_BLK("ffn_gate_shexp.weight"), type, s, h, seed++, in_h);
    gb_matrix(b, GB_BLK("ffn_up_shexp.weight"), type, s, h, seed++, in_h);
    gb_matrix(b, GB_BLK("ffn_down_shexp.weight"), type, h, s, seed, 1.5f / sqrtf((float)s));
#undef GB_BLK
}

/* All tensors of c with random weights: matrices of the given type, norms around 1, biases
 * small. The scale keeps the residual stream at about 1. */
static GB_UNUSED void gb_model_tensors(gb *b, const model_config *c, dtype type,
                                       uint64_t seed) {
    char name[72];
    const uint32_t h = c->n_embd, q = c->n_heads * c->head_dim,
                   kv = c->n_kv_heads * c->head_dim;
    const float in_h = 1.5f / sqrtf((float)h);
    const bool fused_qkv = strcmp(c->arch, "phi3") == 0;
    const bool fused = fused_qkv || strcmp(c->arch, "glm4") == 0;
    const bool post_only = strcmp(c->arch, "olmo2") == 0;
    const bool oss = strcmp(c->arch, "gpt-oss") == 0;
#define GB_BLK(suffix) (snprintf(name, sizeof name, "blk.%u." suffix, l), name)
    gb_matrix(b, "token_embd.weight", type, c->n_vocab, h, seed++, 1);
    for (uint32_t l = 0; l < c->n_layers; l++) {
        if (!post_only) gb_vector(b, GB_BLK("attn_norm.weight"), h, seed++, 1, 0.2f);
        if (fused_qkv)
            gb_matrix(b, GB_BLK("attn_qkv.weight"), type, q + 2 * kv, h, seed++, in_h);
        for (int k = 0; k < 3 && !fused_qkv; k++) {
            snprintf(name, sizeof name, "blk.%u.attn_%c.weight", l, "qkv"[k]);
            gb_matrix(b, name, type, k == 0 ? q : kv, h, seed++, in_h);
        }
        if (c->qk_norm) {
            const uint32_t nq = c->qk_norm_whole ? q : c->head_dim,
                           nk = c->qk_norm_whole ? kv : c->head_dim;
            gb_vector(b, GB_BLK("attn_q_norm.weight"), nq, seed++, 1, 0.3f);
            gb_vector(b, GB_BLK("attn_k_norm.weight"), nk, seed++, 1, 0.3f);
        }
        if (c->sinks) gb_vector(b, GB_BLK("attn_sinks.weight"), c->n_heads, seed++, 0, 2);
        if (c->qkv_bias) {
            gb_vector(b, GB_BLK("attn_q.bias"), q, seed++, 0, 0.5f);
            gb_vector(b, GB_BLK("attn_k.bias"), kv, seed++, 0, 0.5f);
            gb_vector(b, GB_BLK("attn_v.bias"), kv, seed++, 0, 0.5f);
        }
        gb_matrix(b, GB_BLK("attn_output.weight"), type, h, q, seed++, 1.5f / sqrtf((float)q));
        if (c->o_bias) gb_vector(b, GB_BLK("attn_output.bias"), h, seed++, 0, 0.2f);
        snprintf(name, sizeof name, "blk.%u.%s.weight", l,
                 oss ? "post_attention_norm" : "ffn_norm");
        if (!post_only) gb_vector(b, name, h, seed++, 1, 0.2f);
        if (post_only || c->norms_per_layer == 4) {
            gb_vector(b, GB_BLK("post_attention_norm.weight"), h, seed++, 1, 0.2f);
            gb_vector(b, GB_BLK("post_ffw_norm.weight"), h, seed++, 1, 0.2f);
        }
        if (c->n_experts) {
            gb_experts_layer(b, c, type, l, seed += 8);
            continue;
        }
        if (!fused) gb_matrix(b, GB_BLK("ffn_gate.weight"), type, c->n_ff, h, seed++, in_h);
        gb_matrix(b, GB_BLK("ffn_up.weight"), type, fused ? 2 * c->n_ff : c->n_ff, h, seed++,
                  in_h);
        gb_matrix(b, GB_BLK("ffn_down.weight"), type, h, c->n_ff, seed++,
                  1.5f / sqrtf((float)c->n_ff));
    }
    gb_vector(b, "output_norm.weight", h, seed++, 1, 0.2f);
    if (!c->tied_head) gb_matrix(b, "output.weight", type, c->n_vocab, h, seed++, in_h);
#undef GB_BLK
}

/* A small model that divides by every block of 32: change what the test wants before
 * gb_model_keys and gb_model_tensors. */
static GB_UNUSED model_config gb_tiny(const char *arch) {
    model_config c;
    model_config_init(&c);
    snprintf(c.arch, sizeof c.arch, "%s", arch);
    snprintf(c.name, sizeof c.name, "tiny %s", arch);
    c.n_layers = 2, c.n_embd = 64, c.n_heads = 4, c.n_kv_heads = 2, c.head_dim = 32;
    c.n_ff = 96, c.n_vocab = 128, c.n_ctx_train = 256;
    c.rope.n_dims = 32;
    const family *f = family_find(arch);
    c.rope.pairing = ROPE_HALVES;
    if (!f) return c;
    c.rope.pairing = family_pairing(f, true);
    c.qkv_bias = f->qkv_bias || f->hf.model[0].qkv_bias_option;
    c.qk_norm = f->qk_norm, c.qk_norm_whole = f->qk_norm_whole;
    c.norms_per_layer = f->norms_per_layer;
    c.nope_every = f->nope_every;
    if (f->hf.rotary > 0) c.rope.n_dims = (uint32_t)((float)c.head_dim * f->hf.rotary);
    if (f->window_every) c.window = 24, c.window_every = 3, c.window_theta = 500;
    if (f->experts.required) {
        c.n_experts = 6, c.n_experts_used = 2, c.n_ff = 64;
        c.experts_norm = f->experts.norm;
        c.n_ff_shared = f->experts.shared_gate ? 96 : 0;
        c.shape.shared_gate = f->experts.shared_gate;
    }
    c.tied_head = f->norms_plus_one; /* Gemma's */
    /* What scores and logits of such a model feel. */
    if (f->attn_cap > 0) c.attn_cap = 2, c.logit_cap = 3;
    if (f->scales)
        c.embd_scale = 3, c.residual_scale = 0.5f, c.logit_scale = 2, c.attn_scale = 0.2f;
    if (strcmp(arch, "gpt-oss") == 0) {
        c.o_bias = c.ffn_bias = c.router_bias = c.sinks = true;
        c.window_theta = 0;
    }
    if (strcmp(arch, "mistral3") == 0) c.temperature = 0.5f, c.rope.original_len = 16;
    return c;
}

#endif
