/* Chunks of KV blocks in host memory: what kv_dir.c is for files, for the tier of kv_host_bytes. A
 * chunk is kept as its file would be (kv_file.h), with header and checksum, in one of n places of one
 * size, and found by its hash.
 *
 * The caller gives the memory. Any thread: a mutex is held while a chunk is copied. */
#ifndef VRAMD_DAEMON_KV_HOST_H
#define VRAMD_DAEMON_KV_HOST_H

#include <pthread.h>

#include "daemon/kv/kv_file.h"
#include "scheduler/cost.h"

typedef struct kv_host_place {
    uint64_t hash[2], bytes;
    uint32_t next; /* in its bucket, or among the free ones; n_places: none */
} kv_host_place;

typedef struct kv_host {
    pthread_mutex_t lock;
    kv_shape shape;
    uint64_t place_bytes;
    uint32_t n_places, n_buckets; /* n_buckets: a power of two */
    uint32_t free;
    kv_host_place *place; /* [n_places] */
    uint32_t *bucket;     /* [n_buckets] */
    unsigned char *chunks;
} kv_host;

/* Places that so many bytes have room for: their index counted. */
uint32_t kv_host_places(const kv_shape *, uint64_t bytes);
/* Bytes of n places with their index. */
uint64_t kv_host_size(const kv_shape *, uint32_t n_places);

/* mem: kv_host_size bytes, of alignment 64. n_places > 0. */
void kv_host_init(kv_host *, void *mem, const kv_shape *, uint32_t n_places);
void kv_host_clear(kv_host *);

/* As kv_dir_write, kv_dir_read and kv_dir_remove. A chunk of the same hash is replaced. Errors:
 * ERR_BUDGET: all places are taken; ERR_FORMAT: there is no such chunk, or it is not what is
 * wanted. */
status kv_host_write(kv_host *, void *file, const kv_file_id *, err *);
status kv_host_read(kv_host *, void *file, const kv_file_id *wanted, uint32_t *groups, err *);
bool kv_host_remove(kv_host *, const uint64_t hash[2]);

/* Whether copying the blocks of so many tokens, which takes copy_us, is quicker than a step that
 * computes them. True while the model of step times is not ready. With the time of an empty step:
 * what rows alone take is not known where steps were of one kind. */
bool kv_host_pays(const cost_model *, uint32_t tokens, double copy_us);

#endif
