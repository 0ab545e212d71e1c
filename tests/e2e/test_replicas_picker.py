"""What a gateway's endpoint picker reads in /metrics: names, types, labels, how fresh."""

import json
import re
import socket
import time

from prometheus_client.parser import text_string_to_metric_families

from harness import Daemon

GAUGES = ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")


def scrape(http):
    """{name: value} of the gauges, and the labels of vllm:cache_config_info."""
    r = http.get("/metrics")
    assert r.status_code == 200
    out, config = {}, None
    for family in text_string_to_metric_families(r.text):
        if family.name in GAUGES:
            sample, = family.samples
            assert family.type == "gauge" and list(sample.labels) == ["model_name"], family
            out[family.name] = sample.value
        elif family.name == "vllm:cache_config_info":
            sample, = family.samples
            config = sample.labels
    assert len(out) == len(GAUGES)
    return out, config


def test_the_names_and_labels_are_those_that_pickers_read(daemon):
    gauges, config = scrape(daemon.http)
    model = daemon.http.get("/v1/models").json()["data"][0]["id"]
    assert config["model_name"] == model
    kv = daemon.memory()["kv"]
    assert int(config["block_size"]) * int(config["num_gpu_blocks"]) == kv["block_tokens"] * kv["blocks"]


def test_cached_blocks_count_as_free(daemon):
    daemon.say("One prompt that stays in the cache. " * 10, max_tokens=1)
    daemon.wait_free()
    assert daemon.memory()["kv"]["cached"] > 0
    gauges, _ = scrape(daemon.http)
    assert gauges["vllm:kv_cache_usage_perc"] == gauges["vllm:gpu_cache_usage_perc"] == 0


def test_requests_are_counted_in_the_middle_of_a_long_step():
    """All of a long prompt is one step; what comes meanwhile has to be seen before its end."""
    d = Daemon("--max-model-len", "2048", "--max-num-seqs", "32", "--max-num-batched-tokens", "2048", "--threads", "1")
    sockets = []
    for n in range(1, 5):
        body = json.dumps({"prompt": list(range(1000, 2600)) if n == 1 else [n, n, n], "max_tokens": 1}).encode()
        began = time.monotonic()
        sockets.append(socket.create_connection(("127.0.0.1", d.port), timeout=120))
        sockets[-1].sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while True:
            gauges, _ = scrape(d.http)
            if gauges["vllm:num_requests_waiting"] + gauges["vllm:num_requests_running"] == n:
                break
            assert time.monotonic() - began < 20, gauges
    steps = re.search(r"^vramd_steps_total\{.*\} (\d+)$", d.http.get("/metrics").text, re.M)
    assert int(steps[1]) == 0, steps[0]  # all are counted, and the first step has not ended
    for s in sockets:
        assert s.recv(12) == b"HTTP/1.1 200"
        s.close()
    gauges, _ = scrape(d.http)
    assert gauges["vllm:num_requests_waiting"] == gauges["vllm:num_requests_running"] == 0
    d.stop()
