/* Lines of at most so many columns, from the top: rates, memory by class, KV blocks by group,
 * sequences. What does not fit the height is left out from the bottom of each part. */
#include "daemon/top/top_draw.h"

#include <stdarg.h>
#include <stdio.h>

typedef enum style { PLAIN, BOLD, DIM, GREEN, YELLOW, CYAN, RED } style;

/* The line being written. */
typedef struct frame {
    buf *out;
    const top_view *view;
    uint32_t column, line; /* of the line; lines that are complete */
} frame;

static uint32_t lines_left(const frame *f) {
    if (!f->view->lines) return UINT32_MAX;
    return f->view->lines > f->line ? f->view->lines - f->line : 0;
}

static void put_text(frame *f, style st, str s) {
    static const char *const code[] = {"",         "\033[1m",  "\033[2m",   "\033[32m",
                                       "\033[33m", "\033[36m", "\033[1;31m"};
    const bool styled = f->view->terminal && st != PLAIN;
    if (s.len > f->view->columns - f->column) s.len = f->view->columns - f->column;
    if (s.len == 0 || lines_left(f) == 0) return;
    if (styled) buf_add(f->out, str_of(code[st]));
    buf_add(f->out, s);
    if (styled) buf_add(f->out, STR("\033[0m"));
    f->column += (uint32_t)s.len;
}

__attribute__((format(printf, 3, 4))) static void put(frame *f, style st, const char *fmt,
                                                      ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    put_text(f, st, (str){text, len});
}

static void put_run(frame *f, style st, char c, uint32_t n) {
    char run[256];
    memset(run, c, sizeof run);
    for (uint32_t k; n > 0; n -= k) {
        k = n < sizeof run ? n : (uint32_t)sizeof run;
        put_text(f, st, (str){run, k});
    }
}

static void end_line(frame *f) {
    if (lines_left(f) == 0) return;
    if (f->view->terminal) buf_add(f->out, STR("\033[K"));
    f->line++;
    if (!f->view->terminal || lines_left(f) > 0) buf_addc(f->out, '\n');
    f->column = 0;
}

/* ---- head ---- */

static void draw_head(frame *f) {
    const top_view *v = f->view;
    const top_counters *c = &v->now->count;
    put(f, BOLD, "vramd top");
    put(f, PLAIN, "  %s  %s  %.0f running, %.0f waiting, %.0f preempted", v->url, v->now->model,
        c->running, c->waiting, c->preempted);
    end_line(f);
    if (v->problem) {
        put(f, RED, "%s", v->problem);
    } else if (v->rates) {
        const top_rates *r = v->rates;
        put(f, BOLD, "%.0f tokens/s", r->generated);
        put(f, PLAIN, ", prompts %.0f/s, requests %.1f/s, steps %.0f/s; hits ", r->prompt,
            r->finished, r->steps);
        if (r->hit_share >= 0)
            put(f, PLAIN, "%.0f%%", r->hit_share * 100);
        else
            put(f, PLAIN, "-");
        put(f, PLAIN, ", evicted %.0f/s, ", r->evictions);
        put(f, r->preemptions > 0 ? YELLOW : PLAIN, "preempted %.1f/s, recomputed %.0f/s",
            r->preemptions, r->recomputed);
    }
    end_line(f);
}

/* ---- memory ---- */

enum { NAME_COLUMNS = 13, SIZE_COLUMNS = 11 };

/* Allocated as '#', planned and not allocated as '.', of the budget. */
static void draw_bar(frame *f, const top_class *c, uint64_t budget, uint32_t width) {
    const double scale = budget ? (double)width / (double)budget : 0;
    uint32_t plan = (uint32_t)((double)c->plan_bytes * scale + 0.5);
    uint32_t held = (uint32_t)((double)c->ledger_bytes * scale + 0.5);
    if (plan > width) plan = width;
    if (plan == 0) plan = 1;
    if (held > plan) held = plan;
    if (held == 0 && c->ledger_bytes > 0) held = 1;
    put_run(f, GREEN, '#', held);
    put_run(f, DIM, '.', plan - held);
}

static void draw_class(frame *f, const top_class *c, uint64_t budget) {
    char t[3][32];
    const uint32_t figures = NAME_COLUMNS + 3 * SIZE_COLUMNS + 7;
    put(f, PLAIN, "%-*.*s%*s%*s%*s", NAME_COLUMNS, NAME_COLUMNS - 1, c->name, SIZE_COLUMNS,
        bytes_human(c->plan_bytes, t[0]), SIZE_COLUMNS, bytes_human(c->ledger_bytes, t[1]),
        SIZE_COLUMNS, bytes_human(c->peak_bytes, t[2]));
    if (c->plan_bytes)
        put(f, c->peak_bytes > c->plan_bytes ? RED : PLAIN, " %4.0f%% ",
            100.0 * (double)c->ledger_bytes / (double)c->plan_bytes);
    else
        put(f, RED, "     - ");
    if (f->view->columns > figures + 8) draw_bar(f, c, budget, f->view->columns - figures);
    end_line(f);
}

static void draw_ledger(frame *f, const top_ledger *l, uint32_t most) {
    char t[4][33];
    uint32_t shown = 0;
    top_class rest = {.name = "others"};
    const int64_t u = l->unaccounted_bytes;
    put(f, BOLD, "%-*.*s%*s%*s%*s", NAME_COLUMNS, NAME_COLUMNS - 1,
        l->name[0] ? l->name : "memory", SIZE_COLUMNS, "planned", SIZE_COLUMNS, "allocated",
        SIZE_COLUMNS, "peak");
    put(f, BOLD, "       budget %s", bytes_human(l->budget_bytes, t[0]));
    if (l->unaccounted_known)
        put(f, PLAIN, ", unaccounted %s%s", u < 0 ? "-" : "",
            bytes_human((uint64_t)(u < 0 ? -u : u), t[1]));
    end_line(f);
    for (size_t i = 0; i < l->n; i++) {
        const top_class *c = &l->cls[i];
        const size_t left = l->n - i;
        if (shown + left <= most || (shown + 1 < most && c->plan_bytes * 50 >= l->plan_bytes)) {
            draw_class(f, c, l->budget_bytes);
            shown++;
            continue;
        }
        rest.plan_bytes += c->plan_bytes;
        rest.ledger_bytes += c->ledger_bytes;
        rest.peak_bytes += c->peak_bytes;
    }
    if (rest.plan_bytes || rest.peak_bytes) draw_class(f, &rest, l->budget_bytes);
    const top_class total = {.name = "total",
                             .plan_bytes = l->plan_bytes,
                             .ledger_bytes = l->ledger_bytes,
                             .peak_bytes = l->peak_bytes};
    draw_class(f, &total, l->budget_bytes);
}

/* ---- the KV cache ---- */

uint32_t top_map(const top_group *g, uint32_t n, top_cells *out) {
    const uint64_t used = g->used > g->fenced ? g->used - g->fenced : 0;
    const uint64_t part[4] = {used, g->fenced, g->cached, g->free};
    const uint64_t sum = part[0] + part[1] + part[2] + part[3];
    uint32_t cell[4] = {0}, given = 0;
    *out = (top_cells){0};
    if (sum < n) n = (uint32_t)sum;
    if (n == 0) return 0;
    for (int i = 0; i < 4; i++) {
        cell[i] = (uint32_t)((double)part[i] * n / (double)sum);
        if (cell[i] == 0 && part[i] > 0) cell[i] = 1;
        given += cell[i];
    }
    for (; given != n;
         given += given < n ? 1 : UINT32_MAX) { /* the largest one gives or takes */
        int big = 0;
        for (int i = 1; i < 4; i++)
            if (given < n ? part[i] > part[big] : cell[i] > cell[big]) big = i;
        cell[big] += given < n ? 1 : UINT32_MAX;
    }
    *out = (top_cells){cell[0], cell[1], cell[2], cell[3]};
    return n;
}

static void draw_legend(frame *f, const top_group *g, size_t k, uint32_t cells) {
    const top_sample *s = f->view->now;
    const unsigned long long used = g->used - (g->fenced < g->used ? g->fenced : g->used);
    char t[32];
    put(f, BOLD, "kv %s", g->tail ? "tail" : s->type_k);
    if (!g->tail && strcmp(s->type_k, s->type_v) != 0) put(f, BOLD, "/%s", s->type_v);
    if (s->n_groups > 1 && g->window)
        put(f, BOLD, " group %zu, window %llu", k, (unsigned long long)g->window);
    else if (s->n_groups > 1)
        put(f, BOLD, " group %zu", k);
    put(f, PLAIN, "  %llu x %llu tokens: ", (unsigned long long)g->blocks,
        (unsigned long long)s->block_tokens);
    put(f, GREEN, "# %llu used ", used);
    put(f, YELLOW, "%% %llu fenced ", (unsigned long long)g->fenced);
    put(f, CYAN, "= %llu cached ", (unsigned long long)g->cached);
    put(f, DIM, ". %llu free", (unsigned long long)g->free);
    put(f, PLAIN, "; peak %llu", (unsigned long long)g->peak);
    if (cells && g->blocks > cells)
        put(f, PLAIN, "; a cell %.1f blocks, %s", (double)g->blocks / cells,
            bytes_human(g->block_bytes * g->blocks / cells, t));
    end_line(f);
}

static void draw_group(frame *f, size_t k, uint32_t rows) {
    const top_group *g = &f->view->now->group[k];
    const uint32_t width = f->view->columns;
    top_cells c;
    const uint32_t n = top_map(g, rows * width, &c);
    struct {
        style st;
        char mark;
        uint32_t left;
    } run[] = {{GREEN, '#', c.used},
               {YELLOW, '%', c.fenced},
               {CYAN, '=', c.cached},
               {DIM, '.', c.free}};
    draw_legend(f, g, k, n);
    for (size_t i = 0; i < 4 && lines_left(f) > 0;) {
        const uint32_t space = width - f->column;
        const uint32_t m = run[i].left < space ? run[i].left : space;
        put_run(f, run[i].st, run[i].mark, m);
        run[i].left -= m;
        if (f->column == width) end_line(f);
        if (run[i].left == 0) i++;
    }
    if (f->column > 0) end_line(f);
}

/* ---- sequences ---- */

static void draw_sequence(frame *f, const top_seq *q) {
    char t[32], rate[16] = "-";
    if (q->itl_ms > 0) snprintf(rate, sizeof rate, "%.1f", 1000 / q->itl_ms);
    put(f, PLAIN, "%10llu  %-9.9s%9llu%9llu%8llu%11s%9.9s%9.1f  %s", (unsigned long long)q->id,
        q->state, (unsigned long long)q->tokens, (unsigned long long)q->cached,
        (unsigned long long)q->blocks, bytes_human(q->bytes, t), rate, q->age_s, q->tenant);
    end_line(f);
}

static void draw_sequences(frame *f) {
    const top_sample *s = f->view->now;
    put(f, BOLD, "%10s  %-9s%9s%9s%8s%11s%9s%9s  %s", "SEQUENCE", "STATE", "TOKENS", "CACHED",
        "BLOCKS", "BYTES", "TOK/S", "AGE S", "TENANT");
    end_line(f);
    for (size_t i = 0; i < s->n_seqs && lines_left(f) > 0; i++) {
        if (lines_left(f) == 1 && i + 1 < s->n_seqs) {
            put(f, DIM, "%10s  and %zu more", "", s->n_seqs - i);
            end_line(f);
            return;
        }
        draw_sequence(f, &s->seq[i]);
    }
}

/* How the height is shared: sequences get a third, maps one to four rows a group, classes what
 * is left. */
static void share_lines(const top_view *v, uint32_t *classes, uint32_t *rows) {
    const top_sample *s = v->now;
    const uint32_t ledgers = s->device.name[0] ? 2 : 1;
    const uint32_t groups = s->n_groups ? (uint32_t)s->n_groups : 1;
    *classes = TOP_MAX_CLASSES;
    *rows = 4;
    if (!v->lines) return;
    const uint32_t list = v->lines / 4 + 1;
    *rows = v->lines / (12 * groups);
    *rows = *rows < 1 ? 1 : *rows > 4 ? 4 : *rows;
    const uint32_t fixed = 2 + list + groups * (1 + *rows) + ledgers * 2;
    *classes = v->lines > fixed + ledgers * 2 ? (v->lines - fixed) / ledgers : 2;
}

void top_draw(buf *out, const top_view *v) {
    frame f = {.out = out, .view = v};
    uint32_t classes, rows;
    share_lines(v, &classes, &rows);
    draw_head(&f);
    if (v->now->device.name[0]) draw_ledger(&f, &v->now->device, classes);
    draw_ledger(&f, &v->now->host, classes);
    for (size_t k = 0; k < v->now->n_groups; k++) draw_group(&f, k, rows);
    draw_sequences(&f);
}
