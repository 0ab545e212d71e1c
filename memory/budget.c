/* How much memory there is, and the budget that an option means. Reads /proc and /sys at
 * start-up; owns nothing. */
#include "memory/budget.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"

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

memory_capacity memory_capacity_within(uint64_t limit, uint64_t total, uint64_t available) {
    memory_capacity r = {.name = "the machine",
                         .available_name = "the memory available now",
                         .total = total,
                         .available = available};
    uint64_t ours = limit / 51 * 50; /* a budget and its 2% */
    if (limit < total) {
        r.total = ours;
        snprintf(r.name, sizeof r.name, "the cgroup, less 2%% for the kernel,");
    }
    if (ours <= available) {
        r.available = ours;
        snprintf(r.available_name, sizeof r.available_name, "the cgroup's memory.max less 2%%");
    }
    return r;
}

memory_capacity memory_capacity_host(void) {
    return memory_capacity_within(machine_cgroup_limit(), machine_total_bytes(),
                                  machine_available_bytes());
}

/* "75%" and "0.75"; false for anything else. */
static bool is_share(const char *word, double *share) {
    char *end;
    *share = strtod(word, &end);
    bool percent = strcmp(end, "%") == 0;
    if (percent) *share /= 100;
    return percent || (*end == '\0' && strchr(word, '.'));
}

/* Without a unit a number is one of bytes; one so small cannot be meant. */
enum { SMALLEST_BARE = 1 << 20 };
static bool is_bare(const char *word, uint64_t *bytes) {
    char *end;
    *bytes = strtoull(word, &end, 10);
    return end != word && *end == '\0' && word[0] != '-' && word[0] != '+';
}

budget budget_unlimited(void) {
    return (budget){.bytes = 1ull << 62, .automatic = true};
}

status budget_parse(budget *out, const char *option, const char *word,
                    const memory_capacity *capacity, err *e) {
    uint64_t bytes;
    double share;
    *out = (budget){.option = option};
    if (strcmp(word, "auto") == 0) {
        out->bytes = capacity->available;
        out->automatic = true;
        snprintf(out->source, sizeof out->source, "%s", capacity->available_name);
        return OK;
    }
    snprintf(out->source, sizeof out->source, "%.24s = %.60s", option, word);
    if (is_share(word, &share)) {
        if (!(share > 0 && share <= 1)) {
            err_set(e, ERR_INVALID, "%s: %.60s is no share of %s", option, word,
                    capacity->name);
            err_field(e, "%s", option);
            return err_hint(
                e, "give bytes (6GiB), a percentage up to 100%% or a fraction up to 1.0");
        }
        out->bytes = (uint64_t)((double)capacity->total * share);
        return OK;
    }
    if (is_bare(word, &bytes) && bytes > 0 && bytes < SMALLEST_BARE) {
        err_set(e, ERR_INVALID, "%s = %.60s is %llu bytes: a unit is missing", option, word,
                (unsigned long long)bytes);
        err_field(e, "%s", option);
        return bytes <= 100 ? err_hint(e, "%sGiB, or %s%% of %s", word, word, capacity->name)
                            : err_hint(e, "%sMiB, or %sGiB", word, word);
    }
    if (!str_parse_bytes(str_of(word), &bytes) || bytes == 0) {
        err_set(e, ERR_INVALID, "%s: \"%.60s\" is no number of bytes", option, word);
        err_field(e, "%s", option);
        return err_hint(e, "give bytes (6GiB), a percentage (75%%), a fraction (0.75) or auto");
    }
    if (bytes > capacity->total) {
        char a[32], b[32];
        err_set(e, ERR_BUDGET, "%s = %.60s is %s, but %s has %s", option, word,
                bytes_human(bytes, a), capacity->name, bytes_human(capacity->total, b));
        err_field(e, "%s", option);
        return err_hint(e, "give at most %llu bytes (%s)", (unsigned long long)capacity->total,
                        bytes_human(capacity->total, a));
    }
    out->bytes = bytes;
    return OK;
}

/* Pages without a file that processes share, which the kernel does not call anonymous. */
static uint64_t shared_bytes(void) {
    char line[256];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssShmem: %llu kB", &kb) == 1) break;
    if (f) fclose(f);
    return kb * 1024;
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
    out->anonymous_bytes += shared_bytes();
    out->file_bytes = out->rss_bytes - out->anonymous_bytes;
    const struct mallinfo2 heap = mallinfo2();
    out->heap_bytes = heap.uordblks + heap.hblkhd;
    return out->rss_bytes > 0;
}
