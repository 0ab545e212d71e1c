/* The table of names. Source: the classes of the families in transformers, and what llama.cpp's
 * converter calls their tensors. */
#include "model/hf/hf_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct name_pair {
    const char *hf, *gguf, *archs; /* archs NULL: every one that has no row of its own above */
} name_pair;

static const name_pair of_model[] = {
    {"embed_tokens.weight", "token_embd.weight", NULL},
    {"norm.weight", "output_norm.weight", NULL},
};

static const name_pair of_layer[] = {
    {"input_layernorm", "attn_norm", NULL},
    {"post_attention_layernorm", "post_attention_norm", "gemma2 gemma3 olmo2"},
    {"post_attention_layernorm", "ffn_norm", NULL},
    {"pre_feedforward_layernorm", "ffn_norm", "gemma2 gemma3"},
    {"post_feedforward_layernorm", "post_ffw_norm", "gemma2 gemma3 olmo2"},
    {"post_self_attn_layernorm", "post_attention_norm", "glm4"},
    {"post_mlp_layernorm", "post_ffw_norm", "glm4"},
    {"self_attn.q_proj", "attn_q", NULL},
    {"self_attn.k_proj", "attn_k", NULL},
    {"self_attn.v_proj", "attn_v", NULL},
    {"self_attn.o_proj", "attn_output", NULL},
    {"self_attn.qkv_proj", "attn_qkv", NULL},
    {"self_attn.q_norm", "attn_q_norm", NULL},
    {"self_attn.k_norm", "attn_k_norm", NULL},
    {"mlp.gate_proj", "ffn_gate", NULL},
    {"mlp.up_proj", "ffn_up", NULL},
    {"mlp.down_proj", "ffn_down", NULL},
    {"mlp.gate_up_proj", "ffn_up", NULL},
};

/* Parts of models with several, and tables that are computed. */
static const char *const others[] = {"vision_tower.", "vision_model.", "multi_modal_projector.",
                                     "audio_tower.", "visual."};

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

/* "3.mlp.up_proj.weight": of layer 3. */
static bool layer_name(const char *arch, const char *s, char out[HF_NAME_BYTES]) {
    char *end;
    if (s[0] < '0' || s[0] > '9' || (s[0] == '0' && s[1] != '.')) return false;
    const unsigned long layer = strtoul(s, &end, 10);
    if (*end != '.' || layer > 9999) return false;
    for (size_t i = 0; i < sizeof of_layer / sizeof *of_layer; i++) {
        const name_pair *p = &of_layer[i];
        const char *rest = after(end + 1, p->hf);
        if (!rest || (p->archs && !has_word(p->archs, arch))) continue;
        if (strcmp(rest, ".weight") != 0 && strcmp(rest, ".bias") != 0) continue;
        snprintf(out, HF_NAME_BYTES, "blk.%lu.%s%s", layer, p->gguf, rest);
        return true;
    }
    return false;
}

hf_name_kind hf_tensor_name(const char *arch, const char *name, char out[HF_NAME_BYTES]) {
    const char *s = name, *rest;
    if ((rest = after(s, "model.language_model.")) ||
        (rest = after(s, "language_model.model.")))
        s = rest;
    else if ((rest = after(s, "language_model.")) || (rest = after(s, "model.")))
        s = rest;
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
    rest = after(s, "layers.");
    return rest && layer_name(arch, rest, out) ? HF_NAME_WEIGHT : HF_NAME_UNKNOWN;
}
