/* Hashes. hash64 is for tables in memory, not for adversaries that know the seed. */
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

#endif
