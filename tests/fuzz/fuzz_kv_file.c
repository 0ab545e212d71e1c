/* module: daemon */
/* Files of the disk tier from an unknown source: the bytes themselves, or a good file with some
 * words overwritten, and its header's checksum made right again. Whatever is taken has the tokens,
 * the parent and the payload that were wanted. One thread. */
#include "tests/daemon/kv_rig.h"

static void check(unsigned char *file, uint64_t n, const kv_rig_chunk *c) {
    int32_t tokens[KV_FILE_TOKENS];
    uint32_t groups = 0, thirds[3];
    kv_file_id id;
    err e;
    if (n >= KV_FILE_HEADER &&
        kv_file_header(file, &kv_rig_shape, kv_rig_family, &id, tokens, &e) == OK)
        CHECK(id.groups < 4 && kv_file_bytes(&kv_rig_shape, id.groups) >= KV_FILE_HEADER);
    if (kv_file_check(file, n, &kv_rig_shape, kv_rig_family, &c->id, &groups, &e) != OK) {
        CHECK(e.code == ERR_FORMAT && e.text[0] && e.field[0]);
        return;
    }
    CHECK(n == kv_file_bytes(&kv_rig_shape, groups) && (groups & c->id.groups) == c->id.groups);
    CHECK(memcmp(file + 512, c->tokens, sizeof c->tokens) == 0);
    CHECK(memcmp(file + 48, c->id.hash, 16) == 0 && memcmp(file + 64, c->id.parent, 16) == 0);
    crc32c_thirds(file + KV_FILE_HEADER, n - KV_FILE_HEADER, thirds);
    CHECK(memcmp(file + 120, thirds, sizeof thirds) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    kv_rig_chunk c;
    if (n < 2) return 0;
    kv_rig_make(&c, data[1] % 8);
    const uint64_t whole = kv_file_bytes(&kv_rig_shape, c.id.groups);
    if (data[0] & 1) {
        unsigned char *file = malloc(whole);
        CHECK(file);
        kv_rig_fill(file, data[1] % 8, whole);
        kv_file_seal(file, &kv_rig_shape, kv_rig_family, &c.id, 1);
        for (size_t i = 2; i + 6 <= n; i += 6) { /* where, what */
            uint16_t at;
            memcpy(&at, data + i, 2);
            memcpy(file + at % (whole / 4) * 4, data + i + 2, 4);
        }
        if (data[0] & 2) kv_rig_reseal(file);
        check(file, data[0] & 4 ? whole - data[0] : whole, &c);
        free(file);
        return 0;
    }
    unsigned char *file = malloc(n); /* of this length, so that a read past its end is seen */
    CHECK(file);
    memcpy(file, data + 2, n - 2);
    check(file, n - 2, &c);
    free(file);
    return 0;
}
