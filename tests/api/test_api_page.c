/* docs/api.md says of each parameter what the table of the code does. With VRAMD_WRITE set the
 * page is written anew (make api-page). */
#include <stdio.h>
#include <stdlib.h>

#include "api/param_table.h"
#include "tests/check_main.h"

static const char page[] = "docs/api.md";
static const char begin[] = "<!-- parameters: make api-page -->\n";
static const char end[] = "<!-- end of parameters -->\n";

static const char *endpoints(const param_row *r) {
    return r->where == BOTH ? "both" : r->where == CHAT ? "chat" : "completions";
}

static void write_values(buf *b, const param_row *r) {
    switch (r->type) {
    case PARAM_OWN: buf_add(b, str_of(r->values)); break;
    case PARAM_BOOL: buf_add(b, STR("true or false")); break;
    default: buf_addf(b, "%.10g to %.10g", r->lo, r->hi);
    }
}

static void write_honoured(buf *b) {
    buf_add(b, STR("| parameter | endpoint | values | default | |\n|---|---|---|---|---|\n"));
    for (size_t i = 0; i < param_table_rows; i++) {
        const param_row *r = &param_table[i];
        if (r->how != PARAM_HONOURED) continue;
        buf_addf(b, "| `%s` | %s | ", r->name, endpoints(r));
        write_values(b, r);
        buf_addf(b, " | %s | %s |\n", r->initial, r->note);
    }
}

static void write_ignored(buf *b) {
    buf_add(
        b, STR("\nTaken, whatever their value, because the answer is the same without them:\n\n"
               "| parameter | |\n|---|---|\n"));
    for (size_t i = 0; i < param_table_rows; i++)
        if (param_table[i].how == PARAM_IGNORED)
            buf_addf(b, "| `%s` | %s |\n", param_table[i].name, param_table[i].note);
}

static void write_refused(buf *b) {
    buf_add(b,
            STR("\nRefused, but for `null` and the values named here, which change nothing:\n\n"
                "| parameter | endpoint | taken | |\n|---|---|---|---|\n"));
    for (size_t i = 0; i < param_table_rows; i++) {
        const param_row *r = &param_table[i];
        if (r->how != PARAM_REFUSED) continue;
        buf_addf(b, "| `%s` | %s | ", r->name, endpoints(r));
        for (const char *at = r->values; *at;) {
            size_t n = strcspn(at, "|");
            buf_addf(b, "%s`%.*s`", at > r->values ? ", " : "", (int)n, at);
            at += n + (at[n] == '|');
        }
        buf_addf(b, " | %s |\n", r->note);
    }
}

static char *read_page(void) {
    FILE *f = fopen(page, "r");
    ck_assert_msg(f != NULL, "no %s here", page);
    char *text = calloc(1, 1 << 20);
    ck_assert(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

START_TEST(the_page_has_the_table_of_the_code) {
    buf b;
    buf_init(&b, NULL);
    write_honoured(&b);
    write_ignored(&b);
    write_refused(&b);
    char *text = read_page(), *from = strstr(text, begin), *to = strstr(text, end);
    ck_assert(from && to && from < to);
    from += strlen(begin);
    if (getenv("VRAMD_WRITE")) {
        FILE *f = fopen(page, "w");
        ck_assert(f != NULL);
        fprintf(f, "%.*s" STR_FMT "%s", (int)(from - text), text, STR_ARG(buf_str(&b)), to);
        ck_assert(fclose(f) == 0);
    } else {
        ck_assert_msg(str_eq(buf_str(&b), (str){from, (size_t)(to - from)}),
                      "%s differs from api/param_table.c: make api-page", page);
    }
    buf_clear(&b);
    free(text);
}
END_TEST

CHECK_MAIN("api_page", the_page_has_the_table_of_the_code)
