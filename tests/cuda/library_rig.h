/* cuBLASLt for tests of what goes through it. */
#ifndef VRAMD_TESTS_LIBRARY_RIG_H
#define VRAMD_TESTS_LIBRARY_RIG_H

#include "tests/cuda/linear_rig.h"

#include <stdio.h>

#include "engine/cuda/gemm.h"

static inline status say_why(err *e, status code, const char *, const char *text,
                             const char *) {
    e->code = code;
    snprintf(e->text, sizeof e->text, "%s", text);
    return code;
}

/* cuBLASLt, with a workspace. */
struct library {
    device<uint8_t> workspace;
    cuda_host host = {};
    gemm *lt = nullptr;
    library() : workspace(32 << 20) {
        err e;
        host.fail = say_why;
        const gemm_memory memory = {workspace.p, workspace.n, NULL, 0};
        ck_assert_msg(gemm_open(&lt, &host, &memory, false, &e) == OK, "%s", e.text);
    }
    ~library() { gemm_close(lt); }
};

#endif
