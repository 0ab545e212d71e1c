/* vramd: finds the subcommand. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/commands.h"

static void print_usage(FILE *f) {
    fputs("usage: vramd COMMAND [OPTIONS]\n\ncommands:\n", f);
#define X(name, help) fprintf(f, "  %-10s %s\n", #name, help);
    COMMAND_LIST(X)
#undef X
    fputs("\n\"vramd COMMAND --help\" lists a command's options.\n", f);
}

/* "vramd help serve" is "vramd serve --help", and -h anywhere before "--" is --help. */
static void spell_help(int argc, char **argv) {
    static char help[] = "--help";
    if (argc == 3 && strcmp(argv[1], "help") == 0) {
        argv[1] = argv[2];
        argv[2] = help;
    }
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "-h") == 0) argv[i] = help;
}

/* A descriptor of ours must never be taken for stdout or stderr; and a log file that may not
 * grow any further (ulimit -f) is no reason to end. */
static void sane_surroundings(void) {
    for (int fd; (fd = open("/dev/null", O_RDWR)) >= 0;)
        if (fd > STDERR_FILENO) {
            close(fd);
            break;
        }
    signal(SIGXFSZ, SIG_IGN);
}

/* What a command has printed may still lie in the buffer, and a disk be full. */
static int finish(const char *name, int code) {
    err e;
    if ((fflush(stdout) == 0 && !ferror(stdout)) || code != 0) return code;
    err_set(&e, ERR_IO, "writing stdout: %s", strerror(errno));
    return command_failed(name, &e);
}

/* Below this a deep call would end the process without a word. The limit may be raised while
 * the process runs, as far as its hard value. */
static bool enough_stack(void) {
    enum { LEAST = 1 << 20 };
    struct rlimit r;
    if (getrlimit(RLIMIT_STACK, &r) != 0 || r.rlim_cur >= LEAST) return true;
    r.rlim_cur = r.rlim_max < LEAST ? r.rlim_max : LEAST;
    if (r.rlim_cur == LEAST && setrlimit(RLIMIT_STACK, &r) == 0) return true;
    static char text[200]; /* stderr's own buffer would be on the stack */
    const int n = snprintf(text, sizeof text,
                           "vramd: the limit of the stack is %llu bytes; vramd needs %d\n"
                           "  try: ulimit -s %d, or LimitSTACK= in the unit\n",
                           (unsigned long long)r.rlim_max, LEAST, LEAST / 1024);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) return false;
    return false;
}

int main(int argc, char **argv) {
    sane_surroundings();
    if (!enough_stack()) return 4;
    static const struct {
        const char *name;
        int (*run)(int, char **);
    } commands[] = {
#define X(name, help) {#name, cmd_##name},
        COMMAND_LIST(X)
#undef X
    };
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    spell_help(argc, argv);
    const char *name = argv[1];
    if (!strcmp(name, "--version") || !strcmp(name, "-v") || !strcmp(name, "-V"))
        name = "version";
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(name, commands[i].name) == 0)
            return finish(name, commands[i].run(argc - 1, argv + 1));
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        print_usage(stdout);
        return 0;
    }
    fprintf(stderr, "vramd: \"%.60s\" is no command\n", name);
    print_usage(stderr);
    return 2;
}
