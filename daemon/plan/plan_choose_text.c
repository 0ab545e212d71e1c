/* What to do, as text and as JSON. Main thread, but for the JSON; owns nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "daemon/plan/plan_choose.h"
#include "json/out.h"

/* ---- text ---- */

typedef void cell(const plan_choice *, char out[32]);

static void cell_length(const plan_choice *c, char out[32]) {
    snprintf(out, 32, "%u", c->opt.max_model_len);
}
static void cell_seqs(const plan_choice *c, char out[32]) {
    snprintf(out, 32, "%u", c->opt.max_num_seqs);
}
static void cell_rows(const plan_choice *c, char out[32]) {
    snprintf(out, 32, "%u", c->max_num_batched_tokens);
}
static void cell_type(const plan_choice *c, char out[32]) {
    if (c->quality)
        snprintf(out, 32, "%s", c->quality->type);
    else
        dtype_kv_name(c->kv_k, c->kv_v, out);
}
static void cell_kl(const plan_choice *c, char out[32]) {
    if (c->quality)
        snprintf(out, 32, "%.6f", c->quality->kl);
    else
        snprintf(out, 32, "not measured");
}
static void cell_kv(const plan_choice *c, char out[32]) {
    bytes_grouped(c->kv_bytes, out);
}
static void cell_bytes(const plan_choice *c, char out[32]) {
    bytes_grouped(c->bytes, out);
}
static void cell_one(const plan_choice *c, char out[32]) {
    snprintf(out, 32, "%.*f", c->speed_one < 10 ? 1 : 0, c->speed_one);
}
static void cell_all(const plan_choice *c, char out[32]) {
    const double all = c->speed_each * c->opt.max_num_seqs;
    snprintf(out, 32, "%.*f", all < 10 ? 1 : 0, all);
}

static void print_row(const plan_choice *all, const char *name, cell *write) {
    char text[32];
    printf("  %-30s", name);
    for (int g = 0; g < PLAN_GOALS; g++) {
        snprintf(text, sizeof text, "-");
        if (all[g].found) write(&all[g], text);
        printf(" %16s", text);
    }
    puts("");
}

static void print_table(const plan_choice *all, const plan_bandwidth *b) {
    static const struct {
        const char *name;
        cell *write;
    } row[] = {{"max_model_len", cell_length},          {"max_num_seqs", cell_seqs},
               {"max_num_batched_tokens", cell_rows},   {"kv_cache_dtype", cell_type},
               {"  its quality: KL to exact", cell_kl}, {"  its bytes", cell_kv},
               {"memory, bytes in all", cell_bytes},    {"tokens/s of one alone *", cell_one},
               {"tokens/s of all together *", cell_all}};
    printf("%-32s", "\nwhat to do, for the best:");
    for (int g = 0; g < PLAN_GOALS; g++) printf(" %16s", plan_goal_name((plan_goal)g));
    puts("");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (b->bytes_per_s > 0 || (row[i].write != cell_one && row[i].write != cell_all))
            print_row(all, row[i].name, row[i].write);
}

static void print_notes(const plan_choice *all, const plan_bandwidth *b, bool by_lengths) {
    const quality_row *said[PLAN_GOALS] = {0};
    if (b->bytes_per_s > 0)
        printf("* estimate, at most: memory read at %.0f GB/s (%s), sequences %s\n",
               b->bytes_per_s / 1e9, b->source, by_lengths ? "as long as those" : "half full");
    else
        printf("no estimate of tokens/s: the bandwidth is %s\n", b->source);
    for (int g = 0; g < PLAN_GOALS; g++) {
        const quality_row *q = all[g].found ? all[g].quality : NULL;
        bool known = !q || q->kl < 1e-5; /* f16: nothing to weigh, and a plan is a page */
        for (int i = 0; i < g; i++) known |= said[i] == q;
        said[g] = q;
        if (!known)
            printf("%s: KL %.6f, top-1 %.1f %%, perplexity %+.2f %%; %s, %u tokens (%s)\n",
                   q->type, q->kl, q->top1, q->perplexity, q->model, q->tokens, q->source);
    }
}

static void resources(const plan_choice *c, uint32_t n_devices, char *out, size_t cap) {
    const unsigned long long mib = plan_limit_mib(c, n_devices);
    char gpus[40] = "";
    if (n_devices) snprintf(gpus, sizeof gpus, ", nvidia.com/gpu: %u", n_devices);
    snprintf(out, cap,
             "resources: {requests: {cpu: \"%u\", memory: %lluMi}, limits: {memory: "
             "%lluMi%s}}",
             c->cpus, mib, mib, gpus);
}

static void print_paste(const plan_choice *c, plan_goal g, const machine *m,
                        const plan_question *q) {
    char text[160];
    printf("\n# vramd.conf for %s (--for", plan_goal_name(g));
    for (int i = 0, n = 0; i < PLAN_GOALS; i++)
        if (i != (int)g) printf("%s %s", n++ ? " |" : "", plan_goal_name((plan_goal)i));
    puts(" prints the others)");
    options_print_changed(stdout, &c->opt, q->usual);
    resources(c, plan_devices(m), text, sizeof text);
    printf("# systemd:    MemoryMax=%lluM\n# Kubernetes: %s\n",
           (unsigned long long)plan_limit_mib(c, plan_devices(m)), text);
}

void plan_choices_print(const plan_choice all[PLAN_GOALS], plan_goal paste, const machine *m,
                        const plan_question *q, const plan_bandwidth *b) {
    bool any = false;
    for (int g = 0; g < PLAN_GOALS; g++) any |= all[g].found;
    if (!any) return;
    print_table(all, b);
    print_notes(all, b, q->lengths != NULL);
    if (all[paste].found) print_paste(&all[paste], paste, m, q);
}

/* ---- JSON ---- */

static void member(buf *b, const char *name, uint64_t v) {
    buf_addf(b, ",\"%s\":", name);
    json_u64(b, v);
}

static void member_str(buf *b, const char *name, const char *v) {
    buf_addf(b, ",\"%s\":", name);
    json_str_lossy(b, str_of(v));
}

static void conf_json(buf *b, const options *o, const options *usual) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (f) {
        options_print_changed(f, o, usual);
        fclose(f);
    }
    member_str(b, "conf", text ? text : "");
    free(text);
}

static void limits_json(buf *b, const plan_choice *c, uint32_t n_devices) {
    const unsigned long long mib = plan_limit_mib(c, n_devices);
    buf_addf(
        b,
        ",\"limits\":{\"MemoryMax\":\"%lluM\",\"kubernetes\":{\"requests\":{\"cpu\":\"%u\","
        "\"memory\":\"%lluMi\"},\"limits\":{\"memory\":\"%lluMi\"",
        mib, c->cpus, mib, mib);
    if (n_devices) buf_addf(b, ",\"nvidia.com/gpu\":\"%u\"", n_devices);
    buf_add(b, STR("}}}"));
}

static void quality_json(buf *b, const quality_row *q) {
    buf_addf(b, ",\"quality\":{\"kl\":%g,\"top1_percent\":%g,\"perplexity_percent\":%g", q->kl,
             q->top1, q->perplexity);
    member(b, "tokens", q->tokens);
    member_str(b, "model", q->model);
    member_str(b, "source", q->source);
    buf_addc(b, '}');
}

static void choice_json(buf *b, plan_goal g, const plan_choice *c, const machine *m,
                        const plan_question *q) {
    const options *o = &c->opt;
    buf_addf(b, "{\"goal\":\"%s\"", plan_goal_name(g));
    member(b, "max_model_len", o->max_model_len);
    member(b, "max_num_seqs", o->max_num_seqs);
    member(b, "max_num_batched_tokens", c->max_num_batched_tokens);
    member(b, "kv_cache_tokens", o->kv_cache_tokens);
    member_str(b, "type_k", dtype_name(c->kv_k));
    member_str(b, "type_v", dtype_name(c->kv_v));
    if (c->quality) quality_json(b, c->quality);
    member(b, "kv_bytes", c->kv_bytes);
    member(b, "memory_bytes", c->bytes);
    if (m->on_device) member(b, "host_memory_bytes", c->host_bytes);
    if (c->speed_one > 0)
        buf_addf(b,
                 ",\"estimate\":{\"tokens_per_s_of_one\":%.2f,\"tokens_per_s_of_all\":%.2f,"
                 "\"tokens_per_sequence\":%.1f}",
                 c->speed_one, c->speed_each * o->max_num_seqs, c->tokens_per_sequence);
    conf_json(b, o, q->usual);
    limits_json(b, c, plan_devices(m));
    buf_addc(b, '}');
}

void plan_choices_json(buf *b, const plan_choice all[PLAN_GOALS], const machine *m,
                       const plan_question *q, const plan_bandwidth *bw) {
    bool any = false;
    buf_addf(b, ",\"bandwidth\":{\"bytes_per_s\":%.0f", bw->bytes_per_s);
    member_str(b, "source", bw->source);
    buf_add(b, STR("},\"recommended\":["));
    for (int g = 0; g < PLAN_GOALS; g++) {
        if (!all[g].found) continue;
        if (any) buf_addc(b, ',');
        any = true;
        choice_json(b, (plan_goal)g, &all[g], m, q);
    }
    buf_addc(b, ']');
}
