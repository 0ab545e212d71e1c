/* Shared memory: static arrays from one region, handed out at first use in a launch with gaps
 * between them (poisoned under ASan); dynamic memory ends at a guard page. */
#include "shared.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/cuda/hopper.cuh"
#include "internal.h"

namespace cushim {
namespace {

const size_t STATIC_LIMIT = 48 << 10, TOTAL_LIMIT = 227 << 10, GAP = 64, PAGE = 4096;
const size_t REGION = 512 << 10; /* of each of the two; holds the gaps, too */

char *statics, *dynamic_end;
size_t static_used, static_asked, dynamic_bytes;

char *region() { /* with guard pages on both sides */
    char *p =
        (char *)mmap(nullptr, REGION + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + PAGE, REGION, PROT_READ | PROT_WRITE) != 0) {
        perror("cushim: shared memory");
        abort();
    }
    return p + PAGE;
}

char *dynamic_start() {
    return dynamic_end - (dynamic_bytes + 127) / 128 * 128;
}

} // namespace

void shared_begin_launch(size_t bytes) {
    if (!statics) statics = region(), dynamic_end = region() + REGION;
    static_used = static_asked = 0;
    dynamic_bytes = bytes;
    ASAN_POISON_MEMORY_REGION(statics, REGION);
    ASAN_POISON_MEMORY_REGION(dynamic_end - REGION, REGION);
    ASAN_UNPOISON_MEMORY_REGION(dynamic_start(), bytes);
}

void *shared_begin_block() {
    memset(dynamic_start(), 0xff, dynamic_bytes);
    cushim_blk.epoch++; /* static arrays are handed out again, and poisoned then */
    ASAN_POISON_MEMORY_REGION(statics, static_used);
    static_used = static_asked = 0;
    return dynamic_start();
}

void shared_end_launch() {
    ASAN_UNPOISON_MEMORY_REGION(statics, REGION);
    ASAN_UNPOISON_MEMORY_REGION(dynamic_end - REGION, REGION);
}

bool shared_contains(const void *p, size_t bytes) {
    const char *c = (const char *)p;
    return (c >= statics && c + bytes <= statics + static_used) ||
           (c >= dynamic_start() && c + bytes <= dynamic_start() + dynamic_bytes);
}

bool shared_is_dynamic(const void *p) {
    const char *c = (const char *)p;
    return c >= dynamic_start() && c < dynamic_start() + dynamic_bytes;
}

char *shared_at(uint32_t address) {
    if (address < SHARED_FIRST || address - SHARED_FIRST >= dynamic_bytes) return nullptr;
    return dynamic_start() + (address - SHARED_FIRST);
}

} // namespace cushim

using namespace cushim;

uint32_t cu_shared_address(const void *shared) {
    if (shared_is_dynamic(shared))
        return SHARED_FIRST + (uint32_t)((const char *)shared - dynamic_start());
    if (!shared_contains(shared, 1)) cushim_fault("%p is not shared memory", shared);
    return SHARED_ADDRESSES + (uint32_t)((const char *)shared - statics);
}

void *cushim_shared(cushim_site *site, size_t bytes) {
    static_asked += (bytes + 15) / 16 * 16;
    if (static_asked > STATIC_LIMIT)
        cushim_fault("%zu bytes of CU_SHARED: more than 48 KiB", static_asked);
    if (static_asked + dynamic_bytes > TOTAL_LIMIT)
        cushim_fault("%zu bytes of shared memory: more than 227 KiB",
                     static_asked + dynamic_bytes);
    char *p = statics + static_used;
    static_used += (bytes + 15) / 16 * 16 + GAP;
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    memset(p, 0xff, bytes);
    *site = {cushim_blk.epoch, p};
    return p;
}
