/* The reply parser: text, reasoning, and the frame of calls. What is taken waits in one buffer;
 * the step of the state consumes what it can, until none can. A step decides by what is there
 * and never by how it came. reply_object.c, reply_tagged.c and reply_channels.c have the steps of
 * their forms. In a request's arena; one thread at a time. */
#include "text/reply/reply_in.h"

#include <string.h>

/* ---- text ---- */

enum { FIND_DROP, FIND_DROP_END, FIND_SECTION, FIND_CALL, FIND_NAME, FIND_THINK, FIND_N };

/* The marks that end text; an empty one is none. Reasoning that begins within text is a matter
 * of special tokens: the characters may be what the text is about. */
static void marks_of(const reply_parser *r, str *m) {
    const reply_plan *p = r->plan;
    const bool calls = p->format && r->set.tools;
    memset(m, 0, FIND_N * sizeof *m);
    if (calls) {
        m[FIND_SECTION] = p->mark[MARK_SECTION];
        m[FIND_CALL] = p->mark[MARK_CALL];
        if (!m[FIND_SECTION].len && !m[FIND_CALL].len) m[FIND_NAME] = p->mark[MARK_NAME];
    }
    if (r->set.reasoning && p->mark[MARK_THINK].len &&
        p->mark[MARK_THINK].ptr[0] == SPECIAL_BYTE)
        m[FIND_THINK] = p->mark[MARK_THINK];
    m[FIND_DROP] = p->mark[MARK_DROP];
    m[FIND_DROP_END] = p->mark[MARK_DROP_END];
}

static bool begin_reasoning(reply_parser *r, size_t at) {
    r->at = at;
    r->drop_blanks = true;
    reply_go(r, IN_REASONING);
    return true;
}

static bool begin_head(reply_parser *r, size_t opener, bool section) {
    r->opener = opener;
    r->section = section;
    r->array = r->unmarked = false;
    r->n_name = 0;
    r->state = IN_HEAD;
    r->scan = r->at + opener;
    return true;
}

/* Before anything was said: reasoning, or a call without a mark. PART: more is needed. */
static match step_fresh(reply_parser *r, bool end) {
    const str s = reply_rest(r, r->at);
    const size_t blanks = reply_blanks(s, 0);
    const reply_format *f = r->plan->format;
    size_t i = blanks;
    if (i == s.len) return end ? NO : PART;
    if (r->set.reasoning && r->plan->mark[MARK_THINK].len) {
        const match m = reply_lit(s, &i, r->plan->mark[MARK_THINK]);
        if (m == YES) begin_reasoning(r, r->at + i);
        if (m == YES || (m == PART && !end)) return m;
    }
    if (!f || !r->set.tools) return NO;
    const bool object = f->shape == SHAPE_OBJECT && s.ptr[blanks] == '{';
    const bool list = f->args == ARGS_PYTHON && s.ptr[blanks] == '[';
    if ((f->plain && (object || list)) || (r->set.loose && object)) {
        begin_head(r, 0, false);
        r->unmarked = true;
        return YES;
    }
    return NO;
}

/* Where text ends that can leave: before the blanks in front of a possible call. */
static size_t before_blanks(const reply_parser *r, str s, size_t at) {
    size_t i = at;
    if (!r->plan->format || !r->set.tools) return at;
    while (i > 0 && at - i < REPLY_MAX_BLANKS && reply_is_blank(s.ptr[i - 1])) i--;
    return i;
}

static bool step_text(reply_parser *r, bool end) {
    if (r->fresh) {
        const match m = step_fresh(r, end);
        if (m == YES) return true;
        if (m == PART) return false;
        r->fresh = false;
    }
    const str s = reply_rest(r, r->at);
    str marks[FIND_N];
    size_t at, which = 0;
    marks_of(r, marks);
    match m = reply_search(s, marks, FIND_N, &at, &which);
    if (m == PART && end) m = NO, at = s.len;
    if (m == NO && end) {
        reply_emit_text(r, s);
        r->at = r->in.len;
        return false;
    }
    const bool opens = m != YES || (which >= FIND_SECTION && which <= FIND_NAME);
    const size_t n = opens ? before_blanks(r, s, at) : at;
    reply_emit_text(r, (str){s.ptr, n});
    r->at += n;
    if (m != YES) return false;
    const size_t mark = at - n + marks[which].len;
    if (which == FIND_SECTION || which == FIND_CALL)
        return begin_head(r, mark, which == FIND_SECTION);
    if (which == FIND_NAME) { /* the head begins with the mark */
        begin_head(r, mark, false);
        r->scan = r->at + at - n;
        return true;
    }
    if (which == FIND_THINK) return begin_reasoning(r, r->at + mark);
    r->at += mark;
    return true;
}

static bool step_reasoning(reply_parser *r, bool end) {
    const str s = reply_rest(r, r->at);
    size_t at, which, from = r->drop_blanks ? reply_blanks(s, 0) : 0;
    match m = reply_search(s, &r->plan->mark[MARK_THINK_END], 1, &at, &which);
    if (m == PART && end) m = NO, at = s.len;
    size_t n = at;
    while (n > from && at - n < REPLY_MAX_BLANKS && reply_is_blank(s.ptr[n - 1])) n--;
    if (n > from) {
        reply_emit_bytes(r, REPLY_REASONING, (str){s.ptr + from, n - from});
        r->drop_blanks = false;
    }
    r->at += m == YES || n > from ? n : 0;
    if (end && m != YES) r->at = r->in.len;
    if (m != YES) return false;
    r->at += at - n + r->plan->mark[MARK_THINK_END].len;
    r->drop_blanks = r->fresh = true;
    reply_go(r, IN_TEXT);
    return true;
}

/* ---- the frame of a call ---- */

/* What begins the arguments of SHAPE_NAMED stands at s[i]. */
static match peek_arguments(const reply_plan *p, str s, size_t i) {
    if (i == s.len) return PART;
    if (p->format->args == ARGS_PYTHON) return s.ptr[i] == '(' ? YES : NO;
    if (p->format->args != ARGS_TAGGED) return s.ptr[i] == '{' ? YES : NO;
    match best = NO;
    const str ends[] = {p->mark[MARK_KEY], p->mark[MARK_ARGS_END], p->mark[MARK_CALL_END]};
    for (size_t k = 0; k < 3; k++) {
        size_t j = i;
        const match m = ends[k].len ? reply_lit(s, &j, ends[k]) : NO;
        if (m > best) best = m;
    }
    return best;
}

static void begin_arguments(reply_parser *r) {
    const reply_format *f = r->plan->format;
    r->n_args = 0;
    if (f->args == ARGS_PYTHON) {
        r->at++;
        reply_value_begin_arguments(&r->value, &r->out);
    } else if (f->args == ARGS_TAGGED) {
        buf_addc(&r->out, '{');
    } else {
        reply_value_begin(&r->value, f->args == ARGS_BARE ? VALUE_BARE : VALUE_JSON,
                          r->plan->mark[MARK_QUOTE]);
    }
    reply_emit_out(r);
    reply_go(r, f->args == ARGS_TAGGED ? IN_TAGS : IN_VALUE);
}

/* "functions.f:0" is the id of a call of f. */
static str name_of(const reply_parser *r, str name, str *id) {
    if (r->plan->format->ids != IDS_NUMBERED) return name;
    const str prefix = STR("functions.");
    *id = name;
    if (str_starts(name, prefix)) name.ptr += prefix.len, name.len -= prefix.len;
    for (size_t i = name.len; i > 0; i--)
        if (name.ptr[i - 1] == ':') return (str){name.ptr, i - 1};
    return name;
}

static match read_name(str s, size_t *i, str *name) {
    const size_t from = *i;
    while (*i < s.len && reply_is_name(s.ptr[*i])) ++*i;
    *name = (str){s.ptr + from, *i - from};
    if (name->len > REPLY_MAX_NAME || (!name->len && *i < s.len)) return NO;
    return *i < s.len ? YES : PART;
}

/* The name and what stands around it, from s[*i] on. */
static match read_head(const reply_parser *r, str s, size_t *i, str *name, str *id) {
    const reply_plan *p = r->plan;
    match m = reply_lit(s, i, p->mark[MARK_NAME]);
    if (m != YES) return m;
    *i = reply_blanks(s, *i);
    if ((m = read_name(s, i, name)) != YES) return m;
    *i = reply_blanks(s, *i);
    size_t k = *i;
    m = p->mark[MARK_ID].len ? reply_lit(s, &k, p->mark[MARK_ID]) : NO;
    if (m == PART) return PART;
    if (m == YES) {
        if ((m = read_name(s, &k, id)) != YES) return m;
        *i = reply_blanks(s, k);
    }
    if ((m = reply_lit(s, i, p->mark[MARK_NAME_END])) != YES) return m;
    *i = reply_blanks(s, *i);
    return peek_arguments(p, s, *i);
}

/* Behind the mark of a section or a call, up to the object or the arguments. */
static match step_head_at(reply_parser *r) {
    const reply_plan *p = r->plan;
    const str s = {r->in.ptr, r->in.len};
    size_t i = reply_blanks(s, r->scan);
    str name = {0}, id = {0};
    bool array = r->array;
    match m;
    if (r->section && p->mark[MARK_CALL].len) {
        if ((m = reply_lit(s, &i, p->mark[MARK_CALL])) != YES) return m;
        i = reply_blanks(s, i);
    }
    if (i < s.len && s.ptr[i] == '[' && p->format->array && !array) {
        array = true;
        i = reply_blanks(s, i + 1);
    }
    if (i == s.len) return PART;
    if (p->format->plain && p->format->array && !array) return NO;
    if (p->format->shape == SHAPE_OBJECT) {
        if (s.ptr[i] != '{') return NO;
        r->scan = i;
        r->array = array;
        r->state = IN_OBJECT;
        r->at_member = 0;
        r->early_done = false;
        return YES;
    }
    if ((m = read_head(r, s, &i, &name, &id)) != YES) return m;
    name = name_of(r, name, &id);
    if (!name.len || (r->unmarked && !reply_knows(r, name))) return NO;
    r->array = array;
    memcpy(r->name, name.ptr, name.len);
    r->n_name = name.len;
    reply_call(r, name, id);
    r->at = i;
    begin_arguments(r);
    return YES;
}

static bool step_head(reply_parser *r, bool end) {
    match m = step_head_at(r);
    if (m == PART && (end || r->in.len - r->at > REPLY_MAX_HEAD)) m = NO;
    if (m == NO) reply_fail(r);
    return m != PART;
}

/* What closes a call may be missing. */
static bool step_tail(reply_parser *r, bool end) {
    const reply_plan *p = r->plan;
    const str s = {r->in.ptr, r->in.len},
              marks[] = {p->mark[MARK_ARGS_END], p->mark[MARK_CALL_END]};
    size_t i = r->at;
    for (size_t k = 0; k < 2; k++) {
        size_t j = reply_blanks(s, i);
        if (!marks[k].len) continue;
        const match m = reply_lit(s, &j, marks[k]);
        if (m == PART && !end) return false;
        if (m == YES) i = j;
    }
    r->at = i;
    reply_go(r,
             r->section || r->array || r->unmarked || p->format->plain ? IN_BETWEEN : IN_TEXT);
    return true;
}

/* Another call, the section's end, or text. */
static bool step_between(reply_parser *r, bool end) {
    const reply_plan *p = r->plan;
    const str s = {r->in.ptr, r->in.len};
    size_t i = reply_blanks(s, r->at);
    if (i < s.len && r->array && s.ptr[i] == ']') {
        r->array = false;
        r->at = i + 1;
        reply_go(r, r->section && p->mark[MARK_SECTION_END].len ? IN_BETWEEN : IN_TEXT);
        return true;
    }
    if (i < s.len && (s.ptr[i] == ',' || s.ptr[i] == ';')) i = reply_blanks(s, i + 1);
    if (i == s.len && !end) return false;
    if (r->section) {
        size_t j = i;
        const match m =
            p->mark[MARK_SECTION_END].len ? reply_lit(s, &j, p->mark[MARK_SECTION_END]) : NO;
        if (m == PART && !end) return false;
        if (m == YES) {
            r->at = j;
            reply_go(r, IN_TEXT);
            return true;
        }
    }
    /* What no call follows is text from here on. */
    const bool section = r->section, array = r->array, unmarked = r->unmarked;
    begin_head(r, 0, section);
    r->array = array;
    r->unmarked = unmarked;
    r->scan = i;
    return true;
}

static bool step(reply_parser *r, bool end) {
    const bool channels = r->plan->format && r->plan->format->shape == SHAPE_CHANNELS;
    switch (r->state) {
    case IN_TEXT: return channels ? reply_step_channel(r, end) : step_text(r, end);
    case IN_REASONING: return channels ? reply_step_channel(r, end) : step_reasoning(r, end);
    case IN_HEAD: return step_head(r, end);
    case IN_OBJECT: return reply_step_object(r, end);
    case IN_VALUE: return reply_step_value(r, end);
    case IN_TAGS: return reply_step_tags(r, end);
    case IN_TAGGED: return reply_step_tagged(r, end);
    case IN_TAIL: return step_tail(r, end);
    case IN_BETWEEN: return step_between(r, end);
    case IN_HEADER: return reply_step_header(r, end);
    default: return reply_step_skipped(r, end);
    }
}

/* ---- the interface ---- */

static bool ends_with(str s, str end) {
    return end.len && s.len >= end.len &&
           memcmp(s.ptr + s.len - end.len, end.ptr, end.len) == 0;
}

reply_parser *reply_new(arena *a, const reply_plan *p, const reply_setup *set) {
    reply_parser *r = arena_zalloc(a, sizeof *r);
    if (!r) return NULL;
    r->plan = p;
    r->set = *set;
    r->mem = a;
    buf_init(&r->in, a);
    buf_init(&r->out, a);
    buf_init(&r->early, a);
    r->fresh = true;
    str tail = set->prompt;
    if (p->format && p->format->shape == SHAPE_CHANNELS) {
        r->state = ends_with(tail, p->text[CHANNEL_MESSAGE]) ? IN_TEXT : IN_HEADER;
        return r;
    }
    while (tail.len && reply_is_blank(tail.ptr[tail.len - 1])) tail.len--;
    if (set->reasoning && ends_with(tail, p->text[MARK_THINK])) begin_reasoning(r, 0);
    /* Text behind reasoning that the template has closed. */
    if (ends_with(tail, p->text[MARK_THINK_END])) r->drop_blanks = true;
    if (p->format && set->tools && ends_with(set->prompt, p->text[MARK_CALL])) {
        buf_add(&r->in, p->mark[MARK_CALL]);
        r->prompted = true;
    }
    return r;
}

static void take(reply_parser *r, str bytes, bool end) {
    buf_add(&r->in, bytes);
    if (r->in.failed) return;
    while (step(r, end)) {
    }
    if (r->at == r->in.len) {
        r->at = r->scan = r->in.len = 0;
    } else if (r->at > 4096) {
        memmove(r->in.ptr, r->in.ptr + r->at, r->in.len - r->at);
        r->in.len -= r->at;
        r->scan = r->scan > r->at ? r->scan - r->at : 0;
        r->key_from = r->key_from > r->at ? r->key_from - r->at : 0;
        r->at = 0;
    }
}

void reply_push(reply_parser *r, str bytes) {
    take(r, bytes, false);
}

bool reply_has_token(const reply_parser *r, int32_t id) {
    for (uint32_t i = 0; i < r->plan->n_special; i++)
        if (r->plan->special[i].id == id) return true;
    return false;
}

bool reply_push_token(reply_parser *r, int32_t id) {
    for (uint32_t i = 0; i < r->plan->n_special; i++) {
        if (r->plan->special[i].id != id) continue;
        take(r, (str){(char[]){SPECIAL_BYTE, (char)(i + 1)}, 2}, false);
        return true;
    }
    return false;
}

void reply_end(reply_parser *r) {
    take(r, (str){0}, true);
    if (r->called) reply_emit(r, REPLY_CALL_END, (str){0});
    r->called = false;
    r->at = r->in.len; /* a piece of an argument, or blanks */
}

bool reply_failed(const reply_parser *r) {
    return r->in.failed || r->out.failed || r->early.failed;
}
bool reply_in_reasoning(const reply_parser *r) {
    return r->state == IN_REASONING;
}
bool reply_is_prompted(const reply_parser *r) {
    return r->prompted;
}
size_t reply_held(const reply_parser *r) {
    return r->in.len - r->at;
}
uint32_t reply_unparsed(const reply_parser *r) {
    return r->n_unparsed;
}
