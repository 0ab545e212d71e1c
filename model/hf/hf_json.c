/* Files of JSON, each read and parsed at once. Owns nothing; any thread. */
#include "model/hf/hf_json.h"
#include "memory/term.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static status at_fault(err *e, const char *name) {
    return err_field(e, "%s", name);
}

static status read_fd(str *out, int fd, const char *name, size_t most, arena *mem, err *e) {
    struct stat st;
    size_t n = 0;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%.200s is not a file", name);
    if ((uint64_t)st.st_size > most)
        return err_set(e, ERR_INVALID, "%.200s has %lld bytes; at most %zu are read", name,
                       (long long)st.st_size, most);
    const size_t want = (size_t)st.st_size;
    char *p = arena_alloc(mem, want + 1);
    if (!p) return mem_exhausted(e, MEM_LOADING, "reading %.200s", name);
    while (n < want) {
        const ssize_t r = read(fd, p + n, want - n);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return err_set(e, ERR_IO, "%.200s: %s", name, strerror(errno));
        if (r == 0) break; /* it became shorter: the text is what there is */
        n += (size_t)r;
    }
    p[n] = '\0';
    *out = (str){p, n};
    return OK;
}

status hf_read_text(str *out, int dir, const char *name, size_t most, arena *mem, err *e) {
    const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *out = (str){NULL, 0};
    if (fd < 0) {
        err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%.200s: %s", name,
                strerror(errno));
        return at_fault(e, name);
    }
    status s = read_fd(out, fd, name, most, mem, e);
    close(fd);
    return s == OK ? OK : at_fault(e, name);
}

typedef struct parsing {
    str text;
    json_error_t error;
    const json_t *v;
} parsing;

static void parse(void *arg) {
    parsing *p = arg;
    p->v = json_loadb(p->text.ptr ? p->text.ptr : "", p->text.len,
                      JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &p->error);
}

/* Python's writer gives numbers beyond all others a word that JSON lacks: each such word outside of
 * strings becomes the largest number, in a copy that replaces *text. False: no memory. */
static bool replace_infinity(str *text, arena *mem) {
    static const char word[] = "Infinity", number[] = "1e308   ";
    const size_t n = sizeof word - 1;
    char *copy = NULL;
    bool quoted = false;
    for (size_t i = 0; i < text->len; i++) {
        if (quoted && text->ptr[i] == '\\')
            i++;
        else if (text->ptr[i] == '"')
            quoted = !quoted;
        else if (!quoted && text->len - i >= n && memcmp(text->ptr + i, word, n) == 0) {
            if (!copy && !(copy = arena_alloc(mem, text->len))) return false;
            if (copy != text->ptr) memcpy(copy, text->ptr, text->len);
            memcpy(copy + i, number, n);
            text->ptr = copy;
        }
    }
    return true;
}

status hf_parse_json(const json_t **out, str text, const char *name, arena *mem, err *e) {
    parsing p = {.text = text};
    *out = NULL;
    if (!replace_infinity(&p.text, mem) || !json_within(mem, parse, &p)) {
        mem_exhausted(e, MEM_LOADING, "parsing %.200s", name);
        return at_fault(e, name);
    }
    if (!p.v) {
        err_set(e, ERR_INVALID, "%.120s is not valid JSON: %.120s, line %d, column %d", name,
                p.error.text, p.error.line, p.error.column);
        return at_fault(e, name);
    }
    *out = p.v;
    return OK;
}

status hf_read_json(const json_t **out, int dir, const char *name, size_t most, arena *mem,
                    err *e) {
    str text;
    *out = NULL;
    status s = hf_read_text(&text, dir, name, most, mem, e);
    if (s == ERR_NOT_FOUND) return OK;
    return s == OK ? hf_parse_json(out, text, name, mem, e) : s;
}
