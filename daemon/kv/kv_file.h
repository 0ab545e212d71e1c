/* KV blocks on disk: the file of one chunk, and the directory of all.
 *
 * A chunk is a fixed number of tokens, in all groups of layers: the blocks that hold the keys and
 * values of tokens [i * n, (i + 1) * n) of a text. Its file is
 *
 *     DIR/<family, 32 hex digits>/<2 hex digits>/<chain hash, 32 hex digits>.kv
 *
 *        0 "VRAMDKV", version u8        the header: 4,096 bytes, little-endian
 *        8 u32 header bytes, u32 crc32c of the header with zeroes here
 *       16 family, 32 bytes: all that the bits of keys and values depend on but the tokens
 *       48 chain hash, parent's chain hash, salt, 16 bytes each
 *       96 u32 tokens, u32 groups, u64 payload bytes, u64 created (s)
 *      120 3 x u32 crc32c of the payload's thirds, u32 flags (0), u32 chunk i, u32 0
 *      144 for each of 4 groups: u32 1 where its blocks are there, u32 0, u64 offset, u64 bytes
 *      512 i32 tokens
 *     4096 the blocks, group after group, filled up with zeroes to a multiple of 4,096
 *
 * The tokens and the parent confirm a hit; a file that says anything else than what is wanted is
 * no hit. Files are written beside their name (".tmp"), synced and renamed, so that a crash
 * leaves a whole file or none; entries of a directory are not synced, so a power cut may lose
 * some. There is no index to disagree with them: the headers are read at start.
 *
 * DIR/key holds the key of the chain hashes (16 random bytes, mode 0600), and a lock on it keeps
 * a second daemon out. Any thread, but open and close. */
#ifndef VRAMD_DAEMON_KV_FILE_H
#define VRAMD_DAEMON_KV_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum {
    KV_FILE_VERSION = 1,
    KV_FILE_HEADER = 4096, /* bytes, and what buffers and sizes are multiples of: O_DIRECT */
    KV_FILE_GROUPS = 4,
    KV_FILE_TOKENS = 256, /* of a chunk, at most */
    KV_FILE_FAMILY = 32
};

/* What a chunk is. */
typedef struct kv_file_id {
    uint64_t hash[2], parent[2], salt;
    uint32_t chunk;        /* its number in its text */
    uint32_t groups;       /* bit g: the blocks of group g are there */
    const int32_t *tokens; /* [kv_shape.tokens], borrowed */
} kv_file_id;

/* What all chunks of a directory have in common. */
typedef struct kv_shape {
    uint32_t tokens, n_groups;
    uint64_t group_bytes[KV_FILE_GROUPS]; /* of a chunk's blocks, all layers */
} kv_shape;

/* Of a file with these groups. */
uint64_t kv_file_bytes(const kv_shape *, uint32_t groups);
/* Where the blocks of a group begin in it; group: one of those. */
uint64_t kv_file_group_at(const kv_shape *, uint32_t groups, uint32_t group);

/* Writes the header in front of the payload, which is there: file, of kv_file_bytes. */
void kv_file_seal(void *file, const kv_shape *, const unsigned char family[KV_FILE_FAMILY],
                  const kv_file_id *, uint64_t created);
/* The header alone, 4,096 bytes; what it says is copied to *out, tokens to tokens[]. Errors:
 * ERR_FORMAT (field: what is wrong). */
status kv_file_header(const void *header, const kv_shape *,
                      const unsigned char family[KV_FILE_FAMILY], kv_file_id *out,
                      int32_t tokens[KV_FILE_TOKENS], err *);
/* Whether a whole file of n bytes is the chunk wanted: header, tokens, sizes and payload.
 * wanted->groups: those that it must have; *groups: those that it has. Errors: ERR_FORMAT. */
status kv_file_check(const void *file, uint64_t n, const kv_shape *,
                     const unsigned char family[KV_FILE_FAMILY], const kv_file_id *wanted,
                     uint32_t *groups, err *);

typedef struct kv_dir {
    int dir, family_dir, key_fd; /* -1: closed */
    uint64_t key[2];
    kv_shape shape;
    unsigned char family[KV_FILE_FAMILY];
    atomic_bool buffered; /* the file system refused O_DIRECT */
} kv_dir;

/* Makes DIR where it is not there (0700), takes the lock, reads or makes the key. Errors: ERR_IO,
 * ERR_BUSY (another daemon has it), ERR_FORMAT (DIR/key is not a key). kv_dir_close in any case. */
status kv_dir_open(kv_dir *, const char *path, err *);
/* The directory of a family, for files of this shape. Files of other families are removed: they
 * belong to another model, or to formulas of another version. *removed: how many. */
status kv_dir_family(kv_dir *, const kv_shape *, const unsigned char family[KV_FILE_FAMILY],
                     uint32_t *removed, err *);
/* Of a directory that has directories in it: removes files of all families from it, and from each directory
 * of a name that begins with prefix and is not among names[n], or has more than `most` bytes. Returns how
 * many files went. */
uint32_t kv_dir_tidy(kv_dir *, const char *prefix, const char *const *names, uint32_t n,
                     uint64_t most);
void kv_dir_close(kv_dir *);

/* A file that the directory has: all that its header says but the tokens. */
typedef struct kv_found {
    kv_file_id id;
    uint64_t bytes, used_s; /* used: read or written, by its time of modification */
} kv_found;
/* Every good file; others are removed: *bad, with what a crash left. Unordered. */
status kv_dir_scan(kv_dir *, void (*found)(void *arg, const kv_found *), void *arg,
                   uint32_t *bad, err *);

/* Seals and stores a file: as of kv_file_seal, aligned to 4,096. Errors: ERR_IO (field: "full"
 * where there is no space). Leaves no part of a file behind. */
status kv_dir_write(kv_dir *, void *file, const kv_file_id *, uint64_t now_s, err *);
/* Reads into file, of kv_file_bytes for all groups, aligned to 4,096, and checks as
 * kv_file_check. A file that is not what it should be is removed. Marks it as used. Errors:
 * ERR_NOT_FOUND, ERR_FORMAT, ERR_IO. */
status kv_dir_read(kv_dir *, void *file, const kv_file_id *wanted, uint32_t *groups, err *);
bool kv_dir_remove(kv_dir *, const uint64_t hash[2]); /* false: it is still there */

#endif
