"""The plan, the ledger, the kernel and the metrics: the same bytes everywhere, before and after load."""

import concurrent.futures
import json
import re
import threading
import time

import pytest

from harness import MODEL, SANITIZED, Daemon, vramd

EXACT = ("weights", "kv", "activations", "logits", "workspace", "tokenizer", "grammar", "scheduler", "requests")
SETS = [
    ["--memory", "512MiB", "--max-model-len", "2048", "--max-num-seqs", "32"],
    ["--memory", "300MiB", "--max-model-len", "512", "--max-num-seqs", "4", "--max-num-batched-tokens", "64"],
    ["--max-model-len", "1024", "--kv-cache-tokens", "4096", "--block-size", "64", "--kv-cache-dtype", "bf16"],
    ["--max-model-len", "256", "--max-num-seqs", "100", "--kv-cache-tokens", "2560", "--activation-dtype", "f32",
     "--request-memory", "24MiB", "--threads", "1"],
]


def by_class(m, key="ledger_bytes"):
    return {c["class"]: c[key] for c in m["classes"]}


def within(m):
    """What the kernel counts beyond the ledger: at most 4 MiB and 0.2%."""
    return SANITIZED or m["unaccounted_bytes"] <= (4 << 20) + m["ledger_bytes"] * 0.002


def samples(text):
    """{(name, labels without model_name): value}; every line must be a comment or a sample."""
    out = {}
    for row in text.splitlines():
        if row.startswith("#"):
            assert re.match(r"# (HELP|TYPE) [a-zA-Z_:][a-zA-Z0-9_:]* .", row), row
            continue
        m = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\} (\S+)', row)
        assert m, row
        labels = tuple(sorted(x for x in re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', m[2]) if x[0] != "model_name"))
        assert (m[1], labels) not in out, "twice: " + row
        out[m[1], labels] = float(m[3])
    return out


@pytest.mark.parametrize("options", SETS, ids=lambda o: " ".join(o[:4]))
def test_plan_ledger_and_kernel_agree_before_and_after_load(options):
    plan = json.loads(vramd("plan", "--json", *options, MODEL).stdout)
    d = Daemon(*options, "--no-log-requests")
    try:
        ready = d.memory()
        assert ready["budget_bytes"] == plan["budget_bytes"] and ready["plan_bytes"] == plan["total_bytes"]
        for name, planned in by_class(ready, "plan_bytes").items():
            assert planned == sum(t["bytes"] for t in plan["terms"] if t["class"] == name), name
        assert ready["kv"]["blocks"] == plan["kv"]["blocks"] and ready["kv"]["bytes_per_token"] == plan["kv"]["bytes_per_token"]
        for name in EXACT:
            assert by_class(ready)[name] == by_class(ready, "plan_bytes")[name] > 0, name
        assert ready["ledger_bytes"] == sum(by_class(ready).values()) <= ready["budget_bytes"]
        assert within(ready), ready
        kv = ready["kv"]
        assert by_class(ready)["kv"] == kv["blocks"] * kv["block_tokens"] * kv["bytes_per_token"]

        def ask(i):
            return d.complete([7 + i] * (20 + i), max_tokens=16, logprobs=5, ignore_eos=True).status_code

        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            assert set(pool.map(ask, range(24))) == {200}
        d.wait_free()
        after = d.memory()
        for name in EXACT:
            assert by_class(after)[name] == by_class(ready)[name] == by_class(after, "peak_bytes")[name], name
        assert after["peak_bytes"] <= after["budget_bytes"] and within(after), after
        assert SANITIZED or after["process"]["anonymous_bytes"] <= after["budget_bytes"]
    finally:
        d.stop()


def test_memory_numbers_hold_while_requests_run(daemon):
    stop = threading.Event()

    def work(i):
        while not stop.is_set():
            daemon.complete([i] * 40, max_tokens=30, ignore_eos=True)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    try:
        used, samples, give_up = 0, 0, time.monotonic() + 60
        while samples < 30 or not used:  # a slow build takes a while to get going
            assert time.monotonic() < give_up
            samples += 1
            m = daemon.memory()
            kv = m["kv"]
            assert kv["used"] + kv["free"] + kv["cached"] == kv["blocks"]
            assert m["ledger_bytes"] <= m["peak_bytes"] <= m["budget_bytes"]
            used = max(used, kv["used"])
            time.sleep(0.02)
    finally:
        stop.set()
        for t in threads:
            t.join()
    daemon.wait_free()


def test_sequences_and_the_cache_are_at_most_a_step_apart():
    """The cache's numbers may be a step old; while all decode, a step takes at most a block each."""
    d = Daemon("--max-model-len", "1024", "--max-num-seqs", "8", "--no-log-requests")
    started, stop = threading.Barrier(9), threading.Event()

    def stream(i):
        with d.http.stream("POST", "/v1/completions", json={
                "prompt": [i] * 40, "max_tokens": 900, "ignore_eos": True, "stream": True}) as r:
            lines = r.iter_lines()
            for _ in range(8):
                next(lines)
            started.wait(60)
            while not stop.is_set():
                next(lines)

    threads = [threading.Thread(target=stream, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    try:
        started.wait(60)
        seen = 0
        for _ in range(20):
            m = d.memory()
            running = [s for s in m["sequences"] if s["state"] == "running"]
            if len(running) < 8:
                break
            told = sum(s["blocks"] for s in running)
            assert abs(told - m["kv"]["used"]) <= 8, (told, m["kv"])
            seen += 1
            time.sleep(0.02)
        assert seen >= 5
    finally:
        stop.set()
        for t in threads:
            t.join()
        d.wait_free()
        d.stop()


def test_metrics_carry_every_name_that_routers_and_dashboards_read(daemon):
    daemon.complete("x", max_tokens=2)
    r = daemon.http.get("/metrics")
    assert r.headers["content-type"].startswith("text/plain")
    now = samples(r.text)
    names = {n for n, _ in now}
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info",
                 "num_preemptions_total", "prompt_tokens_total", "generation_tokens_total", "prefix_cache_queries_total",
                 "prefix_cache_hits_total", "request_success_total"):
        assert "vllm:" + name in names, name
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
                 "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
                 "iteration_tokens_total"):
        assert {f"vllm:{name}_{x}" for x in ("bucket", "sum", "count")} <= names, name
    bounds = [float(dict(l)["le"]) for n, l in now if n == "vllm:time_to_first_token_seconds_bucket"]
    assert bounds == [.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
                      2560, float("inf")]
    for name in ("memory_bytes", "memory_budget_bytes", "memory_peak_bytes", "memory_unaccounted_bytes",
                 "memory_plan_bytes", "kv_blocks", "kv_bytes_per_token"):
        assert "vramd_" + name in names, name
    assert all(re.search(r'model_name="[^"]+"', row) for row in r.text.splitlines() if not row.startswith("#"))


def test_metrics_and_memory_tell_the_same_bytes(daemon):
    daemon.wait_free()
    m, now = daemon.memory(), samples(daemon.http.get("/metrics").text)
    for key, metric in (("ledger_bytes", "vramd_memory_bytes"), ("plan_bytes", "vramd_memory_plan_bytes")):
        told = {dict(l)["class"]: v for (n, l), v in now.items() if n == metric}
        for name in EXACT:
            assert told[name] == by_class(m, key)[name], (metric, name)
    for state in ("free", "used", "cached"):
        assert now["vramd_kv_blocks", (("state", state),)] == m["kv"][state]
    (info,) = [dict(l) for n, l in now if n == "vllm:cache_config_info"]
    assert int(info["block_size"]) == m["kv"]["block_tokens"] and int(info["num_gpu_blocks"]) == m["kv"]["blocks"]
    table = daemon.http.get("/v1/memory", headers={"Accept": "text/plain"})
    assert table.headers["content-type"].startswith("text/plain")
    assert all(name in table.text for name in EXACT)


@pytest.mark.parametrize("options", [[], ["--max-num-seqs", "4", "--max-num-batched-tokens", "64"],
                                     ["--kv-cache-dtype", "f32"]], ids=["default", "small", "f32"])
def test_a_byte_less_than_the_smallest_budget_is_refused(options):
    options = ["--max-model-len", "512", *options]
    refused = vramd("serve", "--model", MODEL, "--port", "0", "--memory", "90MiB", *options)
    assert refused.returncode == 7 and "memory = 90MiB" in refused.stderr, refused.stderr
    least = int(re.search(r"smallest budget that works is ([\d,]+) bytes", refused.stderr)[1].replace(",", ""))
    assert least == json.loads(vramd("plan", "--json", *options, MODEL).stdout)["smallest_budget_bytes"]
    less = vramd("serve", "--model", MODEL, "--port", "0", "--memory", str(least - 1), *options)
    assert less.returncode == 7 and "READY" not in less.stderr
    d = Daemon("--memory", str(least), *options)
    try:
        m = d.memory()
        assert m["budget_bytes"] == least and m["kv"]["blocks"] * m["kv"]["block_tokens"] == 512
        r = d.complete([5] * 256, max_tokens=256, ignore_eos=True).json()
        assert r["usage"]["total_tokens"] == 512 and d.memory()["peak_bytes"] <= least
    finally:
        d.stop()
