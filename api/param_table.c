/* The table of request parameters, and what reads it. Owns nothing; the loop thread. */
#include "api/param_table.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(params, field)
#define OWN(name, where, values, initial, note)                                                \
    { name, PARAM_HONOURED, where, PARAM_OWN, 0, 0, 0, values, initial, note }
#define FLAG(name, where, field, initial, note)                                                \
    { name, PARAM_HONOURED, where, PARAM_BOOL, AT(field), 0, 1, NULL, initial, note }
#define NUMBER(name, where, type, field, lo, hi, initial, note)                                \
    { name, PARAM_HONOURED, where, type, AT(field), lo, hi, NULL, initial, note }
#define SAME(name, note)                                                                       \
    { name, PARAM_IGNORED, BOTH, PARAM_OWN, 0, 0, 0, "", "", note }
#define NOT(name, where, neutral, note)                                                        \
    { name, PARAM_REFUSED, where, PARAM_OWN, 0, 0, 0, neutral, "", note }

const param_row param_table[] = {
    /* ---- honoured ---- */
    OWN("model", BOTH, "a served name", "the served model", "404 for other names"),
    OWN("prompt", COMPLETIONS, "a string, strings, token ids, or lists of token ids", "", ""),
    OWN("messages", CHAT, "a list of messages", "", "content: a string or parts of text"),
    OWN("max_tokens", BOTH, "1 to 2147483647",
        "16; in chat, and at most, the rest of the context",
        "0 with echo or prompt_logprobs in completions: the prompt alone is scored"),
    OWN("max_completion_tokens", BOTH, "as max_tokens", "", "wins over max_tokens"),
    OWN("n_predict", BOTH, "as max_tokens", "", "llama.cpp's name; max_tokens wins"),
    NUMBER("temperature", BOTH, PARAM_F32, sampling.temperature, 0, 2, "1",
           "0: the most probable token; default: the server's option"),
    NUMBER("top_p", BOTH, PARAM_F32, sampling.top_p, 0, 1, "1", "default: the server's option"),
    NUMBER("top_k", BOTH, PARAM_I32, sampling.top_k, -1, INT32_MAX, "-1",
           "-1 and 0: all; default: the server's option"),
    NUMBER("min_p", BOTH, PARAM_F32, sampling.min_p, 0, 1, "0", "default: the server's option"),
    NUMBER("typical_p", BOTH, PARAM_F32, sampling.typical_p, 0, 1, "1", ""),
    NUMBER("repetition_penalty", BOTH, PARAM_F32, sampling.repetition_penalty, 0.01, 10, "1",
           "over prompt and output"),
    NUMBER("presence_penalty", BOTH, PARAM_F32, sampling.presence_penalty, -2, 2, "0",
           "over the output"),
    NUMBER("frequency_penalty", BOTH, PARAM_F32, sampling.frequency_penalty, -2, 2, "0",
           "over the output"),
    OWN("logit_bias", BOTH, "an object of up to 1,024 numbers from -100 to 100", "none",
        "by token id, or by the text of one token; also llama.cpp's list of pairs of a token, "
        "or a text, and a number, or false"),
    OWN("allowed_token_ids", BOTH, "1 to 65,536 token ids", "all", ""),
    OWN("bad_words", BOTH, "up to 256 strings", "none", ""),
    OWN("seed", BOTH, "a signed integer of 64 bits", "-1", "-1: a random one"),
    OWN("stop", BOTH, "a string, or up to 256 of up to 1,024 bytes, 16,384 in all", "none", ""),
    OWN("stop_token_ids", BOTH, "up to 16 token ids", "none", ""),
    FLAG("include_stop_str_in_output", BOTH, include_stop, "false",
         "the text ends with the stop string, or with the text of the stop token"),
    FLAG("no_stop_trim", BOTH, include_stop, "false", "SGLang's name of the one before"),
    FLAG("ignore_eos", BOTH, ignore_eos, "false", ""),
    NUMBER("min_tokens", BOTH, PARAM_U32, sampling.min_tokens, 0, INT32_MAX, "0", ""),
    NUMBER("n", BOTH, PARAM_U32, n, 1, PARAMS_MAX_CHOICES, "1", ""),
    OWN("best_of", COMPLETIONS, "n to 128", "n",
        "so many are generated, the n of the highest mean logprob are returned; not streamed"),
    FLAG("echo", BOTH, echo, "false",
         "chat: the last message's text first, where the answer has its role"),
    OWN("logprobs", BOTH, "completions: 0 to 20; chat: true or false", "none", ""),
    OWN("top_logprobs", CHAT, "0 to 20", "0", "needs logprobs"),
    OWN("prompt_logprobs", BOTH, "0 to 20", "none", "not streamed; ranks beyond it are null"),
    FLAG("return_token_ids", BOTH, return_token_ids, "false",
         "token_ids of each choice, and prompt_token_ids"),
    FLAG("return_tokens_as_token_ids", BOTH, tokens_as_ids, "false",
         "logprobs name tokens token_id:N"),
    FLAG("skip_special_tokens", BOTH, skip_special, "true", ""),
    FLAG("add_special_tokens", BOTH, add_special_tokens, "true",
         "a BOS that the text begins with is not doubled; chat: the template has its own"),
    OWN("truncate_prompt_tokens", BOTH, "-1, or 1 to the length of the context", "none",
        "the last so many tokens of the prompt; -1: as many as leave space for max_tokens"),
    FLAG("add_generation_prompt", CHAT, add_generation_prompt, "true", ""),
    FLAG("continue_final_message", CHAT, continue_final, "false",
         "needs add_generation_prompt false; the answer continues the last message"),
    FLAG("stream", BOTH, stream, "false", ""),
    OWN("stream_options", BOTH, "include_usage, continuous_usage_stats: true or false", "false",
        "the second needs the first"),
    OWN("response_format", BOTH, "type: text, json_object, json_schema", "text",
        "docs/structured-output.md"),
    OWN("structured_outputs", BOTH,
        "one of json, json_object, regex, choice, grammar, structural_tag; white space", "none",
        "vLLM; docs/structured-output.md"),
    OWN("guided_json", BOTH, "a JSON schema", "none", "vLLM's older names"),
    OWN("guided_regex", BOTH, "a regular expression", "none", ""),
    OWN("guided_choice", BOTH, "1 to 4,096 strings", "none", ""),
    OWN("guided_grammar", BOTH, "a grammar (GBNF)", "none", ""),
    OWN("guided_whitespace_pattern", BOTH, "a regular expression of white space", "none", ""),
    OWN("ebnf", BOTH, "a grammar (GBNF)", "none", "SGLang's name"),
    OWN("structural_tag", BOTH, "a structural tag", "none",
        "SGLang; docs/structured-output.md"),
    OWN("json_schema", BOTH, "a JSON schema", "none", "llama.cpp, SGLang"),
    OWN("grammar", BOTH, "a grammar (GBNF)", "none", "llama.cpp"),
    OWN("regex", BOTH, "a regular expression", "none", "SGLang"),
    OWN("tools", CHAT, "a list", "none",
        "given to the chat template; refused where it takes none"),
    OWN("documents", CHAT, "a list", "none", "given to the chat template"),
    OWN("reasoning_effort", CHAT, "a string", "none",
        "given to the chat template; none: enable_thinking and thinking are false, too"),
    OWN("chat_template_kwargs", CHAT, "an object", "chat_template_kwargs of the server",
        "variables for the chat template, over all others but messages"),
    OWN("chat_template", CHAT, "Jinja", "the model's",
        "refused unless the server has trust_request_chat_template"),
    OWN("tool_choice", CHAT, "none, auto, required, a function, or allowed_tools",
        "auto with tools", "docs/tools.md; none: calls in the output stay text"),
    OWN("parallel_tool_calls", CHAT, "true or false", "true",
        "false: one call ends the answer"),
    OWN("reasoning_format", CHAT, "none, auto, deepseek", "auto",
        "none: reasoning stays in the text, with its marks"),
    NUMBER("thinking_token_budget", CHAT, PARAM_I32, think_budget, -1, INT32_MAX, "-1",
           "tokens of reasoning, then its end is forced; -1: no limit"),
    FLAG("separate_reasoning", CHAT, split_reasoning, "true", "SGLang; false: as none before"),
    FLAG("include_reasoning", CHAT, include_reasoning, "true",
         "false: reasoning is left out of the answer"),
    NUMBER("priority", BOTH, PARAM_I32, priority, INT32_MIN, INT32_MAX, "0",
           "lower is sooner; a key bounds it"),
    OWN("cache_salt", BOTH, "a string", "none", "the prefix cache is shared among equal ones"),
    OWN("timeout", BOTH, "0.001 to 86400 seconds", "request_timeout", ""),
    FLAG("speculative", BOTH, speculative, "true",
         "false: its next tokens are not guessed where the server does that "
         "(docs/speculation.md); the answer is the same"),
    FLAG("return_memory", BOTH, return_memory, "false",
         "the request's KV cache, as \"memory\""),
    FLAG("receipt", BOTH, receipt, "false",
         "usage has \"memory\": what the request has taken; or the header X-Vramd-Receipt: 1"),
    OWN("user", BOTH, "a string", "none", "no effect"),
    /* ---- of no effect on the answer ---- */
    SAME("spaces_between_special_tokens", "special tokens are never joined by spaces"),
    SAME("metadata", "OpenAI; nothing is stored"),
    SAME("store", "OpenAI; nothing is stored"),
    SAME("service_tier", "OpenAI"),
    SAME("safety_identifier", "OpenAI"),
    SAME("prompt_cache_key", "OpenAI; see cache_salt"),
    SAME("prompt_cache_retention", "OpenAI"),
    SAME("prediction", "OpenAI; speeds up, changes nothing"),
    SAME("request_id", "vLLM; send X-Request-Id"),
    SAME("rid", "SGLang; send X-Request-Id"),
    SAME("length_penalty", "vLLM; of beam search"),
    SAME("early_stopping", "of beam search"),
    SAME("guided_decoding_backend", "vLLM"),
    SAME("mm_processor_kwargs", "vLLM; there are no images"),
    SAME("stream_reasoning", "SGLang"),
    SAME("custom_params", "SGLang; of custom_logit_processor"),
    SAME("extra_key", "SGLang; see cache_salt"),
    SAME("data_parallel_rank", "SGLang"),
    SAME("return_cached_tokens_details", "SGLang; usage has cached_tokens"),
    SAME("cache_prompt", "llama.cpp; the prefix cache serves all requests"),
    SAME("id_slot", "llama.cpp"),
    SAME("n_keep", "llama.cpp; the context is never shifted"),
    SAME("n_discard", "llama.cpp; the context is never shifted"),
    SAME("n_cache_reuse", "llama.cpp"),
    SAME("timings_per_token", "llama.cpp"),
    SAME("return_progress", "llama.cpp"),
    SAME("sse_ping_interval", "llama.cpp; see heartbeat"),
    SAME("t_max_prompt_ms", "llama.cpp"),
    SAME("mirostat_tau", "llama.cpp; of mirostat"),
    SAME("mirostat_eta", "llama.cpp; of mirostat"),
    SAME("dry_base", "llama.cpp; of dry_multiplier"),
    SAME("dry_allowed_length", "llama.cpp; of dry_multiplier"),
    SAME("dry_penalty_last_n", "llama.cpp; of dry_multiplier"),
    SAME("dry_sequence_breakers", "llama.cpp; of dry_multiplier"),
    SAME("xtc_threshold", "llama.cpp; of xtc_probability"),
    SAME("dynatemp_exponent", "llama.cpp; of dynatemp_range"),
    SAME("adaptive_decay", "llama.cpp; of adaptive_target"),
    SAME("preserved_tokens", "llama.cpp; of grammar"),
    SAME("grammar_triggers", "llama.cpp; of grammar"),
    SAME("grammar_lazy", "llama.cpp; of grammar"),
    /* ---- refused ---- */
    NOT("suffix", BOTH, "\"\"", ""),
    NOT("audio", CHAT, "", ""),
    NOT("modalities", CHAT, "[]|[\"text\"]", "only text comes out"),
    NOT("web_search_options", CHAT, "", ""),
    NOT("verbosity", CHAT, "\"medium\"", ""),
    NOT("functions", BOTH, "", ""),
    NOT("function_call", CHAT, "\"none\"|\"auto\"", ""),
    NOT("use_beam_search", BOTH, "false", "see best_of"),
    NOT("prompt_embeds", BOTH, "[]|\"\"", ""),
    NOT("logits_processors", BOTH, "[]", "see logit_bias"),
    NOT("logprob_token_ids", BOTH, "[]", ""),
    NOT("repetition_detection", BOTH, "{}", ""),
    NOT("kv_transfer_params", BOTH, "{}", ""),
    NOT("vllm_xargs", BOTH, "{}", ""),
    NOT("stop_regex", BOTH, "\"\"|[]", "see stop"),
    NOT("lora_path", BOTH, "\"\"", ""),
    NOT("session_params", BOTH, "{}", ""),
    NOT("input_ids", BOTH, "[]", "send token ids as prompt"),
    NOT("input_embeds", BOTH, "[]", ""),
    NOT("return_hidden_states", BOTH, "false", ""),
    NOT("return_routed_experts", BOTH, "false", ""),
    NOT("custom_logit_processor", BOTH, "\"\"", "see logit_bias"),
    NOT("n_probs", BOTH, "0", "see logprobs"),
    NOT("post_sampling_probs", BOTH, "false", "logprobs are those before temperature"),
    NOT("return_tokens", BOTH, "false", "see return_token_ids"),
    NOT("with_pieces", BOTH, "false", "a parameter of /tokenize"),
    NOT("n_cmpl", BOTH, "1", "see n"),
    NOT("n_indent", BOTH, "0", ""),
    NOT("min_keep", BOTH, "0|1", ""),
    NOT("repeat_penalty", BOTH, "1", "see repetition_penalty"),
    NOT("repeat_last_n", BOTH, "-1|0|64", "penalties look at the whole text"),
    NOT("mirostat", BOTH, "0", ""),
    NOT("dry_multiplier", BOTH, "0", ""),
    NOT("xtc_probability", BOTH, "0", ""),
    NOT("dynatemp_range", BOTH, "0", ""),
    NOT("top_n_sigma", BOTH, "-1|0", ""),
    NOT("adaptive_target", BOTH, "-1", ""),
    NOT("tfs_z", BOTH, "1", ""),
    NOT("top_a", BOTH, "0", ""),
    NOT("samplers", BOTH, "[]", "their order is fixed: docs/sampling.md"),
    NOT("banned_strings", BOTH, "[]", "see bad_words"),
    NOT("lora", BOTH, "[]", ""),
    NOT("image_data", BOTH, "[]", ""),
    NOT("multimodal_data", BOTH, "[]", ""),
    NOT("input_extra", BOTH, "[]", ""),
    NOT("response_fields", BOTH, "[]", ""),
    NOT("t_max_predict_ms", BOTH, "-1|0", "see timeout"),
    NOT("thinking_forced_open", BOTH, "false", ""),
};
const size_t param_table_rows = sizeof param_table / sizeof *param_table;

static status read_row(params *p, const json_t *o, const param_row *r, err *e) {
    char *at = (char *)p + r->at;
    if (r->type == PARAM_BOOL) return json_in_bool(o, r->name, (bool *)at, e);
    if (!json_in_has(o, r->name)) return OK;
    if (r->type == PARAM_F32) {
        double v = 0;
        status s = json_in_real(o, r->name, r->lo, r->hi, &v, e);
        if (s == OK) *(float *)at = (float)v;
        return s;
    }
    int64_t v = 0;
    status s = json_in_int(o, r->name, (int64_t)r->lo, (int64_t)r->hi, &v, e);
    if (s != OK) return s;
    if (r->type == PARAM_U32)
        *(uint32_t *)at = (uint32_t)v;
    else
        *(int32_t *)at = (int32_t)v;
    return OK;
}

/* The value as the table writes it, as far as a row's neutral values need it; "" for others. */
static void short_form(const json_t *v, char *out, size_t cap) {
    out[0] = '\0';
    if (json_is_boolean(v)) snprintf(out, cap, "%s", json_is_true(v) ? "true" : "false");
    if (json_is_number(v)) snprintf(out, cap, "%.9g", json_number_value(v));
    if (json_is_string(v) && json_string_length(v) + 3 <= cap)
        snprintf(out, cap, "\"%s\"", json_string_value(v));
    if (json_is_object(v) && json_object_size(v) == 0) snprintf(out, cap, "{}");
    if (!json_is_array(v)) return;
    const json_t *only = json_array_get(v, 0);
    if (!only)
        snprintf(out, cap, "[]");
    else if (json_array_size(v) == 1 && json_is_string(only) &&
             json_string_length(only) + 5 <= cap)
        snprintf(out, cap, "[\"%s\"]", json_string_value(only));
}

static bool is_neutral(const char *values, const json_t *v) {
    char form[16];
    short_form(v, form, sizeof form);
    for (const char *at = values; *at && form[0];) {
        size_t n = strcspn(at, "|");
        if (strlen(form) == n && strncmp(at, form, n) == 0) return true;
        at += n + (at[n] == '|');
    }
    return false;
}

static status refuse(const param_row *r, err *e) {
    err_set(e, ERR_UNSUPPORTED, "%s is not supported", r->name);
    if (r->note[0]) err_hint(e, "%s", r->note);
    return err_field(e, "%s", r->name);
}

status param_table_read(params *p, const json_t *o, bool chat, err *e) {
    for (size_t i = 0; i < param_table_rows; i++) {
        const param_row *r = &param_table[i];
        if (!param_is_for(r, chat)) continue;
        if (r->how == PARAM_HONOURED && r->type != PARAM_OWN) {
            status s = read_row(p, o, r, e);
            if (s != OK) return s;
        }
        const json_t *v = r->how == PARAM_REFUSED ? json_object_get(o, r->name) : NULL;
        if (v && !json_is_null(v) && !is_neutral(r->values, v)) return refuse(r, e);
    }
    return OK;
}
