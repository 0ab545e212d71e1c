/* The documentation as a site: files of one folder, without folders below it (api/docs.h). A file is read by the
 * pool of threads, since a disk may be slow, into the memory of its request. */
#include "api/docs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/app.h"
#include "api/web.h"
#include "base/hash.h"

enum { MAX_BYTES = 4 << 20, NAME_BYTES = 100 };

static int open_folder(const char *path) {
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Beside the program in a build, and where packages put it. */
static int open_usual(void) {
    static const char *const places[] = {"vramd-docs", "../share/vramd/docs"};
    char path[4096];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
    int fd = -1;
    if (n <= 0) return -1;
    path[n] = '\0';
    char *name = strrchr(path, '/');
    for (size_t i = 0; name && fd < 0 && i < sizeof places / sizeof *places; i++) {
        snprintf(name + 1, 64, "%s", places[i]);
        fd = open_folder(path);
    }
    return fd;
}

status docs_open(int *fd, const char *option, err *e) {
    const bool given = option && *option;
    *fd = given ? open_folder(option) : open_usual();
    if (*fd >= 0 || !given) return OK;
    err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "docs_dir: %.200s: %s", option,
            strerror(errno));
    err_hint(e, "make docs writes such a folder; without the option the package's is taken");
    return err_field(e, "docs_dir");
}

/* ---- a file ---- */

static const char *type_of(const char *name) {
    static const struct {
        const char *end, *type;
    } types[] = {{".html", "text/html; charset=utf-8"},
                 {".css", "text/css; charset=utf-8"},
                 {".svg", "image/svg+xml"},
                 {".png", "image/png"},
                 {".json", "application/json"},
                 {".yml", "text/plain; charset=utf-8"}};
    const char *end = strrchr(name, '.');
    for (size_t i = 0; end && i < sizeof types / sizeof *types; i++)
        if (strcmp(end, types[i].end) == 0) return types[i].type;
    return NULL;
}

/* Of letters, digits, - _ and dots, none in front: no name of another folder is such a one. */
static bool is_name(str s) {
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i], low = (char)(c | 32);
        const bool plain = (low >= 'a' && low <= 'z') || (c >= '0' && c <= '9');
        if (!plain && (!c || !strchr("-_.", c) || (c == '.' && i == 0))) return false;
    }
    return s.len > 0 && s.len < NAME_BYTES;
}

typedef struct docs_job {
    http_request *rq;
    web_asker asker;
    int folder;
    char name[NAME_BYTES];
    char tag[17];
    buf text;
    bool found;
} docs_job;

static bool read_all(int fd, buf *out, size_t size) {
    if (!buf_reserve(out, size + 1)) return false;
    while (out->len < size) {
        const ssize_t n = read(fd, out->ptr + out->len, size - out->len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n == 0; /* it has become shorter */
        out->len += (size_t)n;
    }
    return true;
}

/* No link is followed, and nothing but a file is read. */
static void work(void *arg) {
    docs_job *j = arg;
    struct stat st;
    const int fd = openat(j->folder, j->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= MAX_BYTES)
        j->found = read_all(fd, &j->text, (size_t)st.st_size);
    close(fd);
    if (j->found)
        snprintf(j->tag, sizeof j->tag, "%016llx",
                 (unsigned long long)hash64(j->text.ptr, j->text.len, 0));
}

static void refuse_unknown(http_request *rq) {
    failure f;
    failure_set(&f, API_NOT_FOUND, "there is no %.80s here", rq->path.ptr);
    http_refuse(rq, &f);
}

static void answer(void *arg) {
    docs_job *j = arg;
    http_request *rq = j->rq;
    if (j->text.failed)
        http_refuse_memory(rq);
    else if (!j->found)
        refuse_unknown(rq);
    else
        web_answer(rq, &j->asker, type_of(j->name), j->tag, buf_str(&j->text), (str){NULL, 0});
}

static void done(void *arg) {
    docs_job *j = arg;
    http_take_back(j->rq, answer, j);
}

static void read_file(app *a, http_request *rq, str name) {
    docs_job *j = arena_zalloc(&rq->mem, sizeof *j);
    if (!j) {
        http_refuse_memory(rq);
        return;
    }
    *j = (docs_job){.rq = rq, .asker = web_asker_of(rq), .folder = a->docs_fd};
    memcpy(j->name, name.ptr, name.len);
    buf_init(&j->text, &rq->mem);
    if (!type_of(j->name)) {
        refuse_unknown(rq);
        return;
    }
    if (app_lend(rq, a->port, work, done, j)) return;
    work(j); /* the pool is busy */
    answer(j);
}

void docs_run(app *a, http_request *rq) {
    const str folder = STR("/docs"), path = app_path(rq->path);
    str name = {path.ptr + folder.len, path.len - folder.len};
    if (a->docs_fd < 0) {
        refuse_unknown(rq);
        return;
    }
    if (!name.len && rq->path.ptr[rq->path.len - 1] != '/') { /* for links within it */
        http_set(rq, "Location", "/docs/");
        web_guard(rq);
        http_answer(rq, 308, NULL, (str){NULL, 0});
        return;
    }
    name = name.len ? (str){name.ptr + 1, name.len - 1} : STR("index.html");
    if (is_name(name))
        read_file(a, rq, name);
    else
        refuse_unknown(rq);
}
