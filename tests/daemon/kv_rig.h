/* Chunks of the disk tier whose bytes follow from their number, for tests and the fuzzer. */
#ifndef TESTS_DAEMON_KV_RIG_H
#define TESTS_DAEMON_KV_RIG_H

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/hash.h"
#include "daemon/kv/kv_file.h"

static const kv_shape kv_rig_shape = {
    .tokens = 128, .n_groups = 2, .group_bytes = {8192 + 64, 4096 + 128}};
static const unsigned char kv_rig_family[KV_FILE_FAMILY] = "a model, its formulas, a format";

typedef struct kv_rig_chunk {
    kv_file_id id;
    int32_t tokens[128];
} kv_rig_chunk;

/* Every third has no blocks of the second group. */
static inline void kv_rig_make(kv_rig_chunk *c, uint64_t n) {
    *c = (kv_rig_chunk){.id = {.hash = {hash_mix(n), hash_mix(~n)},
                               .parent = {hash_mix(n + 1), n},
                               .salt = n % 5,
                               .chunk = (uint32_t)(n % 100),
                               .groups = n % 3 ? 3 : 1,
                               .tokens = c->tokens}};
    for (uint32_t i = 0; i < 128; i++) c->tokens[i] = (int32_t)(hash_mix(n * 128 + i) >> 40);
}

static inline unsigned char kv_rig_byte(uint64_t n, uint64_t at) {
    return (unsigned char)(hash_mix(n + 7) >> at % 57);
}

/* The blocks of chunk n into a file of so many bytes; the rest is what sealing must clear. */
static inline void kv_rig_fill(unsigned char *file, uint64_t n, uint64_t bytes) {
    for (uint64_t i = KV_FILE_HEADER; i < bytes; i++) file[i] = kv_rig_byte(n, i);
}

static inline bool kv_rig_holds(const unsigned char *file, uint64_t n, uint32_t groups) {
    uint64_t end = KV_FILE_HEADER;
    for (uint32_t g = 0; g < 2; g++)
        if (groups >> g & 1) end += kv_rig_shape.group_bytes[g];
    for (uint64_t i = KV_FILE_HEADER; i < end; i++)
        if (file[i] != kv_rig_byte(n, i)) return false;
    return true;
}

static inline void *kv_rig_buffer(void) {
    void *p = aligned_alloc(KV_FILE_HEADER, kv_file_bytes(&kv_rig_shape, 3));
    CHECK(p);
    return p;
}

/* The checksum of a header that was changed. */
static inline void kv_rig_reseal(unsigned char *header) {
    memset(header + 12, 0, 4);
    const uint32_t crc = crc32c(header, KV_FILE_HEADER);
    memcpy(header + 12, &crc, sizeof crc);
}

#endif
