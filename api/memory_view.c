/* Reports on memory. Loop thread, or the main thread of `vramd plan`. */
#include "api/memory_view.h"

#include "api/json_out.h"
#include "base/clock.h"

enum { PROBE_EVERY_US = 1000000, MAX_SEQUENCES = 64 };

const process_memory *memory_probe_read(memory_probe *p) {
    uint64_t now = clock_us();
    if (p->read_us == 0 || now - p->read_us >= PROBE_EVERY_US) {
        process_memory_read(&p->last);
        p->read_us = now;
    }
    return &p->last;
}

static void member(buf *b, const char *name, uint64_t v) {
    buf_addf(b, "\"%s\":%llu,", name, (unsigned long long)v);
}

/* Ends an object or array that was written with a comma after each member. */
static void end(buf *b, char close) {
    if (b->len && b->ptr[b->len - 1] == ',') b->len--;
    buf_addc(b, close);
}

static void classes_json(buf *b, const ledger_view *v) {
    buf_add(b, STR("\"classes\":["));
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        const ledger_class *k = &v->cls[c];
        if (!k->plan_bytes && !k->peak_bytes) continue;
        buf_addf(b, "{\"class\":\"%s\",\"kind\":\"%s\",", mem_class_name((mem_class)c),
                 term_kind_name(k->kind));
        member(b, "plan_bytes", k->plan_bytes);
        member(b, "ledger_bytes", k->ledger_bytes);
        member(b, "peak_bytes", k->peak_bytes);
        end(b, '}');
        buf_addc(b, ',');
    }
    end(b, ']');
    buf_addc(b, ',');
}

static void kv_json(buf *b, const kv_view *k) {
    buf_add(b, STR("\"kv\":{"));
    member(b, "block_tokens", k->block_tokens);
    member(b, "blocks", k->blocks);
    member(b, "free", k->free);
    member(b, "used", k->used);
    member(b, "cached", k->cached);
    member(b, "bytes_per_token", k->bytes_per_token);
    end(b, '}');
    buf_addc(b, ',');
}

void memory_view_json(buf *b, port *p, memory_probe *probe) {
    ledger_view v;
    machine_stats s;
    seq_view seq[MAX_SEQUENCES];
    const process_memory *os = memory_probe_read(probe);
    ledger_read(p->ledger, &v);
    p->ops->stats(p, &s);
    buf_addc(b, '{');
    member(b, "budget_bytes", v.budget_bytes);
    member(b, "plan_bytes", v.plan_bytes);
    member(b, "ledger_bytes", v.ledger_bytes);
    member(b, "peak_bytes", v.peak_bytes);
    classes_json(b, &v);
    buf_add(b, STR("\"process\":{"));
    member(b, "anonymous_bytes", os->anonymous_bytes);
    member(b, "file_bytes", os->file_bytes);
    end(b, '}');
    buf_addf(b, ",\"unaccounted_bytes\":%lld,",
             (long long)os->anonymous_bytes - (long long)v.ledger_bytes);
    kv_json(b, &s.kv);
    buf_add(b, STR("\"requests\":{"));
    member(b, "pool_bytes", pool_size(p->pool));
    member(b, "used_bytes", pool_used(p->pool));
    member(b, "peak_bytes", pool_peak(p->pool));
    end(b, '}');
    buf_add(b, STR(",\"sequences\":["));
    size_t n = p->ops->sequences(p, seq, MAX_SEQUENCES);
    for (size_t i = 0; i < n; i++) {
        buf_addc(b, '{');
        member(b, "id", seq[i].id);
        member(b, "tokens", seq[i].n_tokens);
        member(b, "blocks", seq[i].n_blocks);
        member(b, "bytes", seq[i].bytes);
        buf_addf(b, "\"state\":\"%s\"},", seq[i].state);
    }
    end(b, ']');
    buf_addc(b, '}');
}

void memory_view_text(buf *b, port *p, memory_probe *probe) {
    ledger_view v;
    machine_stats s;
    char x[32], y[32], z[32];
    const process_memory *os = memory_probe_read(probe);
    ledger_read(p->ledger, &v);
    p->ops->stats(p, &s);
    buf_addf(b, "%-14s %-11s %18s %18s %18s\n", "class", "kind", "plan", "ledger", "peak");
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        const ledger_class *k = &v.cls[c];
        if (!k->plan_bytes && !k->peak_bytes) continue;
        buf_addf(b, "%-14s %-11s %18s %18s %18s\n", mem_class_name((mem_class)c),
                 term_kind_name(k->kind), bytes_grouped(k->plan_bytes, x),
                 bytes_grouped(k->ledger_bytes, y), bytes_grouped(k->peak_bytes, z));
    }
    buf_addf(b, "%-26s %18s %18s %18s\n", "all", bytes_grouped(v.plan_bytes, x),
             bytes_grouped(v.ledger_bytes, y), bytes_grouped(v.peak_bytes, z));
    buf_addf(b, "%-26s %18s\n", "budget", bytes_grouped(v.budget_bytes, x));
    buf_addf(b, "%-26s %18s %18s\n", "process, anonymous", "",
             bytes_grouped(os->anonymous_bytes, x));
    buf_addf(b, "%-26s %18s %18lld\n", "unaccounted", "",
             (long long)os->anonymous_bytes - (long long)v.ledger_bytes);
    buf_addf(b,
             "KV cache: %llu blocks of %u tokens, %llu free, %llu used, %llu cached; %s bytes "
             "a token\n",
             (unsigned long long)s.kv.blocks, s.kv.block_tokens, (unsigned long long)s.kv.free,
             (unsigned long long)s.kv.used, (unsigned long long)s.kv.cached,
             bytes_grouped(s.kv.bytes_per_token, x));
}

static void model_json(buf *b, const model_config *c) {
    buf_add(b, STR("\"model\":{\"arch\":"));
    json_str_lossy(b, str_of(c->arch));
    buf_add(b, STR(",\"name\":"));
    json_str_lossy(b, str_of(c->name));
    buf_addc(b, ',');
    member(b, "parameters", model_config_params(c));
    member(b, "layers", c->n_layers);
    member(b, "hidden", c->n_embd);
    member(b, "heads", c->n_heads);
    member(b, "kv_heads", c->n_kv_heads);
    member(b, "head_dim", c->head_dim);
    member(b, "ffn", c->n_ff);
    member(b, "vocabulary", c->n_vocab);
    end(b, '}');
    buf_addc(b, ',');
}

void plan_json(buf *b, const plan *p, const model_config *c, const char *device) {
    buf_addc(b, '{');
    model_json(b, c);
    buf_addf(b, "\"device\":\"%s\",\"fits\":%s,", device, p->fits ? "true" : "false");
    member(b, "budget_bytes", p->budget_bytes);
    member(b, "total_bytes", p->total_bytes);
    member(b, "load_peak_bytes", p->load_peak_bytes);
    member(b, "smallest_budget_bytes", p->smallest_budget_bytes);
    buf_add(b, STR("\"terms\":["));
    for (size_t i = 0; i < p->terms.n; i++) {
        const term *t = &p->terms.v[i];
        buf_addf(
            b,
            "{\"class\":\"%s\",\"bytes\":%llu,\"kind\":\"%s\",\"while_loading\":%s,\"what\":",
            mem_class_name(t->cls), (unsigned long long)t->bytes, term_kind_name(t->kind),
            t->while_loading ? "true" : "false");
        json_str_lossy(b, str_of(t->what));
        buf_add(b, STR("},"));
    }
    end(b, ']');
    buf_add(b, STR(",\"kv\":{"));
    member(b, "bytes_per_token", p->kv_bytes_per_token);
    member(b, "block_tokens", p->block_tokens);
    member(b, "blocks", p->kv_blocks);
    member(b, "tokens", p->kv_tokens);
    end(b, '}');
    buf_addc(b, '}');
}
