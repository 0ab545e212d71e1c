/* What vramd quantize says. Stateless. */
#include "daemon/quantize/quantize_report.h"

#include "json/out.h"

typedef struct totals {
    uint64_t tensors, before, after;
} totals;

static void sum_by_type(const quant_job *j, totals by_type[256], totals *all) {
    for (size_t i = 0; i < j->n; i++) {
        const quant_tensor *t = &j->v[i];
        totals *both[] = {&by_type[(uint8_t)t->to], all};
        for (int k = 0; k < 2; k++) {
            both[k]->tensors++;
            both[k]->before += tensor_bytes(&t->info);
            both[k]->after += t->bytes;
        }
    }
}

static void total_line(buf *b, const char *name, const totals *t) {
    char x[32], y[32];
    buf_addf(b, "  %-7s %6llu tensors %12s -> %12s\n", name, (unsigned long long)t->tensors,
             bytes_human(t->before, x), bytes_human(t->after, y));
}

static uint64_t matrix_numbers(const quant_job *j) {
    uint64_t n = 0;
    for (size_t i = 0; i < j->n; i++) n += j->v[i].rows * j->v[i].cols;
    return n;
}

static uint64_t memory_bytes(const conversion *c) {
    if (c->method_bytes) return c->method_bytes + c->job->header.len;
    return c->n_threads * convert_bytes_of_thread(c->job) + c->job->header.len +
           checkpoint_header_bytes(c->job->in);
}

void quantize_plan_text(buf *b, const conversion *c) {
    const quant_job *j = c->job;
    totals by_type[256] = {{0}}, all = {0};
    char x[32], y[32];
    sum_by_type(j, by_type, &all);
    buf_addf(b, "%s -> %s\n", checkpoint_path(j->in), c->out);
    for (int t = 0; t < 256; t++)
        if (by_type[t].tensors) total_line(b, dtype_name((dtype)t), &by_type[t]);
    total_line(b, "all", &all);
    buf_addf(b, "  file    %s bytes, %.2f bits a weight\n", bytes_grouped(j->file_bytes, x),
             8 * (double)j->data_bytes / (double)matrix_numbers(j));
    buf_addf(b, "  memory  %s: %s%u threads of %s, headers\n", bytes_human(memory_bytes(c), x),
             c->method_bytes ? "the model on the text, sums over its inputs, " : "",
             c->n_threads, bytes_human(convert_bytes_of_thread(j), y));
}

void quantize_done_text(buf *b, const conversion *c) {
    char x[32];
    buf_addf(b, "%s: %s bytes in %.1f s", c->out, bytes_grouped(c->job->file_bytes, x),
             c->seconds);
    if (c->resumed_bytes)
        buf_addf(b, ", of which %s had been written before", bytes_human(c->resumed_bytes, x));
    buf_addc(b, '\n');
}

static void member_str(buf *b, const char *name, const char *value) {
    buf_addf(b, "\"%s\": ", name);
    json_str_lossy(b, str_of(value));
}

static void tensor_json(buf *b, const quant_tensor *t) {
    buf_addc(b, '{');
    member_str(b, "name", t->info.name);
    buf_addf(b,
             ", \"rows\": %llu, \"columns\": %llu, \"from\": \"%s\", \"from_bytes\": %llu, "
             "\"type\": \"%s\", \"bytes\": %llu}",
             (unsigned long long)t->rows, (unsigned long long)t->cols, dtype_name(t->info.type),
             (unsigned long long)tensor_bytes(&t->info), dtype_name(t->to),
             (unsigned long long)t->bytes);
}

void quantize_json(buf *b, const conversion *c, bool done) {
    const quant_job *j = c->job;
    buf_addc(b, '{');
    member_str(b, "input", checkpoint_path(j->in));
    buf_add(b, STR(", "));
    member_str(b, "output", c->out);
    buf_addf(b,
             ", \"file_bytes\": %llu, \"data_bytes\": %llu, \"bits_per_weight\": %.4f, "
             "\"threads\": %u, \"memory_bytes\": %llu, \"done\": %s",
             (unsigned long long)j->file_bytes, (unsigned long long)j->data_bytes,
             8 * (double)j->data_bytes / (double)matrix_numbers(j), c->n_threads,
             (unsigned long long)memory_bytes(c), done ? "true" : "false");
    if (done)
        buf_addf(b, ", \"seconds\": %.3f, \"resumed_bytes\": %llu", c->seconds,
                 (unsigned long long)c->resumed_bytes);
    buf_add(b, STR(", \"tensors\": ["));
    for (size_t i = 0; i < j->n; i++) {
        if (i) buf_add(b, STR(", "));
        tensor_json(b, &j->v[i]);
    }
    buf_add(b, STR("]}\n"));
}
