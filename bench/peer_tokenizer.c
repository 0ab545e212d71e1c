/* The counterpart of bench_tokenizer.c for llama.cpp, which bench_tokenizer.py compiles against
 * libllama; no part of vramd. Same arguments, same output. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <llama.h>

static void quiet(enum ggml_log_level level, const char *text, void *arg) {
    (void)level, (void)text, (void)arg;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    llama_log_set(quiet, NULL);
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    struct llama_model *model = llama_model_load_from_file(argv[1], params);
    FILE *f = fopen(argv[2], "rb");
    if (!model || !f) return 2;
    static char text[16 << 20];
    size_t len = fread(text, 1, sizeof text, f), piece = (size_t)atoll(argv[3]);
    static llama_token ids[16 << 20];
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    double start = 0, took = 0;
    uint64_t hash = 0, n_tokens = 0, passes = 0;
    for (int counted = 0; !counted || took < atof(argv[4]); counted = 1) {
        if (counted && passes == 0) start = now();
        for (size_t at = 0; at < len; at += piece) {
            size_t n = len - at < piece ? len - at : piece;
            int32_t got =
                llama_tokenize(vocab, text + at, (int32_t)n, ids, 16 << 20, false, false);
            if (got < 0) return 3;
            for (int32_t i = 0; !counted && i < got; i++)
                hash = (hash ^ (uint32_t)ids[i]) * 0x100000001b3u;
            n_tokens += counted ? 0 : (uint64_t)got;
        }
        passes += (uint64_t)counted;
        if (counted) took = now() - start;
    }
    printf("{\"mb_per_s\": %.3f, \"tokens\": %llu, \"hash\": \"%016llx\"}\n",
           (double)len * (double)passes / took / 1e6, (unsigned long long)n_tokens,
           (unsigned long long)hash);
    return 0;
}
