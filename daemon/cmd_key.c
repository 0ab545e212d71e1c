/* vramd key: makes an API key. The line for the file goes to stdout, the key itself to stderr,
 * so that "vramd key NAME >> FILE" shows it once and keeps only its hash. */
#include <stdio.h>
#include <string.h>

#include "api/keys.h"
#include "daemon/args.h"
#include "daemon/commands.h"

static int usage(FILE *f, int rc) {
    fputs("usage: vramd key NAME [LIMIT...] >> FILE\n\n"
          "Makes a random API key, shows it once on stderr, and writes the line for\n"
          "api_keys_file to stdout: the name and the key's SHA-256.\n\n"
          "limits:\n"
          "  rate=N/min      requests a minute\n"
          "  tokens=N/min    tokens a minute, prompt and output together\n"
          "  concurrency=N   requests at once\n"
          "  weight=N        its share beside other keys, 1 to 1000; 1 is what others have\n"
          "  priority=N      of all its requests; lower is sooner, 0 is what others have\n"
          "  admin           its keys may change the server's budget (PUT /v1/memory)\n",
          f);
    return rc;
}

int cmd_key(int argc, char **argv) {
    char limits[512] = "", key[KEY_TEXT_BYTES], hash[2 * KEY_HASH_BYTES + 1];
    err e;
    if (args_take_word(&argc, argv, "--help")) return usage(stdout, 0);
    if (argc < 2) return usage(stderr, 2);
    for (int i = 2; i < argc; i++) {
        size_t n = strlen(limits);
        if (strlen(argv[i]) + n + 2 > sizeof limits) {
            err_set(&e, ERR_INVALID, "too many limits");
            return command_failed("key", &e);
        }
        sprintf(limits + n, " %s", argv[i]);
    }
    if (keys_make(argv[1], limits, key, hash, &e) != OK) return command_failed("key", &e);
    printf("%s %s%s\n", argv[1], hash, limits);
    if (fflush(stdout) != 0) {
        err_set(&e, ERR_IO, "cannot write the line");
        return command_failed("key", &e);
    }
    fprintf(stderr, "the key of %s, shown only now: %s\n", argv[1], key);
    return 0;
}
