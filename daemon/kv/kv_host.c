/* Places and the table that finds them. */
#include "daemon/kv/kv_host.h"

#include <string.h>

#include "base/check.h"

/* All chunks are of this process: one family. */
static const unsigned char family[KV_FILE_FAMILY] = "host memory";

static uint64_t place_bytes_of(const kv_shape *s) {
    return kv_file_bytes(s, (1U << s->n_groups) - 1);
}

/* A power of two from n on. */
static uint32_t buckets_of(uint32_t n) {
    uint32_t b = 1;
    while (b < n) b *= 2;
    return b;
}

static uint64_t index_bytes(uint32_t n) {
    return align_up(n * sizeof(kv_host_place), 64) +
           align_up(buckets_of(n) * sizeof(uint32_t), KV_FILE_HEADER);
}

uint64_t kv_host_size(const kv_shape *s, uint32_t n_places) {
    return index_bytes(n_places) + n_places * place_bytes_of(s);
}

uint32_t kv_host_places(const kv_shape *s, uint64_t bytes) {
    const uint64_t most = bytes / place_bytes_of(s);
    uint32_t n = most > 1U << 30 ? 1U << 30 : (uint32_t)most;
    while (n > 0 && kv_host_size(s, n) > bytes) n--;
    return n;
}

void kv_host_init(kv_host *h, void *mem, const kv_shape *s, uint32_t n_places) {
    CHECK(n_places > 0);
    *h = (kv_host){.shape = *s,
                   .place_bytes = place_bytes_of(s),
                   .n_places = n_places,
                   .n_buckets = buckets_of(n_places),
                   .place = mem,
                   .chunks = (unsigned char *)mem + index_bytes(n_places)};
    h->bucket =
        (uint32_t *)((unsigned char *)mem + align_up(n_places * sizeof(kv_host_place), 64));
    pthread_mutex_init(&h->lock, NULL);
    for (uint32_t i = 0; i < n_places; i++) h->place[i].next = i + 1;
    for (uint32_t i = 0; i < h->n_buckets; i++) h->bucket[i] = n_places;
}

void kv_host_clear(kv_host *h) {
    pthread_mutex_destroy(&h->lock);
}

/* Where the number of a chunk's place stands: n_places there where it is not kept. */
static uint32_t *find(kv_host *h, const uint64_t hash[2]) {
    uint32_t *at = &h->bucket[hash[0] & (h->n_buckets - 1)];
    while (*at != h->n_places && memcmp(h->place[*at].hash, hash, sizeof h->place->hash) != 0)
        at = &h->place[*at].next;
    return at;
}

static void *chunk_at(const kv_host *h, uint32_t i) {
    return h->chunks + i * h->place_bytes;
}

static void drop(kv_host *h, uint32_t *at) {
    const uint32_t i = *at;
    *at = h->place[i].next;
    h->place[i].next = h->free;
    h->free = i;
}

status kv_host_write(kv_host *h, void *file, const kv_file_id *id, err *e) {
    const uint64_t bytes = kv_file_bytes(&h->shape, id->groups);
    status s = OK;
    kv_file_seal(file, &h->shape, family, id, 0);
    pthread_mutex_lock(&h->lock);
    uint32_t *at = find(h, id->hash);
    if (*at != h->n_places) drop(h, at);
    const uint32_t i = h->free;
    if (i == h->n_places) {
        s = err_set(e, ERR_BUDGET, "all %u places of kv_host_bytes are taken", h->n_places);
    } else {
        h->free = h->place[i].next;
        at = &h->bucket[id->hash[0] & (h->n_buckets - 1)];
        h->place[i] =
            (kv_host_place){.hash = {id->hash[0], id->hash[1]}, .bytes = bytes, .next = *at};
        *at = i;
        memcpy(chunk_at(h, i), file, bytes);
    }
    pthread_mutex_unlock(&h->lock);
    return s;
}

status kv_host_read(kv_host *h, void *file, const kv_file_id *wanted, uint32_t *groups,
                    err *e) {
    uint64_t bytes = 0;
    pthread_mutex_lock(&h->lock);
    const uint32_t i = *find(h, wanted->hash);
    if (i != h->n_places) {
        bytes = h->place[i].bytes;
        memcpy(file, chunk_at(h, i), bytes);
    }
    pthread_mutex_unlock(&h->lock);
    if (bytes == 0) return err_set(e, ERR_FORMAT, "the chunk is not in host memory any more");
    return kv_file_check(file, bytes, &h->shape, family, wanted, groups, e);
}

bool kv_host_remove(kv_host *h, const uint64_t hash[2]) {
    pthread_mutex_lock(&h->lock);
    uint32_t *at = find(h, hash);
    if (*at != h->n_places) drop(h, at);
    pthread_mutex_unlock(&h->lock);
    return true;
}

bool kv_host_pays(const cost_model *m, uint32_t tokens, double copy_us) {
    const double n = tokens;
    const step_work chunk = {.rows = n, .kv = n * n / 2};
    return !cost_ready(m) || copy_us <= cost_predict(m, chunk);
}
