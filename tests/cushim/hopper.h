/* What grid.cpp knows of hopper.cpp: what a block has under way. */
#ifndef VRAMD_TESTS_CUSHIM_HOPPER_STATE_H
#define VRAMD_TESTS_CUSHIM_HOPPER_STATE_H

#include "internal.h"

namespace cushim {

void hopper_begin_block();
/* What is still under way is a fault. */
void hopper_end_block();
/* Lets one bulk copy come, the one that the order chooses; false: none is under way. */
bool hopper_land(rng &dice);
bool hopper_has_copies();
/* The running thread's cp.async has written 16 bytes. */
void hopper_wrote(const void *shared);

} // namespace cushim

#endif
