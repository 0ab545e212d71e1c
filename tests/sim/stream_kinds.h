/* What a stream (stream.h) is set to before it runs. */
#ifndef VRAMD_TESTS_SIM_STREAM_KINDS_H
#define VRAMD_TESTS_SIM_STREAM_KINDS_H

#include "tests/sim/stream.h"

/* Any combination, each half of the time: one policy of five, and one way of batching in four is
 * not the continuous one. */
static inline void stream_choose(stream *m, uint64_t seed) {
    const uint64_t bits = hash_mix(seed + 0x51a7e5);
    m->crowded = bits & 1;
    m->drafts = bits & 2;
    m->resizes = bits & 4;
    m->tier = bits & 8;
    m->timed = bits & 16;
    m->forgets = bits & 32;
    m->rows_once = bits & 64;
    m->stalls = bits & 128;
    const uint64_t policy = (bits >> 8) % 5;
    m->aging = policy == 1;
    m->fair = policy == 2;
    m->priority = policy == 3;
    m->shortest = policy == 4;
    m->ttft_first = bits >> 20 & 1;
    m->host = bits >> 21 & 1;
    m->states = bits >> 22 & 1;
    m->tier &= !m->states;
    const uint64_t batching = (bits >> 16) % 8;
    m->batching = batching == 0   ? BATCHING_DYNAMIC
                  : batching == 1 ? BATCHING_STATIC
                                  : BATCHING_CONTINUOUS;
}

/* One stream of bytes made of the seed, of any kind. out: zeroed, then as the stream ended. */
enum { STREAM_BYTES = 600 };
static inline void stream_run_seed(stream *out, uint64_t seed) {
    uint8_t data[STREAM_BYTES];
    for (uint32_t i = 0; i < STREAM_BYTES; i++)
        data[i] = (uint8_t)(hash_mix(seed * STREAM_BYTES + i) >> 32);
    memset(out, 0, sizeof *out);
    stream_choose(out, seed);
    stream_run(out, data, STREAM_BYTES);
}

#endif
