/* vramd inspect: what is in a GGUF file, and the program that would run it. */
#include <stdio.h>
#include <string.h>

#include "api/inspect.h"
#include "daemon/args.h"
#include "daemon/commands.h"
#include "model/program.h"

enum { SHOWN_ELEMENTS = 4, SHOWN_BYTES = 160 };

/* Prints what json escaping made printable, shortened. */
static void print_metadata(const gguf *g) {
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        gguf_kv cut = *kv;
        buf b;
        buf_init(&b, NULL);
        bool longer = kv->type == GGUF_STRING && kv->s.len > SHOWN_BYTES;
        if (longer) cut.s.len = SHOWN_BYTES;
        inspect_value(&b, &cut, SHOWN_ELEMENTS);
        printf("  %-44.*s %s%s\n", (int)kv->key.len, kv->key.ptr, buf_cstr(&b),
               longer ? " ..." : "");
        buf_clear(&b);
    }
}

static void print_tensors(const gguf *g) {
    struct {
        uint64_t n, bytes;
    } by_type[256] = {0};
    char x[32], y[32];
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char shape[96] = "";
        for (uint32_t d = 0; d < t->n_dims; d++)
            snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%llu",
                     d ? " x " : "", (unsigned long long)t->ne[d]);
        printf("  %-36s %-6s %-20s %15s\n", t->name, dtype_get(t->type)->name, shape,
               bytes_grouped(t->bytes, x));
        by_type[(uint8_t)t->type].n++;
        by_type[(uint8_t)t->type].bytes += t->bytes;
    }
    puts("\ntotals");
    for (int i = 0; i < 256; i++)
        if (by_type[i].n)
            printf("  %-6s %8llu tensors %18s bytes  %s\n", dtype_get((uint32_t)i)->name,
                   (unsigned long long)by_type[i].n, bytes_grouped(by_type[i].bytes, x),
                   bytes_human(by_type[i].bytes, y));
}

static void print_line(void *arg, const char *line) {
    (void)arg;
    puts(line);
}

static status print_program(const gguf *g, err *e) {
    model *m = NULL;
    status s = model_open(&m, g, e);
    if (s == OK) program_print(&m->program, print_line, NULL);
    model_close(m);
    return s;
}

int cmd_inspect(int argc, char **argv) {
    gguf *g = NULL;
    err e;
    status s;
    if (args_take_word(&argc, argv, "--help")) {
        puts("usage: vramd inspect FILE [--json | --program]\n\n"
             "  --json     metadata and tensors as one JSON object\n"
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
    s = gguf_open(&g, argv[1], &e);
    if (s != OK) return command_failed("inspect", &e);
    if (json) {
        buf b;
        buf_init(&b, NULL);
        inspect_json(&b, g);
        puts(buf_cstr(&b));
        buf_clear(&b);
    } else if (program) {
        s = print_program(g, &e);
    } else {
        printf("%s: GGUF version %u, %llu bytes\n\nmetadata\n", argv[1], gguf_version(g),
               (unsigned long long)gguf_file_bytes(g));
        print_metadata(g);
        puts("\ntensors");
        print_tensors(g);
    }
    gguf_close(g);
    return s == OK ? 0 : command_failed("inspect", &e);
}
