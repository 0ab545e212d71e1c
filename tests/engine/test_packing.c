/* Tests of packing (engine/cpu/linear.h, linear_tiles.h): what a matrix holds are the bytes and the values of the
 * file. */
#include "tests/engine/linear_rig.h"

START_TEST(packed_rows_are_exactly_the_values_of_the_file) {
    static const uint32_t outs[] = {1, 16, 31, 32, 33, 100}, ins[] = {32, 64, 576};
    for (int t = 0; t < N_TYPES; t++)
        for (int i = 0; i < 6; i++)
            for (int k = 0; k < 3; k++) {
                const uint32_t n_in = fit(types[t], ins[k]);
                matrix m = matrix_new(types[t], outs[i], n_in, 7);
                float *row = must_alloc(n_in * 4);
                for (uint32_t o = 0; o < outs[i]; o++) {
                    packed_row(&m.p, o, row);
                    assert_same_bits(m.value + (uint64_t)o * n_in, row, n_in, "packed_row");
                }
                free(row);
                matrix_free(&m);
            }
}
END_TEST

/* tests/golden/quants.bin (its maker says what is in it): each row in each place of a strip. */
START_TEST(blocks_of_every_type_have_the_values_that_gguf_gives_them) {
    FILE *f = fopen("tests/golden/quants.bin", "rb");
    ck_assert_msg(f != NULL, "tests/golden/quants.bin: run this in the repository's root");
    uint32_t head[3];
    int n_types = 0;
    for (; fread(head, 4, 3, f) == 3; n_types++) {
        const dtype t = (dtype)head[0];
        const uint32_t n = head[1], n_in = head[2];
        uint64_t bytes;
        ck_assert(dtype_bytes(t, n, n_in, &bytes) && linear_supports(t, n_in));
        uint8_t *file = must_alloc(bytes), *turned = must_alloc(bytes);
        float *want = must_alloc((uint64_t)n * n_in * 4), *row = must_alloc(n_in * 4);
        ck_assert(fread(file, 1, bytes, f) == bytes && fread(want, 4, n * n_in, f) == n * n_in);
        for (uint32_t turn = 0; turn < n; turn++) {
            const uint64_t part = bytes / n * turn;
            memcpy(turned, file + part, bytes - part);
            memcpy(turned + bytes - part, file, part);
            packed p = pack_file(t, n, n_in, turned);
            for (uint32_t o = 0; o < n; o++) {
                packed_row(&p, o, row);
                assert_same_bits(want + (uint64_t)((o + turn) % n) * n_in, row, n_in,
                                 dtype_name(t));
            }
            free((void *)p.tiles);
        }
        free(file);
        free(turned);
        free(want);
        free(row);
    }
    fclose(f);
    ck_assert_int_eq(n_types, N_FILE_TYPES - FIRST_QUANT);
}
END_TEST

/* Row 7 of a type of 256 inputs in tests/golden/quants.bin as output 5 of a tile of zeros. */
static packed drawn_tile(dtype t) {
    FILE *f = fopen("tests/golden/quants.bin", "rb");
    ck_assert_ptr_nonnull(f);
    const uint32_t block = dtype_get(t)->block_bytes;
    uint8_t file[16 * 144] = {0};
    uint32_t head[3];
    while (fread(head, 4, 3, f) == 3) {
        uint64_t bytes;
        ck_assert(dtype_bytes((dtype)head[0], head[1], head[2], &bytes));
        if (head[0] != t) {
            ck_assert_int_eq(fseek(f, (long)(bytes + 4ul * head[1] * head[2]), SEEK_CUR), 0);
            continue;
        }
        ck_assert(head[2] == 256 && block <= 144 && fseek(f, 7 * (long)block, SEEK_CUR) == 0);
        ck_assert_uint_eq(fread(file + 5 * (size_t)block, 1, block, f), block);
        break;
    }
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_uint_eq(head[0], t);
    return pack_file(t, 16, 256, file);
}

START_TEST(tiles_are_as_linear_tiles_h_draws_them) {
    float row[256];
    packed q4 = drawn_tile(DT_Q4_K), q3 = drawn_tile(DT_Q3_K);
    const uint8_t *b = q4.tiles;
    ck_assert_uint_eq(packed_bytes(DT_Q4_K, 16, 256), 2304);
    ck_assert(b[10] == 0x5f && b[11] == 0x14 && b[42] == 0x74 && b[43] == 0x28);
    ck_assert(b[84 + 1] == 0xc8 && b[148 + 1] == 0xbe && b[212 + 1] == 0x07);
    ck_assert_uint_eq(b[1536 + 86], 0x38);
    packed_row(&q4, 5, row);
    ck_assert_float_eq_tol(row[182], -0.9371996f, 1e-7f);
    b = q3.tiles;
    ck_assert_uint_eq(packed_bytes(DT_Q3_K, 16, 256), 1760);
    ck_assert(b[10] == 0xab && b[11] == 0xa3 && b[116 + 2] == 0x09 && b[180 + 2] == 0xe8);
    ck_assert(b[1652 + 2] == 0xd2 && b[1716 + 2] == 0xb6);
    packed_row(&q3, 5, row);
    ck_assert_float_eq_tol(row[254], 1.0333786f, 1e-7f);
    free((void *)q4.tiles);
    free((void *)q3.tiles);
}
END_TEST

START_TEST(packing_keeps_the_size_of_the_file_and_zeroes_the_padding) {
    for (int t = 0; t < N_TYPES; t++) {
        uint64_t file;
        ck_assert(dtype_bytes(types[t], 576, 1536, &file));
        ck_assert_uint_eq(packed_bytes(types[t], 576, 1536), file);
        ck_assert_uint_eq(packed_bytes(types[t], 561, 1536), file);
        /* The padding of 5 outputs to 16 gives zeros: read it back as rows. */
        matrix m = matrix_new(types[t], 5, 256, 3);
        m.p.n_out = 16;
        float row[256];
        for (uint32_t o = 5; o < 16; o++) {
            packed_row(&m.p, o, row);
            for (int k = 0; k < 256; k++) ck_assert_float_eq(row[k], 0);
        }
        matrix_free(&m);
    }
}
END_TEST

START_TEST(only_known_types_and_whole_blocks_are_supported) {
    for (int t = 0; t < N_TYPES; t++) {
        const uint32_t block = dtype_block_of(types[t]).elems;
        bool quantised = block > 1;
        ck_assert(linear_supports(types[t], 768));
        ck_assert(linear_supports(types[t], 576) == (576 % block == 0));
        ck_assert(linear_supports(types[t], 33) == !quantised);
        ck_assert(!linear_supports(types[t], 0));
        ck_assert(!linear_supports(types[t], UINT32_MAX - 31));
        ck_assert(linear_wants_int8(types[t]) == (quantised && dtype_kind(types[t]) != DT_F8));
    }
    ck_assert(!linear_supports(DT_F64, 256));
    ck_assert(!linear_supports(DT_I32, 32));
    ck_assert(!linear_supports(DT_NONE, 32));
}
END_TEST

int main(void) {
    Suite *s = suite_create("packing");
    TCase *t = check_case(s, "packing");
    tcase_add_test(t, packed_rows_are_exactly_the_values_of_the_file);
    tcase_add_test(t, blocks_of_every_type_have_the_values_that_gguf_gives_them);
    tcase_add_test(t, tiles_are_as_linear_tiles_h_draws_them);
    tcase_add_test(t, packing_keeps_the_size_of_the_file_and_zeroes_the_padding);
    tcase_add_test(t, only_known_types_and_whole_blocks_are_supported);
    return check_run(s);
}
