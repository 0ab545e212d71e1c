/* The end of a process whose invariants do not hold. The address is printed by write(2), not
 * stdio: a lock may be held by the thread that failed. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void check_failed(const char *file, int line, const char *what) {
    char buf[512];
    int n = snprintf(buf, sizeof buf, "vramd: %s:%d: invariant broken: %s\n", file, line, what);
    if (n > (int)sizeof buf - 1) n = (int)sizeof buf - 1;
    if (write(STDERR_FILENO, buf, (size_t)n) < 0) _exit(134);
    abort();
}
