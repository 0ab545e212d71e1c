/* Fibers. A switch saves six registers and the stack pointer; floating-point control words are
 * the same everywhere. */
#include "fiber.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

#if !defined(__x86_64__)
#error "cushim needs x86-64"
#endif

extern "C" __attribute__((visibility("hidden"))) void cushim_swap(void **save, void *to);
asm(".text\n"
    ".globl cushim_swap\n"
    ".hidden cushim_swap\n"
    ".type cushim_swap, @function\n"
    "cushim_swap:\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n"
    ".size cushim_swap, .-cushim_swap\n");

namespace cushim {

static const size_t PAGE = 4096;
static const size_t STACK = CUSHIM_ASAN ? 256 << 10 : 64 << 10;

#if CUSHIM_ASAN
static stack *switched_from;
#endif

size_t stack_bytes() {
    return STACK;
}

void stack_new(stack *s) {
    char *p = (char *)mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, PAGE, PROT_NONE) != 0) {
        perror("cushim: stack");
        abort();
    }
    *s = {nullptr, p + PAGE, p + PAGE, STACK, nullptr};
}

/* Tops at one offset from a power of two would all fall into the same cache sets. */
static size_t colour(unsigned index) {
    return (index * 5u & 63) * 64 + (index >> 6 & 7) * 4096;
}

void stack_start(stack *s, unsigned index, void (*entry)()) {
    /* What ran here before ended or was abandoned without returning from its last frames. */
    if (s->sp) ASAN_UNPOISON_MEMORY_REGION(s->sp, (size_t)(s->low + STACK - (char *)s->sp));
    void **top = (void **)(s->low + STACK - colour(index));
    *--top = nullptr; /* entry's return address: keeps the stack 16-byte aligned at a call */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    s->sp = top;
    s->asan_fake = nullptr;
}

void stack_entered() {
#if CUSHIM_ASAN
    const void *low;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &low, &size);
    if (!switched_from->low) switched_from->asan_low = low, switched_from->asan_size = size;
#endif
}

void stack_switch(stack *from, stack *to, bool ending) {
#if CUSHIM_ASAN
    switched_from = from;
    __sanitizer_start_switch_fiber(ending ? nullptr : &from->asan_fake, to->asan_low,
                                   to->asan_size);
    cushim_swap(&from->sp, to->sp);
    const void *low;
    size_t size;
    __sanitizer_finish_switch_fiber(from->asan_fake, &low, &size);
#else
    (void)ending;
    cushim_swap(&from->sp, to->sp);
#endif
}

void stack_abandon(stack *s) {
    ASAN_UNPOISON_MEMORY_REGION(s->low, STACK);
}

} // namespace cushim
