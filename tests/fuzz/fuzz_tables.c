/* module: engine */
/* Tables of a step (engine/tables.h) that nobody vouches for: the bytes themselves, or good
 * tables of a random batch with some words overwritten. What is accepted has numbers that an
 * engine can use as indexes, and means the same when it is written again. */
#include "engine/batch.h"
#include "tests/engine/tables_rig.h"

static void check_all(const tables_rig *r, const batch *b) {
    uint32_t rows = 0, logits = 0;
    CHECK(b->n_seqs <= TR_SEQS && b->n_copies <= TR_SEQS * (TR_GROUPS + 1));
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const batch_seq *s = &b->seq[i];
        CHECK(s->first_row == rows && s->n_rows > 0 && s->first_pos + s->n_rows <= TR_LEN);
        CHECK(s->n_logit_rows <= s->n_rows && (!s->sample || (s->params && s->n_logit_rows)));
        CHECK(s->n_blocks[0] <= TR_BLOCKS);
        CHECK(s->state < TR_STATES && s->n_checkpoints <= TR_CHECKPOINTS);
        rows += s->n_rows;
        logits += s->n_logit_rows;
        for (uint32_t k = 0; s->sample && k < s->params->n_bias; k++)
            CHECK(s->params->bias[k].token != INT32_MIN || s->tokens);
    }
    CHECK(rows == b->n_rows && logits == b->n_logit_rows);
    (void)r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static tables_rig r;
    batch got;
    err e;
    if (n < 2 || n > TR_BYTES) return 0;
    tr_make(&r, data[1]);
    uint64_t len = n - 2;
    if (data[0] & 1) {
        len = tr_fill(&r);
        for (size_t i = 2; i + 6 <= n; i += 6) { /* where, what */
            uint16_t at;
            memcpy(&at, data + i, 2);
            memcpy(r.bytes + at % (len / 4) * 4, data + i + 2, 4);
        }
    } else {
        memcpy(r.bytes, data + 2, n - 2);
    }
    /* An allocation of this length, so that a read past its end is seen. */
    unsigned char *bytes = aligned_alloc(64, align_up(len + 1, 64));
    CHECK(bytes);
    memcpy(bytes, r.bytes, len);
    if (tables_read(&got, bytes, len, &r.m, &r.o, &r.store, &e) == OK) {
        check_all(&r, &got);
        const tables_shape shape = tables_measure(&r.m, &got);
        tables_fill(r.bytes, &r.m, &shape, &got);
    } else {
        CHECK(e.code == ERR_INVALID && e.text[0] && e.field[0]);
    }
    free(bytes);
    return 0;
}
