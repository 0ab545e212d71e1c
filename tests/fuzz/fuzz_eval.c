/* module: daemon */
/* References of vramd eval: any bytes as a header and a record. What the checks let through can be
 * compared with a row of logits without reading beyond it. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "daemon/eval/eval_ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { V = 300 };

/* Half of all inputs get the right checksums, so that the checks behind them are reached. */
static void look_at_header(const uint8_t *data, size_t n, bool seal) {
    eval_header h = {0};
    err e;
    memcpy(&h, data, n < sizeof h ? n : sizeof h);
    if (seal) eval_header_seal(&h);
    const uint64_t bytes = sizeof h + h.n_records * sizeof(eval_record);
    const status s = eval_header_check(&h, seal ? bytes : n, &e);
    if (s != OK) {
        CHECK(e.text[0] && utf8_valid(str_of(e.text)));
        return;
    }
    CHECK(h.n_records >= 1 && h.context >= 2 && h.bos <= 1);
    CHECK(utf8_valid(str_of(h.model)) && utf8_valid(str_of(h.made_by)));
}

static void look_at_record(const uint8_t *data, size_t n, bool seal) {
    eval_record r = {0};
    err e;
    memcpy(&r, data, n < sizeof r ? n : sizeof r);
    if (seal) r.check = hash64(&r, offsetof(eval_record, check), hash_mix(1));
    if (eval_record_check(&r, V, 0, &e) != OK) {
        CHECK(e.text[0] && utf8_valid(str_of(e.text)));
        return;
    }
    float *row = malloc(V * sizeof *row); /* of its size, so that a read beyond it is found */
    CHECK(row);
    for (uint32_t i = 0; i < V; i++) row[i] = (float)(i % 7);
    volatile double kl = eval_record_kl(&r, row, -3);
    (void)kl;
    free(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) return 0;
    const bool seal = data[0] & 1;
    if (data[0] & 2)
        look_at_header(data + 1, n - 1, seal);
    else
        look_at_record(data + 1, n - 1, seal);
    return 0;
}
