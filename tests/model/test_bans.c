/* Banned token sequences against a look at the whole output. */
#include "tests/check_main.h"

#include <stdbool.h>
#include <string.h>

#include "base/hash.h"
#include "model/bans.h"

static uint64_t state;
static uint32_t below(uint32_t n) {
    return (uint32_t)(hash_mix(state++) >> 33) % n;
}

START_TEST(a_token_is_forbidden_exactly_where_it_would_complete_a_banned_sequence) {
    enum { VOCAB = 40, SAID = 120, N = 12 };
    uint64_t n_forbidden = 0;
    for (int round = 0; round < 400; round++) {
        int32_t ids[N][BANS_MAX_TOKENS], said[SAID];
        banned_tokens list[N];
        bans b = {.banned = list, .n = 1 + below(N)};
        const uint32_t distinct = 1 + below(3);
        for (uint32_t i = 0; i < b.n; i++) {
            list[i] = (banned_tokens){ids[i], 1 + below(round % 4 ? 4 : BANS_MAX_TOKENS)};
            for (uint32_t k = 0; k < list[i].n; k++) ids[i][k] = 30 + (int32_t)below(distinct);
        }
        for (uint32_t n = 0; n < SAID; n++) {
            uint32_t mask[2] = {0xffffffffu, 0xffffffffu};
            bans_forbid(&b, mask);
            for (int32_t t = 0; t < VOCAB; t++) {
                bool want = false;
                said[n] = t;
                for (uint32_t i = 0; i < b.n; i++)
                    want |= list[i].n <= n + 1 &&
                            !memcmp(said + n + 1 - list[i].n, ids[i], list[i].n * sizeof **ids);
                ck_assert_int_eq(!(mask[t / 32] >> t % 32 & 1), want);
                n_forbidden += want;
            }
            said[n] = 30 + (int32_t)below(distinct);
            bans_take(&b, said[n]);
        }
    }
    ck_assert_uint_gt(n_forbidden, 10000);
}
END_TEST

CHECK_MAIN("bans", a_token_is_forbidden_exactly_where_it_would_complete_a_banned_sequence)
