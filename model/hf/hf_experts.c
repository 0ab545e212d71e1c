/* Which tensors make up the matrices of all experts, and their rows. Immutable once checked; any
 * thread. */
#include "model/hf/hf_experts.h"

#include "base/check.h"
#include "memory/term.h"

static status bad(err *e, const safetensor *at, const char *what) {
    err_set(e, ERR_FORMAT, "tensor %.150s %s", at->name, what);
    return err_field(e, "%.90s", at->name);
}

status hf_expert_add(hf_expert **v, tensor_info *t, uint32_t n_experts,
                     const hf_expert_name *name, uint32_t part, const safetensors *file,
                     const safetensor *at, arena *mem, err *e) {
    const bool all = name->expert == HF_ALL_EXPERTS;
    uint64_t bytes;
    if (n_experts == 0) return bad(e, at, "is of an expert, and config.json has none");
    if (at->type != DT_F32 && at->type != DT_F16 && at->type != DT_BF16) {
        bad(e, at, "has a type that experts are not loaded from");
        e->code = ERR_UNSUPPORTED;
        err_hint(e, "convert the model to GGUF");
        return e->code;
    }
    if (at->n_dims != (all ? 3 : 2) || (all && at->dim[0] != n_experts) ||
        at->dim[at->n_dims - 2] % name->n_parts)
        return bad(e, at, "has another shape than the experts of config.json");
    const uint64_t cols = at->dim[at->n_dims - 1],
                   rows = at->dim[at->n_dims - 2] / name->n_parts;
    if (!*v) {
        *v = arena_zalloc(mem, n_experts * sizeof **v);
        if (!*v) return mem_exhausted(e, MEM_LOADING, "the headers of the model");
        t->type = at->type;
        t->ne[0] = cols, t->ne[1] = rows, t->ne[2] = n_experts;
    }
    if (t->type != at->type || t->ne[0] != cols || t->ne[1] != rows)
        return bad(e, at, "has another shape or type than the other experts");
    if (!all && name->expert >= n_experts)
        return bad(e, at, "is of an expert beyond those of config.json");
    CHECK(dtype_bytes(at->type, rows, cols, &bytes)); /* it lies in a file */
    for (uint32_t i = all ? 0 : name->expert; i < (all ? n_experts : name->expert + 1); i++) {
        if ((*v)[i].at) return bad(e, at, "is there twice");
        (*v)[i] = (hf_expert){file, at, (all ? i * name->n_parts + part : part) * bytes};
    }
    return OK;
}

status hf_expert_check(const hf_expert *v, const tensor_info *t, err *e) {
    for (uint32_t i = 0; i < t->ne[2]; i++)
        if (!v[i].at) {
            err_set(e, ERR_FORMAT, "expert %u of tensor %.100s is missing", i, t->name);
            return err_field(e, "%.90s", t->name);
        }
    return OK;
}

status hf_expert_read(const hf_expert *v, const tensor_info *t, uint64_t row, uint64_t n,
                      uint64_t bytes, void *dst, err *e) {
    status s = OK;
    for (uint64_t run; n && s == OK; n -= run, row += run) {
        const hf_expert *x = &v[row / t->ne[1]];
        const uint64_t at = row % t->ne[1];
        run = t->ne[1] - at < n ? t->ne[1] - at : n;
        s = safetensors_read(x->file, x->at, x->offset + at * bytes, dst, run * bytes, e);
        dst = (char *)dst + run * bytes;
    }
    return s;
}
