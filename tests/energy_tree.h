/* Counters of energy as files below a folder, as sysfs has them (base/energy.h). */
#ifndef VRAMD_TESTS_ENERGY_TREE_H
#define VRAMD_TESTS_ENERGY_TREE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/energy.h"
#include "tests/check_main.h"

typedef struct energy_tree {
    char root[64];
} energy_tree;

static inline void energy_put(const energy_tree *t, uint32_t zone, const char *file,
                              const char *text) {
    char path[160];
    snprintf(path, sizeof path, "%s/intel-rapl:%u/%s", t->root, zone, file);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

static inline void energy_set(const energy_tree *t, uint32_t zone, uint64_t microjoules) {
    char text[32];
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)microjoules);
    energy_put(t, zone, "energy_uj", text);
}

static inline void energy_add(const energy_tree *t, uint32_t zone, const char *name) {
    char path[160];
    snprintf(path, sizeof path, "%s/intel-rapl:%u", t->root, zone);
    ck_assert_int_eq(mkdir(path, 0755), 0);
    energy_put(t, zone, "name", name);
    energy_put(t, zone, "max_energy_range_uj", "1000000000\n");
}

static inline void energy_tree_open(energy_tree *t) {
    snprintf(t->root, sizeof t->root, "/tmp/test_energy.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(t->root));
}

static inline void energy_tree_close(const energy_tree *t) {
    char command[96];
    energy_close();
    snprintf(command, sizeof command, "rm -r %s", t->root);
    ck_assert_int_eq(system(command), 0);
}

#endif
