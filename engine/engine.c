/* Engines by their backends, called by the thread that owns the engine; and the words of their
 * options, for any thread. */
#include "engine/engine.h"

#include <strings.h>

static const char *const activation_names[] = {
    [ACTIVATION_AUTO] = "auto", [ACTIVATION_INT8] = "int8", [ACTIVATION_BF16] = "bf16",
    [ACTIVATION_F16] = "f16",   [ACTIVATION_F32] = "f32",   [ACTIVATION_FP8] = "fp8"};
static const char *const isa_names[] = {
    [ISA_AUTO] = "auto",       [ISA_PLAIN] = "plain",   [ISA_AVX2] = "avx2",
    [ISA_AVXVNNI] = "avxvnni", [ISA_AVX512] = "avx512", [ISA_AMX] = "amx"};
enum {
    N_ACTIVATIONS = sizeof activation_names / sizeof *activation_names,
    N_ISAS = sizeof isa_names / sizeof *isa_names
};

/* Index of a word, or n. */
static uint32_t find_word(const char *const *words, uint32_t n, str s) {
    uint32_t i = 0;
    while (i < n && (strlen(words[i]) != s.len || strncasecmp(words[i], s.ptr, s.len) != 0))
        i++;
    return i;
}

bool activation_dtype_by_name(str s, activation_dtype *out) {
    uint32_t i = find_word(activation_names, N_ACTIVATIONS, s);
    if (i < N_ACTIVATIONS) *out = (activation_dtype)i;
    return i < N_ACTIVATIONS;
}

const char *activation_dtype_name(activation_dtype t) {
    return (uint32_t)t < N_ACTIVATIONS ? activation_names[t] : "?";
}

bool cpu_isa_by_name(str s, cpu_isa *out) {
    uint32_t i = find_word(isa_names, N_ISAS, s);
    if (i < N_ISAS) *out = (cpu_isa)i;
    return i < N_ISAS;
}

const char *cpu_isa_name(cpu_isa isa) {
    return (uint32_t)isa < N_ISAS ? isa_names[isa] : "?";
}

uint32_t engine_states(const program *p, const engine_options *o) {
    if (!program_state_bytes(p) && !p->has_states) return 0;
    return o->n_states ? o->n_states : o->max_seqs;
}

op_set engine_lacks(const backend *b, const program *p) {
    return op_set_without(program_ops(p), b->runs);
}

status engine_check_runs(const backend *b, const program *p, err *e) {
    const op_set lacks = engine_lacks(b, p);
    const char *names[OP_SET_MAX];
    char list[200];
    if (op_set_names(lacks, names) == 0) return OK;
    op_set_text(lacks, list, sizeof list);
    err_set(e, ERR_UNSUPPORTED,
            "architecture %s is planned, not runnable yet: the %s engine lacks %s",
            p->config.arch, b->name, list);
    err_hint(e, "vramd plan says what it would take");
    return err_field(e, "%s", names[0]);
}

status engine_open(engine **out, const backend *b, const model *m, const engine_options *o,
                   ledger *host, ledger *device, err *e) {
    *out = NULL;
    status s = engine_check_runs(b, &m->program, e);
    if (s != OK) return s;
    return b->open(out, m, o, host, device, e);
}

void engine_close(engine *e) {
    if (e) e->backend->close(e);
}

status engine_submit(engine *e, const batch *b, err *er) {
    return e->backend->submit(e, b, er);
}

status engine_collect(engine *e, step_result *out, err *er) {
    return e->backend->collect(e, out, er);
}

bool engine_can_resize(const backend *b) {
    return b->kv_resize != NULL;
}

status engine_kv_resize(engine *e, const uint32_t n_blocks[PLAN_MAX_GROUPS], err *er) {
    if (e->backend->kv_resize) return e->backend->kv_resize(e, n_blocks, er);
    return err_set(er, ERR_UNSUPPORTED, "the %s engine cannot change the size of its KV cache",
                   e->backend->name);
}

void engine_describe(const engine *e, engine_info *out) {
    e->backend->info(e, out);
}

status engine_pin(engine *e, void *p, uint64_t bytes, err *er) {
    return e->backend->pin ? e->backend->pin(e, p, bytes, er) : OK;
}

void engine_unpin(engine *e, void *p) {
    if (e->backend->unpin) e->backend->unpin(e, p);
}

void engine_expert_stats(const engine *e, expert_stats *out) {
    *out = (expert_stats){0};
    if (e->backend->expert_stats) e->backend->expert_stats(e, out);
}

bool engine_moves_kv(const engine *e) {
    return e->backend->kv_export && e->backend->kv_import;
}

status engine_kv_export(engine *e, uint32_t group, int32_t block, void *out, err *er) {
    return e->backend->kv_export(e, group, block, out, er);
}

status engine_kv_import(engine *e, uint32_t group, int32_t block, const void *in, err *er) {
    return e->backend->kv_import(e, group, block, in, er);
}
