/* Which pre-tokenizer a tokenizer.json means: one that text/ has a fast row for, by the exact texts
 * of its stages, else its own patterns. Source of the texts: the models' own files. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "model/hf/hf_tokenizer.h"
#include "memory/term.h"

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
#define KIMI_CLASS(letters) "[" letters "\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI_UPPER          KIMI_CLASS("\\p{Lu}\\p{Lt}")
#define KIMI_LOWER          KIMI_CLASS("\\p{Ll}")
#define KIMI_K2                                                                                \
    "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "*" KIMI_LOWER "+" CONTRACTION             \
    "?|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "+" KIMI_LOWER "*" CONTRACTION                       \
    "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define HAN_AND_KANA                                                                           \
    "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"

/* Stages, each with a line feed behind it: the pattern of a Split; DIGITS, every digit alone; BYTES,
 * the pattern of ByteLevel. */
#define DIGITS "<digits>"
#define BYTES  "<bytes>"

typedef struct known_pre {
    const char *stages, *name;
    bool ignore_merges;
} known_pre;

static const known_pre known[] = {
    {BYTES "\n", "gpt-2", false},
    {DIGITS "\n" BYTES "\n", "smollm", false},
    {CL100K("\\p{N}{1,3}") "\n", "llama-bpe", true},
    {CL100K("\\p{N}{1,3}") "\n", "dbrx", false},
    {CL100K("\\p{N}") "\n", "qwen2", false},
    {QWEN35 "\n", "qwen35", false},
    {O200K("", "\\p{N}") "\n", "tekken", true},
    {O200K(CONTRACTION "?", "\\p{N}{1,3}") "\n", "gpt-4o", false},
    {KIMI_K2 "\n", "kimi-k2", true},
    {"\\p{N}{1,3}\n" HAN_AND_KANA "\n" DEEPSEEK3 "\n", "deepseek-v3", false},
};

enum { MAX_STAGES = 8 };

typedef struct stages {
    str v[MAX_STAGES];
    size_t n;
    err *e;
} stages;

static status unsupported(err *e, const char *what) {
    err_set(e, ERR_UNSUPPORTED, "tokenizer.json: %.300s", what);
    err_field(e, "tokenizer.json: pre_tokenizer");
    return err_hint(e, "serve a GGUF file of the model");
}

static str text_of(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_in_text(v) : STR("");
}

static status add(stages *s, str stage) {
    if (s->n == MAX_STAGES) return unsupported(s->e, "more than 8 pre_tokenizers");
    if (memchr(stage.ptr, 0, stage.len)) return unsupported(s->e, "a Regex with a NUL");
    s->v[s->n++] = stage;
    return OK;
}

/* Parts that match stay whole, and so does what lies between them. */
static status split_stage(stages *s, const json_t *o) {
    const json_t *pattern = json_object_get(o, "pattern");
    const str regex = text_of(pattern, "Regex"), behavior = text_of(o, "behavior");
    const bool invert = json_is_true(json_object_get(o, "invert"));
    const bool isolated = str_eqz(behavior, "Isolated") && !invert;
    const bool removed = str_eqz(behavior, "Removed") && invert;
    if (!regex.len) return unsupported(s->e, "a Split without a Regex is not supported");
    if (isolated || removed) return add(s, regex);
    return unsupported(s->e, "a Split is supported that is Isolated, or Removed and inverted");
}

static status one_stage(stages *s, const json_t *o) {
    const str type = text_of(o, "type");
    char what[160];
    if (str_eqz(type, "Split")) return split_stage(s, o);
    if (str_eqz(type, "ByteLevel")) {
        const json_t *use = json_object_get(o, "use_regex");
        if (json_is_true(json_object_get(o, "add_prefix_space")))
            return unsupported(s->e, "ByteLevel with add_prefix_space is not supported");
        return !use || json_is_true(use) ? add(s, STR(BYTES)) : OK;
    }
    if (str_eqz(type, "Digits"))
        return add(s, json_is_true(json_object_get(o, "individual_digits")) ? STR(DIGITS)
                                                                            : STR("\\p{N}+"));
    snprintf(what, sizeof what, "the pre_tokenizer \"%.*s\" is not supported here",
             (int)(type.len < 60 ? type.len : 60), type.ptr);
    return unsupported(s->e, what);
}

static status all_stages(stages *s, const json_t *pre) {
    const json_t *list = json_object_get(pre, "pretokenizers");
    status st = OK;
    if (!str_eqz(text_of(pre, "type"), "Sequence")) return one_stage(s, pre);
    for (size_t i = 0; i < json_array_size(list) && st == OK; i++)
        st = one_stage(s, json_array_get(list, i));
    return st;
}

/* A property's name in braces behind \p or \P that is neither a category (L, Lu, L&) nor Any: a
 * script. */
static bool is_script(str rest) {
    return rest.len > 4 && rest.ptr[0] == '{' && islower((unsigned char)rest.ptr[2]) &&
           islower((unsigned char)rest.ptr[3]) && !str_starts(rest, STR("{Any}"));
}

/* Oniguruma's \s is Unicode's White_Space; PCRE2's has U+180E, too. A script's name means the script
 * there; in PCRE2 also the characters that it shares with others, unless sc: stands before it. */
static void translate(buf *b, str regex) {
    static const char space[] = "\\t-\\r\\x{85}\\p{Z}";
    bool class = false;
    for (size_t i = 0; i < regex.len; i++) {
        const char c = regex.ptr[i];
        if (c == '\\' && i + 1 < regex.len) {
            const char next = regex.ptr[++i];
            if (next == 's')
                buf_addf(b, class ? "%s" : "[%s]", space);
            else if (next == 'S' && !class)
                buf_addf(b, "[^%s]", space);
            else
                buf_addc(b, c), buf_addc(b, next);
            if ((next == 'p' || next == 'P') &&
                is_script((str){regex.ptr + i + 1, regex.len - i - 1}))
                buf_addf(b, "{sc:"), i++;
            continue;
        }
        class = class ? c != ']' : c == '[';
        buf_addc(b, c);
    }
}

#define BYTES_PATTERN                                                                          \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static str pattern_of(str stage) {
    return str_eqz(stage, BYTES)    ? STR(BYTES_PATTERN)
           : str_eqz(stage, DIGITS) ? STR("\\p{N}")
                                    : stage;
}

static bool keep_stages(facts *f, const stages *s, bool ignore_merges) {
    str *kept = arena_alloc(f->mem, MAX_STAGES * sizeof *kept);
    if (!kept) return false;
    for (size_t i = 0; i < s->n; i++) {
        buf b;
        buf_init(&b, f->mem);
        translate(&b, pattern_of(s->v[i]));
        kept[i] = (str){buf_cstr(&b), b.len};
        if (b.failed) return false;
    }
    facts_many(f, "tokenizer.pre.stages", FACT_STR, s->n, kept);
    facts_bool(f, "tokenizer.pre.ignore_merges", ignore_merges);
    return true;
}

static const char *known_name(const stages *s, bool ignore_merges) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *at = known[i].stages;
        size_t k = 0;
        for (;
             k < s->n && strncmp(at, s->v[k].ptr, s->v[k].len) == 0 && at[s->v[k].len] == '\n';
             k++)
            at += s->v[k].len + 1;
        if (k == s->n && !*at && known[i].ignore_merges == ignore_merges) return known[i].name;
    }
    return NULL;
}

status hf_pre_facts(facts *f, const json_t *tokenizer, bool ignore_merges, err *e) {
    stages s = {.e = e};
    status st = all_stages(&s, json_object_get(tokenizer, "pre_tokenizer"));
    if (st != OK) return st;
    const char *name = known_name(&s, ignore_merges);
    if (name) facts_str(f, "tokenizer.ggml.pre", str_of(name));
    for (size_t i = 0; !name && i < s.n; i++)
        if (memmem(s.v[i].ptr, s.v[i].len, "&&", 2))
            return unsupported(e, "a Regex with an intersection of classes (&&)");
    if (!name && !keep_stages(f, &s, ignore_merges))
        return mem_exhausted(e, MEM_LOADING, "the pre-tokenizer");
    return OK;
}
