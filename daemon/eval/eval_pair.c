/* Hashes and names of a reference. Main thread. */
#include "daemon/eval/eval_pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

status eval_hash_weights(const checkpoint *c, uint64_t out[2], err *e) {
    static const uint64_t key[2] = {0, 0};
    uint64_t word[4] = {0};
    status s = OK;
    for (size_t i = 0; i < checkpoint_n_tensors(c) && s == OK; i++) {
        const tensor_info t = checkpoint_tensor(c, i);
        const uint64_t rows = t.ne[1] * t.ne[2] * t.ne[3], head = sizeof word + sizeof t.ne;
        const size_t name = strlen(t.name);
        uint64_t bytes;
        CHECK(dtype_bytes(t.type, 1, t.ne[0], &bytes)); /* the parser has seen to it */
        char *all = malloc(head + 2 * bytes + name);
        if (!all) return err_set(e, ERR_NO_MEMORY, "no memory for a row of weights");
        word[2] = t.type, word[3] = name;
        memcpy(all, word, sizeof word); /* begins with the hash of the tensors before */
        memcpy(all + sizeof word, t.ne, sizeof t.ne);
        s = checkpoint_read_rows(c, i, 0, 1, all + head, e);
        if (s == OK) s = checkpoint_read_rows(c, i, rows - 1, 1, all + head + bytes, e);
        memcpy(all + head + 2 * bytes, t.name, name);
        siphash_bytes(key, all, head + 2 * bytes + name, SIPHASH_2_4, word);
        free(all);
    }
    memcpy(out, word, 2 * sizeof *out);
    return s;
}

static status mismatch(const eval_file *f, err *e, const char *what, const char *hint) {
    err_set(e, ERR_INVALID, "%s was written for %s", f->path, what);
    err_hint(e, "%s", hint);
    return err_field(e, "reference");
}

status eval_check_pairing(const eval_file *f, const eval_text *t, const uint64_t *weights,
                          const machine *m, err *e) {
    const eval_header *h = &f->header;
    char what[sizeof e->text];
    const bool same_text = memcmp(h->text, t->text_hash, sizeof h->text) == 0;
    if (h->n_vocab != m->model->program.config.n_vocab) {
        snprintf(what, sizeof what, "a vocabulary of %u tokens, that of %s; %.80s has %u",
                 h->n_vocab, h->model, m->name, m->model->program.config.n_vocab);
        return mismatch(f, e, what, "write one for this model");
    }
    if (h->context != t->context) {
        snprintf(what, sizeof what, "windows of %u tokens, these have %u", h->context,
                 t->context);
        return mismatch(f, e, what, "leave --context out");
    }
    if (!same_text)
        return mismatch(f, e, "another text", "give the text that it was written for");
    if (h->n_tokens != t->n_tokens || h->bos != t->bos) {
        snprintf(what, sizeof what, "%llu tokens of this text, here are %llu",
                 (unsigned long long)h->n_tokens, (unsigned long long)t->n_tokens);
        return mismatch(f, e, what, "leave --tokens out; is it the same tokenizer?");
    }
    if (memcmp(h->tokens, t->tokens_hash, sizeof h->tokens) != 0)
        return mismatch(f, e, "another tokenizer: the text's tokens differ",
                        "write one for this model");
    if (!weights || memcmp(h->weights, weights, sizeof h->weights) == 0) return OK;
    snprintf(what, sizeof what, "other weights than %.80s has: %s", m->name, h->model);
    return mismatch(f, e, what, "--other-weights compares all the same");
}

void eval_name_reference(eval_header *h, const eval_text *t, const uint64_t weights[2],
                         const machine *m, const engine_info *engine) {
    char line[sizeof h->made_by];
    *h = (eval_header){.n_vocab = m->model->program.config.n_vocab,
                       .context = t->context,
                       .bos = t->bos,
                       .n_tokens = t->n_tokens,
                       .n_records = t->n_scored};
    memcpy(h->weights, weights, sizeof h->weights);
    memcpy(h->text, t->text_hash, sizeof h->text);
    memcpy(h->tokens, t->tokens_hash, sizeof h->tokens);
    snprintf(line, sizeof line, "KV cache K %s, V %s; %s: %s; vramd " VRAMD_VERSION,
             dtype_name(m->engine_opt.kv_k), dtype_name(m->engine_opt.kv_v), engine->name,
             engine->detail);
    err clean; /* its text is what err_set leaves of anything: one line of UTF-8 */
    err_set(&clean, OK, "%.120s", m->name);
    snprintf(h->model, sizeof h->model, "%.127s", clean.text);
    err_set(&clean, OK, "%s", line);
    snprintf(h->made_by, sizeof h->made_by, "%.271s", clean.text);
}
