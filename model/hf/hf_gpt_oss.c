/* Blocks, scales and biases of experts, found, checked and put together: tens of KiB are read at once. */
#include "model/hf/hf_gpt_oss.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "memory/term.h"

enum { BLOCK = 32, CODES = 16, GGUF_BYTES = 17, PIECE = 64 << 10 /* bytes of codes, about */ };

static status bad(err *e, const safetensor *at, const char *what) {
    err_set(e, ERR_FORMAT, "tensor %.150s %s", at->name, what);
    return err_field(e, "%.90s", at->name);
}

static bool is_real(const safetensor *at) {
    return at->type == DT_F32 || at->type == DT_F16 || at->type == DT_BF16;
}

/* Whether dimensions are [experts, rows, blocks, 16], [experts, rows, blocks], [experts, rows] or
 * [experts, inputs, rows]. */
static bool fits(const safetensor *at, hf_expert_kind kind, uint32_t n_experts,
                 uint32_t n_parts) {
    const uint32_t dims = kind == HF_EXPERT_BLOCKS ? 4 : kind == HF_EXPERT_BIAS ? 2 : 3;
    const bool blocks = kind == HF_EXPERT_BLOCKS || kind == HF_EXPERT_SCALES;
    if (blocks ? strcmp(at->stored, "U8") != 0 : !is_real(at)) return false;
    if (at->n_dims != dims || at->dim[0] != n_experts) return false;
    for (uint32_t d = 0; d < dims; d++)
        if (at->dim[d] == 0 || at->dim[d] > UINT32_MAX / BLOCK) return false;
    return at->dim[kind == HF_EXPERT_ROWS ? 2 : 1] % n_parts == 0 &&
           (kind != HF_EXPERT_BLOCKS || at->dim[3] == CODES);
}

/* The tensor of GGUF that a stored one has the numbers of. */
static void describe(tensor_info *t, const hf_expert_name *name, const safetensor *at) {
    const uint64_t n = at->dim[0], rows = at->dim[name->kind == HF_EXPERT_ROWS ? 2 : 1];
    const uint64_t inputs = name->kind == HF_EXPERT_BLOCKS ? at->dim[2] * BLOCK : at->dim[1];
    t->type = name->kind == HF_EXPERT_BLOCKS ? DT_MXFP4 : at->type;
    if (name->kind == HF_EXPERT_BIAS)
        t->ne[0] = rows / name->n_parts, t->ne[1] = n;
    else
        t->ne[0] = inputs, t->ne[1] = rows / name->n_parts, t->ne[2] = n;
}

status hf_gpt_oss_add(hf_gpt_oss **v, tensor_info *t, uint32_t n_experts,
                      const hf_expert_name *name, uint32_t part, const safetensors *file,
                      const safetensor *at, arena *mem, err *e) {
    if (!fits(at, name->kind, n_experts, name->n_parts))
        return bad(e, at, "has another type or shape than the experts of config.json");
    if (!*v) {
        *v = arena_zalloc(mem, sizeof **v);
        if (!*v) return mem_exhausted(e, MEM_LOADING, "the headers of the model");
        (*v)->turn = part, (*v)->n_turns = name->n_parts;
    }
    const bool scales = name->kind == HF_EXPERT_SCALES;
    if (scales ? (*v)->scales : (*v)->blocks) return bad(e, at, "is there twice");
    if (scales) {
        (*v)->scales = at, (*v)->scales_in = file;
        return OK;
    }
    (*v)->blocks = at, (*v)->blocks_in = file;
    describe(t, name, at);
    return OK;
}

status hf_gpt_oss_check(const hf_gpt_oss *v, const tensor_info *t, err *e) {
    if (v->blocks && is_real(v->blocks))
        return v->scales ? bad(e, v->scales, "is beside numbers that need no scales") : OK;
    if (!v->blocks || !v->scales) {
        err_set(e, ERR_FORMAT, "tensor %.100s has no %s in the files", t->name,
                v->blocks ? "scales" : "blocks");
        return err_field(e, "%.90s", t->name);
    }
    if (memcmp(v->blocks->dim, v->scales->dim, 3 * sizeof *v->blocks->dim) != 0)
        return bad(e, v->scales, "has another shape than its blocks");
    return OK;
}

typedef uint8_t eight __attribute__((vector_size(8)));
typedef uint8_t sixteen __attribute__((vector_size(16)));

void hf_gpt_oss_block(const uint8_t codes[CODES], uint8_t scale, uint8_t out[GGUF_BYTES]) {
    eight first, last; /* inputs 0 to 15, 16 to 31; the even ones are the low nibbles */
    memcpy(&first, codes, sizeof first);
    memcpy(&last, codes + 8, sizeof last);
    const eight even = (first & 15) | (last << 4), odd = (first >> 4) | (last & 0xf0);
    const sixteen both = __builtin_shufflevector(even, odd, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5,
                                                 13, 6, 14, 7, 15);
    out[0] = scale;
    memcpy(out + 1, &both, sizeof both);
}

/* Rows [row, row + n); codes, scales: room for the stored rows among which they are. */
static status read_piece(const hf_gpt_oss *v, uint64_t blocks, uint64_t row, uint64_t n,
                         uint8_t *codes, uint8_t *scales, uint8_t *dst, err *e) {
    const uint64_t stored = n * v->n_turns, first = row * v->n_turns * blocks;
    status s = safetensors_read(v->blocks_in, v->blocks, first * CODES, codes,
                                stored * blocks * CODES, e);
    if (s == OK)
        s = safetensors_read(v->scales_in, v->scales, first, scales, stored * blocks, e);
    for (uint64_t r = v->turn; r < stored && s == OK; r += v->n_turns)
        for (uint64_t i = r * blocks; i < (r + 1) * blocks; i++, dst += GGUF_BYTES)
            hf_gpt_oss_block(codes + i * CODES, scales[i], dst);
    return s;
}

static status read_blocks(const hf_gpt_oss *v, const tensor_info *t, uint64_t row, uint64_t n,
                          uint8_t *dst, err *e) {
    const uint64_t blocks = t->ne[0] / BLOCK, stored = v->n_turns * blocks;
    uint64_t most = PIECE / (stored * CODES);
    if (most > n) most = n;
    if (most == 0) most = 1;
    uint8_t *codes = malloc(most * stored * (CODES + 1));
    if (!codes) return mem_exhausted(e, MEM_LOADING, "reading %.200s", t->name);
    status s = OK;
    for (uint64_t run; n && s == OK; n -= run, row += run, dst += run * blocks * GGUF_BYTES) {
        run = n < most ? n : most;
        s = read_piece(v, blocks, row, run, codes, codes + most * stored * CODES, dst, e);
    }
    free(codes);
    return s;
}

/* A row is of one expert; bytes: of a number. */
static status read_bias(const hf_gpt_oss *v, const tensor_info *t, uint64_t row, uint64_t n,
                        uint64_t bytes, uint8_t *dst, err *e) {
    const uint64_t stored = t->ne[0] * v->n_turns * bytes;
    uint8_t *raw = malloc(stored);
    if (!raw) return mem_exhausted(e, MEM_LOADING, "reading %.200s", t->name);
    status s = OK;
    for (uint64_t i = 0; i < n && s == OK; i++) {
        s = safetensors_read(v->blocks_in, v->blocks, (row + i) * stored, raw, stored, e);
        for (uint64_t k = 0; k < t->ne[0] && s == OK; k++, dst += bytes)
            memcpy(dst, raw + (k * v->n_turns + v->turn) * bytes, bytes);
    }
    free(raw);
    return s;
}

/* Numbers of a stored row, of one input, to their places in the rows of n outputs. */
static void put_input(const hf_gpt_oss *v, const uint8_t *line, uint64_t n, uint64_t size,
                      uint8_t *dst, uint64_t row_bytes) {
    const uint64_t step = v->n_turns * size;
    line += v->turn * size;
    for (uint64_t r = 0; r < n && size == 2; r++)
        memcpy(dst + r * row_bytes, line + r * step, 2);
    for (uint64_t r = 0; r < n && size == 4; r++)
        memcpy(dst + r * row_bytes, line + r * step, 4);
}

/* Of matrices with their inputs first. */
static status read_inputs(const hf_gpt_oss *v, const tensor_info *t, uint64_t row, uint64_t n,
                          uint64_t size, uint8_t *dst, err *e) {
    const uint64_t inputs = t->ne[0], rows = t->ne[1], step = v->n_turns * size;
    uint8_t *line = malloc((n < rows ? n : rows) * step);
    if (!line) return mem_exhausted(e, MEM_LOADING, "reading %.200s", t->name);
    status s = OK;
    for (uint64_t run; n && s == OK; n -= run, row += run, dst += run * inputs * size) {
        run = rows - row % rows < n ? rows - row % rows : n; /* of one expert */
        for (uint64_t k = 0; k < inputs && s == OK; k++) {
            const uint64_t at = (row / rows * inputs + k) * rows + row % rows;
            s = safetensors_read(v->blocks_in, v->blocks, at * step, line, run * step, e);
            if (s == OK) put_input(v, line, run, size, dst + k * size, inputs * size);
        }
    }
    free(line);
    return s;
}

status hf_gpt_oss_read(const hf_gpt_oss *v, const tensor_info *t, uint64_t row, uint64_t n,
                       void *dst, err *e) {
    const uint64_t size = dtype_block_of(t->type).bytes;
    if (n == 0) return OK;
    if (t->type == DT_MXFP4) return read_blocks(v, t, row, n, dst, e);
    return v->blocks->n_dims == 2 ? read_bias(v, t, row, n, size, dst, e)
                                  : read_inputs(v, t, row, n, size, dst, e);
}
