/* The bytes of a chunk's file: sealing and checking. Pure; kv_dir.c does the input and output. */
#include "daemon/kv/kv_file.h"

#include <string.h>

#include "base/check.h"
#include "base/crc32c.h"

/* Where the fields of a header are (kv_file.h). */
enum {
    AT_SIZE = 8,
    AT_CRC = 12,
    AT_FAMILY = 16,
    AT_HASH = 48,
    AT_PARENT = 64,
    AT_SALT = 80,
    AT_TOKEN_COUNT = 96,
    AT_GROUPS = 100,
    AT_PAYLOAD = 104,
    AT_CREATED = 112,
    AT_THIRDS = 120,
    AT_FLAGS = 132,
    AT_CHUNK = 136,
    AT_GROUP = 144,
    GROUP_BYTES = 24,
    AT_TOKENS = 512
};
_Static_assert(AT_TOKENS + 4 * KV_FILE_TOKENS <= KV_FILE_HEADER, "the tokens fit");

static const char magic[8] = {'V', 'R', 'A', 'M', 'D', 'K', 'V', KV_FILE_VERSION};

static void put32(unsigned char *p, uint32_t at, uint32_t v) {
    memcpy(p + at, &v, sizeof v);
}
static void put64(unsigned char *p, uint32_t at, uint64_t v) {
    memcpy(p + at, &v, sizeof v);
}
static uint32_t get32(const unsigned char *p, uint32_t at) {
    uint32_t v;
    memcpy(&v, p + at, sizeof v);
    return v;
}
static uint64_t get64(const unsigned char *p, uint32_t at) {
    uint64_t v;
    memcpy(&v, p + at, sizeof v);
    return v;
}

static uint64_t blocks_bytes(const kv_shape *s, uint32_t groups, uint32_t below) {
    uint64_t n = 0;
    for (uint32_t g = 0; g < below; g++)
        if (groups >> g & 1) n += s->group_bytes[g];
    return n;
}

uint64_t kv_file_bytes(const kv_shape *s, uint32_t groups) {
    return KV_FILE_HEADER + align_up(blocks_bytes(s, groups, s->n_groups), KV_FILE_HEADER);
}

uint64_t kv_file_group_at(const kv_shape *s, uint32_t groups, uint32_t group) {
    return KV_FILE_HEADER + blocks_bytes(s, groups, group);
}

static uint32_t header_crc(const unsigned char *header) {
    unsigned char copy[KV_FILE_HEADER];
    memcpy(copy, header, sizeof copy);
    put32(copy, AT_CRC, 0);
    return crc32c(copy, sizeof copy);
}

/* All but the checksum of the header. */
static void fill_header(unsigned char *h, const kv_shape *s, const unsigned char *family,
                        const kv_file_id *id, uint64_t created, const uint32_t thirds[3]) {
    memset(h, 0, KV_FILE_HEADER);
    memcpy(h, magic, sizeof magic);
    put32(h, AT_SIZE, KV_FILE_HEADER);
    memcpy(h + AT_FAMILY, family, KV_FILE_FAMILY);
    for (uint32_t i = 0; i < 2; i++) {
        put64(h, AT_HASH + 8 * i, id->hash[i]);
        put64(h, AT_PARENT + 8 * i, id->parent[i]);
        put64(h, AT_SALT + 8 * i, id->salt);
    }
    put32(h, AT_TOKEN_COUNT, s->tokens);
    put32(h, AT_GROUPS, s->n_groups);
    put64(h, AT_PAYLOAD, kv_file_bytes(s, id->groups) - KV_FILE_HEADER);
    put64(h, AT_CREATED, created);
    for (uint32_t i = 0; i < 3; i++) put32(h, AT_THIRDS + 4 * i, thirds[i]);
    put32(h, AT_CHUNK, id->chunk);
    for (uint32_t g = 0; g < s->n_groups; g++) {
        const uint32_t at = AT_GROUP + GROUP_BYTES * g;
        if (!(id->groups >> g & 1)) continue;
        put32(h, at, 1);
        put64(h, at + 8, kv_file_group_at(s, id->groups, g));
        put64(h, at + 16, s->group_bytes[g]);
    }
    memcpy(h + AT_TOKENS, id->tokens, s->tokens * sizeof *id->tokens);
}

void kv_file_seal(void *file, const kv_shape *s, const unsigned char family[KV_FILE_FAMILY],
                  const kv_file_id *id, uint64_t created) {
    unsigned char *p = file;
    uint32_t thirds[3];
    CHECK(s->tokens <= KV_FILE_TOKENS && s->n_groups <= KV_FILE_GROUPS);
    const uint64_t n = kv_file_bytes(s, id->groups),
                   used = blocks_bytes(s, id->groups, s->n_groups);
    memset(p + KV_FILE_HEADER + used, 0, n - KV_FILE_HEADER - used);
    crc32c_thirds(p + KV_FILE_HEADER, n - KV_FILE_HEADER, thirds);
    fill_header(p, s, family, id, created, thirds);
    put32(p, AT_CRC, header_crc(p));
}

static status wrong(err *e, const char *field) {
    err_set(e, ERR_FORMAT, "a file of the KV cache has another %s than it should", field);
    return err_field(e, "%s", field);
}

status kv_file_header(const void *header, const kv_shape *s,
                      const unsigned char family[KV_FILE_FAMILY], kv_file_id *out,
                      int32_t tokens[KV_FILE_TOKENS], err *e) {
    const unsigned char *h = header;
    unsigned char again[KV_FILE_HEADER];
    uint32_t thirds[3];
    if (memcmp(h, magic, sizeof magic) != 0) return wrong(e, "version");
    if (get32(h, AT_SIZE) != KV_FILE_HEADER) return wrong(e, "header size");
    if (get32(h, AT_CRC) != header_crc(h)) return wrong(e, "header checksum");
    if (memcmp(h + AT_FAMILY, family, KV_FILE_FAMILY) != 0) return wrong(e, "family");
    if (get32(h, AT_TOKEN_COUNT) != s->tokens) return wrong(e, "number of tokens");
    *out = (kv_file_id){.hash = {get64(h, AT_HASH), get64(h, AT_HASH + 8)},
                        .parent = {get64(h, AT_PARENT), get64(h, AT_PARENT + 8)},
                        .salt = get64(h, AT_SALT),
                        .chunk = get32(h, AT_CHUNK),
                        .tokens = tokens};
    for (uint32_t g = 0; g < s->n_groups; g++)
        out->groups |= (get32(h, AT_GROUP + GROUP_BYTES * g) & 1) << g;
    memcpy(tokens, h + AT_TOKENS, s->tokens * sizeof *tokens);
    for (uint32_t i = 0; i < 3; i++) thirds[i] = get32(h, AT_THIRDS + 4 * i);
    /* What is left, offsets, flags, the salt's copy and zeroes, is what sealing would write. */
    fill_header(again, s, family, out, get64(h, AT_CREATED), thirds);
    put32(again, AT_CRC, get32(h, AT_CRC));
    return memcmp(h, again, sizeof again) == 0 ? OK : wrong(e, "layout");
}

status kv_file_check(const void *file, uint64_t n, const kv_shape *s,
                     const unsigned char family[KV_FILE_FAMILY], const kv_file_id *wanted,
                     uint32_t *groups, err *e) {
    const unsigned char *p = file;
    kv_file_id id;
    int32_t tokens[KV_FILE_TOKENS];
    uint32_t thirds[3];
    if (n < KV_FILE_HEADER) return wrong(e, "size");
    status st = kv_file_header(file, s, family, &id, tokens, e);
    if (st != OK) return st;
    if (n != kv_file_bytes(s, id.groups)) return wrong(e, "size");
    if (memcmp(id.hash, wanted->hash, sizeof id.hash) != 0) return wrong(e, "hash");
    if (memcmp(id.parent, wanted->parent, sizeof id.parent) != 0) return wrong(e, "parent");
    if (id.salt != wanted->salt) return wrong(e, "salt");
    if (id.chunk != wanted->chunk) return wrong(e, "place in its text");
    if (memcmp(tokens, wanted->tokens, s->tokens * sizeof *tokens) != 0)
        return wrong(e, "text");
    if ((id.groups & wanted->groups) != wanted->groups) return wrong(e, "set of groups");
    crc32c_thirds(p + KV_FILE_HEADER, n - KV_FILE_HEADER, thirds);
    for (uint32_t i = 0; i < 3; i++)
        if (thirds[i] != get32(p, AT_THIRDS + 4 * i)) return wrong(e, "checksum");
    *groups = id.groups;
    return OK;
}
