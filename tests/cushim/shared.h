/* Shared memory of the running block. */
#ifndef VRAMD_TESTS_CUSHIM_SHARED_H
#define VRAMD_TESTS_CUSHIM_SHARED_H

#include <stddef.h>
#include <stdint.h>

namespace cushim {

void shared_begin_launch(size_t dynamic_bytes);
void *shared_begin_block(); /* poisons everything; returns the dynamic part */
void shared_end_launch();
bool shared_contains(const void *p, size_t bytes);

/* Addresses in shared memory: dynamic memory begins at SHARED_FIRST, no multiple of 1,024. */
enum { SHARED_FIRST = 1152, SHARED_ADDRESSES = 1 << 18 };
bool shared_is_dynamic(const void *p);
char *shared_at(uint32_t address); /* in dynamic memory; NULL: outside */

} // namespace cushim

#endif
