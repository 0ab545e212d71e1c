/* vramd version: what this binary is, and what it would run on here. */
#include <stdio.h>
#include <uv.h>

#include "api/http.h"
#include "daemon/commands.h"
#include "engine/cpu/linear.h"

int cmd_version(int argc, char **argv) {
    static const struct {
        cpu_isa isa;
        const char *name;
    } isas[] = {
        {ISA_AMX, "amx"}, {ISA_AVX512, "avx512"}, {ISA_AVX2, "avx2"}, {ISA_PLAIN, "plain"}};
    (void)argc, (void)argv;
    printf("vramd %s\ncompiler: %s\nlibuv: %s\nlibmicrohttpd: %s\ninstruction sets here:",
           VRAMD_VERSION, __VERSION__, uv_version_string(), http_library_version());
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        if (linear_kernels_get(isas[i].isa)) printf(" %s", isas[i].name);
    puts("");
    return 0;
}
