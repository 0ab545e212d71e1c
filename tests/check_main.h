/* The end of every unit test: runs one suite of named cases and prints Check's summary. */
#ifndef VRAMD_TESTS_CHECK_MAIN_H
#define VRAMD_TESTS_CHECK_MAIN_H

#include <check.h>
#include <stdlib.h>

/* Check records each assertion that holds: too slow for the millions of a sweep. */
#define SWEEP(cond)                                                                            \
    do {                                                                                       \
        if (!(cond)) ck_abort_msg("%s", #cond);                                                \
    } while (0)

#define CHECK_MAIN(name, ...)                                                                  \
    int main(void) {                                                                           \
        const TTest *const all[] = {__VA_ARGS__};                                              \
        Suite *s = suite_create(name);                                                         \
        TCase *c = tcase_create(name);                                                         \
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) tcase_add_test(c, all[i]);       \
        suite_add_tcase(s, c);                                                                 \
        SRunner *r = srunner_create(s);                                                        \
        srunner_run_all(r, CK_NORMAL);                                                         \
        int failed = srunner_ntests_failed(r);                                                 \
        srunner_free(r);                                                                       \
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;                                           \
    }

#endif
