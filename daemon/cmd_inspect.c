/* vramd inspect: what is in the files of a model, and the program that would run it. Main thread;
 * owns the open files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/inspect.h"
#include "api/inspect_folder.h"
#include "daemon/args.h"
#include "daemon/commands.h"
#include "model/gguf/gguf.h"
#include "model/model.h"
#include "text/reply/reply_template.h"
#include "text/jinja/template_probe.h"

enum { SHOWN_ELEMENTS = 4, SHOWN_BYTES = 160 };

/* Prints what was gathered in b, and empties it. */
static status put(buf *b, err *e) {
    status s =
        b->failed ? err_set(e, ERR_NO_MEMORY, "no memory for what is to be printed") : OK;
    if (s == OK && b->len) fwrite(b->ptr, 1, b->len, stdout);
    buf_clear(b);
    return s;
}

static status print_metadata(const gguf *g, err *e) {
    status s = OK;
    buf b;
    buf_init(&b, NULL);
    inspect_text(&b, str_of(gguf_path(g)));
    buf_addf(&b, ": GGUF version %u, %llu bytes\n\nmetadata\n", gguf_version(g),
             (unsigned long long)gguf_file_bytes(g));
    for (size_t i = 0; i < gguf_n_kv(g) && s == OK; i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        buf_addf(&b, "  %-44.*s ", STR_ARG(kv->key));
        inspect_value(&b, kv, SHOWN_ELEMENTS, SHOWN_BYTES);
        buf_addc(&b, '\n');
        s = put(&b, e);
    }
    return s == OK ? put(&b, e) : s;
}

static void shape_text(const tensor_info *t, char *out, size_t cap) {
    size_t at = 0;
    for (uint32_t d = 0; d < tensor_n_dims(t) && at < cap; d++)
        at += (size_t)snprintf(out + at, cap - at, "%s%llu", d ? " x " : "",
                               (unsigned long long)t->ne[d]);
}

static void print_tensors(const checkpoint *c) {
    struct {
        uint64_t n, bytes;
    } by_type[256] = {0};
    uint64_t sum = 0;
    char x[32], y[32];
    const size_t n = checkpoint_n_tensors(c);
    for (size_t i = 0; i < n; i++) {
        const tensor_info t = checkpoint_tensor(c, i);
        const uint64_t bytes = tensor_bytes(&t);
        char shape[96] = "";
        shape_text(&t, shape, sizeof shape);
        printf("  %-36s %-6s %-20s %15s\n", t.name, dtype_name(t.type), shape,
               bytes_grouped(bytes, x));
        by_type[(uint8_t)t.type].n++;
        by_type[(uint8_t)t.type].bytes += bytes;
        sum += bytes;
    }
    puts("\ntotals");
    for (int i = 0; i < 256; i++)
        if (by_type[i].n)
            printf("  %-6s %8llu tensors %18s bytes  %s\n", dtype_name((dtype)i),
                   (unsigned long long)by_type[i].n, bytes_grouped(by_type[i].bytes, x),
                   bytes_human(by_type[i].bytes, y));
    printf("  %-6s %8zu tensors %18s bytes  %s\n", "all", n, bytes_grouped(sum, x),
           bytes_human(sum, y));
}

static void print_line(void *arg, const char *line) {
    (void)arg;
    puts(line);
}

static status print_program(const checkpoint *c, err *e) {
    model *m = NULL;
    status s = model_open(&m, c, e);
    if (s == OK) program_print(&m->program, print_line, NULL);
    model_close(m);
    return s;
}

static status print_json(const checkpoint *c, err *e) {
    buf b, metadata;
    status s = OK;
    buf_init(&b, NULL);
    buf_init(&metadata, NULL);
    if (gguf_of(c)) {
        inspect_json(&b, gguf_of(c));
    } else {
        s = inspect_folder_json(&metadata, c, e);
        b.failed = metadata.failed;
        inspect_checkpoint_json(&b, c, buf_str(&metadata));
    }
    buf_clear(&metadata);
    buf_addc(&b, '\n');
    if (s == OK) return put(&b, e);
    buf_clear(&b);
    return s;
}

/* What chat_template_kwargs can set. */
static void print_variables(const chat_template *t) {
    arena a;
    const str *v;
    size_t n = 0;
    arena_init(&a, chunks_heap(), 0);
    if (t->tree && template_variables(t, &a, &v, &n)) {
        printf("  variables  ");
        for (size_t i = 0; i < n; i++) printf(" " STR_FMT, STR_ARG(v[i]));
        puts(n ? "" : " none");
    }
    arena_clear(&a);
}

static void print_plan(const char *name, const chat_template *t, const tokenizer *tok) {
    reply_plan p;
    if (!t->source.len || !reply_plan_of_template(&p, t, tok, chunks_heap())) return;
    printf("\n%s\n  tool calls  ", name);
    if (!t->tree)
        printf("none: %s\n", t->error.text);
    else if (!p.format)
        puts("none: no format gave back calls that the template wrote");
    else
        printf("%s, which gave back %s the template wrote\n", p.format->name,
               p.single ? "a call that" : "two calls that");
    const bool channel = p.format && p.format->shape == SHAPE_CHANNELS;
    const str think = channel                  ? STR("the channel analysis")
                      : p.text[MARK_THINK].len ? p.text[MARK_THINK]
                                               : STR("none");
    printf("  reasoning   " STR_FMT "\n", STR_ARG(think));
    print_variables(t);
}

/* How output is read, by the chat templates. A file without a vocabulary that is known has none. */
static void print_output(const checkpoint *file) {
    tokenizer *tok;
    template_sources from = {0};
    template_tokens tokens;
    chat_templates t = {0};
    err e;
    if (tokenizer_open(&tok, file, chunks_heap(), &e) != OK) return;
    template_tokens_of(&tokens, tok, file);
    if (template_sources_of(&from, file, STR(""), &e) == OK &&
        chat_templates_open(&t, &from, &tokens, chunks_heap(), &e) == OK) {
        print_plan("output, by tokenizer.chat_template", &t.chat, tok);
        print_plan("output, by tokenizer.chat_template.tool_use", &t.tool_use, tok);
    }
    chat_templates_close(&t);
    tokenizer_close(tok);
}

static status print_folder(const checkpoint *c, err *e) {
    buf b;
    buf_init(&b, NULL);
    inspect_text(&b, str_of(checkpoint_path(c)));
    buf_addf(&b, ": %s\n", c->format->name);
    status s = inspect_folder_lines(&b, c, SHOWN_ELEMENTS, SHOWN_BYTES, e);
    if (s == OK) return put(&b, e);
    buf_clear(&b);
    return s;
}

static status print_all(const checkpoint *c, err *e) {
    status s = OK;
    if (gguf_of(c))
        s = print_metadata(gguf_of(c), e);
    else
        s = print_folder(c, e);
    if (s == OK) puts("\ntensors");
    if (s == OK) print_tensors(c);
    if (s == OK) print_output(c);
    return s;
}

static status inspect(const char *path, status (*print)(const checkpoint *, err *), err *e) {
    checkpoint *c = NULL;
    status s = checkpoint_open(&c, path, e);
    if (s == OK) s = print(c, e);
    if (s == OK && (fflush(stdout) != 0 || ferror(stdout)))
        s = err_set(e, ERR_IO, "writing stdout: %s", strerror(errno));
    checkpoint_close(c);
    return s;
}

int cmd_inspect(int argc, char **argv) {
    err e;
    if (args_take_word(&argc, argv, "--help")) {
        puts("usage: vramd inspect FILE.gguf|FOLDER [--json | --program]\n\n"
             "  --json     metadata (of a folder: its small files) and tensors as one JSON "
             "object\n"
             "  --program  the recorded forward pass, one operation a line");
        return 0;
    }
    bool json = args_take_word(&argc, argv, "--json");
    bool program = args_take_word(&argc, argv, "--program");
    if (argc != 2 || argv[1][0] == '-') {
        int odd = 1; /* the flag that is not known, or what is one too many */
        while (odd < argc - 1 && argv[odd][0] != '-') odd++;
        err_set(&e, ERR_INVALID, "%s%.80s",
                argc < 2 ? "no file is named" : "not understood: ", argc < 2 ? "" : argv[odd]);
        err_hint(&e, "vramd inspect FILE.gguf");
        return command_failed("inspect", &e);
    }
    if (json && program) {
        err_set(&e, ERR_INVALID, "--json and --program exclude each other");
        err_hint(&e, "give one of them");
        return command_failed("inspect", &e);
    }
    status s = inspect(argv[1], json ? print_json : program ? print_program : print_all, &e);
    return s == OK ? 0 : command_failed("inspect", &e);
}
