/* vramd tokenize FILE: text on stdin to ids on stdout, and back with --decode; with --chat a chat to
 * its prompt. Needs only the headers of the file, so vocabulary-only files do. One thread. */
#include "daemon/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/app.h"
#include "json/out.h"

typedef struct options {
    const char *file;
    bool json, no_special, decode, chat, prompt, help;
} options;

static const char usage[] =
    "usage: vramd tokenize FILE [--json] [--no-special] [--decode | --chat | --prompt] < TEXT\n"
    "Prints the token ids of the text on stdin, one a line with the text of each.\n"
    "  --json        one JSON array of ids\n"
    "  --no-special  no BOS or EOS is added, and \"<|im_end|>\" and its like are characters\n"
    "  --decode      ids on stdin (as printed with --json, or apart by blanks), text out\n"
    "  --chat        stdin is the body of a chat, {\"messages\": [...]}, perhaps with tools,\n"
    "                chat_template_kwargs and others: the ids of its prompt\n"
    "  --prompt      the same, and the text of the prompt instead of ids\n";

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
        else if (!strcmp(a, "--chat"))
            o->chat = true;
        else if (!strcmp(a, "--prompt"))
            o->prompt = true;
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
    if (o->decode + o->chat + o->prompt > 1)
        return err_set(e, ERR_INVALID, "--decode, --chat and --prompt exclude each other");
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

static void print_ids(const tokenizer *t, const options *o, const vec_i32 *ids) {
    if (o->json)
        print_json(ids);
    else
        print_lines(t, ids);
}

static status encode(const tokenizer *t, const options *o, str text, err *e) {
    vec_i32 ids;
    vec_i32_init(&ids, NULL);
    unsigned flags = o->no_special ? 0 : TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL;
    status s = tokenizer_encode(t, text, flags, &ids, e);
    if (s == OK) print_ids(t, o, &ids);
    vec_i32_clear(&ids);
    return s;
}

/* The prompt that the model's template makes of a chat, as the server does. */
static status encode_chat(const tokenizer *t, const options *o, const chat_templates *all,
                          str text, arena *a, err *e) {
    chat_request q = {.templates = all, .answer = true, .own_template = true};
    chat_prompt_text p;
    vec_i32 ids;
    vec_i32_init(&ids, a);
    status s = json_in_parse(&q.body, a, text, e);
    if (s == OK && !json_is_object(q.body))
        return err_set(e, ERR_INVALID, "the chat is no JSON object");
    if (s == OK) s = json_in_bool(q.body, "add_generation_prompt", &q.answer, e);
    if (s == OK) s = json_in_bool(q.body, "continue_final_message", &q.continue_final, e);
    if (s == OK) s = chat_prompt(&q, a, &p, e);
    if (s == OK && o->prompt && !o->json) {
        fwrite(p.text.text.ptr, 1, p.text.text.len, stdout);
        return OK;
    }
    if (s == OK && o->prompt) {
        buf b;
        buf_init(&b, a);
        json_str(&b, p.text.text);
        printf(STR_FMT "\n", STR_ARG(buf_str(&b)));
        return OK;
    }
    if (s == OK) s = tokenizer_encode_prompt(t, &p.text, TOK_ADD_SPECIAL, &ids, e);
    if (s == OK) print_ids(t, o, &ids);
    return s;
}

static status run_chat(const tokenizer *t, const options *o, const checkpoint *file, str text,
                       err *e) {
    template_sources from = {0};
    template_tokens tokens;
    chat_templates all = {0};
    arena a;
    arena_init(&a, chunks_heap(), 0);
    template_tokens_of(&tokens, t, file);
    status s = template_sources_of(&from, file, STR(""), e);
    if (s == OK) s = chat_templates_open(&all, &from, &tokens, chunks_heap(), e);
    if (s == OK) s = encode_chat(t, o, &all, text, &a, e);
    arena_clear(&a);
    chat_templates_close(&all);
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
    const bool chat = o->chat || o->prompt;
    if (s == OK && chat) s = run_chat(t, o, file, buf_str(&in), e);
    if (s == OK && !o->decode && !chat) s = encode(t, o, buf_str(&in), e);
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
