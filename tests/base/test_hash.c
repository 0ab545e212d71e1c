/* The hash: what a table needs of it. */
#include "tests/check_main.h"

#include "base/hash.h"

START_TEST(the_mixer_gives_the_numbers_of_splitmix64) {
    /* The stream of SplitMix64 from seed 1234567, as the reference code splitmix64.c of
     * Vigna (prng.di.unimi.it) prints it. */
    static const uint64_t want[] = {6457827717110365317u, 3203168211198807973u,
                                    9817491932198370423u, 4593380528125082431u,
                                    16408922859458223821u};
    uint64_t x = 1234567;
    for (int i = 0; i < 5; i++) ck_assert_uint_eq(hash_mix(x += 0x9e3779b97f4a7c15u), want[i]);
}
END_TEST

/* Key 00 01 .. 0f, messages 00 01 .. of length 0 and 1. SipHash-2-4: vectors_sip128 of the
 * reference code; SipHash-1-3: test_siphash128_1_3 of the crate siphasher. */
START_TEST(siphash_gives_the_vectors_of_its_authors) {
    static const struct {
        size_t n;
        int rounds;
        unsigned char want[16];
    } vectors[] = {
        {0,
         SIPHASH_2_4,
         {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55,
          0x02, 0x93}},
        {1,
         SIPHASH_2_4,
         {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22,
          0xfc, 0x45}},
        {0,
         SIPHASH_1_3,
         {231, 126, 188, 178, 39, 136, 165, 190, 253, 98, 219, 106, 221, 48, 48, 1}},
    };
    const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    unsigned char message[16];
    for (int i = 0; i < 16; i++) message[i] = (unsigned char)i;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint64_t out[2];
        siphash_bytes(key, message, vectors[i].n, vectors[i].rounds, out);
        ck_assert_mem_eq(out, vectors[i].want, 16);
    }
}
END_TEST

START_TEST(every_length_seed_and_byte_counts) {
    unsigned char c[40] = {0};
    uint64_t seen[40 + 40 * 8 + 1];
    size_t n = 0;
    for (size_t len = 0; len < 40; len++) seen[n++] = hash64(c, len, 0);
    for (size_t bit = 0; bit < 40 * 8; bit++) {
        c[bit / 8] ^= (unsigned char)(1u << bit % 8);
        seen[n++] = hash64(c, 40, 0);
        c[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    seen[n++] = hash64(c, 40, 0);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) SWEEP(seen[i] != seen[j]);
    ck_assert(hash64(c, 40, 1) != hash64(c, 40, 0));
    ck_assert(hash64(c, 0, 1) != hash64(c, 0, 0));
}
END_TEST

START_TEST(one_bit_of_input_changes_half_of_the_output) {
    unsigned char c[24];
    double flips = 0;
    int n = 0;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 24; i++) c[i] = (unsigned char)hash_mix((uint64_t)(round * 24 + i));
        uint64_t h = hash64(c, 24, 5);
        for (int bit = 0; bit < 192; bit += 7, n++) {
            c[bit / 8] ^= (unsigned char)(1u << bit % 8);
            flips += __builtin_popcountll(h ^ hash64(c, 24, 5));
            c[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
    ck_assert_double_eq_tol(flips / n, 32, 0.25); /* standard error 0.053 */
}
END_TEST

START_TEST(alignment_does_not_matter) {
    unsigned char c[64 + 8];
    for (size_t i = 0; i < sizeof c; i++) c[i] = (unsigned char)i;
    for (size_t shift = 1; shift < 8; shift++) {
        unsigned char d[64 + 8];
        memcpy(d + shift, c, 64);
        ck_assert_uint_eq(hash64(c, 64, 3), hash64(d + shift, 64, 3));
    }
}
END_TEST

CHECK_MAIN("hash", the_mixer_gives_the_numbers_of_splitmix64,
           siphash_gives_the_vectors_of_its_authors, every_length_seed_and_byte_counts,
           one_bit_of_input_changes_half_of_the_output, alignment_does_not_matter)
