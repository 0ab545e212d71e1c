/* Resolution of references between URIs, RFC 3986 section 5.2. Owns nothing; any thread. */
#include "base/buf.h"
#include "text/grammar/schema_in.h"

typedef struct uri { /* ptr NULL: the part is not there; path may be empty */
    str scheme, authority, path, query;
} uri;

static bool is_alpha(char c) {
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

/* The length of s before the first of these characters. */
static size_t span(str s, const char *stops) {
    size_t n = 0;
    while (n < s.len && (!s.ptr[n] || !strchr(stops, s.ptr[n]))) n++;
    return n;
}

static str from(str s, size_t n) {
    return (str){s.ptr + n, s.len - n};
}

static uri parse(str s) {
    uri u = {0};
    size_t n = span(s, ":/?#");
    if (n && n < s.len && s.ptr[n] == ':' && is_alpha(s.ptr[0])) {
        u.scheme = (str){s.ptr, n};
        s = from(s, n + 1);
    }
    if (str_starts(s, STR("//"))) {
        n = span(from(s, 2), "/?#");
        u.authority = (str){s.ptr + 2, n};
        s = from(s, n + 2);
    }
    n = span(s, "?#");
    u.path = (str){s.ptr, n};
    s = from(s, n);
    if (s.len && s.ptr[0] == '?') u.query = (str){s.ptr + 1, span(s, "#") - 1};
    return u;
}

/* The last segment of out and the slash before it. */
static void drop_segment(buf *out, size_t begin) {
    while (out->len > begin && out->ptr[out->len - 1] != '/') out->len--;
    if (out->len > begin) out->len--;
}

/* Section 5.2.4: "." and ".." go. */
static void add_path(buf *out, str p) {
    const size_t begin = out->len;
    while (p.len) {
        if (str_starts(p, STR("../"))) {
            p = from(p, 3);
        } else if (str_starts(p, STR("./"))) {
            p = from(p, 2);
        } else if (str_starts(p, STR("/./"))) {
            p = from(p, 2);
        } else if (str_eq(p, STR("/."))) {
            p = STR("/");
        } else if (str_starts(p, STR("/../"))) {
            p = from(p, 3);
            drop_segment(out, begin);
        } else if (str_eq(p, STR("/.."))) {
            p = STR("/");
            drop_segment(out, begin);
        } else if (str_eq(p, STR(".")) || str_eq(p, STR(".."))) {
            p.len = 0;
        } else {
            size_t n = 1 + span(from(p, 1), "/");
            buf_add(out, (str){p.ptr, n});
            p = from(p, n);
        }
    }
}

static void add_merged(buf *out, const uri *base, str path, arena *a) {
    buf whole;
    size_t n = base->path.len;
    buf_init(&whole, a);
    while (n && base->path.ptr[n - 1] != '/') n--;
    if (base->authority.ptr && !base->path.len) buf_addc(&whole, '/');
    buf_add(&whole, (str){base->path.ptr, n});
    buf_add(&whole, path);
    add_path(out, buf_str(&whole));
}

str schema_uri(arena *a, str base, str ref) {
    const uri r = parse(ref), b = parse(base);
    const bool absolute = r.scheme.ptr != NULL, own = absolute || r.authority.ptr;
    const str scheme = absolute ? r.scheme : b.scheme;
    const str authority = own ? r.authority : b.authority;
    str query = r.query;
    buf out;
    buf_init(&out, a);
    if (scheme.ptr) {
        buf_add(&out, scheme);
        buf_addc(&out, ':');
    }
    if (authority.ptr) {
        buf_add(&out, STR("//"));
        buf_add(&out, authority);
    }
    if (own || (r.path.len && r.path.ptr[0] == '/')) {
        add_path(&out, r.path);
    } else if (r.path.len) {
        add_merged(&out, &b, r.path, a);
    } else {
        buf_add(&out, b.path);
        if (!query.ptr) query = b.query;
    }
    if (query.ptr) {
        buf_addc(&out, '?');
        buf_add(&out, query);
    }
    return out.failed ? (str){0} : out.len ? buf_str(&out) : STR("");
}
