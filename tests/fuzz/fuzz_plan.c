/* module: daemon */
/* Bodies of POST /v1/plan for a tiny model: whatever they are, an error with a field, or an object
 * whose numbers agree. One thread. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "daemon/plan/plan_answer.h"
#include "daemon/serving.h"
#include "tests/daemon/model_rig.h"

static machine served;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const machine_wish w = {.extra = serving_terms};
    char path[64];
    options o;
    gb b;
    err e;
    options_defaults(&o);
    model_rig_make(&b, family_find("gemma3"), path);
    snprintf(o.model, sizeof o.model, "%s", path);
    snprintf(o.memory, sizeof o.memory, "256MiB");
    o.backend = BACKEND_CPU;
    o.threads = 1;
    o.max_num_seqs = 2;
    const status s = machine_plan(&served, &o, &w, &e);
    if (s != OK) fprintf(stderr, "%s\n", e.text);
    CHECK(s == OK);
    gb_clear(&b);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const json_t *body;
    arena mem;
    buf out;
    err e = {.code = OK};
    arena_init(&mem, chunks_heap(), 16 << 20);
    if (json_in_parse(&body, &mem, (str){(const char *)data, n}, &e) == OK &&
        json_is_object(body)) {
        buf_init(&out, &mem);
        const status s = plan_answer_request(&out, &served, body, &e);
        if (s == OK) {
            const char *text = buf_cstr(&out);
            CHECK(strncmp(text, "{\"schema\":\"vramd.plan\"", 22) == 0);
            const json_t *again;
            arena other;
            arena_init(&other, chunks_heap(), 16 << 20);
            CHECK(json_in_parse(&again, &other, buf_str(&out), &e) == OK);
            CHECK(json_is_array(json_object_get(again, "terms")));
            arena_clear(&other);
        } else {
            CHECK(e.code == s && e.text[0]);
        }
    }
    arena_clear(&mem);
    return 0;
}
