/* Shared memory of the running block. */
#ifndef VRAMD_TESTS_CUSHIM_SHARED_H
#define VRAMD_TESTS_CUSHIM_SHARED_H

#include <stddef.h>

namespace cushim {

void shared_begin_launch(size_t dynamic_bytes);
void *shared_begin_block(); /* poisons everything; returns the dynamic part */
void shared_end_launch();
bool shared_contains(const void *p, size_t bytes);

} // namespace cushim

#endif
