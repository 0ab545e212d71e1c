/* How families of models write calls and reasoning. A row is used after it has proved itself on
 * the model's template (reply_derive.c); where two rows could read the same text, the more
 * specific one stands first. Sources: the models' published templates. */
#include <string.h>

#include "text/reply/reply_in.h"

#define OBJECT(key_of_args)                                                                    \
    .shape = SHAPE_OBJECT, .args = ARGS_JSON, .name_key = "name", .args_key = (key_of_args)
#define NAMED(form) .shape = SHAPE_NAMED, .args = (form)

const reply_format reply_formats[] = {
    /* Qwen3-Coder, Qwen3.5, Nemotron 3, MiMo, Step 3.5 */
    {.name = "qwen3-coder",
     NAMED(ARGS_TAGGED),
     .lines = true,
     .mark = {[MARK_CALL] = "<tool_call>",
              [MARK_CALL_END] = "</tool_call>",
              [MARK_NAME] = "<function=",
              [MARK_NAME_END] = ">",
              [MARK_ARGS_END] = "</function>",
              [MARK_KEY] = "<parameter=",
              [MARK_KEY_END] = ">",
              [MARK_VALUE_END] = "</parameter>"}},
    {.name = "seed-oss",
     NAMED(ARGS_TAGGED),
     .lines = true,
     .mark = {[MARK_CALL] = "<seed:tool_call>",
              [MARK_CALL_END] = "</seed:tool_call>",
              [MARK_NAME] = "<function=",
              [MARK_NAME_END] = ">",
              [MARK_ARGS_END] = "</function>",
              [MARK_KEY] = "<parameter=",
              [MARK_KEY_END] = ">",
              [MARK_VALUE_END] = "</parameter>",
              [MARK_THINK] = "<seed:think>",
              [MARK_THINK_END] = "</seed:think>"}},
    /* Hermes 2 and 3, Qwen2.5, Qwen3, SmolLM3, Granite 4, Jamba 2, Ling, EXAONE 4 */
    {.name = "hermes",
     OBJECT("arguments"),
     .mark = {[MARK_CALL] = "<tool_call>", [MARK_CALL_END] = "</tool_call>"}},
    {.name = "glm",
     NAMED(ARGS_TAGGED),
     .mark = {[MARK_CALL] = "<tool_call>",
              [MARK_CALL_END] = "</tool_call>",
              [MARK_KEY] = "<arg_key>",
              [MARK_KEY_END] = "</arg_key>",
              [MARK_VALUE] = "<arg_value>",
              [MARK_VALUE_END] = "</arg_value>"}},
    {.name = "minimax",
     NAMED(ARGS_TAGGED),
     .mark = {[MARK_SECTION] = "<minimax:tool_call>",
              [MARK_SECTION_END] = "</minimax:tool_call>",
              [MARK_NAME] = "<invoke name=\"",
              [MARK_NAME_END] = "\">",
              [MARK_ARGS_END] = "</invoke>",
              [MARK_KEY] = "<parameter name=\"",
              [MARK_KEY_END] = "\">",
              [MARK_VALUE_END] = "</parameter>"}},
    {.name = "deepseek-v3.2",
     NAMED(ARGS_TAGGED),
     .typed = true,
     .mark = {[MARK_SECTION] = "<｜DSML｜function_calls>",
              [MARK_SECTION_END] = "</｜DSML｜function_calls>",
              [MARK_NAME] = "<｜DSML｜invoke name=\"",
              [MARK_NAME_END] = "\">",
              [MARK_ARGS_END] = "</｜DSML｜invoke>",
              [MARK_KEY] = "<｜DSML｜parameter name=\"",
              [MARK_KEY_END] = "\" string=\"",
              [MARK_VALUE_END] = "</｜DSML｜parameter>"}},
    {.name = "deepseek-v3",
     NAMED(ARGS_JSON),
     .mark = {[MARK_SECTION] = "<｜tool▁calls▁begin｜>",
              [MARK_SECTION_END] = "<｜tool▁calls▁end｜>",
              [MARK_CALL] = "<｜tool▁call▁begin｜>",
              [MARK_CALL_END] = "<｜tool▁call▁end｜>",
              [MARK_NAME] = "function<｜tool▁sep｜>",
              [MARK_NAME_END] = "```json",
              [MARK_ARGS_END] = "```"}},
    {.name = "deepseek-v3.1",
     NAMED(ARGS_JSON),
     .mark = {[MARK_SECTION] = "<｜tool▁calls▁begin｜>",
              [MARK_SECTION_END] = "<｜tool▁calls▁end｜>",
              [MARK_CALL] = "<｜tool▁call▁begin｜>",
              [MARK_CALL_END] = "<｜tool▁call▁end｜>",
              [MARK_NAME_END] = "<｜tool▁sep｜>"}},
    {.name = "kimi-k2",
     NAMED(ARGS_JSON),
     .ids = IDS_NUMBERED,
     .mark = {[MARK_SECTION] = "<|tool_calls_section_begin|>",
              [MARK_SECTION_END] = "<|tool_calls_section_end|>",
              [MARK_CALL] = "<|tool_call_begin|>",
              [MARK_CALL_END] = "<|tool_call_end|>",
              [MARK_NAME_END] = "<|tool_call_argument_begin|>"}},
    /* Mistral: tokenizers v3 to v7, then v11 and v13 */
    {.name = "mistral",
     OBJECT("arguments"),
     .ids = IDS_NINE,
     .array = true,
     .mark = {[MARK_SECTION] = "[TOOL_CALLS]"}},
    {.name = "mistral-v11",
     NAMED(ARGS_JSON),
     .ids = IDS_NINE,
     .mark =
         {[MARK_CALL] = "[TOOL_CALLS]", [MARK_ID] = "[CALL_ID]", [MARK_NAME_END] = "[ARGS]"}},
    {.name = "gpt-oss",
     .shape = SHAPE_CHANNELS,
     .args = ARGS_JSON,
     .mark = {[CHANNEL_START] = "<|start|>",
              [CHANNEL_NAME] = "<|channel|>",
              [CHANNEL_CONSTRAIN] = "<|constrain|>",
              [CHANNEL_MESSAGE] = "<|message|>",
              [CHANNEL_END] = "<|end|>",
              [CHANNEL_CALL] = "<|call|>",
              [CHANNEL_RETURN] = "<|return|>"}},
    {.name = "gemma4",
     NAMED(ARGS_BARE),
     .mark = {[MARK_CALL] = "<|tool_call>",
              [MARK_CALL_END] = "<tool_call|>",
              [MARK_NAME] = "call:",
              [MARK_QUOTE] = "<|\"|>",
              [MARK_THINK] = "<|channel>thought",
              [MARK_THINK_END] = "<channel|>"}},
    {.name = "functiongemma",
     NAMED(ARGS_BARE),
     .mark = {[MARK_CALL] = "<start_function_call>",
              [MARK_CALL_END] = "<end_function_call>",
              [MARK_NAME] = "call:",
              [MARK_QUOTE] = "<escape>"}},
    {.name = "lfm2",
     NAMED(ARGS_PYTHON),
     .array = true,
     .mark =
         {[MARK_SECTION] = "<|tool_call_start|>", [MARK_SECTION_END] = "<|tool_call_end|>"}},
    {.name = "olmo3",
     NAMED(ARGS_PYTHON),
     .mark = {[MARK_SECTION] = "<function_calls>", [MARK_SECTION_END] = "</function_calls>"}},
    {.name = "command-r",
     OBJECT("parameters"),
     .array = true,
     .mark = {[MARK_SECTION] = "<|START_ACTION|>",
              [MARK_SECTION_END] = "<|END_ACTION|>",
              [MARK_THINK] = "<|START_THINKING|>",
              [MARK_THINK_END] = "<|END_THINKING|>",
              [MARK_DROP] = "<|START_RESPONSE|>",
              [MARK_DROP_END] = "<|END_RESPONSE|>"}},
    /* Granite 3 */
    {.name = "granite",
     OBJECT("arguments"),
     .array = true,
     .mark = {[MARK_SECTION] = "<|tool_call|>"}},
    {.name = "phi-4-mini",
     OBJECT("arguments"),
     .array = true,
     .mark = {[MARK_SECTION] = "functools"}},
    /* Jamba 1.5, Hunyuan */
    {.name = "jamba",
     OBJECT("arguments"),
     .array = true,
     .mark = {[MARK_SECTION] = "<tool_calls>", [MARK_SECTION_END] = "</tool_calls>"}},
    {.name = "internlm",
     OBJECT("parameters"),
     .mark = {[MARK_CALL] = "<|action_start|><|plugin|>", [MARK_CALL_END] = "<|action_end|>"}},
    {.name = "functionary",
     NAMED(ARGS_JSON),
     .mark = {[MARK_CALL] = ">>>", [MARK_DROP] = ">>>all\n"}},
    /* Llama 3.1 and 3.3; 3.2 and 4 */
    {.name = "llama",
     OBJECT("parameters"),
     .plain = true,
     .mark = {[MARK_CALL] = "<|python_tag|>"}},
    {.name = "pythonic",
     NAMED(ARGS_PYTHON),
     .array = true,
     .plain = true,
     .mark = {[MARK_CALL] = "<|python_tag|>"}},
};
const size_t reply_n_formats = sizeof reply_formats / sizeof *reply_formats;

/* Reasoning of templates whose row has none of its own: the end's mark must stand in the
 * template. */
static const char *const thinking[][2] = {
    {"<think>", "</think>"},
    {"<seed:think>", "</seed:think>"},
    {"<mm:think>", "</mm:think>"},
    {"[THINK]", "[/THINK]"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
    {"<|channel>thought", "<channel|>"},
};

static int special_at(const reply_special *s, size_t n, str text) {
    int best = -1;
    for (size_t i = 0; i < n; i++)
        if (s[i].text.len && str_starts(text, s[i].text) &&
            (best < 0 || s[i].text.len > s[best].text.len))
            best = (int)i;
    return best;
}

/* The number of a special token in the plan; -1: there are too many. */
static int number_of(reply_plan *p, const reply_special *s) {
    for (uint32_t i = 0; i < p->n_special; i++)
        if (p->special[i].id == s->id) return (int)i;
    if (p->n_special == REPLY_MAX_SPECIAL) return -1;
    p->special[p->n_special] = *s;
    return (int)p->n_special++;
}

static bool add_byte(reply_plan *p, char c) {
    if (p->n_bytes == REPLY_PLAN_BYTES) return false;
    p->bytes[p->n_bytes++] = c;
    return true;
}

static bool set_mark(reply_plan *p, int m, const char *text, const reply_special *special,
                     size_t n) {
    const str t = str_of(text);
    const size_t from = p->n_bytes;
    for (size_t i = 0; i < t.len;) {
        const str rest = {t.ptr + i, t.len - i};
        const int k = special_at(special, n, rest);
        if (k < 0) {
            if (!add_byte(p, t.ptr[i++])) return false;
            continue;
        }
        const int number = number_of(p, &special[k]);
        if (number < 0 || !add_byte(p, SPECIAL_BYTE) || !add_byte(p, (char)(number + 1)))
            return false;
        i += special[k].text.len;
    }
    p->text[m] = t;
    p->mark[m] = (str){p->bytes + from, p->n_bytes - from};
    return true;
}

bool reply_plan_init(reply_plan *p, const reply_format *f, str template,
                     const reply_special *special, size_t n) {
    p->format = f;
    p->single = false;
    p->n_special = 0;
    p->n_bytes = 0;
    memset(p->text, 0, sizeof p->text);
    memset(p->mark, 0, sizeof p->mark);
    for (int m = 0; f && m < MARK_N; m++)
        if (f->mark[m] && !set_mark(p, m, f->mark[m], special, n)) return false;
    if (f && (f->shape == SHAPE_CHANNELS || f->mark[MARK_THINK])) return true;
    for (size_t i = 0; i < sizeof thinking / sizeof *thinking; i++) {
        if (str_find(template, str_of(thinking[i][1]), 0) == SIZE_MAX) continue;
        return set_mark(p, MARK_THINK, thinking[i][0], special, n) &&
               set_mark(p, MARK_THINK_END, thinking[i][1], special, n);
    }
    return true;
}
