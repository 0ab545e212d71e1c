/* vramd-mpi.so: a wire (engine/wire.h) by MPI. One of a process. Calls come from several threads, one at a
 * time (MPI_THREAD_SERIALIZED). */
#include "engine/mpi/plugin.h"

#include <mpi.h>
#include <sched.h>
#include <string.h>

#include "engine/group.h"

enum { TAG = 1 };

static struct {
    MPI_Request send[WIRE_SLOTS][GROUP_MAX];
    int n_sends[WIRE_SLOTS];
    MPI_Request receive; /* MPI_REQUEST_NULL: none has begun */
    char why[MPI_MAX_ERROR_STRING];
} own;

static const char *failed(int code) {
    int n;
    if (MPI_Error_string(code, own.why, &n) != MPI_SUCCESS) return "MPI gives no reason";
    return own.why;
}

/* It is sent once the other side takes it: what is on its way has its memory in the slots alone, and not in
 * buffers of the receiver's MPI. */
static const char *mpi_send(wire *w, uint32_t slot, uint32_t to, const void *data,
                            uint32_t bytes) {
    (void)w;
    MPI_Request *r = &own.send[slot][own.n_sends[slot]];
    const int code = MPI_Issend(data, (int)bytes, MPI_BYTE, (int)to, TAG, MPI_COMM_WORLD, r);
    if (code != MPI_SUCCESS) return failed(code);
    own.n_sends[slot]++;
    return NULL;
}

static bool mpi_sent(wire *w, uint32_t slot) {
    int all = 0;
    (void)w;
    if (MPI_Testall(own.n_sends[slot], own.send[slot], &all, MPI_STATUSES_IGNORE) !=
        MPI_SUCCESS)
        return false; /* what has failed takes no more messages; silence shows it */
    if (all) own.n_sends[slot] = 0;
    return all;
}

static const char *mpi_receive(wire *w, void *to, uint32_t cap, uint32_t *from,
                               uint32_t *bytes) {
    MPI_Status st;
    int done = 0, n = 0, code = MPI_SUCCESS;
    (void)w;
    *bytes = 0;
    if (own.receive == MPI_REQUEST_NULL)
        code = MPI_Irecv(to, (int)cap, MPI_BYTE, MPI_ANY_SOURCE, TAG, MPI_COMM_WORLD,
                         &own.receive);
    if (code == MPI_SUCCESS) code = MPI_Test(&own.receive, &done, &st);
    if (code == MPI_SUCCESS && done) code = MPI_Get_count(&st, MPI_BYTE, &n);
    if (code != MPI_SUCCESS) return failed(code);
    if (!done) return NULL;
    *from = (uint32_t)st.MPI_SOURCE;
    *bytes = (uint32_t)n;
    return NULL;
}

/* Without the others MPI_Finalize would wait for ever: the launcher learns of it by how the process ends. */
static void mpi_close(wire *w, bool together) {
    int done;
    (void)w;
    if (own.receive != MPI_REQUEST_NULL) {
        MPI_Cancel(&own.receive);
        MPI_Test(&own.receive, &done, MPI_STATUS_IGNORE);
    }
    if (together) MPI_Finalize();
}

/* Ranks of this machine, and of those how many may use a core that this one may use: a launcher binds ranks to
 * cores, or leaves them all of the machine's. */
static int count_here(wire *w) {
    static cpu_set_t mask[GROUP_MAX];
    cpu_set_t mine, both;
    MPI_Comm here;
    int n = 0, code = MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0,
                                          MPI_INFO_NULL, &here);
    if (code != MPI_SUCCESS) return code;
    CPU_ZERO(&mine);
    sched_getaffinity(0, sizeof mine, &mine);
    code = MPI_Comm_size(here, &n);
    if (code == MPI_SUCCESS)
        code = MPI_Allgather(&mine, sizeof mine, MPI_BYTE, mask, sizeof mine, MPI_BYTE, here);
    MPI_Comm_free(&here);
    w->n_here = (uint32_t)n;
    w->n_beside = 0;
    for (int i = 0; i < n; i++) {
        CPU_AND(&both, &mine, &mask[i]);
        w->n_beside += CPU_COUNT(&both) > 0;
    }
    if (!w->n_beside) w->n_beside = 1;
    return code;
}

static const char *mpi_open(wire *out) {
    int level = 0, rank = 0, n = 0;
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level);
    if (code != MPI_SUCCESS) return failed(code);
    if (level < MPI_THREAD_SERIALIZED) return "this MPI serves one thread alone";
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    code = MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (code == MPI_SUCCESS) code = MPI_Comm_size(MPI_COMM_WORLD, &n);
    if (code != MPI_SUCCESS) return failed(code);
    if (n > GROUP_MAX) return "more processes were started than a group can have, 64";
    *out = (wire){.rank = (uint32_t)rank,
                  .n_ranks = (uint32_t)n,
                  .send = mpi_send,
                  .receive = mpi_receive,
                  .sent = mpi_sent,
                  .close = mpi_close};
    own.receive = MPI_REQUEST_NULL;
    code = count_here(out);
    return code == MPI_SUCCESS ? NULL : failed(code);
}

__attribute__((visibility("default"))) vramd_mpi_plugin_function vramd_mpi_plugin;

const mpi_plugin *vramd_mpi_plugin(uint32_t abi) {
    static const mpi_plugin plugin = {MPI_PLUGIN_ABI, VRAMD_VERSION, mpi_open};
    return abi == MPI_PLUGIN_ABI ? &plugin : NULL;
}
