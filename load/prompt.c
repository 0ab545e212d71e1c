/* Makes prompts and bodies. Owns nothing; any thread. */
#include "load/prompt.h"

#include <math.h>

#include "base/hash.h"
#include "json/out.h"

/* Common words: most tokenizers have each as one token, with the blank before it. */
static const char *const words[] = {
    "time",      "year",       "people",  "way",      "day",      "man",     "thing",
    "woman",     "life",       "child",   "world",    "school",   "state",   "family",
    "group",     "country",    "hand",    "part",     "place",    "case",    "week",
    "company",   "system",     "program", "question", "work",     "number",  "night",
    "point",     "home",       "water",   "room",     "mother",   "area",    "money",
    "story",     "fact",       "month",   "lot",      "right",    "study",   "book",
    "eye",       "job",        "word",    "business", "issue",    "side",    "kind",
    "head",      "house",      "service", "friend",   "father",   "power",   "hour",
    "game",      "line",       "end",     "member",   "law",      "car",     "city",
    "name",      "team",       "minute",  "idea",     "body",     "back",    "parent",
    "face",      "level",      "office",  "door",     "health",   "person",  "art",
    "war",       "history",    "party",   "result",   "change",   "morning", "reason",
    "research",  "girl",       "guy",     "moment",   "air",      "teacher", "force",
    "education", "foot",       "boy",     "age",      "policy",   "music",   "market",
    "sense",     "nation",     "plan",    "college",  "interest", "death",   "course",
    "someone",   "experience", "behind",  "reach",    "local",    "six",     "effect",
    "use",       "class",      "control", "field",    "light",    "paper",   "table",
    "river",     "street",     "green",   "small",    "large",    "early",   "young",
    "black",     "white",      "long",    "great",    "little",   "own",     "other",
    "old",       "high",       "clear",   "next",     "public",   "bad",     "same",
    "able",      "open",       "free",
};
enum { N_WORDS = sizeof words / sizeof *words };

/* Streams of random numbers, so that the parts of a prompt do not depend on each other. */
enum { STREAM_OWN = 1, STREAM_SHARED, STREAM_BLOCK, STREAM_LENGTH };

uint64_t load_rng_next(load_rng *r) {
    return hash_mix(r->s += 0x9e3779b97f4a7c15u);
}
double load_rng_unit(load_rng *r) {
    return (double)(load_rng_next(r) >> 11) * 0x1p-53;
}
load_rng load_rng_of(uint64_t seed, uint64_t stream, uint64_t index) {
    return (load_rng){hash_mix(hash_mix(hash_mix(seed) ^ stream) ^ index)};
}

size_t load_n_words(void) {
    return N_WORDS;
}
void load_words(buf *out) {
    for (size_t i = 0; i < N_WORDS; i++) {
        if (i) buf_addc(out, ' ');
        buf_add(out, str_of(words[i]));
    }
}

/* n units (ids or words) of one stream. */
static void add_units(buf *b, const load_vocab *v, load_rng r, uint32_t n, bool *first) {
    for (uint32_t i = 0; i < n; i++, *first = false) {
        if (v->ids.n) {
            if (!*first) buf_addc(b, ',');
            json_i64(b, v->ids.v[load_rng_next(&r) % v->ids.n]);
        } else {
            if (!*first) buf_addc(b, ' ');
            buf_add(b, str_of(words[load_rng_next(&r) % N_WORDS]));
        }
    }
}

static uint32_t units_of(const load_vocab *v, double tokens) {
    if (v->ids.n) return (uint32_t)tokens;
    double n = tokens / v->tokens_per_word + 0.5;
    return n < 1 ? 1 : (uint32_t)n;
}

/* A row's blocks, each from its own stream: equal ids, equal tokens. */
static void add_blocks(buf *b, const load_spec *s, const load_vocab *v, const trace_row *row,
                       uint32_t tokens, bool *first) {
    uint32_t block = units_of(v, TRACE_BLOCK_TOKENS), left = units_of(v, tokens);
    for (uint32_t i = 0; i < row->n_hashes && left; i++) {
        uint32_t n = left < block ? left : block;
        uint64_t id = s->trace.hashes[row->hashes + i];
        add_units(b, v, load_rng_of(s->seed, STREAM_BLOCK, id), n, first);
        left -= n;
    }
}

static void add_prompt(buf *b, const load_spec *s, const load_vocab *v, const trace_row *row,
                       const load_job *j) {
    bool first = true;
    if (row && row->n_hashes) return add_blocks(b, s, v, row, j->prompt_tokens, &first);
    uint32_t all = units_of(v, j->prompt_tokens), shared = (uint32_t)(s->prefix_share * all);
    add_units(b, v, load_rng_of(s->seed, STREAM_SHARED, 0), shared, &first);
    add_units(b, v, load_rng_of(s->seed, STREAM_OWN, j->index), all - shared, &first);
}

/* Normal, by Box and Muller; within four deviations and the limits. */
static uint32_t draw_length(const load_spec *s, uint64_t index) {
    if (!s->prompt_stddev) return s->prompt_tokens;
    load_rng r = load_rng_of(s->seed, STREAM_LENGTH, index);
    double u = 1 - load_rng_unit(&r), z = sqrt(-2 * log(u)) * cos(2 * M_PI * load_rng_unit(&r));
    double n = s->prompt_tokens + s->prompt_stddev * fmax(-4, fmin(4, z));
    return n < 1 ? 1 : n > LOAD_MAX_TOKENS ? LOAD_MAX_TOKENS : (uint32_t)(n + 0.5);
}

static uint32_t least(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static void draw_lengths(load_job *j, const load_spec *s, const trace_row *row) {
    if (!row) {
        j->prompt_tokens = draw_length(s, j->index);
        j->output_tokens = s->output_tokens;
        return;
    }
    j->prompt_tokens = least(row->prompt_tokens, s->cap_prompt ? s->prompt_tokens : UINT32_MAX);
    j->output_tokens = least(row->output_tokens, s->cap_output ? s->output_tokens : UINT32_MAX);
}

status load_job_make(load_job *j, const load_spec *s, const load_vocab *v, const trace_row *row,
                     err *e) {
    buf *b = &j->body;
    bool ids = v->ids.n > 0;
    draw_lengths(j, s, row);
    buf_init(b, NULL);
    buf_add(b, STR("{\"model\":"));
    json_str_lossy(b, str_of(s->model));
    buf_add(b, s->chat ? STR(",\"messages\":[{\"role\":\"user\",\"content\":")
                       : STR(",\"prompt\":"));
    buf_addc(b, ids ? '[' : '"');
    add_prompt(b, s, v, row, j);
    buf_addc(b, ids ? ']' : '"');
    if (s->chat) buf_add(b, STR("}]"));
    buf_addf(b, ",\"max_tokens\":%u,\"temperature\":0,\"stream\":true,", j->output_tokens);
    if (!s->keep_eos) buf_add(b, STR("\"ignore_eos\":true,"));
    buf_add(b, STR("\"stream_options\":{\"include_usage\":true}}"));
    if (!b->failed) return OK;
    buf_clear(b);
    return err_set(e, ERR_NO_MEMORY, "no memory for a prompt of %u tokens", j->prompt_tokens);
}
