/* Who started this process, and its link to the others. Main thread; launch_attach the thread that loads. */
#include "daemon/ranks/launch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "daemon/plan/rank_plan.h"
#include "engine/mpi/load.h"

/* Calibrated on Debian 12, Open MPI 4.1.4: anonymous memory after MPI_Init and 2,000 messages of 32 KiB to each of the
 * others, less that before: 2.4 MiB with 2 ranks, 3.0 with 8, over shared memory and over TCP, its two
 * threads included. And the stack of the link's thread, as of any other (machine.c). */
static const uint64_t MPI_BYTES = (3 << 20) + (32 << 10);

/* ---- the launcher ---- */

static bool more_than_one(const char *name) {
    const char *value = getenv(name);
    return value && strtoul(value, NULL, 10) > 1;
}

/* mpirun; srun with PMI-2, and with PMIx, which has no number of processes: a job's own script sees Slurm's, too. */
static bool is_launched(void) {
    return more_than_one("OMPI_COMM_WORLD_SIZE") || more_than_one("PMI_SIZE") ||
           (getenv("PMIX_RANK") && more_than_one("SLURM_STEP_NUM_TASKS"));
}

bool launch_is(const options *o) {
    if (o->distributed_executor_backend == EXECUTOR_MP) return false;
    return is_launched() || rank_plan_by_messages(o);
}

status launch_check(const options *o, err *e) {
    return launch_is(o) ? mpi_wire_check(o->mpi_plugin, e) : OK;
}

/* What Open MPI's mpirun leaves the others when one has ended, in seconds, until SIGTERM, and again until SIGKILL. */
static void check_patience(const launch *l) {
    const char *s = getenv("OMPI_MCA_odls_base_sigkill_timeout");
    if (l->wire.rank || !getenv("OMPI_COMM_WORLD_SIZE") ||
        (s && atoi(s) > LINK_SILENT_MS / 1000))
        return;
    log_warn(
        "mpirun kills the other ranks 2 s after one has ended, before clients have an answer: "
        "mpirun --mca odls_base_sigkill_timeout 6 leaves them the time");
}

static status check_number(const launch *l, const options *o, err *e) {
    const uint32_t n = l->wire.n_ranks, wanted = rank_plan_count(o);
    if (n == wanted) return OK;
    err_set(e, ERR_INVALID,
            "MPI has %u process%s, but tensor_parallel_size = %u and pipeline_parallel_size = "
            "%u are %u "
            "rank%s",
            n, n == 1 ? "" : "es", o->tensor_parallel_size, o->pipeline_parallel_size, wanted,
            wanted == 1 ? "" : "s");
    err_hint(e,
             "start as many: mpirun -n %u vramd serve ..., or give --tensor-parallel-size %u",
             wanted, n);
    return err_field(e, "distributed_executor_backend");
}

status launch_open(launch *l, const options *o, err *e) {
    *l = (launch){0};
    if (!launch_is(o)) return OK;
    status s = mpi_wire_open(&l->wire, o->mpi_plugin, e);
    if (s == OK) s = check_number(l, o, e);
    if (s == OK) s = link_open(&l->link, &l->wire, VRAMD_VERSION, e);
    if (s != OK) return s;
    check_patience(l);
    return OK;
}

/* ---- the group ---- */

static bool none_is_lost(void *arg) {
    const launch *l = arg;
    err ignored;
    return link_error(l->link, &ignored) == OK;
}

/* Of the places of other ranks nothing is ever touched. */
status launch_attach(launch *l, const group_shape *s, err *e) {
    const uint64_t n = group_lay(s).bytes;
    void *memory = mmap(NULL, n, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return mem_exhausted(e, MEM_ACTIVATIONS, "what %u ranks exchange", s->n_ranks);
    group_init(&l->group, memory, s, l->wire.rank, VRAMD_VERSION);
    l->group.alive = none_is_lost;
    l->group.arg = l;
    l->bytes = n;
    group_populate(&l->group);
    return link_attach(l->link, &l->group, e);
}

void launch_terms(terms *t) {
    terms_add(t, MEM_RUNTIME, TERM_CALIBRATED, MPI_BYTES,
              "MPI, and a thread that receives (Open MPI 4.1)");
}

void launch_close(launch *l, bool ended) {
    if (!l->link) return;
    link_close(l->link, ended, l->why.code == OK ? NULL : &l->why);
    if (l->bytes) munmap(l->group.base, l->bytes);
    *l = (launch){0};
}
