/* Prefixes on disk of several models. Main thread. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/str.h"
#include "daemon/models/models_parts.h"

#define PREFIX "model-"
enum { NAME_BYTES = sizeof PREFIX + 16 };

/* A name of a section may have any characters. */
static void name_of(const model_unit *u, char out[NAME_BYTES]) {
    snprintf(out, NAME_BYTES, PREFIX "%016llx",
             (unsigned long long)hash64(u->name, strlen(u->name), 0));
}

status models_disk_plan(models *a, err *e) {
    char name[NAME_BYTES];
    if (!a->opt.kv_disk[0]) return OK;
    if (strlen(a->opt.kv_disk) + 1 + NAME_BYTES > sizeof a->opt.kv_disk) {
        err_set(e, ERR_INVALID, "kv_disk: the path of the directory is too long");
        return err_field(e, "kv_disk");
    }
    for (uint32_t i = 0; i < a->view.n; i++) {
        options *o = &a->unit[i].opt;
        name_of(&a->unit[i], name);
        snprintf(o->kv_disk, sizeof o->kv_disk, "%.200s/%s", a->opt.kv_disk, name);
        o->kv_disk_bytes = a->opt.kv_disk_bytes / a->view.n;
    }
    return OK;
}

status models_disk_open(models *a, err *e) {
    char name[MODELS_MAX][NAME_BYTES];
    const char *names[MODELS_MAX];
    if (!a->opt.kv_disk[0]) return OK;
    const status s = kv_dir_open(&a->disk, a->opt.kv_disk, e);
    if (s != OK) return s;
    for (uint32_t i = 0; i < a->view.n; i++) {
        name_of(&a->unit[i], name[i]);
        names[i] = name[i];
    }
    const uint32_t n =
        kv_dir_tidy(&a->disk, PREFIX, names, a->view.n, a->opt.kv_disk_bytes / a->view.n);
    if (n)
        log_info("kv_disk: %u files removed, of models without a section or beyond their share",
                 n);
    return OK;
}
