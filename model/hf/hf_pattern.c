/* Patterns of modules: groups are opened into alternatives, each a list of atoms, and a list is run
 * as an automaton, so that no pattern takes more than its length times the name's. (The C
 * library's regcomp takes any amount of memory for some.) Owns nothing; any thread. */
#include "model/hf/hf_pattern.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

/* ---- plain names ---- */

static bool run_matches(const char *pattern, const char *name) {
    while (*pattern) {
        const size_t p = strcspn(pattern, "."), n = strcspn(name, ".");
        const bool any = p == 1 && *pattern == '*';
        if (!n || (!any && (p != n || strncmp(pattern, name, p) != 0))) return false;
        pattern += p + (pattern[p] == '.');
        name += n + (name[n] == '.');
    }
    return true;
}

/* Past the next component of name. */
static const char *next_part(const char *name) {
    name += strcspn(name, ".");
    return name + (*name == '.');
}

/* Files of models with vision put "language_model." in front, or after "model.". */
static bool is_part(const char *pattern, const char *name) {
    static const char outer[] = "language_model.", inner[] = "model.language_model.";
    const char *model = "model.";
    if (strncmp(pattern, outer, sizeof outer - 1) == 0) pattern += sizeof outer - 1;
    if (strncmp(pattern, inner, sizeof inner - 1) == 0) {
        if (strncmp(name, model, strlen(model)) != 0) return false;
        return run_matches(pattern + sizeof inner - 1, name + strlen(model));
    }
    for (; *pattern && *name; name = next_part(name))
        if (run_matches(pattern, name)) return true;
    return false;
}

/* ---- regular expressions ---- */

enum { MAX_TEXT = 256, MAX_ATOMS = 128, MAX_ALTERNATIVES = 64 };

typedef struct atom {
    unsigned char set[32]; /* of characters, a bit each */
    bool optional, repeated;
} atom;

static void put(atom *a, unsigned char from, unsigned char to) {
    for (unsigned c = from; c <= to; c++) a->set[c / 8] |= (unsigned char)(1u << c % 8);
}
static bool has(const atom *a, unsigned char c) {
    return a->set[c / 8] >> c % 8 & 1;
}

/* After a backslash. False: not known. */
static bool put_escaped(atom *a, char c) {
    if (c == 'd' || c == 'w') put(a, '0', '9');
    if (c == 'w') put(a, 'a', 'z'), put(a, 'A', 'Z'), put(a, '_', '_');
    if (c == 'd' || c == 'w') return true;
    if (!c || isalnum((unsigned char)c)) return false;
    put(a, (unsigned char)c, (unsigned char)c);
    return true;
}

/* From after '[' to after ']'; NULL: not known. */
static const char *put_class(atom *a, const char *s) {
    const bool not = *s == '^';
    for (s += not ; *s && *s != ']'; s++) {
        if (*s == '\\') {
            if (!put_escaped(a, *++s)) return NULL;
        } else if (s[1] == '-' && s[2] && s[2] != ']') {
            put(a, (unsigned char)s[0], (unsigned char)s[2]);
            s += 2;
        } else {
            put(a, (unsigned char)*s, (unsigned char)*s);
        }
    }
    for (int i = 0; not &&i < 32; i++) a->set[i] = (unsigned char)~a->set[i];
    return *s ? s + 1 : NULL;
}

/* One atom with what repeats it; NULL: not known. */
static const char *read_atom(atom *a, const char *s) {
    *a = (atom){0};
    if (strchr("*+?{}|()^$]", *s)) return NULL;
    if (*s == '[') {
        s = put_class(a, s + 1);
    } else if (*s == '\\') {
        s = put_escaped(a, s[1]) ? s + 2 : NULL;
    } else {
        put(a, *s == '.' ? 1 : (unsigned char)*s, *s == '.' ? 255 : (unsigned char)*s);
        s++;
    }
    if (!s) return NULL;
    if (*s != '*' && *s != '+' && *s != '?') return s;
    a->optional = *s != '+';
    a->repeated = *s != '?';
    return s[1] == '?' ? s + 2 : s + 1; /* a lazy one matches the same names */
}

/* Runs the automaton of a text without groups: state i is before atom i. */
static bool run(const char *text, const char *name, bool *known) {
    atom atoms[MAX_ATOMS];
    bool at[MAX_ATOMS + 1] = {true}, whole = false;
    int n = 0;
    for (text += *text == '^'; *text && !(whole = strcmp(text, "$") == 0);) {
        if (n == MAX_ATOMS || !(text = read_atom(&atoms[n++], text))) return *known = false;
    }
    for (;; name++) {
        for (int i = 0; i < n; i++)
            if (at[i] && atoms[i].optional) at[i + 1] = true;
        if (at[n] && (!whole || !*name)) return true;
        if (!*name) return false;
        bool next[MAX_ATOMS + 1] = {false};
        for (int i = 0; i < n; i++)
            if (at[i] && has(&atoms[i], (unsigned char)*name)) {
                next[i + 1] = true;
                if (atoms[i].repeated) next[i] = true;
            }
        memcpy(at, next, sizeof at);
    }
}

/* The first of any of these characters outside groups, classes and escapes; the end otherwise. */
static const char *find(const char *s, const char *any) {
    for (int depth = 0; *s; s++) {
        if (depth == 0 && strchr(any, *s)) return s;
        if (*s == '\\' && s[1])
            s++;
        else if (*s == '[')
            s += strcspn(s, "]") - (s[strcspn(s, "]")] == '\0');
        else if (*s == '(')
            depth++;
        else if (*s == ')' && depth > 0)
            depth--;
    }
    return s;
}

/* Opens the first group, or runs what has none. left: alternatives that may still be run. */
static bool match(const char *text, const char *name, int *left, bool *known) {
    const char *open = find(text, "("), *close;
    if (!*open) return --*left < 0 ? (*known = false) : run(text, name, known);
    const char *inside = open + 1 + 2 * (open[1] == '?' && open[2] == ':');
    close = find(inside, ")");
    if (!*close || (close[1] && strchr("*+?{", close[1]))) return *known = false;
    for (const char *end; *known; inside = end + 1) {
        char one[MAX_TEXT];
        end = find(inside, "|)");
        const size_t before = (size_t)(open - text), length = (size_t)(end - inside);
        if (before + length + strlen(close) >= sizeof one) return *known = false;
        memcpy(one, text, before);
        memcpy(one + before, inside, length);
        strcpy(one + before + length, close + 1);
        if (match(one, name, left, known)) return true;
        if (*end != '|') break;
    }
    return false;
}

static bool regex_matches(const char *text, const char *name, bool *known) {
    int left = MAX_ALTERNATIVES;
    for (const char *end; *known; text = end + 1) {
        char one[MAX_TEXT];
        end = find(text, "|");
        if ((size_t)(end - text) >= sizeof one) return *known = false;
        memcpy(one, text, (size_t)(end - text));
        one[end - text] = '\0';
        if (match(one, name, &left, known)) return true;
        if (!*end) break;
    }
    return false;
}

bool hf_pattern_matches(const char *text, const char *name, bool *known) {
    *known = true;
    if (strncmp(text, "re:", 3) == 0) return regex_matches(text + 3, name, known);
    if (strncmp(text, "-:", 2) == 0) return regex_matches(text + 2, name, known);
    return is_part(text, name);
}
