/* Experts that are in slots: threads read them from the model's file when rows go to them, pack them as
 * loading does, and say when they are there. Which is where: engine/expert_slots.h.
 *
 * A layer's experts go in waves of as many as half of the slots hold, or in one where all slots hold the
 * layer's: experts_take (thread 0 of the step) asks for a wave and the one behind it, experts_wait (any
 * thread of the step) waits for one expert, experts_give (thread 0) lets a wave go. */
#ifndef VRAMD_ENGINE_CPU_EXPERTS_H
#define VRAMD_ENGINE_CPU_EXPERTS_H

#include "engine/cpu/cpu.h"

typedef struct cpu_experts cpu_experts;

/* Opens files, slots and threads; the checkpoint may be closed afterwards. Errors: ERR_UNSUPPORTED (a
 * tensor's experts are not stored one after the other), ERR_IO, ERR_BUDGET, ERR_NO_MEMORY. */
status experts_open(cpu_experts **out, cpu_engine *, err *);
void experts_close(cpu_experts *); /* NULL is ignored */

/* Where the wave that begins at `from` ends: of n experts that rows go to. */
uint32_t experts_wave_end(const cpu_experts *, uint32_t n, uint32_t from);
/* A step comes to a layer, of whose experts used[n] have rows, ascending. */
void experts_turn(cpu_experts *, uint32_t layer, const uint32_t *used, uint32_t n);
/* The wave from..to, which all threads of the step see after a barrier. In *order the same experts, those
 * that are there first; valid until the next call. failed: nothing is read, and waiting fails. */
void experts_take(cpu_experts *, uint32_t from, uint32_t to, bool failed);
uint32_t experts_nth(const cpu_experts *, uint32_t i); /* of a wave's order, i from 0 */
/* Once all threads have met behind the wave: its slots may be another's. */
void experts_give(cpu_experts *);

/* Whether gate and up of an expert of the wave are there, or with down its last matrix; waits. False: they
 * cannot be read, and *e says why. */
bool experts_wait(cpu_experts *, uint32_t expert, bool down, err *e);
/* Where the slot of an expert of the wave begins. */
const unsigned char *experts_at(const cpu_experts *, uint32_t layer, uint32_t expert);

/* Whether a thread has waited since the last call. */
bool experts_stalled(cpu_experts *);

/* Any thread. */
void experts_read_stats(const cpu_experts *, expert_stats *out);

#endif
