/* The pre-tokenizers: which patterns each value of tokenizer.ggml.pre stands for. The names are
 * those that llama.cpp's converter writes; the patterns are those of the models' own
 * tokenizer.json, which sometimes are not what llama.cpp makes of them (tekken, gpt-4o: upper
 * and lower case beyond ASCII). Not here are those that need more than patterns: digits in
 * threes from the right (superbpe, tiny_aya, cohere2moe, afmoe), SentencePiece with a list of
 * merges (gemma4, sarvam-moe), or belong to models that embed.
 *
 * Where a pattern can run over a whole text, it must not look at a part of it twice: possessive
 * (++) or atomic where that changes nothing. */
#include "text/tokenizer/tokenizer_in.h"

/* White space as Unicode defines it (property White_Space). PCRE2's \s has U+180E too, which
 * the tokenizers' own regular expressions do not. */
#define SPACE "\\t-\\r\\x{85}\\p{Z}"
#define WORD  "\\p{L}\\p{N}"
#define BLANK "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"

/* openai/gpt-2, src/encoder.py. */
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE WORD "]+|" BLANK

/* Every digit (\p{N}) is cut out first, then GPT-2's pattern runs on what lies between. As one
 * pattern: digits stand alone, and to white space a digit is the end of the text. */
#define DIGITS_GPT2                                                                            \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?[^" SPACE WORD "]+|[" SPACE "]+(?![^" SPACE    \
    "\\p{N}])|[" SPACE "]+"

/* Llama 3's and Qwen2's: the same but for how many digits make a word. */
#define CONTRACTION       "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SYMBOLS           " ?[^" SPACE WORD "]+[\\r\\n]*"
#define NEWLINES          "[" SPACE "]*[\\r\\n]+"
#define WORDS_AND(digits) "[^\\r\\n" WORD "]?\\p{L}+|" digits "|" SYMBOLS "|" NEWLINES "|"
#define CL100K(digits)    CONTRACTION "|" WORDS_AND(digits) BLANK
#define THREE_DIGITS      "\\p{N}{1,3}"

/* As Qwen2, with combining marks inside of words. */
#define QWEN35                                                                                 \
    CONTRACTION "|[^\\r\\n" WORD "]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACE WORD                    \
                "\\p{M}]+[\\r\\n]*|" NEWLINES "|" BLANK

/* tiktoken's o200k_base: a new word where lower case becomes upper. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K(suffix, digits)                                                                  \
    "[^\\r\\n" WORD "]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n" WORD "]?" UPPER "+" LOWER      \
    "*" suffix "|" digits "| ?[^" SPACE WORD "]+[\\r\\n/]*|" NEWLINES "|" BLANK

/* Kimi K2, as its own tokenizer has it: o200k_base's words, but Han characters are words of their own: those
 * of the script, where PCRE2's plain name also means characters that others share with it. */
#define HAN              "\\p{sc:Han}"
#define NOT_HAN(letters) "(?:(?!" HAN ")" letters ")"
#define KIMI_SUFFIX      CONTRACTION "?"
#define KIMI_K2                                                                                \
    HAN "+|[^\\r\\n" WORD                                                                      \
        "]?" NOT_HAN(UPPER) "*" NOT_HAN(LOWER) "+" KIMI_SUFFIX "|[^\\r\\n" WORD "]?" NOT_HAN(  \
            UPPER) "+" NOT_HAN(LOWER) "*" KIMI_SUFFIX "|" THREE_DIGITS "|" SYMBOLS             \
                                      "|" NEWLINES "|" BLANK

/* DeepSeek LLM: cased letters of an older Unicode, punctuation by its code, scripts of the
 * Far East (U+0800 on). */
#define CASED                                                                                  \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"             \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"     \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"              \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}"                   \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"             \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"             \
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}"             \
    "\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}"     \
    "\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}"    \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"              \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}"               \
    "\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}"    \
    "\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}"     \
    "\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"              \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}"             \
    "\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"           \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"     \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
#define FAR_EAST "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+"

/* DeepSeek V3. */
#define ASCII_PUNCTUATION "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define HAN_AND_KANA      "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+"
#define DEEPSEEK3(symbols, newlines)                                                           \
    ASCII_PUNCTUATION "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|" symbols         \
                      "|" newlines "|" BLANK

/* BLOOM: words end at what also ends a sentence. */
#define BLOOM                                                                                  \
    " ?[^(" SPACE "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

#define JAIS2_BLANK                                                                            \
    "[" SPACE "]{512}(?![^" SPACE "])|[" SPACE "]{256}(?![^" SPACE "])|[" SPACE                \
    "]{128}(?![^" SPACE "])|[" SPACE "]{64}(?![^" SPACE "])|[" SPACE "]{32}(?![^" SPACE        \
    "])|[" SPACE "]{16}(?![^" SPACE "])|[" SPACE "]{8}(?![^" SPACE "])|[" SPACE                \
    "]{4}(?![^" SPACE "])|[" SPACE "]{1,2}(?![^" SPACE "])|[" SPACE "]"

static const tok_pre rows[] = {
    {.names = "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum "
              "modern-bert exaone4 mpt gpt-neox olmo jais trillion granite-docling",
     .stage = {GPT2},
     .ascii_words = true},
    {.names = "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
     .stage = {DIGITS_GPT2},
     .ascii_words = true},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .stage = {CL100K(THREE_DIGITS)},
     .ascii_words = true,
     .ignore_merges = true,
     .adds_bos = true},
    {.names = "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
     .stage = {CL100K("\\p{N}")},
     .ascii_words = true},
    {.names = "dbrx smaug-bpe chatglm-bpe",
     .stage = {CL100K(THREE_DIGITS)},
     .ascii_words = true},
    {.names = "glm4 glm5",
     .stage = {CL100K(THREE_DIGITS)},
     .ascii_words = true,
     .ignore_merges = true},
    {.names = "kimi-k2", .stage = {KIMI_K2}, .ignore_merges = true},
    {.names = "qwen35", .stage = {QWEN35}, .ascii_words = true},
    {.names = "deepseek-llm",
     .stage = {"[\\r\\n]", "[" SPACE "]?[" CASED "]+",
               "[" SPACE "]?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}"
               "\\x{3000}-\\x{3002}]+",
               "(?<![" SPACE "])[" SPACE "]++\\z", FAR_EAST, "\\p{N}+"}},
    {.names = "deepseek-coder",
     .stage = {"[\\r\\n]", "[" SPACE "]?\\p{L}+", "[" SPACE "]?\\p{P}+", FAR_EAST, "\\p{N}"}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .stage = {THREE_DIGITS, HAN_AND_KANA, DEEPSEEK3(" ?[\\p{P}\\p{S}]+[\\r\\n]*", NEWLINES)}},
    {.names = "spark2_5",
     .stage = {THREE_DIGITS, HAN_AND_KANA, DEEPSEEK3(" ?[\\p{P}\\p{S}]+", "[\\r\\n]"),
               "\\p{N}"}},
    {.names = "falcon", .stage = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9]+", "[0-9][0-9][0-9]"}},
    {.names = "tekken",
     .stage = {O200K("", "\\p{N}")},
     .ignore_merges = true,
     .adds_bos = true},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2",
     .stage = {O200K(CONTRACTION "?", THREE_DIGITS)}},
    {.names = "youtu",
     .stage = {"[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}"
               "\\x{2018}\\x{2019}\\x{2014}\\x{ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}"
               "\\x{fe30}-\\x{fe4f}]+|[\\x{3105}-\\x{312f}]+|" HAN_AND_KANA,
               O200K(CONTRACTION "?", "\\p{N}")},
     .ignore_merges = true},
    {.names = "bloom poro-chat gpt3-finnish", .stage = {BLOOM}},
    {.names = "viking", .stage = {BLOOM, "\\p{N}"}},
    {.names = "chameleon",
     .stage = {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}",
               "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
     .adds_bos = true},
    {.names = "jais-2",
     .stage = {CONTRACTION "|" WORDS_AND(THREE_DIGITS) JAIS2_BLANK},
     .ascii_words = true},
    {.names = "bailingmoe bailingmoe2 llada-moe",
     .stage = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n" WORD "]?\\p{L}+|\\p{N}|" SYMBOLS "|[" SPACE
               "]*[\\r\\n]|" BLANK},
     .ascii_words = true},
    {.names = "seed-coder",
     .stage = {CONTRACTION "|[^\\r\\n" WORD "]?\\p{L}+|\\p{N}| ?[^" SPACE WORD
                           "\\r\\n]+|" NEWLINES "|" BLANK},
     .ascii_words = true},
    {.names = "ufakzeka", .stage = {WORDS_AND("\\p{N}") BLANK}, .ascii_words = true},
    {.names = "laguna", .stage = {"[^\\n]+|\\n+", CL100K("\\p{N}")}},
    {.names = "exaone-moe",
     .stage = {CONTRACTION "|[^\\r\\n" WORD
                           "]?(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|\\p{N}| "
                           "?[^" SPACE WORD "]+[\\r\\n/]?|[" SPACE "]*[\\r\\n]|" BLANK}},
    /* What llama.cpp does where a file names none: right for few models (docs/tokenizers.md). */
    {.names = "default", .stage = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = "minicpm5", .stage = {THREE_DIGITS, CL100K("\\p{N}+")}, .ignore_merges = true},
};

const tok_pre *tok_pre_rows(size_t *n) {
    *n = sizeof rows / sizeof *rows;
    return rows;
}
