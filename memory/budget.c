/* How much memory there is, and what the operator's word for a budget means. Reads /proc and
 * /sys at start-up; owns nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "memory/ledger.h"
#include "memory/plan.h"

static bool read_number(const char *path, uint64_t *out) {
    char line[64];
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    if (!ok || strncmp(line, "max", 3) == 0) return false;
    char *end;
    *out = strtoull(line, &end, 10);
    return end != line;
}

/* The lowest limit of the cgroup at path and of all above it. */
static uint64_t lowest_limit(const char *root, const char *path, const char *file) {
    char dir[1024], name[1200];
    uint64_t low = UINT64_MAX, v;
    snprintf(dir, sizeof dir, "%s", path);
    for (;;) {
        snprintf(name, sizeof name, "%s%s/%s", root, dir, file);
        if (read_number(name, &v) && v < low) low = v;
        char *slash = strrchr(dir, '/');
        if (!slash) break;
        *slash = '\0';
    }
    return low;
}

uint64_t machine_cgroup_limit(void) {
    char line[1024];
    uint64_t low = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return low;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *path++ = '\0';
        uint64_t v = UINT64_MAX;
        if (names[1] == '\0') /* version 2: one tree */
            v = lowest_limit("/sys/fs/cgroup", strcmp(path, "/") ? path : "", "memory.max");
        else if (strstr(names + 1, "memory"))
            v = lowest_limit("/sys/fs/cgroup/memory", strcmp(path, "/") ? path : "",
                             "memory.limit_in_bytes");
        if (v < low) low = v;
    }
    fclose(f);
    return low >= machine_total_bytes() ? UINT64_MAX : low; /* v1's "none" is a huge number */
}

uint64_t machine_total_bytes(void) {
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

uint64_t machine_available_bytes(void) {
    char line[128];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return machine_total_bytes();
    while (fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu kB", &kb) != 1) {
    }
    fclose(f);
    return kb ? kb * 1024 : machine_total_bytes();
}

status budget_parse(budget *out, const char *word, err *e) {
    static char source[96]; /* start-up only: one budget a process */
    uint64_t limit = machine_cgroup_limit(), have = machine_total_bytes(), bytes;
    if (limit < have) have = limit;
    if (strcmp(word, "auto") == 0) {
        uint64_t available = machine_available_bytes();
        *out = limit <= available ? (budget){limit, "the cgroup's memory.max", true}
                                  : (budget){available, "the memory available now", true};
        return OK;
    }
    snprintf(source, sizeof source, "memory = %.60s", word);
    char *end;
    double v = strtod(word, &end);
    bool percent = strcmp(end, "%") == 0;
    if (percent) v /= 100;
    if (percent || (*end == '\0' && strchr(word, '.'))) {
        if (!(v > 0 && v <= 1)) {
            err_set(e, ERR_INVALID, "memory: %.60s is no share of the machine", word);
            err_field(e, "memory");
            return err_hint(
                e, "give bytes (6GiB), a percentage up to 100%% or a fraction up to 1.0");
        }
        *out = (budget){(uint64_t)((double)have * v), source, false};
        return OK;
    }
    if (!str_parse_bytes(str_of(word), &bytes) || bytes == 0) {
        err_set(e, ERR_INVALID, "memory: \"%.60s\" is no number of bytes", word);
        err_field(e, "memory");
        return err_hint(e, "give bytes (6GiB), a percentage (75%%), a fraction (0.75) or auto");
    }
    if (bytes > have) {
        char a[32], b[32];
        err_set(e, ERR_BUDGET, "memory = %.60s is %s, but %s has %s", word,
                bytes_human(bytes, a), limit == UINT64_MAX ? "the machine" : "the cgroup",
                bytes_human(have, b));
        err_field(e, "memory");
        return err_hint(e, "give at most %llu", (unsigned long long)have);
    }
    *out = (budget){bytes, source, false};
    return OK;
}

bool process_memory_read(process_memory *out) {
    char line[256];
    *out = (process_memory){0};
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    if (!f) return false;
    unsigned long long kb;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "Rss: %llu kB", &kb) == 1) out->rss_bytes = kb * 1024;
        if (sscanf(line, "Anonymous: %llu kB", &kb) == 1) out->anonymous_bytes = kb * 1024;
    }
    fclose(f);
    out->file_bytes = out->rss_bytes - out->anonymous_bytes;
    return out->rss_bytes > 0;
}
