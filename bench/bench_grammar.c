/* module: text */
/* Masks of tokens: random JSON documents, as the model's tokenizer cuts them, are followed token by
 * token under a grammar; at each position the mask is made as the engine thread makes it. Prints
 * the times of masks whose states were seen before, of those that meet a new state, of all, and of
 * taking a token; how long a schema of 100 properties compiles; and the times of first masks where
 * strings and lists come to their limit, and in free text. One thread, processor time,
 * of which reading the clock is about 0.3 us.
 *
 *   build/bench_grammar VOCABULARY.gguf... */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/check.h"
#include "model/sampling.h"
#include "text/grammar/grammar.h"
#include "text/grammar/schema.h"

enum { MAX_TIMES = 1 << 18, CACHE_BYTES = 16 << 20, DOCUMENTS = 400 };

static double cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- documents ---- */

static unsigned seed = 1;
static unsigned below(unsigned n) {
    return (unsigned)rand_r(&seed) % n;
}

static void random_text(buf *b) {
    static const char *const word[] = {"order", "the",    "customer", "is",  "delayed",
                                       "item",  "street", "blue",     "a",   "ship",
                                       "Grüße", "12",     "north",    "and", "\\\"yes\\\"",
                                       "total", "\\n",    "日本"};
    buf_addc(b, '"');
    for (unsigned n = below(9), i = 0; i <= n; i++)
        buf_addf(b, "%s%s", i ? " " : "", word[below(sizeof word / sizeof *word)]);
    buf_addc(b, '"');
}

static void gap(buf *b, int style, int depth) {
    if (style == 2) buf_addf(b, "\n%*s", 2 * (depth < 9 ? depth : 9), "");
    if (style == 1) buf_addc(b, ' ');
}

static void random_value(buf *b, int style, int depth) {
    unsigned kind = depth > 5 ? 2 + below(4) : depth == 0 ? 0 : below(6);
    if (kind == 2) {
        buf_addf(b, "%d", (int)below(100000) - 5000);
    } else if (kind == 3) {
        buf_addf(b, "%u.%u", below(1000), below(100));
    } else if (kind == 4) {
        buf_addf(b, "%s", below(2) ? "true" : "null");
    } else if (kind == 5) {
        random_text(b);
    } else {
        unsigned n = 1 + below(5);
        buf_addc(b, kind ? '[' : '{');
        for (unsigned i = 0; i < n; i++) {
            if (i) buf_addc(b, ',');
            gap(b, i ? style : style == 2 ? 2 : 0, depth + 1);
            if (!kind) random_text(b), buf_addc(b, ':');
            if (!kind && style) buf_addc(b, ' ');
            random_value(b, style, depth + 1);
        }
        if (style == 2) gap(b, style, depth);
        buf_addc(b, kind ? ']' : '}');
    }
}

static void random_order(buf *b, int style) {
    static const char *const status[] = {"open", "paid", "shipped", "cancelled"};
    const char *s = style ? " " : "";
    buf_addf(b, "{\"id\":%s%u,%s\"name\":%s", s, below(1000000), s, s);
    random_text(b);
    buf_addf(b, ",%s\"status\":%s\"%s\",%s\"date\":%s\"20%02u-%02u-%02u\"", s, s,
             status[below(4)], s, s, 10 + below(20), 1 + below(12), 1 + below(28));
    if (below(2)) {
        buf_addf(b, ",%s\"note\":%s", s, s);
        random_text(b);
    }
    buf_addf(b, ",%s\"items\":%s[", s, s);
    for (unsigned n = 1 + below(6), i = 0; i < n; i++)
        buf_addf(b, "%s{\"sku\":%s\"ABC-%04u\",%s\"n\":%s%u,%s\"price\":%s%u.%02u}",
                 i ? style ? ", " : "," : "", s, below(10000), s, s, 1 + below(99), s, s,
                 below(900), below(100));
    buf_addf(b, "]}");
}

/* ---- measuring ---- */

typedef struct series {
    double v[MAX_TIMES];
    int n;
} series;

static void add(series *s, double v) {
    if (s->n < MAX_TIMES) s->v[s->n++] = v;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_series(const char *name, series *s) {
    qsort(s->v, (size_t)s->n, sizeof *s->v, by_value);
    double p50 = s->n ? s->v[s->n / 2] : 0, p99 = s->n ? s->v[s->n * 99 / 100] : 0;
    printf(", \"%s_n\": %d, \"%s_p50_us\": %.2f, \"%s_p99_us\": %.1f, \"%s_max_us\": %.1f",
           name, s->n, name, p50, name, p99, name, s->n ? s->v[s->n - 1] : 0);
}

typedef struct bench {
    tokenizer *tok;
    vocab_index *index;
    mask_cache *cache;
    uint32_t *mask;
    series warm, cold, all, take;
} bench;

static void follow(bench *x, const grammar *g, grammar_state *s, str text) {
    vec_i32 ids;
    err e;
    vec_i32_init(&ids, NULL);
    CHECK(tokenizer_encode(x->tok, text, 0, &ids, &e) == OK);
    grammar_start(g, s);
    for (size_t i = 0; i < ids.n; i++) {
        mask_counts before, after;
        mask_cache_read(x->cache, &before);
        double t0 = cpu_us();
        grammar_mask(g, s, x->cache, x->mask);
        double t1 = cpu_us();
        bool ok = grammar_take(g, s, ids.v[i]);
        double t2 = cpu_us();
        mask_cache_read(x->cache, &after);
        add(after.built > before.built ? &x->cold : &x->warm, t1 - t0);
        add(&x->all, t1 - t0);
        add(&x->take, t2 - t1);
        if (!ok)
            fprintf(stderr, "token %d refused in %.*s\n", ids.v[i], (int)text.len, text.ptr);
        CHECK(ok);
    }
    vec_i32_clear(&ids);
}

static grammar *compile(const bench *x, const char *schema, double *us) {
    arena mem;
    err e;
    arena_init(&mem, chunks_heap(), 0);
    const json_t *v;
    grammar *g = NULL;
    CHECK(json_in_parse(&v, &mem, str_of(schema), &e) == OK);
    double t0 = cpu_us();
    rules *r = rules_new(&mem);
    rule root = RULE_NEVER;
    schema_options plain = {0};
    status s = rules_json_schema(r, v, &plain, &root, &e);
    if (s == OK) s = grammar_compile(&g, r, root, x->index, chunks_heap(), &e);
    if (s != OK) fprintf(stderr, "%s\n", e.text);
    CHECK(s == OK);
    *us = cpu_us() - t0;
    arena_clear(&mem);
    return g;
}

static const char order_schema[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"id\",\"name\","
    "\"status\","
    "\"items\"],\"properties\":{\"id\":{\"type\":\"integer\"},\"name\":{\"type\":\"string\","
    "\"minLength\":1,\"maxLength\":64},\"status\":{\"enum\":[\"open\",\"paid\",\"shipped\","
    "\"cancelled\"]},\"date\":{\"type\":\"string\",\"format\":\"date\"},\"note\":{\"type\":["
    "\"string\",\"null\"]},\"items\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":64,"
    "\"items\":{"
    "\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"sku\",\"n\"],"
    "\"properties\":"
    "{\"sku\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{3}-[0-9]{4,8}$\"},\"n\":{\"type\":"
    "\"integer\"},\"price\":{\"type\":\"number\"}}}}}}";

static void run(bench *x, const char *name, const char *schema, const char *model, bool order) {
    double us;
    grammar *g = compile(x, schema, &us);
    grammar_state *s = malloc(grammar_state_bytes(g));
    CHECK(s);
    x->warm.n = x->cold.n = x->all.n = x->take.n = 0;
    for (int i = 0; i < DOCUMENTS; i++) {
        buf b;
        buf_init(&b, NULL);
        if (order)
            random_order(&b, i % 2);
        else
            random_value(&b, i % 3, 0);
        follow(x, g, s, buf_str(&b));
        buf_clear(&b);
    }
    printf("{\"vocabulary\": \"%s\", \"tokens\": %u, \"grammar\": \"%s\", \"states\": %u, "
           "\"compile_ms\": %.2f",
           model, x->index->n_vocab, name, grammar_n_states(g), us / 1e3);
    print_series("seen", &x->warm);
    print_series("first", &x->cold);
    print_series("all", &x->all);
    print_series("take", &x->take);
    printf("}");
    free(s);
    grammar_free(g);
}

/* First masks of every state along a text, byte by byte: ends of counted strings, words, lists. */
static void run_states(bench *x, const char *name, grammar *g, const char *text,
                       const char *model) {
    grammar_state *s = malloc(grammar_state_bytes(g));
    CHECK(s);
    x->cold.n = 0;
    grammar_start(g, s);
    for (const char *p = text;; p++) {
        mask_counts before, after;
        mask_cache_read(x->cache, &before);
        double t0 = cpu_us();
        grammar_mask(g, s, x->cache, x->mask);
        double t1 = cpu_us();
        mask_cache_read(x->cache, &after);
        if (after.built > before.built) add(&x->cold, t1 - t0);
        if (!*p) break;
        CHECK(grammar_take_bytes(g, s, (str){p, 1}));
    }
    printf(",\n{\"vocabulary\": \"%s\", \"tokens\": %u, \"grammar\": \"%s\", \"states\": %u",
           model, x->index->n_vocab, name, grammar_n_states(g));
    print_series("first", &x->cold);
    printf("}");
    free(s);
    grammar_free(g);
}

static grammar *compile_tags(const bench *x) {
    static const char text[] = "<tool_call>";
    uint32_t mark[sizeof text - 1];
    arena mem;
    err e;
    grammar *g = NULL;
    arena_init(&mem, chunks_heap(), 0);
    rules *r = rules_new(&mem);
    CHECK(r);
    for (size_t i = 0; i < sizeof text - 1; i++) mark[i] = (uint8_t)text[i];
    rule_trigger v = {mark, sizeof text - 1, RULE_NEVER, false};
    CHECK(rules_json_object(r, &(schema_options){0}, &v.then, &e) == OK);
    CHECK(grammar_compile(&g, r, rules_triggered(r, &v, 1, 0), x->index, chunks_heap(), &e) ==
          OK);
    arena_clear(&mem);
    return g;
}

/* Free text of at most `max`, up to </t>. */
static grammar *compile_limited(const bench *x, rule_unit unit, uint32_t max) {
    static const uint32_t end[] = {'<', '/', 't', '>'};
    const rule_trigger mark = {end, 4, RULE_NEVER, false};
    arena mem;
    err e;
    grammar *g = NULL;
    arena_init(&mem, chunks_heap(), 0);
    rules *r = rules_new(&mem);
    CHECK(r);
    const rule part[] = {rules_limited(r, &mark, 1, unit, max), rules_bytes(r, STR("</t>"))};
    CHECK(grammar_compile(&g, r, rules_seq(r, part, 2), x->index, chunks_heap(), &e) == OK);
    arena_clear(&mem);
    return g;
}

static void run_ends(bench *x, const char *model) {
    double us;
    run_states(x, "maxLength 40", compile(x, "{\"type\":\"string\",\"maxLength\":40}", &us),
               "\"the quick brown fox jumps over the lazy \"", model);
    run_states(x, "pattern [a-z ]{1,40}",
               compile(x, "{\"type\":\"string\",\"pattern\":\"^[a-z ]{1,40}$\"}", &us),
               "\"the quick brown fox jumps over the lazy \"", model);
    run_states(x, "maxItems 8",
               compile(x,
                       "{\"type\":\"array\",\"maxItems\":8,\"items\":{\"type\":\"string\","
                       "\"maxLength\":9}}",
                       &us),
               "[\"a\",\"bcd\",\"efghijklm\",\"\",\"a\",\"b\",\"c\",\"wxyzwxyzw\"]", model);
    run_states(x, "tags in free text", compile_tags(x), "so <tool_call>{\"a\":1} <tool", model);
    run_states(x, "max_chars 40", compile_limited(x, RULE_CHARS, 40),
               "the quick brown fox jumps over the lazy </t", model);
    run_states(x, "max_tokens 40", compile_limited(x, RULE_TOKENS, 40), "the quick </t", model);
}

static void run_wide(bench *x, const char *model) {
    buf b;
    double us, best = INFINITY;
    uint32_t states = 0;
    buf_init(&b, NULL);
    buf_addf(&b, "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
    for (int i = 0; i < 100; i++)
        buf_addf(&b, "%s\"property_%d\":{\"type\":\"%s\"}", i ? "," : "", i,
                 i % 3 == 0   ? "string"
                 : i % 3 == 1 ? "integer"
                              : "boolean");
    buf_addf(&b, "}}");
    for (int i = 0; i < 5; i++) {
        grammar *g = compile(x, buf_cstr(&b), &us);
        if (us < best) best = us;
        states = grammar_n_states(g);
        grammar_free(g);
    }
    printf(
        "{\"vocabulary\": \"%s\", \"tokens\": %u, \"grammar\": \"100 properties\", \"states\": "
        "%u, \"compile_ms\": %.2f}",
        model, x->index->n_vocab, states, best / 1e3);
    buf_clear(&b);
}

static void *zeroed(size_t n) {
    void *p = aligned_alloc(64, (n + 63) & ~(size_t)63);
    CHECK(p);
    memset(p, 0, n);
    return p;
}

int main(int argc, char **argv) {
    static bench x;
    err e;
    printf("{\"rows\": [");
    for (int i = 1; i < argc; i++) {
        checkpoint *file;
        const char *name = strrchr(argv[i], '/') ? strrchr(argv[i], '/') + 1 : argv[i];
        CHECK(checkpoint_open(&file, argv[i], &e) == OK);
        CHECK(tokenizer_open(&x.tok, file, chunks_heap(), &e) == OK);
        uint32_t n = tokenizer_n_vocab(x.tok);
        void *mem = zeroed(vocab_index_bytes(n)),
             *cache = zeroed(mask_cache_bytes(n, CACHE_BYTES));
        double t0 = cpu_us();
        x.index = vocab_index_init(mem, x.tok, n);
        double index_ms = (cpu_us() - t0) / 1e3;
        x.cache = mask_cache_init(cache, n, CACHE_BYTES);
        x.mask = zeroed(sampling_mask_words(n) * sizeof *x.mask);
        printf("%s{\"vocabulary\": \"%s\", \"tokens\": %u, \"index_ms\": %.1f},\n",
               i > 1 ? ",\n" : "", name, n, index_ms);
        run(&x, "any JSON", "{\"type\":\"object\"}", name, false);
        printf(",\n");
        run(&x, "order", order_schema, name, true);
        printf(",\n");
        run_wide(&x, name);
        run_ends(&x, name);
        free(x.mask);
        free(cache);
        free(mem);
        tokenizer_close(x.tok);
        checkpoint_close(file);
    }
    printf("]}\n");
    return 0;
}
