/* Fibers: stacks and the switch between them. x86-64, System V ABI; AddressSanitizer is told.
 */
#ifndef VRAMD_TESTS_CUSHIM_FIBER_H
#define VRAMD_TESTS_CUSHIM_FIBER_H

#include <stddef.h>

namespace cushim {

struct stack {
    void *sp;  /* saved stack pointer while the fiber does not run */
    char *low; /* lowest byte; a guard page lies below. NULL: the thread's own stack */
    const void *asan_low;
    size_t asan_size;
    void *asan_fake;
};

/* Gives s memory of its own; aborts without. */
void stack_new(stack *s);
/* The next switch to s calls entry, which must not return. index spreads the stacks over the
 * cache's sets. What ran on s before is forgotten. */
void stack_start(stack *s, unsigned index, void (*entry)());
/* To be called first in entry. */
void stack_entered();
/* Saves the running fiber in from and goes on with to. ending: from will not be resumed. */
void stack_switch(stack *from, stack *to, bool ending);

} // namespace cushim

#endif
