/* LD_PRELOAD: makes an allocation of the process fail, and counts those that are alive. What to
 * fail is in a file that the test maps too (environment OOM_FILE): struct control. Only what
 * happens from main() on is counted; the C library's own calls to itself do not come by here.
 *
 * Any thread. Blocks are counted by malloc and free, mappings are not. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

/* tests/e2e/oom.py reads and writes it as five int64. */
typedef struct control {
    atomic_llong at;     /* the allocation to fail, from 1; 0: none */
    atomic_llong width;  /* how many fail from there on */
    atomic_llong seen;   /* allocations since the test set it to 0 */
    atomic_llong failed; /* of them */
    atomic_llong alive;  /* blocks of the heap since main() */
} control;

static control *ctl;

/* Not to be refused anything: GMP aborts then by design, and libtasn1 4.19 follows the NULL.
 * How they are spared is in api/http_tls.c, and tested by a limit of the heap. */
static bool is_frail(const void *caller) {
    Dl_info in;
    return dladdr(caller, &in) && in.dli_fname &&
           (strstr(in.dli_fname, "/libgmp.") || strstr(in.dli_fname, "/libtasn1."));
}

static bool allowed(const void *caller) {
    if (!ctl || is_frail(caller)) return true;
    long long n = atomic_fetch_add(&ctl->seen, 1) + 1, at = atomic_load(&ctl->at);
    if (at == 0 || n < at || n >= at + atomic_load(&ctl->width)) return true;
    atomic_fetch_add(&ctl->failed, 1);
    errno = ENOMEM;
    return false;
}

static void *counted(void *p) {
    if (p && ctl) atomic_fetch_add(&ctl->alive, 1);
    return p;
}

void *malloc(size_t n) {
    return allowed(__builtin_return_address(0)) ? counted(__libc_malloc(n)) : NULL;
}
void *calloc(size_t n, size_t size) {
    return allowed(__builtin_return_address(0)) ? counted(__libc_calloc(n, size)) : NULL;
}
void *realloc(void *p, size_t n) {
    if (!allowed(__builtin_return_address(0))) return NULL;
    void *q = __libc_realloc(p, n);
    return p ? q : counted(q);
}
void *memalign(size_t align, size_t n) {
    return allowed(__builtin_return_address(0)) ? counted(__libc_memalign(align, n)) : NULL;
}
void *aligned_alloc(size_t align, size_t n) {
    return allowed(__builtin_return_address(0)) ? counted(__libc_memalign(align, n)) : NULL;
}
int posix_memalign(void **out, size_t align, size_t n) {
    *out = allowed(__builtin_return_address(0)) ? counted(__libc_memalign(align, n)) : NULL;
    return *out ? 0 : ENOMEM;
}
void free(void *p) {
    if (p && ctl) atomic_fetch_sub(&ctl->alive, 1);
    __libc_free(p);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset) {
    if (!allowed(__builtin_return_address(0))) return MAP_FAILED;
    long p = syscall(SYS_mmap, at, n, prot, flags, fd, offset);
    return (void *)p; /* syscall() has set errno, and MAP_FAILED is -1 */
}
void *mmap64(void *at, size_t n, int prot, int flags, int fd, off_t offset) {
    return mmap(at, n, prot, flags, fd, offset);
}

static int (*real_main)(int, char **, char **);

static int main_with_control(int argc, char **argv, char **env) {
    const char *path = getenv("OOM_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *p = mmap(NULL, sizeof *ctl, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (p != MAP_FAILED) ctl = p;
    }
    return real_main(argc, argv, env);
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
                      void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                      void *stack_end) {
    int (*start)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                 void (*)(void), void *);
    *(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = main;
    return start(main_with_control, argc, argv, init, fini, rtld_fini, stack_end);
}
