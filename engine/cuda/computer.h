/* The CPU engine that computes the CPU's operations of a model for the CUDA engine (hosting.h). Opened and closed by
 * the thread that opens; run by whichever thread the driver calls from, one at a time. */
#ifndef VRAMD_ENGINE_CUDA_COMPUTER_H
#define VRAMD_ENGINE_CUDA_COMPUTER_H

#include "engine/cuda/layout.h"

typedef struct computer computer;

/* memory: where values cross, crossing_bytes of the layout. All but the error is borrowed. Errors: as opening an
 * engine. */
status computer_open(computer **out, const cuda_layout *, const model *, const engine_options *,
                     void *memory, ledger *, err *);
void computer_close(computer *); /* NULL is ignored */
/* Of struct cuda_host; a computer. */
void computer_run(void *, uint32_t run, uint32_t n_rows);
/* Microseconds that all runs take for one row, once each: the best of three times. For the thread that opens, before the first
 * step. */
uint64_t computer_measure(computer *);
/* How long runs have taken, all together. Any thread. */
uint64_t computer_us(const computer *);
void computer_info(const computer *, engine_info *out);

#endif
