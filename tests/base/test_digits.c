/* The digits of a double are those that Python prints: the fewest that read back. */
#include "tests/check_main.h"
#include "base/digits.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(known_numbers_have_the_digits_of_pythons_repr) {
    static const struct {
        double v;
        const char *digits;
        int exponent;
    } t[] = {{0, "0", 0},
             {-0.0, "0", 0},
             {1, "1", 0},
             {-1.5, "15", 0},
             {0.1, "1", -1},
             {0.1 + 0.2, "30000000000000004", -1},
             {1e22, "1", 22},
             {1e23, "1", 23},
             {100, "1", 2},
             {123456789012345680.0, "12345678901234568", 17},
             {5e-324, "5", -324},
             {2.5e-320, "25", -320},
             {DBL_MIN, "22250738585072014", -308},
             {DBL_MAX, "17976931348623157", 308}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char d[DIGITS_MAX + 1];
        ck_assert_int_eq(digits_shortest(t[i].v, d), t[i].exponent);
        ck_assert_str_eq(d, t[i].digits);
    }
}
END_TEST

START_TEST(any_number_reads_back_and_with_a_digit_less_does_not) {
    unsigned seed = 3;
    for (int i = 0; i < 20000; i++) {
        char d[DIGITS_MAX + 1], text[64];
        const double v = ldexp((double)rand_r(&seed) * RAND_MAX + rand_r(&seed),
                               rand_r(&seed) % 2000 - 1074);
        if (isinf(v) || v == 0) continue;
        const int exp = digits_shortest(v, d), n = (int)strlen(d);
        snprintf(text, sizeof text, "%c.%se%d", d[0], d + 1, exp);
        ck_assert_double_eq(strtod(text, NULL), v);
        if (n < 2) continue;
        snprintf(text, sizeof text, "%.*e", n - 2, v);
        ck_assert_double_ne(strtod(text, NULL), v);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("digits");
    TCase *t = check_case(s, "digits");
    tcase_add_test(t, known_numbers_have_the_digits_of_pythons_repr);
    tcase_add_test(t, any_number_reads_back_and_with_a_digit_less_does_not);
    return check_run(s);
}
