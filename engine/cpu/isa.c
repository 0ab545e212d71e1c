/* Instruction sets of this CPU, and what Linux lets a process use of them. Any thread. */
#include "engine/cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* <asm/prctl.h> of Linux 5.16, <cpuid.h> of gcc 11 */
enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AVX512_BF16 = 1 << 5, AVX_VNNI = 1 << 4 };

static bool has_avx2(void) {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avxvnni(void) {
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & AVX_VNNI);
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

static bool has_amx(void) {
    unsigned a, b, c, d7, a1, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d7) &&
           __get_cpuid_count(7, 1, &a1, &b, &c, &d) && (d7 & AMX_TILE) && (d7 & AMX_BF16) &&
           (a1 & AVX512_BF16);
}

/* A process must ask before its first tile, or it dies of a signal; its threads need not. Linux before 5.16, a kernel that
 * leaves tiles off (XCR0) and filters of system calls refuse. */
static bool may_use_tiles(void) {
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
}

const char *isa_lack(cpu_isa isa) {
    static const char none[] = "this CPU or this build does not have it";
    __builtin_cpu_init();
    switch (isa) {
    case ISA_PLAIN: return NULL;
    case ISA_AVX2: return has_avx2() ? NULL : none;
    case ISA_AVXVNNI: return has_avxvnni() ? NULL : none;
    case ISA_AVX512: return has_avx512() ? NULL : none;
    case ISA_AMX:
        if (!has_amx()) return none;
        return may_use_tiles() ? NULL
                               : "this CPU has it, but Linux does not give the process its "
                                 "tiles (arch_prctl; it takes Linux 5.16)";
    default: return none;
    }
}

cpu_isa isa_best(void) {
    cpu_isa isa = ISA_AMX;
    while (isa > ISA_PLAIN && isa_lack(isa)) isa--;
    return isa;
}
