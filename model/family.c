/* The table of families. Owns nothing; any thread. */
#include "model/family.h"

#include <stdio.h>
#include <string.h>

static const family families[] = {
    {.arch = "llama",
     .others = "Mistral, SmolLM2, ...",
     .permuted = true,
     .norms_per_layer = 2,
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
     .norms_per_layer = 4,
     .window_every = 6,
     .window_theta = 10000,
     .record = gemma_record,
     .hf = {.model = {{.type = "gemma3_text", .class = "Gemma3ForCausalLM"},
                      {.type = "gemma3", .class = "Gemma3ForConditionalGeneration"}},
            .tied = true}},
    {.arch = "gemma2",
     .norms_per_layer = 4,
     .window_every = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "gemma2", .class = "Gemma2ForCausalLM"}}, .tied = true}},
    {.arch = "qwen3moe",
     .qk_norm = true,
     .norms_per_layer = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "qwen3_moe",
                       .class = "Qwen3MoeForCausalLM",
                       .experts = "num_experts",
                       .expert_width = "moe_intermediate_size"}},
            .window_switch = true,
            .act = "silu"}},
    {.arch = "gpt-oss",
     .qkv_bias = true,
     .norms_per_layer = 2,
     .window_every = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "gpt_oss",
                       .class = "GptOssForCausalLM",
                       .experts = "num_local_experts",
                       .expert_width = "intermediate_size"}},
            .act = "silu"}},
    {.arch = "gemma4",
     .qk_norm = true,
     .shaped = true,
     .norms_per_layer = 4,
     .record = gemma4_record,
     .hf = {.model = {{.type = "gemma4_text", .class = "Gemma4ForCausalLM"},
                      {.type = "gemma4", .class = "Gemma4ForConditionalGeneration"}},
            .tied = true}},
    /* Planned by counted.c: */
    {.arch = "qwen35",
     .qk_norm = true,
     .shaped = true,
     .norms_per_layer = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "qwen3_5_text", .class = "Qwen3_5ForCausalLM"},
                      {.type = "qwen3_5", .class = "Qwen3_5ForConditionalGeneration"}},
            .act = "silu"}},
    {.arch = "qwen35moe",
     .qk_norm = true,
     .shaped = true,
     .norms_per_layer = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "qwen3_5_moe_text", .class = "Qwen3_5MoeForCausalLM"},
                      {.type = "qwen3_5_moe", .class = "Qwen3_5MoeForConditionalGeneration"}},
            .act = "silu"}},
    {.arch = "lfm2",
     .qk_norm = true,
     .shaped = true,
     .norms_per_layer = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "lfm2", .class = "Lfm2ForCausalLM"}}, .tied = true}},
    {.arch = "lfm2moe",
     .qk_norm = true,
     .shaped = true,
     .norms_per_layer = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "lfm2_moe", .class = "Lfm2MoeForCausalLM"}}, .tied = true}},
    {.arch = "deepseek2",
     .others = "DeepSeek V3, Kimi K2, GLM-4.7-Flash",
     .shaped = true,
     .norms_per_layer = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "deepseek_v2", .class = "DeepseekV2ForCausalLM"},
                      {.type = "deepseek_v3", .class = "DeepseekV3ForCausalLM"},
                      {.type = "kimi_k2"},
                      {.type = "glm4_moe_lite", .class = "Glm4MoeLiteForCausalLM"}},
            .act = "silu"}},
    {.arch = "glm4moe",
     .shaped = true,
     .norms_per_layer = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "glm4_moe", .class = "Glm4MoeForCausalLM", .bias_option = true}},
            .act = "silu"}},
    {.arch = "granitehybrid",
     .permuted = true,
     .shaped = true,
     .norms_per_layer = 2,
     .record = counted_record,
     .hf = {.model = {{.type = "granitemoehybrid", .class = "GraniteMoeHybridForCausalLM"}},
            .tied = true,
            .act = "silu"}},
    {.arch = "nemotron_h",
     .shaped = true,
     .norms_per_layer = 1,
     .record = counted_record,
     .hf = {.model = {{.type = "nemotron_h", .class = "NemotronHForCausalLM"}}}},
    {.arch = "nemotron_h_moe", .shaped = true, .norms_per_layer = 1, .record = counted_record},
    {.arch = "bert",
     .qkv_bias = true,
     .shaped = true,
     .norms_per_layer = 2,
     .record = encoder_record,
     .hf = {.model = {{.type = "bert", .class = "BertModel"}}, .tied = true}},
    {.arch = "nomic-bert",
     .shaped = true,
     .norms_per_layer = 2,
     .record = encoder_record,
     .hf = {.model = {{.type = "nomic_bert", .class = "NomicBertModel"}}, .tied = true}},
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
            if (type.ptr ? str_eqz(type, m->type) : (m->class && str_eqz(class, m->class))) {
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
