/* Which cores a rank gets, of machines as folders like sysfs. */
#include "daemon/ranks/rank_cores.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/check_main.h"

static cpu_set_t cores(unsigned from, unsigned to) {
    cpu_set_t s;
    CPU_ZERO(&s);
    for (unsigned i = from; i <= to; i++) CPU_SET(i, &s);
    return s;
}

/* list: of node i, NULL: there is no such node. */
static rank_nodes machine_of(const char *const list[], int n, const cpu_set_t *allowed) {
    char dir[] = "/tmp/vramd-nodes-XXXXXX", path[64];
    rank_nodes m;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    for (int i = 0; i < n; i++) {
        if (!list[i]) continue;
        snprintf(path, sizeof path, "%s/node%d", dir, i);
        ck_assert_int_eq(mkdir(path, 0700), 0);
        snprintf(path, sizeof path, "%s/node%d/cpulist", dir, i);
        FILE *f = fopen(path, "w");
        ck_assert_ptr_nonnull(f);
        fprintf(f, "%s\n", list[i]);
        fclose(f);
    }
    rank_nodes_read(&m, dir, allowed);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/node%d/cpulist", dir, i);
        unlink(path);
        snprintf(path, sizeof path, "%s/node%d", dir, i);
        rmdir(path);
    }
    rmdir(dir);
    return m;
}

START_TEST(each_rank_has_a_node) {
    const cpu_set_t all = cores(0, 63);
    const rank_nodes m = machine_of((const char *[]){"0-3,8-11", NULL, "4-7,12-15"}, 3, &all);
    cpu_set_t own;
    ck_assert_uint_eq(m.n, 2);
    for (uint32_t n = 2; n <= 8; n *= 2)
        for (uint32_t r = 0; r < n; r++) {
            ck_assert(rank_cores(&m, r, n, 16 / n, &own));
            ck_assert(CPU_EQUAL(&own, &m.node[r >= n / 2]));
        }
    ck_assert(rank_cores(&m, 0, 1, 8, &own) && CPU_COUNT(&own) == 8 && CPU_ISSET(11, &own));
}
END_TEST

START_TEST(nothing_changes_on_one_node) {
    const cpu_set_t all = cores(0, 63), few = cores(0, 5), none = cores(32, 33);
    const char *const two[] = {"0-7", "8-15"};
    cpu_set_t own;
    rank_nodes m = machine_of((const char *[]){"0-15"}, 1, &all);
    ck_assert(!rank_cores(&m, 0, 2, 8, &own));
    m = machine_of(two, 2, &few); /* a container on one of them */
    ck_assert(m.n == 1 && !rank_cores(&m, 1, 2, 3, &own));
    m = machine_of(two, 2, &none);
    ck_assert(m.n == 0 && !rank_cores(&m, 0, 2, 1, &own));
    m = machine_of(two, 0, &all);
    ck_assert(m.n == 0 && !rank_cores(&m, 0, 2, 1, &own));
}
END_TEST

START_TEST(more_threads_than_cores_stay_free) {
    const cpu_set_t all = cores(0, 63);
    const rank_nodes m = machine_of((const char *[]){"0-7", "8-9"}, 2, &all);
    cpu_set_t own;
    ck_assert(rank_cores(&m, 0, 2, 5, &own) && CPU_COUNT(&own) == 8);
    ck_assert(!rank_cores(&m, 1, 2, 5, &own));
    ck_assert(!rank_cores(&m, 0, 4, 5, &own)); /* two ranks on eight cores */
}
END_TEST

CHECK_MAIN("rank_cores", each_rank_has_a_node, nothing_changes_on_one_node,
           more_threads_than_cores_stay_free)
