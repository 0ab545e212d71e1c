/* The table of names. Source: the classes of the families in transformers, and what llama.cpp's
 * converter calls their tensors. */
#include "model/hf/hf_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct name_pair {
    const char *hf, *gguf; /* without ".weight" or ".bias", but for a name that has neither */
    const char *archs;     /* NULL: every one that has no row of its own above */
} name_pair;

static const name_pair of_model[] = {
    {"embed_tokens.weight", "token_embd.weight", NULL},
    {"norm.weight", "output_norm.weight", NULL},
    {"embedding_norm.weight", "token_embd_norm.weight", NULL},
    {"embed_tokens_per_layer.weight", "per_layer_token_embd.weight", NULL},
    {"per_layer_model_projection.weight", "per_layer_model_proj.weight", NULL},
    {"per_layer_projection_norm.weight", "per_layer_proj_norm.weight", NULL},
    {"embeddings.weight", "token_embd.weight", NULL},
    {"norm_f.weight", "output_norm.weight", NULL},
    {"embeddings.word_embeddings.weight", "token_embd.weight", NULL},
    {"embeddings.position_embeddings.weight", "position_embd.weight", NULL},
    {"embeddings.token_type_embeddings.weight", "token_types.weight", NULL},
    {"embeddings.LayerNorm.weight", "token_embd_norm.weight", NULL},
    {"embeddings.LayerNorm.bias", "token_embd_norm.bias", NULL},
    {"emb_ln.weight", "token_embd_norm.weight", NULL},
    {"emb_ln.bias", "token_embd_norm.bias", NULL},
    {"pooler.dense.weight", "cls.weight", NULL},
    {"pooler.dense.bias", "cls.bias", NULL},
    {"classifier.weight", "cls.output.weight", NULL},
    {"classifier.bias", "cls.output.bias", NULL},
};

#define NEMOTRON "nemotron_h nemotron_h_moe"

static const name_pair of_layer[] = {
    {"input_layernorm", "attn_norm", NULL},
    {"post_attention_layernorm", "post_attention_norm",
     "gemma2 gemma3 gemma4 glm4moe gpt-oss olmo2 qwen35 qwen35moe"},
    {"post_attention_layernorm", "ffn_norm", NULL},
    {"pre_feedforward_layernorm", "ffn_norm", "gemma2 gemma3 gemma4"},
    {"pre_feedforward_layernorm_2", "pre_ffw_norm_2", NULL},
    {"post_feedforward_layernorm", "post_ffw_norm", "gemma2 gemma3 gemma4 olmo2"},
    {"post_feedforward_layernorm_1", "post_ffw_norm_1", NULL},
    {"post_feedforward_layernorm_2", "post_ffw_norm_2", NULL},
    {"per_layer_input_gate", "inp_gate", NULL},
    {"per_layer_projection", "proj", NULL},
    {"post_per_layer_input_norm", "post_norm", NULL},
    {"post_self_attn_layernorm", "post_attention_norm", "glm4"},
    {"post_mlp_layernorm", "post_ffw_norm", "glm4"},
    {"linear_attn.A_log", "ssm_a", "qwen35 qwen35moe"},
    {"linear_attn.dt_bias", "ssm_dt.bias", "qwen35 qwen35moe"},
    {"linear_attn.in_proj_qkv", "attn_qkv", "qwen35 qwen35moe"},
    {"linear_attn.in_proj_z", "attn_gate", "qwen35 qwen35moe"},
    {"linear_attn.in_proj_b", "ssm_beta", "qwen35 qwen35moe"},
    {"linear_attn.in_proj_a", "ssm_alpha", "qwen35 qwen35moe"},
    {"linear_attn.conv1d", "ssm_conv1d", "qwen35 qwen35moe"},
    {"linear_attn.norm", "ssm_norm", "qwen35 qwen35moe"},
    {"linear_attn.out_proj", "ssm_out", "qwen35 qwen35moe"},
    {"mamba.A_log", "ssm_a", "granitehybrid"},
    {"mamba.D", "ssm_d", "granitehybrid"},
    {"mamba.dt_bias", "ssm_dt.bias", "granitehybrid"},
    {"mamba.in_proj", "ssm_in", "granitehybrid"},
    {"mamba.conv1d", "ssm_conv1d", "granitehybrid"},
    {"mamba.norm", "ssm_norm", "granitehybrid"},
    {"mamba.out_proj", "ssm_out", "granitehybrid"},
    {"norm", "attn_norm", NEMOTRON},
    {"mixer.A_log", "ssm_a", NEMOTRON},
    {"mixer.D", "ssm_d", NEMOTRON},
    {"mixer.dt_bias", "ssm_dt.bias", NEMOTRON},
    {"mixer.in_proj", "ssm_in", NEMOTRON},
    {"mixer.conv1d", "ssm_conv1d", NEMOTRON},
    {"mixer.norm", "ssm_norm", NEMOTRON},
    {"mixer.out_proj", "ssm_out", NEMOTRON},
    {"mixer.q_proj", "attn_q", NEMOTRON},
    {"mixer.k_proj", "attn_k", NEMOTRON},
    {"mixer.v_proj", "attn_v", NEMOTRON},
    {"mixer.o_proj", "attn_output", NEMOTRON},
    {"mixer.up_proj", "ffn_up", NEMOTRON},
    {"mixer.down_proj", "ffn_down", NEMOTRON},
    {"mixer.gate.e_score_correction_bias", "exp_probs_b.bias", NEMOTRON},
    {"mixer.gate", "ffn_gate_inp", NEMOTRON},
    {"mixer.shared_experts.up_proj", "ffn_up_shexp", NEMOTRON},
    {"mixer.shared_experts.down_proj", "ffn_down_shexp", NEMOTRON},
    {"mixer.fc1_latent_proj", "ffn_latent_down", NEMOTRON},
    {"mixer.fc2_latent_proj", "ffn_latent_up", NEMOTRON},
    {"operator_norm", "attn_norm", "lfm2 lfm2moe"},
    {"ffn_norm", "ffn_norm", "lfm2 lfm2moe"},
    {"conv.conv", "shortconv.conv", "lfm2 lfm2moe"},
    {"conv.in_proj", "shortconv.in_proj", "lfm2 lfm2moe"},
    {"conv.out_proj", "shortconv.out_proj", "lfm2 lfm2moe"},
    {"self_attn.out_proj", "attn_output", "lfm2 lfm2moe"},
    {"self_attn.q_layernorm", "attn_q_norm", "lfm2 lfm2moe"},
    {"self_attn.k_layernorm", "attn_k_norm", "lfm2 lfm2moe"},
    {"feed_forward.w1", "ffn_gate", "lfm2 lfm2moe"},
    {"feed_forward.w2", "ffn_down", "lfm2 lfm2moe"},
    {"feed_forward.w3", "ffn_up", "lfm2 lfm2moe"},
    {"feed_forward.expert_bias", "exp_probs_b.bias", "lfm2moe"},
    {"feed_forward.gate", "ffn_gate_inp", "lfm2moe"},
    {"self_attn.q_a_proj", "attn_q_a", "deepseek2"},
    {"self_attn.q_a_layernorm", "attn_q_a_norm", "deepseek2"},
    {"self_attn.q_b_proj", "attn_q_b", "deepseek2"},
    {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", "deepseek2"},
    {"self_attn.kv_a_layernorm", "attn_kv_a_norm", "deepseek2"},
    {"self_attn.kv_b_proj", "attn_kv_b", "deepseek2"},
    {"self_attn.q_proj", "attn_q", NULL},
    {"self_attn.k_proj", "attn_k", NULL},
    {"self_attn.v_proj", "attn_v", NULL},
    {"self_attn.o_proj", "attn_output", NULL},
    {"self_attn.qkv_proj", "attn_qkv", NULL},
    {"self_attn.sinks", "attn_sinks.weight", "gpt-oss"},
    {"self_attn.q_norm", "attn_q_norm", NULL},
    {"self_attn.k_norm", "attn_k_norm", NULL},
    {"mlp.gate_proj", "ffn_gate", NULL},
    {"mlp.up_proj", "ffn_up", NULL},
    {"mlp.down_proj", "ffn_down", NULL},
    {"mlp.gate_up_proj", "ffn_up", NULL},
    {"mlp.gate", "ffn_gate_inp", NULL},
    {"mlp.router", "ffn_gate_inp", "gpt-oss"},
    {"block_sparse_moe.gate", "ffn_gate_inp", NULL},
    {"block_sparse_moe.router.layer", "ffn_gate_inp", NULL},
    {"block_sparse_moe.router", "ffn_gate_inp", NULL},
    {"router.proj", "ffn_gate_inp", NULL},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp", NULL},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp", NULL},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp", NULL},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp", NULL},
    {"mlp.shared_experts.gate_proj", "ffn_gate_shexp", NULL},
    {"mlp.shared_experts.up_proj", "ffn_up_shexp", NULL},
    {"mlp.shared_experts.down_proj", "ffn_down_shexp", NULL},
    {"shared_mlp.output_linear", "ffn_down_shexp", NULL},
    {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias", NULL},
    {"layer_scalar", "layer_output_scale.weight", NULL},
    {"router.scale", "ffn_gate_inp.scale", NULL},
    {"router.per_expert_scale", "ffn_down_exps.scale", NULL},
    {"attention.self.query", "attn_q", "bert"},
    {"attention.self.key", "attn_k", "bert"},
    {"attention.self.value", "attn_v", "bert"},
    {"attention.output.dense", "attn_output", "bert"},
    {"attention.output.LayerNorm", "attn_output_norm", "bert"},
    {"intermediate.dense", "ffn_up", "bert"},
    {"output.dense", "ffn_down", "bert"},
    {"output.LayerNorm", "layer_output_norm", "bert"},
    {"attn.Wqkv", "attn_qkv", "nomic-bert"},
    {"attn.out_proj", "attn_output", "nomic-bert"},
    {"norm1", "attn_output_norm", "nomic-bert"},
    {"norm2", "layer_output_norm", "nomic-bert"},
    {"mlp.fc11", "ffn_up", "nomic-bert"},
    {"mlp.fc12", "ffn_gate", "nomic-bert"},
    {"mlp.fc2", "ffn_down", "nomic-bert"},
};

/* Of all experts, and behind "experts.7.": rows of one of GGUF's tensors, or of two. */
typedef struct expert_part {
    const char *hf;
    hf_expert_kind kind;
    const char *gguf[2];
} expert_part;

static const expert_part of_experts[] = {
    {"mlp.experts.gate_up_proj", HF_EXPERT_ROWS, {"ffn_gate_exps", "ffn_up_exps"}},
    {"mlp.experts.down_proj", HF_EXPERT_ROWS, {"ffn_down_exps"}},
    {"mlp.experts.gate_up_proj_blocks", HF_EXPERT_BLOCKS, {"ffn_gate_exps", "ffn_up_exps"}},
    {"mlp.experts.gate_up_proj_scales", HF_EXPERT_SCALES, {"ffn_gate_exps", "ffn_up_exps"}},
    {"mlp.experts.gate_up_proj_bias", HF_EXPERT_BIAS, {"ffn_gate_exps", "ffn_up_exps"}},
    {"mlp.experts.down_proj_blocks", HF_EXPERT_BLOCKS, {"ffn_down_exps"}},
    {"mlp.experts.down_proj_scales", HF_EXPERT_SCALES, {"ffn_down_exps"}},
    {"mlp.experts.down_proj_bias", HF_EXPERT_BIAS, {"ffn_down_exps"}},
    {"mixer.experts.up_proj", HF_EXPERT_ROWS, {"ffn_up_exps"}},
    {"mixer.experts.down_proj", HF_EXPERT_ROWS, {"ffn_down_exps"}},
    {"experts.gate_up_proj", HF_EXPERT_ROWS, {"ffn_gate_exps", "ffn_up_exps"}},
    {"experts.down_proj", HF_EXPERT_ROWS, {"ffn_down_exps"}},
    {"block_sparse_moe.experts.gate_up_proj", HF_EXPERT_ROWS, {"ffn_gate_exps", "ffn_up_exps"}},
    {"block_sparse_moe.experts.down_proj", HF_EXPERT_ROWS, {"ffn_down_exps"}},
    {"block_sparse_moe.input_linear.weight", HF_EXPERT_ROWS, {"ffn_gate_exps", "ffn_up_exps"}},
    {"block_sparse_moe.output_linear.weight", HF_EXPERT_ROWS, {"ffn_down_exps"}},
};
static const expert_part of_shared[] = {
    {"shared_mlp.input_linear.weight", HF_EXPERT_ROWS, {"ffn_gate_shexp", "ffn_up_shexp"}},
};
static const expert_part of_expert[] = {
    {"gate_proj.weight", HF_EXPERT_ROWS, {"ffn_gate_exps"}},
    {"w1.weight", HF_EXPERT_ROWS, {"ffn_gate_exps"}},
    {"up_proj.weight", HF_EXPERT_ROWS, {"ffn_up_exps"}},
    {"w3.weight", HF_EXPERT_ROWS, {"ffn_up_exps"}},
    {"down_proj.weight", HF_EXPERT_ROWS, {"ffn_down_exps"}},
    {"w2.weight", HF_EXPERT_ROWS, {"ffn_down_exps"}},
};

/* Parts of models with several, layers that predict further tokens, tables that are computed, and
 * heads that BERT is trained with. */
static const char *const others[] = {"vision_tower.",
                                     "vision_model.",
                                     "multi_modal_projector.",
                                     "audio_tower.",
                                     "visual.",
                                     "embed_vision.",
                                     "embed_audio.",
                                     "mtp.",
                                     "embeddings.position_ids",
                                     "cls.predictions.",
                                     "cls.seq_relationship."};

static const char *after(const char *s, const char *prefix) {
    const size_t n = strlen(prefix);
    return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

static bool has_word(const char *words, const char *word) {
    const size_t n = strlen(word);
    for (const char *s = words; (s = strstr(s, word)); s += n)
        if ((s == words || s[-1] == ' ') && (s[n] == ' ' || s[n] == '\0')) return true;
    return false;
}

static bool is_other(const char *name) {
    const char *tail = strstr(name, "rotary_emb.inv_freq");
    if (tail && tail[strlen("rotary_emb.inv_freq")] == '\0') return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (after(name, others[i])) return true;
    return false;
}

/* "3.mlp.up_proj.weight": what follows the number and its dot; NULL: no number. */
static const char *after_number(const char *s, unsigned long *number) {
    char *end;
    if (s[0] < '0' || s[0] > '9' || (s[0] == '0' && s[1] != '.')) return NULL;
    *number = strtoul(s, &end, 10);
    return *end == '.' && *number <= 9999 ? end + 1 : NULL;
}

/* Of layer 3. */
static bool layer_name(const char *arch, const char *s, char out[HF_NAME_BYTES]) {
    unsigned long layer;
    const char *tail = after_number(s, &layer);
    if (!tail) return false;
    for (size_t i = 0; i < sizeof of_layer / sizeof *of_layer; i++) {
        const name_pair *p = &of_layer[i];
        const char *rest = after(tail, p->hf);
        if (!rest || (p->archs && !has_word(p->archs, arch))) continue;
        /* Some have no ending in Hugging Face's files. */
        const bool whole = strchr(p->gguf, '.') || strcmp(p->gguf, "ssm_a") == 0 ||
                           strcmp(p->gguf, "ssm_d") == 0;
        if (*rest ? strcmp(rest, ".weight") != 0 && strcmp(rest, ".bias") != 0 : !whole)
            continue;
        snprintf(out, HF_NAME_BYTES, "blk.%lu.%s%s", layer, p->gguf, rest);
        return true;
    }
    return false;
}

/* Without what stands before the names of the text model. */
static const char *inner(const char *name) {
    static const char *const before[] = {"model.language_model.",
                                         "language_model.model.",
                                         "language_model.",
                                         "model.",
                                         "backbone.",
                                         "bert."};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        const char *rest = after(name, before[i]);
        if (rest) return rest;
    }
    return name;
}

static bool expert_name(hf_expert_name *out, unsigned long layer, const char *rest,
                        const expert_part *parts, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rest, parts[i].hf) != 0) continue;
        const char *end = parts[i].kind == HF_EXPERT_BIAS ? "bias" : "weight";
        out->kind = parts[i].kind;
        out->n_parts = parts[i].gguf[1] ? 2 : 1;
        for (uint32_t k = 0; k < out->n_parts; k++)
            snprintf(out->gguf[k], HF_NAME_BYTES, "blk.%lu.%s.%s", layer, parts[i].gguf[k],
                     end);
        return true;
    }
    return false;
}

bool hf_expert_name_of(hf_expert_name *out, const char *name) {
    unsigned long layer, expert;
    const char *rest = after(inner(name), "layers."), *tail;
    if (!rest || !(rest = after_number(rest, &layer))) return false;
    *out = (hf_expert_name){.expert = HF_ALL_EXPERTS};
    if (expert_name(out, layer, rest, of_experts, sizeof of_experts / sizeof *of_experts))
        return true;
    if (expert_name(out, layer, rest, of_shared, sizeof of_shared / sizeof *of_shared)) {
        out->expert = 0, out->shared = true;
        return true;
    }
    if (!(tail = after(rest, "mlp.experts.")) &&
        !(tail = after(rest, "feed_forward.experts.")) &&
        !(tail = after(rest, "mixer.experts.")) &&
        !(tail = after(rest, "block_sparse_moe.experts.")))
        return false;
    if (!(rest = after_number(tail, &expert))) return false;
    out->expert = (uint32_t)expert;
    return expert_name(out, layer, rest, of_expert, sizeof of_expert / sizeof *of_expert);
}

hf_name_kind hf_tensor_name(const char *arch, const char *name, char out[HF_NAME_BYTES]) {
    const char *s = inner(name), *rest;
    if (is_other(s)) return HF_NAME_OTHER;
    if (strcmp(s, "lm_head.weight") == 0) {
        snprintf(out, HF_NAME_BYTES, "output.weight");
        return HF_NAME_WEIGHT;
    }
    for (size_t i = 0; i < sizeof of_model / sizeof *of_model; i++)
        if (strcmp(s, of_model[i].hf) == 0) {
            snprintf(out, HF_NAME_BYTES, "%s", of_model[i].gguf);
            return HF_NAME_WEIGHT;
        }
    if (!(rest = after(s, "layers.")) && !(rest = after(s, "encoder.layer.")))
        rest = after(s, "encoder.layers.");
    return rest && layer_name(arch, rest, out) ? HF_NAME_WEIGHT : HF_NAME_UNKNOWN;
}
