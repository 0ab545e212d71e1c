/* Instruction sets: which of them this process may use. Any thread. */
#ifndef VRAMD_ENGINE_CPU_ISA_H
#define VRAMD_ENGINE_CPU_ISA_H

#include "engine/engine.h"

/* Why a set cannot be used here, for people; NULL: it can. ISA_AMX: asks Linux for the tiles, for the whole process;
 * it may be asked again and again. */
const char *isa_lack(cpu_isa);
/* The best that can be used. */
cpu_isa isa_best(void);

#endif
