/* vramd version: what this binary is, and what it would run on here. */
#include <stdio.h>
#include <uv.h>

#include "api/http.h"
#include "daemon/commands.h"
#include "engine/cpu/isa.h"

int cmd_version(int argc, char **argv) {
    (void)argc, (void)argv;
    printf("vramd %s\ncompiler: %s\nlibuv: %s\nlibmicrohttpd: %s\ninstruction sets here:",
           VRAMD_VERSION, __VERSION__, uv_version_string(), http_library_version());
    for (cpu_isa isa = ISA_AMX; isa > ISA_AUTO; isa--)
        if (!isa_lack(isa)) printf(" %s", cpu_isa_name(isa));
    puts("");
    return 0;
}
