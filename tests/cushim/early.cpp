/* What kernels wrote since the last copy, page by page, and how it is hidden: see early.h. */
#include "early.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vector>

#include "cushim.h"
#include "internal.h"

namespace cushim {
namespace {

const size_t PAGE = 4096, MOST_PAGES = 1 << 16, HANDLER_STACK = 64 << 10;

/* What kernels changed, one word after the other in one page. */
struct run {
    char *at;
    size_t bytes, saved; /* saved: where, in saved_bytes */
};

char **pages; /* [n_pages]: written since the last copy; the signal handler appends */
char *before; /* [n_pages][PAGE]: what was there */
size_t n_pages;
bool armed; /* all other pages are read-only */
bool hidden, checked;
std::vector<run> runs;
std::vector<char> saved_bytes, during; /* during: [n_pages][PAGE], of a block that is checked */

bool tracks() {
    return config.order > 2 && writes_are_tracked();
}

void *reserve(size_t bytes) {
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("cushim: early");
        abort();
    }
    return p;
}

/* The handler needs a stack: a fiber's may be too small. */
void prepare() {
    if (!pages) {
        pages = (char **)reserve(MOST_PAGES * sizeof *pages);
        before = (char *)reserve(MOST_PAGES * PAGE);
    }
    static thread_local bool has_stack;
    if (has_stack) return;
    stack_t s = {};
    s.ss_size = HANDLER_STACK;
    s.ss_sp = reserve(HANDLER_STACK);
    has_stack = sigaltstack(&s, nullptr) == 0;
}

void arm() {
    if (armed) return;
    protect_device(PROT_READ);
    for (size_t i = 0; i < n_pages; i++) mprotect(pages[i], PAGE, PROT_READ | PROT_WRITE);
    armed = true;
}

/* The words that differ from what they were. */
void add_runs(char *page, const char *was) {
    const size_t WORD = 4;
    for (size_t i = 0; i < PAGE;) {
        const size_t first = i;
        while (i < PAGE && memcmp(page + i, was + i, WORD) != 0) i += WORD;
        if (i > first) {
            runs.push_back({page + first, i - first, saved_bytes.size()});
            saved_bytes.resize(saved_bytes.size() + (i - first));
        }
        i += WORD;
    }
}

void copy_pages(char *to) {
    for (size_t i = 0; i < n_pages; i++) memcpy(to + i * PAGE, pages[i], PAGE);
}

} // namespace

bool early_begin(bool early) {
    if (!tracks()) return false;
    prepare();
    if (!early) early_settle();
    arm();
    runs.clear();
    saved_bytes.clear();
    if (early)
        for (size_t i = 0; i < n_pages; i++) add_runs(pages[i], before + i * PAGE);
    return early;
}

void early_hide(bool first) {
    for (const run &r : runs) {
        memcpy(&saved_bytes[r.saved], r.at, r.bytes);
        memset(r.at, 0xff, r.bytes);
    }
    hidden = true, checked = first;
    if (!first) return;
    during.resize(n_pages * PAGE);
    copy_pages(during.data());
}

void early_show() {
    hidden = false;
    bool wrote = false;
    for (size_t i = 0; checked && i < n_pages; i++)
        wrote |= memcmp(&during[i * PAGE], pages[i], PAGE) != 0;
    for (const run &r : runs) memcpy(r.at, &saved_bytes[r.saved], r.bytes);
    if (wrote) fault_of_block("writes to device memory before cu_grid_wait");
}

void early_settle() {
    if (armed) protect_device(PROT_READ | PROT_WRITE);
    armed = false, n_pages = 0;
}

void early_opened() {
    if (n_pages) arm();
}

void early_closed() {
    armed = false;
}

bool early_faulted(void *p) {
    if (!armed || place_of(p, 1) != place::device) return false;
    if (hidden) {
        dprintf(2, "cushim: before cu_grid_wait it writes to device memory\n");
        return false;
    }
    char *page = (char *)((uintptr_t)p & ~(PAGE - 1));
    memcpy(before + n_pages * PAGE, page, PAGE);
    pages[n_pages++] = page;
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
    if (n_pages == MOST_PAGES)
        n_pages = 0, armed = false, protect_device(PROT_READ | PROT_WRITE);
    return true;
}

} // namespace cushim
