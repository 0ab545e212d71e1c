/* The table. A row of bench/results/ cites a file that `make quality` writes; tests/daemon/
 * test_quality_table.c compares the two. */
#include "daemon/plan/quality_table.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

static const char measured[] = "bench/results/quality-smollm2-135m-instruct.q4_1.json";
static const char of_gemma[] = "bench/results/quality-gemma-3-270m.q4_k_m.json";
static const char llama_cpp[] = "llama.cpp, tools/perplexity/README.md";
static const char smollm2[] = "SmolLM2-135M-Instruct", gemma3[] = "Gemma-3-270M",
                  llama3[] = "Llama-3-8B";

/* Of the cache, by model, and of weights, each from the best to the worst: the search goes by this order. */
// clang-format off
static const quality_row rows[] = {
    {"f16",  true, 0.000001, 99.95,  0.00, 19990, smollm2, measured, NULL},
    {"bf16", true, 0.000048, 99.58,  -0.01, 19990, smollm2, measured, NULL},
    {"int8", true, 0.000219, 98.89,  0.04, 19990, smollm2, measured, NULL},
    {"q8_0", true, 0.000538, 98.44,  0.06, 19990, smollm2, measured, NULL},
    {"fp8",  true, 0.004361, 95.84,  0.46, 19990, smollm2, measured, NULL},
    {"int4", true, 0.005203, 95.16,  0.59, 19990, smollm2, measured, NULL},
    {"f16",  true, 0.0000003, 99.94, 0.00, 20000, gemma3, of_gemma, "gemma3"},
    {"bf16", true, 0.000026, 99.72, 0.00, 20000, gemma3, of_gemma, "gemma3"},
    {"q8_0", true, 0.000525, 98.56, 0.05, 20000, gemma3, of_gemma, "gemma3"},
    {"int8", true, 0.000591, 98.28, 0.02, 20000, gemma3, of_gemma, "gemma3"},
    {"fp8",  true, 0.011991, 92.38, 0.75, 20000, gemma3, of_gemma, "gemma3"},
    {"int4", true, 0.045260, 86.02, 3.63, 20000, gemma3, of_gemma, "gemma3"},
    {"q8_0",   false, 0.0014, 0, 0, 0, llama3, llama_cpp, NULL},
    {"q6_K",   false, 0.0055, 0, 0, 0, llama3, llama_cpp, NULL},
    {"q5_K_M", false, 0.0108, 0, 0, 0, llama3, llama_cpp, NULL},
    {"q4_K_M", false, 0.0313, 0, 0, 0, llama3, llama_cpp, NULL},
    {"q4_0",   false, 0.0719, 0, 0, 0, llama3, llama_cpp, NULL},
    {"q3_K_M", false, 0.1019, 0, 0, 0, llama3, llama_cpp, NULL},
};
// clang-format on

const quality_row *quality_at(size_t i) {
    return i < sizeof rows / sizeof *rows ? &rows[i] : NULL;
}

static const quality_row *find(str type, bool cache, const char *arch) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].cache == cache && str_of(rows[i].type).len == type.len &&
            strncasecmp(rows[i].type, type.ptr, type.len) == 0 &&
            (arch ? rows[i].arch && strcmp(rows[i].arch, arch) == 0 : !rows[i].arch))
            return &rows[i];
    return NULL;
}

const quality_row *quality_of_cache(str type, const char *arch) {
    const quality_row *own = find(type, true, arch);
    return own ? own : find(type, true, NULL);
}

const quality_row *quality_of_weights(str type) {
    return find(type, false, NULL);
}

/* Bits of most weights in a row. */
static double bits_of(dtype t) {
    const dtype_info *d = dtype_get((uint32_t)t);
    return d ? 8.0 * d->block_bytes / d->block_elems : 0;
}

const quality_row *quality_of_dtype(dtype t) {
    static const struct {
        dtype type;
        const char *row;
    } by_bits[] = {{DT_Q3_K, "q3_K_M"}, {DT_Q4_K, "q4_K_M"}, {DT_Q4_0, "q4_0"},
                   {DT_Q5_K, "q5_K_M"}, {DT_Q6_K, "q6_K"},   {DT_Q8_0, "q8_0"}};
    const size_t n = sizeof by_bits / sizeof *by_bits;
    for (size_t i = 0; i < n; i++)
        if (by_bits[i].type == t) return quality_of_weights(str_of(by_bits[i].row));
    for (size_t i = 0; i < n; i++)
        if (bits_of(t) <= bits_of(by_bits[i].type))
            return quality_of_weights(str_of(by_bits[i].row));
    return NULL;
}
