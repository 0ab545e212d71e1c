"""Memory and metrics: the plan, the ledger and the operating system, before and during requests."""

import json
import re
import threading

from prometheus_client.parser import text_string_to_metric_families

from harness import MODEL, OPTIONS, SANITIZED, Daemon, vramd


def scrape(daemon):
    """{sample name: {labels without model_name: value}}"""
    out = {}
    for family in text_string_to_metric_families(daemon.http.get("/metrics").text):
        for s in family.samples:
            labels = tuple(sorted((k, v) for k, v in s.labels.items() if k != "model_name"))
            out.setdefault(s.name, {})[labels] = s.value
    return out


def test_a_running_sequence_is_in_the_account(daemon):
    daemon.wait_free()
    started, done = threading.Event(), threading.Event()

    def stream():
        with daemon.http.stream("POST", "/v1/completions", json={
                "prompt": [9] * 100, "max_tokens": 400, "ignore_eos": True, "stream": True}) as r:
            lines = r.iter_lines()
            for _ in range(20):
                next(lines)
            started.set()
            done.wait(60)

    t = threading.Thread(target=stream)
    t.start()
    assert started.wait(60)
    m = daemon.memory()
    now = scrape(daemon)
    done.set()
    t.join(60)
    (seq,) = m["sequences"]
    kv = m["kv"]
    assert seq["state"] == "running" and 100 < seq["tokens"] <= 500
    assert seq["prompt_tokens"] == 100 and seq["cached_tokens"] <= 96 and seq["tenant"] is None
    assert 0 < seq["itl_ms"] / 1000 * (seq["tokens"] - 101) < seq["age_s"] < 60
    assert seq["blocks"] * 16 >= seq["tokens"] - 1 and seq["bytes"] == seq["blocks"] * 16 * kv["bytes_per_token"]
    # The list and the cache are at most a step, here a token and so a block, apart.
    assert 0 <= kv["used"] - seq["blocks"] <= 1 and kv["used"] + kv["free"] + kv["cached"] == kv["blocks"]
    assert now["vramd_requests_running"][()] == 1 == now["vllm:num_requests_running"][()]
    assert 0 < now["vllm:kv_cache_usage_perc"][()] < 1
    assert now["vramd_kv_blocks"][(("state", "used"),)] >= kv["used"]
    daemon.wait_free()
    assert daemon.memory()["sequences"] == []


def test_groups_and_peaks_add_up(daemon):
    daemon.wait_free()
    daemon.complete([11] * 200, max_tokens=2, ignore_eos=True)
    daemon.wait_free()
    kv = daemon.memory()["kv"]
    for key in ("blocks", "free", "used", "cached"):
        assert kv[key] == sum(g[key] for g in kv["groups"]), key
    (group,) = kv["groups"]
    assert group["window"] == 0 and group["block_bytes"] == kv["block_tokens"] * kv["bytes_per_token"]
    assert group["fenced"] <= group["used"] == 0 < 200 // 16 <= group["peak_used"] <= group["blocks"]
    assert group["watermark"] == -(-group["blocks"] // 20)  # 50 permille
    assert scrape(daemon)["vramd_kv_blocks_peak"][()] == group["peak_used"]


def test_cached_blocks_that_are_taken_for_others_are_counted():
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "2", "--kv-cache-tokens", "256", "--no-log-requests")
    try:
        for i in range(3):
            d.complete([20 + i] * 160, max_tokens=2, ignore_eos=True)
        d.wait_free()
        # Of 16 blocks each prompt fills 10 and takes one more: the second evicts 5, the third all of its 11 but one.
        assert scrape(d)["vramd_prefix_cache_evictions_total"][()] == 15
        assert d.memory()["kv"]["groups"][0]["peak_used"] == 11
    finally:
        d.stop()


def test_less_than_one_percent_of_the_memory_is_unaccounted(daemon):
    daemon.wait_free()
    for _ in range(4):
        daemon.complete([12] * 300, max_tokens=20, logprobs=5, ignore_eos=True)
    m = daemon.memory()
    assert SANITIZED or abs(m["unaccounted_bytes"]) < m["ledger_bytes"] * 0.01


def test_metrics_count_what_was_done(daemon):
    daemon.wait_free()
    a = scrape(daemon)
    daemon.complete([7] * 50, max_tokens=11, ignore_eos=True)
    b = scrape(daemon)
    grown = lambda name, *labels: b[name][labels] - a[name][labels]
    assert grown("vramd_prompt_tokens_total") == 50 == grown("vllm:prompt_tokens_total")
    assert grown("vramd_generated_tokens_total") == 11 == grown("vllm:generation_tokens_total")
    assert grown("vllm:request_success_total", ("finished_reason", "length")) == 1
    for h in ("vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds",
              "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds",
              "vllm:request_decode_time_seconds"):
        assert grown(h + "_count") == 1, h
    assert grown("vllm:inter_token_latency_seconds_count") == 10


def test_histograms_are_cumulative_and_memory_adds_up(daemon):
    now = scrape(daemon)
    for name in [n for n in now if n.endswith("_bucket")]:
        by_le = sorted((float(dict(k)["le"]), v) for k, v in now[name].items())
        counts = [v for _, v in by_le]
        assert counts == sorted(counts) and by_le[-1][0] == float("inf")
        assert counts[-1] == now[name.replace("_bucket", "_count")][()]
    m = daemon.memory()
    by_class = {dict(k)["class"]: v for k, v in now["vramd_memory_bytes"].items()}
    assert by_class["weights"] == next(c["ledger_bytes"] for c in m["classes"] if c["class"] == "weights")
    assert now["vramd_memory_budget_bytes"][(("device", "cpu"),)] == m["budget_bytes"]
    assert sum(c["plan_bytes"] for c in m["classes"] if c["class"] != "loading") <= m["budget_bytes"]


def test_the_smallest_budget_that_is_named_serves():
    options = ["--max-model-len", "256", "--max-num-seqs", "32"]
    refused = vramd("serve", "--model", MODEL, "--memory", "64MiB", *options)
    assert refused.returncode == 7
    least = re.search(r"smallest budget that works is ([\d,]+) bytes", refused.stderr)[1].replace(",", "")
    d = Daemon("--memory", least, *options)
    try:
        m = d.memory()
        assert m["budget_bytes"] == int(least)
        assert m["kv"]["blocks"] == 256 // 16
        assert SANITIZED or m["process"]["anonymous_bytes"] <= int(least)
        assert len(d.say("The capital of France is", max_tokens=240, ignore_eos=True)) > 240
        assert d.memory()["ledger_bytes"] <= int(least)
        assert SANITIZED or d.memory()["process"]["anonymous_bytes"] <= int(least)
    finally:
        d.stop()


def test_the_plan_of_every_cache_type_is_what_is_served():
    said = {}
    for kind, kinds, bytes_per_token in (("f16", ["F16", "F16"], 23040), ("f32", ["F32", "F32"], 46080),
                                         ("mixed", ["F32", "F16"], 34560), ("int8", ["INT8", "INT8"], 11880),
                                         ("q8_0", ["Q8_0", "Q8_0"], 12240), ("fp8", ["FP8", "FP8"], 11880), ("k8v4", ["INT8", "INT4"], 9000),
                                         ("int4", ["INT4", "INT4"], 6120)):
        types = (["--kv-cache-dtype", kind] if kinds[0] == kinds[1] else
                 ["--cache-type-k", kinds[0], "--cache-type-v", kinds[1]])
        options = [*OPTIONS, *types, "--kv-cache-tokens", "2048"]
        plan = json.loads(vramd("plan", "--json", *options, MODEL).stdout)
        assert plan["kv"]["bytes_per_token"] == bytes_per_token and plan["kv"]["tokens"] == 2048
        d = Daemon(*options)
        try:
            m = d.memory()
            assert m["budget_bytes"] == plan["budget_bytes"] or m["plan_bytes"] == plan["total_bytes"]
            kv = next(c for c in m["classes"] if c["class"] == "kv")
            taken = [g["blocks"] * g["block_bytes"] for g in plan["kv"]["groups"]]  # the second is the tail of 4 bits
            assert taken[0] == 2048 * bytes_per_token and len(taken) == 1 + (kinds[1] == "INT4")
            assert kv["ledger_bytes"] == kv["plan_bytes"] == sum(taken)
            assert [m["kv"]["type_k"], m["kv"]["type_v"]] == kinds == [plan["kv"]["type_k"], plan["kv"]["type_v"]]
            said[kind] = d.say("Once upon a time", max_tokens=8)
        finally:
            d.stop()
    for kind in ("f32", "mixed", "int8", "q8_0"):
        assert said[kind][:10] == said["f16"][:10], kind
