/* /metrics: the text format, by a strict reader; names, labels, histograms, speed. And the plan
 * as JSON. */
#include "tests/api/fake_one.h"
#include "tests/energy_tree.h"
#include "tests/model/config_params.h"

#include <jansson.h>
#include <math.h>

#include "api/memory_view.h"
#include "api/metrics.h"

typedef struct metric_family {
    char name[100], type[20];
    bool help;
    int samples;
} metric_family;

/* Reads the text as Prometheus does: HELP and TYPE once and before the samples, samples of a
 * family together, no sample twice, numbers that are numbers. Returns the number of families.
 */
static int read_text(char *text, metric_family *fam, int cap) {
    int n = 0;
    char *seen[4000], *save;
    int n_seen = 0;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        char name[100], type[20];
        if (sscanf(l, "# HELP %99s", name) == 1) {
            for (int i = 0; i < n; i++) ck_assert_str_ne(fam[i].name, name);
            ck_assert_int_lt(n, cap);
            fam[n] = (metric_family){.help = strlen(l) > 8 + strlen(name)};
            strcpy(fam[n++].name, name);
            continue;
        }
        if (sscanf(l, "# TYPE %99s %19s", name, type) == 2) {
            ck_assert_str_eq(fam[n - 1].name, name);
            strcpy(fam[n - 1].type, type);
            continue;
        }
        size_t base = strlen(fam[n - 1].name);
        ck_assert_msg(strncmp(l, fam[n - 1].name, base) == 0, "%s", l);
        char *labels = strchr(l, '{'), *end = strstr(l, "} ");
        ck_assert_msg(labels && end, "%s", l);
        size_t suffix = (size_t)(labels - l) - base;
        bool hist = strcmp(fam[n - 1].type, "histogram") == 0;
        ck_assert_msg(hist ? suffix > 0 : suffix == 0, "%s", l);
        ck_assert_msg(strncmp(labels, "{model_name=\"", 13) == 0, "%s", l);
        char *stop;
        double v = strtod(end + 2, &stop);
        ck_assert_msg(*stop == '\0' && isfinite(v), "%s", l);
        end[1] = '\0';
        for (int i = 0; i < n_seen; i++) ck_assert_str_ne(seen[i], l);
        seen[n_seen++] = l;
        fam[n - 1].samples++;
    }
    return n;
}

START_TEST(the_text_is_what_prometheus_reads) {
    static metric_family fam[200];
    start();
    reply r = fake_post(&f, "/v1/rerank", "{}");
    ck_assert_int_eq(r.status, 400);
    reply_free(&r);
    r = fake_get(&f, "/metrics");
    ck_assert_int_eq(r.status, 200);
    assert_has(r.head, "Content-Type: text/plain; version=0.0.4");
    ck_assert(r.body[r.n_body - 1] == '\n');
    static const char *const want[] = {
        "vllm:num_requests_running{model_name=\"fake\"} 0\n",
        "vllm:num_requests_waiting{model_name=\"fake\"} 0\n",
        "vllm:kv_cache_usage_perc{model_name=\"fake\"} 0.3\n",
        ("vllm:cache_config_info{model_name=\"fake\",block_size=\"16\",num_gpu_blocks=\"100\"} "
         "1\n"),
        "vllm:generation_tokens_total{model_name=\"fake\"} 7\n",
        "vllm:request_success_total{model_name=\"fake\",finished_reason=\"stop\"} 3\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"fake\",le=\"0.02\"} 0\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"fake\",le=\"0.04\"} 2\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"fake\",le=\"+Inf\"} 2\n",
        "vllm:time_to_first_token_seconds_sum{model_name=\"fake\"} 0.06\n",
        "vllm:time_to_first_token_seconds_count{model_name=\"fake\"} 2\n",
        "vramd_kv_blocks{model_name=\"fake\",state=\"free\"} 60\n",
        "vramd_memory_budget_bytes{model_name=\"fake\",device=\"cpu\"} 1073741824\n",
        "vramd_memory_bytes{model_name=\"fake\",class=\"http\",device=\"cpu\"} ",
        "vramd_ready{model_name=\"fake\"} 1\n",
        "vramd_http_responses_total{model_name=\"fake\",code=\"4xx\"} 1\n",
        "vramd_http_responses_total{model_name=\"fake\",code=\"501\"} 0\n",
        "vramd_http_responses_total{model_name=\"fake\",code=\"5xx\"} 0\n",
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) assert_has(r.body, want[i]);
    int n = read_text(r.body, fam, 200);
    ck_assert_int_gt(n, 40);
    for (int i = 0; i < n; i++) {
        const char *name = fam[i].name;
        size_t len = strlen(name);
        bool total = len > 6 && strcmp(name + len - 6, "_total") == 0;
        ck_assert_msg(fam[i].help && fam[i].samples > 0, "%s", name);
        /* promtool's lint: a counter, and nothing else, ends with _total. Two of vLLM's names
         * are what they are. */
        if (strncmp(name, "vllm:", 5) != 0)
            ck_assert_msg(total == (strcmp(fam[i].type, "counter") == 0), "%s %s", name,
                          fam[i].type);
    }
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(bounds_of_buckets_are_written_as_g_writes_them) {
    start();
    reply r = fake_get(&f, "/metrics");
    for (int id = 0; id < HIST_N; id++)
        for (size_t i = 0; i < metrics_n_bounds((histogram_id)id); i++) {
            char text[64];
            snprintf(text, sizeof text, ",le=\"%g\"} ", metrics_bound((histogram_id)id, i));
            assert_has(r.body, text);
        }
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_device_has_an_account_of_its_own) {
    fake_init(&f);
    f.device = true;
    fake_start(&f);
    reply r = fake_get(&f, "/v1/memory");
    ck_assert_int_eq(r.status, 200);
    json_error_t je;
    json_t *v = json_loads(r.body, 0, &je);
    ck_assert_msg(v != NULL, "%s", je.text);
    json_t *d = json_object_get(v, "device");
    ck_assert_str_eq(json_string_value(json_object_get(d, "name")), "cuda:0");
    ck_assert_int_eq(json_integer_value(json_object_get(d, "budget_bytes")), 1 << 20);
    ck_assert_int_eq(json_integer_value(json_object_get(d, "ledger_bytes")), 1 << 19);
    ck_assert_int_eq(json_integer_value(json_object_get(d, "unaccounted_bytes")), 7);
    json_decref(v);
    reply_free(&r);
    r = fake_get(&f, "/metrics"); /* the sample that /v1/memory took */
    static const char *const want[] = {
        "vramd_memory_budget_bytes{model_name=\"fake\",device=\"cuda:0\"} 1048576\n",
        "vramd_memory_bytes{model_name=\"fake\",class=\"weights\",device=\"cuda:0\"} 524288\n",
        "vramd_memory_unaccounted_bytes{model_name=\"fake\",device=\"cuda:0\"} 7\n",
        "vramd_device_memory_used_bytes{model_name=\"fake\"} 525295\n",
        "vramd_device_memory_context_bytes{model_name=\"fake\"} 1000\n",
        "vramd_offload_step_bytes{model_name=\"fake\"} 4096\n",
        "vramd_offload_bytes_total{model_name=\"fake\"} 12288\n",
        "vramd_offload_stall_seconds_total{model_name=\"fake\"} 2.5\n",
        "vramd_offload_link_bytes_per_second{model_name=\"fake\"} 1073741824\n",
        "vramd_offload_computed_bytes{model_name=\"fake\"} 8192\n",
        "vramd_offload_compute_seconds_total{model_name=\"fake\"} 1.25\n",
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) assert_has(r.body, want[i]);
    static metric_family fam[200];
    ck_assert_int_gt(read_text(r.body, fam, 200), 40);
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(metrics_answer_within_five_milliseconds) {
    start();
    int fd = fake_connect(&f);
    const char *get = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 50; i++) {
        bool closed;
        size_t n;
        uint64_t t0 = clock_us();
        fake_send(fd, get, strlen(get));
        char *raw = fake_read(fd, "vllm:iteration_tokens_total_count{model_name=\"fake\"} 0\n",
                              3000, &n, &closed);
        uint64_t took = clock_us() - t0;
        if (took < best) best = took;
        ck_assert(strstr(raw, "200 OK") != NULL);
        free(raw);
    }
    close(fd);
    ck_assert_uint_lt(best, 5000); /* asking the kernel for its pages takes longer, each time */
    fake_stop(&f);
}
END_TEST

START_TEST(a_bucket_holds_what_is_at_most_its_bound) {
    for (int id = 0; id < HIST_N; id++) {
        const size_t n = metrics_n_bounds((histogram_id)id);
        ck_assert_uint_le(n, PORT_MAX_BUCKETS);
        ck_assert_uint_eq(histogram_bucket((histogram_id)id, 0), 0);
        for (size_t i = 0; i < n; i++) {
            const double v = metrics_bound((histogram_id)id, i);
            if (i) ck_assert(v > metrics_bound((histogram_id)id, i - 1));
            ck_assert_uint_eq(histogram_bucket((histogram_id)id, v), i);
            ck_assert_uint_eq(histogram_bucket((histogram_id)id, v * 1.0001), i + 1);
        }
        ck_assert_uint_eq(histogram_bucket((histogram_id)id, INFINITY), n);
    }
}
END_TEST

/* The tiers below the KV cache share their names, and a label says which it is. */
START_TEST(a_tier_is_named_by_a_label) {
    for (int host = 0; host < 2; host++) {
        static metric_family fam[200];
        fake_init(&f);
        f.tier = (kv_tier_view){.in_memory = host, .budget_bytes = 4096, .bytes = 1024};
        fake_start(&f);
        reply r = fake_get(&f, "/metrics");
        static const char *const name[] = {"vramd_kv_tier_on", "vramd_kv_tier_bytes",
                                           "vramd_kv_tier_budget_bytes",
                                           "vramd_kv_tier_hits_total"};
        static const int value[] = {1, 1024, 4096, 256};
        for (int i = 0; i < 4; i++) {
            char line[128];
            snprintf(line, sizeof line, "\n%s{model_name=\"fake\",tier=\"%s\"} %d\n", name[i],
                     host ? "host" : "disk", value[i]);
            assert_has(r.body, line);
        }
        ck_assert_int_gt(read_text(r.body, fam, 200), 40);
        reply_free(&r);
        fake_stop(&f);
    }
    start();
    reply r = fake_get(&f, "/metrics");
    ck_assert(!strstr(r.body, "vramd_kv_tier_"));
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_model_name_cannot_break_the_text) {
    fake_init(&f);
    f.model_id = "a\"b\\c\nd";
    fake_start(&f);
    reply r = fake_get(&f, "/metrics");
    assert_has(r.body, "vramd_ready{model_name=\"a\\\"b\\\\c\\nd\"} 1\n");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_plan_is_one_json_object) {
    plan p = {.budget_bytes = 1000,
              .total_bytes = 900,
              .load_peak_bytes = 950,
              .smallest_budget_bytes = 800,
              .fits = true,
              .block_tokens = 16,
              .kv_bytes_per_token = 10,
              .kv_block_bytes = 160,
              .kv_blocks = 3,
              .n_groups = 1,
              .group_blocks = {3},
              .group_block_bytes = {160},
              .kv_tokens = 48};
    model_config c = {.arch = "llama", .name = "A \"name\"", .n_layers = 2, .n_embd = 64};
    c.n_heads = 4, c.n_kv_heads = 2, c.head_dim = 16, c.n_ff = 128, c.n_vocab = 100;
    terms_add(&p.terms, MEM_WEIGHTS, TERM_EXACT, 420, "blk.*.ffn_* Q4_1");
    terms_add(&p.terms, MEM_LOADING, TERM_EXACT, 50, "staging");
    terms_last_while_loading(&p.terms);
    buf b;
    buf_init(&b, NULL);
    plan_json(&b, &p, NULL, &c, model_config_params(&c), DT_F32, DT_BF16, "cpu",
              STR(",\"more\":true"));
    json_t *v = json_loadb(b.ptr, b.len, 0, NULL);
    ck_assert_msg(v != NULL, "%s", buf_cstr(&b));
    ck_assert_int_eq(json_integer_value(json_object_get(v, "budget_bytes")), 1000);
    ck_assert(json_is_true(json_object_get(v, "fits")));
    ck_assert(json_is_true(json_object_get(v, "more")));
    json_t *t = json_array_get(json_object_get(v, "terms"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(t, "class")), "weights");
    ck_assert_str_eq(json_string_value(json_object_get(t, "kind")), "exact");
    ck_assert_int_eq(json_integer_value(json_object_get(t, "bytes")), 420);
    ck_assert(json_object_get(t, "while_loading") == NULL);
    t = json_array_get(json_object_get(v, "terms"), 1);
    ck_assert(json_is_true(json_object_get(t, "while_loading")));
    json_t *kv = json_object_get(v, "kv");
    ck_assert_int_eq(json_integer_value(json_object_get(kv, "blocks")), 3);
    ck_assert_str_eq(json_string_value(json_object_get(kv, "type_k")), "F32");
    ck_assert_str_eq(json_string_value(json_object_get(kv, "type_v")), "BF16");
    ck_assert_int_eq(json_integer_value(json_object_get(kv, "tokens")), 48);
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(v, "model"), "name")),
                     "A \"name\"");
    json_decref(v);
    buf_clear(&b);
    plan_clear(&p);
}
END_TEST

/* Where no counter can be read there is no such family. */
START_TEST(energy_is_counted_by_package) {
    energy_tree t;
    start();
    reply r = fake_get(&f, "/metrics");
    ck_assert_ptr_null(strstr(r.body, "vramd_energy"));
    reply_free(&r);
    energy_tree_open(&t);
    energy_add(&t, 0, "package-1\n");
    energy_set(&t, 0, 1000000);
    ck_assert_uint_eq(energy_open(t.root), 1);
    energy_set(&t, 0, 3500000);
    r = fake_get(&f, "/metrics");
    const char *line = strstr(r.body, "vramd_energy_joules_total{");
    ck_assert_ptr_nonnull(line);
    ck_assert_ptr_nonnull(strstr(line, ",package=\"1\"} 2.5\n"));
    reply_free(&r);
    energy_tree_close(&t);
    stop();
}
END_TEST

CHECK_MAIN("metrics", energy_is_counted_by_package, a_tier_is_named_by_a_label,
           a_device_has_an_account_of_its_own, the_text_is_what_prometheus_reads,
           bounds_of_buckets_are_written_as_g_writes_them,
           metrics_answer_within_five_milliseconds, a_bucket_holds_what_is_at_most_its_bound,
           a_model_name_cannot_break_the_text, a_plan_is_one_json_object)
