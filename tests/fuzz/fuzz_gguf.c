/* module: text */
/* Fuzzes the opening of a GGUF file: headers, config, program, rows, tokenizer. The input is
 * the file, as it is. What opens must hold together: every tensor inside the file, readable to
 * its last byte, found under its name; a tokenizer of the planned size that streams the text of
 * its own tokens as valid UTF-8. One thread. */
#include "base/utf8.h"
#include "model/model.h"
#include "text/tokenizer/tokenizer.h"
#include "tests/model/gguf_build.h"

static void count_line(void *arg, const char *line) {
    CHECK(line[0] != '\0');
    ++*(uint32_t *)arg;
}

static void check_tensors(const gguf *g, uint64_t file_bytes) {
    err e;
    char byte;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        CHECK(gguf_tensor_find(g, t->name) == t);
        CHECK(t->offset % gguf_alignment(g) == 0);
        CHECK(t->bytes > 0 && t->offset <= file_bytes && t->bytes <= file_bytes - t->offset);
        CHECK(gguf_read(g, t, t->bytes - 1, &byte, 1, &e) == OK);
    }
}

/* Every element is touched, so that a sanitizer sees what lies outside. */
static void check_metadata(const gguf *g) {
    uint64_t sum = 0;
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        if (kv->type == GGUF_STRING)
            for (size_t k = 0; k < kv->s.len; k++) sum += (unsigned char)kv->s.ptr[k];
        if (kv->type != GGUF_ARRAY) continue;
        CHECK(kv->a.type != GGUF_ARRAY);
        for (uint64_t k = 0; kv->a.type == GGUF_STRING && k < kv->a.n; k++) {
            str s = ((const str *)kv->a.v)[k];
            if (s.len) sum += (unsigned char)s.ptr[0] + (unsigned char)s.ptr[s.len - 1];
        }
    }
    CHECK(sum < UINT64_MAX);
}

static void check_program(const model *m) {
    const program *p = &m->program;
    uint32_t lines = 0;
    err e;
    program_print(p, count_line, &lines);
    CHECK(lines == p->n_ops);
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        void *row = malloc(weight_bytes(w) / w->rows);
        CHECK(row && model_read_rows(m, i, w->rows - 1, 1, row, &e) == OK);
        free(row);
    }
}

/* Every token is streamed, and its text encoded again into tokens that exist. */
static void use_tokenizer(const tokenizer *t) {
    vec_i32 ids = {0};
    buf out = {0};
    detok d;
    err e;
    detok_init(&d, t, true);
    for (uint32_t i = 0; i < tokenizer_n_vocab(t); i++) {
        str piece = tokenizer_piece(t, (int32_t)i, true);
        CHECK(tokenizer_encode(t, piece, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, &ids, &e) == OK);
        detok_push(&d, (int32_t)i, &out);
    }
    detok_finish(&d, &out);
    CHECK(utf8_valid(buf_str(&out)));
    for (size_t i = 0; i < ids.n; i++)
        CHECK(ids.v[i] >= 0 && (uint32_t)ids.v[i] < tokenizer_n_vocab(t));
    buf_clear(&out);
    vec_i32_clear(&ids);
}

static void check_tokenizer(const checkpoint *file) {
    tokenizer *t = NULL;
    err e = {0};
    uint64_t planned = tokenizer_plan_bytes(file);
    status s = tokenizer_open(&t, file, chunks_heap(), &e);
    CHECK(s == e.code && (s == OK) == (t != NULL));
    CHECK(s == OK || (e.field[0] && e.text[0]));
    if (s != OK) return;
    CHECK(tokenizer_bytes(t) == planned);
    use_tokenizer(t);
    tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    gguf *g = NULL;
    model *m = NULL;
    err e = {0};
    int fd = gb_memfd(data, n);
    status s = gguf_open_fd(&g, fd, "fuzz.gguf", &e);
    close(fd);
    CHECK(s == e.code && (s == OK) == (g != NULL));
    CHECK(s == OK || (e.field[0] && e.text[0]));
    if (s != OK) return 0;
    check_metadata(g);
    check_tensors(g, n);
    s = model_open(&m, gguf_checkpoint(g), &e);
    CHECK(s == OK || (s == e.code && e.field[0] && e.text[0]));
    if (s == OK) check_program(m);
    model_close(m);
    check_tokenizer(gguf_checkpoint(g));
    gguf_close(g);
    return 0;
}
