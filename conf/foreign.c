/* Flags and words of vLLM and llama.cpp that vramd does not have, and what to do instead: for
 * those who come from there. Owns nothing; any thread. */
#include <string.h>
#include <strings.h>

#include "conf/option.h"

#define NO_DOWNLOAD                                                                            \
    "vramd serves a local file: download the .gguf file first, then --model FILE.gguf "        \
    "(README, \"Getting a model\")"
#define ONE_DEVICE "vramd uses one device: --backend cuda or --backend cpu, --cuda-device N"
#define OWN_TEMPLATE                                                                           \
    "chat templates are always rendered as jinja2 does; --chat-template FILE replaces the "    \
    "model's own"
#define AS_STORED                                                                              \
    "weights are used as stored in the file: choose a GGUF file of the type that you need, "   \
    "such as Q4_0, Q8_0 or BF16"

static const struct {
    const char *flags; /* space-separated, with dashes */
    const char *instead;
} table[] = {
    {"-hf -hfr -hff --hf-repo --hf-file -mu --model-url --download-dir --revision "
     "--load-format",
     NO_DOWNLOAD},
    {"--device -dev --main-gpu -mg", ONE_DEVICE},
    {"-ncmoe --cpu-moe -cmoe",
     "--n-cpu-moe N, of as many layers as have experts for all of them"},
    {"--data-parallel-size -dp --split-mode -sm --tensor-split -ts "
     "--distributed-executor-backend",
     ONE_DEVICE ". A model cannot be split among several"},
    {"--api-key --api-key-file",
     "vramd key NAME prints a new key and its line for a file; then --api-keys-file FILE"},
    {"--gpu-memory-utilization --gpu-memory-utilisation",
     "--memory 90%, or --memory 20GiB: the budget, of the GPU's memory with --backend cuda"},
    {"--dtype --quantization --quant", AS_STORED},
    {"--kv-cache-memory-bytes --cache-ram --num-gpu-blocks-override",
     "--kv-cache-tokens N sets the size of the KV cache; --memory BYTES the whole budget"},
    {"--cpu-offload-gb --swap-space --mlock --mmap --no-mmap --enforce-eager",
     "vramd reads the weights into memory that it has planned; there is nothing to set"},
    {"--jinja --no-jinja", OWN_TEMPLATE},
    {"--tokenizer --tokenizer-mode --trust-remote-code --config-format",
     "the tokenizer is read from the GGUF file; there is nothing to set"},
    {"--speculative-config --speculative-algorithm --spec-type "
     "--spec-ngram-size-n --spec-ngram-size-m --ngram-prompt-lookup-max "
     "--ngram-prompt-lookup-min",
     "--draft-model FILE, or --speculative lookup, and --speculative-tokens N"},
    {"--draft --draft-n --speculative-num-draft-tokens", "--speculative-tokens N"},
    {"-hfd --hf-repo-draft", "--draft-model FILE of a model that is here"},
    {"--draft-min --draft-p-min --draft-n-min",
     "how many guesses are verified goes by what they are worth; there is nothing to set"},
    {"-n --n-predict --predict",
     "vramd generate has --max-tokens N; a request to the server has \"max_tokens\""},
    {"--ubatch-size -ub", "--max-num-batched-tokens N"},
    {"-fa --flash-attn --attention-backend", "attention needs no option"},
    {"--cont-batching -cb --metrics --slots", "that is always on; there is nothing to set"},
    {"--embedding --rerank --reranking --task --runner --convert --pooler-config",
     "an encoder serves /v1/embeddings or /v1/rerank by itself, a decoder with --embeddings "
     "auto"},
    {"--lora --enable-lora --lora-modules",
     "LoRA adapters are not supported: merge them first"},
    {"--enable-auto-tool-choice --tool-call-parser", "there is nothing to set for tools"},
};

/* Types of a KV cache by other programs' words. */
#define FOUR_BITS "int4, or with keys of 8 bits: --cache-type-k int8 --cache-type-v int4"
static const struct {
    const char *word, *instead;
} cache_types[] = {{"q4_0", FOUR_BITS},
                   {"q4_1", FOUR_BITS},
                   {"q5_0", FOUR_BITS},
                   {"q5_1", FOUR_BITS},
                   {"iq4_nl", FOUR_BITS},
                   {"q8", "int8 or q8_0"},
                   {"fp8_e4m3", "fp8"},
                   {"fp8_inc", "fp8"},
                   {"fp8_e5m2", "int8 or fp8: with two bits behind the point, e5m2 is worse "
                                "than both at the same size"},
                   {"bfloat16", "bf16"},
                   {"float16", "f16"}};

const char *option_foreign_word(const char *name, const char *word) {
    if (strcmp(name, "kv_cache_dtype") != 0 && strncmp(name, "cache_type_", 11) != 0)
        return NULL;
    for (size_t i = 0; i < sizeof cache_types / sizeof *cache_types; i++)
        if (strcasecmp(cache_types[i].word, word) == 0) return cache_types[i].instead;
    return NULL;
}

const char *option_foreign(const char *flag) {
    const size_t n = strlen(flag);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (const char *at = table[i].flags, *end; *at; at = end + (*end == ' ')) {
            end = at + strcspn(at, " ");
            if ((size_t)(end - at) == n && memcmp(at, flag, n) == 0) return table[i].instead;
        }
    return NULL;
}
