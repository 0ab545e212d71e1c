/* Which pre-tokenizer a tokenizer.json means: its stages are written down as one text, and that is
 * looked up. Source of the texts: the models' own files. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "model/hf_tokenizer.h"

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CL100K(digits)                                                                         \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                       \
                "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN35                                                                                 \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"                                \
                "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define O200K(suffix, digits)                                                                  \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]" \
    "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"                  \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" suffix "|" digits                                         \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK3                                                                              \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"                                   \
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|"    \
    "\\s+(?!\\S)|\\s+"
#define HAN_AND_KANA                                                                           \
    "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"

/* Stages, each with a line feed behind it: the pattern of a Split; DIGITS, every digit alone; BYTES,
 * the pattern of ByteLevel. */
#define DIGITS "<digits>\n"
#define BYTES  "<bytes>\n"

typedef struct known_pre {
    const char *stages, *name;
    bool ignore_merges;
} known_pre;

static const known_pre known[] = {
    {BYTES, "gpt-2", false},
    {DIGITS BYTES, "smollm", false},
    {CL100K("\\p{N}{1,3}") "\n", "llama-bpe", true},
    {CL100K("\\p{N}{1,3}") "\n", "dbrx", false},
    {CL100K("\\p{N}") "\n", "qwen2", false},
    {QWEN35 "\n", "qwen35", false},
    {O200K("", "\\p{N}") "\n", "tekken", true},
    {O200K(CONTRACTION "?", "\\p{N}{1,3}") "\n", "gpt-4o", false},
    {"\\p{N}{1,3}\n" HAN_AND_KANA "\n" DEEPSEEK3 "\n", "deepseek-v3", false},
};

static status unsupported(err *e, const char *what) {
    return err_set(e, ERR_UNSUPPORTED, "%.300s", what);
}

static str text_of(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_in_text(v) : STR("");
}

/* Parts that match stay whole, and so does what lies between them. */
static status split_stage(buf *b, const json_t *o, err *e) {
    const json_t *pattern = json_object_get(o, "pattern");
    const str regex = text_of(pattern, "Regex"), behavior = text_of(o, "behavior");
    const bool invert = json_is_true(json_object_get(o, "invert"));
    const bool isolated = str_eqz(behavior, "Isolated") && !invert;
    const bool removed = str_eqz(behavior, "Removed") && invert;
    if (!regex.len) return unsupported(e, "a Split without a Regex is not supported");
    if (!isolated && !removed)
        return unsupported(e,
                           "a Split that is neither Isolated, nor Removed and inverted, is not "
                           "supported");
    buf_add(b, regex);
    buf_addc(b, '\n');
    return OK;
}

static status one_stage(buf *b, const json_t *o, err *e) {
    const str type = text_of(o, "type");
    char what[160];
    if (str_eqz(type, "Split")) return split_stage(b, o, e);
    if (str_eqz(type, "ByteLevel")) {
        const json_t *use = json_object_get(o, "use_regex");
        if (json_is_true(json_object_get(o, "add_prefix_space")))
            return unsupported(e, "ByteLevel with add_prefix_space is not supported");
        if (!use || json_is_true(use)) buf_add(b, STR(BYTES));
        return OK;
    }
    if (str_eqz(type, "Digits") && json_is_true(json_object_get(o, "individual_digits"))) {
        buf_add(b, STR(DIGITS));
        return OK;
    }
    snprintf(what, sizeof what, "the pre_tokenizer \"%.*s\" is not supported here",
             (int)(type.len < 60 ? type.len : 60), type.ptr);
    return unsupported(e, what);
}

static status all_stages(buf *b, const json_t *pre, err *e) {
    const json_t *list = json_object_get(pre, "pretokenizers");
    status s = OK;
    if (!str_eqz(text_of(pre, "type"), "Sequence")) return one_stage(b, pre, e);
    for (size_t i = 0; i < json_array_size(list) && s == OK; i++)
        s = one_stage(b, json_array_get(list, i), e);
    return s;
}

status hf_pre_name(const char **name, const json_t *tokenizer, bool ignore_merges,
                   arena *scratch, err *e) {
    buf b;
    *name = NULL;
    buf_init(&b, scratch);
    status s = all_stages(&b, json_object_get(tokenizer, "pre_tokenizer"), e);
    if (s != OK) return s;
    if (b.failed) return err_set(e, ERR_NO_MEMORY, "no memory to read tokenizer.json");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_eqz(buf_str(&b), known[i].stages) && known[i].ignore_merges == ignore_merges)
            return *name = known[i].name, OK;
    char what[300];
    snprintf(what, sizeof what, "%.*s%s", (int)(b.len && b.len < 200 ? b.len - 1 : 200),
             b.len ? b.ptr : "none", ignore_merges ? " (ignore_merges)" : "");
    return unsupported(e, what);
}
