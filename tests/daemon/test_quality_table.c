/* The table of qualities against the files that it cites. */
#include "daemon/quality_table.h"

#include <stdio.h>
#include <string.h>

#include "tests/check_main.h"

START_TEST(each_type_has_one_row_and_a_source) {
    for (size_t i = 0; quality_at(i); i++) {
        const quality_row *r = quality_at(i);
        ck_assert_ptr_eq(r->cache ? quality_of_cache(str_of(r->type))
                                  : quality_of_weights(str_of(r->type)),
                         r);
        ck_assert(r->kl > 0 && r->kl < 1 && r->top1 >= 0 && r->top1 <= 100);
        ck_assert(r->model[0] && r->source[0]);
        ck_assert(!r->cache || (r->top1 > 90 && r->tokens > 0));
    }
    ck_assert_ptr_nonnull(quality_of_cache(STR("INT8")));
    ck_assert_ptr_null(quality_of_cache(STR("q4_K_M")));
    ck_assert_ptr_null(quality_of_weights(STR("f16")));
}
END_TEST

START_TEST(a_type_between_two_rows_has_the_row_of_more_bits) {
    static const struct {
        dtype type;
        const char *row;
    } want[] = {{DT_Q4_0, "q4_0"},   {DT_Q4_K, "q4_K_M"}, {DT_Q4_1, "q5_K_M"},
                {DT_Q2_K, "q3_K_M"}, {DT_Q5_0, "q5_K_M"}, {DT_Q8_0, "q8_0"},
                {DT_BF16, NULL},     {DT_F32, NULL}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const quality_row *r = quality_of_dtype(want[i].type);
        ck_assert(want[i].row ? r && strcmp(r->type, want[i].row) == 0 : !r);
    }
}
END_TEST

CHECK_MAIN("quality_table", each_type_has_one_row_and_a_source,
           a_type_between_two_rows_has_the_row_of_more_bits)
