/* The manual pages vramd(8) and vramd.conf(5) in mdoc(7): OPTIONS and EXIT STATUS come from
 * their tables, so that they cannot differ from the program. Owns nothing; any
 * thread. */
#include <ctype.h>
#include <string.h>

#include "conf/option.h"

/* Text of ours or of the table: what roff would read as a request or an escape is masked. */
static void text(FILE *f, const char *s) {
    if (*s == '.' || *s == '\'') fputs("\\&", f);
    for (; *s; s++) {
        if (*s == '\\')
            fputs("\\e", f);
        else if (*s == '-')
            fputs("\\-", f);
        else
            fputc(*s, f);
    }
}

/* "--model FILE, -m FILE": as it stands on a command line. */
static void name_flags(FILE *f, const option *o) {
    char buf[OPTION_TEXT];
    size_t n;
    fputs(".It Xo\n.Fl ", f);
    option_flag(o, buf);
    text(f, buf + 1); /* .Fl brings a dash of its own */
    if (o->type != OPTION_BOOL) fprintf(f, " Ar %s", option_placeholder(o));
    for (const char *a = o->aliases; *a; a += n + (a[n] == ' ')) {
        n = strcspn(a, " ");
        fprintf(f, " ,\n.Fl %s%.*s", n <= 3 ? "" : "\\-", (int)n, a);
    }
    if (o->type == OPTION_BOOL) {
        fputs(" ,\n.Fl \\-no", f);
        text(f, buf + 1);
    }
    fputs("\n.Xc\n", f);
}

/* "model = FILE": as it stands in the file. */
static void name_key(FILE *f, const option *o) {
    fprintf(f, ".It Ic %s No = Ar %s\n", o->name,
            o->type == OPTION_BOOL ? "BOOL" : option_placeholder(o));
}

static void describe(FILE *f, const option *o) {
    char buf[OPTION_TEXT];
    fputc(toupper((unsigned char)o->help[0]), f);
    text(f, o->help + 1);
    fputs(".\n", f);
    option_range_text(o, buf);
    if (buf[0] && o->type != OPTION_BOOL) {
        fputs(o->type == OPTION_ENUM ? "One of " : "From ", f);
        text(f, buf);
        if (o->unit[0] && o->type != OPTION_BYTES) fprintf(f, " %s", o->unit);
        fputs(".\n", f);
    }
    option_default_text(o, buf);
    fputs("Default: ", f);
    text(f, buf[0] ? buf : "none");
    fputs(".\n", f);
    if (o->live) fputs("SIGHUP changes it in a running daemon.\n", f);
}

static void print_sections(FILE *f, void (*name)(FILE *, const option *)) {
    for (int s = 0; s < N_SECTIONS; s++) {
        const option_section *section = &option_sections()[s];
        fprintf(f, ".Ss Section [%s]: %s\n.Bl -tag -width Ds\n", section->name, section->help);
        for (int i = 0; i < N_OPTIONS; i++) {
            const option *o = &option_table()[i];
            if (strcmp(o->section, section->name) != 0) continue;
            name(f, o);
            describe(f, o);
        }
        fputs(".El\n", f);
    }
}

static const char *const values = "Numbers of bytes take a unit: 512, 64KiB, 6GiB, 1.5GB.\n"
                                  "Truth is true, yes, on or 1, and false, no, off or 0";

static void print_options(FILE *f) {
    fputs(".Sh OPTIONS\n"
          "Each option is the same word in three places: in the file\n"
          ".Pq Ql max_model_len = 4096 ,\n"
          "in the environment\n"
          ".Pq Ev VRAMD_MAX_MODEL_LEN\n"
          "and as a flag\n"
          ".Pq Fl \\-max\\-model\\-len Ar 4096 .\n"
          "A flag counts more than the environment, and that more than the file.\n"
          ".Bl -tag -width Ds\n"
          ".It Fl \\-config Ar FILE\n"
          "The file, instead of\n"
          ".Pa " OPTIONS_DEFAULT_FILE " .\n"
          ".El\n",
          f);
    print_sections(f, name_flags);
    fprintf(f, "%s; as a flag it takes no value.\n", values);
}

static const char *const head =
    ".Dd November 24, 2026\n"
    ".Dt VRAMD 8\n"
    ".Os\n"
    ".Sh NAME\n"
    ".Nm vramd\n"
    ".Nd serve language models within a fixed memory budget\n"
    ".Sh SYNOPSIS\n"
    ".Nm\n.Cm serve\n.Fl \\-model Ar FILE\n.Op Ar options\n"
    ".Nm\n.Cm serve\n.Fl \\-check | \\-print\\-sample | \\-print\\-man\n"
    ".Nm\n.Cm generate\n.Fl \\-model Ar FILE\n.Op Ar options\n.Ar PROMPT\n"
    ".Nm\n.Cm plan\n.Fl \\-model Ar FILE\n.Op Fl \\-json\n.Op Ar options\n"
    ".Nm\n.Cm inspect\n.Op Fl \\-json\n.Ar FILE\n"
    ".Nm\n.Cm tokenize\n.Op Fl \\-json\n.Op Fl \\-no\\-special\n.Ar FILE\n"
    ".Nm\n.Cm key\n.Ar NAME\n.Op Ar LIMIT ...\n"
    ".Nm\n.Cm bench\n.Op Ar options\n"
    ".Nm\n.Cm simulate\n.Op Ar options\n"
    ".Nm\n.Cm version\n"
    ".Sh DESCRIPTION\n"
    ".Nm\n"
    "serves a language model, from a GGUF file or a folder of safetensors, over HTTP with the "
    "API\n"
    "of OpenAI.\n"
    "It plans what the model will take before it loads anything, refuses a budget that is\n"
    "too small, never takes more while it serves, and shows each byte at\n"
    ".Pa /v1/memory\n"
    "and\n"
    ".Pa /metrics .\n"
    ".Sh COMMANDS\n"
    ".Bl -tag -width tokenize\n"
    ".It Cm serve\n"
    "Serve until SIGTERM or SIGINT; running requests may finish within\n"
    ".Ar drain_timeout .\n"
    "With\n"
    ".Fl \\-check\n"
    "only read the options and plan the memory, print both and exit; with\n"
    ".Fl \\-print\\-sample\n"
    "print a file of all options; with\n"
    ".Fl \\-print\\-man\n"
    "this page.\n"
    ".It Cm generate\n"
    "Answer one prompt on the terminal, without a server.\n"
    ".It Cm plan\n"
    "Print what a model will take, by class, without loading it.\n"
    ".It Cm eval\n"
    "Measure perplexity of a text, and the divergence from a stored reference.\n"
    ".It Cm quantize\n"
    "Write a model as a GGUF file, with its weights in smaller types.\n"
    ".It Cm rank\n"
    "One of several processes that share a model; serve starts it.\n"
    ".It Cm inspect\n"
    "Print the metadata and tensors of a model's files.\n"
    ".It Cm tokenize\n"
    "Turn text on standard input into token ids.\n"
    ".It Cm key\n"
    "Make an API key: shown once on stderr; its line for\n.Cm api_keys_file\non stdout.\n"
    ".It Cm bench\n"
    "Load an OpenAI-compatible server and print its latencies and throughput.\n"
    ".It Cm top\n"
    "Watch memory, KV cache and sequences of a running server.\n"
    ".It Cm simulate\n"
    "Run the scheduler under a virtual clock, or replay the step log of a server.\n"
    ".It Cm version\n"
    "Print the version and what was built in.\n"
    ".El\n"
    ".Pp\n"
    "All but serve and version have a page of their own, such as\n"
    ".Xr vramd\\-bench 1 .\n";

static const char *const tail =
    ".Sh ENVIRONMENT\n"
    "Every option, as described above; another name that begins with\n"
    ".Ev VRAMD_\n"
    "is an error, but for these:\n"
    ".Bl -tag -width Ds\n"
    ".It Ev VRAMD_CONFIG\n"
    "As\n"
    ".Fl \\-config .\n"
    ".It Ev VRAMD_CACHE , VRAMD_TEST_* , VRAMD_BENCH_* , VRAMD_PEER_*\n"
    "Used by the tests and benchmarks; passed over.\n"
    ".It Ev JOURNAL_STREAM\n"
    "Set by\n"
    ".Xr systemd 1 :\n"
    "log lines carry a priority instead of a time.\n"
    ".El\n"
    ".Sh FILES\n"
    ".Bl -tag -width Ds\n"
    ".It Pa " OPTIONS_DEFAULT_FILE "\n"
    "Read if it exists and no other file is named: lines of key = value under [section]\n"
    "lines.\n"
    "A comment begins with # or ; at the start of a line, or with a blank and ; after a "
    "value.\n"
    ".El\n";

static const char *const examples =
    ".Sh EXAMPLES\n"
    "Serve a model within 6 GiB:\n"
    ".Dl vramd serve \\-\\-model model.gguf \\-\\-memory 6GiB\n"
    "See whether a configuration is sound and fits:\n"
    ".Dl vramd serve \\-\\-config vramd.conf \\-\\-check\n"
    "Ask it something:\n"
    ".Bd -literal -offset indent\n"
    "curl http://127.0.0.1:8000/v1/completions \\e\n"
    "  \\-H 'Content\\-Type: application/json' \\e\n"
    "  \\-d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 32}'\n"
    ".Ed\n"
    ".Sh SEE ALSO\n"
    ".Xr vramd\\-bench 1 ,\n"
    ".Xr vramd\\-generate 1 ,\n"
    ".Xr vramd\\-inspect 1 ,\n"
    ".Xr vramd\\-key 1 ,\n"
    ".Xr vramd\\-plan 1 ,\n"
    ".Xr vramd\\-tokenize 1 ,\n"
    ".Xr vramd.conf 5 ,\n"
    ".Xr systemd.service 5\n";

static void print_exit_status(FILE *f) {
    static const char *const meaning[] = {
#define X(code, text, exit_code) text,
        STATUS_LIST(X)
#undef X
    };
    fputs(".Sh EXIT STATUS\n.Bl -tag -width Ds -compact\n", f);
    for (size_t i = 0; i < sizeof meaning / sizeof *meaning; i++)
        fprintf(f, ".It %d\n%s\n", status_exit_code((status)i), meaning[i]);
    fputs(".El\n", f);
}

void options_print_man(FILE *f) {
    fputs(head, f);
    print_options(f);
    fputs(tail, f);
    print_exit_status(f);
    fputs(examples, f);
}

void options_print_man_conf(FILE *f) {
    fputs(".Dd November 25, 2026\n"
          ".Dt VRAMD.CONF 5\n"
          ".Os\n"
          ".Sh NAME\n"
          ".Nm vramd.conf\n"
          ".Nd options of the language model server vramd\n"
          ".Sh DESCRIPTION\n"
          "Lines of key = value under [section] lines.\n"
          "A comment begins with # or ; at the start of a line, or with a blank and ; after a "
          "value.\n"
          "A key that is unknown, given twice or in another section is an error.\n"
          ".Dl vramd serve \\-\\-check\n"
          "reads the file, plans the memory, and prints both.\n"
          ".Sh OPTIONS\n",
          f);
    print_sections(f, name_key);
    fputs(".Ss Sections [model NAME]: several models in one budget\n"
          "Each has a\n"
          ".Cm file ,\n"
          "and options of the sections above that count for it alone.\n"
          "With\n"
          ".Cm pin = true\n"
          "it stays in memory, with\n"
          ".Cm load = request\n"
          "it is loaded when the first request comes, and\n"
          ".Cm tenants = a, b\n"
          "names the keys that may use it.\n"
          ".Pp\n",
          f);
    fprintf(f,
            "%s.\n"
            ".Sh FILES\n"
            ".Bl -tag -width Ds\n"
            ".It Pa " OPTIONS_DEFAULT_FILE "\n"
            "Read unless\n"
            ".Fl \\-config\n"
            "or\n"
            ".Ev VRAMD_CONFIG\n"
            "names another.\n"
            ".El\n"
            ".Sh EXAMPLES\n"
            ".Bd -literal -offset indent\n"
            "[model]\n"
            "model = /srv/models/model.gguf\n\n"
            "[memory]\n"
            "memory = 6GiB\n"
            ".Ed\n"
            ".Sh SEE ALSO\n"
            ".Xr vramd 8\n",
            values);
}
