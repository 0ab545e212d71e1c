/* Counters of energy. Owns their open files; a mutex is held while they are read. */
#include "base/energy.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct counter {
    int fd;
    uint64_t last, range; /* microjoules; range: what it goes round at */
    energy_package package;
} counter;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static counter counters[ENERGY_PACKAGES];
static uint32_t n_counters;

/* The file's first line. False: it cannot be read, or is empty. */
static bool read_line(int fd, char *out, size_t cap) {
    const ssize_t n = pread(fd, out, cap - 1, 0);
    if (n <= 0) return false;
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return out[0] != '\0';
}

static int open_file(const char *root, uint32_t zone, const char *file) {
    char path[512];
    const int n = snprintf(path, sizeof path, "%s/intel-rapl:%u/%s", root, zone, file);
    return n > 0 && (size_t)n < sizeof path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

static bool read_file(const char *root, uint32_t zone, const char *file, char *out,
                      size_t cap) {
    const int fd = open_file(root, zone, file);
    const bool ok = fd >= 0 && read_line(fd, out, cap);
    if (fd >= 0) close(fd);
    return ok;
}

static bool read_number(int fd, uint64_t *out) {
    char line[32], *end;
    if (!read_line(fd, line, sizeof line)) return false;
    *out = strtoull(line, &end, 10);
    return *end == '\0';
}

/* A zone of the top level may be the whole board ("psys"), too, which has the packages in it. */
static bool open_counter(const char *root, uint32_t zone, counter *c) {
    static const char prefix[] = "package-";
    char name[64], range[32];
    if (!read_file(root, zone, "name", name, sizeof name) ||
        strncmp(name, prefix, sizeof prefix - 1) != 0 ||
        !read_file(root, zone, "max_energy_range_uj", range, sizeof range))
        return false;
    *c =
        (counter){.fd = open_file(root, zone, "energy_uj"), .range = strtoull(range, NULL, 10)};
    snprintf(c->package.name, sizeof c->package.name, "%.15s", name + sizeof prefix - 1);
    if (c->fd < 0) return false;
    if (read_number(c->fd, &c->last)) return true;
    close(c->fd);
    return false;
}

uint32_t energy_open(const char *root) {
    for (uint32_t zone = 0; zone < ENERGY_PACKAGES; zone++)
        n_counters += open_counter(root, zone, &counters[n_counters]);
    return n_counters;
}

uint32_t energy_count(void) {
    return n_counters;
}

/* With the lock. A counter that cannot be read any more stays where it is. */
static void bring_up_to_date(counter *c) {
    uint64_t now;
    if (!read_number(c->fd, &now)) return;
    c->package.joules +=
        (double)(now >= c->last ? now - c->last : now + c->range - c->last) / 1e6;
    c->last = now;
}

uint32_t energy_read(energy_package out[ENERGY_PACKAGES]) {
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < n_counters; i++) {
        bring_up_to_date(&counters[i]);
        out[i] = counters[i].package;
    }
    pthread_mutex_unlock(&lock);
    return n_counters;
}

double energy_joules(void) {
    energy_package p[ENERGY_PACKAGES];
    const uint32_t n = energy_read(p);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += p[i].joules;
    return sum;
}

void energy_close(void) {
    while (n_counters > 0) close(counters[--n_counters].fd);
}
