/* The plan against the ledger, to the byte: every family x every type of the KV cache x every option
 * that changes bytes, with a whole daemon under each (front end, bridge, engine, tokenizer) but
 * for clients. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/check_main.h"
#include "tests/daemon/daemon_rig.h"
#include "tests/daemon/model_rig.h"

/* False: the engine does not compute with that type of cache, a draft model has states or the plan no pool for it, a tier has no states, or attention without
 * fusion no K and V in one row. */
static bool check_one(const options *o, const char *what) {
    const machine_wish w = {.extra = serving_terms};
    err e;
    memset(&r, 0, sizeof r);
    const status s = machine_plan(&r.m, o, &w, &e);
    const bool refused =
        s == ERR_UNSUPPORTED &&
        (strcmp(e.field, "kv_cache_dtype") == 0 || strncmp(e.field, "cache_type", 10) == 0 ||
         (strcmp(e.field, "draft_model") == 0 &&
          (program_state_bytes(&r.m.model->program) > 0 ||
           r.m.sched_conf.n_groups == PLAN_MAX_GROUPS)) ||
         (strcmp(e.field, "expert_memory") == 0 && !r.m.model->program.config.n_experts) ||
         (strcmp(e.field, "attention") == 0 && r.m.model->program.config.shape.kv_rank > 0) ||
         (r.m.sched_conf.state_slots > 0 &&
          (strcmp(e.field, "kv_disk") == 0 || strcmp(e.field, "kv_host_bytes") == 0)));
    ck_assert_msg(s == OK || refused, "%s: %s", what, e.text);
    if (s == OK) {
        open_daemon(what);
        compare(what);
        close_daemon();
    }
    machine_close(&r.m);
    return s == OK;
}

/* ---- the matrix ---- */

static char kv_dir[] = "/tmp/vramd-plan-ledger-XXXXXX";

/* Words of options, as on a command line: with every type of the KV cache, and with f16 alone; @
 * is kv_dir. */
static const char *const with_types[] = {
    "",
    "--max-model-len=40",
    "--max-model-len=1000 --max-num-seqs=3",
    "--max-num-seqs=1",
    "--max-num-seqs=33",
    "--max-num-batched-tokens=7 --max-num-seqs=5",
    "--max-num-batched-tokens=700",
    "--max-num-batched-tokens=0 --threads=3",
    "--block-size=32",
    "--block-size=128",
    "--kv-cache-tokens=777",
    "--cache-type-k=f32",
    "--cache-type-v=bf16",
    "--cache-type-k=f16 --block-size=64",
    "--embeddings=last",
    "--threads=3 --batch-invariant",
    "--no-prefix-caching",
    "--memory=60MiB",
    "--memory-max=300MiB",
    "--kv-disk=@ --kv-disk-bytes=3000000",
    "--kv-host-bytes=3000000",
    "--state-checkpoints=9",
    "--speculative=lookup --speculative-tokens=5",
    "--draft-model=@ --block-size=32 --speculative-tokens=5",
    "--draft-model=@ --speculative=lookup --memory-max=300MiB --threads=3",
};
static const char *const with_f16[] = {
    "--cache-type-k=bf16 --cache-type-v=f32 --block-size=8",
    "--embeddings=mean",
    "--grammar-cache-bytes=65536",
    "--grammar-cache-bytes=1000001",
    "--request-memory=3000001",
    "--max-waiting=7",
    "--max-connections=3",
    "--stream-credits=3",
    "--threads=1",
    "--attention=unfused",
    "--expert-memory=30%",
    "--expert-memory=60%",
    "--batching=static",
    "--activation-dtype=f32",
    "--cpu-isa=plain --max-num-batched-tokens=33",
};
enum {
    N_WITH_TYPES = sizeof with_types / sizeof *with_types,
    N_WITH_F16 = sizeof with_f16 / sizeof *with_f16
};

static uint32_t check_type(const char *path, const family *f, uint32_t type) {
    const str word = options_word("kv_cache_dtype", type);
    const size_t most = N_WITH_TYPES + (str_eqz(word, "f16") ? N_WITH_F16 : 0);
    char what[240];
    uint32_t n = 0;
    for (size_t i = 0; i < most; i++) {
        const char *words = i < N_WITH_TYPES ? with_types[i] : with_f16[i - N_WITH_TYPES];
        options o = base_options(path);
        o.kv_cache_dtype = type;
        read_words(&o, words);
        if (strcmp(o.draft_model, "@") == 0)
            snprintf(o.draft_model, sizeof o.draft_model, "%s", path);
        if (strcmp(o.kv_disk, "@") == 0) snprintf(o.kv_disk, sizeof o.kv_disk, "%s", kv_dir);
        snprintf(what, sizeof what, "%s, kv_cache_dtype = " STR_FMT " %s", f->arch,
                 STR_ARG(word), words);
        n += check_one(&o, what);
    }
    return n;
}

static void check_family(const family *f) {
    char path[64];
    uint32_t n = 0;
    str word;
    gb b;
    model_rig_make(&b, f, path);
    const uint64_t from = clock_us();
    for (uint32_t t = 0; !str_eqz(word = options_word("kv_cache_dtype", t), "?"); t++)
        if (!str_eqz(word, "auto")) n += check_type(path, f, t);
    printf("%s: %u plans, %.1f s\n", f->arch, n, (double)(clock_us() - from) / 1e6);
    ck_assert_uint_ge(n, 3 * N_WITH_TYPES + N_WITH_F16);
    gb_clear(&b);
}

START_TEST(the_ledger_holds_what_was_planned) {
    uint32_t n = 0;
    log_init(LOG_ERROR);
    ck_assert_ptr_nonnull(mkdtemp(kv_dir));
    for (size_t i = 0; family_at(i); i++)
        if (!family_at(i)->encoder) check_family(family_at(i)), n++;
    ck_assert_uint_ge(n, 5);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", kv_dir);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* Without a KV cache: no term of it, and nothing is held. */
START_TEST(the_ledger_of_an_encoder_holds_what_was_planned) {
    static const char *const models[] = {"bert", "bert-rank", "nomic-bert"};
    static const char *const with[] = {"",
                                       "--max-model-len=40",
                                       "--max-num-batched-tokens=700 --max-model-len=640",
                                       "--max-num-seqs=33 --threads=3",
                                       "--activation-dtype=f32 --threads=1",
                                       "--activation-dtype=bf16",
                                       "--cpu-isa=plain",
                                       "--memory=60MiB --kv-cache-dtype=int4",
                                       "--memory-max=300MiB"};
    log_init(LOG_ERROR);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (size_t k = 0; k < sizeof with / sizeof *with; k++) {
            char path[64], what[160];
            snprintf(path, sizeof path, "tests/golden/families/%s.gguf", models[i]);
            snprintf(what, sizeof what, "%s %s", models[i], with[k]);
            options o = base_options(path);
            read_words(&o, "--max-num-batched-tokens=0 --kv-cache-tokens=0");
            read_words(&o, with[k]);
            ck_assert(check_one(&o, what));
        }
}
END_TEST

CHECK_MAIN("plan_ledger", the_ledger_holds_what_was_planned,
           the_ledger_of_an_encoder_holds_what_was_planned)
