/* module: sim */
/* Fuzzes the reading of step logs: the input is records without the magic. What is replayed keeps
 * the scheduler's invariants, and a record that was read is written again as the same bytes but for
 * numbers that were longer than they need be. One thread. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "sim/replay.h"

enum { AUDITED = 1000 };

static void count(void *arg, const record_step *st, uint64_t us) {
    (void)st;
    (void)us;
    ++*(uint64_t *)arg;
}

static void read_and_write(str text) {
    record_memory memory = {0}, again = {0};
    record r, same;
    err e;
    uint8_t *out = malloc(text.len + 64);
    CHECK(out);
    while (record_read(&r, &text, &memory, &e) == OK) {
        const size_t n = record_write(&r, out, text.len + 64);
        str written = {(const char *)out, n};
        if (n == 0) continue;
        CHECK(record_read(&same, &written, &again, &e) == OK && written.len == 0);
        CHECK(same.kind == r.kind && same.value == r.value && same.id == r.id);
    }
    free(out);
    record_memory_clear(&memory);
    record_memory_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    replay_result result;
    sched_config cfg;
    uint64_t n_timed = 0;
    err e;
    char *file = malloc(n + RECORD_MAGIC_BYTES);
    CHECK(file);
    memcpy(file, RECORD_MAGIC, RECORD_MAGIC_BYTES);
    memcpy(file + RECORD_MAGIC_BYTES, data, n);
    const str text = {file, n + RECORD_MAGIC_BYTES};
    read_and_write((str){file + RECORD_MAGIC_BYTES, n});
    replay_run(text, 4 << 20, n < AUDITED, &result, &e); /* an audit takes long */
    replay_steps(text, count, &n_timed, &e);
    double host_us;
    if (replay_host_us(text, &host_us, &e) == OK) CHECK(host_us >= 0);
    replay_config(text, &cfg, &e);
    free(file);
    return 0;
}
