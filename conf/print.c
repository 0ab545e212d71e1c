/* The table for people: --help, the sample file, what is in force. Owns nothing; any thread. */
#include <string.h>

#include "conf/option.h"

enum { WIDTH = 79, FACTS = 3 * OPTION_TEXT };

/* Words from column *at on, broken at spaces; each line begins with lead. */
static void print_wrapped(FILE *f, const char *lead, const char *text, size_t *at) {
    while (*text) {
        size_t n = strcspn(text, " ");
        if (*at && *at + 1 + n > WIDTH) {
            fputc('\n', f);
            *at = 0;
        }
        *at += (size_t)fprintf(f, "%s%.*s", *at ? " " : lead, (int)n, text);
        text += n;
        text += strspn(text, " ");
    }
}

/* "0 to 65535; default 8000", with the unit where it belongs; "" when there is nothing to say.
 */
static void facts(const option *o, char *buf) {
    char range[OPTION_TEXT], normal[OPTION_TEXT];
    const char *unit = o->type == OPTION_BYTES ? "" : o->unit;
    option_range_text(o, range);
    option_default_text(o, normal);
    snprintf(buf, FACTS - 2, "%s%s%s%s%s%s", range, unit[0] ? " " : "", unit,
             range[0] && normal[0] ? "; " : "", normal[0] ? "default " : "", normal);
}

/* "-m, --model TEXT" and the other spellings. */
static void print_flags(FILE *f, const option *o) {
    char flag[OPTION_TEXT];
    size_t n;
    fprintf(f, "  ");
    for (const char *a = o->aliases; *a; a += n + (a[n] == ' ')) {
        n = strcspn(a, " ");
        fprintf(f, "%s%.*s, ", n <= 3 ? "-" : "--", (int)n, a);
    }
    fputs(option_flag(o, flag), f);
    if (o->type == OPTION_BOOL)
        fprintf(f, ", --no-%s\n", flag + 2);
    else
        fprintf(f, " %s\n", option_placeholder(o));
}

static void print_help_of(FILE *f, const option *o) {
    char text[FACTS];
    size_t at = 0;
    print_flags(f, o);
    print_wrapped(f, "      ", o->help, &at);
    facts(o, text + 1);
    if (text[1]) {
        text[0] = '[';
        strcat(text, "]");
        print_wrapped(f, "      ", text, &at);
    }
    fputc('\n', f);
}

void options_print_help(FILE *f, const char *only) {
    const option *table = option_table();
    for (int s = 0; s < N_SECTIONS; s++) {
        const option_section *section = &option_sections()[s];
        bool any = false;
        for (int i = 0; i < N_OPTIONS; i++) {
            if (strcmp(table[i].section, section->name) != 0) continue;
            if (!option_in(&table[i], only)) continue;
            if (!any) fprintf(f, "[%s] %s\n", section->name, section->help);
            any = true;
            print_help_of(f, &table[i]);
        }
        if (any) fputc('\n', f);
    }
    fprintf(f, "  --config FILE\n"
               "      options as \"key = value\" under their [section]; default\n"
               "      " OPTIONS_DEFAULT_FILE " if it exists\n\n"
               "Each option may be set in the file (max_model_len), in the environment\n"
               "(VRAMD_MAX_MODEL_LEN) or here; what is later in this list counts.\n");
}

void options_print_sample(FILE *f) {
    char text[FACTS];
    fprintf(f, "# vramd.conf: every option, commented out, with its default.\n"
               "# The environment (VRAMD_ and the key in capitals) and flags (-- and the key,\n"
               "# with dashes) count more than this file. vramd serve --check reads it.\n");
    for (int s = 0; s < N_SECTIONS; s++) {
        const option_section *section = &option_sections()[s];
        fprintf(f, "\n[%s]\n", section->name);
        for (int i = 0; i < N_OPTIONS; i++) {
            const option *o = &option_table()[i];
            size_t at = 0;
            if (strcmp(o->section, section->name) != 0) continue;
            print_wrapped(f, "# ", o->help, &at);
            facts(o, text);
            char *end = strstr(text, "; default ");
            if (end) *end = '\0';
            if (o->type != OPTION_STR) {
                fputs(at + strlen(text) + 3 > WIDTH ? "\n# " : " ", f);
                fprintf(f, "(%s)", text);
            }
            option_default_text(o, text);
            fprintf(f, "\n#%s =%s%s\n", o->name, text[0] ? " " : "", text);
        }
    }
    fprintf(f, "\n# Several models in one budget: a section each, with options of its own\n"
               "# (docs/several-models.md), and no model above.\n"
               "# [model NAME]\n"
               "#   file = /srv/models/NAME.gguf\n"
               "#   pin = false\n"
               "#   load = start\n"
               "#   tenants =\n");
}

void options_print_current(FILE *f, const options *all) {
    char text[OPTION_TEXT];
    for (int s = 0; s < N_SECTIONS; s++) {
        const option_section *section = &option_sections()[s];
        fprintf(f, "%s[%s]\n", s ? "\n" : "", section->name);
        for (int i = 0; i < N_OPTIONS; i++) {
            const option *o = &option_table()[i];
            if (strcmp(o->section, section->name) != 0) continue;
            option_value_text(o, all, text);
            fprintf(f, "%s =%s%s\n", o->name, text[0] ? " " : "", text);
        }
    }
}

void options_print_changed(FILE *f, const options *all, const options *usual) {
    char text[OPTION_TEXT], other[OPTION_TEXT];
    for (int s = 0; s < N_SECTIONS; s++) {
        const option_section *section = &option_sections()[s];
        bool begun = false;
        for (int i = 0; i < N_OPTIONS; i++) {
            const option *o = &option_table()[i];
            if (strcmp(o->section, section->name) != 0) continue;
            if (strcmp(option_value_text(o, all, text), option_value_text(o, usual, other)) ==
                0)
                continue;
            if (!begun) fprintf(f, "[%s]\n", section->name);
            begun = true;
            fprintf(f, "%s = %s\n", o->name, text);
        }
    }
}
