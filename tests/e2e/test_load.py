"""Many at once: crowds, queues, preemption and clients that leave. Nothing may change a text or stay held."""

import concurrent.futures
import http.client
import json
import signal
import time

import pytest

from harness import Daemon

WORDS = "river engine winter garden paper signal castle harbour mountain letter".split()


def crowd(jobs, do):
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(do, jobs))


def ask(d, body):
    """The texts of a request by index, streamed or not."""
    if not body.get("stream"):
        r = d.http.post("/v1/completions", json=body)
        assert r.status_code == 200, r.text
        return [c["text"] for c in r.json()["choices"]]
    texts = {}
    for doc in d.events("/v1/completions", body):
        for c in doc["choices"]:
            texts[c["index"]] = texts.get(c["index"], "") + c["text"]
    return [texts[i] for i in sorted(texts)]


def counter(d, name):
    (row,) = [x for x in d.http.get("/metrics").text.splitlines() if x.startswith(name + "{")]
    return float(row.rsplit(" ", 1)[1])


def test_32_different_kinds_at_once_say_what_each_says_alone(daemon):
    """Greedy and drawn, streamed and whole, short and long prompts, one choice and two."""
    jobs = []
    for i in range(32):
        body = {"prompt": f"The {WORDS[i % 10]} of the {WORDS[(i * 7 + 3) % 10]} " * (1 + 9 * (i % 4 == 3)) + str(i),
                "max_tokens": 6 + i % 9, "temperature": (i % 3) * 0.5, "seed": i, "stream": i % 2 == 1,
                "n": 1 + (i % 8 == 5), "ignore_eos": True}
        jobs.append(body)
    alone = [ask(daemon, b) for b in jobs]
    assert crowd(jobs, lambda b: ask(daemon, b)) == alone
    daemon.wait_free()


def test_32_streams_that_all_break_off_free_everything(daemon):
    before = daemon.memory()

    def leave(i):
        with daemon.http.stream("POST", "/v1/completions", json={
                "prompt": f"Count from {i}:", "max_tokens": 900, "ignore_eos": True, "stream": True}) as r:
            assert r.status_code == 200
            lines = r.iter_lines()
            for _ in range(1 + i % 4):
                next(lines)

    crowd(range(32), leave)
    daemon.wait_free()
    after = daemon.memory()
    by_class = lambda m: {c["class"]: c["ledger_bytes"] for c in m["classes"] if c["class"] != "http"}
    assert after["sequences"] == [] and by_class(after) == by_class(before)
    assert after["requests"]["used"] <= before["requests"]["used"] + 65536


def test_whoever_leaves_without_a_stream_is_cancelled_too(daemon):
    before = counter(daemon, "vramd_generated_tokens_total")
    c = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    c.request("POST", "/v1/completions", body=json.dumps({"prompt": "x", "max_tokens": 900, "ignore_eos": True}))
    end = time.monotonic() + 30
    while not daemon.memory()["sequences"]:
        assert time.monotonic() < end, "the request never ran"
    c.close()
    daemon.wait_free()
    assert counter(daemon, "vramd_generated_tokens_total") - before < 900


@pytest.fixture
def small():
    d = Daemon("--max-model-len", "512", "--max-num-seqs", "8", "--kv-cache-tokens", "768")
    yield d
    d.stop()


def test_preempted_requests_say_what_they_say_alone(small):
    """Streamed and drawn with a seed, so that a recomputed row would show in every later token."""
    jobs = [{"prompt": f"A story about a {w}:", "max_tokens": 150, "ignore_eos": True, "temperature": (i % 2) * 0.7,
             "seed": 100 + i, "stream": i % 3 == 0} for i, w in enumerate(WORDS[:8])]
    alone = [ask(small, b) for b in jobs]
    assert counter(small, "vramd_preemptions_total") == 0
    assert crowd(jobs, lambda b: ask(small, b)) == alone
    assert counter(small, "vramd_preemptions_total") > 0
    small.wait_free()


def test_waiting_requests_can_leave(small):
    """8 run, 8 wait; all 16 leave; the next request has the whole cache to itself."""
    def leave(i):
        try:
            small.http.post("/v1/completions", timeout=1.5, json={
                "prompt": f"Say {i}:", "max_tokens": 400, "ignore_eos": True})
        except Exception as e:
            return type(e).__name__
    assert "ReadTimeout" in crowd(range(16), leave)
    small.wait_free()
    m = small.memory()
    assert m["sequences"] == [] and m["kv"]["free"] + m["kv"]["cached"] == m["kv"]["blocks"] == 48
    assert small.complete("x", max_tokens=500, ignore_eos=True).json()["usage"]["completion_tokens"] == 500


def test_a_full_queue_answers_429_and_serves_the_rest():
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "1", "--max-waiting", "1")
    try:
        done = crowd(range(12), lambda i: d.complete("Hello", max_tokens=100, ignore_eos=True))
        codes = sorted(r.status_code for r in done)
        assert codes[0] == 200 and codes[-1] == 429 and set(codes) == {200, 429}
        for r in done:
            if r.status_code == 429:
                e = r.json()["error"]
                assert (e["type"], e["code"], e["param"]) == ("rate_limit_error", 429, None)
                assert int(r.headers["retry-after"]) >= 1
        texts = {r.json()["choices"][0]["text"] for r in done if r.status_code == 200}
        assert len(texts) == 1
        many = d.http.post("/v1/completions", json={"prompt": "Hello", "n": 2, "max_tokens": 100, "stream": True})
        assert many.status_code in (200, 429), many.text
        d.wait_free()
    finally:
        d.stop()


def test_a_second_signal_ends_what_runs():
    d = Daemon("--max-model-len", "1024", "--drain-timeout", "600")
    with d.http.stream("POST", "/v1/completions", json={
            "prompt": "Count:", "max_tokens": 1000, "ignore_eos": True, "stream": True}) as r:
        lines = r.iter_lines()
        next(lines)
        d.process.send_signal(signal.SIGTERM)
        d.wait_log("draining")
        d.process.send_signal(signal.SIGTERM)
        rest = [x for x in lines if x]
    assert any('"error"' in x for x in rest) and rest[-1] == "data: [DONE]"
    assert d.process.wait(20) == 0
    d.stop()
