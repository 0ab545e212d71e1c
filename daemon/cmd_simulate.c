/* vramd simulate: the scheduler without an engine. Reads the options; sim/ does the rest. */
#include "daemon/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/args.h"
#include "sim/replay.h"

static const char usage[] =
    "usage: vramd simulate --replay FILE [--audit]\n"
    "Feeds the step log of a server (vramd serve --step-log FILE) to the same scheduler, and "
    "compares\n"
    "every plan. Ends with 0 when all of them are the same.\n"
    "  --audit                 check the scheduler's invariants after each call\n";

/* A scheduler of 1,024 sequences with a context of a million tokens takes about 5 GiB. */
static const size_t MOST_BYTES = (size_t)16 << 30;

static status map_file(str *out, const char *path, err *e) {
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *p = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0)
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    else if (fd >= 0)
        errno = EINVAL;
    if (p == MAP_FAILED) {
        err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot read the step log %s: %s",
                path, errno == EINVAL ? "no file, or an empty one" : strerror(errno));
        err_hint(e, "vramd serve --step-log FILE writes one");
    } else {
        *out = (str){p, (size_t)st.st_size};
    }
    if (fd >= 0) close(fd);
    return p == MAP_FAILED ? e->code : OK;
}

/* What was replayed before an error counts, too: a log that a crash cut off ends with one. */
static int replay(const char *path, bool audit) {
    str text;
    replay_result r;
    err e;
    status s = map_file(&text, path, &e);
    if (s != OK) return command_failed("simulate", &e);
    s = replay_run(text, MOST_BYTES, audit, &r, &e);
    munmap((void *)(uintptr_t)text.ptr, text.len);
    printf("replayed %llu records: %llu requests, %llu steps\n",
           (unsigned long long)r.n_records, (unsigned long long)r.n_requests,
           (unsigned long long)r.n_steps);
    if (s != OK) return command_failed("simulate", &e);
    if (r.n_lost) {
        err_set(&e, ERR_FORMAT,
                "the log lacks %llu records behind these: the disk was too slow",
                (unsigned long long)r.n_lost);
        return command_failed("simulate", &e);
    }
    if (r.different) {
        err_set(&e, ERR_INVALID, "record %llu: %s", (unsigned long long)r.different, r.what);
        err_hint(&e, "the log is of this version of vramd, is it not?");
        return command_failed("simulate", &e);
    }
    puts("every plan is the same");
    return 0;
}

int cmd_simulate(int argc, char **argv) {
    err e;
    if (args_take_word(&argc, argv, "--help")) return fputs(usage, stdout), 0;
    const char *path = args_take_value(&argc, argv, "--replay");
    const bool audit = args_take_word(&argc, argv, "--audit");
    if (path && *path && argc == 1) return replay(path, audit);
    if (argc > 1)
        err_set(&e, ERR_INVALID, "\"%.80s\" is not an option", argv[1]);
    else
        err_set(&e, ERR_INVALID, "no step log is named");
    err_hint(&e, "vramd simulate --help");
    return command_failed("simulate", &e);
}
