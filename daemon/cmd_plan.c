/* vramd plan: what a model will take, here or elsewhere, by class and term, without loading it. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "daemon/models/models.h"
#include "daemon/args.h"
#include "daemon/commands.h"
#include "daemon/plan/plan_answer.h"
#include "daemon/plan/plan_layers.h"
#include "daemon/serving.h"

extern char **environ;

static void print_help(void) {
    puts(
        "usage: vramd plan MODEL [--json] [--weights TYPE] [--device CARD | --device-memory "
        "N]\n"
        "                  [--memory N] [--bandwidth N] [--link N] [--host-bandwidth N]\n"
        "                  [--for GOAL] [--details] [--formula rule-of-thumb] [OPTIONS]\n"
        "       vramd plan --list-devices\n\n"
        "Says whether a model fits, in one line, then what takes how much, then what to do: "
        "the\n"
        "options that are best for latency, throughput and long contexts. Reads headers only.\n"
        "Exit code 7 when it does not fit.\n\n"
        "MODEL is a GGUF file, a folder as the model was published (config.json, "
        "safetensors,\n"
        "tokenizer.json), or the config.json of a model that need not be here.\n"
        "  --weights TYPE       type of the weights of a config.json: bf16, Q8_0, Q4_K_M, "
        "Q4_0,\n"
        "                       FP8, AWQ, GPTQ-Int4, ...; else as the config says\n"
        "  --memory N           memory of the machine, which may be more than this one has: "
        "32GiB\n"
        "  --device CARD        a CUDA device that need not be here: h200, rtx4090, ...\n"
        "  --list-devices       all of them\n"
        "  --device-memory N    a CUDA device with that much memory: 16GiB\n"
        "  --formula rule-of-thumb\n"
        "                       also what the usual rule gives: weights (parameters x bytes) "
        "+\n"
        "                       KV cache + K x batch x sequence x hidden x layers (K = 10 to "
        "20\n"
        "                       bytes) + 10 to 20 %, and why the plan has less\n"
        "  --for GOAL           what to paste: latency, throughput (default) or context\n"
        "  --bandwidth N        of the memory, for the estimate of tokens per second: 300GB/s\n"
        "  --link N             of the way from the host's memory to a device: 25GB/s; "
        "default: 80 %\n"
        "                       of the card's link\n"
        "  --host-bandwidth N   of the host's memory beside a device, for what the CPU "
        "computes\n"
        "  --details            every term, and what each setting costs\n"
        "  --json               the plan as one JSON object\n");
    options_print_help(stdout, NULL);
}

static int list_devices(void) {
    uint32_t n;
    const cuda_card *c = cuda_cards(&n);
    char a[32];
    printf("%-16s %-32s %10s %5s %10s  %s\n", "--device", "product", "memory", "SMs",
           "capability", "bandwidth");
    for (uint32_t i = 0; i < n; i++)
        printf("%-16s %-32s %10s %5u %8u.%u  %u GB/s\n", c[i].name, c[i].product,
               bytes_human((uint64_t)c[i].memory_mib << 20, a), c[i].n_sms, c[i].major,
               c[i].minor, c[i].bandwidth_gb_s);
    printf("Of the memory, %d MiB are the driver's. The CUDA engine needs compute capability "
           "%d.0.\nAny other card: --device-memory 16GiB.\n",
           CUDA_CARD_RESERVED_MIB, CUDA_CARD_MIN_MAJOR);
    return 0;
}

static status find_card(const char *name, const cuda_card **out, err *e) {
    uint32_t n;
    const cuda_card *c = cuda_cards(&n);
    char names[240] = "";
    *out = cuda_card_find(name);
    if (*out) return OK;
    if (cuda_card_is_amd(name)) {
        err_set(
            e, ERR_UNSUPPORTED,
            "--device: \"%.40s\" is an AMD card; vramd's GPU engine is for NVIDIA's CUDA only",
            name);
        return err_hint(e, "--device-memory 192GiB plans for an NVIDIA card of that memory");
    }
    for (uint32_t i = 0; i < n; i++) {
        size_t at = strlen(names);
        if (cuda_card_resembles(&c[i], name))
            snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", c[i].name);
    }
    err_set(e, ERR_INVALID, "--device: \"%.40s\" is not in the table of devices", name);
    if (names[0]) return err_hint(e, "%s", names);
    return err_hint(e,
                    "vramd plan --list-devices shows it; --device-memory 16GiB plans for any "
                    "other card");
}

/* A card of which only the memory is known. */
static status make_card(const char *memory, char name[32], cuda_card *out, err *e) {
    uint64_t bytes;
    if (!str_parse_bytes(str_of(memory), &bytes) || bytes < 1ull << 30 || bytes >> 50) {
        err_set(e, ERR_INVALID, "--device-memory: \"%.40s\" is no memory of a device", memory);
        return err_hint(e, "for example 16GiB");
    }
    bytes_human(bytes, name);
    *out = (cuda_card){.name = name,
                       .product = "a card of that memory",
                       .memory_mib = (uint32_t)(bytes >> 20)};
    return OK;
}

/* The flags of this command beside the options. */
typedef struct flags {
    const char *card, *device_memory, *formula, *bandwidth, *link, *host, *goal, *lengths, *fit;
    bool json, details, grid;
} flags;

/* What they mean, where they need reading. */
typedef struct asked {
    cuda_card card; /* of --device-memory, and its name */
    char card_name[32];
    plan_asked plan;
    plan_goal goal;
    plan_lengths lengths;
} asked;

static void print_json(const machine *m, const plan_answer *a, const plan_question *q,
                       const plan_asked *asked) {
    buf b, more;
    buf_init(&b, NULL);
    buf_init(&more, NULL);
    plan_answer_json(&b, &more, a, m, q, asked);
    puts(buf_cstr(&b));
    buf_clear(&more);
    buf_clear(&b);
}

static void print_text(const machine *m, const plan_answer *a, const plan_question *q,
                       const flags *f, const asked *asked) {
    plan_print(m, &a->verdict, q, f->details);
    if (a->verdict.fits) plan_layers_print(m, &a->bandwidth);
    if (asked->plan.rule_of_thumb) {
        const rule_of_thumb r = rule_of_thumb_of(m);
        rule_of_thumb_print(&r);
    }
    if (asked->plan.fit) plan_fit_print(&a->fit, m);
    if (asked->plan.grid) plan_grid_print(&a->grid, m);
    if (q->lengths) plan_lengths_print(q->lengths, m);
    plan_choices_print(a->choice, asked->goal, m, q, &a->bandwidth);
}

/* text NULL: not given. */
static status read_bandwidth(const char *flag, const char *text, double *out, err *e) {
    if (!text || plan_parse_bandwidth(str_of(text), out)) return OK;
    err_set(e, ERR_INVALID, "%s: \"%.40s\" is no bandwidth", flag, text);
    return err_hint(e, "for example 300GB/s");
}

static status read_flags(const flags *f, machine_wish *w, asked *out, err *e) {
    status s = OK;
    if (f->card && f->device_memory)
        return err_set(e, ERR_INVALID, "--device and --device-memory name two devices");
    if (f->card) s = find_card(f->card, &w->card, e);
    if (f->device_memory) {
        s = make_card(f->device_memory, out->card_name, &out->card, e);
        w->card = &out->card;
    }
    if (s == OK) s = read_bandwidth("--bandwidth", f->bandwidth, &out->plan.bandwidth, e);
    if (s == OK) s = read_bandwidth("--link", f->link, &out->plan.link, e);
    if (s == OK) s = read_bandwidth("--host-bandwidth", f->host, &out->plan.host, e);
    w->link = out->plan.link;
    w->host_bandwidth = out->plan.host;
    if (s == OK && f->goal && !plan_goal_by_name(&out->goal, f->goal)) {
        err_set(e, ERR_INVALID, "--for: \"%.40s\" is not known", f->goal);
        return err_hint(e, "latency, throughput, context");
    }
    if (s == OK && f->fit &&
        (!str_parse_bytes(str_of(f->fit), &out->plan.fit) || out->plan.fit >> 50 ||
         !out->plan.fit)) {
        err_set(e, ERR_INVALID, "--fit: \"%.40s\" is no memory", f->fit);
        return err_hint(e, "for example 24GiB");
    }
    if (s == OK && f->lengths) s = plan_lengths_read(&out->lengths, f->lengths, e);
    out->plan.grid = f->grid;
    out->plan.rule_of_thumb = f->formula != NULL;
    if (s != OK || !f->formula || strcmp(f->formula, "rule-of-thumb") == 0) return s;
    err_set(e, ERR_INVALID, "--formula: \"%.40s\" is not known", f->formula);
    return err_hint(e, "rule-of-thumb");
}

static void say(const machine *m, const plan_question *q, const flags *f, const asked *asked) {
    static plan_answer a; /* large for a stack */
    plan_answer_make(&a, m, q, &asked->plan);
    if (f->json)
        print_json(m, &a, q, &asked->plan);
    else
        print_text(m, &a, q, f, asked);
}

/* A file with sections [model NAME]. */
static int plan_several(const options *o, const model_sections *sections, bool json) {
    models *several = NULL;
    err e;
    status s = models_plan(&several, o, sections, &e);
    if (s == OK && json) {
        s = err_set(&e, ERR_UNSUPPORTED, "--json is for the plan of one model");
        err_hint(&e, "name one: vramd plan --json FILE");
    }
    if (s == OK) models_print(several, stdout);
    models_free(several);
    return s == OK ? 0 : command_failed("plan", &e);
}

int cmd_plan(int argc, char **argv) {
    options o, usual;
    machine m = {0};
    asked asked = {.goal = GOAL_THROUGHPUT};
    err e;
    if (args_take_word(&argc, argv, "--help")) return print_help(), 0;
    if (args_take_word(&argc, argv, "--list-devices")) return list_devices();
    machine_wish w = {.weights = args_take_value(&argc, argv, "--weights"),
                      .elsewhere = true,
                      .extra = serving_terms};
    const flags f = {.card = args_take_value(&argc, argv, "--device"),
                     .device_memory = args_take_value(&argc, argv, "--device-memory"),
                     .formula = args_take_value(&argc, argv, "--formula"),
                     .bandwidth = args_take_value(&argc, argv, "--bandwidth"),
                     .link = args_take_value(&argc, argv, "--link"),
                     .host = args_take_value(&argc, argv, "--host-bandwidth"),
                     .goal = args_take_value(&argc, argv, "--for"),
                     .lengths = args_take_value(&argc, argv, "--lengths"),
                     .fit = args_take_value(&argc, argv, "--fit"),
                     .json = args_take_word(&argc, argv, "--json"),
                     .grid = args_take_word(&argc, argv, "--grid"),
                     .details = args_take_word(&argc, argv, "--details")};
    static model_sections sections; /* large for a stack */
    options_defaults(&o);
    usual = o;
    status s = options_load_models(&o, &sections, &argc, argv, environ, &e);
    if (s == OK && sections.n && argc == 1) return plan_several(&o, &sections, f.json);
    if (s == OK) s = read_flags(&f, &w, &asked, &e);
    if (s == OK && argc == 2) snprintf(o.model, sizeof o.model, "%s", argv[1]);
    if (s == OK && argc > 2) s = err_set(&e, ERR_INVALID, "more than one model is named");
    if (s == OK) s = machine_plan(&m, &o, &w, &e);
    if (s == OK && w.weights && m.file) {
        err_set(&e, ERR_INVALID,
                "--weights is for a config.json; the files of a model have their own");
        s = err_field(&e, "weights");
    }
    if (s == OK || (s == ERR_BUDGET && m.plan.terms.n)) {
        const plan_question q = {.opt = &o,
                                 .wish = &w,
                                 .usual = &usual,
                                 .lengths = f.lengths ? &asked.lengths : NULL};
        say(&m, &q, &f, &asked);
    }
    machine_close(&m);
    plan_lengths_clear(&asked.lengths);
    return s == OK ? 0 : command_failed("plan", &e);
}
