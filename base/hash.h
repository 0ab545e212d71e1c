/* Hashes. hash64 is for tables in memory, not for adversaries that know the seed; siphash is
 * for those who choose what is hashed, but do not know the key. */
#ifndef VRAMD_BASE_HASH_H
#define VRAMD_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection with full avalanche. */
static inline uint64_t hash_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t hash64(const void *p, size_t n, uint64_t seed) {
    const unsigned char *c = (const unsigned char *)p;
    uint64_t h = seed ^ (n * 0x9e3779b97f4a7c15u), w;
    for (; n >= 8; n -= 8, c += 8) {
        memcpy(&w, c, 8);
        h = hash_mix(h ^ w) + 0x9e3779b97f4a7c15u;
    }
    w = 0;
    memcpy(&w, c, n);
    return hash_mix(h ^ w);
}

/* SipHash with 128 bits of output (Aumasson and Bernstein 2012, and their reference code's
 * SipHash-128), fed with whole words. Words are little-endian bytes of the message; the last
 * one, given to siphash_end, has the message's length in bytes mod 256 in its highest byte.
 * SIPHASH_2_4 is the authors' choice where equal hashes are taken for equal messages;
 * SIPHASH_1_3, faster by half, where they only make a table slow. */
enum { SIPHASH_1_3 = 1, SIPHASH_2_4 = 2 }; /* rounds a word; two more at the end */

typedef struct siphash {
    uint64_t v[4];
} siphash;

static inline uint64_t siphash_rotl(uint64_t x, int n) {
    return x << n | x >> (64 - n);
}
static inline void siphash_round(siphash *s) {
    uint64_t *v = s->v;
    v[0] += v[1], v[2] += v[3];
    v[1] = siphash_rotl(v[1], 13) ^ v[0], v[3] = siphash_rotl(v[3], 16) ^ v[2];
    v[0] = siphash_rotl(v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = siphash_rotl(v[1], 17) ^ v[2], v[3] = siphash_rotl(v[3], 21) ^ v[0];
    v[2] = siphash_rotl(v[2], 32);
}
static inline void siphash_init(siphash *s, const uint64_t key[2]) {
    s->v[0] = key[0] ^ 0x736f6d6570736575u;
    s->v[1] = key[1] ^ 0x646f72616e646f6du ^ 0xee;
    s->v[2] = key[0] ^ 0x6c7967656e657261u;
    s->v[3] = key[1] ^ 0x7465646279746573u;
}
static inline void siphash_word(siphash *s, uint64_t w, int rounds) {
    s->v[3] ^= w;
    for (int i = 0; i < rounds; i++) siphash_round(s);
    s->v[0] ^= w;
}
static inline void siphash_end(siphash *s, uint64_t last, int rounds, uint64_t out[2]) {
    siphash_word(s, last, rounds);
    s->v[2] ^= 0xee;
    for (int i = 0; i < rounds + 2; i++) siphash_round(s);
    out[0] = s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
    s->v[1] ^= 0xdd;
    for (int i = 0; i < rounds + 2; i++) siphash_round(s);
    out[1] = s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}
/* Of n bytes. */
static inline void siphash_bytes(const uint64_t key[2], const void *p, size_t n, int rounds,
                                 uint64_t out[2]) {
    siphash s;
    const unsigned char *c = (const unsigned char *)p;
    uint64_t w, last = (uint64_t)(n & 255) << 56;
    siphash_init(&s, key);
    for (; n >= 8; n -= 8, c += 8) {
        memcpy(&w, c, 8);
        siphash_word(&s, w, rounds);
    }
    for (size_t i = 0; i < n; i++) last |= (uint64_t)c[i] << (8 * i);
    siphash_end(&s, last, rounds, out);
}

#endif
