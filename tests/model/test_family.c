/* The table of families: who finds which row. */
#include <string.h>

#include "model/family.h"
#include "tests/check_main.h"

START_TEST(each_name_finds_its_own_row) {
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++) {
        ck_assert_ptr_eq(family_find(f->arch), f);
        ck_assert(f->record != NULL);
        for (size_t k = 0; k < FAMILY_HF_MODELS && f->hf.model[k].type; k++) {
            const hf_model *m = &f->hf.model[k], *got = NULL;
            ck_assert_ptr_eq(family_of_hf(str_of(m->type), (str){NULL, 0}, &got), f);
            ck_assert_ptr_eq(got, m);
            got = NULL;
            if (!m->class) continue;
            ck_assert_ptr_eq(family_of_hf((str){NULL, 0}, str_of(m->class), &got), f);
            ck_assert_ptr_eq(got, m);
        }
    }
    const hf_model *none;
    ck_assert_ptr_null(family_find("mamba"));
    /* A model_type decides, whatever the class. */
    ck_assert_ptr_null(family_of_hf(STR("mamba"), STR("LlamaForCausalLM"), &none));
}
END_TEST

START_TEST(q_and_k_are_permuted_by_the_format_and_the_family_together) {
    ck_assert_int_eq(family_pairing(family_find("llama"), true), ROPE_ADJACENT);
    ck_assert_int_eq(family_pairing(family_find("llama"), false), ROPE_HALVES);
    ck_assert_int_eq(family_pairing(family_find("qwen2"), true), ROPE_HALVES);
    ck_assert_int_eq(family_pairing(family_find("qwen2"), false), ROPE_HALVES);
    ck_assert_int_eq(family_pairing(family_find("glm4"), true), ROPE_ADJACENT);
    ck_assert_int_eq(family_pairing(family_find("glm4"), false), ROPE_ADJACENT);
}
END_TEST

START_TEST(the_hint_lists_what_is_known) {
    err e;
    err_set(&e, ERR_UNSUPPORTED, "x");
    family_hint(&e);
    ck_assert_ptr_nonnull(strstr(
        e.hint,
        "known: llama (also Mistral, Mixtral, SmolLM2, ...), qwen2, qwen3, phi3, gemma3"));
}
END_TEST

CHECK_MAIN("family", each_name_finds_its_own_row,
           q_and_k_are_permuted_by_the_format_and_the_family_together,
           the_hint_lists_what_is_known)
