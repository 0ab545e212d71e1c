/* Prints llama.cpp's logits, for peer_logits.py, which compiles this against libllama; no part
 * of vramd. One thread of its own; llama.cpp has more.
 *
 *   peer_logits MODEL THREADS FLASH(0|1) [VOCAB ARCH] < sequences > logits
 * stdin: per sequence int32 n, int32 n_last, int32 tokens[n]. stdout: per sequence
 * float32 logits[n_last][n_vocab] of its last n_last positions; the sequence is decoded in one
 * batch into an empty cache: of F16, or of F32 where VOCAB is given, the tokens of a MODEL of
 * architecture ARCH that has no vocabulary. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <llama.h>

static void quiet(enum ggml_log_level level, const char *text, void *arg) {
    (void)arg;
    if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static int run_sequence(struct llama_context *ctx, int32_t n, int32_t n_last, int32_t n_vocab) {
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    int rc = 1;
    if (fread(batch.token, sizeof(int32_t), (size_t)n, stdin) != (size_t)n) goto done;
    batch.n_tokens = n;
    for (int32_t i = 0; i < n; i++) {
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = i >= n - n_last;
    }
    llama_memory_clear(llama_get_memory(ctx), true);
    if (llama_decode(ctx, batch) != 0) goto done;
    for (int32_t i = n - n_last; i < n; i++) {
        const float *row = llama_get_logits_ith(ctx, i);
        if (!row || fwrite(row, sizeof(float), (size_t)n_vocab, stdout) != (size_t)n_vocab)
            goto done;
    }
    rc = 0;
done:
    llama_batch_free(batch);
    return rc;
}

/* What a file without a vocabulary lacks. */
static void without_vocabulary(struct llama_model_kv_override o[3], const char *n,
                               const char *arch) {
    memset(o, 0, 3 * sizeof *o);
    o[0].tag = LLAMA_KV_OVERRIDE_TYPE_STR;
    snprintf(o[0].key, sizeof o[0].key, "tokenizer.ggml.model");
    snprintf(o[0].val_str, sizeof o[0].val_str, "no_vocab");
    o[1].tag = LLAMA_KV_OVERRIDE_TYPE_INT;
    snprintf(o[1].key, sizeof o[1].key, "%s.vocab_size", arch);
    o[1].val_i64 = atoi(n);
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 6)
        return fprintf(stderr, "usage: peer_logits MODEL THREADS FLASH [VOCAB ARCH]\n"), 2;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model_kv_override over[3];
    struct llama_model_params how = llama_model_default_params();
    if (argc == 6) {
        without_vocabulary(over, argv[4], argv[5]);
        how.kv_overrides = over;
    }
    struct llama_model *model = llama_model_load_from_file(argv[1], how);
    if (!model) return fprintf(stderr, "peer_logits: cannot load %s\n", argv[1]), 1;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 2048;
    params.n_batch = 2048;
    params.n_threads = params.n_threads_batch = atoi(argv[2]);
    params.flash_attn_type =
        atoi(argv[3]) ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    if (argc == 6) params.type_k = params.type_v = GGML_TYPE_F32;
    struct llama_context *ctx = llama_init_from_model(model, params);
    if (!ctx) return fprintf(stderr, "peer_logits: no context\n"), 1;
    int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model)), head[2];
    while (fread(head, sizeof head, 1, stdin) == 1)
        if (head[0] < 1 || head[0] > 2048 || head[1] < 1 || head[1] > head[0] ||
            run_sequence(ctx, head[0], head[1], n_vocab))
            return fprintf(stderr, "peer_logits: decoding failed\n"), 1;
    return fflush(stdout) != 0;
}
