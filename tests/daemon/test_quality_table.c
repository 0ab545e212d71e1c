/* The table of qualities against the files that it cites. */
#include "daemon/plan/quality_table.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "tests/check_main.h"

START_TEST(each_type_has_one_row_and_a_source) {
    for (size_t i = 0; quality_at(i); i++) {
        const quality_row *r = quality_at(i);
        ck_assert_ptr_eq(r->cache ? quality_of_cache(str_of(r->type), r->arch)
                                  : quality_of_weights(str_of(r->type)),
                         r);
        ck_assert(r->kl > 0 && r->kl < 1 && r->top1 >= 0 && r->top1 <= 100);
        ck_assert(r->model[0] && r->source[0]);
        ck_assert(!r->cache || (r->top1 > 80 && r->tokens > 0));
        const quality_row *next = quality_at(i + 1);
        ck_assert(!next || next->cache != r->cache || next->model != r->model ||
                  next->kl >= r->kl);
    }
    ck_assert_ptr_nonnull(quality_of_cache(STR("INT8"), NULL));
    ck_assert_ptr_null(quality_of_cache(STR("q4_K_M"), NULL));
    ck_assert_ptr_null(quality_of_weights(STR("f16")));
}
END_TEST

START_TEST(a_family_that_was_measured_has_rows_of_its_own) {
    const quality_row *gemma = quality_of_cache(STR("int8"), "gemma3"),
                      *others = quality_of_cache(STR("int8"), "qwen3");
    ck_assert_str_eq(gemma->arch, "gemma3");
    ck_assert(others && !others->arch && others == quality_of_cache(STR("int8"), "llama"));
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

/* The row of a file of `make quality`: of float32 activations against their own reference. */
static const json_t *row_of(const json_t *file, const char *type) {
    const json_t *rows = json_object_get(file, "rows");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *r = json_array_get(rows, i);
        const char *activations = json_string_value(json_object_get(r, "activations"));
        const char *kv = json_string_value(json_object_get(r, "kv"));
        if (json_object_get(r, "kl") && activations && strcmp(activations, "f32") == 0 && kv &&
            strcmp(kv, type) == 0)
            return r;
    }
    return NULL;
}

static double value_of(const json_t *row, const char *name) {
    const json_t *v = json_object_get(json_object_get(row, name), "value");
    ck_assert_msg(json_is_number(v), "%s", name);
    return json_number_value(v);
}

/* What the table gives of a row, rounded. */
static void check_row(const quality_row *r, const json_t *row) {
    const double kl = value_of(row, "kl");
    ck_assert_msg(fabs(r->kl - kl) <= 0.006 * kl + 5e-7, "%s: KL %g, the file has %g", r->type,
                  r->kl, kl);
    ck_assert_double_le_tol(fabs(r->top1 - 100 * value_of(row, "top1")), 0, 0.006);
    ck_assert_double_le_tol(fabs(r->perplexity - 100 * (value_of(row, "perplexity_ratio") - 1)),
                            0, 0.006);
    ck_assert_int_eq(r->tokens, json_integer_value(json_object_get(row, "n")));
}

START_TEST(a_row_that_cites_a_file_has_its_values) {
    for (size_t i = 0; quality_at(i); i++) {
        const quality_row *r = quality_at(i);
        json_error_t bad;
        if (strncmp(r->source, "bench/results/", 14) != 0) continue;
        json_t *file = json_load_file(r->source, 0, &bad);
        ck_assert_msg(file, "%s: %s", r->source, bad.text);
        const json_t *row = row_of(file, r->type);
        ck_assert_msg(row, "%s has no row of %s", r->source, r->type);
        check_row(r, row);
        json_decref(file);
    }
    /* The comparison itself: */
    json_t *row =
        json_loads("{\"kl\":{\"value\":0.000188},\"top1\":{\"value\":0.99214},\"n\":9,"
                   "\"perplexity_ratio\":{\"value\":0.9997}}",
                   0, NULL);
    const quality_row same = {
        .type = "t", .kl = 0.000188, .top1 = 99.21, .perplexity = -0.03, .tokens = 9};
    check_row(&same, row);
    json_decref(row);
}
END_TEST

CHECK_MAIN("quality_table", each_type_has_one_row_and_a_source,
           a_family_that_was_measured_has_rows_of_its_own,
           a_type_between_two_rows_has_the_row_of_more_bits,
           a_row_that_cites_a_file_has_its_values)
