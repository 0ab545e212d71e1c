/* Which format a path has. Owns nothing; any thread. */
#include "model/checkpoint.h"
#include "model/checkpoint_explain.h"
#include "model/gguf/gguf.h"
#include "model/hf/hf_folder.h"

status checkpoint_open(checkpoint **out, const char *path, err *e) {
    gguf *g;
    *out = NULL;
    if (hf_folder_is(path)) return hf_folder_open(out, path, e);
    status s = gguf_open(&g, path, e);
    if (s != OK) return checkpoint_explain(path, e);
    *out = gguf_checkpoint(g);
    return OK;
}
