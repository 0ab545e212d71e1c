/* Editing argv. Main thread, before anything runs. */
#include "daemon/args.h"

#include <stddef.h>
#include <string.h>

static void drop(int *argc, char **argv, int i, int n) {
    memmove(&argv[i], &argv[i + n], (size_t)(*argc - i - n + 1) * sizeof *argv);
    *argc -= n;
}

bool args_take_word(int *argc, char **argv, const char *word) {
    for (int i = 1; i < *argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], word) == 0) return drop(argc, argv, i, 1), true;
    return false;
}

const char *args_take_value(int *argc, char **argv, const char *flag) {
    size_t n = strlen(flag);
    for (int i = 1; i < *argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], flag, n) != 0) continue;
        const char *v = argv[i] + n;
        if (*v == '=') return drop(argc, argv, i, 1), v + 1;
        if (*v != '\0') continue;
        if (i + 1 == *argc) return drop(argc, argv, i, 1), "";
        v = argv[i + 1];
        return drop(argc, argv, i, 2), v;
    }
    return NULL;
}
