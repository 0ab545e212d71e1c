/* module: text */
/* Encoding: a text in pieces of so many bytes, over and over for a while, after one pass that
 * is not counted. Prints one JSON object; bench_tokenizer.py runs it in turn with its counterpart of
 * llama.cpp (peer_tokenizer.c), and compares the ids' hash.
 *
 *   bench_tokenizer VOCABULARY.gguf TEXT PIECE_BYTES SECONDS */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/check.h"
#include "base/hash.h"
#include "text/tokenizer/tokenizer.h"

typedef struct pass {
    size_t n_tokens;
    uint64_t hash;
} pass;

static pass encode_all(const tokenizer *t, str text, size_t piece, vec_i32 *ids) {
    pass p = {0, 0};
    err e;
    for (size_t at = 0; at < text.len; at += piece) {
        size_t n = text.len - at < piece ? text.len - at : piece;
        ids->n = 0;
        CHECK(tokenizer_encode(t, (str){text.ptr + at, n}, 0, ids, &e) == OK);
        p.n_tokens += ids->n;
        for (size_t i = 0; i < ids->n; i++)
            p.hash = (p.hash ^ (uint32_t)ids->v[i]) * 0x100000001b3u;
    }
    return p;
}

/* Of the processor: what else runs on the machine does not count. */
static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool read_file(const char *path, buf *out) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    for (size_t n = 1; n; out->len += n) {
        CHECK(buf_reserve(out, 1 << 16));
        n = fread(out->ptr + out->len, 1, 1 << 16, f);
    }
    fclose(f);
    return true;
}

int main(int argc, char **argv) {
    checkpoint *g;
    tokenizer *t;
    err e;
    buf text = {0};
    vec_i32 ids = {0};
    if (argc != 5 || checkpoint_open(&g, argv[1], &e) != OK ||
        tokenizer_open(&t, g, chunks_heap(), &e) != OK || !read_file(argv[2], &text)) {
        fprintf(stderr, "bench_tokenizer: %s\n", argc == 5 ? e.text : "four arguments");
        return 2;
    }
    size_t piece = (size_t)atoll(argv[3]), passes = 0;
    double took;
    pass p = encode_all(t, buf_str(&text), piece, &ids);
    double start = cpu_seconds();
    do {
        encode_all(t, buf_str(&text), piece, &ids);
        passes++;
        took = cpu_seconds() - start;
    } while (took < atof(argv[4]));
    printf("{\"mb_per_s\": %.3f, \"tokens\": %zu, \"hash\": \"%016llx\"}\n",
           (double)text.len * (double)passes / took / 1e6, p.n_tokens,
           (unsigned long long)p.hash);
    vec_i32_clear(&ids);
    buf_clear(&text);
    tokenizer_close(t);
    checkpoint_close(g);
    return 0;
}
