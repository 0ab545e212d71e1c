/* Counters of energy, on a tree of files as sysfs has it. */
#include "tests/energy_tree.h"

START_TEST(packages_count_from_the_start_and_go_round) {
    energy_tree t;
    energy_package p[ENERGY_PACKAGES];
    energy_tree_open(&t);
    energy_add(&t, 0, "package-0\n");
    energy_set(&t, 0, 900000000);
    energy_add(&t, 1, "psys\n"); /* has the packages in it */
    energy_set(&t, 1, 5);
    energy_add(&t, 2, "package-1-die-1\n");
    energy_set(&t, 2, 7);
    ck_assert_uint_eq(energy_open(t.root), 2);
    ck_assert_uint_eq(energy_read(p), 2);
    ck_assert_str_eq(p[0].name, "0");
    ck_assert_str_eq(p[1].name, "1-die-1");
    ck_assert_double_eq(p[0].joules, 0);
    energy_set(&t, 0, 950000000);
    energy_set(&t, 2, 1500007);
    ck_assert_double_eq_tol(energy_joules(), 51.5, 1e-9);
    energy_set(&t, 0, 10000000); /* 50 J to its end, 10 J from 0 */
    energy_read(p);
    ck_assert_double_eq_tol(p[0].joules, 110, 1e-9);
    ck_assert_double_eq_tol(p[1].joules, 1.5, 1e-9);
    energy_put(&t, 0, "energy_uj", "no number\n");
    ck_assert_double_eq_tol(energy_joules(), 111.5, 1e-9);
    energy_tree_close(&t);
}
END_TEST

START_TEST(without_a_counter_that_can_be_read_there_are_none) {
    energy_tree t;
    energy_package p[ENERGY_PACKAGES];
    energy_tree_open(&t);
    ck_assert_uint_eq(energy_open("/nowhere"), 0);
    energy_add(&t, 0, "package-0\n"); /* no energy_uj */
    energy_add(&t, 1, "package-1\n");
    energy_put(&t, 1, "energy_uj", "");
    ck_assert_uint_eq(energy_open(t.root), 0);
    ck_assert_uint_eq(energy_count(), 0);
    ck_assert_uint_eq(energy_read(p), 0);
    ck_assert_double_eq(energy_joules(), 0);
    energy_tree_close(&t);
}
END_TEST

CHECK_MAIN("energy", packages_count_from_the_start_and_go_round,
           without_a_counter_that_can_be_read_there_are_none)
