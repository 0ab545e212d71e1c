/* The table of families. Owns nothing; any thread. */
#include "model/family.h"

#include <stdio.h>
#include <string.h>

static const family families[] = {
    {.arch = "llama",
     .others = "Mistral, Mixtral, SmolLM2, ...",
     .permuted = true,
     .norms_per_layer = 2,
     .experts = {.possible = true, .norm = true},
     .record = llama_record,
     .hf = {.model = {{.type = "llama", .class = "LlamaForCausalLM", .bias_option = true},
                      {.type = "mistral", .class = "MistralForCausalLM"},
                      {.type = "mixtral",
                       .class = "MixtralForCausalLM",
                       .experts = "num_local_experts",
                       .expert_width = "intermediate_size"}},
            .act = "silu"}},
    {.arch = "qwen2",
     .qkv_bias = true,
     .norms_per_layer = 2,
     .record = llama_record,
     .hf = {.model = {{.type = "qwen2", .class = "Qwen2ForCausalLM"}},
            .window_switch = true,
            .act = "silu"}},
    {.arch = "qwen3",
     .qk_norm = true,
     .norms_per_layer = 2,
     .record = llama_record,
     .hf = {.model = {{.type = "qwen3", .class = "Qwen3ForCausalLM"}},
            .window_switch = true,
            .act = "silu"}},
    {.arch = "phi3",
     .norms_per_layer = 2,
     .record = phi3_record,
     .hf = {.model = {{.type = "phi3", .class = "Phi3ForCausalLM"}}, .act = "silu"}},
    {.arch = "gemma3",
     .qk_norm = true,
     .norms_plus_one = true,
     .norms_per_layer = 4,
     .window_every = 6,
     .window_theta = 10000,
     .wide_layers = 62,
     .record = gemma_record,
     .hf = {.model = {{.type = "gemma3_text", .class = "Gemma3ForCausalLM"},
                      {.type = "gemma3", .class = "Gemma3ForConditionalGeneration"}},
            .tied = true}},
    {.arch = "gemma2",
     .norms_plus_one = true,
     .norms_per_layer = 4,
     .window = 4096,
     .window_every = 2,
     .wide_layers = 46,
     .attn_cap = 50,
     .logit_cap = 30,
     .record = gemma_record,
     .hf = {.model = {{.type = "gemma2", .class = "Gemma2ForCausalLM"}}, .tied = true}},
    {.arch = "qwen2moe",
     .qkv_bias = true,
     .norms_per_layer = 2,
     .experts = {.possible = true, .required = true, .shared = true},
     .record = llama_record,
     .hf = {.model = {{.type = "qwen2_moe",
                       .class = "Qwen2MoeForCausalLM",
                       .experts = "num_experts",
                       .expert_width = "moe_intermediate_size",
                       .shared_width = "shared_expert_intermediate_size",
                       .norm_option = true}},
            .window_switch = true,
            .act = "silu"}},
    {.arch = "smollm3",
     .permuted = true,
     .norms_per_layer = 2,
     .nope_every = 4,
     .record = llama_record,
     .hf = {.model = {{.type = "smollm3", .class = "SmolLM3ForCausalLM", .bias_option = true}},
            .tied = true,
            .window_switch = true,
            .act = "silu"}},
    {.arch = "mistral3",
     .permuted = true,
     .norms_per_layer = 2,
     .record = llama_record,
     .hf = {.model = {{.type = "ministral3", .class = "Ministral3ForCausalLM"}},
            .act = "silu"}},
    {.arch = "olmo2",
     .others = "OLMo 3",
     .qk_norm = true,
     .qk_norm_whole = true,
     .whole_attn_factor = true,
     .norms_per_layer = 2,
     .window_every = 4,
     .window_unscaled = true,
     .record = olmo2_record,
     .hf = {.model = {{.type = "olmo2", .class = "Olmo2ForCausalLM", .bias_option = true},
                      {.type = "olmo3", .class = "Olmo3ForCausalLM", .bias_option = true}},
            .act = "silu"}},
    {.arch = "glm4",
     .adjacent = true,
     .norms_per_layer = 4,
     .record = glm4_record,
     .hf = {.model = {{.type = "glm4", .class = "Glm4ForCausalLM", .qkv_bias_option = true}},
            .act = "silu",
            .rotary = 0.5f}},
    {.arch = "granite",
     .permuted = true,
     .scales = true,
     .norms_per_layer = 2,
     .record = llama_record,
     .hf = {.model = {{.type = "granite", .class = "GraniteForCausalLM", .bias_option = true}},
            .act = "silu"}},
    {.arch = "qwen3moe",
     .qk_norm = true,
     .norms_per_layer = 2,
     .experts = {.possible = true, .required = true, .norm = true},
     .record = llama_record,
     .hf = {.model = {{.type = "qwen3_moe",
                       .class = "Qwen3MoeForCausalLM",
                       .experts = "num_experts",
                       .expert_width = "moe_intermediate_size",
                       .norm_option = true}},
            .window_switch = true,
            .act = "silu"}},
    {.arch = "gpt-oss",
     .qkv_bias = true,
     .norms_per_layer = 2,
     .window_every = 2,
     .experts = {.possible = true, .required = true, .norm = true},
     .record = counted_record,
     .hf = {.model = {{.type = "gpt_oss",
                       .class = "GptOssForCausalLM",
                       .experts = "num_local_experts",
                       .expert_width = "intermediate_size"}},
            .act = "silu"}},
};

const family *family_at(size_t i) {
    return i < sizeof families / sizeof *families ? &families[i] : NULL;
}

const family *family_find(const char *arch) {
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++)
        if (strcmp(f->arch, arch) == 0) return f;
    return NULL;
}

const family *family_of_hf(str type, str class, const hf_model **model) {
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++)
        for (const hf_model *m = f->hf.model; m < f->hf.model + FAMILY_HF_MODELS && m->type;
             m++)
            if (type.ptr ? str_eqz(type, m->type) : str_eqz(class, m->class)) {
                *model = m;
                return f;
            }
    return NULL;
}

void family_hint(err *e) {
    char list[sizeof e->hint];
    size_t n = 0;
    const family *f;
    for (size_t i = 0; (f = family_at(i)) && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, f->others ? "%s%s (also %s)" : "%s%s",
                              n ? ", " : "", f->arch, f->others);
    err_hint(e, "known: %s", list);
}
