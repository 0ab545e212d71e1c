"""What a gateway's endpoint picker reads in /metrics: names, types, labels, how fresh; and a picker by them, with prefix
affinity and a guard against load."""

import asyncio
import json
import random
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from prometheus_client.parser import text_string_to_metric_families

import replicas
from harness import Daemon
from tiny_model import write

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
        end = time.monotonic() + 60  # the step goes on for a second or more, and is over then: what is not counted until its end is found below
        sockets.append(socket.create_connection(("127.0.0.1", d.port), timeout=120))
        sockets[-1].sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while True:
            gauges, _ = scrape(d.http)
            if gauges["vllm:num_requests_waiting"] + gauges["vllm:num_requests_running"] == n:
                break
            assert time.monotonic() < end, gauges
    steps = re.search(r"^vramd_steps_total\{.*\} (\d+)$", d.http.get("/metrics").text, re.M)
    assert int(steps[1]) == 0, steps[0]  # all are counted, and the first step has not ended
    for s in sockets:
        assert s.recv(12) == b"HTTP/1.1 200"
        s.close()
    gauges, _ = scrape(d.http)
    assert gauges["vllm:num_requests_waiting"] == gauges["vllm:num_requests_running"] == 0
    d.stop()


class Picker:
    """Reads all replicas again and again. A session stays with its replica, unless that has GUARD requests more than the
    one with the fewest or hardly any free block; a new one goes to the one with the fewest. What it has sent itself, and
    what has ended, it counts at once: readings come late, a second or more on a busy machine, and a load that only grows
    between them drives sessions away from replicas that are idle."""

    GUARD = 16

    def __init__(self, daemons):
        self.urls, self.home = [d.url for d in daemons], {}
        self.sent, self.ended, self.others = ({u: 0 for u in self.urls} for _ in range(3))
        self.stopped, self.random = False, random.Random(1)
        self.read_all()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def read_all(self):
        for url in self.urls:
            known = self.sent[url] - self.ended[url]
            with httpx.Client(base_url=url, timeout=30) as http:
                text = http.get("/metrics").text
            waiting, running, _, usage = (float(re.search(rf"^{g}{{.*}} (.*)$", text, re.M)[1]) for g in GAUGES)
            self.others[url] = max(0, waiting + running - known) + 1000 * (usage > 0.95)

    def watch(self):
        while not self.stopped:
            self.read_all()
            time.sleep(0.05)

    def load(self, url):
        return self.others[url] + self.sent[url] - self.ended[url]

    def __call__(self, session):
        load = {u: self.load(u) for u in self.urls}
        least = min(load.values())
        home = self.home.get(session)
        if home is None or load[home] > least + self.GUARD:
            home = self.random.choice([u for u in self.urls if load[u] <= least + 1])
        self.home[session] = home
        self.sent[home] += 1
        return home

    def done(self, url):
        self.ended[url] += 1

    def close(self):
        self.stopped = True
        self.thread.join()


def test_a_picker_by_these_metrics_finds_prefixes_and_spreads_load(tmp_path):
    path = str(tmp_path / "tiny.gguf")
    write(path, "Q8_0")
    daemons = [Daemon("--model", path, *replicas.OPTIONS) for _ in range(3)]
    picker = Picker(daemons)
    try:
        alone = asyncio.run(replicas.converse(daemons[0].url, 48, "alone"))
        picked = asyncio.run(replicas.converse(picker, 48, "picked"))
        print(f"cached share of prompts: {picked} by the picker, {alone} with one replica")
        assert picked >= 0.9 * alone, (picked, alone)
        assert min(picker.sent.values()) > 48 * 4 / 3 / 2, picker.sent
        # A replica that is busy with others is left alone, for its own sessions, too.
        busy, session = daemons[1], "picked-0"
        picker.home[session] = busy.url
        with ThreadPoolExecutor(32) as pool:
            body = {"prompt": "a", "max_tokens": 900, "ignore_eos": True}
            work = [pool.submit(httpx.post, busy.url + "/v1/completions", json=body, timeout=120) for _ in range(32)]
            end = time.monotonic() + 20
            while picker(session) == busy.url and time.monotonic() < end:
                picker.done(busy.url)
                time.sleep(0.02)
            assert picker.home[session] != busy.url or all(w.done() for w in work)
            assert all(w.result().status_code == 200 for w in work)
    finally:
        picker.close()
        for d in daemons:
            d.stop()
