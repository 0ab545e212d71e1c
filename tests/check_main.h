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

/* A limit ends what hangs; it measures nothing, so that a slow machine passes. */
#if defined(__SANITIZE_THREAD__)
enum { CHECK_SLOWNESS = 10 };
#elif defined(__SANITIZE_ADDRESS__)
enum { CHECK_SLOWNESS = 3 };
#else
enum { CHECK_SLOWNESS = 1 };
#endif

/* A case of the suite whose tests each get CK_DEFAULT_TIMEOUT seconds (0: no limit), 600 if
 * that is not set, and more under a sanitizer. */
static inline TCase *check_case(Suite *s, const char *name) {
    const char *limit_s = getenv("CK_DEFAULT_TIMEOUT");
    TCase *c = tcase_create(name);
    tcase_set_timeout(c, (limit_s ? strtod(limit_s, NULL) : 600) * CHECK_SLOWNESS);
    suite_add_tcase(s, c);
    return c;
}

/* The file of the model that tests of a real one need; a test without it fails. */
static inline const char *test_model(void) {
    const char *path = getenv("VRAMD_TEST_MODEL");
    ck_assert_msg(path && *path, "VRAMD_TEST_MODEL must name the model file");
    return path;
}

/* Runs the suite and frees it; what main returns. */
static inline int check_run(Suite *s) {
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* A main for tests that are neither loops nor need a fixture. */
#define CHECK_MAIN(name, ...)                                                                  \
    int main(void) {                                                                           \
        const TTest *const all[] = {__VA_ARGS__};                                              \
        Suite *s = suite_create(name);                                                         \
        TCase *c = check_case(s, name);                                                        \
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) tcase_add_test(c, all[i]);       \
        return check_run(s);                                                                   \
    }

#endif
