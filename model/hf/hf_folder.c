/* Opens a folder: config.json, the files of tensors and their index, the vocabulary, templates. Owns
 * one arena and the descriptors of the files. */
#include "model/hf/hf_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "model/family.h"
#include "model/hf/hf_config.h"
#include "model/hf/hf_folder_in.h"
#include "model/hf/hf_folder_facts.h"
#include "model/hf/hf_json.h"
#include "model/hf/hf_modules.h"
#include "model/hf/hf_names.h"
#include "memory/term.h"

enum {
    MAX_INDEX = 64 << 20,
    MAX_FILES = 1024,
    NAME_BYTES = 256 /* of a file */
};
static const char index_name[] = "model.safetensors.index.json";

typedef struct opening {
    hf_folder *f;
    char dir[4096], only[NAME_BYTES]; /* only: the one file that was named, or "" */
    int fd;                           /* of dir */
    arena scratch;
    const json_t *config;
    const json_t *map; /* of the index; NULL: one file */
    const family *family;
    err *e;
} opening;

static bool ends(const char *s, const char *tail) {
    const size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcasecmp(s + n - k, tail) == 0;
}

static status no_memory(err *e) {
    return mem_exhausted(e, MEM_LOADING, "the headers of the model");
}

/* ---- which files ---- */

/* Bytes of the folder's name within a path that may be of a file in it. */
static size_t dir_length(const char *path, bool is_dir) {
    const char *slash = strrchr(path, '/');
    size_t n = is_dir ? strlen(path) : slash ? (size_t)(slash - path) : 0;
    while (n > 1 && path[n - 1] == '/') n--;
    return n;
}

bool hf_folder_config_path(const char *path, char *out, size_t cap) {
    struct stat st;
    const size_t n = dir_length(path, stat(path, &st) == 0 && S_ISDIR(st.st_mode));
    const char *none = path[0] == '/' ? "" : ".";
    return (size_t)snprintf(out, cap, "%.*s/config.json", n ? (int)n : 1, n ? path : none) <
           cap;
}

static bool has_inside(const char *dir, const char *name) {
    char path[4096];
    return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path &&
           access(path, F_OK) == 0;
}

/* How many files of the folder end so; the first by name into out, which may be NULL. */
static uint32_t count_inside(const char *dir, const char *tail, char out[NAME_BYTES]) {
    uint32_t n = 0;
    DIR *d = opendir(dir);
    if (!d) return 0;
    for (struct dirent *f; (f = readdir(d));) {
        if (f->d_name[0] == '.' || !ends(f->d_name, tail)) continue;
        if (out && (n == 0 || strcmp(f->d_name, out) < 0))
            snprintf(out, NAME_BYTES, "%s", f->d_name);
        n++;
    }
    closedir(d);
    return n;
}

bool hf_folder_is(const char *path) {
    struct stat st;
    if (ends(path, ".safetensors") || ends(path, index_name)) return true;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && has_inside(path, "config.json") &&
           count_inside(path, ".gguf", NULL) == 0;
}

/* The folder, and the file where one was named. */
static status split_path(opening *o, const char *path) {
    struct stat st;
    const char *slash = strrchr(path, '/');
    if (stat(path, &st) != 0) {
        err_set(o->e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%.250s: %s", path,
                strerror(errno));
        return err_field(o->e, "model");
    }
    if (!S_ISDIR(st.st_mode) && !ends(path, index_name))
        snprintf(o->only, sizeof o->only, "%s", slash ? slash + 1 : path);
    const size_t n = dir_length(path, S_ISDIR(st.st_mode));
    if (n >= sizeof o->dir) return err_set(o->e, ERR_INVALID, "the path is too long");
    snprintf(o->dir, sizeof o->dir, "%.*s", n ? (int)n : 1, n ? path : slash ? "/" : ".");
    o->fd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->fd >= 0) return OK;
    return err_set(o->e, ERR_IO, "%.250s: %s", o->dir, strerror(errno));
}

static status read_config(opening *o) {
    hf_config h;
    str text;
    status s = hf_read_text(&text, o->fd, "config.json", HF_MAX_CONFIG, &o->scratch, o->e);
    if (s == ERR_NOT_FOUND) {
        err_set(o->e, ERR_NOT_FOUND, "%.250s has no config.json", o->dir);
        err_field(o->e, "model");
        return err_hint(o->e, "keep the files of a model together, as they were published");
    }
    if (s == OK) s = hf_parse_json(&o->config, text, "config.json", &o->scratch, o->e);
    if (s == OK) s = hf_config_of(&h, o->config, o->e);
    if (s == OK && h.not_loaded.code != OK) {
        *o->e = h.not_loaded;
        s = h.not_loaded.code;
    }
    if (s != OK) return s;
    o->f->scheme = h.scheme;
    o->f->config = h.config;
    o->family = family_find(h.config.arch);
    CHECK(o->family);
    return OK;
}

/* ---- the files of tensors ---- */

static status no_files(opening *o) {
    static const char *const pickles[] = {".bin", ".pt", ".pth", ".ckpt"};
    char name[NAME_BYTES];
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++)
        if (count_inside(o->dir, pickles[i], name)) {
            err_set(o->e, ERR_UNSUPPORTED,
                    "%.120s: %.100s is a pickle, which runs code when it is read", o->dir,
                    name);
            err_field(o->e, "model");
            return err_hint(o->e, "get the safetensors files of the model, or convert it");
        }
    err_set(o->e, ERR_NOT_FOUND, "%.250s has no .safetensors file", o->dir);
    err_field(o->e, "model");
    if (count_inside(o->dir, ".onnx", NULL))
        return err_hint(o->e,
                        "a graph of ONNX cannot be loaded: get the model as it was trained");
    return err_hint(o->e, "vramd plan %.100s/config.json plans a model without its weights",
                    o->dir);
}

/* A file of the folder itself, and of this kind: "../x" would leave it. */
static status check_file_name(opening *o, str name) {
    if (name.len > 0 && name.len < NAME_BYTES && name.ptr[0] != '.' &&
        strlen(name.ptr) == name.len && !strpbrk(name.ptr, "/\\") &&
        ends(name.ptr, ".safetensors"))
        return OK;
    err_set(o->e, ERR_FORMAT, "%s: \"%.*s\" is no name of a file beside it", index_name,
            (int)(name.len < 100 ? name.len : 100), name.ptr);
    return err_field(o->e, "weight_map");
}

static status open_file(opening *o, const char *name) {
    hf_folder *f = o->f;
    const size_t n = strlen(o->dir) + strlen(name) + 2;
    char *path = arena_alloc(&f->mem, n);
    if (!path) return no_memory(o->e);
    if (f->n_files == MAX_FILES)
        return err_set(o->e, ERR_UNSUPPORTED, "more than %d files of tensors", MAX_FILES);
    snprintf(path, n, "%s/%s", o->dir, name);
    const int fd = openat(o->fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        err_set(o->e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%.250s: %s", path,
                strerror(errno));
        return err_field(o->e, "model");
    }
    status s = safetensors_open(&f->file[f->n_files], fd, path, &f->mem, o->e);
    if (s == OK) f->n_files++;
    return s;
}

static const char *name_in(const safetensors *f) {
    return strrchr(f->path, '/') + 1;
}

static const safetensors *file_named(const opening *o, const char *name) {
    for (uint32_t i = 0; i < o->f->n_files; i++)
        if (strcmp(name_in(&o->f->file[i]), name) == 0) return &o->f->file[i];
    return NULL;
}

static status bad_map(opening *o, const char *tensor, const char *what) {
    err_set(o->e, ERR_FORMAT, "%s: tensor %.150s %s", index_name, tensor, what);
    return err_field(o->e, "weight_map");
}

/* Each tensor of the map is in its file, and each of a file in the map. */
static status check_map(opening *o) {
    const char *tensor;
    json_t *v;
    json_object_foreach((json_t *)o->map, tensor, v) {
        const safetensors *f = file_named(o, json_string_value(v));
        if (!f || !safetensors_find(f, tensor))
            return bad_map(o, tensor, "is not in the file that it names");
    }
    for (uint32_t i = 0; i < o->f->n_files; i++)
        for (uint32_t k = 0; k < o->f->file[i].n; k++) {
            const char *name = o->f->file[i].tensor[k].name;
            v = json_object_get(o->map, name);
            if (!v) return bad_map(o, name, "is in a file, but not in the map");
            if (strcmp(json_string_value(v), name_in(&o->f->file[i])) != 0)
                return bad_map(o, name, "is in two files");
        }
    return OK;
}

static status open_shards(opening *o) {
    const char *tensor;
    json_t *v;
    json_object_foreach((json_t *)o->map, tensor, v) {
        if (!json_is_string(v)) return bad_map(o, tensor, "names no file");
        status s = check_file_name(o, json_in_text(v));
        if (s == OK && !file_named(o, json_string_value(v)))
            s = open_file(o, json_string_value(v));
        if (s != OK) return s;
    }
    return check_map(o);
}

static status open_files(opening *o) {
    const json_t *index = NULL;
    char name[NAME_BYTES];
    status s = OK;
    o->f->file = arena_zalloc(&o->f->mem, MAX_FILES * sizeof *o->f->file);
    if (!o->f->file) return no_memory(o->e);
    if (o->only[0]) return open_file(o, o->only);
    s = hf_read_json(&index, o->fd, index_name, MAX_INDEX, &o->scratch, o->e);
    if (s != OK) return s;
    if (index) {
        o->map = json_object_get(index, "weight_map");
        if (json_is_object(o->map)) return open_shards(o);
        err_set(o->e, ERR_FORMAT, "%s has no weight_map", index_name);
        return err_field(o->e, "weight_map");
    }
    if (has_inside(o->dir, "model.safetensors")) return open_file(o, "model.safetensors");
    const uint32_t n = count_inside(o->dir, ".safetensors", name);
    if (n == 1) return open_file(o, name);
    if (n == 0) return no_files(o);
    err_set(o->e, ERR_INVALID, "%.200s has %u .safetensors files and no %s", o->dir, n,
            index_name);
    err_field(o->e, "model");
    return err_hint(o->e, "name one of them, or add the index that they were published with");
}

/* ---- tensors ---- */

static hf_tensor *add_tensor(opening *o, const char *name, uint32_t *cap) {
    hf_folder *f = o->f;
    if (!arena_place(&f->mem, &f->tensor, f->n_tensors, cap, sizeof *f->tensor, 512))
        return NULL;
    const str copy = arena_str(&f->mem, str_of(name));
    if (!copy.ptr) return NULL;
    hf_tensor *t = &f->tensor[f->n_tensors++];
    *t = (hf_tensor){.info = {.name = copy.ptr, .ne = {1, 1, 1, 1}}};
    return t;
}

static bool tail_is(const char *name, const char *tail) {
    const size_t n = strlen(name), k = strlen(tail);
    return n >= k && strcmp(name + n - k, tail) == 0;
}

/* GGUF has the norm of Mamba-2 as a row for each group. */
static void set_groups(const opening *o, hf_tensor *t) {
    const uint32_t groups = o->f->config.shape.ssm.groups;
    if (o->f->config.shape.heads_grouped || !tail_is(t->info.name, ".ssm_norm.weight") ||
        !groups || t->info.ne[0] % groups)
        return;
    t->info.ne[0] /= groups;
    t->info.ne[1] *= groups;
}

/* What the family's GGUF files have in another order, or as another number. */
static void set_reading(const opening *o, hf_tensor *t) {
    const char *name = t->info.name;
    const bool q = strstr(name, ".attn_q.") != NULL, k = strstr(name, ".attn_k.") != NULL;
    if (o->family->permuted && (q || k)) {
        t->reading = HF_PERMUTED;
        t->head_dim = o->f->config.head_dim;
    }
    if (o->family->norms_plus_one && tail_is(name, "norm.weight") &&
        !tail_is(name, ".ssm_norm.weight"))
        t->reading = HF_PLUS_ONE;
    if (tail_is(name, ".ssm_a")) t->reading = HF_MINUS_EXP;
    if (t->reading == HF_PLUS_ONE || t->reading == HF_MINUS_EXP) t->info.type = DT_F32;
    set_groups(o, t);
}

/* Where a model of this kind has no experts, what others have beside them is the whole of it. */
static void name_without_experts(const opening *o, char *name) {
    static const char beside[] = "_shexp";
    char *at = strstr(name, beside);
    if (!at || o->f->config.n_experts) return;
    const char *end = at + strlen(beside);
    memmove(at, end, strlen(end) + 1);
}

static hf_name_kind name_of(const opening *o, const char *hf, char name[HF_NAME_BYTES]) {
    const hf_name_kind kind = hf_tensor_name(o->family->arch, hf, name);
    if (kind == HF_NAME_WEIGHT) name_without_experts(o, name);
    return kind;
}

static status whole_heads(const opening *o, const hf_tensor *t) {
    const uint64_t rows = t->info.ne[1] > 1 ? t->info.ne[1] : t->info.ne[0];
    if (t->reading != HF_PERMUTED || (t->head_dim % 2 == 0 && rows % t->head_dim == 0))
        return OK;
    err_set(o->e, ERR_FORMAT, "tensor %.150s has no whole number of heads", t->info.name);
    return err_field(o->e, "%.90s", t->info.name);
}

/* The order of a matrix's inputs, beside it: "blk.0.attn_q.order". */
static status order_tensor(opening *o, const hf_packed *p, const char *matrix, uint32_t *cap) {
    char name[512];
    const size_t n = strlen(matrix) - (tail_is(matrix, ".weight") ? strlen(".weight") : 0);
    snprintf(name, sizeof name, "%.*s.order", (int)(n < 480 ? n : 480), matrix);
    hf_tensor *t = add_tensor(o, name, cap);
    if (!t) return no_memory(o->e);
    t->reading = HF_MADE;
    t->made = p->order;
    t->info.type = DT_I32;
    t->info.ne[0] = p->cols;
    return OK;
}

/* A matrix of codes and scales. */
static status packed_tensor(opening *o, const safetensor *codes, size_t base, uint32_t *cap) {
    char hf[512], name[HF_NAME_BYTES];
    hf_folder *f = o->f;
    snprintf(hf, sizeof hf, "%.*s.weight", (int)(base < 480 ? base : 480), codes->name);
    const hf_name_kind kind = name_of(o, hf, name);
    if (kind == HF_NAME_OTHER) return OK;
    hf_packed *p = arena_alloc(&f->mem, sizeof *p);
    hf_tensor *t = p ? add_tensor(o, kind == HF_NAME_WEIGHT ? name : hf, cap) : NULL;
    if (!t) return no_memory(o->e);
    t->packed = p;
    status s = hf_packed_find(p, &f->scheme, f->file, f->n_files, codes, base, &f->mem, o->e);
    if (s != OK) return s;
    t->info.type = p->type;
    t->info.ne[0] = p->cols;
    t->info.ne[1] = p->rows;
    if (kind == HF_NAME_WEIGHT) set_reading(o, t);
    s = whole_heads(o, t);
    return s == OK && p->order ? order_tensor(o, p, t->info.name, cap) : s;
}

/* GPTQ's tools write biases of 0 for layers that have none. */
static status is_empty_bias(opening *o, const safetensors *file, const safetensor *at,
                            bool *empty) {
    const model_config *c = &o->f->config;
    const bool has = strstr(at->name, "conv1d")      ? true
                     : strstr(at->name, "o_proj")    ? c->o_bias
                     : strstr(at->name, "self_attn") ? c->qkv_bias
                                                     : c->ffn_bias;
    *empty = false;
    if (o->f->scheme.packing != HF_PACKED_GPTQ || has || !tail_is(at->name, ".bias")) return OK;
    unsigned char *b = arena_alloc(&o->scratch, at->bytes + 1), any = 0;
    if (!b) return no_memory(o->e);
    status s = safetensors_read(file, at, 0, b, at->bytes, o->e);
    for (uint64_t i = 0; i < at->bytes && s == OK; i++) any |= b[i];
    *empty = any == 0;
    return s;
}

static bool is_gpt_oss(const opening *o) {
    return strcmp(o->family->arch, "gpt-oss") == 0;
}

/* A tensor of experts: part of one, or of two, that the model has of all. They follow one another,
 * so the search begins at the end. */
static status expert_tensor(opening *o, const safetensors *file, const safetensor *at,
                            const hf_expert_name *name, uint32_t *cap) {
    hf_folder *f = o->f;
    status s = OK;
    for (uint32_t k = 0; k < name->n_parts && s == OK; k++) {
        hf_tensor *t = NULL;
        for (uint32_t i = f->n_tensors; i-- > 0 && !t;)
            if (strcmp(f->tensor[i].info.name, name->gguf[k]) == 0) t = &f->tensor[i];
        if (!t) t = add_tensor(o, name->gguf[k], cap);
        if (!t) return no_memory(o->e);
        s = is_gpt_oss(o)
                ? hf_gpt_oss_add(&t->oss, &t->info, f->config.n_experts, name, k, file, at,
                                 &f->mem, o->e)
                : hf_expert_add(&t->expert, &t->info, name->shared ? 1 : f->config.n_experts,
                                name, k, file, at, &f->mem, o->e);
    }
    return s;
}

/* Those of gpt-oss have other tensors. */
static status refuse_experts(opening *o, const safetensor *at) {
    err_set(o->e, ERR_UNSUPPORTED, "tensor %.150s: experts of %s are not loaded so", at->name,
            o->family->arch);
    err_hint(o->e, "get a GGUF file of the model");
    return err_field(o->e, "%.90s", at->name);
}

static status check_experts(opening *o) {
    status s = OK;
    for (uint32_t i = 0; i < o->f->n_tensors && s == OK; i++) {
        const hf_tensor *t = &o->f->tensor[i];
        if (t->expert) s = hf_expert_check(t->expert, &t->info, o->e);
        if (t->oss) s = hf_gpt_oss_check(t->oss, &t->info, o->e);
    }
    return s;
}

static status one_tensor(opening *o, const safetensors *file, const safetensor *at,
                         uint32_t *cap) {
    char name[HF_NAME_BYTES];
    bool skip;
    const size_t base = hf_packed_base(&o->f->scheme, at, &skip);
    if (skip) return OK;
    if (base) return packed_tensor(o, at, base, cap);
    status s = is_empty_bias(o, file, at, &skip);
    if (s != OK || skip) return s;
    hf_expert_name expert;
    if (hf_expert_name_of(&expert, at->name)) {
        const bool known =
            is_gpt_oss(o) ? expert.expert == HF_ALL_EXPERTS : expert.kind == HF_EXPERT_ROWS;
        for (uint32_t k = 0; k < expert.n_parts; k++) name_without_experts(o, expert.gguf[k]);
        return known ? expert_tensor(o, file, at, &expert, cap) : refuse_experts(o, at);
    }
    const hf_name_kind kind = name_of(o, at->name, name);
    if (kind == HF_NAME_OTHER) return OK;
    /* transformers computes with the embedding, whatever a file has beside it. */
    if (kind == HF_NAME_WEIGHT && o->f->config.tied_head && strcmp(name, "output.weight") == 0)
        return OK;
    if (at->type != DT_F32 && at->type != DT_F16 && at->type != DT_BF16) {
        err_set(o->e, ERR_UNSUPPORTED, "%.120s: tensor %.120s has type %s", file->path,
                at->name, at->stored);
        err_field(o->e, "%.90s", at->name);
        return err_hint(
            o->e,
            "weights in F32, F16 and BF16 are loaded, and GPTQ, AWQ and compressed-tensors");
    }
    if (at->n_dims > 4) {
        err_set(o->e, ERR_UNSUPPORTED, "tensor %.150s has %u dimensions", at->name, at->n_dims);
        return err_field(o->e, "%.90s", at->name);
    }
    hf_tensor *t = add_tensor(o, kind == HF_NAME_WEIGHT ? name : at->name, cap);
    if (!t) return no_memory(o->e);
    t->at = at;
    t->file = file;
    t->info.type = at->type;
    /* Of a convolution by channels: [channels][1][width]. */
    const bool kernel = at->n_dims == 3 && at->dim[1] == 1;
    for (uint32_t d = 0; d < at->n_dims; d++) t->info.ne[d] = at->dim[at->n_dims - 1 - d];
    if (kernel) t->info.ne[1] = at->dim[0], t->info.ne[2] = 1;
    if (kind == HF_NAME_WEIGHT) set_reading(o, t);
    return whole_heads(o, t);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const hf_tensor *)a)->info.name, ((const hf_tensor *)b)->info.name);
}

static status list_tensors(opening *o) {
    hf_folder *f = o->f;
    uint32_t cap = 0;
    for (uint32_t i = 0; i < f->n_files; i++)
        for (uint32_t k = 0; k < f->file[i].n; k++) {
            status s = one_tensor(o, &f->file[i], &f->file[i].tensor[k], &cap);
            if (s != OK) return s;
        }
    hf_made made[2];
    uint32_t n = 0;
    status s = hf_made_tensors(&f->config, o->config, &f->mem, made, &n, o->e);
    for (uint32_t i = 0; i < n && s == OK; i++) {
        hf_tensor *t = add_tensor(o, made[i].name, &cap);
        if (!t) return no_memory(o->e);
        t->reading = HF_MADE;
        t->made = made[i].v;
        t->info.type = DT_F32;
        t->info.ne[0] = made[i].n;
    }
    if (s != OK || !f->n_tensors) return s;
    qsort(f->tensor, f->n_tensors, sizeof *f->tensor, by_name);
    for (uint32_t i = 1; i < f->n_tensors; i++)
        if (strcmp(f->tensor[i - 1].info.name, f->tensor[i].info.name) == 0) {
            err_set(o->e, ERR_FORMAT, "%.200s: two tensors are %.100s", o->dir,
                    f->tensor[i].info.name);
            return err_field(o->e, "%.90s", f->tensor[i].info.name);
        }
    return OK;
}

static status make_slab(opening *o) {
    hf_folder *f = o->f;
    uint64_t most = 0;
    for (uint32_t i = 0; i < f->n_tensors; i++)
        if (f->tensor[i].packed && hf_slab_bytes(f->tensor[i].packed) > most)
            most = hf_slab_bytes(f->tensor[i].packed);
    void *mem = most ? arena_alloc(&f->mem, most) : NULL;
    if (mem) f->slab = hf_slab_init(mem);
    return most && !mem ? no_memory(o->e) : OK;
}

/* A config that ties the head, or does not, has tensors accordingly. */
static status check_head(opening *o) {
    const hf_tensor key = {.info.name = "output.weight"};
    if (o->f->config.tied_head || !o->f->n_tensors ||
        bsearch(&key, o->f->tensor, o->f->n_tensors, sizeof key, by_name))
        return OK;
    err_set(o->e, ERR_FORMAT,
            "%.200s: lm_head.weight is missing, and config.json does not say "
            "that it is the embedding (tie_word_embeddings)",
            o->dir);
    return err_field(o->e, "lm_head.weight");
}

static const char *base_of(const char *dir) {
    const char *slash = strrchr(dir, '/');
    return slash && slash[1] ? slash + 1 : dir;
}

/* The headers of files are read even where they cannot be loaded, to say what they have. */
static void describe(opening *o) {
    err other, *e = o->e;
    if (!o->config) return;
    o->e = &other;
    if (o->f->n_files || open_files(o) == OK) hf_folder_describe(o->f, o->config, e);
    o->e = e;
}

static status open_all(opening *o, const char *path) {
    hf_folder *f = o->f;
    status s = split_path(o, path);
    if (s != OK) return s;
    const str dir = arena_str(&f->mem, str_of(o->dir));
    if (!dir.ptr) return no_memory(o->e);
    f->dir = dir.ptr;
    s = read_config(o);
    if (s == ERR_UNSUPPORTED) describe(o);
    if (s == OK) s = hf_modules_read(&f->config, o->fd, &o->scratch, o->e);
    if (s == OK) s = open_files(o);
    if (s == OK) s = list_tensors(o);
    if (s == OK) s = check_experts(o);
    if (s == OK) s = check_head(o);
    if (s == OK) s = make_slab(o);
    if (s != OK) return s;
    f->config.rope.pairing = family_pairing(o->family, hf_folder_format.permutes_qk);
    snprintf(f->config.name, sizeof f->config.name, "%.127s", base_of(o->dir));
    facts_init(&f->facts, &f->mem);
    facts_str(&f->facts, "general.architecture", str_of(o->family->arch));
    facts_str(&f->facts, "general.name", str_of(f->config.name));
    return hf_folder_facts(&f->facts, o->fd, o->config, f->config.n_vocab, &o->scratch, o->e);
}

status hf_folder_open(checkpoint **out, const char *path, err *e) {
    *out = NULL;
    hf_folder *f = calloc(1, sizeof *f);
    if (!f) return no_memory(e);
    f->base.format = &hf_folder_format;
    arena_init(&f->mem, chunks_heap(), 0);
    opening o = {.f = f, .fd = -1, .e = e};
    arena_init(&o.scratch, chunks_heap(), 0);
    const str copy = arena_str(&f->mem, str_of(path));
    f->path = copy.ptr;
    status s = copy.ptr ? open_all(&o, path) : no_memory(e);
    arena_clear(&o.scratch);
    if (o.fd >= 0) close(o.fd);
    if (s == OK)
        *out = &f->base;
    else
        hf_folder_format.close(&f->base);
    return s;
}
