/* The shortest decimal of a double. Stateless. */
#ifndef VRAMD_BASE_DIGITS_H
#define VRAMD_BASE_DIGITS_H

enum { DIGITS_MAX = 17 };

/* The digits of |v| (finite) that read back as the same number, as few as possible, without zeros at
 * their end but for the one of 0: digit[0].digit[1]... times ten to the power that is returned.
 * digit: DIGITS_MAX + 1 bytes, a string. */
int digits_shortest(double v, char *digit);

#endif
