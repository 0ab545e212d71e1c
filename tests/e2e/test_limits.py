"""Full queues, deadlines, and clients that send too slowly or too much."""

import re
import socket
import threading
import time

import openai
import pytest

from harness import Daemon

LONG = {"max_tokens": 900, "ignore_eos": True, "stream": True}


class Streams:
    """Streams that run or wait until the block ends."""

    def __init__(self, d):
        self.d, self.open = d, []

    def __enter__(self):
        return self

    def add(self, **body):
        s = self.d.http.stream("POST", "/v1/completions", json={"prompt": "Count:", **LONG, **body})
        r = s.__enter__()
        self.open.append(s)
        return r

    def __exit__(self, *_):
        for s in self.open:
            s.__exit__(None, None, None)


def gauge(d, name):
    return float(re.search(rf"^{name}\{{[^}}]*\}} (\S+)", d.http.get("/metrics").text, re.M)[1])


def wait_gauge(d, name, want):
    for _ in range(500):
        if gauge(d, name) == want:
            return
        time.sleep(0.01)
    raise AssertionError(f"{name} is {gauge(d, name)}, not {want}")


def test_the_queue_holds_so_many_requests_and_so_many_tokens():
    d = Daemon("--max-model-len", "1024", "--max-num-seqs", "2", "--max-waiting", "3", "--max-waiting-tokens", "500")
    try:
        for _ in range(4):
            assert d.complete("Count:", max_tokens=30, ignore_eos=True).status_code == 200
        mean = (gauge(d, "vramd_request_prefill_seconds_sum") + gauge(d, "vramd_request_decode_seconds_sum")) / 4
        with Streams(d) as s:
            for _ in range(2):
                s.add()
            wait_gauge(d, "vramd_requests_running", 2)
            for _ in range(3):
                s.add()
            wait_gauge(d, "vramd_requests_waiting", 3)
            r = d.complete("Count:")
            assert r.status_code == 429 and r.json()["error"]["type"] == "rate_limit_error"
            assert "5 requests wait or run" in r.json()["error"]["message"]
            # Five sequences, two at a time, each as long as those before.
            wait = int(r.headers["retry-after"])
            assert max(1, int(mean * 2.5 / 3)) <= wait <= max(1, mean * 2.5 * 3) + 1, (wait, mean)
            with pytest.raises(openai.RateLimitError):
                d.client.completions.create(model="", prompt="x")
        d.wait_free()
        with Streams(d) as s:
            for _ in range(2):
                s.add()
            wait_gauge(d, "vramd_requests_running", 2)
            s.add(prompt=[5] * 400, max_tokens=600)
            wait_gauge(d, "vramd_waiting_tokens", 400)
            r = d.complete([6] * 101)
            assert r.status_code == 429 and "400 prompt tokens wait" in r.json()["error"]["message"]
            assert int(r.headers["retry-after"]) >= 1
            s.add(prompt=[6] * 100, max_tokens=10)  # just fits
            wait_gauge(d, "vramd_waiting_tokens", 500)
        d.wait_free()
    finally:
        d.stop()


def test_deadlines_in_the_queue_and_while_running():
    d = Daemon("--max-model-len", "1024", "--max-num-seqs", "1", "--request-timeout", "3600")
    try:
        with Streams(d) as s:
            s.add()
            wait_gauge(d, "vramd_requests_running", 1)
            r = d.complete("Count:", timeout=0.1)
            assert r.status_code == 408 and r.json()["error"]["type"] == "timeout_error"
            r = d.complete("Count:", timeout=0.1, stream=True, n=2)
            assert r.status_code == 200 and r.text.startswith('data: {"error":{')
            assert '"code":408' in r.text and r.text.endswith("data: [DONE]\n\n")
            wait_gauge(d, "vramd_requests_waiting", 0)
        d.wait_free()
        c = d.choice("Count:", max_tokens=1000, ignore_eos=True, timeout=0.5)
        assert c["text"] and c["finish_reason"] == "length" and c["stop_reason"] == "timeout"
        last = d.events("/v1/completions", {"prompt": "Count:", "max_tokens": 1000, "ignore_eos": True,
                                            "timeout": 0.5})[-1]["choices"][0]
        assert last["finish_reason"] == "length" and last["stop_reason"] == "timeout"
        d.wait_free()
    finally:
        d.stop()


def test_the_server_ends_what_takes_too_long():
    d = Daemon("--max-model-len", "8192", "--max-num-seqs", "1", "--request-timeout", "1")
    try:
        for more in ({}, {"timeout": 3600}):
            c = d.choice("Count:", max_tokens=8000, ignore_eos=True, **more)
            assert c["stop_reason"] == "timeout", c
    finally:
        d.stop()


def closed_after(port, pieces):
    """Sends a byte at a time, for 15 seconds or more; how long until the server closes."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.settimeout(0.1)
        for piece in pieces:
            try:
                s.sendall(piece)
                if s.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            raise AssertionError("the server has waited for all of it")
    return time.monotonic() - began


def test_slow_senders_are_cut_off_and_hold_no_place():
    d = Daemon("--max-model-len", "1024", "--header-timeout", "1", "--body-timeout", "1", "--max-connections", "20")
    try:
        slow_head = [b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "] + [b"x"] * 150
        slow_body = [b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"] + [b"{"] * 150
        took, threads = [], []
        for i in range(20):
            threads.append(threading.Thread(
                target=lambda i=i: took.append(closed_after(d.port, slow_head if i % 2 else slow_body))))
            threads[-1].start()
        for t in threads:
            t.join()
        assert len(took) == 20 and min(took) >= 0.5, took  # a server that waits for ever is found by closed_after
        assert d.http.get("/health").status_code == 200
        assert d.say("Count:")
        wait_gauge(d, "vramd_http_connections", 1)
    finally:
        d.stop()


def test_too_much_is_refused_in_json(daemon):
    for n, status in ((7000, 200), (9000, 431), (12000, 431)):
        r = daemon.http.get("/health", headers={"X-Long": "x" * n})
        assert r.status_code == status, n
    assert r.json()["error"]["code"] == 431
    many = {f"X-{i}": "y" * 80 for i in range(120)}
    assert daemon.http.get("/health", headers=many).status_code == 431
    r = daemon.http.post("/v1/completions", content=b" " * (4 << 20) + b"x")
    assert r.status_code == 413 and r.json()["error"]["code"] == 413
    chunks = (b" " * 65536 for _ in range(65))  # no Content-Length: counted as it comes
    r = daemon.http.post("/v1/completions", content=chunks)
    assert r.status_code == 413
    assert daemon.http.post("/v1/completions", content=b" " * (4 << 20)).status_code == 400
    for text in (b"a ", b'\\"'):  # many words, and one: wherever memory ends, never "retry"
        for n in (250000, 400000, 500000, 650000, 1000000, 1500000, 2000000):
            r = daemon.http.post("/v1/completions", content=b'{"prompt":"%s"}' % (text * n))
            assert r.status_code == (400 if "maximum context length" in r.text else 413), r.text
        assert r.status_code == 413
