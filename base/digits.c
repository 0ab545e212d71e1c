/* Tries precisions until the text reads back. Any thread. */
#include "base/digits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int digits_shortest(double v, char *digit) {
    char text[40];
    int n = 0;
    v = fabs(v);
    /* Where 15 digits read back the shortest are these without zeros at their end; those of
     * subnormal numbers can be fewer. */
    for (int p = fpclassify(v) == FP_SUBNORMAL ? 0 : 14; p <= 16; p++) {
        snprintf(text, sizeof text, "%.*e", p, v);
        if (strtod(text, NULL) == v) break;
    }
    for (const char *c = text; *c != 'e'; c++)
        if (*c >= '0' && *c <= '9') digit[n++] = *c;
    while (n > 1 && digit[n - 1] == '0') n--;
    digit[n] = '\0';
    return atoi(strchr(text, 'e') + 1);
}
