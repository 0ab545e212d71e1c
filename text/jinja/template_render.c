/* Renders a chat template. Owns nothing; any thread. */
#include "text/jinja/template.h"

const char *const template_token_names[TEMPLATE_TOKENS] = {
    "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"};

enum { MAX_ROLES = 8, MAX_ROLE_BYTES = 32 };

typedef struct role_set {
    str role[MAX_ROLES];
    int n;
} role_set;

static bool is_plain(str s) {
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= 'a' && s.ptr[i] <= 'z') || s.ptr[i] == '_')) return false;
    return s.len > 0 && s.len <= MAX_ROLE_BYTES;
}

static bool has_role(const role_set *set, str s) {
    for (int i = 0; i < set->n; i++)
        if (str_eq(set->role[i], s)) return true;
    return false;
}

static void find_roles(role_set *set, const json_t *messages) {
    set->n = 0;
    for (size_t i = 0; i < json_array_size(messages) && set->n < MAX_ROLES; i++) {
        const json_t *role = json_object_get(json_array_get(messages, i), "role");
        str s = json_is_string(role) ? json_in_text(role) : STR("");
        if (is_plain(s) && !has_role(set, s)) set->role[set->n++] = s;
    }
}

/* A template may assemble its tokens: "<|" + message.role + "|>". Their middle is data, and as
 * template it can do no harm: alone it is no token. */
static void mark_roles(jinja_text *t, const json_t *messages) {
    role_set set;
    jinja_run *runs = (jinja_run *)t->runs; /* of this rendering */
    size_t n = 0;
    find_roles(&set, messages);
    for (size_t i = 0; i < t->n_runs; i++) {
        size_t from = i ? t->runs[i - 1].end : 0;
        jinja_run r = t->runs[i];
        bool between = i > 0 && i + 1 < t->n_runs;
        if (r.data && between && r.end - from <= MAX_ROLE_BYTES &&
            has_role(&set, (str){t->text.ptr + from, r.end - from}))
            r.data = false;
        if (n && runs[n - 1].data == r.data)
            runs[n - 1].end = r.end;
        else
            runs[n++] = r;
    }
    t->n_runs = n;
}

static jinja_var *variables(const chat_template *t, const template_args *args, arena *a,
                            size_t *n) {
    const size_t most = TEMPLATE_TOKENS + json_object_size(args->kwargs) + 4;
    jinja_var *v = arena_alloc(a, most * sizeof *v);
    const char *key;
    json_t *value;
    *n = 0;
    if (!v) return NULL;
    for (int i = 0; i < TEMPLATE_TOKENS; i++) {
        const str text = t->tokens->text[i];
        if (!text.ptr) continue;
        value = json_stringn_nocheck(text.ptr, text.len);
        if (!value) return NULL;
        v[(*n)++] = (jinja_var){str_of(template_token_names[i]), value, true};
    }
    v[(*n)++] = (jinja_var){STR("tools"), args->tools, false};
    v[(*n)++] = (jinja_var){STR("documents"), args->documents, false};
    v[(*n)++] = (jinja_var){STR("add_generation_prompt"),
                            json_boolean(args->add_generation_prompt), false};
    json_object_foreach((json_t *)args->kwargs, key, value) {
        v[(*n)++] = (jinja_var){str_of(key), value, false};
    }
    v[(*n)++] = (jinja_var){STR("messages"), args->messages, false};
    for (size_t i = 0; i < *n; i++)
        if (!v[i].value) v[i].value = json_null();
    return v;
}

status template_render(const chat_template *t, const template_args *args, arena *a,
                       jinja_text *out, err *e) {
    const jinja_settings set = {.now = args->now, .max_bytes = TEMPLATE_MAX_BYTES};
    size_t n;
    if (!t->tree) {
        *e = t->error;
        return e->code;
    }
    arena *before = json_use_arena(a); /* for the texts of tokens */
    const jinja_var *v = variables(t, args, a, &n);
    json_use_arena(before);
    if (!v) return err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    status s = jinja_render(t->tree, v, n, &set, a, out, e);
    if (s == OK) mark_roles(out, args->messages);
    return s;
}
