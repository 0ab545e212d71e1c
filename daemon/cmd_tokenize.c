/* vramd tokenize FILE: text on stdin to ids on stdout, and back with --decode. Needs only the
 * headers of the file, so vocabulary-only files do. One thread. */
#include "daemon/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

typedef struct options {
    const char *file;
    bool json, no_special, decode, help;
} options;

static const char usage[] =
    "usage: vramd tokenize FILE [--json] [--no-special] [--decode] < TEXT\n"
    "Prints the token ids of the text on stdin, one a line with the text of each.\n"
    "  --json        one JSON array of ids\n"
    "  --no-special  no BOS or EOS is added, and \"<|im_end|>\" and its like are characters\n"
    "  --decode      ids on stdin (as printed with --json, or apart by blanks), text out\n";

static status parse_options(options *o, int argc, char **argv, err *e) {
    *o = (options){0};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "--json"))
            o->json = true;
        else if (!strcmp(a, "--no-special"))
            o->no_special = true;
        else if (!strcmp(a, "--decode"))
            o->decode = true;
        else if (!strcmp(a, "--help") || !strcmp(a, "-h"))
            o->help = true;
        else if (a[0] == '-' && a[1]) {
            err_set(e, ERR_INVALID, "there is no option %s", a);
            err_field(e, "%.90s", a);
            return err_hint(e, "vramd tokenize --help lists them");
        } else if (!o->file)
            o->file = a;
        else
            return err_set(e, ERR_INVALID, "more than one file: %s and %s", o->file, a);
    }
    if (o->file || o->help) return OK;
    err_set(e, ERR_INVALID, "no file given");
    return err_hint(e, "vramd tokenize FILE < TEXT");
}

static void print_json(const vec_i32 *ids) {
    putchar('[');
    for (size_t i = 0; i < ids->n; i++) printf(i ? ", %d" : "%d", ids->v[i]);
    puts("]");
}

/* A piece may be part of a character: only what is safe on a terminal is printed as it is. */
static void print_lines(const tokenizer *t, const vec_i32 *ids) {
    for (size_t i = 0; i < ids->n; i++) {
        str p = tokenizer_piece(t, ids->v[i], true);
        printf("%d \"", ids->v[i]);
        for (size_t k = 0; k < p.len; k++) {
            unsigned char c = (unsigned char)p.ptr[k];
            if (c == '\n')
                fputs("\\n", stdout);
            else if (c == '"' || c == '\\')
                printf("\\%c", c);
            else if (c < 0x20 || c >= 0x7f)
                printf("\\x%02x", c);
            else
                putchar(c);
        }
        puts("\"");
    }
}

static status encode(const tokenizer *t, const options *o, str text, err *e) {
    vec_i32 ids;
    vec_i32_init(&ids, NULL);
    unsigned flags = o->no_special ? 0 : TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL;
    status s = tokenizer_encode(t, text, flags, &ids, e);
    if (s == OK && o->json) print_json(&ids);
    if (s == OK && !o->json) print_lines(t, &ids);
    vec_i32_clear(&ids);
    return s;
}

/* text is NUL-terminated. */
static status decode(const tokenizer *t, const options *o, const char *text, err *e) {
    detok d;
    detok_init_text(&d, t, !o->no_special);
    for (const char *p = text; *(p += strspn(p, " \t\r\n,[]"));) {
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (end == p || errno || id < 0 || id >= (long)tokenizer_n_vocab(t))
            return err_set(e, ERR_INVALID, "\"%.20s\" is not an id below %u", p,
                           tokenizer_n_vocab(t));
        str piece = detok_bytes(&d, (int32_t)id);
        fwrite(piece.ptr, 1, piece.len, stdout);
        p = end;
    }
    return OK;
}

static status run(const options *o, err *e) {
    checkpoint *file = NULL;
    tokenizer *t = NULL;
    buf in;
    buf_init(&in, NULL);
    status s = checkpoint_open(&file, o->file, e);
    if (s == OK) s = tokenizer_open(&t, file, chunks_heap(), e);
    if (s == OK) s = command_read_stdin(&in, e);
    if (s == OK && o->decode) s = decode(t, o, buf_cstr(&in), e);
    if (s == OK && !o->decode) s = encode(t, o, buf_str(&in), e);
    if (s == OK && fflush(stdout) != 0)
        s = err_set(e, ERR_IO, "writing stdout: %s", strerror(errno));
    buf_clear(&in);
    tokenizer_close(t);
    checkpoint_close(file);
    return s;
}

int cmd_tokenize(int argc, char **argv) {
    options o;
    err e;
    if (parse_options(&o, argc, argv, &e) != OK) return command_failed("tokenize", &e);
    if (o.help) return fputs(usage, stdout), 0;
    return run(&o, &e) == OK ? 0 : command_failed("tokenize", &e);
}
