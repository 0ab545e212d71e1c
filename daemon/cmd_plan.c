/* vramd plan: what a model will take, here or elsewhere, by class and term, without loading it. */
#include <stdio.h>
#include <string.h>

#include "api/memory_view.h"
#include "base/str.h"
#include "daemon/args.h"
#include "daemon/commands.h"
#include "daemon/plan_report.h"
#include "daemon/serving.h"

extern char **environ;

static void print_help(void) {
    puts("usage: vramd plan MODEL [--json] [--weights TYPE] [--device CARD | --device-memory "
         "N]\n"
         "                  [--memory N] [--formula rule-of-thumb] [OPTIONS]\n"
         "       vramd plan --list-devices\n\n"
         "Says whether a model fits, in one line, and then what takes how much. Reads headers\n"
         "only. Exit code 7 when it does not fit.\n\n"
         "MODEL is a GGUF file, or the config.json of a model that need not be here.\n"
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

static void print_json(const machine *m, const plan_verdict *v, bool rule) {
    buf b, more;
    buf_init(&b, NULL);
    buf_init(&more, NULL);
    plan_verdict_json(&more, m, v);
    if (rule) {
        const rule_of_thumb r = rule_of_thumb_of(m);
        rule_of_thumb_json(&more, &r);
    }
    plan_json(&b, &m->plan, m->on_device ? &m->host_plan : NULL, &m->model->program.config,
              m->engine_opt.kv_k, m->engine_opt.kv_v, m->device, buf_str(&more));
    puts(buf_cstr(&b));
    buf_clear(&more);
    buf_clear(&b);
}

static void print_text(const machine *m, const plan_verdict *v, const plan_question *q,
                       bool rule) {
    plan_print(m, v, q);
    if (!rule) return;
    const rule_of_thumb r = rule_of_thumb_of(m);
    rule_of_thumb_print(&r);
}

/* The flags of this command beside the options. */
typedef struct flags {
    const char *card, *device_memory, *formula;
    bool json;
} flags;

static status read_flags(const flags *f, machine_wish *w, cuda_card *own, char name[32],
                         err *e) {
    status s = OK;
    if (f->card && f->device_memory)
        return err_set(e, ERR_INVALID, "--device and --device-memory name two devices");
    if (f->card) s = find_card(f->card, &w->card, e);
    if (f->device_memory) {
        s = make_card(f->device_memory, name, own, e);
        w->card = own;
    }
    if (s != OK || !f->formula || strcmp(f->formula, "rule-of-thumb") == 0) return s;
    err_set(e, ERR_INVALID, "--formula: \"%.40s\" is not known", f->formula);
    return err_hint(e, "rule-of-thumb");
}

int cmd_plan(int argc, char **argv) {
    options o;
    machine m = {0};
    cuda_card own;
    char own_name[32];
    err e;
    if (args_take_word(&argc, argv, "--help")) return print_help(), 0;
    if (args_take_word(&argc, argv, "--list-devices")) return list_devices();
    machine_wish w = {.weights = args_take_value(&argc, argv, "--weights"),
                      .elsewhere = true,
                      .extra = serving_terms};
    const flags f = {.card = args_take_value(&argc, argv, "--device"),
                     .device_memory = args_take_value(&argc, argv, "--device-memory"),
                     .formula = args_take_value(&argc, argv, "--formula"),
                     .json = args_take_word(&argc, argv, "--json")};
    options_defaults(&o);
    status s = options_load(&o, &argc, argv, environ, NULL, &e);
    if (s == OK) s = read_flags(&f, &w, &own, own_name, &e);
    if (s == OK && argc == 2) snprintf(o.model, sizeof o.model, "%s", argv[1]);
    if (s == OK && argc > 2) s = err_set(&e, ERR_INVALID, "more than one model is named");
    if (s == OK) s = machine_plan(&m, &o, &w, &e);
    if (s == OK && w.weights && m.file) {
        err_set(&e, ERR_INVALID, "--weights is for a config.json; a GGUF file has its own");
        s = err_field(&e, "weights");
    }
    if (s == OK || (s == ERR_BUDGET && m.plan.terms.n)) {
        const plan_question q = {&o, &w};
        plan_verdict v;
        plan_judge(&v, &m, &q);
        if (f.json)
            print_json(&m, &v, f.formula != NULL);
        else
            print_text(&m, &v, &q, f.formula != NULL);
    }
    machine_close(&m);
    return s == OK ? 0 : command_failed("plan", &e);
}
