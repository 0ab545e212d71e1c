/* A table that stays in the file: its rows are read for the tokens of a step, after the checkpoint
 * is closed, too, and a row that cannot be read fails that step alone. */
#include <unistd.h>

#include "tests/engine/engine_rig.h"
#include "tests/model/gguf_shaped.h"

enum { TOKENS = 40 }; /* more than are read at once */

static gb b;
static rig r;
static int32_t tokens[TOKENS], table[TOKENS / 16 + 1];
static float *kept;

static size_t logits_bytes(void) {
    return sizeof(float) * TOKENS * r.n_vocab;
}

static status try(err *e) {
    const part p = {tokens, table, 0, TOKENS, TOKENS, NULL, 0};
    step_result out = {0};
    const status s = rig_try(&r, &p, 1, &out, e);
    if (s == OK) memcpy(kept, out.logits, logits_bytes());
    return s;
}

static void setup(void) {
    const model_config c = gb_shaped_config("gemma4", 128, 40);
    const engine_options o = rig_options();
    char path[64];
    gb_init(&b);
    gb_shaped_keys(&b, &c);
    gb_shaped_tensors(&b, &c, DT_Q4_0, 3);
    gb_open(&b, path);
    rig_open(&r, path, &o);
    rig_tokens(&r, tokens, TOKENS, 1);
    rig_table(&r, table, 0, TOKENS / 16 + 1, 1);
    kept = malloc(logits_bytes());
    ck_assert_ptr_nonnull(kept);
}

static void teardown(void) {
    rig_close(&r);
    gb_clear(&b);
    free(kept);
}

static float *copy_of_kept(void) {
    float *copy = malloc(logits_bytes());
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, kept, logits_bytes());
    return copy;
}

START_TEST(the_table_is_not_loaded_and_outlives_the_checkpoint) {
    const cpu_engine *e = (const cpu_engine *)r.engine;
    terms t = {0};
    err er;
    ck_assert_uint_ne(e->layout.table, NO_WEIGHT);
    ck_assert_uint_eq(e->layout.weights[e->layout.table].bytes, 0);
    cpu_layout_terms(&e->layout, e->program, &e->opt, &t);
    uint32_t named = 0;
    for (size_t i = 0; i < t.n; i++)
        named += strstr(t.v[i].what, "per_layer_token_embd") != NULL;
    ck_assert_uint_eq(named, 1);
    terms_clear(&t);
    ck_assert_int_eq(try(&er), OK);
    float *first = copy_of_kept();
    checkpoint_close(r.file);
    r.file = NULL;
    ck_assert_int_eq(try(&er), OK);
    ck_assert_mem_eq(first, kept, logits_bytes());
    free(first);
}
END_TEST

START_TEST(a_file_that_shrank_fails_the_step_and_not_the_next) {
    err er;
    ck_assert_int_eq(try(&er), OK);
    float *first = copy_of_kept();
    ck_assert_int_eq(ftruncate(b.fd, 64), 0);
    ck_assert_int_eq(try(&er), ERR_IO);
    ck_assert_str_eq(er.field, "per_layer_token_embd.weight");
    ck_assert_int_eq(pwrite(b.fd, b.file.p, b.file.n, 0), (ssize_t)b.file.n);
    ck_assert_int_eq(try(&er), OK);
    ck_assert_mem_eq(first, kept, logits_bytes());
    free(first);
}
END_TEST

int main(void) {
    Suite *s = suite_create("file_rows");
    TCase *t = check_case(s, "file_rows");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, the_table_is_not_loaded_and_outlives_the_checkpoint);
    tcase_add_test(t, a_file_that_shrank_fails_the_step_and_not_the_next);
    return check_run(s);
}
