/* Engines by their backends. Called by the thread that owns the engine. */
#include "engine/engine.h"

status engine_open(engine **out, const backend *b, const model *m, const engine_options *o,
                   ledger *host, ledger *device, err *e) {
    *out = NULL;
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

void engine_describe(const engine *e, engine_info *out) {
    e->backend->info(e, out);
}
